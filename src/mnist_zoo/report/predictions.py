"""Predictions for pictures as a table, CSV or JSON, and for test images as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table
from torch import Tensor

from mnist_zoo.errors import one_line
from mnist_zoo.files import whole

DIGITS = tuple("0123456789")
_MOST_IN_FULL = 5  # digits in one picture


@dataclass(frozen=True)
class Prediction:
    """One digit in one picture.

    Attributes:
        box: Left, top, right and bottom in pixels of the picture.
        probabilities: One per class, summing to 1.
    """

    box: tuple[int, int, int, int]
    probabilities: list[float]

    def best(self, rank: int = 0) -> tuple[int, float]:
        """Return the class of a given rank and its probability; rank 0 is the answer."""
        return sorted(enumerate(self.probabilities), key=lambda pair: -pair[1])[rank]


Predictions = Sequence[tuple[str, Sequence[Prediction]]]
"""Each picture's name, and its digits in reading order."""


def percent(probability: float) -> str:
    """Return a probability in percent; only 1 is shown as 100 %, and only 0 as 0 %."""
    text = f"{100 * probability:.1f} %"
    if text == "0.0 %" and probability > 0:
        return "<0.1 %"
    return ">99.9 %" if text == "100.0 %" and probability < 1 else text


def table(pictures: Predictions, classes: Sequence[str]) -> Table:
    """Lay out one picture per line: its digits, their probabilities, and the next best.

    Of many digits in one picture, only the lowest probability is shown.

    Args:
        pictures: The pictures with their digits.
        classes: Names of the classes.
    """
    out = Table(box=None, pad_edge=False, header_style="bold")
    out.add_column("file", overflow="fold")
    for column in ("digit" if tuple(classes) == DIGITS else "class", "probability", "next best"):
        out.add_column(column)
    for name, predictions in pictures:
        best, after = [r.best() for r in predictions], [r.best(1) for r in predictions]
        certain = "  ".join(percent(probability) for _, probability in best)
        others = "  ".join(f"{classes[n]} ({percent(probability)})" for n, probability in after)
        if len(best) > _MOST_IN_FULL:
            lowest = percent(min(probability for _, probability in best))
            certain, others = lowest if lowest.startswith(">") else f"at least {lowest}", ""
        out.add_row(
            escape(one_line(name)),
            f"[bold]{escape(' '.join(classes[number] for number, _ in best))}[/]",
            certain,
            escape(others),
        )
    return out


def as_csv(pictures: Predictions, classes: Sequence[str]) -> str:
    """Return one line per digit: picture, number in reading order, box, class, probabilities."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    columns = [f"p{number}" for number in range(len(classes))]
    box = ["left", "top", "right", "bottom"]
    writer.writerow(["file", "number", *box, "prediction", "class", "probability", *columns])
    for name, predictions in pictures:
        for number, prediction in enumerate(predictions):
            digit, probability = prediction.best()
            values = [f"{value:.6f}" for value in (probability, *prediction.probabilities)]
            writer.writerow([name, number, *prediction.box, digit, classes[digit], *values])
    return out.getvalue()


def as_objects(pictures: Predictions, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Return the pictures and their digits as objects for JSON."""
    return [
        {
            "file": name,
            "digits": [
                {
                    "prediction": prediction.best()[0],
                    "class": classes[prediction.best()[0]],
                    "probability": prediction.best()[1],
                    "probabilities": prediction.probabilities,
                    "box": prediction.box,
                }
                for prediction in predictions
            ],
        }
        for name, predictions in pictures
    ]


def write_predictions(file: Path, probabilities: Tensor) -> Path:
    """Write one line per image: number, predicted class, its probability, all probabilities.

    Args:
        file: The file to write; replaced atomically if it exists.
        probabilities: (N, num_classes), each row summing to 1.
    """
    with whole(file) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        columns = [f"p{number}" for number in range(probabilities.shape[1])]
        writer.writerow(["image", "prediction", "probability", *columns])
        top, predictions = probabilities.max(dim=1)
        rows = zip(predictions.tolist(), top.tolist(), probabilities.tolist(), strict=True)
        for image, (prediction, probability, row) in enumerate(rows):
            values = [f"{value:.6f}" for value in (probability, *row)]
            writer.writerow([image, prediction, *values])
    return file
