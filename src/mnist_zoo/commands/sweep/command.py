"""``mnist-zoo sweep``: recipes × seeds × flags, with one process and one record per run.

The test images are read once per run, after training, with the weights that validation chose or, if
nothing was held out, with the last ones. A record is written only when its run is over, so a run
cannot choose anything by the test images.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.util
import itertools
import re
import shlex
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_zoo import registry
from mnist_zoo.commands.shared import by_epoch, screen
from mnist_zoo.commands.shared.arguments import Parser
from mnist_zoo.commands.sweep import ensemble, workers
from mnist_zoo.commands.sweep.run import BY_EPOCH, WITHOUT_EFFECT, OnEpoch, Run, adds_to
from mnist_zoo.commands.training import config_file
from mnist_zoo.errors import UnknownNameError, ZooError, did_you_mean
from mnist_zoo.files import expanded, require_writable
from mnist_zoo.recipes import all_recipes, find_recipe, recipe_hashes, recipe_of, settings_hash
from mnist_zoo.report import run_records
from mnist_zoo.report.run_records import Record

if TYPE_CHECKING:
    from rich.progress import TaskID


# Flags that a sweep itself passes to fit.
_ITS_OWN = (
    "--ckpt_path", "--seed_everything", "--trainer.default_root_dir", "--trainer.devices",
    "--trainer.enable_progress_bar", "--trainer.fast_dev_run", "--trainer.limit_predict_batches",
    "--trainer.limit_test_batches", "--trainer.logger", "--trainer.logger.class_path",
    "--trainer.num_nodes", "--pictures", "--print_config", "-h", "--help",
)  # fmt: skip

# Settings that may name a class by its import path. Loggers are missing: a sweep sets its own.
_NAME_CLASSES = ("class_path", "model", "data", "callbacks", "plugins", "profiler", "strategy")
_MOST_SEEDS = 100_000
# Modules that change only with their version.
_NOT_EDITED = {"mnist_zoo", "lightning", "torch", "torchmetrics", *sys.stdlib_module_names}

_SECONDS_BETWEEN_LINES = 600
# After Ctrl-C, for the runs to write their checkpoints.
_SECONDS_TO_STOP = 30

_DESCRIPTION = """\
Train recipes with several seeds and settings, and record what comes out.
Flags of fit are passed on; values separated by commas are all tried
(commas within brackets, braces or quotes do not separate).

