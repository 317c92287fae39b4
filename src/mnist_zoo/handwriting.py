"""Converting any picture to MNIST's format: one light digit, 20 pixels high or wide, in 28 × 28."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from scipy import ndimage
from torch import Tensor

from mnist_zoo.errors import ZooError

Images = Image.Image | npt.NDArray[Any] | Tensor

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "GIF", "WEBP")
MAX_PIXELS = 50_000_000
_MAX_SIDE = 1_000_000
_SIDE, _BOX = 28, 20
# Pictures are searched for digits scaled to at most the area of a square of this side: enough for
# hair-thin strokes, and fast.
_WORKING_SIDE = 1000
# Strokes thinner than this, in MNIST pixels, would fade when scaled; MNIST's are 2 to 3.
_THINNEST = 2.0
# More marks than this of about the same size are not digits, but grain or a page of text.
_MOST_MARKS = 60
# Range of brightness in which there may be no strokes, or strokes of another colour.
_LITTLE = 0.08
# Amount of ink above which a pixel belongs to a stroke.
_FAINT = 0.25

Gray = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Box = tuple[int, int, int, int]


class HandwritingError(ZooError):
    """A picture that cannot be opened, or in which no digit is found."""


@dataclass(frozen=True)
class Digit:
    """One digit found in a picture.

    Attributes:
        image: The input for a network: uint8 (28, 28), light strokes on 0.
        box: Its place: left, top, right and bottom in pixels of the picture, the last two
            exclusive.
    """

    image: Tensor
    box: Box


def open_picture(source: str | os.PathLike[str] | BinaryIO) -> Image.Image:
    """Open a picture, rotated according to its EXIF data; of an animation, the first frame.

    Args:
        source: A file or an open binary stream: PNG, JPEG, BMP, TIFF, GIF or WebP.

    Raises:
        HandwritingError: It is missing, empty, damaged, not a picture, or over 50 megapixels.
    """
    file = Path(source) if isinstance(source, str | os.PathLike) else None
    name = getattr(source, "name", "") if file is None else file
    # A stream may have none.
    who = f"{name}: " if name else ""
    try:
        with warnings.catch_warnings():
            # Pillow warns about pictures that are refused below.
            warnings.simplefilter("ignore")
            with Image.open(file or source, formats=FORMATS) as picture:
                _require_size(who, picture.size)
                picture.load()
                return ImageOps.exif_transpose(picture)
    except HandwritingError:
        raise
    except FileNotFoundError:
        raise HandwritingError(f"{who}there is no such file.") from None
    except IsADirectoryError:
        raise HandwritingError(f"{who}a folder, not a picture.") from None
    except PermissionError:
        raise HandwritingError(f"{who}cannot be read (permission denied).") from None
    except Image.DecompressionBombError:
        raise HandwritingError(f"{who}too large, over {MAX_PIXELS:,} pixels.") from None
    except UnidentifiedImageError:
        if file and file.stat().st_size == 0:
            raise HandwritingError(f"{who}an empty file.") from None
        raise HandwritingError(
            f"{who}not a picture that can be read ({', '.join(FORMATS)}), or damaged."
        ) from None
    except Exception as error:  # decoders may raise anything for a damaged file
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise HandwritingError(f"{who}damaged ({reason}).") from error


def digits(picture: Image.Image) -> list[Digit]:
    """Find the digits in a picture, in one row or several, and convert them to MNIST's format.

    They may be dark on light or light on dark, drawn, printed, or photographed on paper. As in
    MNIST, each is scaled so that its longer side is 20 pixels, brought to full brightness, and
    placed so that its centre of mass is the centre of 28 × 28 pixels. A picture that already has
    this format is kept bit for bit. Frames drawn around digits are ignored.

    Args:
        picture: Any size up to 50 megapixels, any mode.

    Returns:
        The digits, at least one: rows from top to bottom, each from left to right.

    Raises:
        HandwritingError: No digit is found, or the picture is too large.
    """
    gray = _gray(picture)
    if gray.shape == (_SIDE, _SIDE):
        for strokes in (gray, 1 - gray):
            if _is_mnist(strokes):
                return [Digit(_to_bytes(strokes), (0, 0, _SIDE, _SIDE))]
    scale = min(1.0, _WORKING_SIDE / math.sqrt(gray.size))
    if scale < 1:
        gray = _resized(gray, *(max(1, round(side * scale)) for side in gray.shape))
    ink = _ink(gray)
    found = []
    for mask in _groups(ink):
        left, top, right, bottom = (round(edge / scale) for edge in _box(mask))
        place = (left, top, min(right, picture.width), min(bottom, picture.height))
        found.append(Digit(_normalized(ink, mask), place))
    return _in_reading_order(found)


def as_is(picture: Image.Image) -> Digit:
    """Convert a picture to grey and scale it to 28 × 28, and nothing else.

    Raises:
        HandwritingError: It is larger than 50 megapixels.
    """
    gray = _gray(picture)
    if gray.shape != (_SIDE, _SIDE):
        gray = _resized(gray, _SIDE, _SIDE)
    return Digit(_to_bytes(gray), (0, 0, picture.width, picture.height))


def to_pixels(images: Images | Sequence[Images]) -> Tensor:
    """Convert images of any kind to pixels.

    Args:
        images: Pictures of one digit each, which are converted to MNIST's format; arrays and
            tensors already in that format: integers from 0 to 255 or floats in [0, 1], of shape
            (28, 28), (N, 28, 28) or (N, 1, 28, 28); or a list of any of these.

    Returns:
        float32 (N, 1, 28, 28) in [0, 1].

    Raises:
        HandwritingError: A picture does not hold exactly one digit, or an array is of another
            format.
    """
    if isinstance(images, list | tuple):
        parts = [to_pixels(image) for image in images]
        return torch.cat(parts) if parts else torch.zeros(0, 1, _SIDE, _SIDE)
    if isinstance(images, Image.Image):
        found = digits(images)
        if len(found) > 1:
            raise HandwritingError(
                f"{len(found)} digits in one picture: separate them with"
                " mnist_zoo.handwriting.digits."
            )
        images = found[0].image
    if isinstance(images, np.ndarray):
        # Torch takes neither foreign byte orders nor negative strides, and warns of read-only ones.
        images = np.array(images, images.dtype.newbyteorder("="))
    try:
        pixels = torch.as_tensor(images)
    except (TypeError, ValueError, RuntimeError) as error:
        kind = type(images).__name__
        raise HandwritingError(f"{kind}: neither picture nor array nor tensor.") from error
    form = tuple(pixels.shape)
    if form[-2:] != (_SIDE, _SIDE) or form[1:-2] not in ((), (1,)):
        raise HandwritingError(
            f"images of shape {form}; expected (N, 1, 28, 28), (N, 28, 28) or (28, 28)."
        )
    whole = not (pixels.is_floating_point() or pixels.dtype == torch.bool)
    pixels = pixels.reshape(-1, 1, _SIDE, _SIDE).float()
    if whole:
        pixels = pixels / 255
    if pixels.numel() and not 0 <= pixels.min() <= pixels.max() <= 1:
        raise HandwritingError("pixels must be integers from 0 to 255, or floats in [0, 1].")
    return pixels


def _require_size(who: str, size: tuple[int, int]) -> None:
    width, height = size
    if width * height > MAX_PIXELS or max(width, height) > _MAX_SIDE:
        raise HandwritingError(
            f"{who}too large, {width:,} × {height:,} pixels; at most {MAX_PIXELS:,} are read,"
            f" {_MAX_SIDE:,} of them on a side."
        )


def _gray(picture: Image.Image) -> Gray:
    """Return brightness in [0, 1]; transparent parts are white, or black under light strokes."""
    _require_size("the picture: ", picture.size)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        below = [Image.new("RGBA", picture.size, color) for color in ("white", "black")]
        white, black = (_gray(Image.alpha_composite(b, picture).convert("RGB")) for b in below)
        return white if np.ptp(white) >= np.ptp(black) / 2 else black
    if picture.mode[0] in "IF":
        # 16 bits per pixel, or whatever unit a TIFF of 32 bits has.
        values = np.nan_to_num(np.asarray(picture, dtype=np.float32), posinf=0, neginf=0).clip(0)
        full = next((top for top in (1, 255, 65535) if values.max() <= top), values.max())
        full = 65535 if picture.mode.startswith("I;16") else full
        return np.asarray(values / np.float32(full))
    if picture.mode == "LAB":
        picture = picture.getchannel(0)
    elif picture.mode not in ("1", "L", "RGB"):
        picture = picture.convert("RGB")
    gray = np.asarray(picture.convert("L"), dtype=np.float32) / np.float32(255)
    if picture.mode == "RGB" and np.ptp(gray) < _LITTLE:
        # Strokes of another colour may be as bright as the background.
        channels = np.moveaxis(np.asarray(picture, dtype=np.float32) / np.float32(255), 2, 0)
        clearest: Gray = max(channels, key=np.ptp)
        return clearest if np.ptp(clearest) > 2 * np.ptp(gray) else gray
    return gray


def _is_mnist(strokes: Gray) -> bool:
    """Return whether an image has MNIST's format; all 70,000 of MNIST pass."""
    rows, columns = np.nonzero(strokes > 0.1)
    if not len(rows) or np.median(strokes) > 0.02:
        return False
    longer = 1 + max(np.ptp(rows), np.ptp(columns))
    centre = ndimage.center_of_mass(strokes)
    return bool(_BOX - 2 <= longer <= _BOX and max(abs(c - _SIDE / 2) for c in centre) < 0.55)


