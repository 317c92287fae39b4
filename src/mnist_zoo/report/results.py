"""Records of runs: one line of JSON a run, and the table over seeds."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from mnist_zoo.errors import ZooError

Record = Mapping[str, Any]


def read(folder: Path) -> list[dict[str, Any]]:
    """Return the records of a folder; of a run made again, only the last.

    Raises:
        ZooError: A line is damaged.
    """
    records: dict[Any, dict[str, Any]] = {}
    for file in sorted(folder.glob("*.jsonl")):
        for number, text in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            try:
                record = json.loads(text)
                records[key(record)] = record
            except (ValueError, KeyError, TypeError) as error:
                raise ZooError(f"{file}, line {number}: not a record; remove the line.") from error
    return list(records.values())


def key(record: Record) -> tuple[str, tuple[str, ...], int]:
    """Return what tells one run from another: recipe, flags and seed."""
    return record["recipe"], tuple(record["flags"]), record["seed"]


def append(folder: Path, record: Record) -> None:
    """Add a record to the file of its recipe, whole: in a single write to the end of the file."""
    folder.mkdir(parents=True, exist_ok=True)
    # JSON knows no NaN, which a diverged run has for its losses.
    plain = {name: None if value != value else value for name, value in record.items()}
    with (folder / f"{record['recipe']}.jsonl").open("ab", buffering=0) as file:
        file.write((json.dumps(plain, allow_nan=False) + "\n").encode())


def line(record: Record) -> str:
    """Say in a line what came out of a run."""
    flags = " ".join(record["flags"])
    name = f"{record['recipe']} {flags}".strip()
    if record["status"] == "crashed":
        return f"{name}, seed {record['seed']}: crashed, {record['reason']}"
    return (
        f"{name}, seed {record['seed']}: test accuracy {record['test_acc']:.2%}"
        f" ({record['seconds']:.0f} s{', diverged' * (record['status'] == 'diverged')})"
    )


def groups(records: Iterable[Record]) -> dict[tuple[str, tuple[str, ...]], list[Record]]:
    """Return the records of each recipe and set of flags."""
    found: dict[tuple[str, tuple[str, ...]], list[Record]] = {}
    for record in records:
        found.setdefault((record["recipe"], tuple(record["flags"])), []).append(record)
    return found


def measured(records: Iterable[Record], recipe: str) -> str:
    """Return mean, standard deviation and number of seeds of a recipe's test accuracy.

    What counts are the runs of the recipe as it was published, with nothing held out, where there
    are any, and else those of the recipe as it is.
    """
    found = groups(record for record in records if record["recipe"] == recipe)
    chosen = found.get((recipe, ("--data.val_size=0",))) or found.get((recipe, ())) or []
    acc = [100 * record["test_acc"] for record in chosen if record["status"] != "crashed"]
    if not acc:
        return ""
    mean, std = _mean_and_std(acc)
    deviation = "" if math.isnan(std) else f" ± {std:.2f}"
    return f"{mean:.2f}{deviation} % ({len(acc)})"


def table(records: Iterable[Record]) -> Table:
    """Lay out test accuracy over seeds: n, mean, deviation, range, 95 % interval of the mean.

    The interval is Student's; runs that crashed are counted apart.
    """
    out = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("recipe", "flags", "n", "mean", "std", "min", "max", "95 % interval", "failed"):
        out.add_column(column, justify="left" if column in ("recipe", "flags") else "right")
    for (recipe, flags), found in groups(records).items():
        acc = [100 * r["test_acc"] for r in found if r["status"] != "crashed"]
        failed = sum(r["status"] != "finished" for r in found)
        cells = [str(len(acc))]
        if acc:
            mean, std = _mean_and_std(acc)
            half = _student_95(len(acc)) * std / math.sqrt(len(acc))
            cells += [f"{mean:.2f}", f"{std:.2f}" if len(acc) > 1 else ""]
            cells += [f"{min(acc):.2f}", f"{max(acc):.2f}"]
            cells += [f"{mean - half:.2f} to {mean + half:.2f}" if len(acc) > 1 else ""]
        out.add_row(recipe, " ".join(flags), *cells, *[""] * (6 - len(cells)), str(failed or ""))
    return out


def _mean_and_std(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and sample standard deviation, which is not a number for a single value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else math.nan


def _student_95(n: int) -> float:
    """Return the two-sided 95 % quantile of Student's t with n - 1 degrees of freedom."""
    from scipy.stats import t

    return float(t.ppf(0.975, n - 1)) if n > 1 else math.nan
