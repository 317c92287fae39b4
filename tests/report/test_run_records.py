"""Records of runs, and their accuracy over seeds."""

import errno
import io
import json
import os
from pathlib import Path

import pytest

from mnist_zoo.errors import ZooError
from mnist_zoo.report import run_records
from mnist_zoo.report.run_records import Accuracy


def test_records_are_read_as_they_were_written(record, tmp_path):
    records = [record(0, 0.5), record(1, 0.75, flags=["--model.lr=1"])]
    for one in records:
        run_records.append(tmp_path, one)
    assert run_records.read(tmp_path) == records


@pytest.mark.parametrize(
    "change",
    [
        {"test_acc": None},
        {"seconds": "long"},
        {"seconds": "1", "test_acc": "2"},
        {"status": None},
        {"status": "crashed"},
        {"recipe": 1},
        {"recipe": ["a"]},
        {"flags": None},
        {"flags": [1]},
        {"seed": "0"},
        {"seed": 10**400},
        {"seeds": 3},
        {"date": 2026},
        {"versions": []},
        {"versions": {"torch": 2}},
        {"code": {"a": {}}},
        {"device_name": 1},
        {"epochs": [1]},
        {"epochs": {"val/acc": 0.5}},
        {"epochs": {"val/acc": ["x"]}},
        {"val_acc": "x"},
        {"recipe_sha256": None},
    ],
)
def test_a_record_without_its_figures_is_an_error_that_says_where(record, tmp_path, change):
    run_records.append(tmp_path, record(0, 0.5))
    with (tmp_path / "Dense.jsonl").open("a") as file:
        file.write(json.dumps(record(1, 0.5) | change))
    with pytest.raises(ZooError, match=r"Dense.jsonl, line 2: not a record; remove the line."):
        run_records.read(tmp_path)


def test_a_run_made_again_after_a_crash_counts_once(record, tmp_path):
    run_records.append(tmp_path, record(0, None, status="crashed"))
    run_records.append(tmp_path, record(0, 0.9))
    assert [r["status"] for r in run_records.read(tmp_path)] == ["finished"]


def test_a_run_made_again_comes_last(record, tmp_path):
    old, other = {"recipe_sha256": "1"}, {"recipe_sha256": "2"}
    run_records.append(tmp_path, record(0, None, status="crashed") | old)
    run_records.append(tmp_path, record(0, 0.8) | other)
    run_records.append(tmp_path, record(0, 0.9) | old)
    records = run_records.read(tmp_path)
    assert [r["test_acc"] for r in records] == [0.8, 0.9]
    assert [r["test_acc"] for r in run_records.current(records, {})] == [0.9]


def test_of_ensembles_that_share_seeds_only_the_first_counts(record):
    seeds = [[0, 1], [1, 2], [3, 2], [4, 5], [0, 4]]
    records = [record(s[0], 0.5, flags=["--ensemble=2"]) | {"seeds": s} for s in seeds]
    (counted,) = run_records.groups(records).values()
    assert [r["seeds"] for r in counted] == [[0, 1], [3, 2], [4, 5]]


def test_runs_of_different_seeds_flags_and_settings_all_count(record, tmp_path):
    one = record(0, 0.9)
    others = [record(1, 0.9), record(0, 0.9, flags=["--a=1"]), {**one, "recipe_sha256": "1"}]
    for run in (one, *others):
        run_records.append(tmp_path, run)
    assert run_records.read(tmp_path) == [one, *others]


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_written_as_null(record, tmp_path, loss):
    run_records.append(tmp_path, {**record(0, 0.1, status="diverged"), "test_loss": loss})
    (line,) = (tmp_path / "Dense.jsonl").read_text().splitlines()
    assert json.loads(line)["test_loss"] is None


def test_accuracy_over_runs_is_that_of_a_hand_calculation(record):
    accuracy = Accuracy.of([record(seed, acc) for seed, acc in enumerate((0.90, 0.92, 0.94))])
    assert accuracy.n == 3
    assert accuracy.mean == pytest.approx(92)
    assert accuracy.std == pytest.approx(2)
    assert (accuracy.lowest, accuracy.highest) == (90, 94)
    # Student's t for 2 degrees of freedom is 4.303.
    assert accuracy.half == pytest.approx(4.303 * 2 / 3**0.5, abs=1e-3)


