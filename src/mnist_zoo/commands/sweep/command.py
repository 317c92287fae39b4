"""``mnist-zoo sweep``: recipes × seeds × flags, with one process and one record per run.

A run is tested after training, with the weights that validation chose or, if nothing was held
out, with the last ones. A record is written only when its run is over, so a run cannot choose
anything by the test images (``--test_curve`` reads them after every epoch, but for the logger
alone).
"""

from __future__ import annotations

import argparse
import shlex
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_zoo.commands.shared import by_epoch, screen
from mnist_zoo.commands.shared.arguments import Parser
from mnist_zoo.commands.sweep import ensemble, workers
from mnist_zoo.commands.sweep.plan import Run, in_words, parse_grid, parse_seeds, runs_of
from mnist_zoo.commands.sweep.run import BY_EPOCH, OnEpoch
from mnist_zoo.errors import ZooError, did_you_mean
from mnist_zoo.files import expanded, require_writable
from mnist_zoo.report import run_records
from mnist_zoo.report.run_records import Record

if TYPE_CHECKING:
    from rich.progress import TaskID

_SECONDS_BETWEEN_LINES = 600
# Within this time, Ctrl-C is noticed where Python cannot interrupt a lock (on Windows).
_SECONDS_WITHOUT_CTRL_C = 0.5
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
    seeds = parse_seeds(arguments.seeds)
    _check_options(arguments, rest, len(seeds))
    plan = list(runs_of(dict.fromkeys(arguments.recipes), parse_grid(rest), seeds))
    sweep = _Sweep(plan, arguments.results, arguments.runs)
    missing = sweep.missing()
    workers.check(list({(run.config, run.flags): run for run in missing}.values()))
    for flag, folder in (("--results", arguments.results), ("--runs", arguments.runs)):
        require_writable(folder, f"Give another folder: {flag} FOLDER")
    num_done = len(plan) - len(missing)
    print(f"Runs: {len(plan)} ({in_words(seeds)}); recorded already: {num_done}", flush=True)
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
    parser.add_argument(
        "--jobs", type=int, default=1, help="runs at a time, on all GPUs in turn; default: 1"
    )
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
    if arguments.ray and arguments.jobs > 1:
        raise ZooError("--jobs is for one machine without --ray. Give --cpus_per_run instead.")
    if not arguments.ray and (arguments.cpus_per_run != 1 or arguments.gpus_per_run):
        raise ZooError("--cpus_per_run and --gpus_per_run are for --ray, which is not given.")
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
            futures = [pool.submit(self._make_unless_made, run, where) for run in missing]
            try:
                for number, future in enumerate(_as_completed(futures), start=1):
                    self.progress.advance(bar)
                    self._say(f"[{number}/{len(missing)}] {future.result()}")
            except BaseException as error:
                self.stopping.set()
                pool.shutdown(wait=False, cancel_futures=True)
                since, at_once = time.monotonic(), False
                if isinstance(error, KeyboardInterrupt):
                    self._say(
                        "Stopping the runs, which can be resumed. Ctrl-C again stops at once."
                    )
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
        screen.print_table(results_table.table(results_table.rows(records)))
        screen.console().print(results_table.LEGEND)
        return int(any(record["status"] == "crashed" for record in records))

    def say_where(self) -> None:
        """Print where the records and the runs are."""
        recipes = {run.recipe for run in self.plan}
        records = run_records.file_of(self.results, *recipes) if len(recipes) == 1 else self.results
        self._say(f"Records: {records}; runs: {self.runs}")

    def _make_unless_made(self, run: Run, where: workers.Workers) -> str:
        """Make a run unless another sweep is making or has made it; return a line about it."""
        from mnist_zoo.engine import run_folders

        folder = self.runs / run.folder
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with run_folders.locked(folder):
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


def _as_completed(futures: Iterable[Future[str]]) -> Iterator[Future[str]]:
    """Yield what is done, as it is done; Ctrl-C may interrupt it on Windows, too."""
    pending = set(futures)
    while pending:
        done, pending = wait(pending, _SECONDS_WITHOUT_CTRL_C, FIRST_COMPLETED)
        yield from done
