"""Callbacks of fit: what a run shows and logs, what it refuses, and the average of its weights."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import (
    Callback,
    EarlyStopping,
    RichProgressBar,
)
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from lightning.pytorch.callbacks.progress.rich_progress import ProcessingSpeedColumn
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from rich import get_console
from rich.progress import BarColumn

from mnist_zoo.errors import FinishedError, ZooError

_SECONDS_BETWEEN_DRAWINGS = 0.1
_SECONDS_BETWEEN_LINES = 60
_WIDTH_WITH_SPEED = 100  # of a terminal


def _logged(trainer: Trainer, *stages: str) -> dict[str, float]:
    """Return the logged values whose names begin with one of some prefixes."""
    logged = trainer.callback_metrics.items()
    return {name: value.item() for name, value in logged if name.startswith(stages)}


class ProgressBar(RichProgressBar):
    """Lightning's progress bar, on one line of a terminal of 80 columns."""

    _drawn_at = -math.inf

    def configure_columns(self, trainer: Trainer) -> list[Any]:
        """Leave out the speed, and shorten the bar, where they would need a second line."""
        columns: list[Any] = super().configure_columns(trainer)
        if get_console().width >= _WIDTH_WITH_SPEED:
            return columns
        for column in columns:
            if isinstance(column, BarColumn):
                column.bar_width = 8
        return [column for column in columns if not isinstance(column, ProcessingSpeedColumn)]

    @property
    def total_train_batches(self) -> int | float:
        """Return the number of optimizer steps in an epoch, not of blocks."""
        loader: Any = self.trainer.train_dataloader
        in_blocks = getattr(loader, "block_size", 1) > 1
        return loader.num_batches if in_blocks else super().total_train_batches

    def _get_train_description(self, current_epoch: int) -> str:
        # Lightning counts epochs from 0; users and our pictures from 1.
        last = self.trainer.max_epochs
        of = f"/{last}" if last is not None and last > 0 else ""
        return f"Epoch {current_epoch + 1}{of}".ljust(len(self.validation_description))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Advance by a block of steps, no more often than can be seen."""
        block_size = getattr(trainer.train_dataloader, "block_size", 1)
        whole = self.total_train_batches
        done = int(min((batch_idx + 1) * block_size, whole))
        now = time.monotonic()
        if done < whole and now - self._drawn_at < _SECONDS_BETWEEN_DRAWINGS:
            return
        self._drawn_at = now
        super().on_train_batch_end(trainer, pl_module, outputs, batch, done - 1)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Return the logged values without the number of the run and the validation loss."""
        metrics = super().get_metrics(trainer, pl_module)
        hidden = "v_num", "val/loss"
        return {name: value for name, value in metrics.items() if name not in hidden}


class EpochLines(Callback):
    """Says now and then how far a run is, where there is no progress bar: in a file or a pipe.

    Args:
        say: Called with a line, after an epoch, at most once a minute.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self._said_at = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the first minute."""
        self._said_at = time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say how many epochs are done, and how accurate the network is."""
        now = time.monotonic()
        if now - self._said_at < _SECONDS_BETWEEN_LINES:
            return
        self._said_at = now
        last = trainer.max_epochs
        of = f" of {last}" if last is not None and last > 0 else ""
        figures = _logged(trainer, "train/acc", "val/acc").items()
        accuracies = "".join(f", {name} {100 * value:.2f} %" for name, value in figures)
        self.say(f"epoch {trainer.current_epoch + 1}{of}{accuracies}")


class FinalMetrics(Callback):
    """Adds the final metrics to the hyperparameters that TensorBoard shows."""

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write hyperparameters and final metrics as one row of TensorBoard's table."""
        datamodule = getattr(trainer, "datamodule", None)
        arguments = {**getattr(datamodule, "hparams", {}), **pl_module.hparams}
        final = _logged(trainer, "train/", "val/").items()
        metrics = {f"final/{name}": value for name, value in final}
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger) and trainer.is_global_zero:
                logger.log_hyperparams(arguments, metrics)


class SomethingToTrain(Callback):
    """Refuses runs that would train nothing, or one epoch too many."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that there is something left to train.

        A run that ``EarlyStopping`` has asked to stop, but that is not as long as it has to be,
        goes on until then.

        Raises:
            ZooError: The network has no optimizer.
            FinishedError: ``EarlyStopping`` has ended the run, and would notice only after another
                epoch.
        """
        for callback in trainer.callbacks if trainer.ckpt_path else ():  # type: ignore[attr-defined]
            if not (isinstance(callback, EarlyStopping) and has_asked_to_stop(callback)):
                continue
            if trainer.fit_loop._can_stop_early:
                raise FinishedError(
                    f"{trainer.ckpt_path} has finished: EarlyStopping ({callback.monitor}) ended"
                    " the run.\nTo continue, remove the callback."
                )
            trainer.should_stop = True
        groups = [group for it in trainer.optimizers for group in it.param_groups]
        if not any(group["params"] for group in groups):
            name = type(pl_module).__name__
            raise ZooError(
                f"{name} cannot be trained: its configure_optimizers returns no optimizer."
            )


def has_asked_to_stop(callback: EarlyStopping) -> bool:
    """Whether the callback has asked, in this process or before the run was resumed."""
    return callback.stopping_reason is not EarlyStoppingReason.NOT_STOPPED


class Epochs(Callback):
    """Reports completed epochs, and writes to disk what a stopped run would lose.

    That is its time, and an epoch's metrics: Lightning logs these only after the checkpoint, and a
    run killed in between would never log them, since it does not train that epoch again. Logging
    them twice is harmless: step and value are the same.

    Args:
        on_epoch: Called at the start of an epoch with the number completed and, if known, in all.
    """

    def __init__(self, on_epoch: Callable[[int, int | None], None] | None = None) -> None:
        self.on_epoch = on_epoch

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report at the start of an epoch, which also shows where a run is resumed."""
        if self.on_epoch:
            self.on_epoch(trainer.current_epoch, trainer.max_epochs)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the training metrics at the step where Lightning will log them."""
        figures = {**_logged(trainer, "train/"), "epoch": trainer.current_epoch}
        for logger in trainer.loggers:
            logger.log_metrics(figures, trainer.global_step - 1)
            logger.save()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Log when a run was stopped, so that its time until then counts."""
        if isinstance(exception, KeyboardInterrupt | SIGTERMException):
            for logger in trainer.loggers:
                logger.log_metrics({"stopped": 1.0}, trainer.global_step)
                logger.save()
