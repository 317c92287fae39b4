"""Finding the file of a checkpoint or of installed weights, without importing torch."""

from __future__ import annotations

import os
from pathlib import Path

from mnist_zoo import registry
from mnist_zoo.errors import ZooError, did_you_mean
from mnist_zoo.files import expanded


class CheckpointError(ZooError):
    """A checkpoint that is missing, damaged, or of an unknown network."""


def find(name: str | os.PathLike[str] | None) -> Path:
    """Return a file, given its path or the name of installed weights; None: the default weights.

    Raises:
        CheckpointError: There are no such file or weights, the file is empty, or the name is.
    """
    shipped = registry.shipped_weights()
    if name is None:
        name = registry.DEFAULT_WEIGHTS
        if name not in shipped:
            raise CheckpointError(
                "no weights are installed. Name a checkpoint: --ckpt_path best.ckpt"
            )
    if not str(name):
        raise CheckpointError("--ckpt_path is empty: name a file.")
    path = expanded(name)
    # A folder may have that name: in runs/, the one with the network's runs.
    if not path.is_file() and str(name) in shipped:
        return shipped[str(name)]
    if path.exists() or path.suffix or path.name != str(name):
        return existing(path)
    installed = f" (there are {' and '.join(shipped)})" if shipped else ""
    raise CheckpointError(
        f"{name}: neither a file nor installed weights{installed}."
        f"{did_you_mean(path.name, shipped) or _nearby(path)}"
    )


def existing(file: Path) -> Path:
    """Return the file if it exists and holds something.

    Raises:
        CheckpointError: It does not.
    """
    if not file.is_file():
        kind = "is a folder, not a file" if file.is_dir() else "does not exist"
        raise CheckpointError(f"checkpoint {file} {kind}.{_nearby(file)}")
    if file.stat().st_size == 0:
        raise CheckpointError(f"checkpoint {file} is empty: writing it was interrupted.")
    return file


def _nearby(file: Path) -> str:
    folder = file if file.is_dir() else file.parent
    beside = [str(path) for path in sorted(folder.glob("*.ckpt"))]
    runs = sorted(Path("runs").glob("*/*/checkpoints/best.ckpt"), key=lambda f: f.stat().st_mtime)
    found = beside or [str(path) for path in runs]
    if not found:
        return " Checkpoints are written by mnist-zoo fit."
    if hint := did_you_mean(str(file), found):
        return hint
    newest = Path(found[-1])
    last = newest.with_name("last.ckpt")
    if newest != last and last.exists():
        return f" There are {newest.name} and {last.name} in {newest.parent}"
    return f" There is {newest}"
