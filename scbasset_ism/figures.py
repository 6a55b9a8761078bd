"""Pictures of what is in a store: reads it, and lays out the figures of `plot`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scbasset_ism import plot
from scbasset_ism.cells import select_cells
from scbasset_ism.errors import StoreError
from scbasset_ism.frames import Floats
from scbasset_ism.reader import Scores
from scbasset_ism.saturations import Saturations
from scbasset_ism.variants import Variant, normalize

SPAN = 100  # bases whose letters can be read

Groups = Sequence[str] | Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class View:
    """The middle of a window, as a picture shows it.

    Attributes:
        number: Of the window's row.
        name: Its name.
        chrom: Contig.
        sequence: (bases).
        rows: Which of the stretch's positions they are.
        start: Position of the first base, 1-based.
        mark: Positions of the variant, if there is one.
    """

    number: int
    name: str
    chrom: str
    sequence: str
    rows: slice
    start: int
    mark: range | None


def variant_map(
    scores: Scores, variant: str | int, *, coordinates: pd.DataFrame | None = None
) -> Figure:
    """Draw the effect of a variant over all cells.

    Args:
        scores: Where it was scored.
        variant: Its name or number.
        coordinates: Of the cells, (cells, 2); else `principal_components`.

    Raises:
        StoreError: There is no such variant, or it has no score.
    """
    figure, ax, values = _of_variant(scores, variant)
    places = principal_components(scores.cell_weight) if coordinates is None else coordinates
    plot.cell_map(places, values.to_numpy(), ax)
    return figure


def variant_bars(scores: Scores, variant: str | int, *, by: str) -> Figure:
    """Draw the mean effect of a variant in the groups that a column of the cells' table makes.

    Raises:
        StoreError: There is no such variant or column, or the variant has no score.
    """
    figure, ax, values = _of_variant(scores, variant)
    plot.group_bars(values, scores.group_labels(by), ax)
    figure.set_figheight(1 + 0.22 * len(ax.get_yticks()))
    return figure


def variant_distribution(
    scores: Scores, variant: str | int, *, groups: Sequence[str] = ()
) -> Figure:
    """Draw how the effect of a variant is spread over cells, and groups' among them.

    Args:
        scores: Where it was scored.
        variant: Its name or number.
        groups: Cells, as `select_cells` takes them.

    Raises:
        ScbassetError: There are no such variant or cells, or the variant has no score.
    """
    figure, ax, values = _of_variant(scores, variant)
    members = {group: select_cells(scores.cells, group) for group in groups}
    plot.distribution(values.to_numpy(), ax, groups=members)
    return figure


def logos(
    found: Saturations, window: str | int, *, groups: Groups = (), span: int = SPAN
) -> Figure:
    """Draw the letters of a window as high as each base is worth, a logo for each group of cells.

    Args:
        found: Where it was mutated.
        window: A row, by its name or number; or a variant or region by its name, with all its rows:
            the reference above the alternate allele.
        groups: Cells, as `select_cells` takes them, or numbers of cells by the name of their group;
            all together by default.
        span: Most bases that are shown, in the middle.

    Raises:
        ScbassetError: There are no such window or cells, or the window has no score.
    """
    figure, panels = _panels(found, window, groups, span)
    for ax, cells, view in panels:
        values = found.to_logo(view.number, cells).to_numpy()[view.rows]
        plot.logo(view.sequence, values, ax, start=view.start, mark=view.mark)
    largest = np.abs([ax.get_ylim() for ax, _, _ in panels]).max(axis=0)
    for ax, _, _ in panels:
        ax.set_ylim(-largest[0], largest[1])
    return figure


def substitutions(
    found: Saturations, window: str | int, *, groups: Groups = (), span: int = SPAN
) -> Figure:
    """Draw what every substitution changes in groups of cells, as colours; else like `logos`."""
    figure, panels = _panels(found, window, groups, span)
    deltas = [found.of(view.number, cells).to_numpy()[view.rows] for _, cells, view in panels]
    limit = max(map(plot.largest, deltas))
    for values, (ax, _, view) in zip(deltas, panels, strict=True):
        plot.substitutions(view.sequence, values, ax, start=view.start, mark=view.mark, limit=limit)
    return figure


def profiles(found: Saturations, window: str | int, *, by: str, span: int = SPAN) -> Figure:
    """Draw what every base is worth to the groups that a column of the cells' table makes.

    Args:
        found: As for `logos`, like what it raises.
        window: As for `logos`.
        by: The column.
        span: Most bases that are shown.
    """
    views, labels = _views(found, window, span), found.group_labels(by)
    names = list(labels[labels != ""].dropna().astype(str).value_counts().index)
    figure = Figure(figsize=(10, len(views) * (1 + 0.2 * len(names))), layout="constrained")
    for ax, view in zip(figure.subplots(len(views), squeeze=False)[:, 0], views, strict=True):
        groups = (found.to_logo(view.number, name, by).to_numpy()[view.rows] for name in names)
        letters = [plot.BASES.index(base) if base in plot.BASES else -1 for base in view.sequence]
        own = [np.append(v, np.zeros((len(v), 1)), 1)[range(len(v)), letters] for v in groups]
        plot.profiles(np.stack(own), names, ax, start=view.start, mark=view.mark)
        ax.set_title(view.name, loc="left", fontsize=9)
        ax.set_xlabel(f"position on {view.chrom}")
    return figure


def principal_components(weight: Floats) -> pd.DataFrame:
    """Place cells by what opens them: the first two principal components of their weights.

    Args:
        weight: (cells, bottleneck), of the head.

    Returns:
        (cells, 2).
    """
    u, s, _ = np.linalg.svd(weight - weight.mean(axis=0), full_matrices=False)
    scores = np.zeros((len(weight), 2))
    scores[:, : len(s[:2])] = (u * s)[:, :2]
    return pd.DataFrame(scores, columns=["PC 1 of the cells' weights", "PC 2"])


def _of_variant(scores: Scores, variant: str | int) -> tuple[Figure, Axes, pd.Series]:
    """Begin the figure of a variant, and read its effects."""
    number = scores.row_number(variant)
    row = scores.rows(slice(number, number + 1)).iloc[0]
    if row["status"] != "SCORED":
        raise StoreError(f"{scores.path}: variant {row.name} has no score: {row['status']}")
    figure = Figure(figsize=(6, 4.5), layout="constrained")
    ax = figure.add_subplot()
    ax.set_title(f"{row.name} {row['variant_id']}".strip(" ."), loc="left", fontsize=9)
    return figure, ax, scores.variant(number)


def _panels(
    found: Saturations, window: str | int, groups: Groups, span: int
) -> tuple[Figure, list[tuple[Axes, list[int], View]]]:
    """Begin a figure with a row for each group and window."""
    views = _views(found, window, span)
    members = _members(found, groups)
    pairs = [(group, view) for group in members for view in views]
    figure = Figure(figsize=(10, 0.4 + 1.5 * len(pairs)), layout="constrained")
    axes = figure.subplots(len(pairs), squeeze=False)[:, 0]
    for ax, (group, view) in zip(axes, pairs, strict=True):
        ax.set_title(f"{group}, {view.name}", loc="left", fontsize=9)
    axes[-1].set_xlabel(f"position on {views[0].chrom}")
    return figure, [
        (ax, list(members[group]), view) for ax, (group, view) in zip(axes, pairs, strict=True)
    ]


def _members(found: Saturations, groups: Groups) -> Mapping[str, Sequence[int]]:
    """Look up the cells of every group."""
    if isinstance(groups, Mapping):
        return groups
    if not groups:
        return {"all cells": range(len(found.cells))}
    return {g: np.flatnonzero(select_cells(found.cells, g)).tolist() for g in groups}


def _views(found: Saturations, window: str | int, span: int) -> list[View]:
    """Find the rows that a name means, and what a picture shows of each."""
    table = found.windows()
    if isinstance(window, str):
        rows = np.flatnonzero((table.index == window) | (table["source"] == window))
    else:
        rows = np.array([found.row_number(window)])
    if not len(rows):
        raise StoreError(f"{found.path} has no window of the name {window!r}")
    return [_view(found, int(row), table.iloc[row], span) for row in rows]


def _view(found: Saturations, number: int, row: pd.Series, span: int) -> View:
    sequence = found.sequence(number)
    cut = max(0, len(sequence) // 2 - span // 2)
    shown = slice(cut, cut + span)
    start, mark = int(row["start"]) + 1 + cut, None
    if "variants" in found.attributes:
        written = Variant.parse(str(row["source"]))
        trimmed = normalize(written, lambda _chrom, first, last: "N" * (last - first))
        allele = trimmed.ref if row["allele"] == "ref" else trimmed.alt
        first = int(row["start"]) + 1 + len(sequence) // 2
        mark = range(first, first + max(1, len(allele)))
    return View(number, str(row.name), str(row["chrom"]), sequence[shown], shown, start, mark)
