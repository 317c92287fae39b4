"""Ensembles of a sweep: the mean probabilities of the networks of several seeds.

An ensemble chooses nothing by the test images either: its runs are over and their weights settled
beforehand, and its members are the seeds in the order in which they were given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mnist_zoo import registry
from mnist_zoo.commands.shared.checkpoint_data import data_with_test_images
from mnist_zoo.commands.sweep.plan import Run
from mnist_zoo.commands.sweep.run import last_checkpoint, rounded, tested_weights
from mnist_zoo.errors import ZooError
from mnist_zoo.report import run_records
from mnist_zoo.report.run_records import Key, Record


def groups(plan: Sequence[Run], size: int) -> list[list[Run]]:
    """Return the ensembles: each of ``size`` seeds of one recipe and set of flags, disjoint."""
    alike: dict[Run, list[Run]] = {}
    for run in plan:
        alike.setdefault(replace(run, seed=0), []).append(run)
    return [
        runs[first : first + size]
        for runs in alike.values()
        for first in range(0, len(runs) - size + 1, size)
    ]


def run_of(members: Sequence[Run]) -> Run:
    """Return an ensemble as a run, for its record: its size is a flag, its seed the first."""
    first = members[0]
    return replace(first, flags=(*first.flags, f"--ensemble={len(members)}"))


def key(members: Sequence[Run]) -> Key:
    """Return the key of an ensemble's record."""
    return run_records.key(run_of(members).record({"seeds": [run.seed for run in members]}))


def test(members: Sequence[Run], records: Sequence[Record], runs: Path) -> dict[str, Any]:
    """Test an ensemble; return its record.

    Args:
        members: The runs, which differ only in their seeds.
        records: Their records.
        runs: The folder of all runs.

    Raises:
        ZooError: The weights of a run are missing.
    """
    import torch

    from mnist_zoo.models import checkpoint as checkpoints

    registry.look_into_current_folder()
    of_a_gpu = any(record.get("device") == "cuda" for record in records)
    device = "cuda" if of_a_gpu and torch.cuda.is_available() else "cpu"
    total, targets = torch.zeros(()), torch.zeros(0)
    for run in members:
        last = last_checkpoint(runs / run.folder)
        if last is None:
            raise ZooError(f"the weights of {run.title} are not in {runs / run.folder}.")
        checkpoint = checkpoints.read(tested_weights(last))
        if not len(targets):
            assert checkpoint.data is not None
            root = dict(flag.split("=", 1) for flag in run.of_the_machine).get("--data.root")
            data = data_with_test_images(checkpoint, checkpoint.data["class_path"], root)
            images, targets = data.splits["test"]
        network = checkpoints.build(checkpoint, named=checkpoint.model["class_path"])
        total = total + network.to(device).predict(images).cpu()
    mean = total / len(members)
    right = mean.argmax(dim=1) == targets
    probability = mean.gather(1, targets[:, None]).clamp(min=torch.finfo(mean.dtype).tiny)
    newest = max(records, key=lambda record: record["date"])
    shared = ("num_train_images", "num_epochs", "device", "device_name", "num_threads", "versions")
    return run_of(members).record(
        {
            "seeds": [run.seed for run in members],
            "status": "finished",
            "weights": newest["weights"],
            "test_acc": rounded(float(right.double().mean())),
            "test_loss": rounded(-float(probability.log().mean())),
            "num_steps": sum(record["num_steps"] for record in records),
            "seconds": round(sum(record["seconds"] for record in records), 1),
            **{name: newest[name] for name in shared if name in newest},
        }
    )
