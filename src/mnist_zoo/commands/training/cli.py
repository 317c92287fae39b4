"""LightningCLI with the zoo's defaults and plain messages."""

from __future__ import annotations

import contextlib
import math
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jsonargparse import Namespace
from lightning import Trainer
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, EarlyStopping, LearningRateMonitor, Timer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from rich.console import Console
from rich.markup import escape

from mnist_zoo import data, registry
from mnist_zoo.commands.shared.screen import silence
from mnist_zoo.commands.training import checks, messages
from mnist_zoo.commands.training import parser as lightning_parser
from mnist_zoo.commands.training.parser import ZooParser
from mnist_zoo.commands.training.parser_messages import without_value
from mnist_zoo.engine import memory_layout, probe, processor, run_folders
from mnist_zoo.engine.atomic_io import AtomicCheckpointIO
from mnist_zoo.engine.best_and_last import Best, Last
from mnist_zoo.engine.blocks import Blocks
from mnist_zoo.engine.callbacks import (
    Average,
    EpochLines,
    FinalMetrics,
    ProgressBar,
    SomethingToTrain,
    has_asked_to_stop,
)
from mnist_zoo.engine.readings import Gather
from mnist_zoo.engine.run_settings import SaveConfig, callback_names
from mnist_zoo.engine.test_curve import TestCurve
from mnist_zoo.errors import FinishedError, ZooError, first_lines
from mnist_zoo.files import expanded, require_writable
from mnist_zoo.models import Classifier, checkpoint
from mnist_zoo.models.classifier import num_parameters
from mnist_zoo.report import predictions, summary

if TYPE_CHECKING:
    from mnist_zoo.commands.training.command import Request

# Of several processes, only the first prints.
console = Console(highlight=False, soft_wrap=True, quiet=not run_folders.is_first_process())

_COPY_IT = "Copy the run to a folder that can be written to, and name the checkpoint there."

# Length of a run if neither a recipe nor the user sets it.
_NUM_EPOCHS = 10


def _num_devices() -> int | str:
    """Return the default number of devices: one.

    Each device takes the recipe's number of images per step, so several would change the recipe.
    Processes started by torchrun or SLURM count as a request for several.
    """
    if TorchElasticEnvironment.detect():
        return int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return "auto" if SLURMEnvironment.detect() else 1


