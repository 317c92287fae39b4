"""``mnist-zoo sweep``: recipes × seeds × flags, one process a run, one record a run.

The test images are read once a run, after it, with the weights that validation chose or, where
nothing was held out, with the last ones. Nothing that a sweep prints can choose anything by them:
a record is written only when its run is over.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
import multiprocessing
import os
import platform
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import datetime, timezone
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from mnist_zoo import registry
from mnist_zoo.commands.arguments import Parser
from mnist_zoo.errors import ZooError
from mnist_zoo.report import results

_OF_THE_MACHINE = ("--data.root", "--trainer.accelerator", "--trainer.devices")


@dataclass(frozen=True)
class Run:
    """One run to be made: a recipe, what is changed in it, and a seed."""

    recipe: str
    flags: tuple[str, ...]
    seed: int

    @property
    def settings(self) -> tuple[str, ...]:
        """The flags that may change what comes out: not where data lie, nor which device it is."""
        return tuple(flag for flag in self.flags if flag.partition("=")[0] not in _OF_THE_MACHINE)

    @property
    def key(self) -> tuple[str, tuple[str, ...], int]:
        """What its record is found by."""
        return Path(self.recipe).stem, self.settings, self.seed

    @property
    def folder(self) -> str:
        """Name of the folder of the run; the same run always has the same."""
        settings = hashlib.sha256(" ".join(self.settings).encode()).hexdigest()[:8]
        return f"{Path(self.recipe).stem}-{settings}-seed{self.seed}"


def main(argv: list[str]) -> int:
    """Make the runs that have no record yet, then print the table of all of them."""
    parser = Parser(
        prog="mnist-zoo sweep",
        description="Train recipes with several seeds and settings, and record what comes out.\n"
        "Flags of fit are passed on; several values, divided by commas, are all tried.",
        epilog="examples:\n  mnist-zoo sweep MLPLogSoftmax --seeds 5 --data.val_size 0\n"
        "  mnist-zoo sweep ConvNetReLU Dense --seeds 3 --model.lr 0.03,0.005",
    )
    parser.add_argument("recipes", nargs="+", help="names of recipes or configuration files")
    parser.add_argument("--seeds", type=int, default=5, help="seeds 0 to N-1; default: 5")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time; default: 1")
    parser.add_argument(
        "--results", type=Path, default=Path("results"), help="folder of the records"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/sweep"), help="folder of the runs")
    arguments, rest = parser.parse_known_args(argv)
    if arguments.jobs < 1:
        raise ZooError(f"--jobs {arguments.jobs}: must be at least 1.")
    plan = list(_plan(arguments.recipes, rest, arguments.seeds))
    records = results.read(arguments.results)
    hashes = {
        Path(recipe).stem: settings_hash(registry.find_recipe(recipe))
        for recipe in arguments.recipes
    }
    done = {
        results.key(record)
        for record in records
        if record["status"] != "crashed" and record["recipe_sha256"] == hashes.get(record["recipe"])
    }
    missing = [run for run in plan if run.key not in done]
    print(f"{len(plan)} runs, {len(plan) - len(missing)} of them recorded already", flush=True)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        futures = [pool.submit(_in_own_process, run, str(arguments.runs)) for run in missing]
        try:
            for number, future in enumerate(as_completed(futures), start=1):
                record = future.result()
                results.append(arguments.results, record)
                print(f"[{number}/{len(missing)}] {results.line(record)}", flush=True)
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            raise ZooError("stopped. The same command goes on where it was.") from None
    names = [Path(recipe).stem for recipe in arguments.recipes]
    chosen = [r for r in results.read(arguments.results) if r["recipe"] in names]

    from rich.console import Console

    Console(highlight=False).print(results.table(chosen))
    wanted = {run.key for run in plan}
    return int(any(r["status"] == "crashed" for r in chosen if results.key(r) in wanted))


def settings_hash(recipe: Path) -> str:
    """Return the SHA-256 of a recipe's settings, whatever its comments say."""
    import yaml

    settings = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _plan(recipes: list[str], flags: list[str], num_seeds: int) -> Iterator[Run]:
    grid: dict[str, list[str]] = {}
    words = iter(flags)
    for word in words:
        name, equals, values = word.partition("=")
        if not name.startswith("--"):
            raise ZooError(f"{word}: a recipe that is not named first, or a value without its flag")
        grid[name] = (values if equals else next(words, "")).split(",")
    for recipe in recipes:
        for combination in itertools.product(*grid.values()):
            pairs = zip(grid, combination, strict=True)
            chosen = tuple(f"{name}={value}" for name, value in pairs)
            for seed in range(num_seeds):
                yield Run(recipe, chosen, seed)


