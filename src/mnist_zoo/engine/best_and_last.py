"""The two checkpoints of a run: the best by validation, and the last."""

from __future__ import annotations

import difflib
import math
import time
from pathlib import Path
from typing import Any, Literal

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import (
    Callback,
    EarlyStopping,
    GradientAccumulationScheduler,
    ModelCheckpoint,
)
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor
from torchmetrics import Metric

from mnist_zoo.engine.stopping import Stopping
from mnist_zoo.errors import ZooError, did_you_mean

# An epoch of a small network on a GPU may take less time than writing the checkpoint.
_SECONDS_BETWEEN = 1.0


class Best(ModelCheckpoint):
    """Keeps ``best.ckpt``, the weights that validation chose; none if nothing is held out.

    A figure of training, such as ``train/loss``, may choose them instead.

    Args:
        monitor: The logged value that decides.
        mode: Whether the highest or the lowest value is best; None: the lowest of a loss, the
            highest of anything else.
    """

    def __init__(self, monitor: str = "val/acc", mode: Literal["max", "min"] | None = None) -> None:
        mode = mode or ("min" if monitor.endswith("loss") else "max")
        super().__init__(
            filename="best", monitor=monitor, mode=mode, enable_version_counter=False,
            # At validation, the figures of the training epoch are not there yet.
            save_on_train_epoch_end=monitor.startswith("train/") or None,
        )  # fmt: skip
        self._resumed_at = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Save nothing if no validation logs the monitored value."""
        datamodule = getattr(trainer, "datamodule", None)
        validated = (
            getattr(datamodule, "num_val_images", None) != 0 and trainer.limit_val_batches != 0
        )
        if not validated and not str(self.monitor).startswith("train/"):
            self.save_top_k = 0
        super().setup(trainer, pl_module, stage)

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Detect a wrong name before an epoch is trained.

        Raises:
            ZooError: Validation logs nothing of that name, but something similar.
        """
        monitored = []
        if self.save_top_k:
            monitored.append((f"--best.monitor {self.monitor}:", str(self.monitor)))
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, EarlyStopping):
                name = str(callback.monitor)
                monitored.append((f"EarlyStopping monitors {name}, but", name))
        logged = trainer.callback_metrics
        for who, name in monitored:
            if name in logged or name.startswith("train/"):
                continue
            # A callback may still log a quite different name later.
            if name.startswith("val/") or difflib.get_close_matches(name, logged, cutoff=0.85):
                hint = did_you_mean(name, logged)
                raise ZooError(f"{who} nothing of that name is logged.{hint}")

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep the number of steps of the resumed run."""
        self._resumed_at = checkpoint["global_step"]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the best score, even if the run's folder has moved.

        Not so if ``best.ckpt`` is of a later step than the resumed checkpoint, after a run that was
        killed: the score is of weights that are lost.
        """
        own = _of_own_file(self, state_dict, "best.ckpt")
        if own["best_model_path"] and _num_steps(own["best_model_path"]) > self._resumed_at:
            own |= {"best_model_path": "", "kth_best_model_path": ""}
            own |= {"best_model_score": None, "best_k_models": {}}
        super().load_state_dict(own)


