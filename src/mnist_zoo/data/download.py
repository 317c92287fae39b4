"""Download of torchvision data sets, through a temporary folder."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any

from filelock import FileLock

from mnist_zoo.errors import DataError


def download(source: str, root: Path, names: Sequence[str], **options: Any) -> None:
    """Download a data set with torchvision, which shows progress and checks the archives.

    The files go into a temporary folder inside ``root`` and are moved to ``root/<source>/raw`` once
    all are complete, so a failed or interrupted download leaves nothing half-written.

    Args:
        source: Name of the class in ``torchvision.datasets``.
        root: Folder of all data sets; created if missing.
        names: The files to keep of those that torchvision unpacks.
        **options: Further arguments of the class.

    Raises:
        DataError: ``root`` cannot be written, or the download failed.
    """
    from torchvision import datasets

    raw = root / source / "raw"
    created = [folder for folder in (raw, *raw.parents) if not folder.exists()]
    try:
        raw.mkdir(parents=True, exist_ok=True)
        temporary = tempfile.TemporaryDirectory(dir=root, prefix=".download-")
    except OSError as error:
        raise DataError(
            f"{source} cannot be downloaded: {root} cannot be written ({error.strerror}).\n"
            "Name a writable folder with --data.root."
        ) from error
    with temporary as folder:
        try:
            for train in (True, False):
                getattr(datasets, source)(folder, train=train, download=True, **options)
            for name in names:
                Path(folder, source, "raw", name).replace(raw / name)
        # torchvision passes network errors through, and raises RuntimeError for a bad checksum.
        except (OSError, RuntimeError, HTTPException) as error:
            temporary.cleanup()
            for made in created:
                with contextlib.suppress(OSError):
                    made.rmdir()
            text = " ".join(str(error).split())
            no_connection = re.search(r"<urlopen error (?:\[Errno -?\d+\] )?(.*?)>", text)
            reason = no_connection[1] if no_connection else text[:200]
            raise DataError(
                f"{source} could not be downloaded: {reason}.\n{how_to_bring(source, raw, names)}"
            ) from error


def alone(root: Path) -> FileLock:
    """Return a lock against other processes of this user that download into the same folder."""
    # The lock is not in the folder itself, which may not exist yet.
    named = f"{os.path.expanduser('~')} {root}"  # noqa: PTH111 (Path fails without a home)
    name = hashlib.sha256(named.encode()).hexdigest()[:16]
    return FileLock(Path(tempfile.gettempdir(), f"mnist-zoo-{name}.lock"))


def how_to_bring(source: str, raw: Path, names: Sequence[str]) -> str:
    """Return advice for a user without the files.

    Args:
        source: Name of the data set.
        raw: Absolute path of the folder that the files are wanted in.
        names: The files.
    """
    return (
        f"Put {', '.join(names)} (as they are, or .gz) into {raw}, or name a folder that has"
        f" {source}/raw in it with --data.root; fit and test also take the built-in digits:"
        " --data Digits"
    )
