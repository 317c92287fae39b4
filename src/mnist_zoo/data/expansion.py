"""The expanded data set: every image five times, four of them shifted by one pixel."""

from __future__ import annotations

from torch import Tensor


def expand(images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Add to each image its copies shifted by one pixel right, left, up and down.

    The row or column that a shift uncovers is zero; what it pushes out is lost. The expansion is
    that of Michael Nielsen, Neural Networks and Deep Learning, chapter 6
    (http://neuralnetworksanddeeplearning.com/chap6.html).

    Args:
        images: (N, H, W) of any type; its type is kept.
        targets: (N,).

    Returns:
        Images (5N, H, W) in five blocks, the originals first, then those shifted right, left, up
        and down, each in the order of the originals; and their targets (5N,).
    """
    blocks = images.new_zeros(5, *images.shape)
    original, right, left, up, down = blocks
    original[:] = images
    right[:, :, 1:] = images[:, :, :-1]
    left[:, :, :-1] = images[:, :, 1:]
    up[:, :-1] = images[:, 1:]
    down[:, 1:] = images[:, :-1]
    return blocks.flatten(0, 1), targets.repeat(5)
