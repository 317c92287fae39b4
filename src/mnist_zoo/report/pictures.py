"""Pictures of what a network does: its mistakes, its filters, the pixels behind its answers.

Images are drawn dark on light, like ink on paper. Colour is never the only cue: the palette is
colour-blind-safe, and signs, bold type or shades of grey say the same. Names of files, classes and
networks are drawn literally: a dollar sign does not start a formula.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from torch import Tensor

from mnist_zoo.files import whole
from mnist_zoo.report.curves import BLUE, GREEN, VERMILION, head
from mnist_zoo.report.predictions import percent

_SIDE = 28
_DPI = 130
_WIDTH = 6.0  # inches, at least, for the heading
_HEADING, _MARGIN = 0.2, 0.12  # inches
_MOST_FILTERS = 64


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, atomically, creating its folder if needed.

    Raises:
        ZooError: The folder or the file cannot be written.
    """
    with whole(path) as unfinished:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _any_letter():
            # Leave out matplotlib's version, so that the same figure always gives the same file.
            figure.savefig(unfinished, format="png", metadata={"Software": None})


def confusion_matrix(counts: Tensor, classes: Sequence[str], title: str = "") -> Figure:
    """Draw how often each class was read as which.

    Correct ones have no colour, so that the shades of the mistakes can be distinguished.

    Args:
        counts: Integers (C, C): rows are true classes, columns predicted ones.
        classes: Names of the C classes.
        title: Heading of the figure.
    """
    counts = counts.cpu()
    wrong = counts.double().fill_diagonal_(0)
    most = max(1.0, float(wrong.max()))
    figure = Figure(figsize=(6.4, 6), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    # Cells without mistakes stay white.
    shades = wrong.masked_fill(wrong == 0, math.nan)
    axes.imshow(shades.numpy(), cmap="Oranges", norm=Normalize(0, 1.25 * most))
    for row, column in torch.cartesian_prod(*[torch.arange(len(classes))] * 2).tolist():
        count, right = int(counts[row, column]), row == column
        shade = "0.75" if not count else "white" if wrong[row, column] > 0.75 * most else "black"
        axes.text(
            column,
            row,
            f"{count:,}",
            ha="center",
            va="center",
            fontsize="small" if count < 10_000 else "x-small",
            color=shade,
            fontweight="bold" if right and count else "normal",
        )
    long = max(map(len, classes)) > 3
    axes.set_xticks(range(len(classes)), classes, rotation=45 if long else 0, parse_math=False)
    if long:
        for label in axes.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(classes)), classes, parse_math=False)
    axes.set_xticks([n + 0.5 for n in range(len(classes) - 1)], minor=True)
    axes.set_yticks([n + 0.5 for n in range(len(classes) - 1)], minor=True)
    axes.grid(which="minor", color="0.9", linewidth=0.8)
    axes.tick_params(which="both", length=0)
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.spines[:].set_color("0.9")
    head(axes, title)
    return figure


