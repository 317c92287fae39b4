"""Names of runs in a legend."""

import pytest

from mnist_zoo.report.run_names import run_names


def as_read(names):
    return {run: name.replace("\N{NO-BREAK SPACE}", " ") for run, name in names.items()}


def test_runs_are_named_by_what_they_have_differently():
    settings = {
        "a": {"model": "Net", "lr": 0.1, "optimizer": "SGD"},
        "b": {"model": "Net", "lr": 0.2, "optimizer": "SGD"},
        "c": {"model": "Other", "optimizer": "SGD"},
    }
    told = {
        run: name.replace("\N{NO-BREAK SPACE}", " ") for run, name in run_names(settings).items()
    }
    assert told == {"a": "Net, lr 0.1", "b": "Net, lr 0.2", "c": "Other"}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((None, 300), ["Net", "x 300"]),
        ((0.0, 12.5), ["Net", "x 12.5"]),
        ((False, True), ["Net", "x true"]),
        ((None, 0, 500), ["Net", "x 0", "x 500"]),
        ((1, 2), ["x 1", "x 2"]),
    ],
)
def test_a_value_that_says_nothing_is_left_out_and_names_stay_different(values, expected):
    told = run_names({value: {"model": "Net", "x": value} for value in values})
    assert list(as_read(told).values()) == expected
