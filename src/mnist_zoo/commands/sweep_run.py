"""One run of a sweep: train, then test once, and say what came out.

Nothing can be chosen by the test images. Training ends before they are read; which weights they
are read with is settled by then (those that validation chose or, where nothing was held out, the
last ones); and they are read once, for the record.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import platform
import re
import tempfile
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_zoo import registry
from mnist_zoo.errors import FinishedError, ZooError

if TYPE_CHECKING:
    import torch

    from mnist_zoo.commands.lightning_cli import ZooCLI
    from mnist_zoo.report.results import Key

OnEpoch = Callable[[int, int | None], None]
"""Is told how many epochs are done, and of how many."""

_OF_THE_MACHINE = ("--data.root", "--data.download", "--trainer.accelerator")
# Several devices would each start the sweep again, which is how Lightning trains on them.
_ONE_DEVICE = "--trainer.devices=1"
# A recipe may say otherwise, but records are made of what these leave behind.
_AS_RECORDED = (
    _ONE_DEVICE, "--trainer.num_nodes=1", "--trainer.logger=true", "--trainer.fast_dev_run=false",
)  # fmt: skip
WITHOUT_EFFECT = (*_OF_THE_MACHINE, "--steps_per_execution", "--cuda_graph", "--test_curve")
# The file in a run's folder that says that its training has ended.
_TRAINED = "trained"
# What a record keeps by epoch, where the run wrote it.
BY_EPOCH = (
    "train/loss", "train/acc", "val/loss", "val/acc", "test_curve/loss", "test_curve/acc",
)  # fmt: skip


@dataclass(frozen=True)
class Run:
    """One run to be made: a recipe, what is changed in it, and a seed.

    The text of the recipe goes with it, so that a run on another machine, or one that begins
    hours after the sweep, is of the same recipe.

    Attributes:
        recipe: Name of the recipe.
        config: Its text.
        sha256: Hash of its settings.
        flags: Flags of ``fit``, each as ``--name=value``.
        seed: Seed of weights, order of the data and all else.
        code: Name and hash of each module of the user's own, or of a plugin, that it names.
    """

    recipe: str
    config: str
    sha256: str
    flags: tuple[str, ...]
    seed: int
    code: tuple[tuple[str, str], ...] = ()

    @property
    def settings(self) -> tuple[str, ...]:
        """The flags that may change what comes out: not where data lie, nor which device it is.

        In the order of the alphabet; those of callbacks, and others that add to a list, as they
        were given: each setting is of the callback before it.
        """
        chosen = [f for f in self.flags if f.partition("=")[0] not in WITHOUT_EFFECT]
        return tuple(sorted(chosen, key=lambda f: adds_to(f.partition("=")[0]) or f))

    @property
    def of_the_machine(self) -> tuple[str, ...]:
        """The flags that say where data lie, and which device it is."""
        return tuple(f for f in self.flags if f.partition("=")[0] in _OF_THE_MACHINE)

    @property
    def key(self) -> Key:
        """What its record is found by."""
        from mnist_zoo.report import results

        return results.key(self.record({}))

    @property
    def title(self) -> str:
        """What it is called on the screen."""
        return f"{' '.join((self.recipe, *self.settings))}, seed {self.seed}"

    @property
    def folder(self) -> str:
        """Name of its folder; the same run of the same settings always has the same."""
        settings = " ".join((self.sha256, *dict(self.code).values(), *self.settings))
        digest = hashlib.sha256(settings.encode()).hexdigest()[:8]
        return f"{self.recipe}-{digest}-seed{self.seed}"

    def record(self, outcome: dict[str, Any]) -> dict[str, Any]:
        """Return the record of what came out."""
        return {
            "recipe": self.recipe,
            "flags": list(self.settings),
            "seed": self.seed,
            **outcome,
            "recipe_sha256": self.sha256,
            **({"code": dict(self.code)} if self.code else {}),
            "date": datetime.now(timezone.utc).date().isoformat(),
        }

    def crashed(self, reason: str) -> dict[str, Any]:
        """Return the record of a run that broke off."""
        return self.record({"status": "crashed", "reason": " ".join(reason.split())[:300]})


def adds_to(name: str) -> str:
    """Return the list that a flag adds to, which may be given several times; ``""`` if to none."""
    callbacks = "--trainer.callbacks"
    return callbacks if name.startswith(callbacks) else name[:-1] if name.endswith("+") else ""


def make(run: Run, runs: Path, on_epoch: OnEpoch | None = None) -> dict[str, Any]:
    """Make a run in this process, what it prints going to a file; return its record.

    Args:
        run: The run; if it was stopped before, it goes on where it was.
        runs: The folder in which it has its own.
        on_epoch: Called when an epoch begins.
    """
    folder = runs / run.folder
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "output.txt").open("a", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        return run.record(train_and_test(run, folder, on_epoch))
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        return run.crashed(f"{type(error).__name__}: {error}")


def check(runs: Iterable[Run]) -> None:
    """Go with each run as far as where training would begin.

    Raises:
        ZooError: A flag or a recipe is wrong; the message is that of ``fit``.
    """
    from mnist_zoo.commands.checking_cli import CheckingCLI

    with tempfile.TemporaryDirectory() as folder:
        for run in runs:
            _command(CheckingCLI, "fit", *_flags(run, Path(folder)), "--trainer.fast_dev_run=true")


def train_and_test(run: Run, folder: Path, on_epoch: OnEpoch | None = None) -> dict[str, Any]:
    """Return what came out of a run, as its record holds it."""
    import torch

    from mnist_zoo.commands.lightning_cli import ZooCLI
    from mnist_zoo.models import checkpoint as checkpoints
    from mnist_zoo.report import events

    run_folder = _train(run, folder, on_epoch)
    if not (run_folder / "checkpoints" / "last.ckpt").exists():
        raise ZooError("nothing was trained")
    last = checkpoints.read(run_folder / "checkpoints" / "last.ckpt")
    weights = checkpoints.read(tested_weights(last.path))
    cli = _command(ZooCLI, "test", *_checkpoint(weights.path), _ONE_DEVICE, *run.of_the_machine)
    tested = cli.trainer.callback_metrics
    cli.datamodule.setup("fit")
    device = cli.trainer.strategy.root_device
    scalars = events.read_scalars(run_folder)
    epochs = {
        tag: [None if value is None else rounded(value) for value in events.by_epoch(scalars, tag)]
        for tag in BY_EPOCH
        if tag in scalars
    }
    # A training_step of the user's own need not log what those of the zoo do.
    trained = {tag: values[-1] for tag, values in epochs.items()}
    test_loss = float(tested["test/loss"])
    diverged = not math.isfinite(test_loss) or trained.get("train/loss", 0) is None
    at_their_step = min(
        scalars.get("val/acc", ()),
        key=lambda point: abs(point[0] - weights.progress["steps"]),
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
        "num_epochs": last.progress["epochs"],
        "num_steps": last.progress["steps"],
        "seconds": round(events.read_seconds(run_folder), 1),
        "device": device.type,
        "device_name": device_name(device),
        "num_threads": torch.get_num_threads(),
        "versions": versions(),
        "epochs": epochs,
    }


def last_checkpoint(folder: Path) -> Path | None:
    """Return what a run goes on from, or ended with; None if it has not come so far."""
    found = folder.glob("*/version_*/checkpoints/last.ckpt")
    return max(found, key=lambda file: file.stat().st_mtime, default=None)


def tested_weights(last: Path) -> Path:
    """Return what a run is tested with: the weights that validation chose, or else the last."""
    best = last.with_name("best.ckpt")
    return best if best.exists() else last


def rounded(value: float) -> float:
    """Return a figure as records keep it."""
    return float(f"{value:.6g}")


def _train(run: Run, folder: Path, on_epoch: OnEpoch | None) -> Path:
    """Train from the start, or on from where the run was stopped; return its folder."""
    from mnist_zoo.commands.lightning_cli import ZooCLI
    from mnist_zoo.engine.callbacks import Epochs

    last = last_checkpoint(folder)
    if last and (last.parents[1] / _TRAINED).exists():
        # What a callback or a time limit has ended, fit would go on with.
        return last.parents[1]
    flags, callbacks = _flags(run, folder), [Epochs(on_epoch)]
    if last is None:
        target = f"--trainer.default_root_dir={folder}"
        run_folder = _command(ZooCLI, "fit", target, *flags, callbacks=callbacks).run_folder
        assert run_folder is not None
    else:
        run_folder = last.parents[1]
        # Stopped right after its last step, it has nothing left to train.
        with contextlib.suppress(FinishedError):
            _command(ZooCLI, "fit", *_checkpoint(last), *flags, callbacks=callbacks)
    (run_folder / _TRAINED).touch()
    return run_folder


def _flags(run: Run, folder: Path) -> list[str]:
    """Write the recipe into a folder, and return all that ``fit`` is told of the run."""
    config = folder / f"{run.recipe}.yaml"
    config.write_text(run.config, encoding="utf-8")
    return [f"--config={config}", *_AS_RECORDED, f"--seed_everything={run.seed}", *run.flags]


def _command(cls: type[ZooCLI], *words: str, **kwargs: Any) -> ZooCLI:
    """Run ``fit`` or ``test`` in this process."""
    from mnist_zoo.commands.training import default_configs, scan

    request = scan([*words, "--trainer.enable_progress_bar=false", "--pictures=false"])
    with default_configs(request) as configs:
        return cls(request, configs, **kwargs)


def _checkpoint(file: Path) -> list[str]:
    """Return the flags that name a checkpoint of ours, and its classes that are the user's own."""
    from mnist_zoo.models import checkpoint as checkpoints

    checkpoint = checkpoints.read(file)
    dataset = checkpoint.data["class_path"] if checkpoint.data else None
    named = registry.to_be_named(checkpoint.model["class_path"], dataset)
    return [f"--ckpt_path={file}", *(f"{flag}={path}" for flag, path in named.items())]


def versions() -> dict[str, str]:
    """Return of what versions a figure is."""
    import lightning
    import torch

    from mnist_zoo import __version__

    return {
        "mnist-zoo": __version__,
        "torch": torch.__version__,
        "lightning": lightning.__version__,
        "python": platform.python_version(),
    }


def device_name(device: torch.device) -> str:
    """Return what the processor or accelerator of a device is called."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with contextlib.suppress(OSError):
        cpu = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        if match := re.search(r"^model name\s*: (.+)$", cpu, flags=re.M):
            return match[1]
    return platform.processor() or platform.machine()
