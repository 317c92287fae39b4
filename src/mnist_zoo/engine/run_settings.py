"""The settings of a run: in its config.yaml, and in its checkpoints, from which it is resumed."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import yaml
from lightning import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback

from mnist_zoo import stored
from mnist_zoo.files import whole

# Settings that decide what a run computes and keeps; a resumed run takes them from its checkpoint.
# Plain numbers and strings only: nothing by which an untrusted file could import code.
_SETTINGS = {
    "trainer": (
        "accumulate_grad_batches",
        "check_val_every_n_epoch",
        "deterministic",
        "gradient_clip_algorithm",
        "gradient_clip_val",
        "limit_train_batches",
        "limit_val_batches",
        "max_epochs",
        "max_steps",
        "max_time",
        "min_epochs",
        "min_steps",
        "overfit_batches",
        "precision",
        "sync_batchnorm",
        "val_check_interval",
    ),
    "best": ("monitor", "mode"),
    "last": ("every_n_train_steps",),
    "average": ("decay", "every_n_steps"),
}
# The same for settings outside any group.
_VALUES = ("seed_everything", "channels_last", "test_curve", "pictures")


class SaveConfig(SaveConfigCallback):
    """Saves ``config.yaml`` in the run's folder, and in checkpoints what resuming needs.

    A resumed run's file is replaced only with the first checkpoint: until then, changed settings
    may still be refused.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Save it before training, unless the run has one already."""
        is_there = (Path(trainer.default_root_dir) / "config.yaml").exists()
        # The first process writes it at once, maybe before others have checked.
        if not trainer.strategy.broadcast(is_there):
            super().setup(trainer, pl_module, stage)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Save it there, wherever the logger writes."""
        # Some of Lightning's callbacks have Enum defaults, which jsonargparse keeps.
        yaml.SafeDumper.add_multi_representer(Enum, lambda dump, it: dump.represent_data(it.value))
        file = Path(trainer.default_root_dir) / "config.yaml"
        # When reused, it should start a new run.
        config = self.config.clone()
        config.ckpt_path = None
        with whole(file) as unfinished:
            text = self.parser.dump(config, skip_unset=False)
            unfinished.write_text(text, encoding="utf-8")

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the settings that a resumed run takes over."""
        if trainer.is_global_zero and not self.already_saved:
            self.save_config(trainer, pl_module, "fit")
            self.already_saved = True
        checkpoint["mnist_zoo_run"] = {name: self.config[name] for name in _VALUES} | {
            group: {key: self.config[group][key] for key in keys}
            for group, keys in _SETTINGS.items()
        }
        checkpoint["mnist_zoo_run"]["callbacks"] = callback_names(self.config["trainer"])
        checkpoint["mnist_zoo_run"]["num_devices"] = trainer.world_size


def callback_names(trainer: Mapping[str, Any]) -> list[str]:
    """Return the class names of the callbacks in the settings of a trainer."""
    callbacks = trainer["callbacks"] or []
    callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
    return [str(callback["class_path"]).rpartition(".")[2] for callback in callbacks]


def resumed_settings(run: dict[str, Any]) -> dict[str, Any]:
    """Return what a resumed run takes over of the settings in its checkpoint.

    Anything else there, such as a callback to import, is left out.
    """
    settings: dict[str, Any] = {}
    for group, keys in _SETTINGS.items():
        held = run[group] if isinstance(run.get(group), dict) else {}
        settings[group] = {
            key: held[key]
            for key in keys
            if key in held and _is_setting(held[key]) and stored.is_plain(held[key])
        }
    return settings | {name: run[name] for name in _VALUES if isinstance(run.get(name), bool | int)}


def _is_setting(value: Any) -> bool:
    if isinstance(value, dict):  # a time, such as {"minutes": 5}
        return all(isinstance(part, int) for part in value.values())
    return isinstance(value, bool | int | float | str | None)
