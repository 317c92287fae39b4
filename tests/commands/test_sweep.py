"""Sweeps: every combination once, recorded whole, and never run twice."""

import pytest

from mnist_zoo.commands import sweep
from mnist_zoo.errors import ZooError
from mnist_zoo.report import results


def plan(flags, recipes=("Dense",), seeds=2):
    return list(sweep._plan(list(recipes), list(flags), seeds))


def test_the_plan_is_the_product_of_recipes_values_and_seeds():
    runs = plan(["--model.lr", "1,2", "--data.batch_size=5"], recipes=("Dense", "ConvNetReLU"))
    assert len(set(runs)) == len(runs) == 8
    assert runs[0] == sweep.Run("Dense", ("--model.lr=1", "--data.batch_size=5"), 0)
    assert len({run.folder for run in runs}) == 8


def test_a_word_that_is_no_flag_is_refused():
    with pytest.raises(ZooError, match="oops"):
        plan(["--model.lr=1", "oops"])


def test_an_unknown_recipe_is_an_error_before_anything_runs(cli):
    result = cli("sweep", "Densee", status=2)
    assert "Did you mean Dense?" in result.err


@pytest.mark.slow
class TestOnDigits:
    ARGUMENTS = (
        "sweep", "ConvNetReLU-digits", "--seeds", "2", "--trainer.max_epochs", "1",
        "--trainer.accelerator", "cpu",
    )  # fmt: skip

    def test_runs_are_recorded_and_only_missing_ones_are_made(self, zoo, tmp_path):
        first = zoo(*self.ARGUMENTS)
        assert first.returncode == 0, first.stderr
        records = results.read(tmp_path / "results")
        assert [(r["seed"], r["status"], r["weights"]) for r in records] == [
            (0, "finished", "best"),
            (1, "finished", "best"),
        ]
        assert all(r["num_steps"] == 41 and 0 < r["test_acc"] < 1 for r in records)
        assert records[0]["test_acc"] != records[1]["test_acc"]

        file = tmp_path / "results" / "ConvNetReLU-digits.jsonl"
        lines = file.read_text().splitlines(keepends=True)
        file.write_text(lines[1])
        again = zoo(*self.ARGUMENTS)
        assert "2 runs, 1 of them recorded already" in again.stdout
        remade = {r["seed"]: r for r in results.read(tmp_path / "results")}
        assert remade[0]["test_acc"] == records[0]["test_acc"]
        assert remade[1] == records[1]

    def test_a_crashed_run_stops_no_other(self, zoo, tmp_path):
        result = zoo(
            "sweep", "ConvNetReLU-digits", "--seeds", "1", "--data.num_train", "99999,100",
            "--trainer.max_epochs", "1",
        )  # fmt: skip
        assert result.returncode == 1, result.stderr
        assert sorted(r["status"] for r in results.read(tmp_path / "results")) == [
            "crashed",
            "finished",
        ]
        assert "99999" in result.stdout
