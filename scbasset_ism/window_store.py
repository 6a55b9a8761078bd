"""What stores have in common whose rows are windows, with numbers for every base at every position.

Cells, groups and positions are asked of the bottleneck first.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scbasset_ism.errors import StoreError
from scbasset_ism.frames import Floats, undamaged
from scbasset_ism.reader import Rows, Store, group_weights
from scbasset_ism.store import product

BASES = list("ACGT")
Group = str | int | Sequence[str | int]


class WindowStore(Store):
    """Rows are windows, each with a stretch of DNA in its middle.

    A window is named by its row's name or its number, a group by a cell, by some cells, or, with
    `labels`, by its label. A group's values are the mean over its cells.
    """

    def windows(self) -> pd.DataFrame:
        """Give the table of the windows; `start` to `stop` is the stretch, 0-based."""
        return self.rows()

    def cell(self, cell: str | int) -> pd.DataFrame:  # type: ignore[override]
        """Give the values of one cell, (windows x positions, 4).

        The index is the window's name and the position in its stretch, from 0.
        """
        number = self._cell_number(cell)
        return self._all(self.cell_weight[number][None], [self.cells.index[number]]).droplevel(
            0, axis=1
        )

    def group_mean(self, labels: Any, rows: Rows | None = None) -> pd.DataFrame:
        """Average over groups of cells; costs one dot product per group, position and base.

        Args:
            labels: A column of the cells' table, or one label per cell; cells with an empty label
                or none belong to no group.
            rows: Which windows; all by default.

        Returns:
            (windows x positions, groups x 4) float32.
        """
        groups = group_weights(self.group_labels(labels))
        return self._all(groups.to_numpy() @ self.cell_weight, list(groups.index), rows)

    def sequence(self, window: str | int) -> str:
        """Give the bases of a window's stretch."""
        return str(self._row_of(window)["sequence"])

    def _row_of(self, window: str | int) -> pd.Series:
        number = self.row_number(window)
        rows = self.rows(slice(number, number + 1))
        if not self._are_usable(rows)[0]:
            raise StoreError(f"{self.path}: window {window!r} {self._trouble(rows.iloc[0])}")
        return rows.iloc[0]

    def _are_usable(self, rows: pd.DataFrame) -> NDArray[np.bool_]:
        """Which windows have numbers that can be given away, (rows)."""
        return (rows["status"] == "SCORED").to_numpy()

    def _trouble(self, row: pd.Series) -> str:
        """Say why one has not."""
        return f"has no score: {row['status']}"

    def _of(self, window: str | int, group: Group, labels: Any = None) -> pd.DataFrame:
        """Give the values of a group, (positions, 4); index: 1-based positions of the contig."""
        values = product(self._factor(window), self._weight(group, labels)[None])[..., 0]
        return pd.DataFrame(values, index=self._positions(window), columns=BASES)

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
        usable = self._are_usable(self.rows())
        for number in numbers:
            with undamaged(self.bottleneck):
                factor = np.asarray(self.bottleneck[int(number)], dtype=np.float32)
            factor[:] = np.where(usable[number], factor, np.nan)
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
