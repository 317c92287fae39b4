"""Where tables are printed."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

_WIDTH_OF_A_FILE = 120


def console() -> Console:
    """Return a console as wide as the terminal; a file or a pipe has room for whole tables."""
    from rich.console import Console

    to_a_file = not sys.stdout.isatty() and not os.environ.get("COLUMNS")
    return Console(highlight=False, width=_WIDTH_OF_A_FILE if to_a_file else None)
