"""``fit``, ``validate``, ``test`` and ``predict``: LightningCLI over the zoo.

Some arguments are inspected before LightningCLI sees them: ``--model`` (its recipe becomes the
default configuration), ``--data`` (which may be the user's own), ``--config`` (recipes have names)
and ``--ckpt_path`` (the checkpoint's settings override the recipe; the user's configuration and
flags override both).
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_zoo import registry, stored
from mnist_zoo.commands.shared.checkpoint_data import data_here
from mnist_zoo.errors import ZooError
from mnist_zoo.files import absolute, expanded

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


@dataclass
class Request:
    """What is known of the arguments before they are parsed.

    Attributes:
        argv: The arguments, with names of networks and recipes replaced by their paths.
        subcommand: fit, validate, test or predict.
        model: Import path of the network named by ``--model``.
        data: Class named by ``--data``.
        ckpt_path: The checkpoint, if one is given.
        configured: Whether a configuration file is given.
        helping: Whether only help is requested.
        checkpoint: The contents of the checkpoint, once it has been read.
    """

    argv: list[str]
    subcommand: str
    model: str | None = None
    data: str | None = None
    ckpt_path: str | None = None
    configured: bool = False
    helping: bool = False
    checkpoint: Checkpoint | None = None

    @property
    def progress(self) -> dict[str, int]:
        """Completed epochs and steps of the checkpoint; empty for weights."""
        return self.checkpoint.progress if self.checkpoint else {}

    @property
    def callbacks(self) -> list[str]:
        """Names of the user's callbacks that the checkpoint was trained with."""
        names = self.checkpoint.run.get("callbacks") if self.checkpoint else None
        return [str(name) for name in names] if isinstance(names, list) else []


def main(argv: list[str]) -> int:
    """Run one of the four commands; ``argv`` begins with its name.

    Returns:
        The exit status: 1 if the training has diverged, else 0.
    """
    return int(run(argv).diverged)


def run(
    argv: list[str], cls: type[ZooCLI] | None = None, callbacks: Sequence[Callback] = ()
) -> ZooCLI:
    """Run one of the four commands in this process, and return what ran it.

    Args:
        argv: Its name and arguments.
        cls: What runs it, if not ``ZooCLI``.
        callbacks: Callbacks of ``fit`` in addition to the zoo's and the user's.

    Raises:
        ZooError: Something went wrong that the user can fix.
    """
    request = scan(argv)
    if not request.helping:
        _require_a_network(request)
    from mnist_zoo.commands.training.cli import ZooCLI

    with default_configs(request) as configs:
        return (cls or ZooCLI)(request, configs, callbacks)


def scan(argv: list[str]) -> Request:
    """Find ``--model``, ``--data``, ``--config`` and ``--ckpt_path``; resolve names they hold.

    Raises:
        UnknownNameError: There is no such network or recipe.
        ZooError: A flag has no value, or a configuration does not hold settings.
    """
    request = Request([argv[0]], argv[0])
    arguments, configs, recipes = iter(argv[1:]), list[str](), list[str]()
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        if flag in ("-h", "--help") or flag.endswith(".help"):
            request.helping = True
        if flag not in ("--model", "--model.help", "--data", "--config", "-c", "--ckpt_path"):
            request.argv.append(argument)
            continue
        if not equals:
            value = next(arguments, "")
            if value.startswith("--"):
                raise ZooError(f"{flag}: a value is missing.")
        if not value:
            request.argv.append(flag)
        elif flag in ("--config", "-c"):
            request.configured = True
            file = registry.find_recipe(str(expanded(value)))
            configs += ["--config", str(checked(file))]
            recipes += [value] if value in registry.recipes() else []
        elif flag == "--ckpt_path":
            request.ckpt_path = str(expanded(value))
            # Lightning has keywords, such as last, that may also be the name of a file.
            request.argv += [flag, str(absolute(value))]
        elif flag == "--data":
            request.data = value
            request.argv += [flag, value]
        else:
            path = registry.class_path(value)
            request.argv += [flag, path]
            if flag == "--model":
                request.model = path
            elif recipe := registry.recipe_of(path):
                print(
                    f"fit takes these defaults only where the recipe {recipe.name} sets nothing;"
                    " --print_config shows the result.\n"
                )
    chosen = (request.model or "").rpartition(".")[2]
    for name in recipes:
        network = registry.recipes()[name].network
        if chosen not in ("", network):
            print(
                f"warning: {name} is a recipe of {network}; its settings may not suit {chosen}",
                file=sys.stderr,
            )
    own_model = request.model and not registry.is_known(request.model)
    dataset = request.data or ""
    own_data = "." in dataset and not registry.is_our_data(dataset)
    names_code = any(word.startswith(_NAME_CODE) for word in request.argv)
    if request.configured or own_model or own_data or names_code:
        # The current folder is searched only if the user names their own code.
        registry.look_into_current_folder()
    # Flags override configurations, in any order.
    request.argv[1:1] = configs
    return request


