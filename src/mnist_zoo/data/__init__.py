"""Everything between a file and a minibatch on the device."""

from mnist_zoo.data.datasets import (
    EMNIST,
    KMNIST,
    MNIST,
    QMNIST,
    Digits,
    FashionMNIST,
    TextFile,
)
from mnist_zoo.data.expansion import expand
from mnist_zoo.data.loader import Batches
from mnist_zoo.data.module import ImageData, to_float
from mnist_zoo.data.text import read_text, write_text
from mnist_zoo.errors import DataError

__all__ = [
    "EMNIST",
    "KMNIST",
    "MNIST",
    "QMNIST",
    "Batches",
    "DataError",
    "Digits",
    "FashionMNIST",
    "ImageData",
    "TextFile",
    "expand",
    "read_text",
    "to_float",
    "write_text",
]
