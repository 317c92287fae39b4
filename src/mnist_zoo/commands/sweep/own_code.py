"""The user's own code and plugins that settings name, and its hash: edited code makes a new run."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib.util
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mnist_zoo import registry

# Settings that may name a class by its import path. Loggers are missing: a sweep sets its own.
_NAME_CLASSES = ("class_path", "model", "data", "callbacks", "plugins", "profiler", "strategy")
# Modules that change only with their version.
_NOT_EDITED = {"mnist_zoo", "lightning", "torch", "torchmetrics", *sys.stdlib_module_names}


def is_path(text: str) -> bool:
    """Return whether a text could be an import path, such as ``my_net.MyNet``."""
    return bool(re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", text))


def named_in(config: str, flags: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield name and hash of each custom or plugin module that the settings name a class of.

    An edited module makes a new run, and so does one that it imports from the same folder. None is
    imported here, so that ``fit`` reports its errors; all files of a package count, since its
    classes may be in any of them.
    """
    import yaml

    named = [*_classes(yaml.safe_load(config))]
    for flag in flags:
        name, _, text = flag.partition("=")
        with contextlib.suppress(yaml.YAMLError):
            named += _classes(yaml.safe_load(text), name.strip("-+").rpartition(".")[2])
    plugins = {plugin.name: registry.plugin_path(plugin) for plugin in registry.plugins()}
    paths = [path for path in (plugins.get(name, name) for name in named) if is_path(path)]
    for module in sorted({path.partition(".")[0] for path in paths} - _NOT_EDITED):
        registry.look_into_current_folder()
        if (spec := importlib.util.find_spec(module)) is None:
            continue
        folders = spec.submodule_search_locations
        if folders is None:
            files = [Path(str(spec.origin))]
            beside = files[0].parent
        else:
            files = sorted(file for folder in folders for file in Path(folder).rglob("*.py"))
            beside = Path(next(iter(folders))).parent
        files = _with_imported(files, beside)
        code = b"".join(file.read_bytes() for file in files if file.is_file())
        yield module, hashlib.sha256(code).hexdigest()


def _with_imported(files: Sequence[Path], folder: Path) -> list[Path]:
    """Return a module's files and those in a folder that they import, directly or by another."""
    found = [*files]
    if folder.name in ("site-packages", "dist-packages"):
        return found
    for one in found:  # which grows
        for name in sorted(_imports(one) - _NOT_EDITED):
            beside = [folder / f"{name}.py", *sorted((folder / name).rglob("*.py"))]
            found += [other for other in beside if other.is_file() and other not in found]
    return found


def _imports(file: Path) -> set[str]:
    """Return the top-level modules that a file imports by their names."""
    names: list[str] = []
    with contextlib.suppress(OSError, SyntaxError, ValueError):
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, ast.Import):
                names += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.append(str(node.module))
    return {name.partition(".")[0] for name in names}


def _classes(settings: Any, key: str = "") -> Iterator[str]:
    """Yield the values in settings, including nested ones, that may name a class."""
    if isinstance(settings, dict):
        for name, value in settings.items():
            yield from _classes(value, name)
    elif isinstance(settings, list):
        for value in settings:
            yield from _classes(value, key)
    elif isinstance(settings, str) and key in _NAME_CLASSES:
        yield settings
