"""A dry run of ``fit``, before a sweep begins."""

from __future__ import annotations

from typing import Any

from lightning import Trainer

from mnist_zoo.commands.training import checks
from mnist_zoo.commands.training.fit import Fit
from mnist_zoo.engine import probe
from mnist_zoo.errors import ZooError
from mnist_zoo.models import Classifier


class DryRun(Fit):
    """``fit`` up to the point where training would begin, to find wrong arguments."""

    def before_fit(self) -> None:
        """Try the network, and load the data."""
        probe.check(self.model)
        self.datamodule.prepare_data()
        for stage in ("fit", "test"):
            self.datamodule.setup(stage)
        checks.validation(self.trainer, self.model, self.datamodule)
        if type(self.model).test_step is not Classifier.test_step:
            self._require_figures()

    def _require_figures(self) -> None:
        """Require that the user's own ``test_step`` logs what a record holds.

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
        # Training images suffice: nothing is tested before a run is over.
        self.datamodule.test_dataloader = self.datamodule.train_dataloader
        try:
            trainer.test(self.model, datamodule=self.datamodule, verbose=False)
        except Exception:
            return  # it may need something that training creates
        finally:
            del self.datamodule.test_dataloader
        if not {"test/acc", "test/loss"} <= trainer.callback_metrics.keys():
            name = type(self.model).__name__
            raise ZooError(f"{name}: its test_step has to log test/acc and test/loss.")

    def fit(self, **kwargs: Any) -> None:
        """Train nothing."""

    def after_fit(self) -> None:
        """Print nothing."""