class Last(ModelCheckpoint):
    """Keeps ``last.ckpt``, from which a run continues as if it had never stopped.

    Lightning stores weights, optimizer, schedulers, counters and the position in the data; this
    adds the state of the random generators, for dropout and augmentation, and in mid-epoch the
    training metrics so far and the values last logged.

    It is written after every epoch, on one device at most once a second, and after the last one;
    and when Ctrl-C, SIGTERM or SIGHUP (a closed terminal) stops a run on one device, at the end of
    the current block of steps, or of the next one if it comes between two epochs. A second signal
    stops it at once.

    Args:
        every_n_train_steps: Also write it every this many optimizer steps, at the end of the
            block that reaches the number.

    Raises:
        ZooError: The number is below 1.
    """

    def __init__(self, every_n_train_steps: int | None = None) -> None:
        # After every epoch, whether or not it is followed by validation.
        super().__init__(
            filename="last", save_on_train_epoch_end=True, enable_version_counter=False
        )
        if every_n_train_steps is not None and every_n_train_steps < 1:
            raise ZooError(f"--last.every_n_train_steps {every_n_train_steps}: must be at least 1.")
        self.every_n_steps = every_n_train_steps
        self._random_states: dict[str, Any] = {}
        self._figures: dict[str, dict[str, Any]] = {}
        self._logged: dict[Any, float] = {}
        self._plateau: dict[Any, float] = {}
        self._device = torch.device("cpu")
        self._saved_at = 0
        self._saved_when = -math.inf
        self._stopping = Stopping()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore what a resumed run needs beside what Lightning restores."""
        super().on_train_start(trainer, pl_module)
        self._device = trainer.strategy.root_device
        # A scheduler that asks for the number of steps makes Lightning build the loader before the
        # position in the data is known, which is otherwise set only at that point.
        trainer.fit_loop._load_combined_loader_states()
        _go_to_next_epoch(trainer)
        # Lightning sets the epoch only of shuffled loaders, but augmentation needs it in all.
        set_epoch = getattr(trainer.train_dataloader, "set_epoch", None)
        if set_epoch is not None:
            progress: Any = trainer.fit_loop.epoch_progress.current
            set_epoch(progress.processed)
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, GradientAccumulationScheduler):
                # Lightning calls it only as an epoch begins, not where one is resumed.
                callback.on_train_epoch_start(trainer, pl_module)
        known = trainer._logger_connector._callback_metrics
        known.update({name: torch.tensor(value) for name, value in self._logged.items()})
        for number, config in enumerate(trainer.lr_scheduler_configs):
            scheduler: Any = config.scheduler
            if number in self._plateau:
                scheduler.step(self._plateau[number])
        self._saved_at = trainer.global_step
        if trainer.world_size == 1 and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._stopping.listen()
        self._restore_random_states()
        self._restore_figures(pl_module)
        # Not for another run that is trained with this callback.
        self._random_states, self._figures, self._plateau, self._logged = {}, {}, {}, {}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write the checkpoint after enough steps, or when the run ends in mid-epoch.

        A run resumed from it would leave out the validation after this minibatch, so if there is
        one, the checkpoint follows that.
        """
        if not _validation_follows(trainer):
            self._save_within_epoch(trainer)

    def _save_within_epoch(self, trainer: Trainer, must: bool = False) -> None:
        """Write the checkpoint if it ``must`` be, is due, or the run ends here."""
        # The end of an epoch has its own checkpoint, after validation.
        if _at_end_of_epoch(trainer) or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        # Gradients accumulated for the next step would be lost.
        stops = self._stopping.asked and not trainer.fit_loop.epoch_loop._should_accumulate()
        ends = trainer.fit_loop.epoch_loop.done or trainer.received_sigterm
        if must or self._is_due(trainer) or stops or ends:
            file = Path(str(self.dirpath)) / "last.ckpt"
            trainer.save_checkpoint(file, weights_only=False)
            self.best_model_path = str(file)
            self._saved_at = trainer.global_step
        if stops:
            self._stopping.stop_if_asked()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the checkpoint after an epoch, unless it may be left to a later one.

        Lightning would consider the rest of a truncated epoch done; a run resumed from the
        checkpoint of its last step does not.
        """
        if _at_end_of_epoch(trainer) and pl_module.automatic_optimization:
            # In the first epoch of a resumed run, Lightning's plain loop would leave out the
            # schedulers that go by validation, whose figures are whole, too.
            trainer.fit_loop._restarting = False
        if self._may_wait(trainer):
            return
        if _at_end_of_epoch(trainer) or self._saved_at != trainer.global_step:
            super().on_train_epoch_end(trainer, pl_module)
            self._saved_at, self._saved_when = trainer.global_step, time.monotonic()

    def _is_due(self, trainer: Trainer) -> bool:
        """Whether ``every_n_train_steps`` asks for a checkpoint."""
        often = self.every_n_steps
        return often is not None and trainer.global_step // often > self._saved_at // often

    def _may_wait(self, trainer: Trainer) -> bool:
        """Whether the checkpoint of this epoch may be left to one of the next epochs."""
        if time.monotonic() - self._saved_when >= _SECONDS_BETWEEN:
            return False
        stops = trainer.should_stop or trainer.received_sigterm or self._stopping.asked
        must = self._is_due(trainer) or _must_be_written_after_every_epoch(trainer)
        return not (stops or must or _is_over(trainer))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop between two epochs, after the metrics of the first have been logged."""
        if self._saved_at == trainer.global_step:
            self._stopping.stop_if_asked()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the checkpoint that was due before, or if this validation ends the run.

        At the end of the epoch, Lightning would consider the rest of it done.
        """
        super().on_validation_end(trainer, pl_module)
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        loop = trainer.fit_loop.epoch_loop
        # Lightning counts the minibatch for the logger's axis only after the validation; a resumed
        # run does so where the validation would be due again.
        uncounted = not loop._should_accumulate() and not _validation_is_regular(trainer)
        loop._batches_that_stepped += uncounted
        try:
            self._save_within_epoch(trainer, must=trainer.should_stop)
        finally:
            loop._batches_that_stepped -= uncounted

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the signal handlers."""
        super().on_train_end(trainer, pl_module)
        self._stopping.listen_no_more()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Restore them after an interruption, too."""
        super().on_exception(trainer, pl_module, exception)
        self._stopping.listen_no_more()

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add what Lightning would reset or skip when the run is resumed.

        In mid-epoch, that is the epoch's metrics; at its end, the values monitored by schedulers
        that the plain loop steps only after the checkpoint.
        """
        if not _at_end_of_epoch(trainer) and trainer.world_size == 1:
            metrics = _training_metrics(pl_module)
            checkpoint["mnist_zoo_figures"] = {n: m.metric_state for n, m in metrics.items()}
            # For schedulers that go by a validation earlier in the epoch.
            values = trainer.callback_metrics.items()
            checkpoint["mnist_zoo_logged"] = {name: float(value) for name, value in values}
        elif pl_module.automatic_optimization and _between_checkpoint_and_schedulers(trainer):
            logged = trainer.callback_metrics
            checkpoint["mnist_zoo_plateau"] = {
                number: float(logged[str(config.monitor)])
                for number, config in enumerate(trainer.lr_scheduler_configs)
                if config.reduce_on_plateau
                and config.monitor in logged
                and (trainer.current_epoch + 1) % config.frequency == 0
            }

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep this for the start of training."""
        self._figures = checkpoint.get("mnist_zoo_figures", {})
        self._logged = _numbers(checkpoint.get("mnist_zoo_logged"))
        self._plateau = _numbers(checkpoint.get("mnist_zoo_plateau"))

    def _restore_random_states(self) -> None:
        try:
            if self._random_states:
                torch.set_rng_state(self._random_states["cpu"])
                # The device number may have changed, and a CPU cannot use the state of a GPU.
                if self._device.type == "cuda" and self._random_states.get("cuda") is not None:
                    torch.cuda.set_rng_state(self._random_states["cuda"], self._device)
                if self._device.type == "mps" and self._random_states.get("mps") is not None:
                    torch.mps.set_rng_state(self._random_states["mps"])
        except (RuntimeError, TypeError, KeyError) as error:
            raise ZooError(
                "the checkpoint holds no usable state of the random generators, so the run cannot"
                " be resumed exactly."
            ) from error

    def _restore_figures(self, network: LightningModule) -> None:
        metrics = _training_metrics(network)
        for name in self._figures.keys() & metrics.keys():
            for part, value in self._figures[name].items():
                setattr(metrics[name], part, value.to(metrics[name].device))

    def state_dict(self) -> dict[str, Any]:
        """Return Lightning's state and that of the random generators."""
        random = {"cpu": torch.get_rng_state()}
        if self._device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(self._device)
        if self._device.type == "mps":
            random["mps"] = torch.mps.get_rng_state()
        return super().state_dict() | {"random": random}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the states until training starts: other code draws numbers before that."""
        super().load_state_dict(_of_own_file(self, state_dict, "last.ckpt"))
        self._random_states = state_dict["random"]


def _of_own_file(callback: ModelCheckpoint, state: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a callback's state as if it had written only one file in its folder.

    It deletes the files that it wrote, and a checkpoint may be untrusted.
    """
    file = Path(str(callback.dirpath)) / name
    path = str(file) if file.is_file() else ""
    scores = list(state["best_k_models"].values())
    models = {path: scores[0]} if path and scores else {}
    return {
        **state,
        "dirpath": callback.dirpath,
        "best_model_path": path,
        "kth_best_model_path": path if models else "",
        "last_model_path": "",
        "best_k_models": models,
    }


