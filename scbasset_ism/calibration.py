"""How large an effect is among those of a background: variants that mostly do nothing.

A background is a store of `score`, in either layout. Its bottlenecks answer for every grouping of
the same model's cells, on the fly.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from scbasset_ism.errors import CalibrationError
from scbasset_ism.frames import Floats
from scbasset_ism.places import Location
from scbasset_ism.reader import Scores, group_weights, open_scores, read_rows

LEAST = 100  # variants; with fewer a percentile is no percentile
_BLOCK = 1 << 22  # values that are made at once
LEVELS = (50.0, 90.0, 95.0, 99.0, 99.9)  # percentiles of a table of cut-offs
_SAME = {  # of the fingerprint: what moves all effects
    "model weights": "another model",
    "rc": "another choice of strands (--rc)",
    "shifts": "other shifts (--shifts)",
}


@dataclass(frozen=True)
class Calibration:
    """What a background does in some groups, or along an axis.

    Attributes:
        size: Absolute effects, sorted, (groups, background variants) float32.
        rms: Root mean square of the effects, (groups) float32.
    """

    size: Floats
    rms: Floats

    def z(self, effect: Floats) -> Floats:
        """Give effects in units of the background's root mean square, (variants, groups) float32.

        About 0 and not about the background's mean, so that swapped alleles swap the sign. Effects
        have heavy tails: a z of 3 is common, and percentiles are what to cut at.
        """
        return effect / self.rms

    def percentile(self, effect: Floats) -> Floats:
        """Give signed percentiles, (variants, groups) float32 from -100 to 100, both excluded.

        The size is the share of the background with a smaller absolute effect,
        `100 * n_smaller / (n + 1)`, the sign that of the effect.
        """
        found = np.full(effect.shape, np.nan, dtype=np.float32)
        for group, background in enumerate(self.size):
            smaller = np.searchsorted(background, np.abs(effect[:, group]))
            found[:, group] = 100 * smaller / (len(background) + 1)
        return np.where(np.isnan(effect), np.float32(np.nan), np.copysign(found, effect))


class Background:
    """The effects of a background's variants, to compare with.

    Args:
        path: Of a finished store of `score`.

    Attributes:
        scores: The store.
        delta: Its delta_bottleneck where a variant was scored, (variants, bottleneck) float32.

    Raises:
        StoreError: There is no such store.
        CalibrationError: It has too few variants.
    """

    def __init__(self, path: Location) -> None:
        self.scores = open_scores(path)
        delta = read_rows(self.scores.delta_bottleneck, slice(None))
        self.delta = delta[np.isfinite(delta).all(axis=1)]
        if len(self.delta) < LEAST:
            raise CalibrationError(
                f"{path} has {len(self.delta):,} scored variants; a background needs {LEAST:,} or "
                "more, and thousands for the far percentiles"
            )

    def __len__(self) -> int:
        """Scored variants."""
        return len(self.delta)

    def require(self, fingerprint: dict[str, Any], what: str) -> None:
        """Refuse effects that can't be compared.

        Args:
            fingerprint: Of the store that is to be calibrated.
            what: Its name in the message.

        Raises:
            CalibrationError: They are of another model, or averaged otherwise.
        """
        own = self.scores.attributes["fingerprint"]
        for name, said in _SAME.items():
            if own.get(name) != fingerprint.get(name):
                raise CalibrationError(
                    f"the background {self.scores.path} is of {said} than {what} "
                    f"({str(own.get(name))[:12]} and {str(fingerprint.get(name))[:12]}): score "
                    "the background as the variants were"
                )

    def calibrate(self, weight: Floats) -> Calibration:
        """Say what the background does in groups.

        Args:
            weight: Means of rows of W or other combinations of them, (groups, bottleneck).
        """
        size = np.ascontiguousarray((self.delta @ weight.T).T)
        rms = np.sqrt(np.mean(np.square(size, dtype=np.float64), axis=1)).astype(np.float32)
        np.abs(size, out=size)
        size.sort(axis=1)
        return Calibration(size, rms)

    def cutoffs(
        self, weight: Floats, names: Sequence[str], levels: Sequence[float] = LEVELS
    ) -> pd.DataFrame:
        """Give the absolute effects at some percentiles, (groups, levels).

        Args:
            weight: Means of rows of W, (groups, bottleneck).
            names: Of the groups.
            levels: The percentiles.
        """
        size = self.calibrate(weight).size
        return _quantiles(size, names, levels)

    def cutoffs_of_largest(
        self, weight: Floats, name: str, levels: Sequence[float] = LEVELS
    ) -> pd.DataFrame:
        """Give the cut-offs for the largest effect in any group, (1, levels).

        Who looks at the strongest of many groups meets a large effect more often.
        """
        step = max(1, _BLOCK // len(weight))
        blocks = (self.delta[i : i + step] @ weight.T for i in range(0, len(self), step))
        largest = np.concatenate([np.abs(block).max(axis=1) for block in blocks])
        return _quantiles(largest[None], [name], levels)

    @cached_property
    def overall(self) -> "Overall":
        """Calibrates the summaries over all cells that `score` writes."""
        return Overall(self)

    def description(self) -> dict[str, Any]:
        """Say which background it is; JSON."""
        known = json.dumps(self.scores.attributes["fingerprint"], sort_keys=True)
        return {
            "path": str(self.scores.path),
            "rows": len(self),
            "sha256": hashlib.sha256(known.encode()).hexdigest(),
        }


class Overall:
    """Calibrates the mean and the size of an effect over all cells.

    The size is the root mean square over cells, which sees effects that cancel in the mean.

    Args:
        background: To compare with; its store has the cells.
    """

    COLUMNS = ("delta_logit_mean_z", "delta_logit_mean_percentile", "delta_logit_rms_percentile")

    def __init__(self, background: Background) -> None:
        weight = background.scores.cell_weight
        self._mean_weight = weight.mean(axis=0, keepdims=True)
        self._mean = background.calibrate(self._mean_weight)
        self._factor = size_factor(weight)
        size = np.sort(effect_size(background.delta, self._factor))[None]
        self._size = Calibration(size, np.ones(1, np.float32))

    def __call__(self, delta: Floats) -> dict[str, Floats]:
        """Describe variants by their delta_bottleneck: each column, (variants) float32."""
        mean = delta @ self._mean_weight.T
        size = effect_size(delta, self._factor)[:, None]
        values = (self._mean.z(mean), self._mean.percentile(mean), self._size.percentile(size))
        return {name: value[:, 0] for name, value in zip(self.COLUMNS, values, strict=True)}


def cutoff_table(background: Background, by: str | None = None) -> pd.DataFrame:
    """Give the absolute effects at some percentiles of a background.

    Args:
        background: The background.
        by: Column of its cells, for rows of the groups.

    Returns:
        (what, percentiles): of the mean over all cells, of the largest effect in any cell; of
        every group, and of the largest in any group.

    Raises:
        StoreError: There is no such column.
    """
    scores = background.scores
    weight = scores.cell_weight
    tables = [
        background.cutoffs(weight.mean(axis=0, keepdims=True), ["mean of all cells"]),
        background.cutoffs_of_largest(weight, f"largest of {len(weight):,} cells"),
    ]
    if by is not None:
        groups = group_weights(scores.group_labels(by))
        means = groups.to_numpy() @ weight
        tables += [
            background.cutoffs(means, [f"{by}: {name}" for name in groups.index]),
            background.cutoffs_of_largest(means, f"largest of {len(groups):,} groups"),
        ]
    return pd.concat(tables)


def _quantiles(size: Floats, names: Sequence[str], levels: Sequence[float]) -> pd.DataFrame:
    values = np.quantile(size, np.array(levels) / 100, axis=1).T
    return pd.DataFrame(values, index=list(names), columns=[f"{level:g}%" for level in levels])


def size_factor(weight: Floats) -> Floats:
    """Give R with `h' R' R h` the mean square of `weight @ h` over rows."""
    wide = weight.astype(np.float64) / np.sqrt(len(weight))
    return np.asarray(np.linalg.qr(wide, mode="r"), dtype=np.float32)


def effect_size(delta: Floats, factor: Floats) -> Floats:
    """Give the root mean square of the delta logits over cells, (variants) float32."""
    return np.linalg.norm(delta @ factor.T, axis=1)


def open_background(path: Location, scores: Scores) -> Background:
    """Open a background to compare a store with.

    Raises:
        StoreError: There is no such store.
        CalibrationError: It is of another model, averaged otherwise, or too small.
    """
    background = Background(path)
    background.require(scores.attributes["fingerprint"], str(scores.path))
    return background
