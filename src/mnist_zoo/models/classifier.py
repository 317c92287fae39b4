"""The base class of every network."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from lightning import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.plugins.precision import DoublePrecision
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassStatScores

from mnist_zoo import handwriting, stored
from mnist_zoo.errors import ZooError
from mnist_zoo.models import optimizers
from mnist_zoo.models.resuming import ChangedSettings

Batch = tuple[Tensor, Tensor]


class Classifier(LightningModule, ABC):
    """A classifier of 28 × 28 greyscale images into ten classes, with its loss and optimizer.

    In its ``__init__``, a subclass passes ``**kwargs`` on to this class and builds ``self.layers``.
    If its outputs are not logits, it also overrides ``loss`` and ``probabilities``. A subclass with
    its own ``training_step``, ``configure_optimizers`` or per-step hooks is trained by Lightning's
    plain loop, which is slower. In others, the trainer takes many steps for a batch, so a loss that
    needs the length of the run asks ``num_training_steps``.

    Logged are ``train/loss``, ``train/acc``, ``val/loss``, ``val/acc``, ``test/loss``, ``test/acc``
    and ``test/acc/0`` to ``test/acc/9``; accuracies are in [0, 1].

    Args:
        lr: Learning rate, greater than 0.
        weight_decay: Weight decay, as the optimizer defines it.
        optimizer: Name of a class in ``torch.optim``, such as SGD, Adam or AdamW; or Muon, this
            project's.
        optimizer_args: Further arguments of the optimizer, such as ``{momentum: 0.9}``.
        scheduler: Name of a class in ``torch.optim.lr_scheduler``, such as CosineAnnealingLR;
            None keeps the learning rate constant. OneCycleLR is stepped after every optimizer
            step, all others after every epoch; ``total_steps`` and ``T_max`` default to the whole
            run.
        scheduler_args: Further arguments of the scheduler.

    Raises:
        ZooError: The optimizer or scheduler does not exist, or ``lr`` is not above 0.
    """

    num_classes: ClassVar[int] = 10
    layers: nn.Module
    pixel_mean: float = 0.0
    """Mean that ``predict`` subtracts from pixels in [0, 1], as in training."""
    pixel_std: float = 1.0
    """Standard deviation by which pixels are then divided."""

    @abstractmethod
    def __init__(
        self,
        lr: float = 0.1,
        weight_decay: float = 0.0,
        optimizer: str = "SGD",
        optimizer_args: dict[str, Any] | None = None,
        scheduler: str | None = None,
        scheduler_args: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        # Saved in checkpoints with the optimizer's state, so they must be plain numbers.
        self.lr: float = stored.to_python(lr)
        self.weight_decay: float = stored.to_python(weight_decay)
        if not 0 < self.lr < math.inf:
            raise ZooError(f"--model.lr {self.lr}: must be above 0{' and finite' * (self.lr > 0)}.")
        self.optimizer_class = optimizers.class_in(torch.optim, optimizer, "optimizer")
        self.optimizer_args: dict[str, Any] = stored.to_python(optimizer_args or {})
        self.scheduler_class = scheduler and optimizers.class_in(
            torch.optim.lr_scheduler, scheduler, "scheduler"
        )
        self.scheduler_args: dict[str, Any] = stored.to_python(scheduler_args or {})

        self.train_mean_loss = _MeanLoss()
        self.train_acc = self._accuracy()
        self.val_mean_loss = _MeanLoss()
        self.val_acc = self._accuracy()
        self.test_mean_loss = _MeanLoss()
        self.test_acc = self._accuracy()
        self.test_stat_scores = MulticlassStatScores(
            self.num_classes, average="none", validate_args=False
        )

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, 1, 28, 28) to outputs (N, 10): logits, unless documented otherwise."""
        outputs: Tensor = self.layers(images)
        return outputs

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of outputs (N, 10) for targets (N,), integers from 0 to 9."""
        return F.cross_entropy(outputs, targets)

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Turn outputs (N, 10) into probabilities (N, 10): each row sums to 1."""
        return outputs.softmax(dim=1)

    @torch.no_grad()
    def predict(
        self, images: handwriting.Images | Sequence[handwriting.Images], batch_size: int = 1000
    ) -> Tensor:
        """Return the probabilities (N, 10) of images, in evaluation mode.

        Pixels are normalised as in training, if the network was trained or loaded from a
        checkpoint.

        Args:
            images: Pillow pictures, one digit each, in any size and mode; arrays and tensors in
                MNIST's form, integers from 0 to 255 or floats in [0, 1], of shape (28, 28),
                (N, 28, 28) or (N, 1, 28, 28); or a list of any of these.
            batch_size: Number of images per forward pass.

        Raises:
            HandwritingError: A picture does not hold one digit, or an array is of another kind.
            ZooError: ``batch_size`` is below 1, or the training has diverged: some outputs are not
                finite.
        """
        if batch_size < 1:
            raise ZooError(f"predict: batch_size is {batch_size}, but must be at least 1.")
        pixels = (handwriting.to_pixels(images) - self.pixel_mean) / self.pixel_std
        # After training in 16-true, weights are in half precision.
        dtype = next(self.parameters()).dtype
        with evaluation_mode(self):
            answers = torch.cat(
                [
                    self.probabilities(self(batch.to(self.device, dtype))).float()
                    for batch in torch.split(pixels, batch_size)
                ]
            )
        self.require_finite(answers)
        return answers

    def require_finite(self, outputs: Tensor) -> None:
        """Check what the network has returned.

        Raises:
            ZooError: Some of it is not finite: the training has diverged.
        """
        if not outputs.isfinite().all():
            name = type(self).__name__
            raise ZooError(f"{name} returns NaN or infinity: its training has diverged.")

    def configure_callbacks(self) -> list[Callback]:
        """Return what a network needs whatever hooks its class overrides.

        In Lightning's base class, hooks do nothing, so users override them without ``super()``.
        """
        own = type(self).configure_optimizers is not Classifier.configure_optimizers
        return [_Bookkeeping(), ChangedSettings(own_optimizer=own)]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a minibatch: images (N, 1, 28, 28) and targets (N,).

        ``mnist-zoo fit`` takes many such steps at a time instead (``engine/blocks.py``), unless a
        network has its own.
        """
        images, targets = batch
        outputs = self._outputs(images)
        loss = self.loss(outputs, targets)
        self.log_training(loss.detach(), outputs.detach(), targets)
        return loss

    def log_training(self, loss: Tensor, outputs: Tensor, targets: Tensor) -> None:
        """Add to the epoch's metrics: a mean loss, outputs (N, 10) and targets (N,)."""
        self.train_mean_loss.update(loss, len(targets))
        self.train_acc.update(outputs, targets)
        self.log("loss", loss, prog_bar=True, logger=False)
        # These keep their own sums, so once an epoch is enough; log costs as much as several steps.
        if not self._is_logged("train/acc"):
            self._log_epoch("train/loss", self.train_mean_loss, targets)
            self._log_epoch("train/acc", self.train_acc, targets)

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Add a minibatch to the validation loss and accuracy; return its outputs (N, 10)."""
        return self._evaluate(batch, "val", self.val_mean_loss, self.val_acc)

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Add a minibatch to the test loss, accuracy and accuracy per class.

        Returns:
            Its outputs (N, 10).
        """
        outputs = self._evaluate(batch, "test", self.test_mean_loss, self.test_acc)
        self.test_stat_scores.update(outputs, batch[1])
        return outputs

    def on_test_epoch_end(self) -> None:
        """Log the accuracy of each class that has images."""
        if not self.test_stat_scores.update_called:
            return  # the network has its own test_step
        read, *_, support = self.test_stat_scores.compute().T
        for digit in support.nonzero().flatten().tolist():
            self.log(f"test/acc/{digit}", read[digit] / support[digit])
        self.test_stat_scores.reset()

    def predict_step(self, batch: Batch | Tensor, batch_idx: int) -> Tensor:
        """Return the probabilities (N, 10) of a minibatch, with or without its targets."""
        images = batch if isinstance(batch, Tensor) else batch[0]
        return self.probabilities(self._outputs(images))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build the optimizer, and the scheduler if any, from the arguments."""
        optimizer = self.build_optimizer()
        if not self.scheduler_class:
            return optimizer
        with optimizers.arguments_explained("scheduler", self.scheduler_class):
            scheduler_args = optimizers.scheduler_args(self)
            scheduler = self.scheduler_class(optimizer, **scheduler_args)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {
                "scheduler": scheduler,
                "interval": "step" if "total_steps" in scheduler_args else "epoch",
                "monitor": "val/loss",
            },
        }

    def build_optimizer(self) -> Optimizer:
        """Build the optimizer alone.

        Raises:
            ZooError: It cannot be used, or does not accept its arguments.
        """
        return optimizers.build(self)

    def parameter_groups(self) -> Iterable[Any]:
        """Return all parameters, or parameter groups with their own settings."""
        return self.parameters()

    def num_training_steps(self) -> float:
        """Return the number of optimizer steps in the whole run; infinity if unlimited."""
        return self.trainer.estimated_stepping_batches

    def num_steps_per_epoch(self) -> int:
        """Return the number of optimizer steps in an epoch."""
        trainer = self.trainer
        trainer.fit_loop.setup_data()  # which may be yet to come in a run without last epoch
        return math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the pixel normalisation."""
        if pixels := checkpoint.get("mnist_zoo", {}).get("pixels"):
            self.pixel_mean = float(pixels.get("mean", 0.0))
            self.pixel_std = float(pixels.get("std", 1.0))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what is needed to rebuild this network and its data, as plain types."""
        checkpoint["mnist_zoo"] = {"pixels": {"mean": self.pixel_mean, "std": self.pixel_std}}
        made: dict[str, Any] = {"model": self}
        datamodule = getattr(self._trainer, "datamodule", None)
        if isinstance(datamodule, LightningDataModule):
            made["data"] = datamodule
        for key, part in made.items():
            entry = stored.class_and_arguments(part)
            if key == "data" and hasattr(part, "classes"):
                entry["classes"] = list(part.classes)
            checkpoint["mnist_zoo"][key] = entry
            # Lightning's own entry also holds arguments that the class does not accept.
            if part.CHECKPOINT_HYPER_PARAMS_KEY in checkpoint:
                checkpoint[part.CHECKPOINT_HYPER_PARAMS_KEY] = dict(entry["init_args"])

    def _accuracy(self) -> MulticlassAccuracy:
        return MulticlassAccuracy(self.num_classes, average="micro", validate_args=False)

    def _evaluate(
        self, batch: Batch, stage: str, loss: _MeanLoss, accuracy: MulticlassAccuracy
    ) -> Tensor:
        images, targets = batch
        outputs = self._outputs(images)
        # Lightning would round the mean batch size over processes, which may differ.
        loss.update(self.loss(outputs, targets), len(targets))
        accuracy.update(outputs, targets)
        self._log_epoch(f"{stage}/loss", loss, targets, prog_bar=True)
        self._log_epoch(f"{stage}/acc", accuracy, targets, prog_bar=True)
        return outputs

    def _outputs(self, images: Tensor) -> Tensor:
        try:
            outputs: Tensor = self(images)
        except RuntimeError as error:
            if images.dtype != torch.uint8:
                raise
            raise ZooError(
                f"{type(self).__name__} takes floats, not bytes: give the trainer the data module"
                " (datamodule=...), not its loader."
            ) from error
        return outputs

    def _is_logged(self, name: str) -> bool:
        """Whether Lightning already has this figure of the current training epoch."""
        figures = self._trainer._results if self._trainer else None
        figure = figures.get(f"training_step.{name}") if figures else None
        return figure is not None and not figure.has_reset

    def _log_epoch(self, name: str, value: Any, targets: Tensor, prog_bar: bool = False) -> None:
        self.log(
            name, value, on_step=False, on_epoch=True, prog_bar=prog_bar, batch_size=len(targets),
            sync_dist=True,
        )  # fmt: skip


class _Bookkeeping(Callback):
    """Prepares a network for training, and records it and its data in checkpoints."""

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Convert the network to double precision before its weights are restored.

        Lightning does so afterwards, when the weights have been rounded.
        """
        if isinstance(trainer.precision_plugin, DoublePrecision):
            trainer.precision_plugin.convert_module(pl_module)

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Reset the training metrics, record the pixel normalisation.

        Raises:
            ZooError: A checkpoint cannot hold an argument of the network or its data.
        """
        # An earlier run may have been interrupted within an epoch.
        pl_module.train_mean_loss.reset()
        pl_module.train_acc.reset()
        datamodule: Any = getattr(trainer, "datamodule", None)
        stored.require_plain_arguments(pl_module)
        if datamodule is not None:
            stored.require_plain_arguments(datamodule)
        if hasattr(datamodule, "mean"):
            pl_module.pixel_mean, pl_module.pixel_std = datamodule.mean, datamodule.std

    # Without a trainer, and for weights alone, Lightning calls only the network's own two hooks.
    # Calling them twice is harmless.

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: Any, checkpoint: dict[str, Any]
    ) -> None:
        """Add what it takes to rebuild the network."""
        Classifier.on_save_checkpoint(pl_module, checkpoint)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: Any, checkpoint: dict[str, Any]
    ) -> None:
        """Restore the pixel normalisation."""
        Classifier.on_load_checkpoint(pl_module, checkpoint)


class _MeanLoss(Metric):
    """Mean loss of all images so far; NaN once training has diverged.

    ``MeanMetric`` of torchmetrics either checks for NaN, which synchronises with the device at
    every step, or ignores the weights.
    """

    full_state_update = False
    total: Tensor
    num_images: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("num_images", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, loss: Tensor, num_images: int) -> None:
        """Add the mean loss of some images."""
        # Not in place: a trainer with half precision also halves this sum, which would overflow.
        self.total = self.total + loss.float() * num_images
        self.num_images = self.num_images + num_images

    def compute(self) -> Tensor:
        """Return the mean."""
        return self.total / self.num_images


@contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode, then restore the mode of each layer."""
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def sizes(network: nn.Module) -> dict[str, torch.Size]:
    """Return the shapes of a network's weights by name; lazy layers have none yet."""
    return {n: part.shape for n, part in network.state_dict().items() if not is_lazy(part)}


def num_parameters(network: nn.Module) -> int:
    """Count the trainable parameters of a network."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)
