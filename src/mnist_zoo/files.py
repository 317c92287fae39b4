"""Where files are, and how they are written: whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mnist_zoo.errors import ZooError


def absolute(path: str | os.PathLike[str]) -> Path:
    """Expand ``~`` and make a path absolute; ``~user`` of an unknown user is left as it is."""
    return Path(os.path.expanduser(path)).absolute()  # noqa: PTH111 (Path fails of nobody's)


def require_writable(folder: Path, hint: str) -> None:
    """Find out, before the work, whether files can be written to a folder.

    Args:
        folder: It need not be there yet.
        hint: What to do where they cannot.

    Raises:
        ZooError: They cannot.
    """
    try:
        existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise ZooError(f"cannot write to {folder}: {error.strerror}.\n{hint}") from error


@contextmanager
def whole(file: Path) -> Iterator[Path]:
    """Yield a path beside a file, to write to; it becomes the file if all goes well.

    Until then what was there before stays as it is. Of a link, what it leads to is replaced.

    Raises:
        ZooError: It cannot be written, or not be put in its place.
    """
    if not file.name:  # the current folder, or the root
        raise ZooError(f"cannot write {file}: {os.strerror(errno.EISDIR)}.")
    target = Path(os.path.realpath(file))
    if target.exists() and not (target.is_file() or target.is_dir()):
        raise ZooError(f"cannot write {file}: it is a pipe or device, which cannot be replaced.")
    # Another command may be writing the same file, and a link in a folder of a stranger's may lead
    # anywhere: the name is not to be foreseen.
    unfinished = target.with_name(f".{target.name}.{secrets.token_hex(4)}.unfinished")
    try:
        yield unfinished
        unfinished.replace(target)
    except OSError as error:
        raise ZooError(f"cannot write {file}: {error.strerror or error}.") from error
    finally:
        with suppress(OSError):
            unfinished.unlink()
