"""Figures: what is drawn is what was given."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from scbasset_ism.plot import logo, training_curve


def test_a_logo_has_a_letter_for_each_base_as_high_as_its_value() -> None:
    values = np.array([[0.5, 9, 9, 9], [9, 9, 9, -0.25], [9, 9, 9, 9], [9, 9, 1.0, 9]])
    ax = logo("ATNG", values, Figure().add_subplot(), start=101)
    low, high = ax.get_ylim()
    assert -0.3 < low <= -0.25
    assert 1.0 <= high < 1.1
    assert ax.get_xlim() == (100.5, 104.5)
    assert len(ax.patches) == 3


def test_the_training_curve_shows_every_epoch_and_the_one_that_is_kept() -> None:
    history = pd.DataFrame(
        {
            "epoch": [1, 2, 3],
            "loss": [0.5, 0.4, 0.3],
            "validation_loss": [0.6, 0.5, 0.55],
            "cells_auroc": [0.6, 0.8, 0.7],
        }
    )
    ax = training_curve(history, 1, Figure().add_subplot())
    loss, validation = ax.get_lines()
    assert list(loss.get_ydata()) == [0.5, 0.4, 0.3]
    assert list(validation.get_ydata()) == [0.6, 0.5, 0.55]
    right = ax.figure.axes[1]
    kept = right.get_lines()[1]
    assert (*kept.get_xdata(), *kept.get_ydata()) == (2, 0.8)
    assert {text.get_text() for text in right.get_legend().get_texts()} >= {"kept"}