def _training_metrics(network: LightningModule) -> dict[str, Metric]:
    """Return the metrics called train_… that keep sums, by name."""
    return {
        name: metric
        for name, metric in network.named_children()
        if isinstance(metric, Metric)
        and name.startswith("train_")
        and all(isinstance(part, Tensor) for part in metric.metric_state.values())
    }


def _numbers(entry: object) -> dict[Any, float]:
    """Return the numbers in an entry of a checkpoint, which may be untrusted."""
    items = entry.items() if isinstance(entry, dict) else ()
    return {key: value for key, value in items if isinstance(value, float)}


def _num_steps(file: str) -> float:
    """Return the steps of a checkpoint; infinity if it cannot be read."""
    try:
        return int(torch.load(file, map_location="cpu", weights_only=True)["global_step"])
    except Exception:
        return math.inf


def _must_be_written_after_every_epoch(trainer: Trainer) -> bool:
    """Whether the checkpoint of an epoch, however short, cannot be left to later ones.

    So with several processes, which must agree, and whose clocks may not. So, too, if something
    other than Lightning or the zoo may end the run as an epoch begins: Lightning would count that
    epoch, and the one before could not be written any more.
    """
    hook = "on_train_epoch_start"
    others = [
        callback
        for callback in trainer.callbacks  # type: ignore[attr-defined]
        if type(callback).__module__.partition(".")[0] not in ("lightning", "mnist_zoo")
    ]
    return (
        trainer.world_size > 1
        or is_overridden(hook, trainer.lightning_module)
        or any(is_overridden(hook, callback, Callback) for callback in others)
    )


