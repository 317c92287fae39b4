"""A convolutional network of about six thousand parameters."""

from __future__ import annotations

from typing import Any

from torch import nn

from mnist_zoo.models.classifier import Classifier


class TinyConvNet(Classifier):
    """Convolutions with 8 and 16 maps, then 256 → 10, ReLU.

    Args:
        dropout: Probability of setting an input of the last layer to zero, in [0, 1].
        kwargs: Arguments of ``Classifier``.
    """

    def __init__(self, dropout: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.layers = nn.Sequential(
            nn.Conv2d(1, 8, 5),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(8, 16, 5),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(16 * 4 * 4, self.num_classes),
        )
