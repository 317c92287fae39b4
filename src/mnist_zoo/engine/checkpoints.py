"""The two checkpoints of a run: the best by validation, and the last."""

from __future__ import annotations

from typing import Literal

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint


class Best(ModelCheckpoint):
    """Keeps ``best.ckpt``, the weights that validation chose; none where nothing is held out.

    Args:
        monitor: The logged value that decides.
        mode: Whether the highest or the lowest value is best.
    """

    def __init__(self, monitor: str = "val/acc", mode: Literal["max", "min"] = "max") -> None:
        super().__init__(filename="best", monitor=monitor, mode=mode, enable_version_counter=False)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Save nothing where there is no validation: the monitored value is never logged."""
        datamodule = getattr(trainer, "datamodule", None)
        if getattr(datamodule, "val_size", None) == 0 or trainer.limit_val_batches == 0:
            self.save_top_k = 0
        super().setup(trainer, pl_module, stage)


class Last(ModelCheckpoint):
    """Keeps ``last.ckpt``, from which a run goes on.

    Args:
        every_n_train_steps: Write it after so many optimizer steps; None: after every epoch.
    """

    def __init__(self, every_n_train_steps: int | None = None) -> None:
        super().__init__(
            filename="last",
            every_n_train_steps=every_n_train_steps,
            enable_version_counter=False,
        )
