"""Records of runs: one line of JSON per run, and the table over seeds."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from mnist_zoo.errors import ZooError, one_line
from mnist_zoo.report.markdown import in_markdown

if TYPE_CHECKING:
    from mnist_zoo.report.curves import Curve

Record = Mapping[str, Any]
Key = tuple[Hashable, ...]
Group = tuple[str, tuple[str, ...]]
"""Recipe and flags."""


def read(folder: Path) -> list[Record]:
    """Return the records in a folder; of a repeated run, only the last.

    Raises:
        ZooError: A line is damaged.
    """
    records: dict[Any, Record] = {}
    for file in sorted(folder.glob("*.jsonl")):
        for number, text in enumerate(file.read_bytes().splitlines(), start=1):
            try:
                record = json.loads(text)
                _check(record)
                records[key(record)] = record
            except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
                raise ZooError(f"{file}, line {number}: not a record; remove the line.") from error
    return list(records.values())


def _check(record: dict[str, Any]) -> None:
    """Check that a record holds what this module reads from it.

    Raises:
        ValueError: It does not; other errors if its structure is wrong.
    """
    words = [record["recipe"], record["recipe_sha256"], *record["flags"], record.get("date", "")]
    words += [*record.get("versions", {}).values(), *record.get("code", {}).values()]
    words += [record.get(name) or "" for name in ("device", "device_name", "reason")]
    numbers = [record["seed"], *record.get("seeds", ())]
    if record["status"] == "crashed":
        words.append(record["reason"])
    elif record["status"] in ("finished", "diverged"):
        numbers += [record["test_acc"], record["seconds"]]
    else:
        raise ValueError("no such status")
    for values in record.get("epochs", {}).values():
        numbers += [value for value in values if value is not None]
    numbers += [record["val_acc"]] if record.get("val_acc") is not None else []
    if not all(isinstance(word, str) for word in words):
        raise ValueError("not text")
    if not all(isinstance(number, int | float) and math.isfinite(number) for number in numbers):
        raise ValueError("not a number")


def key(record: Record) -> Key:
    """Return what identifies a run: recipe, hash of its settings, code, flags and seeds.

    The order of an ensemble's seeds does not matter.
    """
    seeds, code = record.get("seeds", [record["seed"]]), dict(record.get("code", {}))
    settings = record["recipe"], record["recipe_sha256"], *sorted(code.items())
    return *settings, tuple(record["flags"]), tuple(sorted(seeds))


def current(records: Iterable[Record], hashes: Mapping[str, str]) -> list[Record]:
    """Return the records made with the current versions of their recipes.

    For a recipe not listed, the user's own file, the settings of its last record are current; for
    custom code, that of the recipe's last record.

    Args:
        records: The runs.
        hashes: Hash of the settings of each known recipe, by name.
    """
    records = list(records)
    now = {r["recipe"]: r["recipe_sha256"] for r in records} | dict(hashes)
    code: dict[str, dict[str, str]] = {}
    for r in records:
        code.setdefault(r["recipe"], {}).update(r.get("code", {}))
    return [
        r
        for r in records
        if now[r["recipe"]] == r["recipe_sha256"]
        and r.get("code", {}).items() <= code[r["recipe"]].items()
    ]


def file_of(folder: Path, recipe: str) -> Path:
    """Return the file of a recipe's records."""
    return folder / f"{recipe}.jsonl"


def append(folder: Path, record: Record) -> None:
    """Append a record to the file of its recipe, atomically: in a single write."""
    folder.mkdir(parents=True, exist_ok=True)
    # JSON has no NaN or infinity, which the losses of a diverged run may be.
    plain = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in record.items()
    }
    with file_of(folder, record["recipe"]).open("ab", buffering=0) as file:
        file.write((json.dumps(plain, allow_nan=False) + "\n").encode())


def line(record: Record) -> str:
    """Return one line on the outcome of a run."""
    flags = " ".join(record["flags"])
    name = f"{record['recipe']} {flags}".strip()
    if record["status"] == "crashed":
        return f"{name}, seed {record['seed']}: crashed, {record['reason']}"
    return (
        f"{name}, seed {record['seed']}: test accuracy {record['test_acc']:.2%}"
        f" ({record['seconds']:.0f} s{', diverged' * (record['status'] == 'diverged')})"
    )


def groups(records: Iterable[Record]) -> dict[Group, list[Record]]:
    """Return the records of each recipe and set of flags."""
    found: dict[Group, list[Record]] = {}
    for record in records:
        found.setdefault((record["recipe"], tuple(record["flags"])), []).append(record)
    return found


def as_published(
    records: Iterable[Record], recipe: str, published_flags: tuple[str, ...]
) -> list[Record]:
    """Return the runs behind a recipe's measured accuracy.

    These are the runs with the flags of the published run or, if there are none, those without
    flags.
    """
    found = groups(record for record in records if record["recipe"] == recipe)
    return found.get((recipe, published_flags)) or found.get((recipe, ())) or []


