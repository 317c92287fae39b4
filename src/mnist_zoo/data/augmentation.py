"""Random distortions of whole batches of training images, on any device."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mnist_zoo.errors import DataError

# Side of the grid of random shifts between which the elastic field is interpolated.
_COARSE = 7
# The largest values, and whether they are allowed.
_BOUNDS = {
    "rotation": (180, True), "scale": (1, False), "shear": (90, False), "shift": (28, True),
    "elastic": (28, True),
}  # fmt: skip


@dataclass(frozen=True)
class Augmentation:
    """Random rotation, scale, shear, shift and elastic distortion of training images.

    Each image has its own draws, uniform between the bound and its negative. Pixels from outside
    the image are black; interpolation is bilinear.

    The random numbers are passed in, one row per image, so that they depend only on an image's
    position in the epoch, not on the batch size, the device, or where a run was resumed.

    Args:
        rotation: Largest angle, in degrees.
        scale: Largest change of size, as a share: 0.1 makes digits 0.9 to 1.1 times as large, in
            width and height alike.
        shear: Largest angle by which upright lines lean, in degrees.
        shift: Largest shift in either direction, in whole pixels.
        elastic: Standard deviation, in pixels, of the random shifts from which the smooth
            displacement field is interpolated.

    Raises:
        DataError: A value is out of range.
    """

    rotation: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    shift: int = 0
    elastic: float = 0.0

    def __post_init__(self) -> None:
        for name, (most, inclusive) in _BOUNDS.items():
            value = getattr(self, name)
            if not (0 <= value < most or (inclusive and value == most)):
                below = "" if inclusive else "below "
                raise DataError(f"--data.{name} {value}: must be from 0 to {below}{most}.")

    def draw(self, num_images: int, generator: torch.Generator) -> Tensor:
        """Return the random numbers for ``num_images``: uniform in [0, 1), (N, 5 or 103).

        A row holds angle, lean, size, shift right, shift down, then the elastic field, if used.
        """
        num_numbers = 5 + (2 * _COARSE**2 if self.elastic else 0)
        return torch.rand(num_images, num_numbers, generator=generator)

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """Distort images.

        Args:
            images: uint8 in 0..255, background 0, (N, H, W).
            draws: What ``draw`` returned for these images, on the same device.

        Returns:
            The distorted images, of the same type and shape.
        """
        height, width = images.shape[-2:]
        # In [-1, 1), shaped to broadcast over each image's pixels.
        signed = (draws * 2 - 1)[:, :, None, None]
        angle = signed[:, 0] * math.radians(self.rotation)
        lean = (signed[:, 1] * math.radians(self.shear)).tan()
        size = 1 + signed[:, 2] * self.scale
        moves = (draws[:, 3:5] * (2 * self.shift + 1)).floor() - self.shift
        right, down = moves[:, :, None, None].unbind(1)

        # In pixels from the centre of the image.
        y = torch.arange(height, device=images.device).sub((height - 1) / 2)[None, :, None]
        x = torch.arange(width, device=images.device).sub((width - 1) / 2)[None, None, :]

        # Where each pixel is taken from.
        x, y, cos, sin = x - right, y - down, angle.cos() / size, angle.sin() / size
        from_y = cos * y - sin * x
        from_x = cos * x + sin * y + lean * from_y
        if self.elastic:
            move_x, move_y = self._bend(signed[:, 5:, 0, 0], height, width)
            from_x, from_y = from_x + move_x, from_y + move_y
        grid = torch.stack((from_x * (2 / width), from_y * (2 / height)), dim=-1)
        sampled = F.grid_sample(images[:, None].float(), grid, align_corners=False)
        return sampled.squeeze(1).round_().byte()

    def _bend(self, signed: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Return smooth random fields (N, H, W) by which to move pixels right and down."""
        coarse = signed.view(-1, 2, _COARSE, _COARSE) * (self.elastic * math.sqrt(3))
        fine = F.interpolate(coarse, (height, width), mode="bicubic", align_corners=True)
        move_x, move_y = fine.unbind(1)
        return move_x, move_y
