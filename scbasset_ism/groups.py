"""Cells in groups or along an axis, and what a variant does there.

A mean over cells is one row of W, a slope another, an SD a small matrix; so all but the share of
signs is asked of the bottleneck, at a cost that does not depend on the number of cells.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scbasset_ism.calibration import Background
from scbasset_ism.cells import select_cells
from scbasset_ism.coordinates import open_anndata
from scbasset_ism.errors import GroupError
from scbasset_ism.frames import Floats
from scbasset_ism.reader import Scores, read_rows

log = logging.getLogger(__name__)

_BLOCK = 1 << 20  # values that are made at once


@dataclass(frozen=True)
class Groups:
    """Which cell belongs to which group.

    Attributes:
        names: Of the groups, in the order of the columns of all that follows.
        codes: Number of each cell's group, (cells) int64; -1 for cells of none.
    """

    names: pd.Index
    codes: NDArray[np.int64]

    def __post_init__(self) -> None:
        if not len(self.names):
            raise GroupError("no cell belongs to a group: all labels are empty, or no cell is left")

    @classmethod
    def of(cls, labels: pd.Series) -> "Groups":
        """Make a group of every label, as text; cells with an empty label or none are in none."""
        text = labels.astype(object).where(labels.notna()).map(_label, na_action="ignore")
        codes, names = pd.factorize(text.where(text != ""), sort=True)
        return cls(pd.Index(names, name=labels.name), codes.astype(np.int64))

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """Cells of each group, (groups) int64."""
        return np.bincount(self.codes[self.codes >= 0], minlength=len(self.names))

    @cached_property
    def members(self) -> Floats:
        """Averaging weights, (groups, cells) float32; each row sums to 1."""
        weights = self.codes == np.arange(len(self.names))[:, None]
        return (weights / self.sizes[:, None]).astype(np.float32)

    def mean_weight(self, cell_weight: Floats) -> Floats:
        """Average rows of W, (cells, bottleneck), to (groups, bottleneck) float32."""
        return self.members @ cell_weight


@dataclass(frozen=True)
class GroupStatistics:
    """What variants do in groups of cells; NaN where a variant has no score.

    Attributes:
        groups: The groups.
        mean: Of the delta logits of a group's cells, (variants, groups) float32.
        sd: Their standard deviation about that mean, all cells taken as the population,
            (variants, groups) float32.
        sign_share: Share of the group's cells whose delta has the sign of the mean, NaN where
            that is 0, (variants, groups) float32.
    """

    groups: Groups
    mean: Floats
    sd: Floats
    sign_share: Floats

    @property
    def tau(self) -> Floats:
        """Specificity of each variant, (variants) float32; see `specificity`."""
        return specificity(self.mean)


@dataclass(frozen=True)
class Slopes:
    """How the delta of variants changes along an axis, by least squares over cells.

    Attributes:
        slope: Delta logit per unit of the axis, (variants) float32.
        slope_se: Its standard error, from the scatter of the cells about the line and `n_cells - 2`
            degrees of freedom, (variants) float32.
        n_cells: Cells that have a place on the axis.
    """

    slope: Floats
    slope_se: Floats
    n_cells: int


class GroupScorer:
    """Gives statistics of groups, a block of variants at a time.

    Args:
        groups: The groups.
        cell_weight: W, (cells, bottleneck) float32.
    """

    def __init__(self, groups: Groups, cell_weight: Floats) -> None:
        self.groups = groups
        inside = np.argsort(groups.codes, kind="stable")[np.sum(groups.codes < 0) :]
        self._weight = np.ascontiguousarray(cell_weight[inside])  # group by group
        self.mean_weight = groups.mean_weight(cell_weight)
        self._starts = np.concatenate([[0], np.cumsum(groups.sizes)[:-1]])
        factors = [
            scatter(self._weight[start : start + size])
            for start, size in zip(self._starts, groups.sizes, strict=True)
        ]
        self._scatter = np.concatenate(factors)
        heights = [len(factor) for factor in factors]
        self._scatter_starts = np.concatenate([[0], np.cumsum(heights)[:-1]])

    def __call__(self, delta: Floats) -> GroupStatistics:
        """Describe variants by their delta_bottleneck, (variants, bottleneck) float32."""
        mean = delta @ self.mean_weight.T  # (variants, groups)
        step = max(1, _BLOCK // max(len(self._weight), len(self._scatter)))
        pieces = [
            (self._sd(delta[rows]), self._sign_share(delta[rows], mean[rows]))
            for rows in (slice(i, i + step) for i in range(0, len(delta), step))
        ]
        empty = np.empty((0, mean.shape[1]), np.float32)
        sd = np.concatenate([empty, *(piece[0] for piece in pieces)])
        share = np.concatenate([empty, *(piece[1] for piece in pieces)])
        return GroupStatistics(self.groups, mean, sd, share)

    def _sd(self, delta: Floats) -> Floats:
        """Give the SD as the length of a projection, which no rounding makes negative."""
        projected = delta @ self._scatter.T
        np.square(projected, out=projected)
        return np.sqrt(np.add.reduceat(projected, self._scatter_starts, axis=1))

    def _sign_share(self, delta: Floats, mean: Floats) -> Floats:
        """Count signs, the only statistic that needs every cell."""
        is_positive = delta @ self._weight.T > 0
        counts = np.add.reduceat(is_positive, self._starts, axis=1, dtype=np.int32)
        positive = (counts / self.groups.sizes).astype(np.float32)
        share = np.where(mean > 0, positive, 1 - positive)
        return np.where(np.isnan(mean) | (mean == 0), np.float32(np.nan), share)


class SlopeScorer:
    """Gives slopes along an axis, a block of variants at a time.

    Args:
        axis: Place of each cell, (cells); cells with NaN have none.
        cell_weight: W, (cells, bottleneck) float32.
    """

    def __init__(self, axis: pd.Series, cell_weight: Floats) -> None:
        if not pd.api.types.is_numeric_dtype(axis) or pd.api.types.is_bool_dtype(axis):
            raise GroupError(f"{axis.name!r} holds no numbers, so it is no axis; use it as groups")
        places = axis.to_numpy(dtype=np.float64, na_value=np.nan)
        placed = np.isfinite(places)
        self.n_cells = int(placed.sum())
        if self.n_cells < 3 or np.ptp(places[placed]) == 0:
            raise GroupError(
                f"{axis.name!r} has {self.n_cells:,} cells at "
                f"{len(np.unique(places[placed])):,} places; a slope needs 3 at 2 places or more"
            )
        weight = cell_weight[placed].astype(np.float64)
        centred = places[placed] - places[placed].mean()
        spread = centred @ centred
        slope = centred @ weight / spread  # (bottleneck)
        self.slope_weight = slope[None].astype(np.float32)
        factor = scatter(weight - np.outer(centred, slope))  # of what the line leaves
        self._se = (factor * np.sqrt(self.n_cells / (self.n_cells - 2) / spread)).astype(np.float32)

    def __call__(self, delta: Floats) -> Slopes:
        """Describe variants by their delta_bottleneck, (variants, bottleneck) float32."""
        error = np.linalg.norm(delta @ self._se.T, axis=1)
        return Slopes((delta @ self.slope_weight.T)[:, 0], error, self.n_cells)


def _label(value: Any) -> str:
    """Write a label; whole numbers became fractions where some cells have none."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def scatter(weight: NDArray[Any]) -> Floats:
    """Give R with `h' R' R h` the variance of `weight @ h` over rows, (at most bottleneck, same).

    The covariance of the rows of W is R'R; its triangular factor comes from W itself, so that no
    square is taken before the variant is known.
    """
    centred = weight.astype(np.float64) - weight.mean(axis=0, dtype=np.float64)
    return np.asarray(np.linalg.qr(centred / np.sqrt(len(weight)), mode="r"), dtype=np.float32)


