"""``fit``, ``validate``, ``test`` and ``predict``: LightningCLI over the zoo.

Some arguments are inspected before LightningCLI sees them: ``--model`` (its recipe becomes the
default configuration), ``--data`` (which may be the user's own), ``--config`` (recipes have names)
and ``--ckpt_path`` (the checkpoint's settings override the recipe; the user's configuration and
flags override both).
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_zoo import registry
from mnist_zoo.commands.shared.arguments import Parser
from mnist_zoo.commands.shared.checkpoint_data import data_here
from mnist_zoo.commands.training import config_file
from mnist_zoo.errors import UnknownNameError, ZooError
from mnist_zoo.files import absolute, expanded
from mnist_zoo.models import checkpoint_files
from mnist_zoo.recipes import all_recipes, find_recipe, recipe_of

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback

    from mnist_zoo.commands.training.cli import ZooCLI
    from mnist_zoo.models.checkpoint import Checkpoint


# Flags whose values may name the user's own classes.
_NAME_CODE = (
    "--model.help",
    "--data.help",
    "--trainer.callbacks",
    "--trainer.logger",
    "--trainer.plugins",
    "--trainer.profiler",
    "--trainer.strategy",
)
# What others call --ckpt_path.
_FOR_CKPT_PATH = ("--checkpoint", "--ckpt", "--load", "--resume", "--weights")


@dataclass(frozen=True)
class Request:
    """What is known of the arguments before they are parsed.

    Attributes:
        subcommand: fit, validate, test or predict.
        argv: All arguments, with names of networks and recipes replaced by their paths.
        model: Import path of the network: the checkpoint's, or that named by ``--model``.
        data: Class named by ``--data``.
        ckpt_path: The checkpoint, if one is given.
        checkpoint: Its contents.
        configured: Whether a configuration file is given.
        helping: Whether only help is requested.
    """

    subcommand: str
    argv: list[str]
    model: str | None = None
    data: str | None = None
    ckpt_path: str | None = None
    checkpoint: Checkpoint | None = None
    configured: bool = False
    helping: bool = False

    @property
    def callbacks(self) -> list[str]:
        """Names of the user's callbacks that the checkpoint was trained with."""
        names = self.checkpoint.settings.get("callbacks") if self.checkpoint else None
        return [str(name) for name in names] if isinstance(names, list) else []


def main(argv: list[str]) -> int:
    """Run one of the four commands; ``argv`` begins with its name.

    Returns:
        The exit status: 1 if the training has diverged, else 0.
    """
    return run(argv).exit_status


def run(
    argv: list[str], cls: type[ZooCLI] | None = None, callbacks: Sequence[Callback] = ()
) -> ZooCLI:
    """Run one of the four commands in this process, and return what ran it.

    Args:
        argv: Its name and arguments.
        cls: What runs it, if not ``Fit`` or ``Evaluation``.
        callbacks: Callbacks in addition to the zoo's and the user's.

    Raises:
        ZooError: Something went wrong that the user can fix.
    """
    request = scan(argv)
    if request.ckpt_path:
        request = _with_checkpoint(request)
    elif not request.helping:
        _require_a_network(request)
    if cls is None:
        from mnist_zoo.commands.training.evaluation import Evaluation
        from mnist_zoo.commands.training.fit import Fit

        cls = Fit if request.subcommand == "fit" else Evaluation
    with default_configs(request) as configs:
        return cls(request, configs, callbacks)


def scan(argv: list[str]) -> Request:
    """Find ``--model``, ``--data``, ``--config`` and ``--ckpt_path``; resolve names they hold.

    Raises:
        UnknownNameError: There is no such network or recipe.
        ZooError: A flag has no value, or a configuration does not hold settings.
    """
    subcommand = argv[0]
    parser = Parser(prog=f"mnist-zoo {subcommand}", add_help=False)
    for flag in ("--model", "--model.help", "--data", "--ckpt_path"):
        parser.add_argument(flag, dest=flag, nargs="?", const="")
    parser.add_argument("--config", "-c", dest="--config", action="append", nargs="?", const="")
    named, rest = parser.parse_known_args(argv[1:])
    given = {flag: value for flag, value in vars(named).items() if value is not None}
    for flag, value in given.items():
        values = value if isinstance(value, list) else [value]
        if "" in values and flag != "--model.help":
            raise ZooError(f"{flag}: a value is missing.")

    configs = given.pop("--config", [])
    model, data, ckpt_path = (given.get(flag) for flag in ("--model", "--data", "--ckpt_path"))
    if model:
        _require_no_recipe(model)
        given["--model"] = model = registry.class_path(model)
    if described := given.get("--model.help"):
        given["--model.help"] = path = registry.class_path(described)
        if recipe := recipe_of(path):
            print(
                f"fit takes these defaults only where the recipe {recipe.name} sets nothing;"
                " --print_config shows the result.\n"
            )
    if ckpt_path:
        ckpt_path = str(expanded(ckpt_path))
        # Lightning has keywords, such as last, that may also be the name of a file.
        given["--ckpt_path"] = str(absolute(ckpt_path))
    files = [config_file.checked(find_recipe(str(expanded(config)))) for config in configs]
    _warn_of_other_networks(configs, model)

    own_model = model and not registry.is_known(model)
    own_data = data and "." in data and not registry.is_our_data(data)
    if configs or own_model or own_data or any(word.startswith(_NAME_CODE) for word in argv):
        # The current folder is searched only if the user names their own code.
        registry.look_into_current_folder()
    # Flags override configurations, in any order.
    words = [word for file in files for word in ("--config", str(file))]
    words += [word for flag, value in given.items() for word in (flag, value) if word]
    return Request(
        subcommand,
        [subcommand, *words, *rest],
        model,
        data,
        ckpt_path,
        configured=bool(configs),
        helping=any(word in ("-h", "--help") or word.endswith(".help") for word in (*given, *rest)),
    )


