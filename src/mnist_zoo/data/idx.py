"""Reading idx files, the binary format of MNIST, with clear errors for damaged ones.

An idx file is a magic number (two zero bytes, a type code, the number of dimensions), the size of
each dimension as a big-endian 32-bit integer, and the values in C order. The format is described
on the page of MNIST: http://yann.lecun.com/exdb/mnist/.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mnist_zoo.errors import DataError

IMAGES = 0x00000803
"""Magic number of an image file: unsigned bytes, (N, 28, 28)."""
LABELS = 0x00000801
"""Magic number of a label file: unsigned bytes, (N,)."""
LONG_LABELS = 0x00000C02
"""Magic number of a label file of QMNIST: 32-bit integers, (N, 8), the label in column 0."""

# Several times the unpacked size of the largest of these data sets.
_LARGEST = 1 << 30
_DTYPES: dict[int, np.dtype[Any]] = {0x08: np.dtype(np.uint8), 0x0C: np.dtype(">i4")}


def find(path: Path) -> Path | None:
    """Return ``path``, or ``path`` + ``.gz`` if only that exists, or None."""
    packed = path.with_name(f"{path.name}.gz")
    return next((file for file in (path, packed) if file.is_file()), None)


def read_idx(path: Path, magic: int, md5: str | None = None) -> npt.NDArray[Any]:
    """Read one idx file, checking its magic number, size and, if known, checksum.

    Args:
        path: The file without ``.gz``; if it is missing, the gzipped file beside it is read.
        magic: The expected magic number, which encodes type and number of dimensions.
        md5: Hexadecimal MD5 of the uncompressed file.

    Returns:
        A writable array with the file's own shape and type.

    Raises:
        DataError: The file is missing, cannot be read, or is not what it should be.
    """
    file = find(path)
    if file is None:
        raise DataError(
            f"{path} does not exist, nor does {path.name}.gz.\nRun again to download it."
        )
    data = _read_bytes(file)
    dtype, num_dims = _DTYPES[magic >> 8], magic & 0xFF
    start = 4 + 4 * num_dims
    if len(data) < start:
        raise _damaged(file, f"at least {start} bytes", f"{len(data)}")
    found = int.from_bytes(data[:4], "big")
    if found != magic:
        raise _damaged(file, f"the magic number 0x{magic:08X}", f"0x{found:08X}")
    shape = np.frombuffer(data, ">u4", count=num_dims, offset=4).tolist()
    size = start + math.prod(shape) * dtype.itemsize
    if len(data) != size:
        raise _damaged(file, f"{size:,} bytes for shape {tuple(shape)}", f"{len(data):,}")
    if md5 is not None:
        found_md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
        if found_md5 != md5:
            raise _damaged(file, f"the MD5 checksum {md5}", found_md5)
    return np.frombuffer(data, dtype, offset=start).reshape(shape)


def read_images(
    images_path: Path,
    labels_path: Path,
    *,
    labels_magic: int = LABELS,
    md5s: Mapping[str, str] | None = None,
) -> tuple[Tensor, Tensor]:
    """Read an image file and its label file.

    Args:
        images_path: Idx file of images.
        labels_path: Idx file of labels.
        labels_magic: ``LABELS`` or ``LONG_LABELS``.
        md5s: MD5 by file name; other files are read without a checksum.

    Returns:
        Images, uint8 in 0..255, (N, 28, 28), and targets, int64 in 0..9, (N,).

    Raises:
        DataError: A file is missing or damaged, or the two do not belong together.
    """
    md5s = md5s or {}
    images = read_idx(images_path, IMAGES, md5s.get(images_path.name))
    if images.shape[1:] != (28, 28):
        height, width = images.shape[1:]
        raise _damaged(images_path, "images of 28 × 28 pixels", f"{height} × {width}")
    if not len(images):
        raise _damaged(images_path, "images", "none")
    labels = read_idx(labels_path, labels_magic, md5s.get(labels_path.name))
    if not all(labels.shape[1:]):
        raise _damaged(labels_path, "labels", "none")
    targets = (labels if labels.ndim == 1 else labels[:, 0]).astype(np.int64)
    if len(images) != len(targets):
        raise DataError(
            f"{images_path} holds {len(images):,} images, but {labels_path} holds"
            f" {len(targets):,} labels.\nDelete both and run again to download them."
        )
    outside = targets[(targets < 0) | (targets > 9)]
    if outside.size:
        raise _damaged(labels_path, "labels from 0 to 9", f"{outside[0]}")
    return torch.from_numpy(images), torch.from_numpy(targets)


def _read_bytes(file: Path) -> bytearray:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}.") from error
    if file.suffix == ".gz":
        try:
            with gzip.open(io.BytesIO(data)) as stream:
                data = stream.read(_LARGEST + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise _damaged(file, "a whole gzip file", f"this: {error}") from error
        if len(data) > _LARGEST:
            raise _damaged(file, f"at most {_LARGEST:,} bytes unpacked", "more")
    # Arrays over a bytearray are writable, as torch.from_numpy requires.
    return bytearray(data)


def _damaged(file: Path, expected: str, found: str) -> DataError:
    return DataError(
        f"{file} is damaged: expected {expected}, found {found}.\n"
        "Delete it and run again to download it."
    )
