"""Fully connected sigmoid network of Nielsen's book, chapter 1."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from mnist_zoo.models.classifier import Classifier


class Dense(Classifier):
    """784 → 100 → 10, sigmoid after both layers, squared error against one-hot targets.

    Its outputs are activations in [0, 1].

    Source: M. Nielsen, *Neural Networks and Deep Learning*, chapter 1.

    Args:
        num_hidden: Number of hidden neurons.
        kwargs: Arguments of ``Classifier``.
    """

    def __init__(self, num_hidden: int = 100, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(28 * 28, num_hidden),
            nn.Sigmoid(),
            nn.Linear(num_hidden, 10),
            nn.Sigmoid(),
        )

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean squared error of activations (N, 10) against targets (N,), one-hot."""
        return F.mse_loss(outputs, F.one_hot(targets, self.num_classes).to(outputs.dtype))

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Scale the activations (N, 10) of each image to sum to 1."""
        # If all activations are 0, all classes are equally likely.
        return F.normalize(outputs + 1e-12, p=1.0, dim=1)
