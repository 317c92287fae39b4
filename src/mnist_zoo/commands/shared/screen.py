"""The console for tables, and the silencing of other libraries."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_WIDTH_OF_A_FILE = 120


def console() -> Console:
    """Return a console as wide as the terminal, or wide enough for tables in a file or a pipe."""
    from rich.console import Console

    to_a_file = not sys.stdout.isatty() and not os.environ.get("COLUMNS")
    return Console(highlight=False, width=_WIDTH_OF_A_FILE if to_a_file else None)


def print_table(table: Table, rows_on_a_line: bool = False) -> None:
    """Print a table, rather beyond the edge of a narrow terminal than with parts of numbers.

    Args:
        table: The table.
        rows_on_a_line: Whether every row is one line, however long.
    """
    out = console()
    needed = out.measure(table, options=out.options.update(max_width=sys.maxsize))
    out.width = needed.maximum if rows_on_a_line else max(out.width, needed.minimum)
    out.print(table, crop=False)


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
