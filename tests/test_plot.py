"""Figures: what is drawn is what was given."""

from io import BytesIO

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import imread

from scbasset_ism import plot


def axes():
    return Figure(layout="constrained").add_subplot()


def test_a_logo_has_a_letter_for_each_base_as_high_as_its_value():
    values = np.array([[0.5, 9, 9, 9], [9, 9, 9, -0.25], [9, 9, 9, 9], [9, 9, 1.0, 9]])
    ax = plot.logo("ATNG", values, axes(), start=101)
    low, high = ax.get_ylim()
    assert -0.3 < low <= -0.25
    assert 1.0 <= high < 1.1
    assert ax.get_xlim() == (100.5, 104.5)
    assert len(ax.patches) == 3


def test_marked_positions_are_framed():
    ax = plot.logo("ACGT", np.eye(4), axes(), start=11, mark=range(12, 14))
    boxes = [patch.get_bbox() for patch in ax.patches if hasattr(patch, "get_bbox")]
    assert {(box.x0, box.x1) for box in boxes} == {(11.5, 13.5)}


def test_substitutions_have_a_row_for_each_base_and_a_dot_where_it_is():
    values = np.arange(12.0).reshape(3, 4) - 3
    ax = plot.substitutions("CNT", values, axes(), start=5)
    image = ax.get_images()[0]
    assert (image.get_array() == values.T).all()
    assert (image.norm.vmin, image.norm.vmax) == (-8, 8)
    assert image.get_extent() == [4.5, 7.5, 3.5, -0.5]
    assert ax.get_lines()[0].get_xydata().tolist() == [[5, 1], [7, 3]]
    assert [label.get_text() for label in ax.get_yticklabels()] == list("ACGT")
    limited = plot.substitutions("CNT", values, axes(), limit=2).get_images()[0]
    assert (limited.norm.vmin, limited.norm.vmax) == (-2, 2)


def test_profiles_have_a_row_for_each_group():
    values = np.array([[1.0, -2, 0], [0, 0, 0.5]])
    ax = plot.profiles(values, ["T cells", "B cells"], axes(), start=5)
    assert (ax.get_images()[0].get_array() == values).all()
    assert [label.get_text() for label in ax.get_yticklabels()] == ["T cells", "B cells"]


@pytest.mark.parametrize("values", [[0.0, 0, 0], [np.nan, 1, -3]])
def test_zero_is_the_middle_of_the_colours(values):
    image = plot.profiles(np.array([values]), ["all"], axes()).get_images()[0]
    assert image.norm(0) == 0.5


def test_lightness_grows_with_the_value():
    ax = plot.profiles(np.array([[-1.0, -0.5, 0, 0.5, 1]]), ["all"], axes())
    colours = ax.get_images()[0].to_rgba(np.array([-1.0, -0.5, 0, 0.5, 1]))[:, :3]
    lightness = colours @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(lightness) > 0.05).all()


def test_cells_lie_where_they_are_told_and_the_largest_on_top():
    coordinates = pd.DataFrame({"umap 1": [0, 1, 2], "umap 2": [5, 6, 7]})
    ax = plot.cell_map(coordinates, np.array([-3.0, 0.5, 1]), axes())
    points = ax.collections[0]
    assert points.get_offsets().tolist() == [[1, 6], [2, 7], [0, 5]]
    assert points.get_array().tolist() == [0.5, 1, -3]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("umap 1", "umap 2")
    assert not points.get_rasterized()


def test_many_cells_are_pixels():
    coordinates = pd.DataFrame(np.zeros((5001, 2)), columns=["a", "b"])
    assert plot.cell_map(coordinates, np.zeros(5001), axes()).collections[0].get_rasterized()


def test_bars_are_the_means_of_groups_in_order():
    values = pd.Series([1.0, 3, -1, 9, 9], dtype=np.float32)
    labels = pd.Series(["b", "b", "a", "", None])
    ax = plot.group_bars(values, labels, axes())
    assert [bar.get_width() for bar in ax.patches] == [-1, 2]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a (1)", "b (2)"]
    assert to_rgb(plot.BLUE) == ax.patches[0].get_facecolor()[:3]
    spread = ax.collections[0].get_segments()[1]
    np.testing.assert_allclose(spread[:, 0], [2 - 2**0.5, 2 + 2**0.5], rtol=1e-6)


def test_of_many_groups_those_with_the_largest_effects_are_drawn():
    values = pd.Series(np.arange(-30.0, 30))
    ax = plot.group_bars(values, values.astype(str), axes())
    assert len(ax.patches) == 25
    assert min(abs(bar.get_width()) for bar in ax.patches) == 18


def test_a_distribution_counts_every_cell():
    values, members = np.array([0.0, 1, 1, 2]), np.array([False, True, True, False])
    ax = plot.distribution(values, axes(), groups={"some": members})
    counts = [patch.get_height() for patch in ax.patches if hasattr(patch, "get_height")]
    assert sum(counts) == 4
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts == ["all cells (4)", "some (2)"]


def test_the_training_curve_shows_every_epoch_and_the_one_that_is_kept():
    history = pd.DataFrame(
        {
            "epoch": [1, 2, 3],
            "loss": [0.5, 0.4, 0.3],
            "validation_loss": [0.6, 0.5, 0.55],
            "cells_auroc": [0.6, 0.8, 0.7],
        }
    )
    ax = plot.training_curve(history, 1, axes())
    loss, validation = ax.get_lines()
    assert list(loss.get_ydata()) == [0.5, 0.4, 0.3]
    assert list(validation.get_ydata()) == [0.6, 0.5, 0.55]
    right = ax.figure.axes[1]
    kept = right.get_lines()[1]
    assert (*kept.get_xdata(), *kept.get_ydata()) == (2, 0.8)
    assert {text.get_text() for text in right.get_legend().get_texts()} >= {"kept"}


@pytest.mark.parametrize("suffix", ["svg", "pdf", "png"])
def test_texts_are_drawn_as_they_are_and_files_are_the_same_every_time(suffix):
    def picture():
        ax = plot.profiles(np.array([[1.0, 2]]), ["$x_$ <script>"], axes())
        ax.set_title("$\\unknown$ & <b>")
        return plot.to_bytes(ax.figure, suffix)

    assert picture() == picture()
    assert b"<script>" not in picture()


def test_a_picture_is_not_empty():
    ax = plot.profiles(np.array([[-1.0, 1]]), ["all"], axes())
    assert np.ptp(imread(BytesIO(plot.to_bytes(ax.figure, "png")))[..., :3]) > 0.5
