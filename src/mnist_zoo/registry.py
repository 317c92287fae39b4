"""Classes by name, without importing torch, and the folders shipped with the package.

The networks of the package are found by reading the files of ``mnist_zoo/models/``, those of
plugins by their entry points.
"""

from __future__ import annotations

import ast
import fnmatch
import importlib
import importlib.util
import inspect
import sys
import traceback
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from mnist_zoo.errors import UnknownNameError, did_you_mean

PLUGIN_GROUP = "mnist_zoo.models"
DEFAULT_WEIGHTS = "ConvNetBatchNorm"
"""The installed weights used for pictures by default."""
DEFAULT_DATA = "mnist_zoo.data.MNIST"
"""The data that networks are trained on by default."""
_PACKAGE = Path(__file__).parent
# What messages call a class, by the flag that names it.
KINDS = {"model": "network", "data": "data set"}


def list_models(pattern: str = "*") -> list[str]:
    """Return the sorted names of all networks, plugins included, that match a shell pattern."""
    names = {*builtin_networks(), *(plugin.name for plugin in plugins())}
    return sorted(name for name in names if fnmatch.fnmatchcase(name.lower(), pattern.lower()))


@cache
def builtin_networks() -> dict[str, str]:
    """Return the import path of every network of the package, by name.

    They are the public classes in ``mnist_zoo/models/*.py`` that derive, directly or through other
    classes in their file, from ``Classifier``.
    """
    return _derived_classes("models", "Classifier")


@cache
def builtin_datasets() -> dict[str, str]:
    """Return the import path of every data set of the package, by name, found in the same way."""
    return _derived_classes("data", "ImageData")


