"""The table of the zoo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table


@dataclass(frozen=True)
class Row:
    """One recipe of a network, as it is shown; an empty string where nothing is known."""

    network: str
    num_parameters: str
    recipe: str
    published: str
    source: str


def zoo_table(rows: Sequence[Row]) -> Table:
    """Lay out the recipes, a network's name and size on its first row only."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("network", no_wrap=True)
    table.add_column("parameters", justify="right", no_wrap=True)
    table.add_column("recipe", no_wrap=True)
    table.add_column("published", justify="right")
    table.add_column("source")
    shown = ""
    for row in rows:
        first = row.network != shown
        shown = row.network
        table.add_row(
            row.network if first else "",
            row.num_parameters if first else "",
            row.recipe,
            row.published,
            row.source if first else "",
        )
    return table
