"""Shared by the benchmarks: their flags, a bare step, and the result files."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

# PyTorch's profiler would otherwise report its start, its stop and that there is no GPU. It reads
# this when torch is imported.
os.environ["KINETO_LOG_LEVEL"] = "99"

import torch
from torch import Tensor, nn

from mnist_zoo.commands.shared.provenance import device_name, today, versions
from mnist_zoo.data import MNIST

# Draw the progress bar, as at a terminal, although the output is redirected.
AT_A_TERMINAL = ["--trainer.enable_progress_bar=true"]
# These make rich draw it without a terminal, too.
os.environ |= {"FORCE_COLOR": "1", "TERM": "xterm"}
# Otherwise a GPU would be used if there is one; it has its own benchmark.
ON_CPU = ["--trainer.accelerator=cpu"]

# $MNIST_ZOO_DATA, else data.
ROOT = MNIST().root


def parser(script: str, description: str | None, rounds: int | None = 3) -> argparse.ArgumentParser:
    """Return a parser of the flags that the benchmarks share.

    Args:
        script: Name of the benchmark, and of the file of its results.
        description: Its docstring, of which the first line is shown.
        rounds: How many rounds by default; None: it has no rounds and needs no data.
    """
    made = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    if rounds is not None:
        made.add_argument("--root", type=Path, default=ROOT, help="folder with MNIST/raw")
        made.add_argument("--rounds", type=int, default=rounds)
    made.add_argument(
        "--json",
        type=Path,
        default=Path(f"runs/benchmarks/{script}.json"),
        help="file for the results",
    )
    return made


def bare_step(network: nn.Module, loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], None]:
    """Return a function that takes a step of SGD on ten random images, on the network's device."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.005, fused=True)
    device = next(network.parameters()).device
    images, targets = torch.rand(10, 1, 28, 28, device=device), torch.arange(10, device=device)

    def step() -> None:
        optimizer.zero_grad()
        loss(network(images), targets).backward()
        optimizer.step()

    return step


def facts(threads: int, device: str = "cpu") -> dict[str, Any]:
    """Return the date, device and versions of a measurement."""
    return {
        "date": today(),
        "device": device,
        "device_name": device_name(torch.device(device)),
        "cores": os.cpu_count(),
        "threads": threads,
        "versions": versions(),
    }


def write(file: Path, found: dict[str, Any]) -> None:
    """Write the results, and print where."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(found, indent=1) + "\n")
    print(f"Written: {file}")
