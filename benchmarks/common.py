"""Shared by the benchmarks: flags for training, the data folder, and the result files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch

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