def measured(records: Iterable[Record]) -> str:
    """Return mean, standard deviation and number of runs of the test accuracy, as text."""
    accuracy = Accuracy.of(records)
    if not accuracy.n:
        return ""
    deviation = "" if math.isnan(accuracy.std) else f" ± {accuracy.std:.2f}"
    return f"{accuracy.mean:.2f}{deviation} % ({accuracy.n})"


@dataclass(frozen=True)
class Accuracy:
    """Test accuracy over runs, in percent; NaN if there are too few runs.

    Attributes:
        n: Number of tested runs: all but those that crashed.
        mean: Mean.
        std: Sample standard deviation.
        lowest: Minimum.
        highest: Maximum.
    """

    n: int
    mean: float = math.nan
    std: float = math.nan
    lowest: float = math.nan
    highest: float = math.nan

    @classmethod
    def of(cls, records: Iterable[Record]) -> Accuracy:
        """Summarise the runs that did not crash."""
        values = [100 * r["test_acc"] for r in records if r["status"] != "crashed"]
        if not values:
            return cls(0)
        std = statistics.stdev(values) if len(values) > 1 else math.nan
        return cls(len(values), statistics.fmean(values), std, min(values), max(values))

    @property
    def half(self) -> float:
        """Half the width of Student's 95 % confidence interval of the mean."""
        return _student_95(self.n) * self.std / math.sqrt(self.n) if self.n else math.nan


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


def circumstances(row: Row) -> list[str]:
    """Return the cells under ``CIRCUMSTANCES``, on how the runs were made.

    These are the median of the seconds, and all devices, versions and dates.
    """
    made = row.made
    versions = [record.get("versions", {}) for record in made]
    dates = sorted({record["date"] for record in made if "date" in record})
    return [
        f"{statistics.median(record['seconds'] for record in made):.0f}" if made else "",
        _distinct(record.get("device_name") or record.get("device") for record in made),
        _distinct(version.get("torch") for version in versions),
        _distinct(version.get("lightning") for version in versions),
        " to ".join(dates[:: max(1, len(dates) - 1)]),
    ]


def table(rows: Sequence[Row], names: Sequence[str] = FIGURES) -> Table:
    """Lay out figures; flags are below their recipe, one per line, never truncated.

    Args:
        rows: The runs.
        names: Which of ``FIGURES``; ``NARROW`` splits them for a narrow terminal.
    """
    chosen = [FIGURES.index(name) for name in names]
    return _table(rows, names, lambda row: [figures(row)[n] for n in chosen])


def circumstances_table(rows: Sequence[Row]) -> Table:
    """Lay out how the runs were made."""
    return _table(rows, CIRCUMSTANCES, circumstances)


def markdown(rows: Sequence[Row]) -> str:
    """Return figures and circumstances as one table in Markdown."""
    numbers = (*FIGURES, *CIRCUMSTANCES)
    lines = []
    for row in rows:
        name = [f"`{row.recipe}`", f"`{' '.join(row.flags)}`" if row.flags else ""]
        lines.append([*name, *figures(row), *circumstances(row)])
    return in_markdown(("recipe", "flags", *numbers), numbers, lines)


def curves(records: Iterable[Record], tag: str) -> dict[Group, list[Curve]]:
    """Return the values by epoch, from 1, of each run that has them, by recipe and flags.

    Args:
        records: The runs.
        tag: A value that records keep by epoch, such as ``val/acc``.
    """
    found: dict[Group, list[Curve]] = {}
    for group, runs in groups(records).items():
        for values in (run.get("epochs", {}).get(tag, ()) for run in runs):
            if any(value is not None for value in values):
                found.setdefault(group, []).append((range(1, len(values) + 1), values))
    return found


def _table(rows: Sequence[Row], names: Sequence[str], cells: Callable[[Row], list[str]]) -> Table:
    out = Table(box=None, pad_edge=False, header_style="bold")
    lines = [line for row in rows for line in (row.recipe, *(f"  {flag}" for flag in row.flags))]
    out.add_column("recipe", overflow="fold", min_width=min(16, max(map(len, lines), default=0)))
    body = [cells(row) for row in rows]
    # An empty column would only narrow the others.
    shown = [n for n in range(len(names)) if any(line[n] for line in body)]
    for n in shown:
        # A truncated number is another number.
        out.add_column(names[n], justify="right", overflow="fold", no_wrap=names[n] != "device")
    for row, line in zip(rows, body, strict=True):
        name = "\n  ".join(map(one_line, (row.recipe, *row.flags)))
        out.add_row(escape(name), *(escape(one_line(line[n])) for n in shown))
    return out


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.2f}"


def _distinct(values: Iterable[str | None]) -> str:
    return ", ".join(dict.fromkeys(value for value in values if value))


def _student_95(n: int) -> float:
    """Return the two-sided 95 % quantile of Student's t with n - 1 degrees of freedom."""
    from scipy.stats import t

    return float(t.ppf(0.975, n - 1)) if n > 1 else math.nan
