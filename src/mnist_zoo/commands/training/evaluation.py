"""``validate``, ``test`` and ``predict``: what a checkpoint makes of images."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from rich.markup import escape

from mnist_zoo import registry
from mnist_zoo.commands.training import checks
from mnist_zoo.commands.training.cli import COPY_THE_RUN, ZooCLI, console
from mnist_zoo.engine import run_folders
from mnist_zoo.engine.readings import Gather
from mnist_zoo.errors import ZooError
from mnist_zoo.files import require_writable
from mnist_zoo.report import predictions, summary


@contextlib.contextmanager
def _ctrl_c_told() -> Iterator[None]:
    """Raise ``KeyboardInterrupt`` where Lightning exits with status 1."""
    try:
        yield
    except SystemExit as ended:
        if isinstance(ended.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise


class Evaluation(ZooCLI):
    """``validate``, ``test`` or ``predict``."""

    def before_instantiate_classes(self) -> None:
        """Log nothing unless the user names a logger."""
        self.settings.trainer.logger = self.settings.trainer.logger or False
        super().before_instantiate_classes()

    def zoo_callbacks(self) -> list[Callback]:
        """Return the callbacks that show progress and gather what pictures need."""
        self.gather = Gather()
        return super().zoo_callbacks() + ([self.gather] if self.draws else [])

    def validate(self, **kwargs: Any) -> None:
        """Evaluate on the validation images; print loss and accuracy."""
        before = self.request.checkpoint
        if before and (different := checks.held_out_differently(before, self.datamodule)):
            console.print(
                f"The network was trained with a different {different}: it may have been trained on"
                " these images.",
                style="yellow",
            )
        with _ctrl_c_told():
            self.trainer.validate(**{**kwargs, "verbose": False})
        self._report("val", self.datamodule.num_val_images, self.trainer.num_val_batches)

    def test(self, **kwargs: Any) -> None:
        """Evaluate on the test images; print loss, accuracy and accuracy per class."""
        with _ctrl_c_told():
            self.trainer.test(**{**kwargs, "verbose": False})
        self._report("test", self.datamodule.num_test_images, self.trainer.num_test_batches)

    def predict(self, **kwargs: Any) -> None:
        """Write the predictions for the test images to a CSV file, and print its path."""
        if self.trainer.world_size > 1:
            raise ZooError("predict writes one file: use one device, --trainer.devices 1")
        folder = run_folders.of_checkpoint(Path(str(self.request.ckpt_path)))
        elsewhere = "Run the command in a folder that can be written to."
        hint = COPY_THE_RUN if folder else elsewhere
        folder = folder or Path.cwd()
        require_writable(folder, hint)
        with _ctrl_c_told():
            batches: Any = self.trainer.predict(**{**kwargs, "return_predictions": True})
        if not batches:
            raise ZooError("there was nothing to predict: --trainer.limit_predict_batches is 0.")
        probabilities = torch.cat(batches)
        self.model.require_finite(probabilities)
        file = predictions.write_predictions(folder / "predictions.csv", probabilities)
        console.print(f"{len(probabilities):,} predictions written to {escape(str(file))}")

    def _report(self, stage: str, num_images: int, num_batches: Sequence[float]) -> None:
        """Print the metrics of an evaluation, and draw its pictures."""
        name = {"val": "validation"}.get(stage, stage)
        at_a_time = self.datamodule.eval_batch_size * self.trainer.world_size
        num_images = min(num_images, int(sum(num_batches) * at_a_time))
        metrics = {key: float(value) for key, value in self.trainer.callback_metrics.items()}
        if not num_images:
            raise ZooError(f"there are no {name} images to evaluate.")
        title = (
            f"{type(self.model).__name__} on {num_images:,} {name} image{'s' * (num_images != 1)}"
            f" of {type(self.datamodule).__name__}"
        )
        classes = self.datamodule.classes
        console.print(summary.metrics_table(title, stage, metrics, classes))
        if not math.isfinite(metrics.get(f"{stage}/loss", 0.0)):
            console.print("The loss is not a number: the training of this network has diverged.")
        if (readings := self.gather.readings) is not None and self.trainer.is_global_zero:
            from mnist_zoo.commands.shared import run_pictures

            other = self._other_data()
            same_number = getattr(self.datamodule, "num_test", None) == self._of_run("num_test")
            is_whole = not other and same_number and num_images == self.datamodule.num_test_images
            # Metrics of a part would be mixed with those of the whole.
            console.print(
                run_pictures.after_evaluation(
                    readings, metrics if is_whole else {}, classes, title, self.request, other
                )
            )

    def _other_data(self) -> str:
        """Return the name of the data if it is not that of the checkpoint's run, else nothing."""
        data, of_run = self.datamodule, self.request.checkpoint and self.request.checkpoint.data
        if not of_run:
            return ""
        name = "test_file" if self.request.subcommand == "test" else "train_file"
        file = getattr(data, name, None)
        same_class = registry.path_of(type(data)) == of_run["class_path"]
        if same_class and self._of_run(name) in (None, file):
            return ""
        return type(data).__name__ + (f"-{Path(file).stem}" if file else "")

    def _of_run(self, argument: str) -> Any:
        """Return an argument of the checkpoint's data; None if it is not recorded."""
        before = self.request.checkpoint
        return before.data["init_args"].get(argument) if before and before.data else None
