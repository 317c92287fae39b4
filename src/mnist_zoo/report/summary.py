"""The lines before and after a run, and the table of its metrics."""

from __future__ import annotations

import csv
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.markup import escape
from rich.table import Table
from torch import Tensor

from mnist_zoo.files import whole


def before_fit(
    network: str,
    num_parameters: int,
    data: str,
    num_train_images: int,
    num_val_images: int,
    max_epochs: int | None,
    max_steps: int,
    run_folder: Path | None,
) -> str:
    """Say in a line what is about to be trained, on what, for how long and where to."""
    held_out = f"{num_val_images:,} held out for validation" if num_val_images else "none held out"
    limits = []
    if max_epochs is not None and max_epochs >= 0:
        limits.append("1 epoch" if max_epochs == 1 else f"{max_epochs} epochs")
    if max_steps >= 0:
        limits.append(f"at most {max_steps:,} steps")
    until = ", ".join(limits) or "until stopped"
    target = f" → {_quoted(run_folder)}" if run_folder else ""
    return (
        f"[bold]{network}[/] ({num_parameters:,} parameters) on {data}"
        f" ({num_train_images:,} training images, {held_out}), {until}{target}"
    )


def after_fit(
    monitor: str | None,
    score: float | None,
    checkpoint: str,
    curves: Path | None,
    test_options: str = "",
) -> str:
    """Say what came out, where it lies and what to type next; ``curves`` are TensorBoard's."""
    lines = []
    if score is not None:
        value = f"{score:.2%}" if str(monitor).endswith("acc") else f"{score:.4f}"
        name = {"val/acc": "validation accuracy", "val/loss": "validation loss"}.get(
            str(monitor), str(monitor)
        )
        lines.append(f"Best {name}: [bold]{value}[/]")
    if checkpoint:
        file = _quoted(Path(checkpoint))
        lines += [
            f"Checkpoint: {file}",
            f"Test it:    mnist-zoo test --ckpt_path {file}{test_options}",
        ]
    if curves:
        lines.append(f"Curves:     tensorboard --logdir {_quoted(curves)}")
    return "\n".join(lines)


def interrupted(checkpoint: Path | None, options: str = "") -> str:
    """Say how to go on with a run that was stopped, given its last checkpoint if there is one."""
    if checkpoint is None:
        return "Stopped before the first checkpoint was written."
    file = _quoted(checkpoint)
    return f"Stopped. To go on from {checkpoint.name}:\n  mnist-zoo fit --ckpt_path {file}{options}"


def pictures(files: Sequence[Path]) -> str:
    """Say where pictures of a folder lie; nothing where there are none."""
    if not files:
        return ""
    names = escape(", ".join(file.name for file in files))
    return f"Pictures:   {_quoted(files[0].parent)} ({names})"


def metrics_table(
    title: str, stage: str, metrics: Mapping[str, float], classes: Sequence[str]
) -> Table:
    """Lay out accuracy, loss and, where measured, accuracy per class.

    Args:
        title: Heading of the table.
        stage: ``val`` or ``test``: what the names of the metrics begin with.
        metrics: Logged values by name; accuracies in [0, 1].
        classes: Names of the classes, in the order of their numbers.
    """
    table = Table("", "", title=title, title_justify="left", show_header=False)
    table.columns[1].justify = "right"
    if (key := f"{stage}/acc") in metrics:
        table.add_row("accuracy", f"[bold]{metrics[key]:.2%}[/]")
    if (key := f"{stage}/loss") in metrics:
        table.add_row("loss", f"{metrics[key]:.4f}", end_section=True)
    for number, name in enumerate(classes):
        if (key := f"{stage}/acc/{number}") in metrics:
            table.add_row(f"accuracy on {name}", f"{metrics[key]:.2%}")
    return table


def write_predictions(file: Path, probabilities: Tensor) -> Path:
    """Write one line an image: its number, the class read, its probability, all probabilities.

    Args:
        file: Where to write; replaced whole if it exists.
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


def _shown(path: Path) -> str:
    """Return a path relative to the current folder where it lies inside."""
    relative = os.path.relpath(path)
    return str(path.absolute()) if relative.startswith("..") else relative


def _quoted(path: Path) -> str:
    """Return a path as it is typed in a shell, its brackets kept from being read as markup."""
    return escape(shlex.quote(_shown(path)))
