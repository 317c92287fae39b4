"""Paths, and atomic writing of files."""

from __future__ import annotations

import errno
import os
import secrets
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mnist_zoo.errors import ZooError

# For a file that cannot be replaced while another program reads it, as on Windows.
_NUM_TRIES, _SECONDS_BETWEEN_TRIES = 50, 0.1


def expanded(path: str | os.PathLike[str]) -> Path:
    """Expand ``~``, as shells do except after ``=``; that of an unknown user is left as it is."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 (Path fails of nobody's)


def absolute(path: str | os.PathLike[str]) -> Path:
    """Expand ``~`` and make a path absolute."""
    return expanded(path).absolute()


def shell_quoted(path: Path) -> str:
    """Return a path as typed in a shell."""
    return shlex.quote(str(path)) if os.name == "posix" else subprocess.list2cmdline([str(path)])


def require_writable(folder: Path, hint: str) -> None:
    """Check, before the work, that files can be written to a folder.

    Args:
        folder: It need not exist yet.
        hint: What to do if they cannot.

    Raises:
        ZooError: They cannot.
    """
    _try(folder, f"cannot write to {folder}", hint)


def require_writable_file(file: Path, hint: str, makes_folder: bool = False) -> None:
    """Check, before the work, that a file can be written.

    Args:
        file: The file, which may exist.
        hint: What to do if it cannot.
        makes_folder: Whether its folder will be made if there is none.

    Raises:
        ZooError: It cannot.
    """
    if file.is_dir():
        raise ZooError(f"cannot write {file}: {os.strerror(errno.EISDIR)}.\n{hint}")
    if not (makes_folder or file.parent.is_dir()):
        raise ZooError(f"cannot write {file}: there is no folder {file.parent}.\n{hint}")
    _try(file.parent, f"cannot write {file}", hint)


def _try(folder: Path, failure: str, hint: str) -> None:
    """Write a file to a folder, or to where it will be made, and remove it."""
    try:
        existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise ZooError(f"{failure}: {error.strerror}.\n{hint}") from error


def _replace(new: Path, old: Path) -> None:
    """Put a file in the place of another; on Windows, wait until nobody has that open."""
    for _ in range(_NUM_TRIES if os.name == "nt" else 0):
        with suppress(PermissionError):
            new.replace(old)
            return
        time.sleep(_SECONDS_BETWEEN_TRIES)
    new.replace(old)


@contextmanager
def whole(file: Path) -> Iterator[Path]:
    """Yield a temporary path beside a file; it replaces the file if all goes well.

    Until then the old file stays untouched; the new one gets its permissions. If the file is a
    link, its target is replaced.

    Raises:
        ZooError: It cannot be written or replaced.
    """
    if not file.name:  # the current folder, or the root
        raise ZooError(f"cannot write {file}: {os.strerror(errno.EISDIR)}.")
    target = Path(os.path.realpath(file))
    if target.exists() and not (target.is_file() or target.is_dir()):
        raise ZooError(f"cannot write {file}: it is a pipe or device, which cannot be replaced.")
    # Another command may be writing the same file, and a link in an untrusted folder may lead
    # anywhere, so the name must be unpredictable.
    unfinished = target.with_name(f".{target.name}.{secrets.token_hex(4)}.unfinished")
    try:
        yield unfinished
        # There may be no such file, or a file system without permissions.
        with suppress(OSError):
            shutil.copymode(target, unfinished)
        _replace(unfinished, target)
    except OSError as error:
        raise ZooError(f"cannot write {file}: {error.strerror or error}.") from error
    finally:
        with suppress(OSError):
            unfinished.unlink()
