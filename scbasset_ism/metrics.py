"""How well logits rank what is open above what is not: AUROC and AUPRC, by cell or by peak."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.metrics import average_precision_score, roc_auc_score

from scbasset_ism.frames import Floats

Doubles = NDArray[np.float64]

BLOCK = 256  # cells or peaks whose logits are made at once


@dataclass(frozen=True)
class Ranking:
    """One AUROC and one AUPRC for each cell, or each peak.

    Attributes:
        auroc: (n,) float64; NaN where all are open or none.
        auprc: Average precision, (n,) float64; NaN there too.
        chance: AUPRC of a random order, which is the share of what is open, (n,) float64; NaN
            there too.
    """

    auroc: Doubles
    auprc: Doubles
    chance: Doubles

    @property
    def n(self) -> int:
        """How many there is something to rank in."""
        return int(np.isfinite(self.auroc).sum())


def rank_columns(is_open: sparse.csr_array, logits: Callable[[slice], Floats]) -> Ranking:
    """Rank the rows of every column.

    Args:
        is_open: (rows, columns) bool.
        logits: Gives (rows, some columns).
    """
    truth = is_open.tocsc()
    n_rows, n_columns = truth.shape
    n_open = np.diff(truth.indptr)
    auroc, auprc, chance = np.full((3, n_columns), np.nan)
    for start in range(0, n_columns, BLOCK):
        block = slice(start, start + BLOCK)
        opened, values = truth[:, block].toarray(), logits(block)
        for i in range(opened.shape[1]):
            if 0 < n_open[start + i] < n_rows:
                auroc[start + i] = roc_auc_score(opened[:, i], values[:, i])
                auprc[start + i] = average_precision_score(opened[:, i], values[:, i])
                chance[start + i] = n_open[start + i] / n_rows
    return Ranking(auroc, auprc, chance)


def correlation(x: NDArray[Any], y: NDArray[Any]) -> float:
    """Pearson's r; NaN where one of the two does not vary."""
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1])


def mean(values: NDArray[Any]) -> float:
    """Average what is not NaN; NaN where nothing is left."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")
