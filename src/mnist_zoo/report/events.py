"""What a run wrote for TensorBoard, read back: its scalars and how long it took."""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Mapping, Sequence
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

Scalars = Mapping[str, Sequence[tuple[int, float]]]

# TensorBoard keeps a sample of the scalars unless told to keep all; pictures are not wanted here.
_KEPT = {"scalars": 0, "images": 1, "tensors": 1, "histograms": 1}


def read_scalars(run_folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return the scalars of a run's event files by tag, as (step, value) in the order of steps.

    The files of a run that was stopped and went on are merged; of a step that was written twice,
    the later value counts.

    Args:
        run_folder: The folder that the event files lie in; without any, nothing is returned.
    """
    merged: dict[str, dict[int, float]] = {}
    for events in _event_files(run_folder):
        for tag in events.Tags()["scalars"]:
            merged.setdefault(tag, {}).update((e.step, e.value) for e in events.Scalars(tag))
    return {tag: sorted(values.items()) for tag, values in merged.items()}


def read_seconds(run_folder: Path) -> float:
    """Return for how many seconds a run wrote events, without the time it was stopped for."""
    seconds = 0.0
    for events in _event_files(run_folder):
        times = [e.wall_time for tag in events.Tags()["scalars"] for e in events.Scalars(tag)]
        if times:
            seconds += max(times) - events.FirstEventTimestamp()
    return seconds


def by_epoch(scalars: Scalars, tag: str) -> list[float | None]:
    """Return one value of a tag for each epoch, None where an epoch has none.

    Lightning writes the number of the epoch beside what it logs, under ``epoch``. A value belongs
    to the epoch written nearest to its step; of several in an epoch, the last is taken.

    Args:
        scalars: What ``read_scalars`` returns.
        tag: A tag such as ``val/acc``; one that was never written has a value in no epoch.
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
    """Return the event files of a run in the order in which they were begun.

    Their names say it by the second alone.
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
