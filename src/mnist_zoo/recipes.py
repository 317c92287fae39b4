"""Recipes and what was published with them, by name: the files of ``configs/``.

Their names and the comments at their heads are read, not their settings.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mnist_zoo import registry
from mnist_zoo.errors import UnknownNameError, did_you_mean, first_lines

_HEAD_LINE = re.compile(r"#\s*(\w+):\s*(.*)")


@dataclass(frozen=True)
class Recipe:
    """One file of ``configs/``: the settings of a run and what is known of it.

    The head of the file is a block of comments; its lines ``Key: text`` are the ``facts``:
    ``System``, ``Command``, ``Published``, ``Flags`` (with which it is measured), ``Tolerance``,
    ``Parameters``, ``Source``, ``Time``.
    """

    name: str
    path: Path
    facts: dict[str, str]

    @property
    def network(self) -> str:
        """Name of the network: what stands before the first hyphen of the file name."""
        return self.name.partition("-")[0]

    @property
    def published(self) -> str:
        """The published accuracy, such as ``97.85 %``; empty if there is none."""
        percent = re.match(r"[\d.]+ %", self.facts.get("Published", ""))
        return percent[0] if percent else ""

    @property
    def measured_with(self) -> tuple[str, ...]:
        """The flags with which it is measured, such as ``--data.val_size=0``.

        With these it is the published run, if there is one.
        """
        return tuple(self.facts.get("Flags", "").split())

    def reproduced_by(self, mean: float) -> bool | None:
        """Return whether a measured mean accuracy, in percent, agrees with the published one.

        It does if the published figure is at most ``Tolerance`` above the mean or, where the
        tolerance is a range (``75 to 92 %``), if the mean lies in it. None if there is no published
        figure or the mean is NaN.
        """
        tolerance = [float(part) for part in re.findall(r"[\d.]+", self.facts.get("Tolerance", ""))]
        if not (self.published and tolerance) or mean != mean:
            return None
        if len(tolerance) > 1:
            return tolerance[0] <= mean <= tolerance[1]
        # A margin below any real difference: 0.15 is not a binary fraction.
        return float(self.published.split()[0]) - mean <= tolerance[0] + 1e-9


@cache
def all_recipes() -> dict[str, Recipe]:
    """Return every recipe by name, the package's first, then those of plugins.

    A plugin's recipes lie in a folder ``configs`` of its top-level package.
    """
    found: dict[str, Recipe] = {}
    for folder in _recipe_folders():
        for path in sorted(folder.glob("*.yaml"), key=lambda path: path.stem):
            found.setdefault(path.stem, Recipe(path.stem, path, _facts(path)))
    return found


def recipes_of(network: str) -> list[Recipe]:
    """Return the recipes of a network, the default of ``fit --model`` first."""
    return [recipe for recipe in all_recipes().values() if recipe.network == network]


def recipe_of(path: str) -> Recipe | None:
    """Return the recipe that ``fit --model`` uses, given the import path of a network.

    The user's own classes have none, nor do plugin classes named like one of the zoo.
    """
    path = registry.full_path(path)
    name = path.rpartition(".")[2]
    named_alike = registry.builtin_networks().get(name, path) != path
    return all_recipes().get(name) if registry.is_known(path) and not named_alike else None


def find_recipe(name: str) -> Path:
    """Return the file of a recipe, given its name or a path.

    Raises:
        UnknownNameError: There is neither such a file nor such a recipe.
    """
    if Path(name).is_file():
        return Path(name)
    if name in all_recipes():
        return all_recipes()[name].path
    hint = did_you_mean(name, all_recipes())
    raise UnknownNameError(
        f"--config {name}: neither a file nor a recipe.{hint}\nAll recipes: mnist-zoo models"
    )


def settings_hash(config: str) -> str:
    """Return the SHA-256 of the settings in a recipe's text, ignoring comments."""
    import yaml

    settings = json.dumps(yaml.safe_load(config), sort_keys=True, default=str)
    return hashlib.sha256(settings.encode()).hexdigest()


def recipe_hashes() -> dict[str, str]:
    """Return the settings hash of each recipe that can be read, by name; warn of others."""
    import yaml

    hashes = {}
    for name, recipe in all_recipes().items():
        try:
            hashes[name] = settings_hash(recipe.path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            reason = first_lines(error).replace("\n", ": ")
            print(f"warning: recipe {recipe.path} left out: {reason}", file=sys.stderr)
    return hashes


def _recipe_folders() -> Iterator[Path]:
    yield registry.shipped("configs")
    for plugin in registry.plugins():
        spec = importlib.util.find_spec(plugin.module.partition(".")[0])
        for location in (spec and spec.submodule_search_locations) or ():
            yield Path(location) / "configs"


def _facts(path: Path) -> dict[str, str]:
    facts: dict[str, str] = {}
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            if not line.startswith("#"):
                break
            if match := _HEAD_LINE.match(line):
                facts[match[1]] = match[2].strip()
    return facts
