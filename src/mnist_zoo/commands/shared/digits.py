"""The digits in the pictures given to a command: files, folders, standard input."""

from __future__ import annotations

import contextlib
import io
import mimetypes
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from mnist_zoo.errors import ZooError, one_line, printable

if TYPE_CHECKING:
    from mnist_zoo.handwriting import Digit

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
Source = Path | TextIO | ZooError

mimetypes.add_type("image/avif", ".avif")  # unknown to Python 3.10


def read(words: Sequence[str], as_is: bool = False) -> Iterator[tuple[str, list[Digit] | str]]:
    """Yield each picture's name, and its digits or the reason why it has none.

    Reasons, and pictures of other kinds in folders, are also printed on standard error.

    Args:
        words: Files; folders, whose pictures are sorted by name; and ``-`` for standard input.
        as_is: Only scale pictures: find no digits, centre nothing.

    Raises:
        ZooError: A word is empty.
    """
    if "" in words:
        raise ZooError("the name of a picture is empty: is a shell variable unset?")
    for word in words:
        _tell_of_others_in(Path(word))
    for name, source in _sources(words):
        try:
            yield name, _digits(source, as_is)
        except ZooError as error:
            reason = str(error).removeprefix(f"{name}: ")
            print(printable(f"{name}: {reason}"), file=sys.stderr)
            yield name, reason


def require_not_among(words: Sequence[str], file: Path) -> None:
    """Refuse to write a file that is one of the given pictures.

    Raises:
        ZooError: It is.
    """
    if not file.exists():
        return
    given = [source for _, source in _sources(words) if isinstance(source, Path)]
    if any(source.exists() and file.samefile(source) for source in given):
        raise ZooError(f"{file} is one of the pictures to read, and would be overwritten.")


def drawable(name: str) -> str:
    """Return a picture's name without its folder, as valid UTF-8 that can be drawn."""
    return one_line(Path(name).name.encode(errors="backslashreplace").decode())


def _sources(words: Sequence[str]) -> Iterator[tuple[str, Source]]:
    """Yield name and source of each picture; the source is an error where there is none."""
    for word in words:
        if word == "-":
            yield word, sys.stdin or io.TextIOWrapper(io.BytesIO())
            continue
        path = Path(word)
        try:
            found = _pictures_in(path) if path.is_dir() else None
        except OSError as error:
            yield word, ZooError(f"cannot be read ({error.strerror}).")
            continue
        if found is None:
            yield word, path
        elif not found:
            yield word, ZooError("no pictures in this folder.")
        else:
            yield from ((str(file), file) for file in found)


def _pictures_in(folder: Path) -> list[Path]:
    return sorted(
        file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES and not file.is_fifo()
    )


def _tell_of_others_in(folder: Path) -> None:
    """Say which pictures in a folder are left out, if any: a phone's may be of another kind."""
    with contextlib.suppress(OSError):  # reported where the folder is read
        files = folder.iterdir() if folder.is_dir() else ()
        if others := sorted(file.name for file in files if _is_of_another_kind(file)):
            few = ", ".join(others[:2]) + ", …" * (len(others) > 2)
            print(printable(f"{folder}: pictures of other kinds left out: {few}"), file=sys.stderr)


def _is_of_another_kind(file: Path) -> bool:
    """Whether a file is a picture by its name, but none that can be read."""
    kind = mimetypes.guess_type(file.name, strict=False)[0] or ""
    return kind.startswith("image/") and file.suffix.lower() not in SUFFIXES


def _digits(source: Source, as_is: bool) -> list[Digit]:
    from mnist_zoo import handwriting

    if isinstance(source, ZooError):
        raise source
    if isinstance(source, Path) and source.suffix in (".ckpt", ".safetensors"):
        raise ZooError(f"{source}: not a picture. Did you mean --ckpt_path {source}?")
    if isinstance(source, Path):
        picture = handwriting.open_picture(source)
    elif content := source.buffer.read():
        picture = handwriting.open_picture(io.BytesIO(content))
    else:
        raise ZooError("standard input is empty.")
    return [handwriting.as_is(picture)] if as_is else handwriting.digits(picture)
