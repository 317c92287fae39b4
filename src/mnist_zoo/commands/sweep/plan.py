"""The runs that recipes, flags and seeds come to, and what makes a run another one."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mnist_zoo.commands.shared.flags import OF_THE_MACHINE, WITHOUT_EFFECT
from mnist_zoo.commands.shared.provenance import today
from mnist_zoo.commands.sweep import own_code
from mnist_zoo.commands.training import config_file
from mnist_zoo.errors import EMPTY_ARGUMENT, UnknownNameError, ZooError
from mnist_zoo.recipes import all_recipes, find_recipe, recipe_hashes, recipe_of, settings_hash
from mnist_zoo.report import run_records
from mnist_zoo.report.run_records import Key

# Flags that a sweep itself passes to fit.
_ITS_OWN = (
    "--ckpt_path", "--seed_everything", "--trainer.default_root_dir", "--trainer.devices",
    "--trainer.enable_progress_bar", "--trainer.fast_dev_run", "--trainer.limit_predict_batches",
    "--trainer.limit_test_batches", "--trainer.logger", "--trainer.num_nodes", "--pictures",
    "--print_config", "-h", "--help",
)  # fmt: skip

_MOST_SEEDS = 100_000


@dataclass(frozen=True)
class Run:
    """One run to make: a recipe, its changed settings, and a seed.

    It includes the text of the recipe, so that a run on another machine, or one that starts hours
    after the sweep, uses the same recipe.

    Attributes:
        recipe: Name of the recipe.
        config: Its text.
        sha256: Hash of its settings.
        flags: Flags of ``fit``, each as ``--name=value``.
        seed: Seed of weights, order of the data and everything else.
        code: Name and hash of each custom or plugin module that it names.
    """

    recipe: str
    config: str
    sha256: str
    flags: tuple[str, ...]
    seed: int
    code: tuple[tuple[str, str], ...] = ()

    @property
    def settings(self) -> tuple[str, ...]:
        """The flags that may change the outcome: not the location of the data, nor the device.

        In alphabetical order, except where their order matters: each setting of a callback belongs
        to the callback before it, and a whole setting, such as --model.optimizer_args, replaces
        what was said of its parts.
        """
        chosen = [f for f in self.flags if f.partition("=")[0] not in WITHOUT_EFFECT]
        wholes = {_setting(flag) for flag in chosen if not _names_a_class(flag)}
        return tuple(sorted(chosen, key=lambda f: f"{_whole(_setting(f), wholes)}="))

    @property
    def of_the_machine(self) -> tuple[str, ...]:
        """The flags for the location of the data and for the device."""
        return tuple(f for f in self.flags if f.partition("=")[0] in OF_THE_MACHINE)

    @property
    def key(self) -> Key:
        """The key of its record."""
        return run_records.key(self.record({}))

    @property
    def title(self) -> str:
        """Its name in messages."""
        return f"{' '.join((self.recipe, *self.settings))}, seed {self.seed}"

    @property
    def folder(self) -> str:
        """Name of its folder, determined by recipe, code, settings and seed."""
        settings = " ".join((self.sha256, *dict(self.code).values(), *self.settings))
        digest = hashlib.sha256(settings.encode()).hexdigest()[:8]
        return f"{self.recipe}-{digest}-seed{self.seed}"

    def record(self, outcome: dict[str, Any]) -> dict[str, Any]:
        """Return the record of an outcome."""
        return {
            "recipe": self.recipe,
            "flags": list(self.settings),
            "seed": self.seed,
            **outcome,
            "recipe_sha256": self.sha256,
            **({"code": dict(self.code)} if self.code else {}),
            "date": today(),
        }

    def crashed(self, reason: str) -> dict[str, Any]:
        """Return the record of a run that crashed."""
        return self.record({"status": "crashed", "reason": " ".join(reason.split())[:300]})


def _adds_to(name: str) -> str:
    """Return the list that a repeatable flag adds to; ``""`` if it adds to none."""
    callbacks = "--trainer.callbacks"
    return callbacks if name.startswith(callbacks) else name[:-1] if name.endswith("+") else ""


def _setting(flag: str) -> str:
    """Return what a flag sets: a list that it adds to, or a name without ``init_args``."""
    return _adds_to(flag.partition("=")[0]) or _short(flag).removesuffix(".init_args")


def _short(flag: str) -> str:
    """Return the shorter of the two names of a setting of a class, without its value."""
    return flag.partition("=")[0].replace(".init_args.", ".")


def _names_a_class(flag: str) -> bool:
    """Whether a flag is ``--model`` or ``--data`` with a class, whose settings it leaves as is."""
    name, _, text = flag.partition("=")
    return name in ("--model", "--data") and "{" not in text


def _whole(setting: str, wholes: set[str]) -> str:
    """Return the largest of some settings that a setting is part of, or itself."""
    parts = setting.split(".")
    above = (".".join(parts[:number]) for number in range(1, len(parts)))
    return next((whole for whole in above if whole in wholes), setting)


def parse_seeds(text: str) -> list[int]:
    """Parse seeds: ``5`` means 0 to 4; ``3,7`` and ``5-9`` name them."""
    if text.isdecimal():
        if not int(text):
            raise ZooError("--seeds 0: no seeds. For seed 0 alone: --seeds 0-0")
        if int(text) > _MOST_SEEDS:
            raise ZooError(
                f"--seeds {text}: that is a number of seeds, at most {_MOST_SEEDS:,}."
                f" For this seed alone: --seeds {text}-{text}"
            )
        return list(range(int(text)))
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if match is None:
            raise ZooError(f"--seeds {text}: expected a number, or seeds such as 3,7 or 5-9.")
        seeds = range(int(match[1]), int(match[2] or match[1]) + 1)
        if seeds.stop > 2**32 or seeds.stop - seeds.start > _MOST_SEEDS:
            raise ZooError(
                f"--seeds {text}: seeds are from 0 to {2**32 - 1}, at most {_MOST_SEEDS:,} of them."
            )
        if not seeds:
            raise ZooError(f"--seeds {text}: {part} counts down; expected a range such as 5-9.")
        found += seeds
    return list(dict.fromkeys(found))


def in_words(seeds: Sequence[int]) -> str:
    """Return the seeds in words, since ``--seeds 1`` (seed 0) is easily mistaken."""
    first, last = seeds[0], seeds[-1]
    if len(seeds) > 1 and [*seeds] == [*range(first, last + 1)]:
        return f"seeds {first} to {last}"
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def parse_grid(flags: Sequence[str]) -> list[list[str]]:
    """Return each flag's alternatives, as ``--name=value``.

    Raises:
        ZooError: A flag has no value, or cannot be given to a sweep.
    """
    grid: list[list[str]] = []
    words, text = iter(flags), ""
    for word in words:
        if not word.startswith("-"):
            if text.endswith(","):
                raise ZooError(f"{text} {word}: leave out the space after the comma.")
            raise ZooError(
                f"{word}: a recipe that does not come first, or a value without its flag"
            )
        name, equals, text = word.partition("=")
        if name in ("--config", "-c"):
            raise ZooError(f"{name}: a sweep takes recipes and files first, and without a flag.")
        if name == "--trainer":
            raise ZooError("--trainer: give its settings one by one, as --trainer.max_epochs 2.")
        if name in _ITS_OWN or name.startswith("--trainer.logger.") or name.endswith(".help"):
            raise ZooError(f"{name}: a sweep sets this itself.")
        if not _adds_to(name) and any(_short(name) == _short(given[0]) for given in grid):
            raise ZooError(f"{name} is given twice; for several values: {name} 1,2")
        if not equals and (text := next(words, "--")).startswith("--"):
            raise ZooError(f"{name}: no value follows it; recipes come before all flags.")
        alternatives = dict.fromkeys(_alternatives(text))
        if name in WITHOUT_EFFECT and len(alternatives) > 1:
            raise ZooError(f"{name} {text}: records do not tell its values apart; give only one.")
        grid.append([f"{name}={value}" for value in alternatives])
    return grid


def runs_of(
    recipes: Iterable[str], grid: Sequence[Sequence[str]], seeds: Sequence[int]
) -> Iterator[Run]:
    """Yield the runs: every recipe, with every combination of flags, with every seed.

    Raises:
        ZooError: There is no such recipe, or records could not tell two apart.
    """
    of_the_zoo, hashes = recipe_hashes(), dict[str, str]()
    for recipe in recipes:
        name, config = _recipe(recipe)
        sha256 = settings_hash(config)
        if hashes.setdefault(name, sha256) != sha256:
            raise ZooError(f"two recipes are called {name}: records could not tell them apart")
        if of_the_zoo.get(name, sha256) != sha256:
            raise ZooError(
                f"{recipe}: the zoo has a recipe {name} with other settings, and results shows only"
                f" the records of that one.\nGive the file another name, such as {name}-mine.yaml."
            )
        for chosen in itertools.product(*grid):
            code = tuple(own_code.named_in(config, chosen))
            for seed in seeds:
                yield Run(name, config, sha256, chosen, seed, code)


def _recipe(name: str) -> tuple[str, str]:
    """Return the name and the text of a recipe, a file, or the user's own network."""
    if not name.strip():
        raise ZooError(EMPTY_ARGUMENT)
    is_class = own_code.is_path(name) and not name.endswith((".yaml", ".yml"))
    if is_class and not Path(name).exists() and name not in all_recipes():
        if (known := recipe_of(name)) is None:
            return name, f"model: {name}\n"
        name = str(known.path)
    try:
        file = config_file.checked(find_recipe(name))
    except UnknownNameError as error:
        raise ZooError(str(error).removeprefix("--config ")) from error
    return file.stem, file.read_text(encoding="utf-8")


def _alternatives(text: str) -> list[str]:
    """Split at commas, except those within brackets, braces or quotes."""
    parts, depth, quote = [""], 0, ""
    for char in text:
        if char == "," and not depth and not quote:
            parts.append("")
            continue
        parts[-1] += char
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        else:
            depth += (char in "[{(") - (char in ")}]")
    return [part.strip() for part in parts]
