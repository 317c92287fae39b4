"""Reading back a run's event files for TensorBoard: its scalars and its duration."""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Mapping, Sequence
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

Scalars = Mapping[str, Sequence[tuple[int, float]]]

# 0 keeps all scalars; by default, TensorBoard keeps a sample. The rest is not needed here.
_KEPT = {"scalars": 0, "images": 1, "tensors": 1, "histograms": 1}


def read_scalars(run_folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return the scalars of a run's event files by tag, as (step, value) sorted by step.

    The files of a resumed run are merged; if a step was written twice, the later value counts.

    Args:
        run_folder: The folder of the event files; without any, the result is empty.
    """
    merged: dict[str, dict[int, float]] = {}
    for events in _event_files(run_folder):
        for tag in events.Tags()["scalars"]:
            merged.setdefault(tag, {}).update((e.step, e.value) for e in events.Scalars(tag))
    return {tag: sorted(values.items()) for tag, values in merged.items()}


def read_seconds(run_folder: Path) -> float:
    """Return the duration of a run in seconds, without the time that it was stopped."""
    seconds = 0.0
    for events in _event_files(run_folder):
        times = [e.wall_time for tag in events.Tags()["scalars"] for e in events.Scalars(tag)]
        if times:
            seconds += max(times) - events.FirstEventTimestamp()
    return seconds


def by_epoch(scalars: Scalars, tag: str) -> list[float | None]:
    """Return one value of a tag per epoch, None for epochs without one.

    Lightning logs the number of the epoch with other values, as ``epoch``. A value belongs to the
    epoch logged nearest to its step; if an epoch has several, the last one counts.

    Args:
        scalars: The result of ``read_scalars``.
        tag: A tag such as ``val/acc``; if it was never written, all values are None.
    """
    epochs = {step: int(epoch) for step, epoch in scalars.get("epoch", ())}
    values: list[float | None] = [None] * (max(epochs.values(), default=-1) + 1)
    marked = sorted(epochs)
    for step, value in scalars.get(tag, ()) if epochs else ():
        after = bisect(marked, step)
        nearest = min(marked[max(0, after - 1) : after + 1], key=lambda mark: abs(mark - step))
        values[epochs[nearest]] = value if math.isfinite(value) else None
    return values


def _event_files(run_folder: Path) -> list[EventAccumulator]:
    """Return the event files of a run, sorted by their start.

    Their names give it only to the second.
    """
    files = [
        EventAccumulator(str(file), _KEPT, purge_orphaned_data=False).Reload()
        for file in sorted(run_folder.glob("events.out.tfevents.*"))
    ]
    return sorted(files, key=_begun)


def _begun(events: EventAccumulator) -> float:
    try:
        return float(events.FirstEventTimestamp())
    except ValueError:  # it is empty
        return 0.0
