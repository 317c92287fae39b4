"""Random distortions of whole batches of training images, on whatever device they lie."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

_COARSE = 7


@dataclass(frozen=True)
class Augmentation:
    """How far training images are turned, scaled, sheared, shifted and bent, each at random.

    Every image is distorted by draws of its own, uniform between the bound and its negative. What
    comes in from outside the image is black; values between pixels are interpolated linearly.

    The random numbers come from outside, one row an image, so that they depend on nothing but an
    image's place in the epoch: not on the batch size, the device, or where a run was resumed.

    Args:
        rotation: Largest angle, in degrees.
        scale: Largest change of size, as a share: 0.1 makes digits 0.9 to 1.1 times as large, in
            width and height alike.
        shear: Largest angle by which upright lines lean, in degrees.
        shift: Largest shift in either direction, in whole pixels.
        elastic: Standard deviation, in pixels, of the random shifts between which the field that
            moves the pixels is smooth.
    """

    rotation: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    shift: int = 0
    elastic: float = 0.0

    def draw(self, num_images: int, generator: torch.Generator) -> Tensor:
        """Return the random numbers for so many images: uniform in [0, 1), (N, 5 or 103).

        A row is for angle, lean, size, steps to the right, steps down, and the elastic field.
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
        # In [-1, 1), and apart for each image, so as to be multiplied with planes of pixels.
        signed = (draws * 2 - 1)[:, :, None, None]
        angle = signed[:, 0] * math.radians(self.rotation)
        lean = (signed[:, 1] * math.radians(self.shear)).tan()
        size = 1 + signed[:, 2] * self.scale
        steps = 2 * self.shift + 1
        right, down = ((draws[:, 3:5] * steps).floor() - self.shift)[:, :, None, None].unbind(1)

        # Where each pixel is taken from, in pixels from the centre of the image.
        y = torch.arange(height, device=images.device).sub((height - 1) / 2)[None, :, None] - down
        x = torch.arange(width, device=images.device).sub((width - 1) / 2)[None, None, :] - right
        cos, sin = angle.cos() / size, angle.sin() / size
        from_x, from_y = cos * x + sin * y, cos * y - sin * x
        from_x = from_x + lean * from_y
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
