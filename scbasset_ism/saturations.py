"""Reads what `ism` wrote."""

from typing import Any

import numpy as np
import pandas as pd

from scbasset_ism.frames import Floats, ZarrArray
from scbasset_ism.places import Location
from scbasset_ism.reader import Rows
from scbasset_ism.store import product
from scbasset_ism.window_store import BASES, Group, WindowStore


class Saturations(WindowStore):
    """Effects of every substitution of stretches of DNA: values are delta logits.

    Windows, cells and groups are named as `WindowStore` says.
    """

    kind = "ism"
    factors = ("delta_bottleneck", "ref_bottleneck")

    @property
    def delta_bottleneck(self) -> ZarrArray:
        """(windows, positions, 4, bottleneck) float32, on disk."""
        return self.array("obsm/delta_bottleneck")

    @property
    def dense(self) -> ZarrArray:
        """(windows, positions, 4, cells) float32, on disk; only in the layout `dense`."""
        return self.array("obsm/delta_logit")

    def delta_logit(
        self,
        window: str | int,
        cells: Rows = slice(None),
        positions: slice = slice(None),
    ) -> Floats:
        """Give the delta logits of a window, (positions, 4, cells) float32.

        Args:
            window: Which.
            cells: By number, slice, list or mask; all by default.
            positions: Of the window's stretch, from 0; all by default.
        """
        weight = np.atleast_2d(self.cell_weight[cells])
        return product(self._factor(window)[positions], weight)

    def of(self, window: str | int, group: Group, labels: Any = None) -> pd.DataFrame:
        """Give the delta logits of a group, (positions, 4); index: 1-based positions of the contig.

        Raises:
            StoreError: There is no such window, cell or group.
        """
        return self._of(window, group, labels)

    def to_logo(
        self, window: str | int, group: Group, labels: Any = None, *, centred: bool = True
    ) -> pd.DataFrame:
        """Give what a logo of a group shows, (positions, 4) float32; `plot.logo` draws it.

        Centred, as in the authors' notebook, a base's value is its delta less the mean over the
        four: the base that is there stands upright where the others close the place. Else it is
        the delta itself, 0 at the base that is there.
        """
        values = self.of(window, group, labels)
        return values.sub(values.mean(axis=1), axis=0) if centred else values

    def top_positions(
        self, window: str | int, group: Group, labels: Any = None, *, n: int = 10
    ) -> pd.DataFrame:
        """Find the positions where a substitution changes a group most.

        Returns:
            By absolute delta, of equal ones the first first: `offset` in the stretch, the base
            that is there, the strongest substitution and its `delta_logit`; index: position.
        """
        values = self.of(window, group, labels)
        best = np.abs(values.to_numpy()).argmax(axis=1)
        delta = np.take_along_axis(values.to_numpy(), best[:, None], axis=1)[:, 0]
        order = np.argsort(-np.abs(delta), kind="stable")[:n]
        return pd.DataFrame(
            {
                "offset": order,
                "base": np.array(list(self.sequence(window)))[order],
                "substitution": np.array(BASES)[best[order]],
                "delta_logit": delta[order],
            },
            index=values.index[order],
        )


def open_saturations(path: Location) -> Saturations:
    """Open what `ism` wrote."""
    return Saturations(path)
