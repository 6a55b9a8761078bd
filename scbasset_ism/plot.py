"""One function per figure: takes arrays and an axis, draws, gives the axis back."""

from io import BytesIO
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe & Ito's colours, which colour-blind readers tell apart.
BLUE, ORANGE = "#0072B2", "#D55E00"


def training_curve(history: pd.DataFrame, best: int, ax: Axes) -> Axes:
    """Draw the loss of every epoch, and the validation AUROC on a second axis.

    Args:
        history: Columns epoch, loss, validation_loss and cells_auroc.
        best: Row of the epoch that is kept.
        ax: Where to draw.
    """
    ax.plot(history["epoch"], history["loss"], "--", color=BLUE, label="loss, training")
    ax.plot(history["epoch"], history["validation_loss"], color=BLUE, label="loss, validation")
    ax.set(xlabel="epoch", ylabel="binary cross-entropy (nats)")
    right: Any = ax.twinx()
    right.plot(
        history["epoch"], history["cells_auroc"], ":", color=ORANGE, label="AUROC, validation"
    )
    right.plot(*history.loc[best, ["epoch", "cells_auroc"]], "o", color=ORANGE, label="kept")
    right.set(ylabel="mean AUROC over cells")
    lines = [*ax.get_lines(), *right.get_lines()]
    right.legend(
        lines, [str(line.get_label()) for line in lines], frameon=False, loc="center right"
    )
    return ax


def training_svg(history: pd.DataFrame, best: int) -> bytes:
    """Draw `training_curve` as SVG."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    training_curve(history, best, figure.add_subplot())
    file = BytesIO()
    figure.savefig(file, format="svg")
    return file.getvalue()
