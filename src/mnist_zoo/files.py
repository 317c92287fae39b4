"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mnist_zoo.errors import ZooError


@contextmanager
def whole(file: Path) -> Iterator[Path]:
    """Yield a path beside a file, to write to; it becomes the file if all goes well.

    Until then what was there before stays as it is.

    Raises:
        ZooError: It cannot be written, or not be put in its place.
    """
    if not file.name:  # the current folder, or the root
        raise ZooError(f"cannot write {file}: {os.strerror(errno.EISDIR)}.")
    unfinished = file.with_name(f".{file.name}.unfinished")
    try:
        yield unfinished
        unfinished.replace(file)
    except OSError as error:
        raise ZooError(f"cannot write {file}: {error.strerror or error}.") from error
    finally:
        with suppress(OSError):
            unfinished.unlink()
