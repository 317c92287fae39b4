"""The data sets: MNIST and its relatives, scikit-learn's digits, and text files."""

from __future__ import annotations

import abc
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from mnist_zoo.data.download import alone, download, how_to_bring
from mnist_zoo.data.idx import LABELS, LONG_LABELS, find, read_images
from mnist_zoo.data.module import ImageData
from mnist_zoo.data.text import read_text
from mnist_zoo.errors import DataError
from mnist_zoo.files import absolute


class _IdxData(ImageData):
    """A torchvision data set in four idx files, downloaded if missing.

    Existing files are verified by checksum for MNIST; for the other data sets, only headers are
    checked.

    Args:
        root: Folder of all data sets, with ``MNIST/raw`` and the like in it (default:
            $MNIST_ZOO_DATA, else data).
        download: Whether to download missing files; without it they are an error.
        **kwargs: Arguments of ``ImageData``.
    """

    names: ClassVar[tuple[str, str, str, str]] = (
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
    )
    """Training images, training labels, test images, test labels."""
    labels_magic: ClassVar[int] = LABELS
    md5s: ClassVar[Mapping[str, str]] = {}
    """MD5 of the files whose checksums are known, by name."""
    options: ClassVar[Mapping[str, str]] = {}
    """Further arguments of the class in torchvision."""

    def __init__(self, root: str | None = None, download: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        root = root or os.environ.get("MNIST_ZOO_DATA") or "data"
        self.root = absolute(root)
        self.download = download
        # Checkpoints hold this, and must find the data from any folder.
        self.hparams["root"] = str(self.root)

    @property
    @abc.abstractmethod
    def source(self) -> str:
        """Name of the class in ``torchvision.datasets``, and of the folder in ``root``."""

    @property
    def raw(self) -> Path:
        """Absolute path of the folder of the four files."""
        return self.root / self.source / "raw"

    def prepare_data(self) -> None:
        """Download missing files; raise DataError if that is disabled or fails."""
        missing = self._missing()
        above = self.root.parent
        for folder, wanted in ((self.root / "raw", above), (self.root, above.parent)):
            if missing and all(find(folder / name) for name in missing):
                raise DataError(
                    f"{self.source} lies in {folder}: --data.root must be the folder two levels up."
                    f" Did you mean --data.root {wanted}?"
                )
        if missing and not self.download:
            raise DataError(
                f"{self.source} is not in {self.raw} and --data.download is false.\n"
                f"{how_to_bring(self.source, self.raw, missing)}"
            )
        if missing:
            # Of several training processes, one downloads while the others wait.
            with alone(self.root):
                if missing := self._missing():
                    download(self.source, self.root, missing, **self.options)

    def _missing(self) -> list[str]:
        return [name for name in self.names if find(self.raw / name) is None]

    def load(self, train: bool) -> tuple[Tensor, Tensor]:
        """See ``ImageData``."""
        images, labels = self.names[:2] if train else self.names[2:]
        return read_images(
            self.raw / images, self.raw / labels, labels_magic=self.labels_magic, md5s=self.md5s
        )


class MNIST(_IdxData):
    """Handwritten digits: 60,000 training and 10,000 test images.

    Source: LeCun, Bottou, Bengio, Haffner: Gradient-based learning applied to document
    recognition, 1998.
    """

    source = "MNIST"
    md5s: ClassVar[Mapping[str, str]] = {
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    }


class FashionMNIST(_IdxData):
    """Ten kinds of clothes: 60,000 training and 10,000 test images.

    Source: Xiao, Rasul, Vollgraf: Fashion-MNIST, a novel image dataset for benchmarking machine
    learning algorithms, 2017.
    """

    source = "FashionMNIST"
    classes = (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    )


class KMNIST(_IdxData):
    """Ten cursive Japanese characters: 60,000 training and 10,000 test images.

    Source: Clanuwat et al.: Deep learning for classical Japanese literature, 2018.
    """

    source = "KMNIST"
    classes = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")


class QMNIST(_IdxData):
    """MNIST with its 60,000 test images recovered: 60,000 training and 60,000 test images.

    Source: Yadav, Bottou: Cold case, the lost MNIST digits, 2019.
    """

    source = "QMNIST"
    names = (
        "qmnist-train-images-idx3-ubyte",
        "qmnist-train-labels-idx2-int",
        "qmnist-test-images-idx3-ubyte",
        "qmnist-test-labels-idx2-int",
    )
    labels_magic = LONG_LABELS


class EMNIST(_IdxData):
    """More handwritten digits: 240,000 training and 40,000 test images.

    Source: Cohen, Afshar, Tapson, van Schaik: EMNIST, an extension of MNIST to handwritten
    letters, 2017; its split "digits".
    """

    source = "EMNIST"
    options: ClassVar[Mapping[str, str]] = {"split": "digits"}
    names = (
        "emnist-digits-train-images-idx3-ubyte",
        "emnist-digits-train-labels-idx1-ubyte",
        "emnist-digits-test-images-idx3-ubyte",
        "emnist-digits-test-labels-idx1-ubyte",
    )

    def load(self, train: bool) -> tuple[Tensor, Tensor]:
        """See ``ImageData``; the files hold the images with rows and columns exchanged."""
        images, targets = super().load(train)
        return images.transpose(1, 2).contiguous(), targets


class Digits(ImageData):
    """The digits of scikit-learn, enlarged: 1,437 training and 360 test images.

    They need no download. The images, 8 × 8 pixels with values from 0 to 16, are enlarged to 20 ×
    20 with a border of 4 pixels, as in MNIST. The test images are a fixed stratified sample.

    Source: Alpaydin, Kaynak: Optical recognition of handwritten digits, UCI Machine Learning
    Repository, 1998 (its test set).
    """

    default_val_size = 0.1

    def load(self, train: bool) -> tuple[Tensor, Tensor]:
        """See ``ImageData``."""
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        small, labels = load_digits(return_X_y=True)
        parts = train_test_split(small, labels, test_size=360, stratify=labels, random_state=0)
        small, labels = parts[0 if train else 1], parts[2 if train else 3]
        pixels = torch.from_numpy(small).reshape(-1, 1, 8, 8) * (255 / 16)
        enlarged = functional.interpolate(pixels, size=(20, 20), mode="bilinear", antialias=True)
        images = functional.pad(enlarged.squeeze(1), (4, 4, 4, 4)).round().to(torch.uint8)
        return images, torch.from_numpy(labels).to(torch.int64)


class TextFile(ImageData):
    """Images from text files: 784 pixel values from 0 to 255 and the label, one image per line.

    ``mnist-zoo data to-text`` writes such files.

    Args:
        train_file: File of the training images; not needed for tests.
        test_file: File of the test images; not needed for training.
        **kwargs: Arguments of ``ImageData``.
    """

    default_val_size = 0.1

    def __init__(
        self, train_file: str | None = None, test_file: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.train_file = _absolute(train_file)
        self.test_file = _absolute(test_file)
        # Checkpoints hold these, and must find the files from any folder.
        self.hparams.update(train_file=self.train_file, test_file=self.test_file)

    def load(self, train: bool) -> tuple[Tensor, Tensor]:
        """See ``ImageData``."""
        file = self.train_file if train else self.test_file
        if file is None:
            flag = "--data.train_file" if train else "--data.test_file"
            raise DataError(
                f"TextFile has no file for this: name it with {flag}.\n"
                "Write such a file with: mnist-zoo data to-text"
            )
        return read_text(file)


def _absolute(file: str | None) -> str | None:
    return None if file is None else str(absolute(file))