def specificity(mean: Floats) -> Floats:
    """Give tau of Yanai et al. (2005): 0 where all groups change alike, 1 where one does alone.

    `tau = sum(1 - x / max(x)) / (n - 1)` over n groups. It is defined for expression, which has no
    sign: x is the absolute mean delta here, so a variant that opens one group and closes another
    as much acts in two.

    Yanai et al., Bioinformatics 21, 650-659 (2005), doi:10.1093/bioinformatics/bti042.

    Args:
        mean: (variants, groups).

    Returns:
        (variants) float32; NaN for a single group, and where nothing changes anywhere.
    """
    size = np.abs(mean)
    largest = size.max(axis=1)
    n = mean.shape[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        tau = (n - size.sum(axis=1) / largest) / (n - 1)
    return tau.astype(np.float32)


def choose_labels(
    scores: Scores,
    column: str | None,
    *,
    query: str | None = None,
    obs: str | Path | None = None,
) -> pd.Series:
    """Look up what cells are grouped by, or placed along.

    Args:
        scores: A store.
        column: Of the table of its cells, or of the AnnData's obs; None makes one group of all
            cells that the query selects, which has the query's name.
        query: Only these cells (see `cells.select_cells`).
        obs: AnnData that has more columns (see `with_obs`).

    Returns:
        (cells); nothing for cells that are not selected.

    Raises:
        GroupError: There is no such column, or a query or an AnnData is no use.
    """
    cells = scores.cells
    if obs is not None:
        cells, n_known = with_obs(cells, obs)
        log.info("%s has %s of the %s cells", obs, f"{n_known:,}", f"{len(cells):,}")
    selected = select_cells(cells, query) if query is not None else np.ones(len(cells), dtype=bool)
    if column is None:
        return pd.Series(query or "all cells", index=cells.index, name="query").where(selected)
    if column not in cells:
        raise GroupError(
            f"the cells have no column {column!r}; they have "
            f"{', '.join(map(repr, cells)) or 'none'}"
        )
    return cells[column].where(selected)


def with_obs(cells: pd.DataFrame, path: str | Path) -> tuple[pd.DataFrame, int]:
    """Give the cells the columns of an AnnData's obs, matched by cell id.

    Args:
        cells: Table of a store's cells, index `cell_id`.
        path: AnnData as .h5ad or Zarr; its matrix is not read. Its columns come before those of
            the same name in the table; cells that it lacks have no value there.

    Returns:
        The table, and how many of its cells the AnnData has.

    Raises:
        ScbassetError: It can't be read, has a cell twice, or none of the cells.
    """
    with open_anndata(path) as (file, read):
        obs: pd.DataFrame = read(file["obs"]) if "obs" in file else pd.DataFrame()
    obs.index = obs.index.astype(str)
    if obs.index.has_duplicates:
        twice = obs.index[obs.index.duplicated()][0]
        raise GroupError(f"{path}: {twice!r} is the name of several cells in obs")
    known = cells.index.isin(obs.index)
    if not known.any():
        raise GroupError(
            f"{path} has none of the cells of the store: they are named like {cells.index[0]!r} "
            f"here and like {obs.index[0] if len(obs) else 'nothing'!r} there"
        )
    own = cells[[column for column in cells if column not in obs]]
    return own.join(obs), int(known.sum())


def tabulate_groups(
    scores: Scores,
    groups: Groups,
    *,
    background: Background | None = None,
    top: int | None = None,
) -> Iterator[pd.DataFrame]:
    """Describe every scored variant in every group, a block of variants at a time.

    Args:
        scores: A store.
        groups: Of its cells.
        background: Adds `z` and `percentile` of the mean (see `Calibration`).
        top: Only so many groups of each variant, by rank.

    Yields:
        One row per variant and group, by variant and `rank`: `row` of the store, `variant_name`,
        `variant_id`, `group`, `n_cells`, `rank` (1 has the largest absolute mean; with a
        background the largest absolute z, since groups differ in how much they move at all),
        `mean`, `sd`, `sign_share`, and `tau` of the variant.
    """
    scorer = GroupScorer(groups, scores.cell_weight)
    calibration = background and background.calibrate(scorer.mean_weight)
    shown = len(groups.names) if top is None else min(top, len(groups.names))

    def describe(delta: Floats) -> dict[str, Any]:
        found = scorer(delta)
        z = calibration.z(found.mean) if calibration else None
        by = found.mean if z is None else z
        best = np.argsort(-np.abs(by), axis=1, kind="stable")[:, :shown]

        def chosen(values: NDArray[Any]) -> NDArray[Any]:
            return np.take_along_axis(values, best, axis=1).ravel()

        columns: dict[str, Any] = {
            "group": pd.Categorical.from_codes(best.ravel(), groups.names.astype(str)),
            "n_cells": groups.sizes[best.ravel()],
            "rank": np.tile(np.arange(1, shown + 1), len(delta)),
            "mean": chosen(found.mean),
            "sd": chosen(found.sd),
            "sign_share": chosen(found.sign_share),
            "tau": found.tau.repeat(shown),
        }
        if calibration and z is not None:
            columns["z"] = chosen(z)
            columns["percentile"] = chosen(calibration.percentile(found.mean))
        return columns

    return _tabulate(scores, describe, len(groups.names), shown)


def tabulate_slopes(
    scores: Scores, axis: pd.Series, *, background: Background | None = None
) -> Iterator[pd.DataFrame]:
    """Give the slope of every scored variant along an axis, a block of variants at a time.

    Args:
        scores: A store.
        axis: Place of each of its cells; cells with NaN have none.
        background: Adds `z` and `percentile` of the slope (see `Calibration`).

    Yields:
        One row per variant: `row` of the store, `variant_name`, `variant_id`, `axis`, `n_cells`,
        `slope`, `slope_se`.
    """
    scorer = SlopeScorer(axis, scores.cell_weight)
    calibration = background and background.calibrate(scorer.slope_weight)

    def describe(delta: Floats) -> dict[str, Any]:
        found = scorer(delta)
        columns: dict[str, Any] = {
            "axis": str(axis.name),
            "n_cells": found.n_cells,
            "slope": found.slope,
            "slope_se": found.slope_se,
        }
        if calibration:
            columns["z"] = calibration.z(found.slope[:, None])[:, 0]
            columns["percentile"] = calibration.percentile(found.slope[:, None])[:, 0]
        return columns

    return _tabulate(scores, describe, 1, 1)


def _tabulate(
    scores: Scores, describe: Callable[[Floats], dict[str, Any]], width: int, shown: int
) -> Iterator[pd.DataFrame]:
    """Put names beside what blocks of variants are described by, `shown` rows for each."""
    size = scores.bottleneck.chunks[0]  # read together; names are packed so
    step = max(1, _BLOCK // width)
    for first in range(0, max(1, len(scores)), size):
        rows = slice(first, min(first + size, len(scores)))
        delta, table = read_rows(scores.delta_bottleneck, rows), scores.rows(rows)
        scored = np.flatnonzero(np.isfinite(delta).all(axis=1))
        for start in range(0, max(1, len(scored)), step):
            some = scored[start : start + step]
            numbers = some.repeat(shown)
            named = {
                "row": numbers + first,
                "variant_name": table.index.to_numpy()[numbers],
                "variant_id": table["variant_id"].to_numpy()[numbers],
            }
            yield pd.DataFrame(named | describe(delta[some]))
