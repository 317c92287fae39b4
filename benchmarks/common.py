"""What the benchmarks share: how they train, where data and figures lie, and on what they ran."""

from __future__ import annotations

import json
import os
from datetime import date
from pathlib import Path
from typing import Any

import torch

from mnist_zoo.commands.sweep_run import device_name, versions
from mnist_zoo.data import MNIST

# Flags with which a command trains as at a terminal: redirected, it would draw no progress bar.
AT_A_TERMINAL = ["--trainer.enable_progress_bar=true"]
# By this the library of the bar draws it on what is no terminal, too.
os.environ |= {"FORCE_COLOR": "1", "TERM": "xterm"}
# A GPU would be chosen where there is one, and has its own benchmark.
ON_CPU = ["--trainer.accelerator=cpu"]

# $MNIST_ZOO_DATA, else data.
ROOT = MNIST().root


def facts(threads: int, device: str = "cpu") -> dict[str, Any]:
    """Return when, on what and with what figures were measured."""
    return {
        "date": date.today().isoformat(),
        "device": device,
        "device_name": device_name(torch.device(device)),
        "cores": os.cpu_count(),
        "threads": threads,
        "versions": versions(),
    }


def write(file: Path, found: dict[str, Any]) -> None:
    """Write figures, and say where."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(found, indent=1) + "\n")
    print(f"Written: {file}")