def _in_own_process(run: Run, runs: str) -> dict[str, Any]:
    """Make a run in a process of its own, and return its record, be it finished or crashed."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_make, args=(run, runs, sender))
    process.start()
    # Held by the child alone, the pipe closes with it, however it ends.
    sender.close()
    try:
        outcome = receiver.recv()
    except EOFError:
        process.join()
        reason = f"its process ended with status {process.exitcode}"
        outcome = {"status": "crashed", "reason": reason}
    process.join()
    recipe, flags, seed = run.key
    return {"recipe": recipe, "flags": flags, "seed": seed, **outcome}


def _make(run: Run, runs: str, sender: Connection) -> None:
    """Train and test in this process, what it prints going to a file; send what came out."""
    folder = Path(runs) / run.folder
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "output.txt").open("a", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            sender.send(_train_and_test(run, folder))
        except Exception as error:
            traceback.print_exc()
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            sender.send({"status": "crashed", "reason": reason})


def _train_and_test(run: Run, folder: Path) -> dict[str, Any]:
    import lightning
    import torch

    from mnist_zoo import __version__
    from mnist_zoo.commands.lightning_cli import FinishedError, ZooCLI
    from mnist_zoo.commands.training import default_configs, scan

    def command(*words: str) -> ZooCLI:
        request = scan([*words, "--trainer.enable_progress_bar=false"])
        with default_configs(request) as configs:
            return ZooCLI(request, configs)

    start = time.perf_counter()
    flags = (f"--seed_everything={run.seed}", *run.flags)
    stopped = sorted(folder.glob("*/version_*/checkpoints/last.ckpt"))
    cli = None
    if stopped:
        with contextlib.suppress(FinishedError):
            cli = command("fit", f"--ckpt_path={stopped[-1]}", *flags)
    if cli is None:
        cli = command(
            "fit", f"--config={run.recipe}", f"--trainer.default_root_dir={folder}", *flags
        )
    seconds = time.perf_counter() - start
    assert cli.run_folder is not None
    trained = {name: float(value) for name, value in cli.trainer.callback_metrics.items()}
    weights = "best" if cli.datamodule.num_val_images else "last"
    checkpoint = cli.run_folder / "checkpoints" / f"{weights}.ckpt"
    tested = command("test", f"--ckpt_path={checkpoint}").trainer.callback_metrics
    return {
        "status": "diverged" if math.isnan(trained["train/loss"]) else "finished",
        "recipe_sha256": settings_hash(registry.find_recipe(run.recipe)),
        "weights": weights,
        "test_acc": float(tested["test/acc"]),
        "test_loss": float(tested["test/loss"]),
        "train_loss": trained["train/loss"],
        "train_acc": trained["train/acc"],
        "val_acc": trained.get("val/acc"),
        "num_train_images": cli.datamodule.num_train_images,
        "num_epochs": cli.trainer.current_epoch,
        "num_steps": cli.trainer.global_step,
        "seconds": round(seconds, 1),
        "device": cli.trainer.strategy.root_device.type,
        "versions": {
            "mnist-zoo": __version__,
            "torch": torch.__version__,
            "lightning": lightning.__version__,
            "python": platform.python_version(),
        },
        "date": datetime.now(timezone.utc).date().isoformat(),
    }
