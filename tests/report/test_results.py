"""Records of runs and the table over seeds."""

import json

import pytest
from rich.console import Console

from mnist_zoo.errors import ZooError
from mnist_zoo.report import results
from mnist_zoo.report.results import Accuracy, Row


def record(seed, acc, status="finished", flags=()):
    base = {"recipe": "Dense", "recipe_sha256": "0", "flags": list(flags), "seed": seed}
    base |= {"status": status}
    if status == "crashed":
        return {**base, "reason": "ValueError: boom"}
    return {**base, "test_acc": acc, "seconds": 12.3}


def shown(records, width=200):
    console = Console(width=width)
    with console.capture() as capture:
        console.print(results.table(results.rows(records)))
    return capture.get().splitlines()


def test_records_are_read_as_they_were_written(tmp_path):
    records = [record(0, 0.5), record(1, 0.75, flags=["--model.lr=1"])]
    for one in records:
        results.append(tmp_path, one)
    assert results.read(tmp_path) == records


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
def test_a_record_without_its_figures_is_an_error_that_says_where(tmp_path, change):
    results.append(tmp_path, record(0, 0.5))
    with (tmp_path / "Dense.jsonl").open("a") as file:
        file.write(json.dumps(record(1, 0.5) | change))
    with pytest.raises(ZooError, match=r"Dense.jsonl, line 2: not a record; remove the line."):
        results.read(tmp_path)


def test_a_run_made_again_after_a_crash_counts_once(tmp_path):
    results.append(tmp_path, record(0, None, status="crashed"))
    results.append(tmp_path, record(0, 0.9))
    assert [r["status"] for r in results.read(tmp_path)] == ["finished"]


def test_runs_of_different_seeds_flags_and_settings_all_count(tmp_path):
    one = record(0, 0.9)
    others = [record(1, 0.9), record(0, 0.9, flags=["--a=1"]), {**one, "recipe_sha256": "1"}]
    for run in (one, *others):
        results.append(tmp_path, run)
    assert results.read(tmp_path) == [one, *others]


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_written_as_null(tmp_path, loss):
    results.append(tmp_path, {**record(0, 0.1, status="diverged"), "test_loss": loss})
    (line,) = (tmp_path / "Dense.jsonl").read_text().splitlines()
    assert json.loads(line)["test_loss"] is None


def test_accuracy_over_runs_is_that_of_a_hand_calculation():
    accuracy = Accuracy.of([record(seed, acc) for seed, acc in enumerate((0.90, 0.92, 0.94))])
    assert accuracy.n == 3
    assert accuracy.mean == pytest.approx(92)
    assert accuracy.std == pytest.approx(2)
    assert (accuracy.lowest, accuracy.highest) == (90, 94)
    # Student's t for 2 degrees of freedom is 4.303.
    assert accuracy.half == pytest.approx(4.303 * 2 / 3**0.5, abs=1e-3)


def test_the_table_gives_mean_deviation_and_interval():
    header, line = shown([record(seed, acc) for seed, acc in enumerate((0.90, 0.92, 0.94))])
    assert header.split() == ["recipe", "n", "mean", "std", "min–max", "95", "%", "interval"]
    assert line.split() == ["Dense", "3", "92.00", "2.00", "90.00–94.00", "87.03–96.97"]


def test_two_runs_have_no_interval():
    header, line = shown([record(0, 0.90), record(1, 0.94)])
    assert "interval" not in header
    assert line.split() == ["Dense", "2", "92.00", "2.83", "90.00–94.00"]


@pytest.mark.parametrize(
    ("accs", "interval"), [((0.90, 0.99, 1.0), "82.65–100.00"), ((0.0, 0.01, 0.1), "0.00–17.35")]
)
def test_an_interval_does_not_leave_the_range_of_accuracies(accs, interval):
    _, line = shown([record(seed, acc) for seed, acc in enumerate(accs)])
    assert line.split()[-1] == interval


def test_crashed_and_diverged_runs_are_counted_as_failed():
    failed = [record(1, None, status="crashed"), record(2, 0.1, status="diverged")]
    header, line = shown([record(0, 0.9), *failed])
    assert header.split()[-1] == "failed"
    assert line.split()[:3] == ["Dense", "2", "50.00"]
    assert line.split()[-1] == "2"


def test_runs_that_all_crashed_have_no_figures():
    _, line = shown([record(0, None, status="crashed")])
    assert line.split() == ["Dense", "0", "1"]


def test_flags_are_not_cut_in_a_narrow_terminal():
    flags = ["--model.scheduler_args={pct_start: 0.25, three_phase: false}", "--model.lr=[1]"]
    text = shown([record(0, 0.9, flags=flags)], width=80)
    folded = "".join(text[2:]).replace(" ", "")
    for flag in flags:
        assert flag.replace(" ", "") in folded


