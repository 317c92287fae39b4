"""One run of a sweep: train, then test once, and return the record.

Nothing can be chosen by the test images: for the record, they are read after training, when the
weights to test are settled (those that validation chose or, if nothing was held out, the last
ones).
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_zoo import registry
from mnist_zoo.commands.shared.provenance import device_name, versions
from mnist_zoo.commands.sweep.plan import Run
from mnist_zoo.commands.training import command as training
from mnist_zoo.errors import FinishedError, ZooError

if TYPE_CHECKING:
    from mnist_zoo.models.checkpoint import Checkpoint

OnEpoch = Callable[[int, int | None], None]
"""Called with the number of completed epochs and, if known, of all epochs."""

# Several devices would each start the sweep again, which is how Lightning trains on them.
_ONE_DEVICE = "--trainer.devices=1"
_QUIET = ("--trainer.enable_progress_bar=false", "--pictures=false")
# These override a recipe, since records depend on what they write.
_AS_RECORDED = (
    _ONE_DEVICE, "--trainer.num_nodes=1", "--trainer.logger=true", "--trainer.fast_dev_run=false",
)  # fmt: skip
# The file in a run's folder that marks its training as finished.
_TRAINED = "trained"
# What a record keeps by epoch, if the run logged it.
BY_EPOCH = (
    "train/loss", "train/acc", "val/loss", "val/acc", "test_curve/loss", "test_curve/acc",
)  # fmt: skip


def make(run: Run, runs: Path, on_epoch: OnEpoch | None = None) -> dict[str, Any]:
    """Make a run in this process, with its output going to a file; return its record.

    Args:
        run: The run; if it was stopped before, it is resumed.
        runs: The folder of all runs.
        on_epoch: Called when an epoch begins.
    """
    folder = runs / run.folder
    folder.mkdir(parents=True, exist_ok=True)
    # Never closed: the process ends with the run.
    output = (folder / "output.txt").open(
        "a", buffering=1, encoding="utf-8", errors="backslashreplace"
    )
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    # On Windows, Python's own streams would still write to the console.
    sys.stdout = sys.stderr = output
    try:
        return run.record(train_and_test(run, folder, on_epoch))
    except (Exception, SystemExit) as error:
        if isinstance(error, SystemExit) and error.code == 128 + signal.SIGTERM:
            print("The sweep was stopped. The same command resumes it here.", flush=True)
        else:
            traceback.print_exc()
        return run.crashed(f"{type(error).__name__}: {error}")


def check(runs: Iterable[Run]) -> None:
    """Take each run up to the point where training would begin.

    Raises:
        ZooError: A flag or a recipe is wrong; the message is that of ``fit``.
    """
    from mnist_zoo.commands.sweep.dry_run import DryRun

    with tempfile.TemporaryDirectory() as folder:
        for run in runs:
            flags = [*_flags(run, Path(folder)), "--trainer.fast_dev_run=true"]
            training.run(["fit", *flags], DryRun)


def train_and_test(run: Run, folder: Path, on_epoch: OnEpoch | None = None) -> dict[str, Any]:
    """Make a run, and return its outcome as recorded."""
    import torch

    from mnist_zoo.models import checkpoint as checkpoints
    from mnist_zoo.report import events

    last = checkpoints.read(_train(run, folder, on_epoch))
    weights = checkpoints.read(tested_weights(last.path))
    run_folder = last.path.parents[1]
    flags = [*_checkpoint(weights), _ONE_DEVICE, *_QUIET, *run.of_the_machine]
    cli = training.run(["test", *flags])
    tested = cli.trainer.callback_metrics
    cli.datamodule.setup("fit")
    device = cli.trainer.strategy.root_device
    scalars = events.read_scalars(run_folder)
    epochs = {
        tag: [None if value is None else rounded(value) for value in events.by_epoch(scalars, tag)]
        for tag in BY_EPOCH
        if tag in scalars
    }
    # A custom training_step need not log what the zoo's does.
    trained = {tag: values[-1] for tag, values in epochs.items()}
    test_loss = float(tested["test/loss"])
    diverged = not math.isfinite(test_loss) or trained.get("train/loss", 0) is None
    at_their_step = min(
        scalars.get("val/acc", ()),
        key=lambda point: abs(point[0] - weights.num_steps),
        default=None,
    )
    return {
        "status": "diverged" if diverged else "finished",
        "weights": weights.path.stem,
        "test_acc": rounded(float(tested["test/acc"])),
        "test_loss": rounded(test_loss),
        "train_loss": trained.get("train/loss"),
        "train_acc": trained.get("train/acc"),
        "val_acc": at_their_step and rounded(at_their_step[1]),
        "num_train_images": cli.datamodule.num_train_images,
        "num_epochs": last.num_epochs,
        "num_steps": last.num_steps,
        "seconds": round(events.read_seconds(run_folder), 1),
        "device": device.type,
        "device_name": device_name(device),
        "num_threads": torch.get_num_threads(),
        "versions": versions(),
        "epochs": epochs,
    }


def last_checkpoint(folder: Path) -> Path | None:
    """Return the last checkpoint of a run; None if it has written none yet."""
    found = folder.glob("*/version_*/checkpoints/last.ckpt")
    return max(found, key=lambda file: file.stat().st_mtime, default=None)


def tested_weights(last: Path) -> Path:
    """Return the weights to test: those that validation chose, or else the last."""
    best = last.with_name("best.ckpt")
    return best if best.exists() else last


def rounded(value: float) -> float:
    """Round a value as in records."""
    return float(f"{value:.6g}")


def _train(run: Run, folder: Path, on_epoch: OnEpoch | None) -> Path:
    """Train from the start, or resume a stopped run; return its last checkpoint."""
    from mnist_zoo.engine.callbacks import Epochs
    from mnist_zoo.models import checkpoint as checkpoints

    last = last_checkpoint(folder)
    if last and (last.parents[1] / _TRAINED).exists():
        # fit would resume a run that a callback or a time limit has ended.
        return last
    flags, callbacks = _flags(run, folder), [Epochs(on_epoch)]
    if last is None:
        target = f"--trainer.default_root_dir={folder}"
        training.run(["fit", target, *flags], callbacks=callbacks)
        last = last_checkpoint(folder)
        if last is None:
            raise ZooError("nothing was trained")
    else:
        # If it was stopped right after its last step, nothing is left to train.
        with contextlib.suppress(FinishedError):
            training.run(["fit", *_checkpoint(checkpoints.read(last)), *flags], callbacks=callbacks)
    (last.parents[1] / _TRAINED).touch()
    return last


def _flags(run: Run, folder: Path) -> list[str]:
    """Write the recipe to a folder, and return all flags of ``fit`` for the run."""
    config = folder / f"{run.recipe}.yaml"
    config.write_text(run.config, encoding="utf-8")
    seed = f"--seed_everything={run.seed}"
    return [f"--config={config}", *_AS_RECORDED, *_QUIET, seed, *run.flags]


def _checkpoint(checkpoint: Checkpoint) -> list[str]:
    """Return the flags that name a checkpoint of ours and its custom classes."""
    dataset = checkpoint.data["class_path"] if checkpoint.data else None
    named = registry.to_be_named(checkpoint.model["class_path"], dataset)
    return [f"--ckpt_path={checkpoint.path}", *(f"{flag}={path}" for flag, path in named.items())]
