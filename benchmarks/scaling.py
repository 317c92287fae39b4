"""How the time and memory of `mnist-zoo fit` scale, and how close it is to the hardware limit.

    python benchmarks/scaling.py

- Scaling: S1 for several numbers of images, epochs and batch sizes, each in its own command, as at
  a terminal. A straight line fitted to the times gives the seconds per step and, as its intercept,
  the fixed cost.
- Memory: the peak of a process that trains S7 on the expanded set, compared with one that only
  imports what training needs.
- Floor: the time of a training step's floating-point operations (counted by torch) at the rates
  that this machine reaches on a large matrix product and on a large convolution, compared with a
  bare loop; and the operations that take the time.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch
import torch.nn.functional as F
from common import AT_A_TERMINAL, ON_CPU, facts, write
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from mnist_zoo.models import Classifier, ConvNetDropout, ConvNetReLU, Dense

_MEASURE = """
import resource, sys
from mnist_zoo.__main__ import main
status = main(sys.argv[1:]) if len(sys.argv) > 1 else __import__("mnist_zoo.commands.training.fit")
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
"""


def command(*arguments: str) -> tuple[float, float]:
    """Return the seconds and the peak memory in MB of a process that trains."""
    with tempfile.TemporaryDirectory() as folder:
        where = [*AT_A_TERMINAL, *ON_CPU, f"--trainer.default_root_dir={folder}"]
        start = time.perf_counter()
        out = subprocess.run(
            [sys.executable, "-c", _MEASURE, *arguments, *(where if arguments else [])],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
        return time.perf_counter() - start, int(out.stderr.split()[-1]) / 1000


def growth(root: Path, rounds: int) -> dict[str, Any]:
    """Time runs of S1 of several lengths; fit a line to seconds against steps."""
    fit = ["fit", "--model=Dense", f"--data.root={root}", "--trainer.limit_val_batches=0"]
    lengths = {
        "images": [(n, 10, 1) for n in (5000, 20000, 55000)],
        "epochs": [(10000, 10, n) for n in (1, 4, 8)],
        "batch size": [(55000, n, 1) for n in (100, 20, 10)],
    }
    found: dict[str, Any] = {}
    for name, runs in lengths.items():
        steps, seconds = [], []
        for images, batch_size, epochs in runs:
            flags = [f"--data.num_train={images + 5000}", f"--data.batch_size={batch_size}"]
            flags += [f"--trainer.max_epochs={epochs}"]
            steps.append(images // batch_size * epochs)
            seconds.append(statistics.median(command(*fit, *flags)[0] for _ in range(rounds)))
        slope, intercept = np.polyfit(steps, seconds, 1)
        residual = max(abs(np.polyval((slope, intercept), steps) - seconds))
        print(
            f"growth with {name:10}: {1000 * slope:.2f} ms a step + {intercept:.1f} s"
            f" (off a straight line by at most {residual:.1f} s of {max(seconds):.0f} s)",
            flush=True,
        )
        found[name] = {"steps": steps, "seconds": seconds}
    return found


def memory(root: Path) -> dict[str, float]:
    """Return the peak memory in MB of S7 and of its imports alone."""
    fit = ["fit", "--model=ConvNetDropout", f"--data.root={root}", "--trainer.max_epochs=1"]
    imports = command()[1]
    run = command(*fit, "--trainer.limit_train_batches=200", "--trainer.limit_val_batches=1")[1]
    print(f"memory of S7: {run:.0f} MB, of which imports {imports:.0f} MB", flush=True)
    return {"S7_mb": run, "imports_mb": imports}


def median_seconds(function: Callable[[], Any], rounds: int) -> float:
    function()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def floor(rounds: int) -> dict[str, Any]:
    """Compare bare steps with their operations at the machine's peak rates."""
    a, b = torch.randn(2, 1024, 1024).unbind()
    matrix_rate = 2 * 1024**3 / median_seconds(lambda: a @ b, rounds)
    images = torch.randn(64, 64, 32, 32).to(memory_format=torch.channels_last)
    weight = torch.randn(64, 64, 3, 3).to(memory_format=torch.channels_last)
    operations = 2 * 64 * 64 * 64 * 9 * 30 * 30
    conv_rate = operations / median_seconds(lambda: F.conv2d(images, weight), rounds)
    print(f"rates: matrix {matrix_rate / 1e9:.0f}, convolution {conv_rate / 1e9:.0f} GFLOP/s")
    found: dict[str, Any] = {"matrix_rate": matrix_rate, "convolution_rate": conv_rate}
    for system, network in (("S1", Dense), ("S4", ConvNetReLU), ("S7", ConvNetDropout)):
        found[system] = _floor_of(system, network, matrix_rate, conv_rate, rounds)
    return found


def _floor_of(
    system: str, network: type[Classifier], matrix_rate: float, conv_rate: float, rounds: int
) -> dict[str, Any]:
    net = network().to(memory_format=torch.channels_last).train()
    step = common.bare_step(net, net.loss)
    with FlopCounterMode(display=False) as counter:
        step()
    counts = counter.get_flop_counts()["Global"]
    conv = sum(n for operator, n in counts.items() if "convolution" in str(operator))
    at_best = conv / conv_rate + (sum(counts.values()) - conv) / matrix_rate
    measured = median_seconds(lambda: [step() for _ in range(20)], rounds) / 20
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        for _ in range(50):
            step()
    events = [e for e in profiled.key_averages() if e.self_cpu_time_total > 0]
    whole = sum(e.self_cpu_time_total for e in events)
    events.sort(key=lambda e: -e.self_cpu_time_total)
    shares = {e.key.removeprefix("aten::"): e.self_cpu_time_total / whole for e in events[:6]}
    print(
        f"{system} at batch 10: {sum(counts.values()) / 1e6:.0f} MFLOP, floor"
        f" {1000 * at_best:.2f} ms, bare step {1000 * measured:.2f} ms,"
        f" {measured / at_best:.1f} times the floor\n   "
        + ", ".join(f"{name} {share:.0%}" for name, share in shares.items()),
        flush=True,
    )
    return {"flop": sum(counts.values()), "floor_ms": 1000 * at_best, "ms": 1000 * measured}


def main() -> None:
    parser = common.parser("scaling", __doc__)
    arguments = parser.parse_args()
    root = arguments.root.absolute()
    torch.set_num_threads(1)
    found = {
        "floor": floor(5 * arguments.rounds),
        "memory": memory(root),
        "growth": growth(root, arguments.rounds),
    }
    write(arguments.json, facts(threads=1) | found)


if __name__ == "__main__":
    main()
