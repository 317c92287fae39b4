"""Images as text: 784 pixel values and a label per line, readable by any program.

The values are decimal integers separated by tabs (any white space is read), pixels from 0 to 255
row by row, the label from 0 to 9 last. ``#`` starts a comment, and blank lines are skipped.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mnist_zoo.errors import DataError
from mnist_zoo.files import whole

_NUM_PIXELS = 28 * 28
_LONGEST_LINE = 100_000


def read_text(path: str | Path) -> tuple[Tensor, Tensor]:
    """Read a file of images as text.

    Args:
        path: The file, in UTF-8.

    Returns:
        Images, uint8 in 0..255, (N, 28, 28) with N >= 1, and targets, int64 in 0..9, (N,).

    Raises:
        DataError: The file cannot be read, holds no image, or has a malformed line.
    """
    path = Path(path)
    rows = []
    try:
        with path.open("rb") as file:
            # A device or binary file may have no line break at all.
            for number, line in enumerate(iter(lambda: file.readline(_LONGEST_LINE), b""), start=1):
                try:
                    values = _parse(line)
                except ValueError as error:
                    raise DataError(f"{path}, line {number}: {error}.") from error
                if values.size:
                    rows.append(values)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    if not rows:
        raise DataError(f"{path} holds no images.\nWrite such a file with: mnist-zoo data to-text")
    table = torch.from_numpy(np.stack(rows))
    if _has_label_first(table):
        raise DataError(
            f"{path}: the label of every line is 0, and its first value from 0 to 9: is that the"
            " label?\nIt must come last."
        )
    images = table[:, :_NUM_PIXELS].to(torch.uint8).reshape(-1, 28, 28)
    return images, table[:, _NUM_PIXELS].to(torch.int64)


def write_text(path: str | Path, images: Tensor, targets: Tensor, comment: str = "") -> None:
    """Write images as text; the file appears only when it is complete.

    Args:
        path: The file; an existing one is replaced.
        images: uint8, (N, 28, 28).
        targets: Integers in 0..9, (N,).
        comment: Lines to put at the top, without ``#``.

    Raises:
        ZooError: The file cannot be written.
    """
    path = Path(path)
    table = torch.cat([images.flatten(1), targets.to(torch.uint8).unsqueeze(1)], dim=1)
    words = [str(value) for value in range(256)]
    with whole(path) as unfinished, unfinished.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"# {line}\n" for line in comment.splitlines())
        for row in table.numpy():
            file.write("\t".join([words[value] for value in row.tolist()]) + "\n")


def _has_label_first(table: Tensor) -> bool:
    """Return whether labels seem to precede the pixels, of which the last is black."""
    first, last = table[:, 0], table[:, -1]
    return bool((last == 0).all() and (first <= 9).all() and (first != first[0]).any())


def _parse(line: bytes) -> npt.NDArray[np.int16]:
    """Return the 785 values of a line, none if it is blank; ValueError if it is malformed."""
    try:
        text = line.decode("utf-8-sig").split("#", 1)[0]
    except UnicodeDecodeError as error:
        packed = line.startswith(b"\x1f\x8b")
        what = "this is compressed; unpack it first" if packed else "this is not text in UTF-8"
        raise ValueError(what) from error
    words = text.split()
    if not words:
        return np.empty(0, np.int16)
    if text.count(",") >= _NUM_PIXELS:
        # Refused: such files mostly have the label first, where it would pass for a pixel.
        raise ValueError(
            "the values are separated by commas; expected tabs, and the label last, not first"
        )
    if len(words) != _NUM_PIXELS + 1:
        raise ValueError(
            f"expected {_NUM_PIXELS} pixel values and a label, {_NUM_PIXELS + 1} in all,"
            f" found {len(words)}"
        )
    try:
        if "_" in "".join(words):
            raise ValueError("to NumPy, 1_0 is 10")
        values = np.array(words, dtype=np.int64)
    except (ValueError, OverflowError) as error:
        odd = next(word for word in words if not re.fullmatch(r"[+-]?\d{1,18}", word))
        raise ValueError(f"expected integers, found {odd!r}") from error
    outside = np.flatnonzero((values[:-1] < 0) | (values[:-1] > 255))
    if outside.size:
        first = outside[0]
        raise ValueError(
            f"expected pixels from 0 to 255, found {values[first]} as value {first + 1}"
        )
    if not 0 <= values[-1] <= 9:
        raise ValueError(f"expected a label from 0 to 9 as the last value, found {values[-1]}")
    return values.astype(np.int16)
