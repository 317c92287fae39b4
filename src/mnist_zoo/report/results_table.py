"""Tables of recorded figures: a row for each recipe and set of flags."""

from __future__ import annotations

import math
import re
import statistics
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from rich.markup import escape
from rich.table import Table

from mnist_zoo.errors import one_line
from mnist_zoo.report.markdown import in_markdown
from mnist_zoo.report.run_records import Accuracy, Record, groups


@dataclass(frozen=True)
class Row:
    """Runs of one recipe with one set of flags, and the published accuracy.

    Attributes:
        recipe: Name of the recipe.
        flags: Flags that change it.
        records: The runs.
        published: The published accuracy, as shown.
        holds: Whether the measured mean agrees with it; None if unknown.
    """

    recipe: str
    flags: tuple[str, ...]
    records: Sequence[Record]
    published: str = ""
    holds: bool | None = None

    @property
    def made(self) -> list[Record]:
        """The runs that did not crash."""
        return [record for record in self.records if record["status"] != "crashed"]


def rows(records: Iterable[Record]) -> list[Row]:
    """Return a row for each recipe and set of flags, without published accuracies."""
    return [Row(*group, found) for group, found in groups(records).items()]


FIGURES = (
    "n", "validation", "mean", "std", "min–max", "95 % interval", "failed", "published", "holds",
)  # fmt: skip
NARROW = (
    ("n", "mean", "std", "published", "holds"),
    ("validation", "min–max", "95 % interval", "failed"),
)
LEGEND = (
    "n is the number of runs. In percent: validation, on held-out images; mean and what follows, on"
    " the test images."
)
CIRCUMSTANCES = ("seconds", "device", "torch", "lightning", "date")


def figures(row: Row) -> list[str]:
    """Return the cells under ``FIGURES``.

    These are the number of runs, accuracies in percent (``validation``: the mean for the tested
    weights, if images were held out), and the number of runs that crashed or diverged.
    """
    acc = Accuracy.of(row.records)
    held_out = [100 * made["val_acc"] for made in row.made if made.get("val_acc") is not None]
    validation = _number(statistics.fmean(held_out)) if held_out else ""
    span = f"{acc.lowest:.2f}–{acc.highest:.2f}" if acc.n else ""
    # With two values, Student's interval is meaningless and reaches far beyond 100 %.
    low, high = max(0.0, acc.mean - acc.half), min(100.0, acc.mean + acc.half)
    interval = f"{low:.2f}–{high:.2f}" if acc.n > 2 else ""
    failed = sum(record["status"] != "finished" for record in row.records)
    holds = {None: "", True: "yes", False: "no"}[row.holds]
    moments = _number(acc.mean), _number(acc.std)
    failures = str(failed or "")
    return [str(acc.n), validation, *moments, span, interval, failures, row.published, holds]


def circumstances(row: Row) -> tuple[str, list[str], list[str], list[str], list[str]]:
    """Return what is under ``CIRCUMSTANCES``, on how the runs were made.

    These are the median of the seconds, all devices and versions, and the first and last date.
    """
    made = row.made
    versions = [record.get("versions", {}) for record in made]
    dates = sorted({record["date"] for record in made if "date" in record})
    return (
        f"{statistics.median(record['seconds'] for record in made):.0f}" if made else "",
        _distinct(_device(record) for record in made),
        _distinct(version.get("torch") for version in versions),
        _distinct(version.get("lightning") for version in versions),
        dates[:: max(1, len(dates) - 1)],
    )


def table(rows: Sequence[Row], names: Sequence[str] = FIGURES) -> Table:
    """Lay out figures; flags are below their recipe, one per line, never truncated.

    Args:
        rows: The runs.
        names: Which of ``FIGURES``; ``NARROW`` splits them for a narrow terminal.
    """
    chosen = [FIGURES.index(name) for name in names]
    return _table(rows, names, lambda row: [figures(row)[n] for n in chosen])


def circumstances_table(rows: Sequence[Row]) -> Table:
    """Lay out how the runs were made: devices, versions and dates below one another."""

    def cells(row: Row) -> list[str]:
        seconds, devices, *versions, dates = circumstances(row)
        # Without the build, such as +cu130.
        short = (_distinct(version.partition("+")[0] for version in each) for each in versions)
        return [
            seconds,
            textwrap.fill(", ".join(devices), 16, break_long_words=False),
            *(",\n".join(each) for each in short),
            "–\n".join(dates),
        ]

    return _table(rows, CIRCUMSTANCES, cells)


def markdown(rows: Sequence[Row]) -> str:
    """Return figures and circumstances as one table in Markdown."""
    numbers = (*FIGURES, *CIRCUMSTANCES)
    lines = []
    for row in rows:
        name = [f"`{row.recipe}`", f"`{' '.join(row.flags)}`" if row.flags else ""]
        seconds, *lists, dates = circumstances(row)
        how = [seconds, *map(", ".join, lists), " to ".join(dates)]
        lines.append([*name, *figures(row), *how])
    return in_markdown(("recipe", "flags", *numbers), numbers, lines)


def _table(rows: Sequence[Row], names: Sequence[str], cells: Callable[[Row], list[str]]) -> Table:
    out = Table(box=None, pad_edge=False, header_style="bold")
    lines = [line for row in rows for line in (row.recipe, *(f"  {flag}" for flag in row.flags))]
    out.add_column("recipe", overflow="fold", min_width=min(16, max(map(len, lines), default=0)))
    body = [cells(row) for row in rows]
    # An empty column would only narrow the others.
    shown = [n for n in range(len(names)) if any(line[n] for line in body)]
    for n in shown:
        # A truncated number is another number.
        out.add_column(names[n], justify="right", overflow="fold", no_wrap=True)
    for row, line in zip(rows, body, strict=True):
        name = "\n  ".join(map(one_line, (row.recipe, *row.flags)))
        out.add_row(escape(name), *(escape(_one_by_one(line[n])) for n in shown))
    return out


def _one_by_one(lines: str) -> str:
    return "\n".join(map(one_line, lines.split("\n")))


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.2f}"


def _device(record: Record) -> str:
    """Return a device's name without marks, clock rate and the words CPU and Processor."""
    name = record.get("device_name") or record.get("device") or ""
    return " ".join(re.sub(r"\((R|TM)\)|\b(CPU|Processor)\b|@ .*", "", name).split()) or name


def _distinct(values: Iterable[str | None]) -> list[str]:
    return [*dict.fromkeys(value for value in values if value)]