The same command, given again after it was stopped in any way, makes only the
runs that have no record yet, and resumes those that were begun. Editing custom
code or a plugin makes them new runs. Several sweeps at once share the work.
The exit status is 1 if a run crashed."""

_EPILOG = """\
examples:
  mnist-zoo sweep MLPLogSoftmax --seeds 5 --data.val_size 0
  mnist-zoo sweep ConvNetReLU Dense --seeds 3,7,9 --model.lr 0.03,0.005
  mnist-zoo sweep ConvNetBatchNorm-accurate --seeds 10 --ensemble 5"""


def main(argv: list[str]) -> int:
    """Make the runs that have no record yet, then print the table of all runs."""
    if not argv:
        raise ZooError(
            "which recipes? For example: mnist-zoo sweep ConvNetReLU --seeds 5\n"
            "All recipes: mnist-zoo models"
        )
    _refuse_flag_for_recipe(argv)
    arguments, rest = _parser().parse_known_args(argv)
    seeds = _seeds(arguments.seeds)
    _check_options(arguments, rest, len(seeds))
    plan = list(_plan(dict.fromkeys(arguments.recipes), _grid(rest), seeds))
    sweep = _Sweep(plan, arguments.results, arguments.runs)
    missing = sweep.missing()
    workers.check(list({(run.config, run.flags): run for run in missing}.values()))
    for flag, folder in (("--results", arguments.results), ("--runs", arguments.runs)):
        require_writable(folder, f"Give another folder: {flag} FOLDER")
    num_done = len(plan) - len(missing)
    print(f"Runs: {len(plan)} ({_named(seeds)}); recorded already: {num_done}", flush=True)
    if missing:
        if arguments.ray:
            resources = arguments.cpus_per_run, arguments.gpus_per_run
            sweep.run(workers.Cluster(arguments.runs, arguments.ray, *resources), len(missing))
        else:
            sweep.run(workers.Processes(arguments.runs, arguments.jobs), arguments.jobs)
    if arguments.ensemble:
        sweep.test_ensembles(arguments.ensemble)
    status = sweep.print_table()
    if arguments.plot:
        by_epoch.plot(sweep.records(), arguments.plot, arguments.tag)
    sweep.say_where()
    return status


def _parser() -> Parser:
    parser = Parser(prog="mnist-zoo sweep", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument(
        "recipes",
        nargs="+",
        help="names of recipes, configuration files, or classes such as my_net.MyNet",
    )
    parser.add_argument(
        "--seeds", default="5", help="N for the seeds 0 to N-1, or seeds: 3,7 or 5-9; default: 5"
    )
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time; default: 1")
    parser.add_argument(
        "--results",
        type=expanded,
        default=Path("results"),
        help="folder of the records; default: results",
    )
    parser.add_argument(
        "--runs",
        type=expanded,
        default=Path("runs/sweep"),
        help="folder of the runs; default: runs/sweep",
    )
    parser.add_argument(
        "--ensemble",
        type=int,
        metavar="N",
        help="also test ensembles of N seeds each, by their mean probabilities; leftover seeds are"
        " in no ensemble",
    )
    by_epoch.add_options(parser)
    cluster = parser.add_argument_group("on several machines (pip install 'mnist-zoo[ray]')")
    cluster.add_argument(
        "--ray",
        nargs="?",
        const="auto",
        metavar="ADDRESS",
        help="run on a Ray cluster: this machine's (default), one at an address, or 'local' for a"
        " temporary one on this machine",
    )
    cluster.add_argument(
        "--cpus_per_run", type=float, default=1, metavar="N", help="cores per run; default: 1"
    )
    cluster.add_argument(
        "--gpus_per_run",
        type=float,
        default=0,
        metavar="N",
        help="GPUs per run; default: 0, with which older versions of Ray hide all GPUs from a run",
    )
    return parser


def _check_options(arguments: argparse.Namespace, flags: Sequence[str], num_seeds: int) -> None:
    """Refuse values that the parser accepts but that make no sense.

    Raises:
        ZooError: There is one, or a figure cannot be written.
    """
    by_epoch.check_options(arguments.plot, arguments.tag)
    if arguments.tag and arguments.tag not in BY_EPOCH:
        hint = did_you_mean(arguments.tag, BY_EPOCH)
        raise ZooError(f"--tag {arguments.tag}: records hold no such figure by epoch.{hint}")
    if arguments.jobs < 1:
        raise ZooError(f"--jobs {arguments.jobs}: must be at least 1.")
    if arguments.ensemble is not None and arguments.ensemble < 2:
        raise ZooError(f"--ensemble {arguments.ensemble}: must be at least 2.")
    if arguments.ensemble and arguments.ensemble > num_seeds:
        raise ZooError(f"--ensemble {arguments.ensemble}: more than the {num_seeds} --seeds.")
    if any(word.partition("=")[0] == "--seed" for word in flags):
        raise ZooError("unknown option --seed. Did you mean --seeds?")


class _Sweep:
    """The runs to make, and the folder of their records."""

    def __init__(self, plan: Sequence[Run], results: Path, runs: Path) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
        )

        self.plan = plan
        self.keys = {run.key for run in plan}
        self.results = results
        self.runs = runs
        self.stopping = threading.Event()
        self.console = screen.console()
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )

    def records(self) -> list[Record]:
        """Return the current records of these runs, whichever sweep wrote them."""
        return [r for r in run_records.read(self.results) if run_records.key(r) in self.keys]

    def missing(self) -> list[Run]:
        """Return the runs without a record; crashed ones are made again."""
        done = {run_records.key(r) for r in self.records() if r["status"] != "crashed"}
        return [run for run in self.plan if run.key not in done]

    def run(self, where: workers.Workers, num_threads: int) -> None:
        """Make the missing runs, several at a time."""
        missing = self.missing()
        bar = self.progress.add_task(
            "runs", total=len(self.plan), completed=len(self.plan) - len(missing)
        )
        with self.progress, ThreadPoolExecutor(num_threads) as pool:
            futures = [pool.submit(self._make, run, where) for run in missing]
            try:
                for number, future in enumerate(as_completed(futures), start=1):
                    self.progress.advance(bar)
                    self._say(f"[{number}/{len(missing)}] {future.result()}")
            except BaseException as error:
                self.stopping.set()
                pool.shutdown(wait=False, cancel_futures=True)
                since, at_once = time.monotonic(), False
                if isinstance(error, KeyboardInterrupt):
                    self._say("Stopping: the runs write checkpoints. Ctrl-C again stops at once.")
                while any(future.running() for future in futures):
                    try:
                        where.stop(at_once or time.monotonic() - since > _SECONDS_TO_STOP)
                        time.sleep(0.1)
                    except KeyboardInterrupt:
                        at_once = True
                if isinstance(error, KeyboardInterrupt):
                    self._say("Stopped. The same command resumes here.")
                    raise SystemExit(130) from None
                raise

    def test_ensembles(self, size: int) -> None:
        """Test ensembles of this many seeds, unless already on record."""
        groups = ensemble.groups(self.plan, size)
        self.keys |= {ensemble.key(members) for members in groups}
        records = {run_records.key(record): record for record in self.records()}
        for members in groups:
            if ensemble.key(members) in records:
                continue
            together = ensemble.run_of(members)
            made = [records[run.key] for run in members if run.key in records]
            if len(made) < size or any(record["status"] != "finished" for record in made):
                self._say(f"{together.title}: left out, since not all of its runs have finished")
                continue
            try:
                record = ensemble.test(members, made, self.runs)
            except ZooError as error:
                self._say(f"{together.title}: left out: {error}")
                continue
            run_records.append(self.results, record)
            self._say(run_records.line(record))

    def print_table(self) -> int:
        """Print the table over seeds; return 1 if a run crashed, else 0."""
        from mnist_zoo.report import results_table

        records = self.records()
        self.console.print(results_table.table(results_table.rows(records)))
        return int(any(record["status"] == "crashed" for record in records))

    def say_where(self) -> None:
        """Print where the records and the runs are."""
        recipes = {run.recipe for run in self.plan}
        records = run_records.file_of(self.results, *recipes) if len(recipes) == 1 else self.results
        self._say(f"Records: {records}; runs: {self.runs}")

    def _make(self, run: Run, where: workers.Workers) -> str:
        """Make a run unless another sweep is making or has made it; return a line about it."""
        from mnist_zoo.engine import run_folders

        folder = self.runs / run.folder
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with run_folders.locked(folder, "lock"):
                if run not in self.missing():
                    return f"{run.title}: made by another sweep in the meantime"
                task = self.progress.add_task(f"{run.title}, epoch", total=None)
                record = where.make(run, self._on_epoch(run, task))
                self.progress.remove_task(task)
                if not self.stopping.is_set():
                    run_records.append(self.results, record)
                return run_records.line(record)
        except run_folders.TakenError:
            return f"{run.title}: left to another sweep, which is making it"

    def _on_epoch(self, run: Run, task: TaskID) -> OnEpoch:
        """Return a callback that shows a run's progress; without a bar, prints it now and then."""
        said_at = time.monotonic()

        def show(done: int, of: int | None) -> None:
            nonlocal said_at
            self.progress.update(task, completed=done, total=of)
            if self.progress.disable and time.monotonic() - said_at > _SECONDS_BETWEEN_LINES:
                self._say(f"{run.title}: {done} of {of or '?'} epochs")
                said_at = time.monotonic()

        return show

    def _say(self, text: str) -> None:
        self.console.print(text, markup=False, soft_wrap=True)