def accuracy_per_class(counts: Tensor, classes: Sequence[str], title: str = "") -> Figure:
    """Draw the accuracy on each class, with its number of mistakes.

    Args:
        counts: Integers (C, C): rows are true classes, columns predicted ones. A class without
            images has no bar.
        classes: Names of the C classes.
        title: Heading of the figure.
    """
    totals, right = counts.sum(dim=1).tolist(), counts.diagonal().tolist()
    figure = Figure(figsize=(7, 4.2), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    shares = [100 * r / t if t else 0.0 for r, t in zip(right, totals, strict=True)]
    bars = axes.barh(range(len(classes)), shares, color=BLUE, height=0.72)
    labels = [
        f"{share:.2f} %   {total - r:,} of {total:,} wrong" if total else "none"
        for share, r, total in zip(shares, right, totals, strict=True)
    ]
    axes.bar_label(bars, labels, padding=5, fontsize="small")
    axes.set_yticks(range(len(classes)), classes, parse_math=False)
    axes.invert_yaxis()
    axes.set_xlim(0, 155)
    axes.set_xticks([0, 25, 50, 75, 100])
    axes.set_xlabel("accuracy / %", x=50 / 155)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_bounds(0, 100)
    axes.tick_params(axis="y", length=0)
    head(axes, title)
    return figure


def misclassified(
    images: Tensor,
    probabilities: Tensor,
    targets: Tensor,
    classes: Sequence[str],
    title: str = "",
) -> Figure:
    """Draw images above ``predicted (true)`` and the probability of the prediction.

    Args:
        images: (N, 28, 28), N >= 1, in the order of drawing, with any range of values.
        probabilities: (N, C).
        targets: Integers (N,).
        classes: Names of the C classes.
        title: Heading of the figure.
    """
    top, predictions = probabilities.max(dim=1)
    captions = [
        f"{_reading(p, t, classes)}\n{percent(share)}"
        for p, t, share in zip(predictions.tolist(), targets.tolist(), top.tolist(), strict=True)
    ]
    return gallery(images, captions, title=title)


def sheet(
    images: Tensor,
    predictions: Tensor,
    targets: Tensor,
    classes: Sequence[str],
    title: str = "",
) -> Figure:
    """Draw images in two rows, each above ``predicted (true)``.

    Correct ones have a green tick, wrong ones a red cross and bold type.

    Args:
        images: (N, 28, 28), N >= 1, with any range of values.
        predictions: Integers (N,).
        targets: Integers (N,).
        classes: Names of the classes.
        title: Heading of the figure.
    """
    read = list(zip(predictions.tolist(), targets.tolist(), strict=True))
    captions = [f"{'✓' if p == t else '✗'} {_reading(p, t, classes)}" for p, t in read]
    right = [p == t for p, t in read]
    columns = math.ceil(len(read) / 2)
    return gallery(images, captions, num_columns=columns, right=right, title=title)


def filters(weights: Tensor, title: str = "") -> Figure:
    """Draw the weights of a first layer: light where positive, dark where negative.

    Args:
        weights: (N, channels, height, width) of convolutions, drawn as their mean over channels,
            or (N, 784) of a dense layer, drawn as images of 28 × 28.
        title: Heading of the figure.

    Raises:
        ValueError: Their shape cannot be drawn as images.
    """
    weights = weights.detach().float().cpu()
    if weights.dim() == 4:
        weights = weights.mean(dim=1)
    elif weights.dim() == 2 and weights.shape[1] == _SIDE**2:
        weights = weights.reshape(-1, _SIDE, _SIDE)
    else:
        raise ValueError(f"weights of shape {tuple(weights.shape)} are not images")
    shown, height, width = weights[:_MOST_FILTERS], weights.shape[1], weights.shape[2]
    if len(weights) > len(shown):
        title = f"{title} ({len(shown)} of {len(weights):,} units)".strip()
    most = float(shown.abs().max()) or 1.0
    columns = min(len(shown), 8 if len(shown) <= 40 else 10)
    rows = math.ceil(len(shown) / columns)
    figure = Figure(figsize=(0.8 * columns + 1.6, 0.8 * rows + 0.8), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    gap = 0.15 * width
    for number, weight in enumerate(shown):
        x, y = number % columns * (width + gap), number // columns * (height + gap)
        picture = axes.imshow(
            weight.numpy(), cmap="gray", vmin=-most, vmax=most, extent=(x, x + width, y + height, y)
        )
    _frame(axes, columns * (width + gap) - gap, rows * (height + gap) - gap)
    bar = figure.colorbar(picture, ax=axes, fraction=0.05, pad=0.03, aspect=16)
    bar.set_label("weight")
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize="small")
    head(axes, title)
    return figure


def saliency(
    images: Tensor, attributions: Tensor, captions: Sequence[str], title: str = ""
) -> Figure:
    """Draw each image above the pixels that speak for the prediction, and those against it.

    Args:
        images: (N, 28, 28), N >= 1, with any range of values.
        attributions: (N, 28, 28): each pixel's contribution to the predicted output. Each image
            has its own scale.
        captions: The prediction for each image.
        title: Heading of the figure.
    """
    images, attributions = _scaled(images), attributions.detach().float().cpu()
    # A few pixels are often far outliers; beyond this quantile, all are drawn equally dark.
    scales = attributions.abs().flatten(1).quantile(0.99, dim=1).clamp(min=1e-12).tolist()
    pitch = _SIDE + 3
    width, height = len(images) * pitch - 3, 3 * pitch - 3
    figure = Figure(dpi=_DPI)
    axes = figure.add_subplot()
    parts = (
        ("image", images, "black"),
        ("for", attributions.clamp(min=0), BLUE),
        ("against", -attributions.clamp(max=0), VERMILION),
    )
    for row, (name, values, colour) in enumerate(parts):
        y = row * pitch
        axes.text(-3, y + _SIDE / 2, name, ha="right", va="center", fontsize="medium")
        for number, value in enumerate(values):
            x = number * pitch
            axes.imshow(
                value.numpy(),
                cmap=LinearSegmentedColormap.from_list(name, ["white", colour]),
                vmin=0,
                vmax=scales[number] if row else 1,
                extent=(x, x + _SIDE, y + _SIDE, y),
            )
            _box(axes, x, y, "0.8")
            if row and images[number].min() < 0.5 < images[number].max():
                middle = torch.arange(_SIDE).numpy() + 0.5
                axes.contour(
                    middle + x,
                    middle + y,
                    images[number].numpy(),
                    [0.5],
                    colors="0.45",
                    linewidths=0.6,
                )
    captions, lines = _broken(captions)
    for number, caption in enumerate(captions):
        axes.text(
            number * pitch + _SIDE / 2,
            -2,
            caption,
            ha="center",
            va="bottom",
            fontsize="medium",
            parse_math=False,
        )
    _frame(axes, width, height, top=3 + 6 * lines, left=16)
    _head_on_one_line(axes, title)
    _fit(figure, axes, 27)
    return figure


def gallery(
    images: Tensor,
    captions: Sequence[str],
    *,
    num_columns: int = 8,
    title: str = "",
    right: Sequence[bool] | None = None,
) -> Figure:
    """Draw images in rows, each above its caption.

    Args:
        images: (N, 28, 28), N >= 1, with any range of values.
        captions: What to write below each.
        num_columns: Number of images in a row.
        title: Heading of the figure.
        right: Whether each image was read correctly, which colours its caption; None: all black.
    """
    images = _scaled(images)
    num_columns = min(num_columns, len(images))
    num_rows = math.ceil(len(images) / num_columns)
    captions, lines = _broken(captions)
    # Long names of classes need wider columns.
    pitch_x = max(_SIDE + 5, 3.4 * _longest(captions))
    pitch_y = _SIDE + 3 + 6 * lines
    width, height = num_columns * pitch_x, num_rows * pitch_y - 3
    figure = Figure(dpi=_DPI)
    axes = figure.add_subplot()
    for number, (image, caption) in enumerate(zip(images, captions, strict=True)):
        row, column = divmod(number, num_columns)
        x, y = column * pitch_x + (pitch_x - _SIDE) / 2, row * pitch_y
        axes.imshow(
            image.numpy(), cmap="gray_r", vmin=0, vmax=1, extent=(x, x + _SIDE, y + _SIDE, y)
        )
        good = None if right is None else right[number]
        colour = {None: "black", True: GREEN, False: VERMILION}[good]
        _box(axes, x, y, "0.8" if good is None else colour, 1 if good is not False else 2)
        axes.text(
            x + _SIDE / 2,
            y + _SIDE + 1.5,
            caption,
            ha="center",
            va="top",
            fontsize="small",
            linespacing=1.1,
            parse_math=False,
            color=colour,
            fontweight="bold" if good is False else "normal",
        )
    _frame(axes, width, height)
    _head_on_one_line(axes, title)
    _fit(figure, axes, 38)
    return figure


def shortened(name: str, length: int = 14) -> str:
    """Return a name that fits below or above an image."""
    return name if len(name) <= length else f"{name[: length - 1]}…"


def _broken(captions: Sequence[str]) -> tuple[Sequence[str], int]:
    """Break long captions before their bracket; return them and their number of lines."""
    if _longest(captions) > 10:
        captions = [caption.replace(" (", "\n(", 1) for caption in captions]
    return captions, 1 + max(caption.count("\n") for caption in captions)


def _longest(captions: Sequence[str]) -> int:
    return max(len(line) for caption in captions for line in caption.split("\n"))


def _scaled(images: Tensor) -> Tensor:
    """Scale images to [0, 1] by their lowest and highest value, since normalisations differ."""
    images = images.detach().float().cpu()
    lowest, highest = images.min(), images.max()
    return (images - lowest) / (highest - lowest).clamp(min=1e-12)


def _box(axes: Axes, x: float, y: float, colour: str, linewidth: float = 1) -> None:
    corners = [x, x + _SIDE, x + _SIDE, x, x], [y, y, y + _SIDE, y + _SIDE, y]
    axes.plot(*corners, color=colour, linewidth=linewidth)


def _frame(axes: Axes, width: float, height: float, top: float = 1, left: float = 1) -> None:
    axes.set(xlim=(-left, width + 1), ylim=(height + 1, -top), aspect="equal", anchor="W")
    axes.set_axis_off()


def _head_on_one_line(axes: Axes, title: str) -> None:
    """Add a heading on one line, for which ``_fit`` makes room."""
    if title:
        axes.set_title(title, loc="left", fontsize="medium", parse_math=False)


def _fit(figure: Figure, axes: Axes, inch: float) -> None:
    """Size a figure to fit its axes, at a number of their units per inch, and their heading."""
    width, height = abs(axes.viewLim.width) / inch, abs(axes.viewLim.height) / inch
    with _any_letter():
        heading = figure.get_tightbbox().width if axes.get_title("left") else 0
    figure.set_size_inches(
        max(_WIDTH, width, heading) + 2 * _MARGIN,
        height + (_HEADING if heading else 0) + 2 * _MARGIN,
    )
    figure.set_layout_engine("constrained", w_pad=_MARGIN, h_pad=_MARGIN)


@contextmanager
def _any_letter() -> Iterator[None]:
    """Draw letters that the font lacks as boxes, without a warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing")
        yield


def _reading(prediction: int, target: int, classes: Sequence[str]) -> str:
    return f"{classes[prediction]} ({classes[target]})"
