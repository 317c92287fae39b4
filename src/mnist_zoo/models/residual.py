"""Residual networks, each of whose layers but the first begins with batch normalisation."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from mnist_zoo.models.classifier import Classifier


class Enlarge(nn.Module):
    """Enlarge the middle 25 × 25 pixels, which hold nearly all of MNIST's ink, and normalise.

    Each image then has mean 0 and standard deviation 1.
    """

    def forward(self, images: Tensor) -> Tensor:
        """Map (N, 1, 28, 28) to the same shape."""
        enlarged = F.interpolate(images[..., 1:26, 1:26], size=28, mode="bilinear")
        return F.layer_norm(enlarged, enlarged.shape[1:])


class Residual(nn.Module):
    """Batch norm, to which a 3 × 3 convolution of its output, with ReLU, is added."""

    def __init__(self, num_maps: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(num_maps)
        self.conv = nn.Conv2d(num_maps, num_maps, 3, padding="same")

    def forward(self, maps: Tensor) -> Tensor:
        """Map (N, num_maps, height, width) to the same shape."""
        maps = self.norm(maps)
        added: Tensor = self.conv(maps).relu()
        return maps + added


def twice_as_many(num_maps: int) -> nn.Sequential:
    """Batch norm, then a 3 × 3 convolution with twice as many maps, and ReLU."""
    return nn.Sequential(
        nn.BatchNorm2d(num_maps),
        nn.Conv2d(num_maps, 2 * num_maps, 3, padding="same"),
        nn.ReLU(),
    )


class ConvNetResidual(Classifier):
    """Convolutions with 128, 256 and 512 maps, four of them residual, average pooling, 512 → 10.

    Source: T. Doucet, github.com/ttdoucet/mnist, 2019.

    Args:
        num_maps: Number of maps of the first convolution; later ones have two and four times as
            many.
        kwargs: Arguments of ``Classifier``.
    """

    def __init__(self, num_maps: int = 128, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        few, more, most = num_maps, 2 * num_maps, 4 * num_maps
        self.layers = nn.Sequential(
            Enlarge(),
            nn.Conv2d(1, few, 5, padding="same"),
            nn.ReLU(),
            Residual(few),
            nn.MaxPool2d(2),
            Residual(few),
            twice_as_many(few),
            nn.MaxPool2d(2),
            Residual(more),
            twice_as_many(more),
            nn.MaxPool2d(2, ceil_mode=True),
            Residual(most),
            nn.BatchNorm2d(most),
            nn.AvgPool2d(4),
            nn.Flatten(),
            nn.Linear(most, 10),
        )