def _at_end_of_epoch(trainer: Trainer) -> bool:
    return trainer.fit_loop.epoch_loop.batch_progress.is_last_batch


def _validation_follows(trainer: Trainer) -> bool:
    """Whether the current minibatch, which is not the epoch's last, is followed by validation."""
    steps: Any = trainer.fit_loop.epoch_loop
    has_no_images = steps.val_loop._combined_loader is not None and steps.val_loop.skip
    return not has_no_images and steps._should_check_val_fx(trainer.fit_loop._data_fetcher)


def _validation_is_regular(trainer: Trainer) -> bool:
    """Whether the validation after this minibatch is due by the number of minibatches."""
    should_stop, trainer.should_stop = trainer.should_stop, False
    try:
        by_time = getattr(trainer, "_val_check_time_interval", None) is not None
        return not by_time and _validation_follows(trainer)
    finally:
        trainer.should_stop = should_stop


def _is_over(trainer: Trainer) -> bool:
    """Whether a limit of the run has been reached at the end of an epoch."""
    progress: Any = trainer.fit_loop.epoch_progress.current
    reached = ((trainer.global_step, trainer.max_steps), (progress.processed, trainer.max_epochs))
    return any(limit is not None and 0 <= limit <= number for number, limit in reached)


def _between_checkpoint_and_schedulers(trainer: Trainer) -> bool:
    """Whether an epoch has been trained, but its schedulers have not been stepped."""
    progress: Any = trainer.fit_loop.epoch_progress.current
    return bool(progress.completed < progress.processed)


def _go_to_next_epoch(trainer: Trainer) -> None:
    """Continue a run that was stopped at the end of an epoch with the next one.

    If steps limit a run, Lightning takes every checkpoint for one in mid-epoch, finds nothing left
    to do in that epoch, and would count it twice.
    """
    loop = trainer.fit_loop
    progress: Any = loop.epoch_progress.current
    if loop.restarting and progress.ready and progress.processed == progress.ready:
        # Of a checkpoint of the epoch's last batch, Lightning has counted it by now.
        if progress.completed < progress.processed:
            loop.epoch_progress.increment_completed()
        loop._restarting = loop.epoch_loop.restarting = False
        loop.reset_restart_stage()
        loop.epoch_loop.reset_restart_stage()
