"""What was read in pictures: best, next best, and where it stood; and in test images."""

import csv
import io
import re

import pytest
import torch
from rich.console import Console

from mnist_zoo.report import predictions
from mnist_zoo.report.predictions import Prediction

READINGS = [
    (
        "a.png",
        [Prediction((1, 2, 3, 4), [0.1, 0.6, 0.3]), Prediction((5, 2, 8, 4), [0.7, 0.05, 0.25])],
    )
]


def shown(classes=predictions.DIGITS):
    console = Console(width=120)
    with console.capture() as capture:
        console.print(predictions.table(READINGS, classes))
    return [re.split(r"\s{2,}", line.strip()) for line in capture.get().splitlines()]


def test_the_table_shows_the_best_and_the_next_best_of_each_digit():
    header, line = shown()
    assert header == ["file", "digit", "probability", "next best"]
    assert line == ["a.png", "1 0", "60.0 %", "70.0 %", "2 (30.0 %)", "2 (25.0 %)"]


def test_the_table_calls_classes_by_their_names():
    header, line = shown(("o", "ki", "su"))
    assert header[1] == "class"
    assert line == ["a.png", "ki o", "60.0 %", "70.0 %", "su (30.0 %)", "su (25.0 %)"]


def test_csv_has_number_place_and_all_probabilities_of_each_digit():
    header, *lines = csv.reader(io.StringIO(predictions.as_csv(READINGS, ("o", "ki", "su"))))
    assert header == [
        "file", "number", "left", "top", "right", "bottom", "prediction", "class", "probability",
        "p0", "p1", "p2",
    ]  # fmt: skip
    assert lines == [
        [
            "a.png",
            "0",
            "1",
            "2",
            "3",
            "4",
            "1",
            "ki",
            "0.600000",
            "0.100000",
            "0.600000",
            "0.300000",
        ],
        [
            "a.png",
            "1",
            "5",
            "2",
            "8",
            "4",
            "0",
            "o",
            "0.700000",
            "0.700000",
            "0.050000",
            "0.250000",
        ],
    ]


def test_hundred_percent_is_said_of_nothing_less_nor_zero_of_anything_more():
    shown = [predictions.percent(p) for p in (1.0, 0.99999, 0.5, 0.0004, 0.0)]
    assert shown == ["100.0 %", ">99.9 %", "50.0 %", "<0.1 %", "0.0 %"]


class TestWritePredictions:
    def test_a_line_an_image(self, tmp_path):
        file = predictions.write_predictions(
            tmp_path / "predictions.csv", torch.tensor([[0.25, 0.75], [0.9, 0.1]])
        )
        with file.open(newline="", encoding="utf-8") as stream:
            assert list(csv.reader(stream)) == [
                ["image", "prediction", "probability", "p0", "p1"],
                ["0", "1", "0.750000", "0.250000", "0.750000"],
                ["1", "0", "0.900000", "0.900000", "0.100000"],
            ]

    def test_replaces_what_was_there_and_leaves_nothing_else(self, tmp_path):
        (tmp_path / "predictions.csv").write_text("old\n" * 100)
        predictions.write_predictions(tmp_path / "predictions.csv", torch.tensor([[1.0]]))
        assert len((tmp_path / "predictions.csv").read_text().splitlines()) == 2
        assert list(tmp_path.iterdir()) == [tmp_path / "predictions.csv"]

    def test_keeps_what_was_there_when_it_fails(self, tmp_path):
        (tmp_path / "predictions.csv").write_text("old")
        with pytest.raises(IndexError):
            predictions.write_predictions(tmp_path / "predictions.csv", torch.zeros(3))
        assert (tmp_path / "predictions.csv").read_text() == "old"
