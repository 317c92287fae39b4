"""The console for tables, and the silencing of other libraries."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

_WIDTH_OF_A_FILE = 120


def console() -> Console:
    """Return a console as wide as the terminal, or wide enough for tables in a file or a pipe."""
    from rich.console import Console

    to_a_file = not sys.stdout.isatty() and not os.environ.get("COLUMNS")
    return Console(highlight=False, width=_WIDTH_OF_A_FILE if to_a_file else None)


def silence() -> None:
    """Keep tips, device lists and other libraries' warnings off the screen."""
    for name in (
        "pytorch.utilities.rank_zero",
        "fabric.utilities.rank_zero",
        "fabric.utilities.seed",
        "pytorch.accelerators.cuda",
    ):
        logging.getLogger(f"lightning.{name}").setLevel(logging.ERROR)
    for package in ("lightning", "torch", "jsonargparse", "tensorboard"):
        warnings.filterwarnings("ignore", module=rf"{package}\b")
    # A step that trains nothing may be intended, but usually a `return` was forgotten.
    warnings.filterwarnings("once", message=r".*training_step. returned .None.")