def _seeds(text: str) -> list[int]:
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


def _named(seeds: Sequence[int]) -> str:
    """Return the seeds in words, since ``--seeds 1`` (seed 0) is easily mistaken."""
    first, last = seeds[0], seeds[-1]
    if len(seeds) > 1 and [*seeds] == [*range(first, last + 1)]:
        return f"seeds {first} to {last}"
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def _refuse_flag_for_recipe(argv: Sequence[str]) -> None:
    """Refuse a recipe given by a flag, as for ``fit``; after a recipe, ``--model`` overrides it.

    Raises:
        ZooError: One is; the message gives the intended command.
    """
    flag, _, value = argv[0].partition("=")
    if flag in ("--model", "--config", "-c"):
        meant = shlex.join([value, *argv[1:]] if value else argv[1:])
        raise ZooError(
            f"{flag}: a sweep takes recipes without a flag: mnist-zoo sweep {meant or 'RECIPE'}"
            "\nFor all options: mnist-zoo sweep --help"
        )


def _grid(flags: Sequence[str]) -> list[list[str]]:
    """Return each flag's alternatives, as ``--name=value``.

    Raises:
        ZooError: A flag has no value, or cannot be given to a sweep.
    """
    grid: list[list[str]] = []
    words = iter(flags)
    for word in words:
        name, equals, text = word.partition("=")
        if not name.startswith("-"):
            raise ZooError(
                f"{word}: a recipe that does not come first, or a value without its flag"
            )
        if name in ("--config", "-c"):
            raise ZooError(f"{name}: a sweep takes recipes and files first, and without a flag.")
        if name in _ITS_OWN or name.endswith(".help"):
            raise ZooError(f"{name}: a sweep sets this itself.")
        if not adds_to(name) and any(name == given[0].partition("=")[0] for given in grid):
            raise ZooError(f"{name} is given twice; for several values: {name} 1,2")
        if not equals and (text := next(words, "--")).startswith("--"):
            raise ZooError(f"{name}: no value follows it; recipes come before all flags.")
        alternatives = dict.fromkeys(_alternatives(text))
        if name in WITHOUT_EFFECT and len(alternatives) > 1:
            raise ZooError(f"{name} {text}: records do not tell its values apart; give only one.")
        grid.append([f"{name}={value}" for value in alternatives])
    return grid


