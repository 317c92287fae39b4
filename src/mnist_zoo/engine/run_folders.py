"""Run folders ``runs/<Network>/version_N``, each claimed by a single run."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from lightning.pytorch.utilities import rank_zero_only

from mnist_zoo.errors import ZooError

# If Lightning starts one process per device, the first tells the others through this.
_SHARED_WITH_OTHER_RANKS = "MNIST_ZOO_RUN"


@dataclass(frozen=True)
class Claim:
    """A folder claimed by a single run, and the parent folders created for it.

    Attributes:
        folder: The folder. Under torchrun or SLURM, only the first process knows its number; the
            others, which write nothing, have its parent.
        created: The parent folders created for it.
        is_ours: Whether this process, not another of the same run, made the claim.
    """

    folder: Path
    created: tuple[Path, ...] = ()
    is_ours: bool = True

    def discard(self) -> None:
        """Undo the claim, for a run that failed before it wrote a checkpoint."""
        if not self.is_ours or any(self.folder.glob("checkpoints/*")):
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        for folder in self.created:
            with contextlib.suppress(OSError):
                folder.rmdir()


def is_first_process() -> bool:
    """Return whether this is the only process of a run, or the first of several."""
    return bool(rank_zero_only.rank == 0)  # type: ignore[attr-defined]  # set by Lightning


def claim(folder: Path) -> Claim:
    """Create the next free ``version_N`` in a folder; only the first process does.

    Creating a folder is atomic, so two runs never claim the same one.

    Raises:
        ZooError: The folder cannot be created or written.
    """
    if not is_first_process():
        return Claim(Path(os.environ.get(_SHARED_WITH_OTHER_RANKS, folder)), is_ours=False)
    created = tuple(path for path in (folder, *folder.parents) if not path.exists())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        taken = [
            int(m[1]) for p in folder.iterdir() if (m := re.fullmatch(r"version_(\d+)", p.name))
        ]
        for number in itertools.count(max(taken, default=-1) + 1):
            run = folder / f"version_{number}"
            with contextlib.suppress(FileExistsError):
                run.mkdir()
                break
    except OSError as error:
        raise ZooError(
            f"cannot write to {folder.absolute()}: {error.strerror}.\n"
            "Give another folder for runs: --trainer.default_root_dir DIR"
        ) from error
    os.environ[_SHARED_WITH_OTHER_RANKS] = str(run)
    return Claim(run, created)


class TakenError(ZooError):
    """A folder that another command is using."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other commands from training in a folder.

    Only the first process of a run locks. On file systems without locks, nothing is locked.

    Raises:
        TakenError: Another command trains there.
    """
    lock = FileLock(folder / ".lock")
    try:
        if is_first_process():
            lock.acquire(timeout=0)
    except Timeout as error:
        raise TakenError(
            f"{folder} is being trained by another command.\nWait until it ends, or start a new"
            " run."
        ) from error
    except (OSError, NotImplementedError):
        pass
    try:
        yield
    finally:
        lock.release()


def remove_unfinished(folder: Path) -> None:
    """Remove the checkpoints that a killed command left half-written in a run's locked folder."""
    if is_first_process():
        for file in folder.glob("checkpoints/.*.unfinished"):
            file.unlink(missing_ok=True)


def of_checkpoint(path: Path) -> Path | None:
    """Return the run folder that contains a checkpoint, if any.

    Raises:
        ZooError: A link in the folder leads out of it; in an untrusted folder, it could cause files
            elsewhere to be overwritten.
    """
    checkpoints = path.resolve().parent
    run = checkpoints.parent
    if checkpoints.name != "checkpoints" or not re.fullmatch(r"version_\d+", run.name):
        return None
    for file in (*run.glob("*"), *run.glob("checkpoints/*"), *run.glob("pictures/*")):
        if not Path(os.path.realpath(file)).is_relative_to(run):
            raise ZooError(
                f"{file} is a link that leads out of its run's folder, so nothing is written"
                " there.\nRemove the link, or copy the checkpoint elsewhere."
            )
    return run
