"""Runs of a sweep to look at, and workers that need no time for them."""

import pytest

from mnist_zoo.commands.sweep.plan import parse_grid, runs_of
from mnist_zoo.report import run_records


@pytest.fixture
def plan():
    """Return the runs that recipes, flags and seeds come to."""

    def planned(flags=(), recipes=("Dense",), seeds=(0, 1)):
        return list(runs_of(recipes, parse_grid(flags), seeds))

    return planned


@pytest.fixture
def comparable():
    """Return the records of a folder, without what no two runs have in common."""

    def read(folder):
        found = run_records.read(folder)
        for record in found:
            del record["seconds"], record["date"]
        return sorted(found, key=lambda record: record["seed"])

    return read


class Recorded:
    """Workers that train nothing and remember what they were asked for."""

    def __init__(self):
        self.made = []

    def make(self, run, on_epoch):
        self.made.append(run)
        if run.seed == 13:
            return run.crashed("ValueError: boom")
        return run.record({"status": "finished", "test_acc": 0.5, "seconds": 1.0})

    def stop(self, at_once):
        raise AssertionError("nothing was to be stopped")


@pytest.fixture
def recorded():
    """Give the class of such workers, of which the run of seed 13 crashes."""
    return Recorded
