"""Random distortions of whole batches of training images, on any device."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mnist_zoo.errors import DataError

_COARSE = 7
# Pixels at least this bright, of 255, count when a digit's size is measured.
_INK = 52
# The largest values, and whether they are allowed.
_BOUNDS = {
    "rotation": (180, True), "scale": (1, False), "shear": (90, False), "shift": (28, True),
    "elastic": (28, True), "stretch": (1, True),
}  # fmt: skip


@dataclass(frozen=True)
class Augmentation:
    """Random rotation, scale, stretch, shear, shift and elastic distortion of training images.

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
        stretch: Largest stretch of the width at the expense of the height, as a share: 0.1 makes
            digits up to 1.1 times as wide and correspondingly less high, or vice versa.
        refit: Restore the form of rotated, stretched and sheared digits: the longer side keeps its
            length, and the centre of mass stays anywhere within its pixel. (MNIST's digits are all
            20 pixels long, centred by whole pixels.) ``scale`` and ``shift``, which is then
            fractional, are applied on top.

    Raises:
        DataError: A value is out of range.
    """

    rotation: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    shift: int = 0
    elastic: float = 0.0
    stretch: float = 0.0
    refit: bool = False

    def __post_init__(self) -> None:
        for name, (most, inclusive) in _BOUNDS.items():
            value = getattr(self, name)
            if not (0 <= value < most or (inclusive and value == most)):
                below = "" if inclusive else "below "
                raise DataError(f"--data.{name} {value}: must be from 0 to {below}{most}.")

    def draw(self, num_images: int, generator: torch.Generator) -> Tensor:
        """Return the random numbers for ``num_images``: uniform in [0, 1), (N, 5 to 104).

        A row holds angle, lean, size, shift right, shift down, then the elastic field and the
        stretch, if used.
        """
        num_numbers = 5 + (2 * _COARSE**2 if self.elastic else 0) + bool(self.stretch)
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
        wider = (signed[:, -1] * math.log1p(self.stretch)).exp()
        steps = 2 * self.shift + 1
        moves = draws[:, 3:5] * steps
        moves = moves - steps / 2 if self.refit else moves.floor() - self.shift
        right, down = moves[:, :, None, None].unbind(1)

        # In pixels from the centre of the image or, if a digit is refitted, its own centre.
        y = torch.arange(height, device=images.device).sub((height - 1) / 2)[None, :, None]
        x = torch.arange(width, device=images.device).sub((width - 1) / 2)[None, None, :]
        cos, sin = angle.cos(), angle.sin()
        centre_x = centre_y = torch.zeros(())
        if self.refit:
            centre_x, centre_y = _centres(images, x, y)
            middle_x = (x - centre_x - lean * (y - centre_y)) * wider
            middle_y = (y - centre_y) / wider
            to_x, to_y = cos * middle_x - sin * middle_y, sin * middle_x + cos * middle_y
            ink = images >= _INK
            before = _longer_side(x - centre_x, y - centre_y, ink)
            size = size * before / _longer_side(to_x, to_y, ink)
            right, down = right + centre_x.floor() + 0.5, down + centre_y.floor() + 0.5

        # Where each pixel is taken from.
        x, y, cos, sin = x - right, y - down, cos / size, sin / size
        from_x, from_y = (cos * x + sin * y) / wider, (cos * y - sin * x) * wider
        from_x = from_x + lean * from_y
        if self.elastic:
            move_x, move_y = self._bend(signed[:, 5 : 5 + 2 * _COARSE**2, 0, 0], height, width)
            from_x, from_y = from_x + move_x, from_y + move_y
        from_x, from_y = from_x + centre_x, from_y + centre_y
        grid = torch.stack((from_x * (2 / width), from_y * (2 / height)), dim=-1)
        sampled = F.grid_sample(images[:, None].float(), grid, align_corners=False)
        return sampled.squeeze(1).round_().byte()

    def _bend(self, signed: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Return smooth random fields (N, H, W) by which to move pixels right and down."""
        coarse = signed.view(-1, 2, _COARSE, _COARSE) * (self.elastic * math.sqrt(3))
        fine = F.interpolate(coarse, (height, width), mode="bicubic", align_corners=True)
        move_x, move_y = fine.unbind(1)
        return move_x, move_y


def _centres(images: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the centre of mass of each image, both (N, 1, 1), in the coordinates of its pixels."""
    weights = images.float()
    weights = weights / weights.sum((1, 2), keepdim=True).clamp(min=1)
    return (weights * x).sum((1, 2), keepdim=True), (weights * y).sum((1, 2), keepdim=True)


def _longer_side(x: Tensor, y: Tensor, ink: Tensor) -> Tensor:
    """Return the longer side (N, 1, 1) of the bounding box of the positions (N, H, W) with ink."""
    sides = []
    for place in (x, y):
        far = place.expand(ink.shape).masked_fill(~ink, -math.inf).amax((1, 2), keepdim=True)
        near = place.expand(ink.shape).masked_fill(~ink, math.inf).amin((1, 2), keepdim=True)
        sides.append(far - near + 1)
    # 1 for an image without ink.
    return torch.maximum(*sides).clamp(min=1)