def _plan(
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
            code = tuple(_own_code(config, chosen))
            for seed in seeds:
                yield Run(name, config, sha256, chosen, seed, code)


def _recipe(name: str) -> tuple[str, str]:
    """Return the name and the text of a recipe, a file, or the user's own network."""
    is_class = _is_path(name) and not name.endswith((".yaml", ".yml"))
    if is_class and not Path(name).exists() and name not in all_recipes():
        if (known := recipe_of(name)) is None:
            return name, f"model: {name}\n"
        name = str(known.path)
    try:
        file = config_file.checked(find_recipe(name))
    except UnknownNameError as error:
        raise ZooError(str(error).removeprefix("--config ")) from error
    return file.stem, file.read_text(encoding="utf-8")


def _is_path(text: str) -> bool:
    """Return whether a text could be an import path, such as ``my_net.MyNet``."""
    return bool(re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", text))


def _own_code(config: str, flags: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield name and hash of each custom or plugin module that the settings name a class of.

    An edited module makes a new run. It is not imported, so that ``fit`` reports its errors; all
    files of a package count, since its classes may be in any of them.
    """
    import yaml

    named = [*_classes(yaml.safe_load(config))]
    for flag in flags:
        name, _, text = flag.partition("=")
        with contextlib.suppress(yaml.YAMLError):
            named += _classes(yaml.safe_load(text), name.strip("-+").rpartition(".")[2])
    plugins = {plugin.name: registry.plugin_path(plugin) for plugin in registry.plugins()}
    paths = [path for path in (plugins.get(name, name) for name in named) if _is_path(path)]
    for module in sorted({path.partition(".")[0] for path in paths} - _NOT_EDITED):
        registry.look_into_current_folder()
        if (spec := importlib.util.find_spec(module)) is None:
            continue
        folders = spec.submodule_search_locations
        files = [Path(str(spec.origin))]
        if folders is not None:
            files = sorted(file for folder in folders for file in Path(folder).rglob("*.py"))
        code = b"".join(file.read_bytes() for file in files if file.is_file())
        yield module, hashlib.sha256(code).hexdigest()


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
