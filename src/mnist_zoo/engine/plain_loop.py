"""When Lightning's plain loop is needed instead of blocks of steps, or blocks of one step."""

from __future__ import annotations

from typing import Any

from lightning import Trainer
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    Callback,
    GradientAccumulationScheduler,
    LearningRateFinder,
    LearningRateMonitor,
    ModelCheckpoint,
    ProgressBar,
    StochasticWeightAveraging,
    Timer,
    WeightAveraging,
)
from lightning.pytorch.utilities.model_helpers import is_overridden

from mnist_zoo.engine.average import Average
from mnist_zoo.engine.best_and_last import Last
from mnist_zoo.models.classifier import Classifier

# Hooks of networks and callbacks called at every step, and other methods that define a step.
_AT_EACH_STEP = (
    "on_train_batch_start",
    "on_train_batch_end",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
)
_HOW_TO_STEP = (
    "training_step",
    "backward",
    "configure_optimizers",
    "configure_gradient_clipping",
    "optimizer_step",
    "optimizer_zero_grad",
    "lr_scheduler_step",
)
# Hooks of networks and data modules that see a minibatch on its way to the device.
_ON_THE_WAY = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")
# Callbacks for which the end of a block suffices, and callbacks that need Lightning's plain loop
# although they override none of the hooks above.
_PATIENT = ProgressBar, Timer, WeightAveraging
_IMPATIENT = (
    BatchSizeFinder,
    GradientAccumulationScheduler,
    LearningRateFinder,
    StochasticWeightAveraging,
)


def yields_blocks(datamodule: Any) -> bool:
    """Whether a data module uses our training loader, not its own."""
    return hasattr(datamodule, "block_size") and _is_ours(datamodule, "train_dataloader")


def _is_ours(datamodule: Any, method: str) -> bool:
    """Whether a data module's method is the zoo's or Lightning's, not its own."""
    owner = next(cls for cls in type(datamodule).__mro__ if method in vars(cls))
    return owner.__module__.startswith(("mnist_zoo.", "lightning."))


def is_needed(trainer: Trainer, network: Classifier) -> bool:
    """Whether something must act at every step, which a block would skip."""
    # Gradients must be unscaled before they are clipped, as Lightning does.
    return (
        trainer.accumulate_grad_batches != 1
        or (scales_loss(trainer) and bool(trainer.gradient_clip_val))
        or not network.automatic_optimization
        or not all(
            type(part).__module__.startswith("lightning.")
            for part in (trainer.strategy, trainer.precision_plugin)
        )
        or any(
            is_overridden(hook, network, Classifier)
            for hook in (*_AT_EACH_STEP, *_HOW_TO_STEP, *_ON_THE_WAY)
        )
        or not all(_is_ours(trainer.datamodule, hook) for hook in _ON_THE_WAY)  # type: ignore[attr-defined]
        or any(map(_takes_part, trainer.callbacks))  # type: ignore[attr-defined]
    )


def scales_loss(trainer: Trainer) -> bool:
    """Whether half precision multiplies the loss, and so the gradients, by a large factor."""
    return getattr(trainer.precision_plugin, "scaler", None) is not None


def _takes_part(callback: Callback) -> bool:
    """Whether a callback acts at every step, or sometimes between steps."""
    if isinstance(callback, (Last, *_PATIENT)):
        return False
    if isinstance(callback, LearningRateMonitor):
        return callback.logging_interval != "epoch"
    if isinstance(callback, ModelCheckpoint):
        often = callback._every_n_train_steps > 0
        return often or callback._train_time_interval is not None
    hooked = any(is_overridden(hook, callback) for hook in _AT_EACH_STEP)
    return hooked or isinstance(callback, _IMPATIENT)


def counts_batches(trainer: Trainer, network: Classifier) -> bool:
    """Whether something is due within an epoch, after some batches or time."""
    interval = getattr(trainer, "val_check_interval", None)
    return (
        # 1 is after every batch, 1.0 after all of them.
        isinstance(interval, int)
        or interval not in (None, 1.0)
        or getattr(trainer, "_val_check_time_interval", None) is not None
        or bool(trainer.min_steps)
        # Several processes share the statistics of batch norm before every batch.
        or (trainer.world_size > 1 and any(True for _ in network.buffers()))
        # Blocks update the zoo's own average themselves.
        or any(isinstance(c, WeightAveraging) and type(c) is not Average for c in trainer.callbacks)  # type: ignore[attr-defined]
    )
