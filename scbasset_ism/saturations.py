"""Reads what `ism` wrote. Cells, groups and positions are asked of the bottleneck first."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from scbasset_ism.errors import StoreError
from scbasset_ism.frames import Floats, ZarrArray, undamaged
from scbasset_ism.places import Location
from scbasset_ism.reader import Rows, Store, group_weights
from scbasset_ism.store import product

BASES = list("ACGT")
Group = str | int | Sequence[str | int]


class Saturations(Store):
    """Effects of every substitution of stretches of DNA: rows are windows, values delta logits.

    A window is named by its row's name or its number, a group by a cell, by some cells, or, with
    `labels`, by its label. A group's values are the mean over its cells.
    """

    kind = "ism"
    factors = ("delta_bottleneck", "ref_bottleneck")

    def windows(self) -> pd.DataFrame:
        """Give the table of the windows; `start` to `stop` is what was mutated, 0-based."""
        return self.rows()

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
        values = product(self._factor(window), self._weight(group, labels)[None])[..., 0]
        return pd.DataFrame(values, index=self._positions(window), columns=BASES)

    def cell(self, cell: str | int) -> pd.DataFrame:  # type: ignore[override]
        """Give the delta logits of one cell, (windows x positions, 4).

        The index is the window's name and the position in its stretch, from 0.
        """
        number = self._cell_number(cell)
        return self._all(self.cell_weight[number][None], [self.cells.index[number]]).droplevel(
            0, axis=1
        )

    def group_mean(self, labels: Any, rows: Rows | None = None) -> pd.DataFrame:
        """Average over groups of cells; costs one dot product per group and substitution.

        Args:
            labels: A column of the cells' table, or one label per cell; cells with an empty label
                or none belong to no group.
            rows: Which windows; all by default.

        Returns:
            (windows x positions, groups x 4) float32.
        """
        groups = group_weights(self.group_labels(labels))
        return self._all(groups.to_numpy() @ self.cell_weight, list(groups.index), rows)

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

    def sequence(self, window: str | int) -> str:
        """Give the bases of a window's stretch."""
        return str(self._row_of(window)["sequence"])

    def _row_of(self, window: str | int) -> pd.Series:
        number = self.row_number(window)
        row = self.rows(slice(number, number + 1)).iloc[0]
        if row["status"] != "SCORED":
            raise StoreError(f"{self.path}: window {window!r} has no score: {row['status']}")
        return row

    def _positions(self, window: str | int) -> pd.Index:
        row = self._row_of(window)
        return pd.RangeIndex(row["start"] + 1, row["stop"] + 1, name="position")

    def _factor(self, window: str | int) -> Floats:
        """Read a window's stretch, (positions, 4, bottleneck)."""
        row, number = self._row_of(window), self.row_number(window)
        with undamaged(self.bottleneck):
            values = np.asarray(self.bottleneck[number], dtype=np.float32)
        return values[: row["stop"] - row["start"]]

    def _weight(self, group: Group, labels: Any) -> Floats:
        """Mean weight of a group's cells, (bottleneck,)."""
        if labels is not None:
            groups = group_weights(self.group_labels(labels))
            if group not in groups.index:
                known = ", ".join(map(repr, groups.index[:10]))
                raise StoreError(
                    f"{self.path}: no cell is of the group {group!r}; there are {known}"
                )
            return np.asarray(groups.to_numpy()[groups.index.get_loc(group)] @ self.cell_weight)
        cells = [group] if isinstance(group, str | int) else list(group)
        if not cells:
            raise StoreError(f"{self.path}: a group needs a cell")
        return np.asarray(self.cell_weight[[self._cell_number(c) for c in cells]].mean(axis=0))

    def _all(self, weight: Floats, names: list[Any], rows: Rows | None = None) -> pd.DataFrame:
        """Expand windows, one at a time; (windows x positions, names x 4)."""
        numbers = np.atleast_1d(np.arange(len(self))[slice(None) if rows is None else rows])
        length, blocks = self.bottleneck.shape[1], [np.empty((0, 4 * len(weight)), np.float32)]
        for number in numbers:
            with undamaged(self.bottleneck):
                factor = np.asarray(self.bottleneck[int(number)], dtype=np.float32)
            blocks.append(product(factor, weight).transpose(0, 2, 1).reshape(length, -1))
        index = pd.MultiIndex.from_arrays(
            [
                self.row_names[numbers].repeat(length),
                np.tile(np.arange(length), len(numbers)),
            ],
            names=["window_name", "offset"],
        )
        columns = pd.MultiIndex.from_product([names, BASES], names=[None, "base"])
        return pd.DataFrame(np.concatenate(blocks), index=index, columns=columns)


def open_saturations(path: Location) -> Saturations:
    """Open what `ism` wrote."""
    return Saturations(path)
