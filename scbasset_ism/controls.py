"""Variants that stand in for credible ones, and what is read off many draws of them.

A control is a variant of the same loci that is in no credible set, matched to the credible one. It
is scaled to the credible variant's size, so that a draw changes where variants act and not how
strongly.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scbasset_ism.frames import Floats

Doubles = NDArray[np.float64]

NEAREST = 50  # controls of a credible variant
LEAST = 100  # controls of a trait; with fewer there is no null
_BLOCK = 4096  # controls whose values are made at once


@dataclass(frozen=True)
class Null:
    """Where observed scores stand among those of draws.

    Attributes:
        mean: Of the draws, (units) float64.
        sd: Of the draws, (units) float64.
        z: `(observed - mean) / sd`, (units) float64.
        p: `(1 + n) / (1 + draws)`, n draws being as far out as the observed (North et al. 2002),
            (units) float64.
        pooled_p: The same among the standardised draws of all units, as scDRS has it
            (Zhang et al. 2022), (units) float64; of one-sided tests.
    """

    mean: Doubles
    sd: Doubles
    z: Doubles
    p: Doubles
    pooled_p: Doubles


def nearest_controls(
    credible: pd.DataFrame, controls: pd.DataFrame, n: int = NEAREST
) -> NDArray[np.int64]:
    """Find the controls that are most like each credible variant.

    Every column becomes its rank among the controls, from 0 to 1; near is by Euclid.

    Args:
        credible: Numbers to match on, (credible, features).
        controls: The same, (controls, features).
        n: How many.

    Returns:
        Numbers of controls, (credible, at most n), the nearest first.
    """
    ranks = [np.empty((len(controls.columns), len(table))) for table in (credible, controls)]
    for column, feature in enumerate(controls):
        known = np.sort(controls[feature].to_numpy())
        for table, own in zip((credible, controls), ranks, strict=True):
            values = table[feature].to_numpy()
            below = np.searchsorted(known, values, "left") + np.searchsorted(known, values, "right")
            own[column] = below / (2 * len(known))
    n = min(n, len(controls))
    order = np.argsort(ranks[1][0], kind="stable")
    radius = np.sqrt(n / len(controls))
    found = [_nearest(place, ranks[1], order, n=n, radius=radius) for place in ranks[0].T]
    return np.array(found, dtype=np.int64).reshape(len(credible), n)


def _nearest(
    place: Doubles, ranks: Doubles, order: NDArray[np.int64], *, n: int, radius: float
) -> NDArray[np.int64]:
    """Find the n nearest columns of ranks, of equally near ones the first.

    Only those whose first rank, by which `order` sorts, is within a radius are looked at: once n
    lie inside it in all ranks, none outside is nearer.
    """
    while True:
        low = np.searchsorted(ranks[0], place[0] - radius, "left", sorter=order)
        high = np.searchsorted(ranks[0], place[0] + radius, "right", sorter=order)
        some = np.sort(order[low:high])
        distance = np.square(ranks[:, some] - place[:, None]).sum(axis=0)
        if np.sum(distance <= radius**2) >= n or len(some) == len(order):
            return some[np.argsort(distance, kind="stable")[:n]]
        radius *= 2


def draw(nearest: NDArray[np.int64], n_draws: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw a control for every credible variant, (draws, credible), independently of each other."""
    picks = rng.integers(nearest.shape[1], size=(n_draws, len(nearest)))
    return nearest[np.arange(len(nearest)), picks]


def drawn_scores(
    drawn: NDArray[np.int64], weight: Doubles, values: Callable[[NDArray[np.int64]], Floats]
) -> Doubles:
    """Add up what the controls of every draw do, a block of controls at a time.

    Args:
        drawn: Numbers of controls, (draws, credible).
        weight: What each credible variant counts, (credible).
        values: Gives those of some controls by their numbers, (some, units).

    Returns:
        `sum over v of weight[v] * values[drawn[draw, v]]`, (draws, units) float64.
    """
    n_draws, n_credible = drawn.shape
    numbers, places = np.unique(drawn, return_inverse=True)  # only what was drawn at all
    places = places.ravel()
    order = np.argsort(places, kind="stable")
    total: Doubles = np.zeros((n_draws, 1))
    for start in range(0, len(numbers), _BLOCK):
        some = numbers[start : start + _BLOCK]
        own = order[slice(*np.searchsorted(places[order], [start, start + len(some)]))]
        cells = own // n_credible * len(some) + places[own] - start  # of (draws, some)
        counts = np.bincount(cells, weight[own % n_credible], minlength=n_draws * len(some))
        total = total + counts.reshape(n_draws, len(some)).astype(np.float64) @ values(some)
    return total


def compare(observed: Doubles, draws: Doubles, *, two_sided: bool) -> Null:
    """Say where observed scores stand among draws.

    Args:
        observed: (units).
        draws: (draws, units).
        two_sided: Far out is far from the mean of the draws on either side, else above it.
    """
    n_draws = len(draws)
    mean, sd = draws.mean(axis=0), draws.std(axis=0, ddof=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        z, spread = (observed - mean) / sd, (draws - mean) / sd
    far, own = (np.abs(spread), np.abs(z)) if two_sided else (spread, z)
    p = (1 + (far >= own - 1e-9 * np.abs(own)).sum(axis=0)) / (1 + n_draws)
    pool = np.sort(far[np.isfinite(far)])
    pooled = (1 + len(pool) - np.searchsorted(pool, own)) / (1 + len(pool))
    nothing = ~(sd > 0)
    z[nothing], p[nothing], pooled[nothing] = np.nan, np.nan, np.nan
    return Null(mean, sd, z, p, pooled)


def false_discovery_rate(p: Doubles) -> Doubles:
    """Adjust p-values as Benjamini and Hochberg (1995) do, (n) float64; NaN stays NaN."""
    adjusted = np.full(len(p), np.nan)
    known = np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(-p[known], kind="stable")]
    ranks = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1, np.minimum.accumulate(p[order] * len(order) / ranks))
    return adjusted