def _ink(gray: Gray) -> Gray:
    """Return the amount of ink: about 1 in a stroke, 0 on the background.

    Raises:
        HandwritingError: Nothing stands out from the background.
    """
    smooth = ndimage.gaussian_filter(gray, math.sqrt(gray.size) / _WORKING_SIDE)
    background, noise = _background(smooth)
    faint = max(0.08, 5 * noise)
    difference = background - smooth
    dark, light = ((sign * difference - faint).clip(0).sum() for sign in (1, -1))
    # Dark or light strokes: whichever side stands out more.
    ink, most = (difference, background) if dark >= light else (-difference, 1 - background)
    # In the shade, strokes have less contrast.
    ink = ink / most.clip(0.1)
    strokes = ink[ink > faint]
    if strokes.size < 4:
        raise HandwritingError("no digit found: nothing stands out from the background.")
    full = float(np.percentile(strokes, 90))
    floor = max(0.1, min(0.5, 3 * noise / full))
    clear: Gray = ((ink / full - floor) / (1 - floor)).clip(0, 1)
    return clear


def _background(gray: Gray) -> tuple[Gray, float]:
    """Fit a smooth surface to the brightness of unevenly lit paper; return it and its noise.

    The picture's border is taken as paper, unless little else is like it. The noise is a standard
    deviation.
    """
    powers = [(i, j) for i in range(4) for j in range(4 - i)]
    y, x = (np.linspace(-1, 1, side, dtype=np.float32) for side in gray.shape)
    # About a hundred points in each direction.
    down, along = (slice(None, None, max(1, side // 100)) for side in gray.shape)
    values = gray[down, along].ravel()
    points = np.stack([np.outer(y[down] ** i, x[along] ** j).ravel() for i, j in powers], axis=1)
    border = np.concatenate([gray[0], gray[-1], gray[:, 0], gray[:, -1]])
    low, high = np.percentile(values, (0.5, 99.5))
    surface = np.full_like(values, np.median(border))
    if (np.abs(values - surface) <= 0.4 * (high - low)).mean() < 0.3:
        # The border is a frame, or the table under the paper.
        surface[:] = np.median(values)
    inside = np.ones_like(values, dtype=bool)
    factors = np.zeros(len(powers), dtype=np.float32)
    factors[0] = surface[0]
    # Level, then tilted, then curved, so that thick strokes do not attract the surface.
    for degree, tolerance in ((0, 0.4), (1, 0.3), (1, 0.2), (2, 0.2), (3, 0.15), (3, 0.15)):
        near = np.abs(values - surface) <= tolerance * (high - low)
        if not near.any():  # such as a picture of two halves, each of one tone
            break
        inside = near
        used = [n for n, (i, j) in enumerate(powers) if i + j <= degree]
        factors = np.zeros(len(powers), dtype=np.float32)
        factors[used] = np.linalg.lstsq(points[inside][:, used], values[inside], rcond=None)[0]
        surface = points @ factors
    terms = [f * np.outer(y**i, x**j) for f, (i, j) in zip(factors, powers, strict=True)]
    background: Gray = np.sum(terms, axis=0).clip(0, 1).astype(np.float32)
    noise = 1.4826 * float(np.median(np.abs(values - surface)[inside]))
    return background, noise


def _in_reading_order(found: list[Digit]) -> list[Digit]:
    """Sort digits into rows from top to bottom, each from left to right."""
    rows: list[list[Digit]] = []
    for digit in sorted(found, key=lambda digit: digit.box[0] + digit.box[2]):
        # Compare with the last digit of a row, not with all of it: rows may slope.
        beside = [_beside(row[-1].box, digit.box) for row in rows]
        if max(beside, default=0) >= 0.25:
            rows[beside.index(max(beside))].append(digit)
        else:
            rows.append([digit])
    rows.sort(key=lambda row: sum(d.box[1] + d.box[3] for d in row) / len(row))
    return [digit for row in rows for digit in row]


def _beside(one: Box, other: Box) -> float:
    """Return the shared fraction of the shorter box's height; negative if they do not overlap."""
    shared = min(one[3], other[3]) - max(one[1], other[1])
    return shared / max(1, min(one[3] - one[1], other[3] - other[1]))


def _groups(ink: Gray) -> list[Mask]:
    """Return the pixels of each digit.

    Raises:
        HandwritingError: There are too many marks.
    """
    strokes = ink > _FAINT
    # Bridge gaps narrower than half a stroke's width.
    joined = ndimage.distance_transform_edt(~strokes) <= _stroke_width(strokes) / 4
    labels, _ = ndimage.label(joined, structure=np.ones((3, 3)))
    labels[~strokes] = 0
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    clear = np.unique(labels[ink > 0.6])
    # A mark that fills a corner is the edge of the paper, or a shadow.
    inner = np.setdiff1d(clear, labels[[0, 0, -1, -1], [0, -1, 0, -1]])
    clear = inner if len(inner) else clear
    large = clear[sizes[clear] >= 0.02 * sizes[clear].max()]
    if len(large) > _MOST_MARKS:
        raise HandwritingError(f"no digit found among {len(large):,} marks: grainy paper, or text?")
    parts = [labels == number for number in large[np.argsort(-sizes[large])]]
    boxes = [_box(part) for part in parts]
    heights = sorted(bottom - top for _, top, _, bottom in boxes)
    # Height of digits, if there are too many tall parts to be the halves of one digit.
    num_high = sum(height >= 0.6 * heights[-1] for height in heights)
    as_high_as_digits = 0.6 * heights[-1] if num_high >= 3 else math.inf
    groups: list[Mask] = []
    for part in parts:
        if _is_frame(part, boxes):
            continue
        around = (group for group in groups if _belong_together(group, part, as_high_as_digits))
        if (group := next(around, None)) is None:
            groups.append(part)
        else:
            group |= part
    tallest = max(_extent(group)[1] for group in groups)
    return [group for group in groups if _extent(group)[1] >= 0.3 * tallest]


def _is_frame(part: Mask, boxes: list[Box]) -> bool:
    """Return whether a part is a thin, nearly rectangular outline around any of the boxes."""
    left, top, right, bottom = _box(part)
    inside = [b for b in boxes if left < b[0] and top < b[1] and b[2] < right and b[3] < bottom]
    largest = max((max(b[2] - b[0], b[3] - b[1]) for b in inside), default=0)
    own = part[top:bottom, left:right]
    # A speck inside a 0 is at most a few stroke widths large.
    if not inside or largest < 4 * _stroke_width(own):
        return False
    down, across = (math.ceil(side / 10) for side in own.shape)
    # The inked fraction of each side of the box; about 0.6 for an ellipse.
    bands = (own[:down].any(0), own[-down:].any(0), own[:, :across].any(1), own[:, -across:].any(1))
    inked = [band.mean() >= 0.85 for band in bands]
    # A frame may be cut off by the edge of the picture.
    height, width = part.shape
    cut = [top == 0, bottom == height, left == 0, right == width]
    return sum(inked) >= 2 and all(i or c for i, c in zip(inked, cut, strict=True))


def _belong_together(group: Mask, part: Mask, as_high_as_digits: float) -> bool:
    """Return whether a smaller part is a piece of a digit: close above, below or inside it.

    Two that are both as high as digits, one above the other, are in two rows.
    """
    boxes = np.array([_box(group), _box(part)])
    # Width and height of the boxes' overlap; negative if they are apart.
    across, down = boxes[:, 2:].min(axis=0) - boxes[:, :2].max(axis=0)
    if down <= 0 and min(_extent(group)[1], _extent(part)[1]) >= as_high_as_digits:
        return False
    narrower = min(_extent(group)[0], _extent(part)[0])
    return bool(across >= 0.4 * narrower and -down <= 0.2 * _extent(group)[1])


def _normalized(ink: Gray, mask: Mask) -> Tensor:
    """Scale the longer side of a digit to 20 pixels, and centre its centre of mass."""
    # Include the soft edges of its strokes, but nothing of its neighbours.
    near = ndimage.binary_dilation(mask, iterations=2) & (mask | (ink <= _FAINT))
    left, top, right, bottom = _box(mask)
    own = np.where(near, ink, 0)[top:bottom, left:right]
    growth = (_THINNEST * max(own.shape) / _BOX - _stroke_width(own > _FAINT)) / 2
    if growth > 0:
        own = np.pad(own, round(growth))
        distance = ndimage.distance_transform_edt(own <= 0.5)
        own = np.maximum(own, (growth + 1 - distance).clip(0, 1))
    height, width = (max(1, round(side * _BOX / max(own.shape))) for side in own.shape)
    small = _resized(own, height, width)
    small = (small / np.percentile(small[small > 0.2 * small.max()], 90)).clip(0, 1)
    image = np.zeros((_SIDE, _SIDE), dtype=np.float32)
    y, x = (
        min(max(round(_SIDE / 2 - centre), 0), _SIDE - side)
        for centre, side in zip(ndimage.center_of_mass(small), small.shape, strict=True)
    )
    image[y : y + height, x : x + width] = small
    return _to_bytes(image)


def _stroke_width(strokes: Mask) -> float:
    """Estimate the width of strokes: within one of width w, the edge is w / 4 away on average."""
    # Beyond the picture is background.
    distance = ndimage.distance_transform_edt(np.pad(strokes, 1))
    return max(1.0, 4 * float(distance[distance > 0].mean()) - 2)


def _box(mask: Mask) -> Box:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _extent(mask: Mask) -> tuple[int, int]:
    left, top, right, bottom = _box(mask)
    return right - left, bottom - top


def _resized(gray: Gray, height: int, width: int) -> Gray:
    """Resize an image with anti-aliasing."""
    picture = Image.fromarray(gray.astype(np.float32))
    resized = picture.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized, dtype=np.float32).clip(0, 1)


def _to_bytes(gray: Gray) -> Tensor:
    return torch.from_numpy(np.rint(255 * gray).astype(np.uint8))