def test_what_is_measured_is_the_published_run_where_there_is_one(record):
    published = ("--data.val_size=0",)
    as_it_is = [record(0, 0.5), record(1, 0.1, flags=["--model.lr=9"])]
    to_the_letter = [record(0, 0.90, flags=published), record(1, 0.92, flags=published)]

    def measured(records, recipe="Dense"):
        return str(Accuracy.of(run_records.measured(records, recipe, published)))

    assert measured(as_it_is + to_the_letter) == "91.00 ± 1.41 % (2)"
    assert measured(as_it_is) == "50.00 % (1)"
    assert measured(as_it_is, "Other") == ""


def test_curves_are_by_recipe_and_flags_over_epochs_from_one(record):
    records = [
        {**record(0, 0.9), "epochs": {"val/acc": [0.1, None, 0.3]}},
        {**record(1, 0.9), "epochs": {"val/acc": [0.2, 0.3, 0.4]}},
        {**record(0, 0.9, flags=["--model.lr=1"]), "epochs": {"val/acc": [0.5]}},
        record(2, 0.9),
    ]
    assert run_records.curves(records, "val/acc") == {
        ("Dense", ()): [(range(1, 4), [0.1, None, 0.3]), (range(1, 4), [0.2, 0.3, 0.4])],
        ("Dense", ("--model.lr=1",)): [(range(1, 2), [0.5])],
    }
    assert run_records.curves(records, "train/acc") == {}


@pytest.mark.parametrize("status", ["finished", "diverged", "crashed"])
def test_a_line_says_what_came_out(record, status):
    text = run_records.line(record(3, 0.1234, status=status))
    assert "seed 3" in text
    assert ("crashed" in text) == (status == "crashed")
    assert ("12.34 %" in text) == (status != "crashed")


def test_of_a_file_of_ones_own_the_settings_of_the_last_record_count():
    old, new = (
        {"recipe": "mine", "recipe_sha256": sha, "flags": [], "seed": 0} for sha in ("a", "b")
    )
    assert run_records.current([old, new], {}) == [new]
    assert run_records.current([old, new], {"mine": "a"}) == [old]


def test_a_record_starts_a_line_even_if_the_one_before_has_lost_its_end(record, tmp_path):
    for seed in (0, 1):
        run_records.append(tmp_path, record(seed, 0.5))
        file = tmp_path / "Dense.jsonl"
        file.write_bytes(file.read_bytes().rstrip())
    assert run_records.read(tmp_path) == [record(0, 0.5), record(1, 0.5)]


@pytest.mark.parametrize("room", [0, 20])
def test_a_full_disk_leaves_no_half_record(room, record, tmp_path, monkeypatch):
    run_records.append(tmp_path, record(0, 0.5))

    class Full(io.FileIO):
        def write(self, content):
            if not room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(content[:room])

    monkeypatch.setattr(
        Path, "open", lambda path, mode, buffering: Full(path, mode.replace("b", ""))
    )
    with pytest.raises(ZooError, match=r"cannot write .*Dense\.jsonl: No space left on device\."):
        run_records.append(tmp_path, record(1, 0.5))
    monkeypatch.undo()
    assert run_records.read(tmp_path) == [record(0, 0.5)]


def test_a_line_of_nothing_but_brackets_is_no_record(tmp_path):
    (tmp_path / "Dense.jsonl").write_text("[" * 100_000)
    with pytest.raises(ZooError, match="line 1: not a record"):
        run_records.read(tmp_path)


def test_the_line_of_an_ensemble_names_its_seeds(record):
    ensemble = {**record(3, 0.5, flags=["--ensemble=2"]), "seeds": [3, 7]}
    assert ", seeds 3, 7: test accuracy 50.00 %" in run_records.line(ensemble)
    assert ", seed 3: test accuracy" in run_records.line(record(3, 0.5))