@contextlib.contextmanager
def _ctrl_c_told() -> Iterator[None]:
    """Raise ``KeyboardInterrupt`` where Lightning exits with status 1."""
    try:
        yield
    except SystemExit as ended:
        if isinstance(ended.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise


class ZooCLI(LightningCLI):
    """The four commands of Lightning's trainer, with the zoo's defaults and final output.

    Creating an instance runs the command.

    Args:
        request: The arguments, with names resolved.
        configs: Configuration files that the user's values override.
        callbacks: Callbacks of ``fit`` in addition to the zoo's and the user's.

    Raises:
        ZooError: Something went wrong that the user can fix.
    """

    diverged = False
    """Whether ``fit`` ended with a loss that is not a number."""
    run_folder: Path | None = None
    claim: run_folders.Claim | None = None

    def __init__(
        self, request: Request, configs: list[str], callbacks: Sequence[Callback] = ()
    ) -> None:
        self.request = request
        self.callbacks = callbacks
        self.gather = Gather()
        silence()
        for problem in registry.import_all():
            console.print(f"warning: {problem}", style="yellow", markup=False)
        if request.model:
            registry.import_derived(request.model, Classifier, "--model")
        if request.data and "." in request.data:
            registry.import_derived(request.data, data.ImageData, "--data")
        parser_kwargs: dict[str, Any] = {
            name: {"default_config_files": configs, "usage": usage, "description": description}
            for name, (usage, description) in lightning_parser.HELP.items()
        }
        try:
            with contextlib.ExitStack() as self.until_the_end:
                if request.subcommand == "fit":
                    self.until_the_end.enter_context(processor.flush_denormals())
                processor.keep_freed_memory()
                super().__init__(
                    Classifier,
                    data.ImageData,
                    save_config_callback=SaveConfig if request.subcommand == "fit" else None,
                    save_config_kwargs={"save_to_log_dir": False},
                    trainer_defaults={"enable_model_summary": False, "devices": _num_devices()},
                    seed_everything_default=0,
                    parser_kwargs={"allow_abbrev": False, "prog": "mnist-zoo", **parser_kwargs},
                    parser_class=ZooParser,
                    subclass_mode_model=True,
                    subclass_mode_data=True,
                    args=request.argv,
                    auto_configure_optimizers=False,
                    load_from_checkpoint_support=False,
                )
        except BaseException as error:
            if self.claim:
                self.claim.discard()
            if not isinstance(error, Exception):
                raise
            text = (
                messages.of_weights(error, request.argv)
                or messages.of_exception(error)
                or (request.subcommand == "fit" and messages.of_resuming(error, request.ckpt_path))
            )
            if not text or isinstance(error, ZooError):
                raise
            raise ZooError(text) from error

    @property
    def settings(self) -> Any:
        """The settings of the command."""
        return self.config[self.request.subcommand]

    def parse_arguments(self, parser: ZooParser, args: Any) -> None:  # type: ignore[override]
        """Parse the arguments given, whatever ``sys.argv`` holds."""
        parser.subcommand = self.request.subcommand
        if self.request.helping:
            name = self.request.subcommand
            lightning_parser.simplify_help(self._parser(name), name)
        try:
            self.config = parser.parse_args(args)
        except ZooError as error:
            if "expected one argument" in str(error) and (text := without_value(args)):
                raise ZooError(text) from error
            raise
        checks.settings(self.request.subcommand, self.settings)
        before = self.request.checkpoint
        if before is None or before.is_weights:
            # Lightning cannot load weights without the rest of a checkpoint.
            self.settings.ckpt_path = None
        trainer = self.settings.trainer
        if trainer.max_epochs is None and trainer.max_steps == -1 and trainer.max_time is None:
            # Lightning's own default is 1,000.
            trainer.max_epochs = _NUM_EPOCHS

    def _parse_ckpt_path(self) -> None:
        """Do nothing: the checkpoint was read before the arguments, so flags override it."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the zoo's flags, and make MNIST the default data."""
        lightning_parser.read_integers_as_such(parser)
        parser.set_defaults({"data": {"class_path": "mnist_zoo.data.MNIST"}})
        if self.request.subcommand == "fit":
            lightning_parser.add_fit_arguments(parser)
        if self.request.subcommand != "predict":
            parser.add_argument(
                "--pictures", type=bool, default=True, help="Draw pictures beside the run."
            )

    def before_instantiate_classes(self) -> None:
        """Choose the run's folder, and what it shows and records."""
        trainer = self.settings.trainer
        callbacks: list[Any] = []
        if trainer.enable_progress_bar is None:
            # In a file or a pipe, it would leave only debris.
            trainer.enable_progress_bar = console.is_terminal or console.is_jupyter
        if trainer.enable_progress_bar:
            callbacks.append(ProgressBar())
        elif self.request.subcommand == "fit":
            callbacks.append(EpochLines(console.print))
        if self.request.subcommand == "fit":
            # Averaging copies the network; Blocks then ties it to the trainer and its data.
            blocks = Blocks(self.settings.steps_per_execution, self.settings.cuda_graph)
            callbacks += [SomethingToTrain(), *self._averaging(), blocks]
            if self.settings.test_curve:
                callbacks.append(TestCurve())
            if not trainer.fast_dev_run:
                self._claim_run_folder(trainer)
                if trainer.logger not in (False, []):
                    callbacks += [LearningRateMonitor("epoch"), FinalMetrics()]
        else:
            trainer.logger = trainer.logger or False
            callbacks += [self.gather] if self._draws() else []
        self.trainer_defaults["callbacks"] = [*callbacks, *self.callbacks]

    def instantiate_classes(self) -> None:
        """Build network, data and trainer; an error in one of our networks is a wrong flag.

        For the user's own class, the traceback says more.
        """
        for key in ("model", "data"):
            chosen = self.settings[key]
            checks.arguments(key, chosen.class_path, chosen.get("init_args") or {})
        try:
            super().instantiate_classes()
            before = self.request.checkpoint
            if before and before.is_weights:
                checkpoint.fill(self.model, before)
            return
        except ValueError as error:
            cause, network = error.__cause__, messages.built_when_raised(error.__cause__)
            ours = isinstance(network, Classifier) and type(network).__module__.startswith(
                "mnist_zoo."
            )
            if ours and isinstance(cause, ValueError | RuntimeError):
                name, reason = type(network).__name__, first_lines(cause)
                raise ZooError(
                    f"{name} cannot be built with these --model flags: {reason}."
                ) from error
            first = messages.first_cause(error)
        except AttributeError as error:
            first = error
        if "before Module.__init__() call" in str(first):
            name = self.settings.model.class_path.rpartition(".")[2]
            raise ZooError(
                f"{name}: its __init__ must begin with super().__init__(**kwargs)."
            ) from first
        # Without the parser's wrapping, which takes pages.
        raise first

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the trainer; what it rejects is a wrong flag."""
        plugins = self._get(self.config_init, "trainer").plugins or []
        plugins = plugins if isinstance(plugins, list) else [plugins]
        kwargs["plugins"] = [AtomicCheckpointIO(), *plugins]
        if (run := self.run_folder) is not None:
            # Not in the configuration: a saved one that is used again must start a new run.
            kwargs["default_root_dir"] = str(run)
            for callback in ("best", "last"):
                self._get(self.config_init, callback).dirpath = str(run / "checkpoints")
            if self._get(self.config_init, "trainer").logger in (None, True):
                kwargs["logger"] = TensorBoardLogger(
                    run.parents[1], run.parent.name, run.name, default_hp_metric=False
                )
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except (MisconfigurationException, ValueError, TypeError, ImportError) as error:
            raise ZooError(messages.of_trainer(error)) from error
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
        if slow := checks.slow_precision(self.trainer):
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
        name = type(self.model).__name__
        losses = [self.trainer.callback_metrics.get(f"{s}/loss") for s in ("train", "val")]
        self.diverged = not all(loss is None or torch.isfinite(loss) for loss in losses)
        if self.diverged:
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
        train_acc = self.trainer.callback_metrics.get("train/acc")  # None for a custom step
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
        if self._draws() and self.trainer.is_global_zero:
            from mnist_zoo.commands.shared import run_pictures

            if drawn := run_pictures.after_fit(self.run_folder, name, self.trainer.global_step):
                console.print(drawn)

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
        self._print_metrics("val", self.datamodule.num_val_images, self.trainer.num_val_batches)

    def test(self, **kwargs: Any) -> None:
        """Evaluate on the test images; print loss, accuracy and accuracy per class."""
        with _ctrl_c_told():
            self.trainer.test(**{**kwargs, "verbose": False})
        self._print_metrics("test", self.datamodule.num_test_images, self.trainer.num_test_batches)

    def predict(self, **kwargs: Any) -> None:
        """Write the predictions for the test images to a CSV file, and print its path."""
        if self.trainer.world_size > 1:
            raise ZooError("predict writes one file: use one device, --trainer.devices 1")
        folder = run_folders.of_checkpoint(Path(str(self.request.ckpt_path)))
        elsewhere = _COPY_IT if folder else "Run the command in a folder that can be written to."
        folder = folder or Path.cwd()
        require_writable(folder, elsewhere)
        with _ctrl_c_told():
            batches: Any = self.trainer.predict(**{**kwargs, "return_predictions": True})
        if not batches:
            raise ZooError("there was nothing to predict: --trainer.limit_predict_batches is 0.")
        probabilities = torch.cat(batches)
        self.model.require_finite(probabilities)
        file = predictions.write_predictions(folder / "predictions.csv", probabilities)
        console.print(f"{len(probabilities):,} predictions written to {escape(str(file))}")

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

    def _averaging(self) -> list[Average]:
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

    def _draws(self) -> bool:
        return bool(self.settings.get("pictures")) and not self.settings.trainer.fast_dev_run

    def _own_classes(self) -> str:
        """Return the flags that a command needs with the checkpoint: custom classes by name."""
        paths = (registry.path_of(type(made)) for made in (self.model, self.datamodule))
        return "".join(f" {flag} {path}" for flag, path in registry.to_be_named(*paths).items())

    def _test_file(self) -> str:
        """Return the flag that ``test`` needs if the data has no test images yet."""
        lacks = getattr(self.datamodule, "test_file", "") is None
        return " --data.test_file FILE" if lacks else ""

    def _claim_run_folder(self, trainer: Namespace) -> None:
        if self.request.ckpt_path:
            self.run_folder = run_folders.of_checkpoint(Path(self.request.ckpt_path))
            if self.run_folder:
                require_writable(self.run_folder, _COPY_IT)
                require_writable(self.run_folder / "checkpoints", _COPY_IT)
        if self.run_folder is None:
            network = str(self.settings.model.class_path).rpartition(".")[2]
            self.claim = run_folders.claim(expanded(trainer.default_root_dir or "runs") / network)
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

    def _other_data(self) -> str:
        """Return the name of the data if it is not that of the checkpoint's run, else nothing."""
        data, of_run = self.datamodule, self.request.checkpoint and self.request.checkpoint.data
        if not of_run:
            return ""
        name = "test_file" if self.request.subcommand == "test" else "train_file"
        file, of_its = getattr(data, name, None), of_run["init_args"].get(name)
        if registry.path_of(type(data)) == of_run["class_path"] and of_its in (None, file):
            return ""
        return type(data).__name__ + (f"-{Path(file).stem}" if file else "")

    def _print_metrics(self, stage: str, num_images: int, num_batches: Sequence[float]) -> None:
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

            of_run = (self.request.checkpoint and self.request.checkpoint.data) or {"init_args": {}}
            num_of_run = of_run["init_args"].get("num_test")
            other = self._other_data()
            is_whole = (
                not other
                and num_images == self.datamodule.num_test_images
                and getattr(self.datamodule, "num_test", None) == num_of_run
            )
            # Metrics of a part would be mixed with those of the whole.
            console.print(
                run_pictures.after_evaluation(
                    readings, metrics if is_whole else {}, classes, title, self.request, other
                )
            )
