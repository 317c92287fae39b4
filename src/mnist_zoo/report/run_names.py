"""Names of runs, for the legend of a figure: the settings in which they differ."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, TypeVar

K = TypeVar("K", bound=Hashable)

LINE_WIDTH = 44
"""Characters per line of a name in a legend."""

_NAMED_BY_VALUE = ("recipe", "model", "data")


def run_names(settings: Mapping[K, Mapping[str, Any]]) -> dict[K, str]:
    """Name each of several runs by the settings in which they differ.

    Runs with the same settings have the same name. Uninformative values are left out: None or, if
    no run has that, zero or false.

    Args:
        settings: The settings of each run, by names such as ``trainer.max_epochs``.
    """
    unset = {name for each in settings.values() for name, value in each.items() if value is None}
    found = {}
    for run, each in settings.items():
        told = [
            name
            for name, value in each.items()
            if not (value is None or (value == 0 and name not in unset))
            and any(_differs(each, other, name) for other in settings.values())
        ]
        last = [name.rpartition(".")[2] for name in told]
        words = [str(each[name]) for name in _NAMED_BY_VALUE if name in told]
        words += [
            f"{word if last.count(word) == 1 else name} {_as_typed(each[name])}"
            for name, word in zip(told, last, strict=True)
            if name not in _NAMED_BY_VALUE
        ]
        words = words or [str(each[name]) for name in _NAMED_BY_VALUE if name in each][:1]
        # Keep a name and its value on one line, unless they are too long for it.
        together = [
            word.replace(" ", "\N{NO-BREAK SPACE}") if len(word) < LINE_WIDTH else word
            for word in words
        ]
        found[run] = ", ".join(together)
    return found


def _differs(one: Mapping[str, Any], other: Mapping[str, Any], name: str) -> bool:
    """Return whether a setting distinguishes a run from another.

    A setting that the other's network or data set does not have at all adds nothing to their names.
    """
    if name not in other:
        if name in _NAMED_BY_VALUE:
            return True
        owner = "data" if name.startswith("data.") else "model"
        return one.get(owner) == other.get(owner)
    return bool(one[name] != other[name])


def _as_typed(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
