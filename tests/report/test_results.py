"""Records of runs and the table over seeds."""

import json

import pytest
from rich.console import Console

from mnist_zoo.report import results


def record(seed, acc, status="finished", flags=()):
    base = {"recipe": "Dense", "flags": list(flags), "seed": seed, "status": status}
    if status == "crashed":
        return {**base, "reason": "ValueError: boom"}
    return {**base, "test_acc": acc, "seconds": 12.3}


def shown(records):
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    console.print(results.table(records))
    return console.export_text().splitlines()


def test_records_are_read_as_they_were_written(tmp_path):
    records = [record(0, 0.5), record(1, 0.75, flags=["--model.lr=1"])]
    for one in records:
        results.append(tmp_path, one)
    assert results.read(tmp_path) == records


def test_a_run_made_again_after_a_crash_counts_once(tmp_path):
    results.append(tmp_path, record(0, None, status="crashed"))
    results.append(tmp_path, record(0, 0.9))
    assert [r["status"] for r in results.read(tmp_path)] == ["finished"]


def test_not_a_number_is_written_as_null(tmp_path):
    results.append(tmp_path, {**record(0, 0.1, status="diverged"), "test_loss": float("nan")})
    (line,) = (tmp_path / "Dense.jsonl").read_text().splitlines()
    assert json.loads(line)["test_loss"] is None


def test_the_table_gives_mean_deviation_and_interval():
    text = " ".join(shown([record(seed, acc) for seed, acc in enumerate((0.90, 0.92, 0.94))])[1:])
    assert text.split()[:9] == [
        "Dense",
        "3",
        "92.00",
        "2.00",
        "90.00",
        "94.00",
        "87.03",
        "to",
        "96.97",
    ]


def test_crashed_runs_are_counted_apart():
    text = " ".join(shown([record(0, 0.9), record(1, None, status="crashed")])[1:])
    assert text.split() == ["Dense", "1", "90.00", "90.00", "90.00", "1"]


@pytest.mark.parametrize("status", ["finished", "diverged", "crashed"])
def test_a_line_says_what_came_out(status):
    text = results.line(record(3, 0.1234, status=status))
    assert "seed 3" in text
    assert ("crashed" in text) == (status == "crashed")
    assert ("12.34%" in text) == (status != "crashed")