def _require_no_recipe(model: str) -> None:
    if model in all_recipes() and model not in registry.list_models():
        network = all_recipes()[model].network
        raise UnknownNameError(
            f"--model {model}: that is a recipe of {network}, as in --config {model}"
        )


def _warn_of_other_networks(configs: Sequence[str], model: str | None) -> None:
    """Warn of recipes whose network is not the chosen one."""
    chosen = (model or "").rpartition(".")[2]
    for name in configs:
        if chosen and name in all_recipes() and all_recipes()[name].network != chosen:
            print(
                f"warning: {name} is a recipe of {all_recipes()[name].network}; its settings may"
                f" not suit {chosen}",
                file=sys.stderr,
            )


def _with_checkpoint(request: Request) -> Request:
    """Read the checkpoint of a request.

    Raises:
        CheckpointError: It cannot be read, or its class may not be imported.
        ZooError: ``fit`` cannot resume from it.
    """
    file = checkpoint_files.find(request.ckpt_path)
    from mnist_zoo.models import checkpoint as checkpoints

    checkpoint = checkpoints.read(file)
    if request.subcommand == "fit":
        _require_resumable(str(request.ckpt_path), checkpoint)
    path = checkpoints.trusted_class(checkpoint, named=request.model)
    checkpoints.normalization(checkpoint)  # before Lightning reads it
    _refuse_unknown_arguments(checkpoint)
    return dataclasses.replace(request, model=path, checkpoint=checkpoint)


@contextmanager
def default_configs(request: Request) -> Iterator[list[str]]:
    """Yield the configuration files that come before the user's: recipe, then checkpoint.

    Raises:
        ZooError: The checkpoint's data is not known, or not the one named.
    """
    recipe = recipe_of(request.model) if request.model else None
    recipes = []
    if recipe and request.subcommand == "fit":
        recipes = [str(config_file.checked(recipe.path))]
    checkpoint = request.checkpoint
    if checkpoint is None:
        yield recipes
        return

    import yaml

    from mnist_zoo.engine.run_settings import resumed_settings

    config: dict[str, Any] = {"model": checkpoint.model}
    if checkpoint.data is not None:
        config["data"] = data_here(checkpoint, named=request.data)
    elif request.subcommand == "fit" and not request.data:
        raise ZooError(
            f"{request.ckpt_path} does not say what it was trained on. Name its data: --data MNIST"
        )
    if request.subcommand == "fit":
        config |= resumed_settings(checkpoint.settings)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{Path(str(request.ckpt_path)).stem}.yaml"
        file.write_text(yaml.safe_dump(config), encoding="utf-8")
        yield [*recipes, str(file)]


def _require_resumable(name: str, checkpoint: Checkpoint) -> None:
    if checkpoint.is_weights:
        raise ZooError(
            f"{name} holds only weights, which test, predict, explain, demo and export accept.\n"
            "fit resumes from a checkpoint, such as the last.ckpt that it writes."
        )
    if not checkpoint.resumable:
        raise ZooError(
            f"{name} holds no optimizer state, so training cannot be resumed from it.\n"
            "test, validate, predict and export accept it."
        )


def _refuse_unknown_arguments(checkpoint: Checkpoint) -> None:
    from mnist_zoo.data import ImageData
    from mnist_zoo.models import Classifier

    entries: list[tuple[dict[str, Any], type, str]] = [(checkpoint.model, Classifier, "--model")]
    if checkpoint.data and registry.is_our_data(checkpoint.data["class_path"]):
        entries.append((checkpoint.data, ImageData, "--data"))
    for entry, base, flag in entries:
        cls = registry.import_derived(entry["class_path"], base, flag)
        if unknown := sorted(entry["init_args"].keys() - registry.accepted(cls)):
            raise checkpoint_files.CheckpointError(
                f"checkpoint {checkpoint.path} does not fit {cls.__name__} of this version, which"
                f" has no argument {unknown[0]}."
            )


def _require_a_network(request: Request) -> None:
    for word in request.argv:
        if (flag := word.partition("=")[0]) in _FOR_CKPT_PATH:
            raise ZooError(f"unknown option {flag}. Did you mean --ckpt_path?")
    if request.subcommand != "fit":
        # What follows a flag may be its value.
        pairs = zip(request.argv, request.argv[1:], strict=False)
        words = [word for before, word in pairs if not before.startswith("-")]
        checkpoints = (".ckpt", ".safetensors")
        weights = registry.shipped_weights()
        if named := next((w for w in words if w.endswith(checkpoints) or w in weights), None):
            raise ZooError(f"unknown argument {named}. Did you mean --ckpt_path {named}?")
        raise ZooError(
            "which checkpoint? Name one with --ckpt_path, such as"
            " runs/ConvNetReLU/version_0/checkpoints/best.ckpt (mnist-zoo fit writes it)."
        )
    if not (request.model or request.configured):
        networks = registry.list_models()
        known = {*networks, *all_recipes()}
        if named := next((word for word in request.argv[1:] if word in known), None):
            flag = "--model" if named in networks else "--config"
            raise ZooError(f"unknown argument {named}. Did you mean {flag} {named}?")
        raise ZooError("which network? Name one with --model.\nAll networks: mnist-zoo models")
