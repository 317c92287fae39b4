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


_COLUMNS = ("network", "parameters", "recipe", "published", "source")


def markdown_table(rows: Sequence[Row]) -> str:
    """Return the same recipes as a table in Markdown, every cell filled."""
    lines = [_COLUMNS, ("---", "---:", "---", "---:", "---")]
    lines += [
        (f"`{r.network}`", r.num_parameters, f"`{r.recipe}`", r.published, r.source) for r in rows
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def zoo_table(rows: Sequence[Row]) -> Table:
    """Lay out the recipes, a network's name and size on its first row only."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in _COLUMNS:
        number = column in ("parameters", "published")
        table.add_column(column, justify="right" if number else "left", no_wrap=column != "source")
    above = Row("", "", "", "", "")
    for row in rows:
        first = row.network != above.network
        table.add_row(
            row.network if first else "",
            row.num_parameters if first else "",
            row.recipe,
            row.published,
            row.source if first or row.source != above.source else "",
        )
        above = row
    return table
