"""``fit``, ``validate``, ``test`` and ``predict``: LightningCLI over the zoo.

Before LightningCLI sees the arguments, three of them are looked at: ``--model`` (its recipe
becomes the default configuration), ``--config`` (recipes have names) and ``--ckpt_path`` (what
the checkpoint says comes after the recipe and before the user's own configuration and flags).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mnist_zoo import registry
from mnist_zoo.errors import ZooError


@dataclass
class Request:
    """What was found in the arguments before they are parsed.

    Attributes:
        argv: The arguments, with names of networks and recipes replaced by their paths.
        subcommand: fit, validate, test or predict.
        model: Import path of the network named by ``--model``.
        ckpt_path: The checkpoint, if one is given.
        helping: Whether only help is asked for.
    """

    argv: list[str]
    subcommand: str
    model: str | None = None
    ckpt_path: str | None = None
    configured: bool = False
    helping: bool = False


def main(argv: list[str]) -> int:
    """Run one of the four commands; ``argv`` begins with its name."""
    request = scan(argv)
    if not (request.helping or request.model or request.configured or request.ckpt_path):
        if request.subcommand == "fit":
            raise ZooError("which network? Name one with --model.\nAll networks: mnist-zoo models")
    if request.subcommand != "fit" and not (request.ckpt_path or request.helping):
        raise ZooError(
            f"which checkpoint? Name one with --ckpt_path, such as"
            f" runs/ConvNetReLU/version_0/checkpoints/best.ckpt (mnist-zoo fit writes it)."
        )
    from mnist_zoo.commands.lightning_cli import ZooCLI

    with default_configs(request) as configs:
        ZooCLI(request, configs)
    return 0


def scan(argv: list[str]) -> Request:
    """Find ``--model``, ``--config`` and ``--ckpt_path``, and resolve the names they hold.

    Raises:
        UnknownNameError: There is no such network or recipe.
    """
    request = Request([argv[0]], argv[0])
    arguments = iter(argv[1:])
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        if flag in ("-h", "--help") or flag.endswith(".help"):
            request.helping = True
        if flag not in ("--model", "--model.help", "--config", "-c", "--ckpt_path"):
            request.argv.append(argument)
            continue
        if not equals:
            value = next(arguments, "")
        if not value:
            request.argv.append(flag)
        elif flag in ("--config", "-c"):
            request.configured = True
            request.argv += [flag, str(registry.find_recipe(value))]
        elif flag == "--ckpt_path":
            request.ckpt_path = value
            request.argv += [flag, value]
        else:
            path = registry.class_path(value)
            request.argv += [flag, path]
            if flag == "--model":
                request.model = path
    return request


@contextmanager
def default_configs(request: Request) -> Iterator[list[str]]:
    """Yield the configuration files that come before the user's: recipe, then checkpoint.

    Raises:
        CheckpointError: The checkpoint cannot be read.
        ZooError: The checkpoint is of another network than ``--model`` names.
    """
    if request.ckpt_path is None:
        yield _recipe_files(request.model) if request.subcommand == "fit" else []
        return

    import yaml

    from mnist_zoo.models import checkpoint as checkpoints

    checkpoint = checkpoints.read(request.ckpt_path)
    path = checkpoints.trusted_class(checkpoint, named=request.model)
    if request.model not in (None, path):
        raise ZooError(
            f"--model {str(request.model).rpartition('.')[2]} does not fit --ckpt_path:"
            f" {request.ckpt_path} is a checkpoint of {checkpoint.network}.\n"
            "Leave --model out; the network comes from the checkpoint."
        )
    request.model = path
    config: dict[str, Any] = {"model": checkpoint.model}
    if checkpoint.data is not None:
        config["data"] = _data_here(checkpoint.data)
    recipes = []
    if request.subcommand == "fit":
        recipes = _recipe_files(path)
        config |= checkpoint.run
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{Path(request.ckpt_path).stem}.yaml"
        file.write_text(yaml.safe_dump(config), encoding="utf-8")
        yield [*recipes, str(file)]


def _recipe_files(model: str | None) -> list[str]:
    network = (model or "").rpartition(".")[2]
    return [str(recipe.path) for recipe in registry.recipes_of(network) if recipe.name == network]


def _data_here(data: dict[str, Any]) -> dict[str, Any]:
    """Return the checkpoint's data, its folder left out where this machine does not have it."""
    arguments = dict(data.get("init_args", {}))
    if "root" in arguments and not Path(str(arguments["root"])).is_dir():
        del arguments["root"]
    return {"class_path": str(data["class_path"]), "init_args": arguments}
