"""The table of the zoo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.markup import escape
from rich.table import Table

from mnist_zoo.report.markdown import in_markdown


@dataclass(frozen=True)
class Row:
    """One recipe of a network, as shown; empty strings for what is unknown."""

    network: str
    num_parameters: str
    recipe: str
    published: str
    measured: str
    source: str


_COLUMNS = ("network", "parameters", "recipe", "published", "measured", "source")
_NUMBERS = ("parameters", "published", "measured")


def markdown_table(rows: Sequence[Row]) -> str:
    """Return the recipes as a table in Markdown, without blanks for repeated values."""
    cells = [
        (f"`{r.network}`", r.num_parameters, f"`{r.recipe}`", r.published, r.measured, r.source)
        for r in rows
    ]
    return in_markdown(_COLUMNS, _NUMBERS, cells)


def zoo_table(rows: Sequence[Row], width: int) -> Table:
    """Lay out the recipes; a name, size or source equal to that of the row above is left blank.

    Args:
        rows: The recipes.
        width: Characters per line; narrow tables have fewer columns.
    """
    left_out = {"source"} if width < 100 else set()
    left_out |= {"parameters"} if width < 92 else set()
    left_out |= {"network", "published"} if width < 78 else set()
    columns = [column for column in _COLUMNS if column not in left_out]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        # A truncated number is another number.
        whole = column != "source"
        table.add_column(column, justify="right" if column in _NUMBERS else "left", no_wrap=whole)
    above = Row("", "", "", "", "", "")
    for row in rows:
        same = row.network == above.network
        cells = (
            "" if same else row.network,
            "" if same and row.num_parameters == above.num_parameters else row.num_parameters,
            row.recipe or ("" if "network" not in left_out else row.network),
            row.published,
            row.measured,
            "" if same and row.source == above.source else row.source,
        )
        # A plugin's text may contain brackets, which are not markup.
        shown = dict(zip(_COLUMNS, cells, strict=True))
        table.add_row(*(escape(shown[column]) for column in columns))
        above = row
    return table
