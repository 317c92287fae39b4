"""Curves of runs: the mean of each group of runs, with a band from lowest to highest."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.ticker import MaxNLocator

from mnist_zoo.report import events
from mnist_zoo.report.run_names import LINE_WIDTH

Curve = tuple[Sequence[float], Sequence[float | None]]
"""x, ascending, and y; of equal length."""

BLUE, VERMILION, GREEN = "#0072B2", "#D55E00", "#009E73"
_COLOURS = (BLUE, VERMILION, GREEN, "#000000", "#CC79A7", "#56B4E9", "#E69F00")
"""The colour-blind-safe palette of Okabe and Ito, without yellow, which is pale on white."""

# Eight dashes for seven colours, so that pairs repeat late; they identify lines in grey print.
_DASHES = (
    (0, ()), (0, (6, 2)), (0, (1.5, 1.5)), (0, (7, 2, 1.5, 2)),
    (0, (3, 1.5)), (0, (7, 2, 1.5, 2, 1.5, 2)), (0, (1, 3)), (0, (10, 4)),
)  # fmt: skip
_MARKERS = "o", "s", "^", "D", "v", "P", "X", "<"
_FEW = 25  # up to this many points get markers
_LETTERS_PER_INCH = 13  # of a heading
_MOST_COLUMNS = 8  # of the legend
_LEGEND: dict[str, Any] = {"frameon": False, "fontsize": "small", "handlelength": 3.5}


def note_on(tag: str, num_networks: int = 1) -> str:
    """Return what a figure must say of a tag; empty if nothing."""
    notes = ["nothing was chosen by it"] if tag.startswith("test_curve/") else []
    if tag.endswith("loss") and num_networks > 1:
        notes.append("networks may use different losses")
    return "; ".join(notes)


def over_epochs(scalars: events.Scalars, tag: str) -> Curve:
    """Return a tag's finite values over the number of completed epochs."""
    values = events.by_epoch(scalars, tag)
    points = [(epoch, value) for epoch, value in enumerate(values, 1) if value is not None]
    return [epoch for epoch, _ in points], [value for _, value in points]


def plot_curves(
    groups: Mapping[str, Sequence[Curve]],
    *,
    ylabel: str,
    title: str = "",
) -> Figure:
    """Draw the mean of each group of curves, and a band from its lowest to its highest.

    Args:
        groups: Curves over epochs by their name in the legend. The curves of a group may have
            different lengths; the mean at an epoch is over the curves that reach it. None and
            values that are not finite are left out. A single group with an empty name has no
            legend.
        ylabel: Label of the values, with their unit.
        title: Heading of the figure.

    Returns:
        A figure independent of pyplot, made without changing matplotlib's settings.

    Raises:
        ValueError: There is no curve with a finite value.
    """
    figure = Figure(figsize=(7, 4.2), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    draw_curves(axes, groups, ylabel=ylabel, title=title, legend=False)
    if list(groups) != [""]:
        legend_below(figure)
    return figure


def draw_curves(
    axes: Axes,
    groups: Mapping[str, Sequence[Curve]],
    *,
    ylabel: str,
    xlabel: str = "epoch",
    title: str = "",
    legend: bool = True,
) -> None:
    """Draw into existing axes what ``plot_curves`` draws.

    Raises:
        ValueError: There is no curve with a finite value.
    """
    drawn = 0
    for number, (name, curves) in enumerate(groups.items()):
        x, values = _on_one_axis(curves)
        if not len(x):
            continue
        drawn += 1
        colour = _COLOURS[number % len(_COLOURS)]
        axes.plot(
            x,
            np.nanmean(values, axis=0),
            color=colour,
            linestyle=_DASHES[number % len(_DASHES)],
            linewidth=1.8,
            marker=_MARKERS[number % len(_MARKERS)] if len(x) <= _FEW else None,
            markersize=3.5,
            label=name,
        )
        if len(values) > 1:
            lowest, highest = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
            axes.fill_between(x, lowest, highest, color=colour, alpha=0.18, linewidth=0)
            if len(x) == 1:  # a band of no width
                axes.vlines(x, lowest, highest, color=colour, alpha=0.5)
    if not drawn:
        raise ValueError("no curve has a finite value")
    axes.set_xlabel(xlabel, parse_math=False)
    axes.set_ylabel(ylabel, parse_math=False)
    head(axes, title)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    # Epochs and steps are whole numbers, even if there is only one.
    axes.xaxis.set_major_locator(
        MaxNLocator(nbins="auto", steps=[1, 2, 5, 10], integer=True, min_n_ticks=1)
    )
    if legend:
        _names_as_written(axes.legend(**_LEGEND))


def head(axes: Axes, title: str) -> None:
    """Add a heading to axes, in as many lines as it takes."""
    grid = axes.get_subplotspec()
    num_columns = grid.get_gridspec().ncols if grid else 1
    width = axes.figure.get_figwidth() / num_columns  # type: ignore[union-attr]
    lines = [
        part
        for line in title.splitlines()
        for part in textwrap.wrap(line, max(20, int(_LETTERS_PER_INCH * (width - 1))))
    ]
    if lines:
        axes.set_title("\n".join(lines), loc="left", fontsize="medium", parse_math=False)


def legend_below(figure: Figure) -> None:
    """Add one legend for all axes below them; the figure grows by its height."""
    lines = {str(line.get_label()): line for axes in figure.axes for line in axes.get_lines()}
    labels = [textwrap.fill(name, LINE_WIDTH) for name in lines]
    for num_columns in range(min(len(lines), _MOST_COLUMNS), 0, -1):
        legend = figure.legend(
            list(lines.values()), labels, loc="outside lower left", ncols=num_columns, **_LEGEND
        )
        _names_as_written(legend)
        extent = legend.get_window_extent()
        if num_columns == 1 or extent.width < figure.bbox.width:
            break
        legend.remove()
    figure.set_figheight(figure.get_figheight() + extent.height / figure.dpi)


def _names_as_written(legend: Legend) -> None:
    """Keep dollar signs in names of a legend from starting a formula."""
    for text in legend.get_texts():
        text.set_parse_math(False)


def _on_one_axis(
    curves: Sequence[Curve],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return every x of a group of curves, (n,), and their values there, (curves, n).

    Curves are interpolated linearly between points, and NaN beyond their ends.
    """
    finite = []
    for curve in curves:
        x, y = np.asarray(curve[0], dtype=float), np.asarray(curve[1], dtype=float)
        kept = np.isfinite(x) & np.isfinite(y)
        if kept.any():
            finite.append((x[kept], y[kept]))
    if not finite:
        return np.empty(0), np.empty((0, 0))
    every_x = np.unique(np.concatenate([x for x, _ in finite]))
    values = [np.interp(every_x, x, y, left=np.nan, right=np.nan) for x, y in finite]
    return every_x, np.stack(values)
