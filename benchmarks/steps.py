"""Time of an optimizer step on a CPU: `mnist-zoo fit` against two plain loops, in turn.

    python benchmarks/steps.py

Compared in turn in every round, for each recipe:

- ``fit``: the command as run at a terminal, with progress bar, TensorBoard and checkpoints; only
  its training time (start-up and validation are not steps).
- ``articles``: the loop that articles show, a DataLoader over PIL images and ``ToTensor``, with
  each activation before its pooling.
- ``bare``: the same arithmetic over tensors in memory, and nothing else.

The articles' loop has no half precision; the others are also timed in it, at batch size 256.

Machines are shared and noisy, so the meaningful number is the ratio of two of them within a round;
the table gives its median and range over the rounds. On a machine busy with other work,
``--clock cpu`` measures the CPU time of the process instead.
"""

from __future__ import annotations

import contextlib
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import torch
import torch.nn.functional as F
from common import AT_A_TERMINAL, ON_CPU, facts, write
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from mnist_zoo.commands.training import command as training
from mnist_zoo.data import MNIST, to_float
from mnist_zoo.models import Classifier, ConvNetDropout, ConvNetReLU, Dense

Clock = Callable[[], float]
HALF = "--trainer.precision=bf16-mixed"
# Name, network, flags of fit beyond the recipe, batch size, steps per round.
CASES: list[tuple[str, type[Classifier], list[str], int, int]] = [
    ("S1", Dense, [], 10, 2000),
    ("S4", ConvNetReLU, [], 10, 600),
    ("S7", ConvNetDropout, [], 10, 300),
    ("S4 at batch 256", ConvNetReLU, ["--data.batch_size=256"], 256, 40),
    ("in half precision", ConvNetReLU, ["--data.batch_size=256", HALF], 256, 40),
]
# The same settings as in the recipes, so that all loops do the same work.
SGD: dict[type[Classifier], dict[str, float]] = {
    Dense: {"lr": 3.0},
    ConvNetReLU: {"lr": 0.03, "weight_decay": 0.00005},
    ConvNetDropout: {"lr": 0.005},
}


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


class Stopwatch(Callback):
    """Measures only the training, from before the first step to after the last."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_train_start(self, *_: object) -> None:
        self.start = self.clock()

    def on_train_end(self, *_: object) -> None:
        self.seconds = self.clock() - self.start


def fit(network: type[Classifier], flags: list[str], steps: int, root: Path, clock: Clock) -> float:
    """Return milliseconds per step of the command."""
    screen = io.StringIO()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(screen):
        stopwatch = Stopwatch(clock)
        cli = training.run(
            [
                "fit",
                f"--model={network.__name__}",
                f"--data.root={root}",
                f"--trainer.default_root_dir={folder}",
                "--trainer.max_epochs=1",
                f"--trainer.limit_train_batches={steps}",
                "--trainer.limit_val_batches=0",
                "--data.expanded=false",
                "--pictures=false",
                *AT_A_TERMINAL,
                *flags,
            ],
            callbacks=[stopwatch],
        )
    assert cli.trainer.global_step == steps
    assert cli.trainer.progress_bar_callback
    assert "\r" in screen.getvalue(), "the progress bar was not drawn"
    return 1000 * stopwatch.seconds / steps


def articles(
    network: type[Classifier], batch_size: int, steps: int, root: Path, clock: Clock
) -> float:
    """Return milliseconds per step of the loop that articles show."""
    data = datasets.MNIST(str(root), train=True, transform=transforms.ToTensor())
    loader = DataLoader(data, batch_size=batch_size, shuffle=True)
    model, optimizer = _model(_as_in_articles(network().layers), **SGD[network])
    batches = iter(loader)
    start = clock()
    running_loss = 0.0
    for _ in range(steps):
        images, targets = next(batches)
        optimizer.zero_grad()
        outputs = model(images)
        loss = _loss(network, outputs, targets)
        loss.backward()
        optimizer.step()
        running_loss += loss.item()
    return 1000 * (clock() - start) / steps


def bare(
    network: type[Classifier], batch_size: int, steps: int, root: Path, clock: Clock, half: bool
) -> float:
    """Return milliseconds per step of the same arithmetic over tensors in memory."""
    data = MNIST(root=str(root), val_size=0)
    data.setup("fit")
    all_images, all_targets = data.splits["train"]
    model, optimizer = _model(
        network().layers.to(memory_format=torch.channels_last), **SGD[network], fused=True
    )
    order = torch.randperm(len(all_targets))
    start = clock()
    for chosen in order[: steps * batch_size].split(batch_size):
        images, targets = to_float(all_images[chosen]), all_targets[chosen]
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = _loss(network, model(images), targets)
        loss.backward()
        optimizer.step()
    return 1000 * (clock() - start) / steps


def _model(layers: nn.Module, **settings: Any) -> tuple[nn.Module, torch.optim.Optimizer]:
    return layers.train(), torch.optim.SGD(layers.parameters(), **settings)


def _as_in_articles(layers: nn.Module) -> nn.Module:
    """Put the activation before the pooling, which has the same result."""
    for block in layers:
        if isinstance(block, nn.Sequential) and isinstance(block[1], nn.MaxPool2d):
            block[1], block[2] = block[2], block[1]
    return layers


def _loss(network: type[Classifier], outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    if network is Dense:
        return F.mse_loss(outputs, F.one_hot(targets, 10).float())
    return F.cross_entropy(outputs, targets)


def main() -> None:
    parser = common.parser("steps", __doc__, rounds=5)
    parser.add_argument("--threads", type=int, default=1, help="threads of torch, for all loops")
    parser.add_argument(
        "--clock", choices=CLOCKS, default="wall", help="cpu: CPU time of the process"
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="CASE", help="such as S1 S4")
    arguments = parser.parse_args()
    root = arguments.root.absolute()
    clock = CLOCKS[arguments.clock]
    torch.set_num_threads(arguments.threads)

    print(f"torch {torch.__version__}, {arguments.threads} thread(s), {arguments.rounds} rounds")
    print(f"{'recipe':16} {'ms a step:':>10} {'fit':>7} {'articles':>9} {'bare':>7}", end="")
    print(f"   {'fit/articles':>20} {'fit/bare':>20}")
    results = []
    for name, network, flags, batch_size, steps in CASES:
        if arguments.only and name not in arguments.only:
            continue
        sides: dict[str, Callable[[], float]] = {
            "fit": lambda: fit(network, [*ON_CPU, *flags], steps, root, clock),  # noqa: B023
            "articles": lambda: articles(network, batch_size, steps, root, clock),  # noqa: B023
            "bare": lambda: bare(network, batch_size, steps, root, clock, HALF in flags),  # noqa: B023
        }
        for side in sides.values():
            side()
        rounds = [{n: side() for n, side in sides.items()} for _ in range(arguments.rounds)]
        median = {n: statistics.median(r[n] for r in rounds) for n in sides}
        ratios = {n: [r["fit"] / r[n] for r in rounds] for n in ("articles", "bare")}
        shown = [
            f"{statistics.median(v):.2f} ({min(v):.2f} to {max(v):.2f})" for v in ratios.values()
        ]
        print(f"{name:16} {'':10} {median['fit']:7.2f} {median['articles']:9.2f}", end="")
        print(f" {median['bare']:7.2f}   {shown[0]:>20} {shown[1]:>20}", flush=True)
        results.append({"recipe": name, "batch_size": batch_size, "steps": steps, "ms": rounds})
    found = {"clock": arguments.clock, "results": results}
    write(arguments.json, facts(arguments.threads) | found)


if __name__ == "__main__":
    main()
