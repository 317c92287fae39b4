"""A moving average of the weights."""

from __future__ import annotations

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.plugins import DoublePrecision, HalfPrecision
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Average(EMAWeightAveraging):
    """Lightning's moving average of the weights, kept where they are trained, in a few kernels.

    ``Blocks`` updates it within a block.

    Args:
        decay: Share of the average that remains at an update, in [0, 1).
        update_every_n_steps: It is updated after the first step, then after every so many.
    """

    def __init__(self, decay: float, update_every_n_steps: int = 1) -> None:
        super().__init__(decay=decay, update_every_n_steps=update_every_n_steps)
        self.decay = decay

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Create the average; Lightning moves and converts the network only later."""
        self._device = trainer.strategy.root_device
        if isinstance(trainer.precision_plugin, DoublePrecision):
            trainer.precision_plugin.convert_module(pl_module)
        if not isinstance(trainer.precision_plugin, HalfPrecision):
            # With it, the average stays in single precision, in which small updates are not lost.
            self._kwargs = {"multi_avg_fn": get_ema_multi_avg_fn(self.decay)}  # type: ignore[no-untyped-call]
        super().setup(trainer, pl_module, stage)
