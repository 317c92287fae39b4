"""Fully connected ReLU networks: one with dropout, one that ends in log-probabilities."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from mnist_zoo.models.classifier import Classifier


class MLPDropout(Classifier):
    """784 → 512 → 512 → 10 with ReLU, and one dropout module used after both hidden layers.

    Source: a PyTorch exercise; author unknown.

    Args:
        num_hidden: Number of neurons in each hidden layer.
        dropout: Probability of setting a hidden activation to zero, in [0, 1].
        kwargs: Arguments of ``Classifier``.
    """

    def __init__(self, num_hidden: int = 512, dropout: float = 0.5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        drop = nn.Dropout(dropout)
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(28 * 28, num_hidden),
            nn.ReLU(),
            drop,
            nn.Linear(num_hidden, num_hidden),
            nn.ReLU(),
            drop,
            nn.Linear(num_hidden, 10),
        )


class MLPLogSoftmax(Classifier):
    """784 → 128 → 128 → 64 → 64 → 10 with ReLU and a log-softmax at the end, trained by NLL.

    Its outputs are log-probabilities.

    Source: a PyTorch tutorial; author unknown.

    Args:
        kwargs: Arguments of ``Classifier``.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(28 * 28, 128),
            nn.ReLU(),
            nn.Linear(128, 128),
            nn.ReLU(),
            nn.Linear(128, 64),
            nn.ReLU(),
            nn.Linear(64, 64),
            nn.ReLU(),
            nn.Linear(64, 10),
            nn.LogSoftmax(dim=1),
        )

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean negative log-likelihood of targets (N,) by log-probabilities (N, 10)."""
        return F.nll_loss(outputs, targets)

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Return the exponential of log-probabilities (N, 10)."""
        return outputs.exp()
