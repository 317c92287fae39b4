"""LightningCLI with the zoo's defaults and plain messages: what its commands have in common."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lightning import Trainer
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from rich.console import Console

from mnist_zoo import data, registry
from mnist_zoo.commands.shared.screen import silence
from mnist_zoo.commands.training import checks, messages
from mnist_zoo.commands.training import parser as lightning_parser
from mnist_zoo.commands.training.parser import ZooParser
from mnist_zoo.commands.training.parser_messages import without_value
from mnist_zoo.engine import processor, run_folders
from mnist_zoo.engine.atomic_io import AtomicCheckpointIO
from mnist_zoo.engine.callbacks import ProgressBar
from mnist_zoo.errors import ZooError, first_lines
from mnist_zoo.models import Classifier, checkpoint

if TYPE_CHECKING:
    from mnist_zoo.commands.training.command import Request

# Of several processes, only the first prints.
console = Console(highlight=False, soft_wrap=True, quiet=not run_folders.is_first_process())

COPY_THE_RUN = "Copy the run to a folder that can be written to, and name the checkpoint there."


class ZooCLI(LightningCLI):
    """A command of Lightning's trainer, with the zoo's defaults.

    Creating an instance of a derived class runs the command.

    Args:
        request: The arguments, with names resolved.
        configs: Configuration files that the user's values override.
        callbacks: Callbacks in addition to the zoo's and the user's.
        options: Further arguments of ``LightningCLI``.

    Raises:
        ZooError: Something went wrong that the user can fix.
    """

    exit_status = 0

    def __init__(
        self,
        request: Request,
        configs: list[str],
        callbacks: Sequence[Callback] = (),
        **options: Any,
    ) -> None:
        self.request = request
        self.callbacks = callbacks
        silence()
        for problem in registry.import_all():
            console.print(f"warning: {problem}", style="yellow", markup=False)
        if request.model:
            registry.import_derived(request.model, Classifier, "--model")
        if request.data and "." in request.data:
            registry.import_derived(request.data, data.ImageData, "--data")
        usage, description = lightning_parser.HELP[request.subcommand]
        own = {"default_config_files": configs, "usage": usage, "description": description}
        processor.keep_freed_memory()
        try:
            super().__init__(
                Classifier,
                data.ImageData,
                trainer_defaults={"enable_model_summary": False, "devices": _num_devices()},
                seed_everything_default=0,
                parser_kwargs={"allow_abbrev": False, "prog": "mnist-zoo", request.subcommand: own},
                parser_class=ZooParser,
                subclass_mode_model=True,
                subclass_mode_data=True,
                args=request.argv,
                auto_configure_optimizers=False,
                load_from_checkpoint_support=False,
                **{"save_config_callback": None, **options},
            )
        except Exception as error:
            text = self.explanation(error)
            if not text or isinstance(error, ZooError):
                raise
            raise ZooError(text) from error

    @property
    def settings(self) -> Any:
        """The settings of the command."""
        return self.config[self.request.subcommand]

    @property
    def draws(self) -> bool:
        """Whether to draw pictures beside the run."""
        return bool(self.settings.get("pictures")) and not self.settings.trainer.fast_dev_run

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Return only the command to run: each has hundreds of flags."""
        name = self.request.subcommand
        return {name: LightningCLI.subcommands()[name]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the zoo's flags, and make MNIST the default data."""
        lightning_parser.read_integers_as_such(parser)
        parser.set_defaults({"data": {"class_path": registry.DEFAULT_DATA}})
        if self.request.subcommand != "predict":
            parser.add_argument(
                "--pictures", type=bool, default=True, help="Draw pictures beside the run."
            )

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

    def _parse_ckpt_path(self) -> None:
        """Do nothing: the checkpoint was read before the arguments, so flags override it."""

    def before_instantiate_classes(self) -> None:
        """Choose what the command shows."""
        trainer = self.settings.trainer
        if trainer.enable_progress_bar is None:
            # In a file or a pipe, it would leave only debris.
            trainer.enable_progress_bar = console.is_terminal or console.is_jupyter
        self.trainer_defaults["callbacks"] = [*self.zoo_callbacks(), *self.callbacks]

    def zoo_callbacks(self) -> list[Callback]:
        """Return the zoo's own callbacks."""
        return [ProgressBar()] if self.settings.trainer.enable_progress_bar else []

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
        try:
            return super().instantiate_trainer(**kwargs, plugins=[AtomicCheckpointIO(), *plugins])
        except (MisconfigurationException, ValueError, TypeError, ImportError) as error:
            raise ZooError(messages.of_trainer(error)) from error

    def explanation(self, error: Exception) -> str | None:
        """Return a plain message for an exception, or None if it is a bug."""
        return messages.of_weights(error, self.request.argv) or messages.of_exception(error)


def _num_devices() -> int | str:
    """Return the default number of devices: one.

    Each device takes the recipe's number of images per step, so several would change the recipe.
    Processes started by torchrun or SLURM count as a request for several.
    """
    if TorchElasticEnvironment.detect():
        return int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return "auto" if SLURMEnvironment.detect() else 1
