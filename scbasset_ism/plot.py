"""One function per figure: takes arrays and an axis, draws, gives the axis back."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from io import BytesIO
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import CenteredNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from scbasset_ism.frames import Floats

# Okabe & Ito's colours, which colour-blind readers tell apart.
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#999999"
BASE_COLOURS = {"A": "#009E73", "C": BLUE, "G": "#E69F00", "T": ORANGE}
LINES = [(ORANGE, "-"), (BLUE, "--"), ("black", ":"), (BASE_COLOURS["A"], "-.")]
BASES = list("ACGT")
# Lightness runs one way (Nunez et al. 2018), so the sign survives black and white: dark is
# negative, light positive, and grey, in the middle, 0.
EFFECTS = "cividis"
DELTA = "delta logit (alternate - reference)"

_MOST_VECTORS = 5_000  # points in a vector picture; more are drawn as pixels
_MOST_BARS = 25


def logo(
    sequence: str,
    values: Floats,
    ax: Axes,
    *,
    start: int = 1,
    mark: range | None = None,
) -> Axes:
    """Draw a sequence as letters as high as their bases' values, negative ones below the line.

    Args:
        sequence: (bases); an N has no letter.
        values: Of A, C, G and T at each base, (bases, 4) logits; only the base's own is drawn.
        ax: Where to draw.
        start: Position of the first base, for the axis.
        mark: Positions that are shaded.
    """
    logomaker: Any = import_module("logomaker")
    own = np.array([[base == letter for letter in BASES] for base in sequence])
    frame = pd.DataFrame(np.where(own, values, 0), columns=BASES)
    frame.index = pd.RangeIndex(start, start + len(frame))
    logomaker.Logo(frame, ax=ax, color_scheme=BASE_COLOURS, flip_below=False)
    ax.axhline(0, color="black", linewidth=0.5)
    ax.set(ylabel="logits")
    return _positions(ax, start, len(frame), mark)


def substitutions(
    sequence: str,
    values: Floats,
    ax: Axes,
    *,
    start: int = 1,
    mark: range | None = None,
    limit: float | None = None,
) -> Axes:
    """Draw what every substitution changes, as colours: positions across, bases down.

    Args:
        sequence: (bases); a dot marks the base that is there.
        values: Delta logits, (bases, 4).
        ax: Where to draw.
        start: Position of the first base, for the axis.
        mark: Positions that are framed.
        limit: Where the colours end; by default at the largest value.
    """
    _coloured(values.T, ax, start, label="delta logit", limit=limit)
    there = [(start + i, BASES.index(base)) for i, base in enumerate(sequence) if base in BASES]
    ax.plot([x for x, _ in there], [y for _, y in there], ".", color="black", markersize=3)
    ax.set_yticks(range(len(BASES)), BASES)
    return _positions(ax, start, len(sequence), mark)


def profiles(
    values: Floats, names: Sequence[str], ax: Axes, *, start: int = 1, mark: range | None = None
) -> Axes:
    """Draw what each base is worth to groups of cells, as colours: positions across, groups down.

    Args:
        values: Logits that the base which is there is worth, (groups, bases).
        names: Of the groups.
        ax: Where to draw.
        start: Position of the first base, for the axis.
        mark: Positions that are framed.
    """
    _coloured(values, ax, start, label="logits")
    ax.set_yticks(range(len(names)), names)
    return _positions(ax, start, values.shape[1], mark)


def cell_map(coordinates: pd.DataFrame, values: Floats, ax: Axes, *, label: str = DELTA) -> Axes:
    """Draw cells where two coordinates put them, coloured by a value; the largest lie on top.

    Args:
        coordinates: (cells, 2); the names of the columns are the axes'.
        values: (cells).
        ax: Where to draw.
        label: What the values are.
    """
    order = np.argsort(np.abs(values), kind="stable")
    x, y = coordinates.to_numpy(dtype=float)[order].T
    points = ax.scatter(
        x,
        y,
        c=values[order],
        s=float(np.clip(20_000 / len(values), 4, 40)),
        cmap=EFFECTS,
        norm=CenteredNorm(halfrange=largest(values)),
        edgecolors="black",
        linewidths=0.2,
        rasterized=len(values) > _MOST_VECTORS,
    )
    _figure(ax).colorbar(points, ax=ax, label=label)
    ax.set(xlabel=coordinates.columns[0], ylabel=coordinates.columns[1], xticks=[], yticks=[])
    return ax


def group_bars(values: pd.Series, labels: pd.Series, ax: Axes) -> Axes:
    """Draw the mean of each group of cells as a bar, and its standard deviation as a line.

    Args:
        values: Delta logits, (cells).
        labels: Of the groups, (cells); cells with an empty label or none belong to none.
        ax: Where to draw. Of more than 25 groups those with the largest means are drawn.
    """
    groups = values.groupby(labels.where(labels != ""), observed=True)
    means = groups.mean()
    kept = means[means.abs().sort_values(kind="stable").index[-_MOST_BARS:]].sort_values()
    spread, sizes = groups.std().fillna(0)[kept.index], groups.size()[kept.index]
    names = [f"{name} ({n:,})" for name, n in sizes.items()]
    colours = [ORANGE if mean > 0 else BLUE for mean in kept]
    ax.barh(
        range(len(kept)),
        kept,
        xerr=spread,
        color=colours,
        error_kw={"linewidth": 0.8, "ecolor": "black"},
    )
    ax.set_yticks(range(len(kept)), names)
    ax.axvline(0, color="black", linewidth=0.5)
    ax.set(xlabel=DELTA, ylim=(-0.6, len(kept) - 0.4))
    return ax


def distribution(
    values: Floats, ax: Axes, *, groups: Mapping[str, NDArray[np.bool_]] | None = None
) -> Axes:
    """Draw how an effect is spread over cells, and groups of cells among them.

    Args:
        values: Delta logits, (cells).
        ax: Where to draw.
        groups: Which cells are of each, (cells) bool.
    """
    edges = np.histogram_bin_edges(values, bins=40).tolist()
    ax.hist(values, edges, color="#CCCCCC", label=f"all cells ({len(values):,})")
    for (name, members), (colour, line) in zip((groups or {}).items(), cycle(LINES), strict=False):
        label = f"{name} ({members.sum():,})"
        ax.hist(
            values[members],
            edges,
            histtype="step",
            linewidth=1.5,
            color=colour,
            linestyle=line,
            label=label,
        )
    ax.axvline(0, color="black", linewidth=0.5)
    ax.legend(frameon=False)
    ax.set(xlabel=DELTA, ylabel="cells")
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
    return to_bytes(figure, "svg")


def to_bytes(figure: Figure, suffix: str) -> bytes:
    """Give the picture as a file: the same bytes for the same figure.

    Args:
        figure: What to draw. Its texts are shown as they are: `$` begins no formula.
        suffix: svg, pdf or png.
    """
    matplotlib: Any = import_module("matplotlib")
    for text in figure.findobj(import_module("matplotlib.text").Text):
        text.set_parse_math(False)
    file, undated = BytesIO(), {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    with matplotlib.rc_context({"svg.hashsalt": "scbasset-ism", "text.parse_math": False}):
        figure.savefig(file, format=suffix, metadata=undated.get(suffix), dpi=200)
    return file.getvalue()


def largest(values: Floats) -> float:
    """Give the half-width of a scale of colours; above 0."""
    return float(np.nanmax(np.abs(values), initial=0)) or 1.0


def _coloured(
    values: Floats, ax: Axes, start: int, *, label: str, limit: float | None = None
) -> None:
    """Draw a matrix whose columns are positions; grey is 0."""
    image = ax.imshow(
        values,
        aspect="auto",
        interpolation="nearest",
        cmap=EFFECTS,
        norm=CenteredNorm(halfrange=limit or largest(values)),
        extent=(start - 0.5, start + values.shape[1] - 0.5, len(values) - 0.5, -0.5),
    )
    _figure(ax).colorbar(image, ax=ax, label=label)


def _positions(ax: Axes, start: int, n_bases: int, mark: range | None) -> Axes:
    """Lay out the axis of positions, and mark some of them."""
    if mark:
        ax.axvspan(mark.start - 0.5, mark.stop - 0.5, facecolor="none", edgecolor="black")
        ax.axvspan(mark.start - 0.5, mark.stop - 0.5, facecolor=GREY, alpha=0.3, zorder=-1)
    ax.set(xlim=(start - 0.5, start + n_bases - 0.5))
    ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    ax.xaxis.set_major_formatter("{x:,.0f}")
    return ax


def _figure(ax: Axes) -> Figure:
    figure = ax.get_figure(root=True)
    assert figure is not None
    return figure
