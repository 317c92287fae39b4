"""Checks of settings before ``fit`` and the other Lightning commands start to work."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning import Trainer
from lightning.pytorch.callbacks import (
    Callback,
    EarlyStopping,
    ModelCheckpoint,
    StochasticWeightAveraging,
    WeightAveraging,
)
from torch.optim.lr_scheduler import ReduceLROnPlateau

from mnist_zoo import registry
from mnist_zoo.data import ImageData
from mnist_zoo.engine.best_and_last import Best, Last
from mnist_zoo.errors import FinishedError, ZooError
from mnist_zoo.models import Classifier
from mnist_zoo.models import checkpoint as checkpoints
from mnist_zoo.models.checkpoint import Checkpoint
from mnist_zoo.models.checkpoint_files import CheckpointError

# Names of the checkpoints that fit itself keeps.
_ITS_OWN = ("best", "last")


def settings(subcommand: str, chosen: Any) -> None:
    """Refuse settings that the parser accepts but that make no sense.

    Args:
        subcommand: fit, validate, test or predict.
        chosen: Its settings.

    Raises:
        ZooError: There is one.
    """
    seed, trainer = chosen.seed_everything, chosen.trainer
    if not isinstance(seed, bool) and not 0 <= seed < 2**32:
        raise ZooError(f"--seed_everything {seed}: must be from 0 to {2**32 - 1}.")
    for name in ("accumulate_grad_batches", "check_val_every_n_epoch", "val_check_interval"):
        # Fractions are checked by Lightning.
        if isinstance(trainer[name], int) and trainer[name] < 1:
            raise ZooError(f"--trainer.{name} {trainer[name]}: must be at least 1.")
    if any(kind in str(trainer.strategy) for kind in ("spawn", "fork", "notebook")):
        raise ZooError(
            f"--trainer.strategy {trainer.strategy}: its processes cannot be given what this"
            " command has built. Use ddp."
        )
    if (trainer.gradient_clip_val or 0) < 0:
        raise ZooError(f"--trainer.gradient_clip_val {trainer.gradient_clip_val}: is below 0.")
    if trainer.barebones:
        raise ZooError(
            "--trainer.barebones true: neither checkpoints nor metrics would be kept."
            " Leave the flag out."
        )
    if subcommand == "fit":
        _settings_of_fit(chosen)


def _settings_of_fit(chosen: Any) -> None:
    trainer, num_steps, average = chosen.trainer, chosen.steps_per_execution, chosen.average
    for name in ("max_epochs", "max_steps", "limit_train_batches", "max_time"):
        if trainer[name] in (0, "00:00:00:00"):
            raise ZooError(f"--trainer.{name} {trainer[name]}: trains nothing.")
    if trainer.enable_checkpointing is False:
        raise ZooError(
            "--trainer.enable_checkpointing false: fit always keeps checkpoints."
            " Leave the flag out."
        )
    if num_steps is not None and num_steps < 1:
        raise ZooError(f"--steps_per_execution {num_steps}: must be at least 1.")
    if chosen.best.monitor.startswith("test"):
        raise ZooError(
            f"--best.monitor {chosen.best.monitor}: the test images choose nothing."
            "\nChoose by val/acc or val/loss."
        )
    if average.decay is None:
        return
    if not 0 <= average.decay < 1:
        raise ZooError(f"--average.decay {average.decay}: must be from 0 to below 1.")
    if average.every_n_steps < 1:
        raise ZooError(f"--average.every_n_steps {average.every_n_steps}: must be at least 1.")


def arguments(key: str, path: str, given: Mapping[str, Any]) -> None:
    """Refuse to build a class without an argument that it requires.

    The parser treats arguments without a type annotation as optional.

    Raises:
        ZooError: One is missing.
    """
    cls = registry.import_class(path)
    for name, parameter in inspect.signature(cls).parameters.items():
        named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        bare = parameter.default is parameter.annotation is parameter.empty
        if named and bare and given.get(name) is None:
            raise ZooError(f"{cls.__name__} needs {name}: give --{key}.{name}.")
    for name, value in given.items():
        if value is None and (wanted := _never_none(cls, name)):
            raise ZooError(f"--{key}.{name}: expected {wanted}, but there is no value.")


def _never_none(cls: type, argument: str) -> str:
    """Return the type of an argument that cannot be None; ``""`` if it can, or has no type."""
    for base in cls.__mro__:
        parameter = inspect.signature(base).parameters.get(argument)
        if parameter and parameter.annotation is not parameter.empty:
            # A name in quotes where annotations are postponed.
            wanted = getattr(parameter.annotation, "__name__", str(parameter.annotation))
            return wanted if wanted in ("bool", "float", "int", "str") else ""
    return ""


def names_of_checkpoints(callbacks: Sequence[Callback]) -> None:
    """Refuse a user's ``ModelCheckpoint`` that would overwrite the zoo's checkpoints.

    Raises:
        ZooError: One writes to the run's folder under the same name.
    """
    for callback in callbacks:
        if isinstance(callback, Best | Last) or not isinstance(callback, ModelCheckpoint):
            continue
        if callback.dirpath is None and (callback.filename in _ITS_OWN or callback.save_last):
            raise ZooError(
                f"{type(callback).__name__}: fit itself keeps best.ckpt and last.ckpt in the run's"
                " folder.\nGive another filename and no save_last, or another dirpath."
            )


def averages(callbacks: Sequence[Callback]) -> None:
    """Refuse several averages of the weights, which validation would mix up.

    Raises:
        ZooError: There is more than one.
    """
    kinds = WeightAveraging | StochasticWeightAveraging
    found = [type(callback).__name__ for callback in callbacks if isinstance(callback, kinds)]
    if len(found) > 1:
        raise ZooError(
            f"{' and '.join(found)}: a run can have only one average of its weights.\n"
            "Leave out --average.decay or the callback."
        )


def validation(trainer: Trainer, network: Classifier, data: ImageData) -> None:
    """Refuse what depends on validation if there is none, or too rarely.

    Raises:
        ZooError: A callback or the scheduler depends on it.
    """
    every = trainer.check_val_every_n_epoch or 1
    if network.scheduler_class is ReduceLROnPlateau and every > 1:
        raise ZooError(
            "ReduceLROnPlateau needs val/loss after every epoch: leave out"
            f" --trainer.check_val_every_n_epoch {every}."
        )
    without = "--data.val_size" if not data.num_val_images else ""
    if trainer.limit_val_batches == 0:
        without = "--trainer.limit_val_batches"
    if not without:
        return
    monitored = {
        type(callback).__name__: str(callback.monitor)
        for callback in trainer.callbacks  # type: ignore[attr-defined]
        if isinstance(callback, EarlyStopping)
    }
    if network.scheduler_class is ReduceLROnPlateau:
        monitored["ReduceLROnPlateau"] = "val/loss"
    for name, monitor in monitored.items():
        if monitor.startswith("val/"):
            raise ZooError(f"{name} monitors {monitor}, but there is no validation: {without} 0.")


def resuming(
    before: Checkpoint, trainer: Trainer, network: Classifier, data: ImageData, best: Any
) -> None:
    """Refuse to resume a run that has ended, or under conditions that would falsify it.

    Args:
        before: The checkpoint that is resumed.
        trainer: The trainer.
        network: The network, with the scheduler it will have.
        data: The data.
        best: The settings ``monitor`` and ``mode``.

    Raises:
        FinishedError: The run has already reached its limit.
        ZooError: Something else is wrong.
    """
    if limit := _limit_reached(before, trainer):
        # A learning-rate schedule built for the whole run has ended with it.
        on = "" if network.scheduler_class else f"\nTo continue: {limit}"
        raise FinishedError(f"{before.path} has nothing left to train.{on}")
    if different := held_out_differently(before, data):
        raise ZooError(
            f"a resumed run cannot change {different}: it would validate on images that it was"
            " trained on, or compare its best score across different images.\n"
            "Leave the flag out, or start a new run."
        )
    _require_same_best(before, best)
    _require_same_number_of_devices(before, trainer)


def _limit_reached(before: Checkpoint, trainer: Trainer) -> str:
    """Return the flag that would let the checkpoint's run continue, if a limit ended it."""
    for name, done in (("max_steps", before.num_steps), ("max_epochs", before.num_epochs)):
        limit = getattr(trainer, name)
        if limit is not None and 0 <= limit <= done:
            return f"--trainer.{name} N, above the {done:,} already done"
    return ""