def test_circumstances_are_the_median_time_and_all_that_differed():
    made = {"device": "cpu", "versions": {"torch": "2.6", "lightning": "2.6.0"}, "val_acc": 0.5}
    records = [
        {**record(0, 0.9), **made, "date": "2026-01-02", "seconds": 10},
        {**record(1, 0.9), **made, "date": "2026-01-01", "seconds": 12, "device_name": "A chip"},
        {**record(2, 0.9), "seconds": 50},
    ]
    (row,) = results.rows(records)
    assert results.circumstances(row) == [
        "12", "cpu, A chip", "2.6", "2.6.0", "2026-01-01 to 2026-01-02",
    ]  # fmt: skip


def test_what_a_choice_may_rest_on_stands_beside_the_test_accuracy():
    header, line = shown([{**record(0, 0.9), "val_acc": 0.5}, {**record(1, 0.9), "val_acc": 0.7}])
    assert header.split()[:4] == ["recipe", "n", "validation", "mean"]
    assert line.split()[:4] == ["Dense", "2", "60.00", "90.00"]


@pytest.mark.parametrize(("holds", "word"), [(True, "yes"), (False, "no"), (None, "")])
def test_markdown_says_whether_the_published_figure_holds(holds, word):
    row = Row("Dense", ("--data.val_size=0",), [record(0, 0.9)], "91.00 %", holds)
    header, _, line = (
        [cell.strip() for cell in text.strip("|").split("|")]
        for text in results.markdown([row]).splitlines()
    )
    cells = dict(zip(header, line, strict=True))
    assert cells["recipe"] == "`Dense`"
    assert cells["flags"] == "`--data.val_size=0`"
    assert (cells["published"], cells["holds"]) == ("91.00 %", word)


def test_what_is_measured_is_the_published_run_where_there_is_one():
    published = ("--data.val_size=0",)
    as_it_is = [record(0, 0.5), record(1, 0.1, flags=["--model.lr=9"])]
    to_the_letter = [record(0, 0.90, flags=published), record(1, 0.92, flags=published)]

    def measured(records, recipe="Dense"):
        return results.measured(results.as_published(records, recipe, published))

    assert measured(as_it_is + to_the_letter) == "91.00 ± 1.41 % (2)"
    assert measured(as_it_is) == "50.00 % (1)"
    assert measured(as_it_is, "Other") == ""


def test_curves_are_by_recipe_and_flags_over_epochs_from_one():
    records = [
        {**record(0, 0.9), "epochs": {"val/acc": [0.1, None, 0.3]}},
        {**record(1, 0.9), "epochs": {"val/acc": [0.2, 0.3, 0.4]}},
        {**record(0, 0.9, flags=["--model.lr=1"]), "epochs": {"val/acc": [0.5]}},
        record(2, 0.9),
    ]
    assert results.curves(records, "val/acc") == {
        ("Dense", ()): [(range(1, 4), [0.1, None, 0.3]), (range(1, 4), [0.2, 0.3, 0.4])],
        ("Dense", ("--model.lr=1",)): [(range(1, 2), [0.5])],
    }
    assert results.curves(records, "train/acc") == {}


@pytest.mark.parametrize("status", ["finished", "diverged", "crashed"])
def test_a_line_says_what_came_out(status):
    text = results.line(record(3, 0.1234, status=status))
    assert "seed 3" in text
    assert ("crashed" in text) == (status == "crashed")
    assert ("12.34%" in text) == (status != "crashed")


def test_of_a_file_of_ones_own_the_settings_of_the_last_record_count():
    old, new = (
        {"recipe": "mine", "recipe_sha256": sha, "flags": [], "seed": 0} for sha in ("a", "b")
    )
    assert results.current([old, new], {}) == [new]
    assert results.current([old, new], {"mine": "a"}) == [old]


def test_what_strangers_write_into_records_stays_in_its_cell():
    odd = "\x1b[31m[link=file:///etc]a[/link]\nb|c"
    row = Row(odd, (), [record(0, 0.5) | {"recipe": odd, "device_name": odd}])
    console = Console(width=200)
    with console.capture() as capture:
        console.print(results.circumstances_table([row]))
    for text in (capture.get(), results.markdown([row])):
        assert "\x1b" not in text
        assert "[link=file:///etc]a[/link] b" in text
    assert len(results.markdown([row]).splitlines()) == 3
    assert r"b\|c" in results.markdown([row])


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_number_is_cut_in_a_narrow_terminal(width, monkeypatch, capsys):
    from mnist_zoo.commands import results as command

    monkeypatch.setenv("COLUMNS", str(width))
    records = [record(seed, acc) for seed, acc in enumerate((0.99211, 0.99314, 0.99262))]
    command._print([Row("Dense", ("--data.val_size=0",), records, "99.43 %", True)])
    out = capsys.readouterr().out
    for text in ("99.26", "99.21–99.31", "99.43 %", "yes", "published", "holds"):
        assert text in out