@contextmanager
def default_configs(request: Request) -> Iterator[list[str]]:
    """Yield the configuration files that come before the user's: recipe, then checkpoint.

    Raises:
        CheckpointError: The checkpoint cannot be read.
        ZooError: ``--model`` names another network than the checkpoint's.
    """
    if request.ckpt_path is None:
        yield _recipe_files(request.model) if request.subcommand == "fit" else []
        return

    import yaml

    from mnist_zoo.models import checkpoint as checkpoints

    checkpoint = checkpoints.read(checkpoints.find(request.ckpt_path))
    if request.subcommand == "fit":
        _require_resumable(request.ckpt_path, checkpoint)
    path = checkpoints.trusted_class(checkpoint, named=request.model)
    request.model = path
    _refuse_unknown_arguments(checkpoint)
    request.checkpoint = checkpoint
    config: dict[str, Any] = {"model": checkpoint.model}
    if checkpoint.data is not None:
        config["data"] = data_here(checkpoint, named=request.data)
    elif request.subcommand == "fit" and not request.data:
        raise ZooError(
            f"{request.ckpt_path} does not say what it was trained on. Name its data: --data MNIST"
        )
    recipes = []
    if request.subcommand == "fit":
        recipes = _recipe_files(path)
        config |= _resumed_settings(checkpoint.run)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{Path(request.ckpt_path).stem}.yaml"
        file.write_text(yaml.safe_dump(config), encoding="utf-8")
        yield [*recipes, str(file)]


def checked(config: Path) -> Path:
    """Return the file if it holds settings in a form for which the parser's errors are plain.

    Raises:
        ZooError: It does not.
    """
    import yaml

    try:
        settings = yaml.load(config.read_text(encoding="utf-8"), _once_each())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        line = f", line {where.line + 1}" if where else ""
        problem = getattr(error, "problem", None) or "not text"
        raise ZooError(f"--config {config}{line}: not valid YAML ({problem}).") from error
    if not isinstance(settings, dict):
        raise ZooError(f"--config {config}: holds no settings, which look like `trainer: ...`.")
    if odd := [key for key in _keys(settings) if not isinstance(key, str)]:
        raise ZooError(f"--config {config}: {odd[0]} is not the name of a setting.")
    for key in ("trainer", "best", "last"):
        if not isinstance(settings.get(key, {}), dict):
            raise ZooError(f"--config {config}: {key} must hold settings, one per line below it.")
    if settings.get("ckpt_path"):
        raise ZooError(f"--config {config}: ckpt_path is not read there; use --ckpt_path.")
    for key in ("model", "data"):
        entry = settings.get(key, {})
        if not isinstance(entry, str | dict):
            raise ZooError(
                f"--config {config}: {key} must be a name, or class_path and init_args below it."
            )
        if isinstance(entry, dict) and "class_path" in entry:
            misplaced = sorted({*entry} - {"class_path", "init_args", "dict_kwargs"})
            if misplaced:
                raise ZooError(
                    f"--config {config}: {key}.{misplaced[0]} belongs under {key}.init_args."
                )
    return config


def _once_each() -> type:
    """Return a YAML loader that rejects duplicate keys, of which YAML would keep the last."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            names = [key.value for key, _ in node.value]
            for number, (key, _) in enumerate(node.value):
                if key.value in names[:number]:
                    raise yaml.MarkedYAMLError(
                        problem=f"{key.value} is given twice", problem_mark=key.start_mark
                    )
            return super().construct_mapping(node, deep)

    return Loader


def _keys(settings: Any) -> Iterator[Any]:
    """Yield the keys of settings, including nested ones."""
    to_come, seen = [settings], set[int]()
    while to_come:
        value = to_come.pop()
        # A YAML alias is the same object wherever it is used.
        if isinstance(value, dict) and id(value) not in seen:
            seen.add(id(value))
            yield from value
            to_come += value.values()


def _resumed_settings(run: dict[str, Any]) -> dict[str, Any]:
    """Return what a resumed run takes over: the plain settings that decide what it computes.

    Anything else in the file, such as a callback to import, is left out.
    """
    from mnist_zoo.engine.callbacks import RESUMED_SETTINGS, RESUMED_VALUES

    settings: dict[str, Any] = {}
    for group, keys in RESUMED_SETTINGS.items():
        held = run[group] if isinstance(run.get(group), dict) else {}
        settings[group] = {
            key: held[key]
            for key in keys
            if key in held and _is_setting(held[key]) and stored.is_harmless(held[key])
        }
    return settings | {
        name: run[name] for name in RESUMED_VALUES if isinstance(run.get(name), bool | int)
    }


def _is_setting(value: Any) -> bool:
    if isinstance(value, dict):  # a time, such as {"minutes": 5}
        return all(isinstance(part, int) for part in value.values())
    return isinstance(value, bool | int | float | str | None)


def _require_resumable(name: str, checkpoint: Checkpoint) -> None:
    if not checkpoint.progress:
        raise ZooError(
            f"{name} holds only weights, which test, validate, predict and export accept.\n"
            "fit resumes from a checkpoint, such as the last.ckpt that it writes."
        )
    if not checkpoint.resumable:
        raise ZooError(
            f"{name} holds no optimizer state, so training cannot be resumed from it.\n"
            "test, validate, predict and export accept it."
        )


def _refuse_unknown_arguments(checkpoint: Checkpoint) -> None:
    from mnist_zoo.models.checkpoint import CheckpointError

    known = registry.accepted(registry.import_class(checkpoint.model["class_path"]))
    for name in checkpoint.model["init_args"]:
        if name not in known:
            raise CheckpointError(
                f"checkpoint {checkpoint.path} does not fit {checkpoint.network} of this version,"
                f" which has no argument {name}."
            )


def _require_a_network(request: Request) -> None:
    if request.ckpt_path:
        return
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
        known = {*networks, *registry.recipes()}
        if named := next((word for word in request.argv[1:] if word in known), None):
            flag = "--model" if named in networks else "--config"
            raise ZooError(f"unknown argument {named}. Did you mean {flag} {named}?")
        raise ZooError("which network? Name one with --model.\nAll networks: mnist-zoo models")


def _recipe_files(model: str | None) -> list[str]:
    recipe = registry.recipe_of(model) if model else None
    return [str(recipe.path)] if recipe else []
