"""What attributions are, and what is made of them; no network is needed here."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scbasset_ism.bases import Codes, N
from scbasset_ism.errors import ScbassetError

Numbers = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Contributions:
    """What each base adds to each number of the bottleneck.

    Attributes:
        codes: The windows, (windows, window) uint8.
        hypothetical: What each base would add in its place, (windows, window, 4, bottleneck), in
            the order A C G T. Of integrated gradients: the mean gradient g along the path times
            the step from the baseline b to that base, `g[base] - sum(g * b)`, averaged over the
            baselines. Of `input-x-gradient`: the gradient.
        bottleneck: Of the windows, (windows, bottleneck).
        difference: The bottleneck of the window minus that of the baseline (their mean),
            (windows, bottleneck); what the attributions should add up to. 0 for
            `input-x-gradient`, which has none.
        error: Completeness error, (windows,): the largest deviation of a cell's attributions from
            the cell's difference in logits, as a share of the largest such difference. NaN for
            `input-x-gradient`, which promises no sum.
        n_steps: Steps of the integral, (windows,) int64.
        is_complete: Whether the error is within the tolerance, (windows,) bool.
    """

    codes: Codes
    hypothetical: Numbers
    bottleneck: Numbers
    difference: Numbers
    error: Numbers
    n_steps: NDArray[np.int64]
    is_complete: NDArray[np.bool_]

    @property
    def own(self) -> Numbers:
        """What the window's own bases add, (windows, window, bottleneck); an N adds 0."""
        return own_base(self.hypothetical, self.codes)

    def logits(self, weight: Numbers) -> Numbers:
        """Give attributions of cells or groups.

        Args:
            weight: Rows of W, or means of them, (rows, bottleneck).

        Returns:
            (windows, rows, window) logits.
        """
        return np.einsum("wpb,rb->wrp", self.own, weight)

    def hypothetical_logits(self, weight: Numbers) -> Numbers:
        """Give hypothetical attributions of cells or groups, (windows, rows, window, 4) logits."""
        return np.einsum("wpcb,rb->wrpc", self.hypothetical, weight)

    def saliency(self, weight: Numbers) -> Numbers:
        """Give the largest absolute gradient over the four bases, (windows, rows, window).

        As Simonyan, Vedaldi & Zisserman (arXiv:1312.6034, 2013); of `input-x-gradient` only.

        Raises:
            ScbassetError: These are no gradients.
        """
        if np.isfinite(self.error).any():
            raise ScbassetError("a saliency needs gradients: take the method input-x-gradient")
        return np.abs(self.hypothetical_logits(weight)).max(axis=3)

    def corrected(self) -> "Contributions":
        """Subtract the mean over the four bases at each position.

        One-hot sequences lie on a simplex, and the part of a gradient that points off it is noise
        (Majdandzic, Rajesh & Koo, Genome Biol. 24, 109, 2023). The corrected attributions don't
        add up to the difference.
        """
        hypothetical = self.hypothetical - self.hypothetical.mean(axis=2, keepdims=True)
        return replace(self, hypothetical=hypothetical)


def own_base(hypothetical: Numbers, codes: Codes) -> Numbers:
    """Pick the bases that are there, (windows, window, 4, ...) to (windows, window, ...); N: 0."""
    index = np.minimum(codes, 3).reshape(*codes.shape, *[1] * (hypothetical.ndim - 2))
    own = np.take_along_axis(hypothetical, index.astype(np.int64), axis=2).squeeze(2)
    own[codes == N] = 0
    return own


def completeness_error(total: Numbers, difference: Numbers, weight: Numbers) -> Numbers:
    """Compare the sums of attributions with what they should be, in logits.

    Args:
        total: Sums over the window, (windows, bottleneck).
        difference: What they should be, (windows, bottleneck).
        weight: (cells, bottleneck).

    Returns:
        Largest deviation in any cell over the largest difference in any cell, (windows,).
    """
    deviation = np.abs((total - difference) @ weight.T).max(axis=1)
    largest = np.abs(difference @ weight.T).max(axis=1)
    return np.divide(deviation, largest, out=np.zeros_like(deviation), where=largest != 0)


def save_modisco(folder: str | Path, codes: Codes, hypothetical: Numbers) -> None:
    """Write the pair of files that TF-MoDISco reads.

    `modisco motifs -s FOLDER/raw.npz -a FOLDER/shap.npz -n 2000 -o results.h5` (the package
    modisco-lite), which multiplies one by the other itself.

    Args:
        folder: It is made where there is none; `raw.npz` (one-hot; zeros at an N) and `shap.npz`
            (hypothetical attributions) hold one array each, (windows, 4, window) float32.
        codes: (windows, window) uint8.
        hypothetical: Of one cell or group, (windows, window, 4).

    Raises:
        ScbassetError: The shapes differ, or a window has no attributions.
    """
    if hypothetical.shape != (*codes.shape, 4):
        raise ScbassetError(
            f"hypothetical attributions have the shape {hypothetical.shape}; windows of the shape "
            f"{codes.shape} need {(*codes.shape, 4)}"
        )
    if not np.isfinite(hypothetical).all():
        raise ScbassetError("windows without attributions can't be written: leave them out")
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    one_hot = np.eye(5, 4, dtype=np.float32)[codes]
    np.savez_compressed(path / "raw.npz", one_hot.transpose(0, 2, 1))
    np.savez_compressed(path / "shap.npz", hypothetical.astype(np.float32).transpose(0, 2, 1))
