"""The expanded data set: every image five times, four of them shifted by one pixel."""

from __future__ import annotations

from torch import Tensor


def expand(images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Add four copies of each image, shifted by one pixel right, left, up and down.

    Uncovered rows and columns are zero; pixels shifted out are lost. The expansion follows
    Michael Nielsen, Neural Networks and Deep Learning, chapter 6
    (http://neuralnetworksanddeeplearning.com/chap6.html).

    Args:
        images: (N, H, W) of any dtype, which is kept.
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
