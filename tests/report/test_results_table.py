"""The table over seeds."""

import pytest
from rich.console import Console

from mnist_zoo.report import results_table
from mnist_zoo.report.results_table import Row


def shown(records, width=200):
    console = Console(width=width)
    with console.capture() as capture:
        console.print(results_table.table(results_table.rows(records)))
    return capture.get().splitlines()


def test_the_table_gives_mean_deviation_and_interval(record):
    header, line = shown([record(seed, acc) for seed, acc in enumerate((0.90, 0.92, 0.94))])
    assert header.split() == ["recipe", "n", "mean", "std", "min–max", "95", "%", "interval"]
    assert line.split() == ["Dense", "3", "92.00", "2.00", "90.00–94.00", "87.03–96.97"]


def test_two_runs_have_no_interval(record):
    header, line = shown([record(0, 0.90), record(1, 0.94)])
    assert "interval" not in header
    assert line.split() == ["Dense", "2", "92.00", "2.83", "90.00–94.00"]


@pytest.mark.parametrize(
    ("accs", "interval"), [((0.90, 0.99, 1.0), "82.65–100.00"), ((0.0, 0.01, 0.1), "0.00–17.35")]
)
def test_an_interval_does_not_leave_the_range_of_accuracies(record, accs, interval):
    _, line = shown([record(seed, acc) for seed, acc in enumerate(accs)])
    assert line.split()[-1] == interval


def test_crashed_and_diverged_runs_are_counted_as_failed(record):
    failed = [record(1, None, status="crashed"), record(2, 0.1, status="diverged")]
    header, line = shown([record(0, 0.9), *failed])
    assert header.split()[-1] == "failed"
    assert line.split()[:3] == ["Dense", "2", "50.00"]
    assert line.split()[-1] == "2"


def test_runs_that_all_crashed_have_no_figures(record):
    _, line = shown([record(0, None, status="crashed")])
    assert line.split() == ["Dense", "0", "1"]


def test_flags_are_not_cut_in_a_narrow_terminal(record):
    flags = ["--model.scheduler_args={pct_start: 0.25, three_phase: false}", "--model.lr=[1]"]
    text = shown([record(0, 0.9, flags=flags)], width=80)
    folded = "".join(text[2:]).replace(" ", "")
    for flag in flags:
        assert flag.replace(" ", "") in folded


def test_circumstances_are_the_median_time_and_all_that_differed(record):
    made = {"device": "cpu", "versions": {"torch": "2.6", "lightning": "2.6.0"}, "val_acc": 0.5}
    records = [
        {**record(0, 0.9), **made, "date": "2026-01-02", "seconds": 10},
        {**record(1, 0.9), **made, "date": "2026-01-01", "seconds": 12, "device_name": "A chip"},
        {**record(2, 0.9), "seconds": 50},
    ]
    (row,) = results_table.rows(records)
    dates = ["2026-01-01", "2026-01-02"]
    expected = "12", ["cpu", "A chip"], ["2.6"], ["2.6.0"], dates
    assert results_table.circumstances(row) == expected


def test_what_a_choice_may_rest_on_stands_beside_the_test_accuracy(record):
    header, line = shown([{**record(0, 0.9), "val_acc": 0.5}, {**record(1, 0.9), "val_acc": 0.7}])
    assert header.split()[:4] == ["recipe", "n", "validation", "mean"]
    assert line.split()[:4] == ["Dense", "2", "60.00", "90.00"]


@pytest.mark.parametrize(("holds", "word"), [(True, "yes"), (False, "no"), (None, "")])
def test_markdown_says_whether_the_published_figure_holds(record, holds, word):
    row = Row("Dense", ("--data.val_size=0",), [record(0, 0.9)], "91.00 %", holds)
    header, _, line = (
        [cell.strip() for cell in text.strip("|").split("|")]
        for text in results_table.markdown([row]).splitlines()
    )
    cells = dict(zip(header, line, strict=True))
    assert cells["recipe"] == "`Dense`"
    assert cells["flags"] == "`--data.val_size=0`"
    assert (cells["published"], cells["holds"]) == ("91.00 %", word)


def test_circumstances_fit_into_eighty_columns(record):
    device = "AMD Ryzen Threadripper 3990X 64-Core Processor"
    made = record(0, 0.5) | {"device_name": device, "date": "2026-11-27", "seconds": 5555.0}
    made["versions"] = {"torch": "2.14.1+cu130", "lightning": "2.6.6"}
    row = Row("ConvNetBatchNorm-99.5-gpu", ("--data.val_size=0",), [made])
    console = Console(width=80)
    with console.capture() as capture:
        console.print(results_table.circumstances_table([row]))
    lines = capture.get().splitlines()
    assert max(map(len, lines)) <= 80
    for whole in ("ConvNetBatchNorm-99.5-gpu", "2026-11-27", *device.split()[:-1]):
        assert any(whole in line for line in lines)


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("Intel(R) Xeon(R) Processor @ 2.50GHz", "Intel Xeon"),
        ("11th Gen Intel(R) Core(TM) i7-1165G7 @ 2.80GHz", "11th Gen Intel Core i7-1165G7"),
        ("Intel(R) Core(TM) i5-8250U CPU @ 1.60GHz", "Intel Core i5-8250U"),
        ("AMD EPYC", "AMD EPYC"),
        ("NVIDIA GeForce GTX 1660 Ti", "NVIDIA GeForce GTX 1660 Ti"),
    ],
)
def test_devices_are_named_in_short(record, name, short):
    row = Row("Dense", (), [record(0, 0.5) | {"device_name": name}])
    assert results_table.circumstances(row)[1] == [short]


def test_what_strangers_write_into_records_stays_in_its_cell(record):
    odd = "\x1b[31m[link=file:///etc]a[/link]\nb|c"
    row = Row(odd, (), [record(0, 0.5) | {"recipe": odd, "device_name": odd}])
    console = Console(width=200)
    with console.capture() as capture:
        console.print(results_table.circumstances_table([row]))
    for text in (capture.get(), results_table.markdown([row])):
        assert "\x1b" not in text
        assert "[link=file:///etc]a[/link] b" in text
    assert len(results_table.markdown([row]).splitlines()) == 3
    assert r"b\|c" in results_table.markdown([row])


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120])
def test_no_number_is_cut_in_a_narrow_terminal(record, width, monkeypatch, capsys):
    from mnist_zoo.commands import results as command

    monkeypatch.setenv("COLUMNS", str(width))
    records = [record(seed, acc) for seed, acc in enumerate((0.99211, 0.99314, 0.99262))]
    command._print([Row("Dense", ("--data.val_size=0",), records, "99.43 %", True)])
    out = capsys.readouterr().out
    for text in ("99.26", "99.21–99.31", "99.43 %", "yes", "published", "holds"):
        assert text in out
