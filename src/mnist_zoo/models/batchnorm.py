"""Convolutional networks with batch normalisation: strong, small, and those of An et al.

Where both follow a convolution, pooling precedes normalisation, which then has only a quarter of
the values to process.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from mnist_zoo.models.classifier import Classifier


def conv_norm(
    in_channels: int, out_channels: int, size: int, pool: int = 1, padding: int | str = "same"
) -> nn.Sequential:
    """Convolution (same padding by default), max-pooling, batch norm, ReLU.

    From (N, in_channels, height, width) to (N, out_channels, height / pool, width / pool).
    """
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, size, padding=padding, bias=False),
        nn.MaxPool2d(pool) if pool > 1 else nn.Identity(),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )


class Separable(nn.Module):
    """Depthwise 3 × 3 convolution, then 1 × 1 across the channels, applied several times.

    All applications share their weights but have their own normalisation; from the second on they
    are residual. This adds depth almost without parameters.
    """

    def __init__(self, channels: int, num_times: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding="same", groups=channels, bias=False),
            nn.Conv2d(channels, channels, 1, bias=False),
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(num_times))

    def forward(self, maps: Tensor) -> Tensor:
        """Map (N, channels, height, width) to the same shape."""
        first, *further = self.norms
        maps = first(self.conv(maps)).relu()
        for norm in further:
            maps = maps + norm(self.conv(maps)).relu()
        return maps


class _Smoothed(Classifier):
    """Label smoothing, and weight decay on weights only, not on biases and norms.

    Args:
        label_smoothing: Share of each training target that is spread over all classes, in [0, 1].
        kwargs: Arguments of ``Classifier``.

    Raises:
        ValueError: ``label_smoothing`` is not in [0, 1].
    """

    def __init__(self, label_smoothing: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"label_smoothing {label_smoothing} is not from 0 to 1")
        self.label_smoothing = label_smoothing

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy, in training with ``label_smoothing``."""
        smoothing = self.label_smoothing if self.training else 0.0
        return F.cross_entropy(outputs, targets, label_smoothing=smoothing)

    def parameter_groups(self) -> Iterable[Any]:
        """Return the weights, which decay, and the biases and norms, which do not."""
        return [
            {"params": [p for p in self.parameters() if p.ndim > 1]},
            {"params": [p for p in self.parameters() if p.ndim <= 1], "weight_decay": 0.0},
        ]


class ConvNetBatchNorm(_Smoothed):
    """Convolutions with 32, 64, 64, 128 and 128 maps, global max-pooling, 128 → 10.

    Source: this project.

    Args:
        num_maps: Number of maps of the first convolution; the others have two and four times as
            many.
        padding: Rows and columns of zeros around the image: with 2, the maps of the first
            convolution have its size, which takes a fourth more time.
        label_smoothing: Share of each training target that is spread over all classes, in [0, 1].
        kwargs: Arguments of ``Classifier``.

    Raises:
        ValueError: ``label_smoothing`` is not in [0, 1].
    """

    def __init__(
        self, num_maps: int = 32, padding: int = 0, label_smoothing: float = 0.1, **kwargs: Any
    ) -> None:
        super().__init__(label_smoothing=label_smoothing, **kwargs)
        few, more, most = num_maps, 2 * num_maps, 4 * num_maps
        self.layers = nn.Sequential(
            conv_norm(1, few, size=5, pool=2, padding=padding),
            conv_norm(few, more, size=3),
            conv_norm(more, more, size=3, pool=2),
            conv_norm(more, most, size=3),
            conv_norm(most, most, size=3),
            nn.MaxPool2d(6 + padding // 2),  # the whole map: (24 + 2 padding) / 4
            nn.Flatten(),
            nn.Linear(most, 10),
        )


class ConvNetThreeConv(_Smoothed):
    """Unpadded convolutions with 32, 64 and 128 maps, global max-pooling, 128 → 10.

    Fewer and larger operations than ``ConvNetBatchNorm``, for a GPU, where starting one takes as
    long as computing it.

    Source: this project.

    Args:
        num_maps: Number of maps of the first convolution; the others have two and four times as
            many.
        label_smoothing: Share of each training target that is spread over all classes, in [0, 1].
        kwargs: Arguments of ``Classifier``.

    Raises:
        ValueError: ``label_smoothing`` is not in [0, 1].
    """

    def __init__(self, num_maps: int = 32, label_smoothing: float = 0.1, **kwargs: Any) -> None:
        super().__init__(label_smoothing=label_smoothing, **kwargs)
        self.layers = nn.Sequential(
            conv_norm(1, num_maps, size=5, pool=2, padding=0),
            conv_norm(num_maps, 2 * num_maps, size=3, pool=2, padding=0),
            conv_norm(2 * num_maps, 4 * num_maps, size=3, padding=0),
            nn.MaxPool2d(3),  # the whole map: ((28 - 4) / 2 - 2) / 2 - 2
            nn.Flatten(),
            nn.Linear(4 * num_maps, 10),
        )


class ConvNetSeparable(_Smoothed):
    """A convolution with few maps, three separable ones applied twice, global average pooling.

    Source: this project.

    Args:
        num_maps: Number of maps everywhere; 14 make 1,438 parameters.
        num_times: How many times each separable convolution is applied.
        kwargs: Arguments of ``Classifier``, and ``label_smoothing``: the share of each training
            target that is spread over all classes, in [0, 1].
    """

    def __init__(self, num_maps: int = 14, num_times: int = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.layers = nn.Sequential(
            conv_norm(1, num_maps, size=3, pool=2),
            Separable(num_maps, num_times),
            nn.MaxPool2d(2),
            Separable(num_maps, num_times),
            nn.MaxPool2d(2),
            Separable(num_maps, num_times),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(num_maps, 10),
        )


class ConvNetUnpadded(_Smoothed):
    """Unpadded convolutions with ever more maps and no pooling, then a dense layer.

    Each convolution is followed by batch normalisation and ReLU; the dense layer, which has no
    biases, by batch normalisation alone.

    Source: S. An, M. Lee, S. Park, H. Yang and J. So, *An Ensemble of Simple Convolutional Neural
    Network Models for MNIST Digit Recognition*, 2020, arXiv 2008.10400: M3, M5 and M7.

    Args:
        kernel_size: Side of the kernels: 3 makes ten convolutions with 32 to 176 maps, 5 makes five
            with 32 to 160, 7 makes four with 48 to 192.
        kwargs: Arguments of ``Classifier``, and ``label_smoothing``: the share of each training
            target that is spread over all classes, in [0, 1].

    Raises:
        ValueError: ``kernel_size`` is not 3, 5 or 7.
    """

    NUM_MAPS: ClassVar[dict[int, tuple[int, ...]]] = {
        3: (32, 48, 64, 80, 96, 112, 128, 144, 160, 176),
        5: (32, 64, 96, 128, 160),
        7: (48, 96, 144, 192),
    }

    def __init__(self, kernel_size: Literal[3, 5, 7] = 5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if kernel_size not in self.NUM_MAPS:
            raise ValueError(f"kernel_size {kernel_size}: must be 3, 5 or 7")
        num_maps = self.NUM_MAPS[kernel_size]
        size = 28 - len(num_maps) * (kernel_size - 1)
        self.layers = nn.Sequential(
            *(
                conv_norm(before, after, kernel_size, padding=0)
                for before, after in zip((1, *num_maps), num_maps, strict=False)
            ),
            nn.Flatten(),
            nn.Linear(num_maps[-1] * size**2, 10, bias=False),
            nn.BatchNorm1d(10),
        )
