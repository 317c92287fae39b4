"""What was read in pictures: best, next best, and where it stood."""

import csv
import io

from rich.console import Console

from mnist_zoo.report import predictions
from mnist_zoo.report.predictions import Reading

READINGS = [
    ("a.png", [Reading((1, 2, 3, 4), [0.1, 0.6, 0.3]), Reading((5, 2, 8, 4), [0.7, 0.05, 0.25])])
]


def shown(*arguments):
    console = Console(width=120)
    with console.capture() as capture:
        console.print(predictions.table(READINGS, *arguments))
    return [line.split() for line in capture.get().splitlines()]


def test_the_table_shows_the_best_and_the_next_best_of_each_digit():
    header, line = shown()
    assert header == ["file", "digit", "probability", "next", "best"]
    assert line == ["a.png", "1", "0", "60.0%", "70.0%", "2", "(30.0%)", "2", "(25.0%)"]


def test_the_table_calls_classes_by_their_names():
    header, line = shown(("o", "ki", "su"))
    assert header[1] == "class"
    assert line == ["a.png", "ki", "o", "60.0%", "70.0%", "su", "(30.0%)", "su", "(25.0%)"]


def test_csv_has_number_place_and_all_probabilities_of_each_digit():
    header, *lines = csv.reader(io.StringIO(predictions.as_csv(READINGS)))
    assert header == [
        "file", "number", "left", "top", "right", "bottom", "prediction", "probability",
        "p0", "p1", "p2",
    ]  # fmt: skip
    assert lines == [
        ["a.png", "0", "1", "2", "3", "4", "1", "0.600000", "0.100000", "0.600000", "0.300000"],
        ["a.png", "1", "5", "2", "8", "4", "0", "0.700000", "0.700000", "0.050000", "0.250000"],
    ]


def test_hundred_percent_is_said_of_nothing_less_nor_zero_of_anything_more():
    shown = [predictions.percent(p) for p in (1.0, 0.99999, 0.5, 0.0004, 0.0)]
    assert shown == ["100.0%", "99.9%", "50.0%", "<0.1%", "0.0%"]
