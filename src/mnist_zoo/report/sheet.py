"""A sheet of small images, each with a line of text below it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from mnist_zoo.files import whole

_SCALE, _COLUMNS, _MARGIN, _LINE = 4, 8, 8, 16


def save_sheet(file: Path, images: Tensor, labels: Sequence[str]) -> Path:
    """Draw images in rows of eight, dark on white as they would be printed, and save a PNG.

    Args:
        file: Where to write; replaced whole if it exists.
        images: uint8 (N, H, W), light on 0.
        labels: What to write below each.

    Raises:
        ZooError: The file cannot be written.
    """
    num, height, width = images.shape
    cell = (width * _SCALE + _MARGIN, height * _SCALE + _LINE + _MARGIN)
    columns, rows = min(num, _COLUMNS), -(-num // _COLUMNS)
    sheet = Image.new("L", (columns * cell[0] + _MARGIN, rows * cell[1] + _MARGIN), 255)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        left = _MARGIN + number % _COLUMNS * cell[0]
        top = _MARGIN + number // _COLUMNS * cell[1]
        size = (width * _SCALE, height * _SCALE)
        picture = Image.fromarray(255 - image.numpy()).resize(size, Image.Resampling.NEAREST)
        sheet.paste(picture, (left, top))
        draw.rectangle((left - 1, top - 1, left + size[0], top + size[1]), outline=192)
        at = (left + size[0] / 2, top + size[1] + 2)
        draw.text(at, label, fill=0, font=font, anchor="ma")
    with whole(file) as unfinished:
        sheet.save(unfinished, "PNG")
    return file
