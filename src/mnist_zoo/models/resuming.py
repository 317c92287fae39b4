"""Settings of the optimizer that a resumed run changes: applied, or refused."""

from __future__ import annotations

import math
from typing import Any

from lightning import Callback, Trainer
from lightning.pytorch.utilities.types import LRSchedulerConfig

from mnist_zoo.errors import ZooError
from mnist_zoo.models import optimizers

# What cannot be changed, and schedulers' names for the length of a run.
_FIXED = ("optimizer", "scheduler", "scheduler_args")
_LENGTHS = {"total_steps", "T_max"}


class ChangedSettings(Callback):
    """Applies what a resumed run changes, which restoring the optimizer has overwritten.

    Args:
        own_optimizer: Whether the network's class defines ``configure_optimizers``; then only it
            knows how it uses its settings.
    """

    def __init__(self, own_optimizer: bool) -> None:
        self.own_optimizer = own_optimizer
        self._before: dict[str, Any] = {}

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: Any, checkpoint: dict[str, Any]
    ) -> None:
        """Note the settings that the run was started with and that are now others."""
        before = checkpoint.get(pl_module.CHECKPOINT_HYPER_PARAMS_KEY, {})
        settings = "lr", "weight_decay", "optimizer_args", *_FIXED
        self._before = {
            name: before[name]
            for name in settings
            if name in before and before[name] != pl_module.hparams[name]
        }

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Apply the settings to the restored optimizer, whose state is checked first.

        Raises:
            ZooError: They cannot be changed midway, or the state does not fit the network.
        """
        if trainer.ckpt_path is None:
            return
        self._refuse_fixed(pl_module)
        for config in trainer.lr_scheduler_configs:
            _refuse_another_length(pl_module, config)
        for optimizer in trainer.optimizers:
            optimizers.require_state_sizes(optimizer)
            optimizers.lay_out_as_weights(optimizer)
        if self._before:
            # Settings no longer given return to the optimizer's defaults.
            args_before = self._before.get("optimizer_args") or {}
            settings = ("lr", "weight_decay", *pl_module.optimizer_args, *args_before)
            restored = trainer.optimizers[0].param_groups
            wanted = pl_module.build_optimizer().param_groups
            for group, as_wanted in zip(restored, wanted, strict=True):
                group.update({name: as_wanted[name] for name in settings if name in group})

    def _refuse_fixed(self, network: Any) -> None:
        """Refuse settings that the restored optimizer or its scheduler cannot take over."""
        fixed = self._before.keys() & {*_FIXED}
        if "lr" in self._before and network.scheduler_class:
            fixed.add("lr")
        if self.own_optimizer:
            fixed |= self._before.keys()
        if fixed:
            raise ZooError(
                f"a resumed run cannot change --model.{min(fixed)}: the optimizer continues from"
                " where it stopped.\nLeave the flag out, or start a new run."
            )


def _refuse_another_length(network: Any, config: LRSchedulerConfig) -> None:
    """Refuse a run of another length than the one that a scheduler was built for."""
    for name, wanted in _lengths_now(network, config).items():
        planned = getattr(config.scheduler, name)
        if planned != wanted:
            raise ZooError(
                f"the learning-rate schedule was built for {name} {planned} and cannot be"
                f" changed to {wanted} midway.\nLeave out what changes the length of the"
                " run, such as --trainer.max_epochs, or start a new run."
            )


def _lengths_now(network: Any, config: LRSchedulerConfig) -> dict[str, float]:
    """Return the lengths that a scheduler would be built with now, by name."""
    if network.scheduler_class:
        now = optimizers.scheduler_args(network)
        return {name: now[name] for name in _LENGTHS & now.keys()}
    # A subclass's own scheduler must not be stepped past its end.
    laid_out = getattr(config.scheduler, "total_steps", math.inf)
    by_steps = config.interval == "step" and config.frequency == 1
    if by_steps and laid_out < network.num_training_steps() < math.inf:
        return {"total_steps": network.num_training_steps()}
    return {}
