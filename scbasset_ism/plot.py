"""One function per figure: takes arrays and an axis, draws, gives the axis back."""

from importlib import import_module
from io import BytesIO
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

# Okabe & Ito's colours, which colour-blind readers tell apart.
BLUE, ORANGE = "#0072B2", "#D55E00"
BASE_COLOURS = {"A": "#009E73", "C": BLUE, "G": "#E69F00", "T": ORANGE}


def logo(sequence: str, values: NDArray[np.floating[Any]], ax: Axes, *, start: int = 1) -> Axes:
    """Draw a sequence as letters as high as their bases' values, negative ones below the line.

    Args:
        sequence: (bases); an N has no letter.
        values: Of A, C, G and T at each base, (bases, 4) logits; only the base's own is drawn.
        ax: Where to draw.
        start: Position of the first base, for the axis.
    """
    logomaker: Any = import_module("logomaker")
    bases = list("ACGT")
    own = np.array([[base == letter for letter in bases] for base in sequence])
    frame = pd.DataFrame(np.where(own, values, 0), columns=bases)
    frame.index = pd.RangeIndex(start, start + len(frame))
    logomaker.Logo(frame, ax=ax, color_scheme=BASE_COLOURS, flip_below=False)
    ax.axhline(0, color="black", linewidth=0.5)
    ax.set(ylabel="logits", xlim=(start - 0.5, start + len(frame) - 0.5))
    ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    ax.xaxis.set_major_formatter("{x:,.0f}")
    return ax


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