def _require_same_best(before: Checkpoint, best: Any) -> None:
    """Refuse another measure of a run's best weights, which would be forgotten."""
    was = before.settings.get("best")
    for name in ("monitor", "mode"):
        if isinstance(was, dict) and was.get(name, best[name]) != best[name]:
            raise ZooError(
                f"a resumed run cannot change --best.{name}: its best.ckpt was chosen by"
                f" {was.get('monitor')}.\nLeave the flag out, or start a new run."
            )


def _require_same_number_of_devices(before: Checkpoint, trainer: Trainer) -> None:
    """Refuse more or fewer devices than a run had, each of which takes a minibatch per step."""
    num_before = before.settings.get("num_devices")
    num_now = trainer.world_size
    if isinstance(num_before, int) and num_before != num_now:
        raise ZooError(
            f"the run took {num_before} minibatches per step, one per device; a resumed run cannot"
            f" go on with {num_now}.\nPass --trainer.devices {num_before}, or start a new run."
        )


def nothing_later(before: Checkpoint) -> None:
    """Refuse to resume from a checkpoint that is not the latest of its run.

    Args:
        before: The checkpoint, in the folder of its run.

    Raises:
        ZooError: Later epochs of the run would be overwritten.
    """
    path = before.path.resolve()
    last = path.with_name("last.ckpt")
    if path == last:
        return
    try:
        done = checkpoints.read(last).num_steps
    except CheckpointError:
        return  # it is gone or damaged, and nothing is lost
    if done > before.num_steps:
        raise ZooError(
            f"{before.path} is from step {before.num_steps:,}, but its run went on to step"
            f" {done:,}, which would be overwritten.\nResume from {last.name}, or copy"
            f" {before.path.name} elsewhere to start a new run from it."
        )


def held_out_differently(before: Checkpoint, data: ImageData) -> str:
    """Return the flag that holds out other images than in the checkpoint's training, if any."""
    if before.data is None:
        return ""
    if before.data["class_path"] != registry.path_of(type(data)):
        return "--data"
    arguments = dict(before.data["init_args"])
    if "val_size" in arguments and arguments["val_size"] is None:
        arguments["val_size"] = data.default_val_size
    if not Path(str(arguments.get("train_file"))).exists():
        # It was moved, so the paths cannot be compared.
        arguments.pop("train_file", None)
    for name in ("val_size", "split_seed", "num_train", "train_file"):
        if name in arguments and arguments[name] != getattr(data, name, None):
            return f"--data.{name}"
    return ""
