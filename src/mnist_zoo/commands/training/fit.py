"""``fit``: train a network by its recipe, or resume a stopped run."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping, LearningRateMonitor, Timer
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from rich.markup import escape

from mnist_zoo import registry
from mnist_zoo.commands.training import checks, messages
from mnist_zoo.commands.training import parser as lightning_parser
from mnist_zoo.commands.training.cli import COPY_THE_RUN, ZooCLI, console
from mnist_zoo.engine import memory_layout, probe, processor, run_folders
from mnist_zoo.engine.average import Average
from mnist_zoo.engine.best_and_last import Best, Last
from mnist_zoo.engine.blocks import Blocks
from mnist_zoo.engine.callbacks import (
    EpochLines,
    FinalMetrics,
    SomethingToTrain,
    has_asked_to_stop,
)
from mnist_zoo.engine.run_settings import SaveConfig, callback_names
from mnist_zoo.engine.test_curve import TestCurve
from mnist_zoo.errors import FinishedError, ZooError
from mnist_zoo.files import expanded, require_writable
from mnist_zoo.models import Classifier
from mnist_zoo.models.classifier import num_parameters
from mnist_zoo.report import summary

if TYPE_CHECKING:
    from mnist_zoo.commands.training.command import Request

# Length of a run if neither a recipe nor the user sets it.
_NUM_EPOCHS = 10


class Fit(ZooCLI):
    """``fit``, in a run folder of its own.

    Args:
        request: The arguments, with names resolved.
        configs: Configuration files that the user's values override.
        callbacks: Callbacks in addition to the zoo's and the user's.

    Raises:
        ZooError: Something went wrong that the user can fix.
        FinishedError: The run to resume has already reached its limit.
    """

    run_folder: Path | None = None
    claim: run_folders.Claim | None = None

    def __init__(
        self, request: Request, configs: list[str], callbacks: Sequence[Callback] = ()
    ) -> None:
        try:
            with contextlib.ExitStack() as self.until_the_end:
                self.until_the_end.enter_context(processor.flush_denormals())
                super().__init__(
                    request,
                    configs,
                    callbacks,
                    save_config_callback=SaveConfig,
                    save_config_kwargs={"save_to_log_dir": False},
                )
        except BaseException:
            if self.claim:
                self.claim.discard()
            raise

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the flags of ``fit``."""
        lightning_parser.add_fit_arguments(parser)
        super().add_arguments_to_parser(parser)

    def before_instantiate_classes(self) -> None:
        """Choose the run's length and folder, and what it shows and records."""
        trainer = self.settings.trainer
        if trainer.max_epochs is None and trainer.max_steps == -1 and trainer.max_time is None:
            # Lightning's own default is 1,000.
            trainer.max_epochs = _NUM_EPOCHS
        super().before_instantiate_classes()
        if not trainer.fast_dev_run:
            self._claim_run_folder()

    def zoo_callbacks(self) -> list[Callback]:
        """Return the callbacks that train in blocks of steps, and show and record the run."""
        trainer = self.settings.trainer
        # Averaging copies the network; Blocks then ties it to the trainer and its data.
        callbacks = [
            *(super().zoo_callbacks() or [EpochLines(console.print)]),
            SomethingToTrain(),
            *self._averaging(),
            Blocks(self.settings.steps_per_execution, self.settings.cuda_graph),
        ]
        if self.settings.test_curve:
            callbacks.append(TestCurve())
        if not trainer.fast_dev_run and trainer.logger not in (False, []):
            callbacks += [LearningRateMonitor("epoch"), FinalMetrics()]
        return callbacks

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the trainer, which writes to the run's folder."""
        if (run := self.run_folder) is not None:
            # Not in the configuration: a saved one that is used again must start a new run.
            kwargs["default_root_dir"] = str(run)
            for callback in ("best", "last"):
                self._get(self.config_init, callback).dirpath = str(run / "checkpoints")
            if self._get(self.config_init, "trainer").logger in (None, True):
                kwargs["logger"] = TensorBoardLogger(
                    run.parents[1], run.parent.name, run.name, default_hp_metric=False
                )
        trainer = super().instantiate_trainer(**kwargs)
        checks.names_of_checkpoints(trainer.checkpoint_callbacks)
        checks.averages(trainer.callbacks)  # type: ignore[attr-defined]
        return trainer

    def before_fit(self) -> None:
        """Print what will be trained, on what, and for how long.

        Raises:
            ZooError: These settings cannot be trained.
            FinishedError: The run has already reached its limit.
        """
        before = self.request.checkpoint
        if before:
            checks.resuming(before, self.trainer, self.model, self.datamodule, self.settings.best)
        outputs = probe.check(self.model)
        if probe.are_probabilities(outputs) and type(self.model).loss is Classifier.loss:
            console.print(
                f"{type(self.model).__name__} returns probabilities, but its loss expects logits:"
                " remove the final softmax.",
                style="yellow",
            )
        channels_last = self.settings.channels_last
        if channels_last is None:
            channels_last = memory_layout.gains_from_channels_last(self.model, self.trainer)
        if channels_last:
            memory_layout.put_channels_last(self.model)
        if slow := processor.slow_precision(self.trainer):
            console.print(slow, style="yellow")
        self.datamodule.prepare_data()
        self.datamodule.setup("fit")
        checks.validation(self.trainer, self.model, self.datamodule)
        console.print(
            summary.before_fit(
                network=type(self.model).__name__,
                num_parameters=num_parameters(self.model),
                data=type(self.datamodule).__name__,
                num_train_images=self.datamodule.num_train_images,
                num_val_images=self.datamodule.num_val_images,
                max_epochs=self.trainer.max_epochs,
                max_steps=self.trainer.max_steps,
                run_folder=self.run_folder,
                num_devices=self.trainer.world_size,
                batch_size=self.datamodule.batch_size,
                limit_train_batches=self.trainer.limit_train_batches,
            )
        )
        if before:
            done = f"{before.num_epochs} epoch{'s' * (before.num_epochs != 1)}"
            console.print(f"Resuming after {done}, {before.num_steps:,} steps.")
        given = callback_names(self.settings.trainer)
        if missing := [name for name in self.request.callbacks if name not in given]:
            names = escape(", ".join(missing))
            console.print(
                f"Resuming without {names}: callbacks are not restored from checkpoints."
                "\nAdd them again with --trainer.callbacks",
                style="yellow",
            )

    def fit(self, **kwargs: Any) -> None:
        """Train; if the user interrupts it, print how to resume.

        Raises:
            FinishedError: A resumed run's time limit was reached before its first step.
        """
        try:
            self.trainer.fit(**kwargs)
        except SystemExit as ended:
            last = self.run_folder and self.run_folder / "checkpoints" / "last.ckpt"
            found = last if last and last.is_file() else None
            with contextlib.suppress(OSError):  # the terminal may be gone
                console.print(summary.interrupted(found, self._own_classes()))
            # Lightning exits with 1, as after an error, or with 0, as after success.
            if isinstance(ended.__context__, KeyboardInterrupt):
                raise SystemExit(128 + signal.SIGINT) from None
            if isinstance(ended, SIGTERMException):
                raise SystemExit(128 + signal.SIGTERM) from None
            raise
        before = self.request.checkpoint
        if before and self.trainer.global_step == before.num_steps:
            raise FinishedError(
                f"{self.request.ckpt_path} has finished training."
                "\nTo continue: --trainer.max_time DD:HH:MM:SS (total over all parts of the run)"
            )

    def after_fit(self) -> None:
        """Print the result, where it is, and what to run next."""
        if self.run_folder is None:
            num = int(self.settings.trainer.fast_dev_run)
            batches = "One batch" if num == 1 else f"{num} batches"
            console.print(f"{batches} of training and validation went through; nothing was saved.")
            return
        metrics = self.trainer.callback_metrics
        losses = [metrics.get(f"{stage}/loss") for stage in ("train", "val")]
        if not all(loss is None or torch.isfinite(loss) for loss in losses):
            self.exit_status = 1
            console.print(
                "The loss is not a number: the training has diverged."
                f" Try a smaller --model.lr than {self.model.lr}.",
                style="yellow",
            )
        best = next(c for c in self.trainer.checkpoint_callbacks if isinstance(c, Best))
        last = next(c for c in self.trainer.checkpoint_callbacks if isinstance(c, Last))
        if early := self._ended_early():
            console.print(early)
        curves, tables = (
            [Path(log.log_dir) for log in self.trainer.loggers if isinstance(log, kind)]
            for kind in (TensorBoardLogger, CSVLogger)
        )
        score = best.best_model_score
        train_acc = metrics.get("train/acc")  # None for a custom step
        console.print(
            summary.after_fit(
                monitor=best.monitor,
                score=None if score is None else float(score),
                train_acc=None if train_acc is None else float(train_acc),
                checkpoint=best.best_model_path or last.best_model_path,
                test_options=self._own_classes() + self._test_file(),
                curves=curves[0] if curves else None,
                table=tables[0] / "metrics.csv" if tables else None,
            )
        )
        if self.draws and self.trainer.is_global_zero:
            from mnist_zoo.commands.shared import run_pictures

            name, num_steps = type(self.model).__name__, self.trainer.global_step
            if drawn := run_pictures.after_fit(self.run_folder, name, num_steps):
                console.print(drawn)

    def explanation(self, error: Exception) -> str | None:
        """Return a plain message for an exception, or None if it is a bug."""
        return super().explanation(error) or messages.of_resuming(error, self.request.ckpt_path)

    def _averaging(self) -> list[Callback]:
        """Return the callback that averages the weights, if that is requested."""
        average = self.settings.average
        before = self.request.checkpoint
        if before and before.is_averaged != (average.decay is not None):
            raise ZooError(
                "a resumed run cannot start or stop averaging its weights.\n"
                "Leave --average.decay out, or start a new run."
            )
        if average.decay is None:
            return []
        return [Average(decay=average.decay, update_every_n_steps=average.every_n_steps)]

    def _claim_run_folder(self) -> None:
        if self.request.ckpt_path:
            self.run_folder = run_folders.of_checkpoint(Path(self.request.ckpt_path))
            if self.run_folder:
                require_writable(self.run_folder, COPY_THE_RUN)
                require_writable(self.run_folder / "checkpoints", COPY_THE_RUN)
        if self.run_folder is None:
            network = str(self.settings.model.class_path).rpartition(".")[2]
            parent = expanded(self.settings.trainer.default_root_dir or "runs")
            self.claim = run_folders.claim(parent / network)
            self.run_folder = self.claim.folder
            if self.request.ckpt_path:
                console.print(
                    f"{escape(self.request.ckpt_path)} is not in a run folder (version_N), so a"
                    " new run begins here, without the best.ckpt of the old one."
                )
        self.until_the_end.enter_context(run_folders.locked(self.run_folder))
        run_folders.remove_unfinished(self.run_folder)
        if self.request.checkpoint and not self.claim:
            checks.nothing_later(self.request.checkpoint)

    def _ended_early(self) -> str:
        """Return a line on the callback that ended the training before its last epoch, if any."""
        num_epochs, limit = self.trainer.current_epoch, self.trainer.max_epochs
        if limit is None or not 0 <= num_epochs < limit or not self.trainer.should_stop:
            return ""
        if self.trainer.global_step == self.trainer.max_steps:
            return ""
        done = f"{num_epochs} of {limit} epochs ({self.trainer.global_step:,} steps)"
        callbacks: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        for callback in callbacks:
            if isinstance(callback, Timer) and (callback.time_remaining() or 0) < 0:
                return f"--trainer.max_time ended the training after {done}."
            if isinstance(callback, EarlyStopping) and has_asked_to_stop(callback):
                name = f"EarlyStopping ({callback.monitor})"
                return f"{name} ended the training after {done}."
        return ""

    def _own_classes(self) -> str:
        """Return the flags that a command needs with the checkpoint: custom classes by name."""
        paths = (registry.path_of(type(made)) for made in (self.model, self.datamodule))
        return "".join(f" {flag} {path}" for flag, path in registry.to_be_named(*paths).items())

    def _test_file(self) -> str:
        """Return the flag that ``test`` needs if the data has no test images yet."""
        lacks = getattr(self.datamodule, "test_file", "") is None
        return " --data.test_file FILE" if lacks else ""
