"""Curves of groups of runs: mean, band, legend."""

import warnings

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb

from mnist_zoo.report.curves import plot_curves


def lines(figure):
    return figure.axes[0].get_lines()


def band(figure):
    """Lowest and highest y of the band at each x."""
    (collection,) = figure.axes[0].collections
    corners = collection.get_paths()[0].vertices
    return {
        x: (corners[corners[:, 0] == x, 1].min(), corners[corners[:, 0] == x, 1].max())
        for x in np.unique(corners[:, 0])
    }


def test_draws_mean_and_band_from_lowest_to_highest():
    seeds = [([0, 1, 2], values) for values in ([1, 2, 3], [3, 4, 8], [2, 9, 4])]
    figure = plot_curves({"three": seeds}, ylabel="loss")
    (line,) = lines(figure)
    assert line.get_xdata().tolist() == [0, 1, 2]
    assert line.get_ydata().tolist() == [2, 5, 5]
    assert band(figure) == {0: (1, 3), 1: (2, 9), 2: (3, 8)}


def test_a_single_curve_has_no_band_and_without_a_name_no_legend():
    figure = plot_curves({"": [([0, 1], [1, 2])]}, ylabel="loss", title="A title")
    (axes,) = figure.axes
    assert not axes.collections
    assert axes.get_legend() is None
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title("left")) == (
        "epoch",
        "loss",
        "A title",
    )


def test_the_legend_names_the_groups_in_their_order():
    groups = {f"lr {n}": [([0, 1], [n, n])] for n in range(8)}
    texts = plot_curves(groups, ylabel="loss").legends[0].get_texts()
    assert [text.get_text() for text in texts] == list(groups)


@pytest.mark.parametrize("number", [1, 6, 60])
@pytest.mark.parametrize("name", ["lr", "a setting whose name is as long as they come, and longer"])
def test_the_legend_stands_below_the_curves_however_long_it_is(tmp_path, number, name):
    groups = {f"{name} {n}": [([0, 1], [n, n])] for n in range(number)}
    figure = plot_curves(groups, ylabel="loss")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(tmp_path / "a.png")
    (axes,), (legend,) = figure.axes, figure.legends
    extent = legend.get_window_extent()
    assert extent.x0 >= 0
    assert extent.x1 <= figure.bbox.width
    assert extent.y0 >= 0
    assert extent.y1 <= axes.get_window_extent().y0
    assert axes.get_window_extent().height > 3 * figure.dpi


def test_a_curve_that_ends_early_counts_as_far_as_it_goes():
    figure = plot_curves({"": [([0, 1], [2, 2]), ([0, 1, 2], [4, 4, 4])]}, ylabel="loss")
    assert lines(figure)[0].get_ydata().tolist() == [3, 3, 4]


def test_curves_with_points_at_different_places_are_straight_in_between():
    figure = plot_curves({"": [([0, 2], [0, 2]), ([0, 1, 2], [0, 0, 0])]}, ylabel="loss")
    assert lines(figure)[0].get_ydata().tolist() == [0, 0.5, 1]


def test_values_that_are_not_finite_are_left_out():
    figure = plot_curves({"": [([0, 1, 2], [1, float("nan"), float("inf")])]}, ylabel="loss")
    assert lines(figure)[0].get_ydata().tolist() == [1]
    with pytest.raises(ValueError, match="no curve"):
        plot_curves({"": [([0], [float("nan")])]}, ylabel="loss")


def test_groups_differ_in_colour_and_without_colour():
    figure = plot_curves({str(n): [([0, 1], [n, n])] for n in range(7)}, ylabel="loss")
    assert len({to_rgb(line.get_color()) for line in lines(figure)}) == 7
    assert len({str(line._dash_pattern) for line in lines(figure)}) == 7


def test_a_single_point_can_be_seen():
    (line,) = lines(plot_curves({"": [([0], [1])]}, ylabel="loss"))
    assert line.get_marker() == "o"


def test_the_band_of_a_single_epoch_is_a_line():
    axes = plot_curves({"a": [([1], [2]), ([1], [4])]}, ylabel="loss").axes[0]
    (spread,) = [c for c in axes.collections if isinstance(c, LineCollection)]
    assert spread.get_segments()[0].tolist() == [[1, 2], [1, 4]]


@pytest.mark.parametrize("num_epochs", [1, 2, 3, 60])
def test_ticks_are_whole_epochs(num_epochs):
    epochs = range(1, num_epochs + 1)
    axes = plot_curves({"": [(epochs, epochs)]}, ylabel="loss").axes[0]
    low, high = axes.get_xlim()
    ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
    assert ticks
    assert all(tick == int(tick) for tick in ticks)


def test_leaves_the_settings_of_matplotlib_alone():
    before = dict(mpl.rcParams)
    plot_curves({"a": [([0, 1], [1, 2])]}, ylabel="loss")
    assert dict(mpl.rcParams) == before


def test_a_dollar_sign_is_no_formula(tmp_path):
    name = "$_$"
    figure = plot_curves({name: [([0], [1])]}, ylabel=name, title=name)
    figure.savefig(tmp_path / "a.png")


def test_a_long_heading_has_several_lines():
    figure = plot_curves({"": [([1, 2], [1, 2])]}, ylabel="loss", title="a long heading " * 12)
    (axes,) = figure.axes
    lines = axes.get_title("left").splitlines()
    assert len(lines) == 3
    figure.draw_without_rendering()
    assert axes.title.get_window_extent().x1 <= figure.bbox.x1
    assert axes._left_title.get_window_extent().x1 <= figure.bbox.x1
