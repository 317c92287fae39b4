"""Convolutional networks: those of Nielsen's book, chapter 6, and one with three dense layers.

Pooling precedes the activation: sigmoid and ReLU are monotone, so the result is the same, and the
activation has only a quarter of the values to process.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from mnist_zoo.models.classifier import Classifier


def conv_pool(in_channels: int, out_channels: int, activation: nn.Module) -> nn.Sequential:
    """5 × 5 convolution without padding, 2 × 2 max-pooling, activation.

    Each side shrinks by 4, then halves: 28 → 12, 12 → 4.
    """
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 5), nn.MaxPool2d(2), activation)


class ConvNetSimple(Classifier):
    """One convolution with 20 maps, then 2880 → 100 → 10, sigmoid throughout.

    Source: M. Nielsen, *Neural Networks and Deep Learning*, chapter 6.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.layers = nn.Sequential(
            conv_pool(1, 20, nn.Sigmoid()),
            nn.Flatten(),
            nn.Linear(20 * 12 * 12, 100),
            nn.Sigmoid(),
            nn.Linear(100, 10),
        )


class ConvNetTwoConv(Classifier):
    """Convolutions with 20 and 40 maps, then 640 → 100 → 10, sigmoid throughout.

    Source: M. Nielsen, *Neural Networks and Deep Learning*, chapter 6.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.layers = nn.Sequential(
            conv_pool(1, 20, nn.Sigmoid()),
            conv_pool(20, 40, nn.Sigmoid()),
            nn.Flatten(),
            nn.Linear(40 * 4 * 4, 100),
            nn.Sigmoid(),
            nn.Linear(100, 10),
        )


class ConvNetReLU(Classifier):
    """``ConvNetTwoConv`` with ReLU everywhere.

    Source: M. Nielsen, *Neural Networks and Deep Learning*, chapter 6.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.layers = nn.Sequential(
            conv_pool(1, 20, nn.ReLU()),
            conv_pool(20, 40, nn.ReLU()),
            nn.Flatten(),
            nn.Linear(40 * 4 * 4, 100),
            nn.ReLU(),
            nn.Linear(100, 10),
        )


class ConvNetDropout(Classifier):
    """The convolutions of ``ConvNetReLU``, then 640 → 1000 → 1000 → 10, dropout before each.

    Source: M. Nielsen, *Neural Networks and Deep Learning*, chapter 6.

    Args:
        num_hidden: Number of neurons in each hidden layer.
        dropout: Probability of setting an activation to zero, in [0, 1].
        kwargs: Arguments of ``Classifier``.
    """

    def __init__(self, num_hidden: int = 1000, dropout: float = 0.5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.layers = nn.Sequential(
            conv_pool(1, 20, nn.ReLU()),
            conv_pool(20, 40, nn.ReLU()),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(40 * 4 * 4, num_hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(num_hidden, num_hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(num_hidden, 10),
        )


class ConvNetThreeDense(Classifier):
    """Convolutions with 32 and 64 maps, then 1024 → 512 → 256 → 10, with some dropout.

    Source: J. McCaffrey, *Convolutional Neural Networks for MNIST Data Using PyTorch*, Visual
    Studio Magazine, 2022.

    Args:
        conv_dropout: Dropout probability after the first convolution, in [0, 1].
        dropout: Dropout probability after the first dense layer, in [0, 1].
        kwargs: Arguments of ``Classifier``.
    """

    def __init__(self, conv_dropout: float = 0.25, dropout: float = 0.5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.layers = nn.Sequential(
            conv_pool(1, 32, nn.ReLU()),
            nn.Dropout(conv_dropout),
            conv_pool(32, 64, nn.ReLU()),
            nn.Flatten(),
            nn.Linear(64 * 4 * 4, 512),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(512, 256),
            nn.ReLU(),
            nn.Linear(256, 10),
        )
