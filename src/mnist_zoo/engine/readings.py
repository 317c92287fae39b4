"""Collects, during an evaluation, the data for its pictures."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import multiclass_confusion_matrix
from torchmetrics.utilities import dim_zero_cat


class Examples(NamedTuple):
    """Images (n, 28, 28) as fed to the network, probabilities (n, C) and targets (n,)."""

    images: Tensor
    probabilities: Tensor
    targets: Tensor


class Readings(NamedTuple):
    """What was gathered, on the CPU.

    Attributes:
        counts: int64 (C, C): rows are true classes, columns predicted ones.
        first: The first images; with several processes, those of the first process.
        wrong: Misclassified images, the most confident first.
    """

    counts: Tensor
    first: Examples
    wrong: Examples


class Gathered(Metric):
    """Gathers ``Readings`` in memory that does not grow with the number of images.

    Across processes, counts are added and images concatenated.

    Args:
        num_classes: C.
        num_first: How many of the first images are kept.
        num_wrong: How many misclassified ones are kept.
    """

    full_state_update = False
    counts: Tensor
    first: list[Tensor]
    wrong: list[Tensor]

    def __init__(self, num_classes: int = 10, num_first: int = 20, num_wrong: int = 40) -> None:
        super().__init__()
        self.num_classes, self.num_first, self.num_wrong = num_classes, num_first, num_wrong
        counts = torch.zeros(num_classes, num_classes, dtype=torch.int64)
        self.add_state("counts", counts, dist_reduce_fx="sum")
        # One row per image holds all that belongs together: confidence, target, probabilities,
        # pixels.
        self.add_state("first", [], dist_reduce_fx="cat")
        self.add_state("wrong", [], dist_reduce_fx="cat")

    def update(self, images: Tensor, probabilities: Tensor, targets: Tensor) -> None:
        """Add a minibatch: images (N, 1, 28, 28), probabilities (N, C) and targets (N,)."""
        confidence, predictions = probabilities.max(dim=1)
        self.counts += multiclass_confusion_matrix(predictions, targets, self.num_classes)
        columns = (confidence[:, None], targets[:, None], probabilities, images.flatten(1))
        rows = torch.cat([column.float() for column in columns], dim=1)
        self.first = [torch.cat([*self.first, rows[: self.num_first]])[: self.num_first]]
        wrong = rows[predictions != targets]
        self.wrong = [_most_confident(torch.cat([*self.wrong, wrong]), self.num_wrong)]

    def compute(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the counts, and the rows of the first and of the misclassified images."""
        first = dim_zero_cat(self.first)[: self.num_first]
        return self.counts, first, _most_confident(dim_zero_cat(self.wrong), self.num_wrong)

    def readings(self) -> Readings:
        """Return what was gathered."""
        # Not made within compute, whose tensors of one element lose their dimension.
        counts, first, wrong = self.compute()
        return Readings(counts.cpu(), self._examples(first), self._examples(wrong))

    def _examples(self, rows: Tensor) -> Examples:
        targets, probabilities, pixels = rows.cpu()[:, 1:].tensor_split(
            [1, 1 + self.num_classes], 1
        )
        return Examples(pixels.reshape(-1, 28, 28), probabilities, targets.flatten().long())


class Gather(Callback):
    """Gathers ``Readings`` during ``validate`` or ``test``.

    Attributes:
        readings: What was gathered; None before the end of the evaluation, or if the network's
            steps do not return its outputs.
    """

    def __init__(self) -> None:
        self.readings: Readings | None = None
        self._gathered = Gathered()

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add a minibatch and the network's outputs."""
        if isinstance(outputs, Tensor):
            images, targets = batch
            probabilities = pl_module.probabilities(outputs)
            self._gathered.to(outputs.device).update(images, probabilities, targets)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Combine what all processes gathered."""
        if self._gathered.update_called:
            self.readings = self._gathered.readings()
            self._gathered.reset()

    on_validation_batch_end = on_test_batch_end
    on_validation_epoch_end = on_test_epoch_end


def _most_confident(rows: Tensor, num: int) -> Tensor:
    return rows[rows[:, 0].argsort(descending=True, stable=True)[:num]]