def _derived_classes(folder: str, base: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for file in sorted((_PACKAGE / folder).glob("*.py")):
        derived = {base}
        for node in ast.parse(file.read_text(encoding="utf-8"), file).body:
            if isinstance(node, ast.ClassDef) and derived & {_name(b) for b in node.bases}:
                derived.add(node.name)
                if not node.name.startswith("_"):
                    found[node.name] = f"mnist_zoo.{folder}.{file.stem}.{node.name}"
    return found


def plugins() -> list[EntryPoint]:
    """Return the networks that installed packages declare in the group ``mnist_zoo.models``."""
    return sorted(entry_points(group=PLUGIN_GROUP), key=lambda plugin: plugin.name)


def plugin_path(plugin: EntryPoint) -> str:
    """Return the import path of a plugin's network."""
    return f"{plugin.module}.{plugin.attr}"


def full_path(path: str) -> str:
    """Return where a class is defined, given its import path.

    The zoo's own classes are also found in ``mnist_zoo.models`` and ``mnist_zoo.data``. Any other
    path is returned as it is.
    """
    module, _, name = path.rpartition(".")
    if module == "mnist_zoo.models":
        return builtin_networks().get(name, path)
    if module == "mnist_zoo.data":
        return builtin_datasets().get(name, path)
    return path


def data_path(name: str) -> str:
    """Return where a data set is defined, given its name or its import path."""
    return builtin_datasets().get(name) or full_path(name)


def is_known(path: str) -> bool:
    """Return whether an import path is a network of the zoo or of an installed plugin."""
    path = full_path(path)
    return path in builtin_networks().values() or path in map(plugin_path, plugins())


def is_our_data(path: str) -> bool:
    """Return whether an import path is a data set of this package."""
    return full_path(path) in builtin_datasets().values()


def to_be_named(model: str, dataset: str | None) -> dict[str, str]:
    """Return which of two classes are the user's own, by the flag that must name them."""
    own = {} if is_known(model) else {"--model": model}
    if dataset and not is_our_data(dataset):
        own["--data"] = dataset
    return own


def class_path(name: str) -> str:
    """Return where a network is defined, given its name or its import path.

    Raises:
        UnknownNameError: No network has that name, or more than one has.
    """
    name = name.replace("\\", "/")
    if name.endswith(".py"):
        module = name.removesuffix(".py").removeprefix("./").replace("/", ".")
        raise UnknownNameError(
            f"--model {name}: name the class in it, as in --model {module}.MyNet"
        )
    for suffix, flag in ((".ckpt", "--ckpt_path"), (".yaml", "--config"), (".yml", "--config")):
        if name.endswith(suffix):
            raise UnknownNameError(f"--model {name}: not a network. Did you mean {flag} {name}?")
    if "/" in name:
        right = name.removeprefix("./").replace("/", ".")
        if not all(part.isidentifier() for part in right.split(".")):
            where, _, right = name.rpartition("/")
            raise UnknownNameError(f"--model {name}: in the folder {where}, use --model {right}")
        raise UnknownNameError(f"--model {name}: write it as it is imported, --model {right}")
    if "." in name:
        for part in name.split("."):
            if not part.isidentifier():
                raise UnknownNameError(
                    f"--model {name}: cannot be imported: {part or 'an empty name'} is no name"
                    " in Python (letters, digits and _)."
                )
        return full_path(name)
    paths = [plugin_path(plugin) for plugin in plugins() if plugin.name == name]
    if name in builtin_networks():
        paths.append(builtin_networks()[name])
    if not paths:
        hint = did_you_mean(name, list_models())
        raise UnknownNameError(
            f"unknown network {name}.{hint}\nAll networks: mnist-zoo models"
            " (for one of your own: --model my_file.MyNet)"
        )
    if len(paths) > 1:
        raise UnknownNameError(
            f"{len(paths)} networks are called {name}; name one by its full path: "
            + " or ".join(f"--model {path}" for path in sorted(paths))
        )
    return paths[0]


def class_named(name: str | None) -> str | None:
    """Return the import path of a class that the user named, which may be one of their own.

    The current folder is searched only if the class is not of the zoo.

    Raises:
        UnknownNameError: No network has that name, or more than one has.
    """
    path = name and class_path(name)
    if path and not is_known(path):
        look_into_current_folder()
    return path


def path_of(cls: type) -> str:
    """Return the import path of a class; of a plugin's network, the one that it declares."""
    if not cls.__module__.startswith("mnist_zoo."):
        for plugin in plugins():
            # An entry point of somebody else may name no class.
            if plugin.attr and getattr(sys.modules.get(plugin.module), plugin.attr, None) is cls:
                return plugin_path(plugin)
    return f"{cls.__module__}.{cls.__qualname__}"


@cache
def accepted(cls: type) -> frozenset[str]:
    """Return the names of the arguments that a class accepts, also through ``**kwargs``."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(cls, fail_untyped=False)
    return frozenset(vars(parser.get_defaults()))


def import_class(path: str) -> Any:
    """Import a class by its import path.

    Raises:
        UnknownNameError: There is no such module or class, or the module fails to import.
    """
    module_name, _, name = path.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and f"{module_name}.".startswith(f"{error.name}."):
            raise UnknownNameError(
                f"no module {module_name} for {path}: it must be installed, or be a file in the"
                " current folder."
            ) from None
        raise UnknownNameError(f"{module_name} fails to import: {error}") from error
    except (Exception, SystemExit) as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        # A SyntaxError says it itself.
        line = f" ({Path(where.filename).name}, line {where.lineno})"
        raise UnknownNameError(
            f"{module_name} fails to import: {type(error).__name__}: {error}"
            f"{'' if isinstance(error, SyntaxError) else line}"
        ) from error
    try:
        return getattr(module, name)
    except AttributeError:
        classes = [n for n in dir(module) if isinstance(getattr(module, n), type)]
        hint = did_you_mean(name, classes)
        raise UnknownNameError(f"module {module_name} has no class {name}.{hint}") from None


def import_derived(path: str, base: type, flag: str) -> Any:
    """Import a class that the user named with a flag, such as ``--data``.

    Raises:
        UnknownNameError: There is no such class, it does not derive from ``base``, or it lacks an
            abstract method.
    """
    found = import_class(path)
    kind = KINDS[flag.lstrip("-")]
    if not (isinstance(found, type) and issubclass(found, base)):
        raise UnknownNameError(f"{flag} {path}: not a {kind} (a subclass of {base.__name__}).")
    if inspect.isabstract(found):
        missing = " and ".join(sorted(found.__abstractmethods__))  # type: ignore[attr-defined]
        raise UnknownNameError(f"{flag} {path}: lacks {missing}, which every {kind} must have.")
    return found


def look_into_current_folder() -> None:
    """Append the current folder to the module search path."""
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))


def import_all() -> list[str]:
    """Import every network, so that configurations can name it; return a line per failure."""
    problems = []
    for path in builtin_networks().values():
        import_class(path)
    for plugin in plugins():
        try:
            import_class(plugin_path(plugin))
        except UnknownNameError as error:
            problems.append(f"plugin {plugin.name} left out: {error}")
    return problems


def shipped_weights() -> dict[str, Path]:
    """Return the trained weights shipped with the package, by name."""
    return {file.stem: file for file in sorted(shipped("weights").glob("*.safetensors"))}


def shipped(name: str) -> Path:
    """Return a folder shipped with the package: ``configs``, ``results`` or ``weights``.

    In a checkout it lies beside ``src/``; in an installed wheel, inside the package.
    """
    installed = _PACKAGE / name
    return installed if installed.is_dir() else _PACKAGE.parents[1] / name


def _name(base: ast.expr) -> str:
    return base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "")
