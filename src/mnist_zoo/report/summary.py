"""The lines before and after a run, and the table of its metrics."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from mnist_zoo.errors import one_line
from mnist_zoo.files import shell_quoted


def before_fit(
    *,
    network: str,
    num_parameters: int,
    data: str,
    num_train_images: int,
    num_val_images: int,
    max_epochs: int | None,
    max_steps: int,
    run_folder: Path | None,
    num_devices: int,
    batch_size: int,
    limit_train_batches: float = 1.0,
) -> str:
    """Return a line on what will be trained, on what, for how long and where to.

    ``batch_size`` is the number of images per step of each device; ``limit_train_batches`` is a
    share of the minibatches of an epoch or, as an integer, their number.
    """
    held_out = f"{num_val_images:,} held out for validation" if num_val_images else "none held out"
    limits = []
    if max_epochs is not None and max_epochs >= 0:
        epochs = "1 epoch" if max_epochs == 1 else f"{max_epochs} epochs"
        if isinstance(limit_train_batches, int):
            epochs += (
                f" of at most {limit_train_batches:,} minibatch{'es' * (limit_train_batches != 1)}"
            )
        elif limit_train_batches != 1:
            epochs += f" with {100 * limit_train_batches:g} % of the images"
        limits.append(epochs)
    if max_steps >= 0:
        limits.append(f"at most {max_steps:,} step{'s' * (max_steps != 1)}")
    until = ", ".join(limits) or "until stopped"
    if num_devices > 1:
        until += f", {batch_size} images a step on each of {num_devices} devices"
    target = f" → {_quoted(run_folder)}" if run_folder else ""
    return (
        f"[bold]{network}[/] ({num_parameters:,} parameters) on {data}"
        f" ({num_train_images:,} training images, {held_out}), {until}{target}"
    )


def after_fit(
    *,
    monitor: str | None,
    score: float | None,
    train_acc: float | None,
    checkpoint: str,
    test_options: str,
    curves: Path | None,
    table: Path | None,
) -> str:
    """Return lines on the result, where it is, and what to run next.

    ``curves`` is a folder for TensorBoard, ``table`` a file of metrics. ``train_acc``, of the last
    epoch, is shown if there is no ``score``.
    """
    lines = []
    if score is not None:
        value = f"{100 * score:.2f} %" if str(monitor).endswith("acc") else f"{score:.4f}"
        name = {"val/acc": "validation accuracy", "val/loss": "validation loss"}.get(
            str(monitor), str(monitor)
        )
        lines.append(f"Best {escape(name)}: [bold]{value}[/]")
    elif train_acc is not None:
        lines.append(f"Training accuracy: [bold]{100 * train_acc:.2f} %[/]")
    if checkpoint:
        file = _quoted(Path(checkpoint))
        lines += [
            f"Checkpoint: {file}",
            f"Test it:    mnist-zoo test --ckpt_path {file}{test_options}",
        ]
    if curves:
        lines.append(f"Curves:     tensorboard --logdir {_quoted(curves)}")
    if table:
        lines.append(f"Figures:    {_quoted(table)}")
    return "\n".join(lines)


def interrupted(checkpoint: Path | None, options: str = "") -> str:
    """Return how to resume a stopped run, given its last checkpoint if there is one."""
    if checkpoint is None:
        return "Stopped before the first checkpoint was written."
    file = _quoted(checkpoint)
    return (
        f"Stopped. To resume from {checkpoint.name}:\n  mnist-zoo fit --ckpt_path {file}{options}"
    )


def pictures(files: Sequence[Path]) -> str:
    """Return a line that says where pictures are, empty if there are none."""
    if not files:
        return ""
    names = escape(one_line(", ".join(file.name for file in files)))
    return f"Pictures:   {_quoted(files[0].parent)} ({names})"


def metrics_table(
    title: str, stage: str, metrics: Mapping[str, float], classes: Sequence[str]
) -> Table:
    """Lay out accuracy, loss, anything else logged and, if measured, accuracy per class.

    Args:
        title: Heading of the table.
        stage: ``val`` or ``test``: the prefix of the metrics' names.
        metrics: Logged values by name; the zoo's accuracies in [0, 1].
        classes: Names of the classes, in the order of their numbers.
    """
    table = Table("", "", title=escape(title), title_justify="left", show_header=False)
    table.columns[1].justify = "right"
    others = dict(metrics)
    if (accuracy := others.pop(f"{stage}/acc", None)) is not None:
        table.add_row("accuracy", f"[bold]{100 * accuracy:.2f} %[/]")
    if (loss := others.pop(f"{stage}/loss", None)) is not None:
        table.add_row("loss", f"{loss:.4f}")
    by_class = [others.pop(f"{stage}/acc/{number}", None) for number, _ in enumerate(classes)]
    for name, value in others.items():
        table.add_row(escape(one_line(name)), f"{value:.6g}")
    table.add_section()
    if any(accuracy is not None for accuracy in by_class):
        for name, accuracy in zip(classes, by_class, strict=True):
            shown = "no images" if accuracy is None else f"{100 * accuracy:.2f} %"
            table.add_row(f"accuracy on {escape(one_line(name))}", shown)
    return table


def _shown(path: Path) -> Path:
    """Return a path, relative if it is inside the current folder."""
    here, path = Path.cwd(), Path(os.path.abspath(path))  # noqa: PTH100  # without its ".."
    return path.relative_to(here) if path.is_relative_to(here) else path


def _quoted(path: Path) -> str:
    """Return a path as typed in a shell, with brackets escaped, which would be markup."""
    return escape(shell_quoted(_shown(path)))
