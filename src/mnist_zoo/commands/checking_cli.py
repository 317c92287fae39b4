"""``fit`` tried without training, before a sweep begins."""

from __future__ import annotations

from typing import Any

from lightning import Trainer

from mnist_zoo.commands import checks
from mnist_zoo.commands.lightning_cli import ZooCLI
from mnist_zoo.engine import probe
from mnist_zoo.errors import ZooError
from mnist_zoo.models import Classifier


class CheckingCLI(ZooCLI):
    """``fit`` up to where training would begin: finds what is wrong with its arguments."""

    def before_fit(self) -> None:
        """Try the network, and find the data."""
        probe.check(self.model)
        self.datamodule.prepare_data()
        for stage in ("fit", "test"):
            self.datamodule.setup(stage)
        checks.validation(self.trainer, self.model, self.datamodule)
        if type(self.model).test_step is not Classifier.test_step:
            self._require_figures()

    def _require_figures(self) -> None:
        """Have a ``test_step`` of the user's own log what a record holds.

        Raises:
            ZooError: It does not.
        """
        trainer = Trainer(
            accelerator=self.settings.trainer.accelerator,
            devices=1,
            fast_dev_run=True,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        # Those of training will do: the test images are read once, after it.
        self.datamodule.test_dataloader = self.datamodule.train_dataloader
        try:
            trainer.test(self.model, datamodule=self.datamodule, verbose=False)
        except Exception:
            return  # it may need what training makes
        finally:
            del self.datamodule.test_dataloader
        if not {"test/acc", "test/loss"} <= trainer.callback_metrics.keys():
            name = type(self.model).__name__
            raise ZooError(f"{name}: its test_step has to log test/acc and test/loss.")

    def fit(self, **kwargs: Any) -> None:
        """Train nothing."""

    def after_fit(self) -> None:
        """Say nothing."""
