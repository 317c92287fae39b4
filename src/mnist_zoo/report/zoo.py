"""The table of the zoo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.markup import escape
from rich.table import Table

from mnist_zoo.report.markdown import in_markdown


@dataclass(frozen=True)
class Row:
    """One recipe of a network, as it is shown; an empty string where nothing is known."""

    network: str
    num_parameters: str
    recipe: str
    published: str
    measured: str
    source: str


_COLUMNS = ("network", "parameters", "recipe", "published", "measured", "source")
_NUMBERS = ("parameters", "published", "measured")


def markdown_table(rows: Sequence[Row]) -> str:
    """Return the same recipes as a table in Markdown, every cell filled."""
    cells = [
        (f"`{r.network}`", r.num_parameters, f"`{r.recipe}`", r.published, r.measured, r.source)
        for r in rows
    ]
    return in_markdown(_COLUMNS, _NUMBERS, cells)


def zoo_table(rows: Sequence[Row], width: int) -> Table:
    """Lay out the recipes; a name, size or source that is that of the row above is left out.

    Args:
        rows: The recipes.
        width: Characters in a line: where these are few, some columns are left out.
    """
    left_out = {"source"} if width < 100 else set()
    left_out |= {"parameters"} if width < 92 else set()
    left_out |= {"network", "published"} if width < 78 else set()
    columns = [column for column in _COLUMNS if column not in left_out]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        # A number that is cut is another number.
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
        # What a plugin writes is text, in brackets too.
        shown = dict(zip(_COLUMNS, cells, strict=True))
        table.add_row(*(escape(shown[column]) for column in columns))
        above = row
    return table
