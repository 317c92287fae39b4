"""The pictures of a run, in its folder and in its TensorBoard."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from rich.markup import escape

from mnist_zoo.engine import run_folders
from mnist_zoo.errors import ZooError
from mnist_zoo.report import events, pictures, summary
from mnist_zoo.report.curves import draw_curves, over_epochs, plot_curves

if TYPE_CHECKING:
    from mnist_zoo.commands.training.command import Request
    from mnist_zoo.engine.readings import Readings


def after_evaluation(
    readings: Readings,
    metrics: Mapping[str, float],
    classes: Sequence[str],
    title: str,
    request: Request,
    other_data: str = "",
) -> str:
    """Draw the readings, in the checkpoint's run folder or else below the current folder.

    For a run, they are also added to its TensorBoard, with the metrics of a test.

    Args:
        readings: What the network read.
        metrics: Logged values by name.
        classes: Names of the classes.
        title: Beginning of each heading: the network and its data.
        request: The command, which names the checkpoint.
        other_data: The data, if it is not that of the run, whose pictures stay.

    Returns:
        A line that says where the pictures are.
    """
    checkpoint = Path(str(request.ckpt_path))
    try:
        run = run_folders.of_checkpoint(checkpoint)
    except ZooError as error:
        return _no_pictures(error)
    figures = of_evaluation(readings, classes, title)
    prefix = request.subcommand + f"-on-{other_data}" * bool(other_data)
    files, line = _write(figures, folder_of(checkpoint, run), prefix)
    before = request.checkpoint
    if files and run and before and not before.is_weights:
        # Validation is already in the run's curves, and accuracy per class in a picture.
        tested = {name: metrics[name] for name in ("test/acc", "test/loss") if name in metrics}
        line += to_tensorboard(files, run, before.num_steps, tested)
    return line


def after_fit(run_folder: Path, title: str, num_steps: int) -> str:
    """Draw the curves of a run, also for TensorBoard; return a line that says where they are."""
    files, line = _write(of_fit(run_folder, title), run_folder / "pictures", "fit")
    if files:
        line += to_tensorboard(files, run_folder, num_steps)
    return line


def folder_of(checkpoint: Path, run: Path | None) -> Path:
    """Return the folder for the pictures of a checkpoint, in its run if it has one."""
    return run / "pictures" if run else Path.cwd() / "pictures" / checkpoint.stem


def of_evaluation(readings: Readings, classes: Sequence[str], title: str) -> dict[str, Figure]:
    """Draw the pictures of ``test`` and ``validate``, by name."""
    counts, first, wrong = readings
    num_wrong = int(counts.sum() - counts.trace())
    acc = 1 - num_wrong / max(1, int(counts.sum()))
    predictions = first.probabilities.argmax(dim=1)
    figures = {
        "confusion": pictures.confusion_matrix(counts, classes, title),
        "classes": pictures.accuracy_per_class(counts, classes, f"{title}: {100 * acc:.2f} %"),
        "sheet": pictures.sheet(
            first.images, predictions, first.targets, classes, f"{title}: predicted (true)"
        ),
    }
    if num_wrong:
        which = "the only one" if num_wrong == 1 else f"all {num_wrong:,}"
        if num_wrong > len(wrong.targets):
            which = f"the most confident {len(wrong.targets)} of {num_wrong:,}"
        heading = f"{title}: {which} wrong, predicted (true)"
        figures["wrong"] = pictures.misclassified(*wrong, classes, heading)
    return figures


def of_fit(run_folder: Path, title: str) -> dict[str, Figure]:
    """Draw loss and accuracy by epoch from a run's event files, by name; {} if there are none."""
    scalars = events.read_scalars(run_folder)
    found = {tag: curve for tag in scalars if (curve := over_epochs(scalars, tag))[0]}
    figures, panels = {}, {}
    for name, ylabel in (("loss", "loss"), ("acc", "accuracy")):
        stages = {"training": f"train/{name}", "validation": f"val/{name}"}
        if groups := {stage: [found[tag]] for stage, tag in stages.items() if tag in found}:
            panels[ylabel] = groups
    if panels:
        figure = Figure(figsize=(4.5 * len(panels), 3.6), dpi=150, layout="constrained")
        all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (ylabel, groups) in zip(all_axes, panels.items(), strict=True):
            draw_curves(axes, groups, ylabel=ylabel)
        figure.suptitle(title, fontsize="medium")
        figures["curves"] = figure
    if "test_curve/acc" in found:
        heading = f"{title}: on the test images. Nothing was chosen by it."
        groups = {"": [found["test_curve/acc"]]}
        figures["test-curve"] = plot_curves(groups, ylabel="test accuracy", title=heading)
    return figures


def _write(figures: Mapping[str, Figure], folder: Path, prefix: str) -> tuple[list[Path], str]:
    """Write each figure as ``<prefix>-<name>.png``; return the files, and a line to print.

    If they cannot be written, training or testing has not failed, so the line is only a warning.
    """
    files = {name: folder / f"{prefix}-{name}.png" for name in figures}
    try:
        for name, figure in figures.items():
            pictures.save(figure, files[name])
        if "sheet" in figures and "wrong" not in figures:
            # Remove the one of an earlier evaluation.
            (folder / f"{prefix}-wrong.png").unlink(missing_ok=True)
    except (ZooError, OSError) as error:
        return [], _no_pictures(error)
    return [*files.values()], summary.pictures([*files.values()])


def _no_pictures(error: Exception) -> str:
    return f"[yellow]warning: no pictures: {escape(str(error))}[/]"


def to_tensorboard(
    files: Sequence[Path], run_folder: Path, step: int, metrics: Mapping[str, float] | None = None
) -> str:
    """Add pictures and metrics to a run's TensorBoard.

    Returns:
        A warning if they cannot be written, else an empty string.
    """
    import numpy as np
    from PIL import Image
    from torch.utils.tensorboard import SummaryWriter

    # On a full disk, the writer's own thread would print a traceback, too.
    hook, threading.excepthook = threading.excepthook, lambda _: None
    try:
        with SummaryWriter(run_folder, filename_suffix=".evaluation") as writer:
            for name, value in (metrics or {}).items():
                writer.add_scalar(name, value, step)
            for file in files:
                with Image.open(file) as image:
                    tag = file.stem.replace("-", "/", 1)
                    pixels = np.asarray(image.convert("RGB"))
                    writer.add_image(tag, pixels, step, dataformats="HWC")
    except OSError as error:
        reason = escape(error.strerror or str(error))
        return f"\n[yellow]warning: not added to TensorBoard: {reason}[/]"
    finally:
        threading.excepthook = hook
    return ""
