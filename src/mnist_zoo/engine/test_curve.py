"""The curve of test accuracy by epoch, as books print it; nothing can be chosen by it."""

from __future__ import annotations

from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback, WeightAveraging
from lightning.pytorch.utilities.seed import isolate_rng

from mnist_zoo.models.classifier import evaluation_mode


class TestCurve(Callback):
    """Logs test loss and accuracy after every epoch, to the loggers only.

    They never become trainer metrics, so no checkpoint, scheduler or early stopping can use them.
    The network is evaluated in evaluation mode and the random generators are restored, so the
    weights are bit-identical to those of a run without the curve.
    """

    __test__ = False  # not a test, despite its name

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Load the test images."""
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        with isolate_rng():
            datamodule.setup("test")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Evaluate the network on the test images."""
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        averages = [c for c in callbacks if isinstance(c, WeightAveraging)]
        # Averaged weights replace the others during evaluation.
        for average in averages:
            average.on_validation_epoch_start(trainer, pl_module)
        with isolate_rng(), torch.no_grad(), evaluation_mode(pl_module):
            figures = self._evaluate(trainer, pl_module)
        for average in averages:
            average.on_validation_epoch_end(trainer, pl_module)
        for logger in trainer.loggers:
            # The step at which Lightning logs its own epoch metrics.
            logger.log_metrics(figures, trainer.global_step - 1)

    @staticmethod
    def _evaluate(trainer: Trainer, network: Any) -> dict[str, float]:
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        # Metrics are summed over all processes.
        mean_loss, accuracy = network.test_mean_loss.clone(), network.test_acc.clone()
        for batch in datamodule.test_dataloader():
            images, targets = trainer.strategy.batch_to_device(batch)
            with trainer.precision_plugin.forward_context():
                outputs = network(images)
                mean_loss.update(network.loss(outputs, targets), len(targets))
            accuracy.update(outputs, targets)
        loss, acc = mean_loss.compute(), accuracy.compute()
        return {"test_curve/loss": float(loss), "test_curve/acc": float(acc)}
