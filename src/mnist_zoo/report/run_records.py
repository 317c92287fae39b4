"""Records of runs, one line of JSON each, and their accuracy over seeds."""

from __future__ import annotations

import errno
import json
import math
import os
import statistics
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_zoo.errors import ZooError

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
                # In the order of the last ones.
                records.pop(key(record), None)
                records[key(record)] = record
            except (
                LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RecursionError,
            ) as error:  # fmt: skip
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
    """Append a record to the file of its recipe, in a single write; whole or not at all.

    Raises:
        ZooError: It cannot be written, as on a full disk.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # JSON has no NaN or infinity, which the losses of a diverged run may be.
    plain = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in record.items()
    }
    line = (json.dumps(plain, allow_nan=False) + "\n").encode()
    with file_of(folder, record["recipe"]).open("a+b", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # lost, perhaps when the file was edited
                line = b"\n" + line
        try:
            if file.write(line) != len(line):
                file.truncate(size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise ZooError(f"cannot write {file.name}: {error.strerror}.") from error


def line(record: Record) -> str:
    """Return one line on the outcome of a run."""
    flags = " ".join(record["flags"])
    # An ensemble has several.
    seeds = record.get("seeds", [record["seed"]])
    which = f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
    name = f"{record['recipe']} {flags}".strip() + f", {which}"
    if record["status"] == "crashed":
        return f"{name}: crashed, {record['reason']}"
    return (
        f"{name}: test accuracy {100 * record['test_acc']:.2f} %"
        f" ({record['seconds']:.0f} s{', diverged' * (record['status'] == 'diverged')})"
    )


def groups(records: Iterable[Record]) -> dict[Group, list[Record]]:
    """Return the records of each recipe and set of flags.

    Ensembles that share seeds are not independent: of these, only the first counts.
    """
    found: dict[Group, list[Record]] = {}
    counted: dict[Group, set[int]] = {}
    for record in records:
        group, seeds = (record["recipe"], tuple(record["flags"])), {*record.get("seeds", ())}
        before = counted.setdefault(group, set())
        if seeds.isdisjoint(before):
            found.setdefault(group, []).append(record)
            before |= seeds
    return found


def measured(records: Iterable[Record], recipe: str, flags: tuple[str, ...]) -> list[Record]:
    """Return the runs behind a recipe's measured accuracy.

    These are the runs with the flags with which it is measured or, if there are none, those without
    flags.
    """
    found = groups(record for record in records if record["recipe"] == recipe)
    return found.get((recipe, flags)) or found.get((recipe, ())) or []


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

    def __str__(self) -> str:
        """Return mean, standard deviation and number of runs; nothing without runs."""
        if not self.n:
            return ""
        deviation = "" if math.isnan(self.std) else f" ± {self.std:.2f}"
        return f"{self.mean:.2f}{deviation} % ({self.n})"

    @property
    def half(self) -> float:
        """Half the width of Student's 95 % confidence interval of the mean."""
        if self.n < 2:
            return math.nan
        from scipy.stats import t

        return float(t.ppf(0.975, self.n - 1)) * self.std / math.sqrt(self.n)
