"""Training time of the recipes that reach an accuracy fast, in turn with S4 and S6.

    python benchmarks/records.py --threads 2

Each round trains every recipe named after an accuracy (such as ConvNetBatchNorm-99.5) once, as
`mnist-zoo fit` does on a CPU, and for comparison an epoch of S4 and 1,500 steps of S6, which are
extrapolated to their whole runs. The table gives medians of the training time, from before the
first step to after the last, with data in memory; the rest of a command's time (imports, reading
the data, the last checkpoint) is listed separately. The recipes' accuracies are in the README.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import common
import torch
from common import AT_A_TERMINAL, ON_CPU, facts, write
from steps import Stopwatch

from mnist_zoo.commands.training import command as training
from mnist_zoo.recipes import all_recipes

# Flags, and the factor from their time to that of the whole run.
COMPARED: dict[str, tuple[list[str], float]] = {
    "S4": (["--config=ConvNetReLU", "--trainer.max_epochs=1"], 60),
    "S6": (
        [
            "--config=ConvNetDropout-unstable",
            "--trainer.max_epochs=1",
            "--trainer.limit_train_batches=1500",
        ],
        40 * 30_000 / 1500,
    ),
}


def train(arguments: list[str]) -> None:
    """Train in this process; print the seconds of training alone."""
    stopwatch = Stopwatch(time.perf_counter)
    training.run(["fit", *arguments], callbacks=[stopwatch])
    print(f"\nseconds {stopwatch.seconds}")


def measured(flags: list[str], root: Path, threads: int) -> dict[str, float]:
    """Run a command in its own process; return its seconds of training, and of everything else."""
    with tempfile.TemporaryDirectory() as folder:
        where = [f"--data.root={root}", f"--trainer.default_root_dir={folder}"]
        alone = ["--data.val_size=0", "--pictures=false"]
        start = time.perf_counter()
        out = subprocess.run(
            [sys.executable, __file__, "--train", *flags, *AT_A_TERMINAL, *ON_CPU, *where, *alone],
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        whole = time.perf_counter() - start
    seconds = float(out.rpartition("seconds ")[2])
    return {"training": seconds, "beside": whole - seconds}


def main() -> None:
    if sys.argv[1:2] == ["--train"]:
        return train(sys.argv[2:])
    parser = common.parser("records", __doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", nargs="+", default=[], metavar="RECIPE")
    arguments = parser.parse_args()
    root = arguments.root.absolute()
    named = [name for name in sorted(all_recipes()) if re.search(r"-9\d(\.\d+)?$", name)]
    recipes = [name for name in named if not arguments.only or name in arguments.only]
    sides = {name: ([f"--config={name}"], 1.0) for name in recipes} | COMPARED
    found: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    for number in range(arguments.rounds):
        for name, (flags, _) in sides.items():
            found[name].append(measured(flags, root, arguments.threads))
            print(f"round {number + 1}: {name} {found[name][-1]['training']:.1f} s", flush=True)
    median = {
        name: {part: statistics.median(r[part] for r in rounds) for part in rounds[0]}
        for name, rounds in found.items()
    }
    whole = {name: median[name]["training"] * times for name, (_, times) in sides.items()}
    print(f"\ntorch {torch.__version__}, {arguments.threads} thread(s), {arguments.rounds} rounds")
    print(f"{'recipe':24} {'training':>9} {'beside it':>10} {'of S4':>8} {'of S6':>8}")
    for name in recipes:
        print(f"{name:24} {whole[name]:7.1f} s {median[name]['beside']:8.1f} s", end="")
        print("".join(f" {'1/' + format(whole[s] / whole[name], '.0f'):>8}" for s in COMPARED))
    for name in COMPARED:
        print(f"{name + ', whole run':24} {whole[name]:7.0f} s (extrapolated)")
    write(arguments.json, facts(arguments.threads) | {"rounds": found})


if __name__ == "__main__":
    main()
