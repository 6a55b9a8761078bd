"""Reads a store. Whatever is asked of the cells is asked of the bottleneck first.

X is there for other tools; this reader expands the factors, which are smaller, so both layouts
give the same answers.
"""

from collections.abc import Sequence
from functools import cached_property
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scbasset_ism.errors import StoreError
from scbasset_ism.frames import (
    Floats,
    ZarrArray,
    array_of,
    open_root,
    read_frame,
    read_vectors,
    undamaged,
    values_of,
)
from scbasset_ism.places import Location, place_of
from scbasset_ism.progress import UNFINISHED, root_attributes
from scbasset_ism.store import FORMAT_VERSION, product

INPUTS = ("variants", "regions", "sequences")  # attributes that say where rows come from
OWN = (*INPUTS, "region")  # of the fingerprint: what differs between stores that can be merged
Rows = int | slice | Sequence[int] | NDArray[Any]

_BLOCK = 1 << 24  # values that are expanded at once


class Expanded:
    """Values (rows, cells) that are computed when they are asked for: `values[rows, cells]`."""

    def __init__(self, factor: ZarrArray, weight: Floats, intercept: Floats) -> None:
        self._factor, self._weight, self._intercept = factor, weight, intercept
        self.shape = (factor.shape[0], weight.shape[0])

    def __getitem__(self, key: Rows | tuple[Rows, Rows]) -> Floats:
        """Select rows and cells independently of each other, as numpy's basic indices do."""
        rows, cells = key if isinstance(key, tuple) else (key, slice(None))
        return multiply(self._factor, rows, self._weight[cells]) + self._intercept[cells]


class Store:
    """What all kinds of store have in common.

    Attributes:
        kind: The command that writes it.
        factors: Names of the bottleneck arrays; X expands the first.
        has_intercept: X are logits, so the cells' intercepts are added.
        path: Where it lies.
        attributes: Provenance, options and counts.
        cells: Table of the cells, index `cell_id`, with the `intercept`.
    """

    kind = ""
    factors: tuple[str, ...] = ()
    has_intercept = False

    def __init__(self, path: Location) -> None:
        """Open a finished store, at a path or an fsspec URL.

        Raises:
            StoreError: There is none, it is unfinished, or it is of another kind or version.
        """
        self.path = path if "://" in str(path) else Path(path)
        self.attributes = read_attributes(path)
        if self.attributes["kind"] != self.kind:
            raise StoreError(
                f"{path} was written by `{self.attributes['kind']}`, not by `{self.kind}`"
            )
        if self.attributes["status"] != "complete":
            raise StoreError(f"{path} is unfinished: {UNFINISHED}")
        self._root = open_root(place_of(path))
        self.cells = read_frame(self._root, "var")

    def __len__(self) -> int:
        """Rows of the store."""
        return self.bottleneck.shape[0]

    @cached_property
    def cell_weight(self) -> Floats:
        """The head's columns, (cells, bottleneck) float32."""
        return np.asarray(values_of(self._root, "varm/cell_weight"), dtype=np.float32)

    @cached_property
    def row_names(self) -> pd.Index:
        """Names of the rows; read once."""
        name = str(self._root["obs"].attrs["_index"])
        return pd.Index(values_of(self._root, f"obs/{name}"), name=name)

    def rows(self, rows: slice = slice(None)) -> pd.DataFrame:
        """Give the table of the rows, or of some that lie together, in the order of the input."""
        return read_frame(self._root, "obs", rows)

    def cell(self, cell: str | int) -> pd.Series:
        """Give the values of one cell, named or numbered, in all rows."""
        column = self._cell_number(cell)
        return pd.Series(
            self._values[:, column], index=self.row_names, name=self.cells.index[column]
        )

    def row(self, row: str | int) -> pd.Series:
        """Give the values of one row, named or numbered, in all cells."""
        number = self.row_number(row)
        return pd.Series(self._values[number], index=self.cells.index, name=row)

    def group_mean(
        self, labels: str | Sequence[Any] | pd.Series, rows: Rows | None = None
    ) -> pd.DataFrame:
        """Average over groups of cells; costs one dot product per group and row.

        Args:
            labels: A column of the cells' table, or one label per cell; cells with an empty label
                or none belong to no group.
            rows: Which rows; all by default.

        Returns:
            (rows, groups) float32.

        Raises:
            StoreError: There is no such column, or not one label per cell.
        """
        groups = group_weights(self.group_labels(labels))
        selected = slice(None) if rows is None else rows
        weight, intercept = (
            groups.to_numpy() @ self.cell_weight,
            groups.to_numpy() @ self._intercept,
        )
        values = np.atleast_2d(multiply(self.bottleneck, selected, weight))
        return pd.DataFrame(values + intercept, index=self._names(selected), columns=groups.index)

    def group_labels(self, labels: str | Sequence[Any] | pd.Series) -> pd.Series:
        """Look up or check labels; (cells)."""
        if isinstance(labels, str):
            if labels not in self.cells:
                raise StoreError(
                    f"{self.path}: the cells have no column {labels!r}; they have "
                    f"{', '.join(map(repr, self.cells)) or 'none'}"
                )
            return self.cells[labels]
        if len(labels) != len(self.cells):
            raise StoreError(
                f"{self.path}: {len(labels):,} labels for {len(self.cells):,} cells; "
                "give one per cell"
            )
        return pd.Series(list(labels), index=self.cells.index)

    def _names(self, rows: Rows) -> pd.Index:
        """Names of some rows; a slice does not read the others."""
        if _are_together(rows) and rows != slice(None) and "row_names" not in self.__dict__:
            name = str(self._root["obs"].attrs["_index"])
            return pd.Index(values_of(self._root, f"obs/{name}", rows), name=name)
        return self.row_names[np.atleast_1d(np.arange(len(self))[rows])]

    @property
    def bottleneck(self) -> ZarrArray:
        """What X expands: (rows, bottleneck) float32, on disk."""
        return self.array(f"obsm/{self.factors[0]}")

    @property
    def x(self) -> ZarrArray:
        """(rows, cells) float32, on disk; there is none in the layout `factored`."""
        return self.array("X")

    @property
    def expanded(self) -> "Expanded":
        """What X holds, or would hold."""
        return self._values

    @cached_property
    def _values(self) -> Expanded:
        return Expanded(self.bottleneck, self.cell_weight, self._intercept)

    @property
    def _intercept(self) -> Floats:
        """What X adds to the product: nothing, unless X are logits."""
        return self.has_intercept * self.cells["intercept"].to_numpy(dtype=np.float32)

    def array(self, name: str) -> ZarrArray:
        """Give an array on disk by its path."""
        return array_of(self._root, name)

    @property
    def uns(self) -> dict[tuple[str, str], NDArray[Any]]:
        """Arrays that are neither of rows nor of cells, by dimension and name."""
        return read_vectors(self._root, "uns")

    @property
    def inputs(self) -> list[dict[str, Any]]:
        """Where the rows come from; JSON, one entry, or in a merged store one for each of them."""
        if "merged" in self.attributes:
            return list(self.attributes["merged"])
        own = {name: self.attributes[name] for name in INPUTS if name in self.attributes}
        known = self.attributes["fingerprint"]
        fingerprint = {name: known[name] for name in OWN if name in known}
        return [{"store": str(self.path), "rows": len(self), **own, "fingerprint": fingerprint}]

    def cell_numbers(self, cells: Sequence[str | int]) -> list[int]:
        """Find cells, named or numbered.

        Raises:
            StoreError: There is no such cell, or several.
        """
        return [self._cell_number(cell) for cell in cells]

    def _cell_number(self, cell: str | int) -> int:
        if isinstance(cell, str):
            numbers = np.flatnonzero(self.cells.index == cell)
            if len(numbers) != 1:
                raise StoreError(f"{self.path} has {len(numbers)} cells named {cell!r}")
            return int(numbers[0])
        return _check_number(cell, len(self.cells), f"{self.path}: cell")

    def row_number(self, row: str | int) -> int:
        """Look up a row by its name, or check its number.

        Raises:
            StoreError: There is none, or there are several of the name.
        """
        if isinstance(row, str):
            numbers = np.flatnonzero(self.row_names == row)
            if len(numbers) != 1:
                raise StoreError(f"{self.path} has {len(numbers)} rows named {row!r}")
            return int(numbers[0])
        return _check_number(row, len(self), f"{self.path}: row")


class Scores(Store):
    """Effects of variants: rows are ALT alleles, values are delta logits (alt minus ref)."""

    kind = "score"
    factors = ("delta_bottleneck", "ref_bottleneck")

    @property
    def delta_logit(self) -> Expanded:
        """Values by `delta_logit[rows, cells]`, float32; NaN where a row was not scored."""
        return self._values

    @property
    def delta_bottleneck(self) -> ZarrArray:
        """(variants, bottleneck) float32, on disk."""
        return self.array("obsm/delta_bottleneck")

    @property
    def ref_bottleneck(self) -> ZarrArray:
        """(variants, bottleneck) float32, on disk."""
        return self.array("obsm/ref_bottleneck")

    def variants(self) -> pd.DataFrame:
        """Give the table of the variants, one row per ALT in the order of the file."""
        return self.rows()

    def variant(self, variant: str | int) -> pd.Series:
        """Give the delta logits of one variant (`chr20:1000226:A:G` or its row) in all cells."""
        return self.row(variant)

    def row_number(self, row: str | int) -> int:
        """Look up a variant by its name or else its ID, or check its number.

        Raises:
            StoreError: There is none, or there are several.
        """
        if isinstance(row, str) and row not in self.row_names:
            rows = np.flatnonzero(values_of(self._root, "obs/variant_id") == row)
            if len(rows) == 1 and row != ".":
                return int(rows[0])
        return super().row_number(row)

    def strongest(self, n_variants: int = 10, n_cells: int = 3) -> pd.DataFrame:
        """Find the variants with the largest effect in any cell, and the cells they change most.

        Reads every row once, a block at a time. Rows without a score are left out; of equal
        effects the first comes first.

        Args:
            n_variants: How many variants, at most.
            n_cells: How many cells of each, at most.

        Returns:
            One row per variant and cell, by absolute delta: number of the variant's `row`,
            `cell_id` and `delta_logit`; index `variant_name`.
        """
        step = max(1, _BLOCK // len(self.cells))
        largest = np.full(len(self), np.nan, dtype=np.float32)
        for start in range(0, len(self), step):
            rows = slice(start, start + step)
            largest[rows] = np.abs(self.delta_logit[rows]).max(axis=1)
        order = np.argsort(-largest, kind="stable")[:n_variants]  # NaN sorts last
        best = order[np.isfinite(largest[order])]
        deltas = self.delta_logit[best]
        cells = np.argsort(-np.abs(deltas), axis=1, kind="stable")[:, :n_cells]
        numbers = best.repeat(cells.shape[1])
        return pd.DataFrame(
            {
                "row": numbers,
                "cell_id": self.cells.index[cells.ravel()],
                "delta_logit": np.take_along_axis(deltas, cells, axis=1).ravel(),
            },
            index=self.row_names[numbers],
        )


class Predictions(Store):
    """Accessibility of sequences: values are logits."""

    kind = "predict"
    factors = ("bottleneck",)
    has_intercept = True

    @property
    def logit(self) -> Expanded:
        """Values by `logit[rows, cells]`, float32."""
        return self._values


def open_scores(path: Location) -> Scores:
    """Open what `score` wrote."""
    return Scores(path)


def open_predictions(path: Location) -> Predictions:
    """Open what `predict` wrote."""
    return Predictions(path)


def open_store(path: Location) -> Store:
    """Open what any command wrote.

    Raises:
        StoreError: There is none, it is unfinished, or of another version.
    """
    upper = import_module("scbasset_ism.saturations")  # which builds on this module
    kinds: dict[str, type[Store]] = {
        kind.kind: kind for kind in (Scores, Predictions, upper.Saturations)
    }
    return kinds[read_attributes(path)["kind"]](path)


def read_attributes(path: Location) -> dict[str, Any]:
    """Read the provenance of a store, finished or not.

    Raises:
        StoreError: There is no store of ours, or one of another format version.
    """
    attributes = root_attributes(place_of(path))
    if attributes is None:
        raise StoreError(f"{path} is not a store of scbasset-ism")
    if attributes["format_version"] != FORMAT_VERSION:
        raise StoreError(
            f"{path} has format {attributes['format_version']} and this program reads "
            f"{FORMAT_VERSION}: install the version that wrote it"
        )
    return attributes


def is_store(path: Location) -> bool:
    """Whether a store of this package lies there, finished or not."""
    return root_attributes(place_of(path)) is not None


def describe_store(path: Location) -> dict[str, Any]:
    """Give the attributes of a store, finished or not, and the shapes of its arrays; JSON."""
    attributes = read_attributes(path)
    root = open_root(place_of(path))
    shapes = {name: list(array.shape) for name, array in root.arrays()}
    factors = ("delta_bottleneck", "ref_bottleneck", "bottleneck", "delta_logit")
    shapes |= {
        name: list(array_of(root, name).shape)
        for name in (f"obsm/{factor}" for factor in factors)
        if name in root
    }
    return {"store": str(path), "arrays": shapes} | {
        name: value for name, value in attributes.items() if not name.startswith("encoding")
    }


def read_rows(array: ZarrArray, rows: Rows) -> Floats:
    """Read rows by number, slice, list or mask."""
    with undamaged(array):
        if isinstance(rows, int | np.integer | slice):
            return np.asarray(array[rows], dtype=np.float32)
        return np.asarray(array.oindex[np.asarray(rows), :], dtype=np.float32)


def multiply(factor: ZarrArray, rows: Rows, weight: Floats) -> Floats:
    """Give `factor[rows] @ weight.T`, in blocks where rows lie together, so memory stays small."""
    if not _are_together(rows):
        return read_rows(factor, rows) @ weight.T
    start, stop, _ = rows.indices(factor.shape[0])
    size = factor.chunks[0]
    edges = [start, *range((start // size + 1) * size, stop, size), max(start, stop)]
    blocks = [product(read_rows(factor, slice(*edge)), weight) for edge in pairwise(edges)]
    return np.concatenate(blocks)


def _are_together(rows: Rows) -> TypeGuard[slice]:
    return isinstance(rows, slice) and rows.step in {None, 1}


def group_weights(labels: pd.Series) -> pd.DataFrame:
    """Give the averaging weights of each group, (groups, cells) float32; each row sums to 1."""
    members = pd.get_dummies(labels.where(labels != ""), dtype=np.float32).T
    return members.div(members.sum(axis=1), axis=0).astype(np.float32)


def _check_number(number: int, size: int, what: str) -> int:
    if not -size <= number < size:
        raise StoreError(f"{what} {number} is out of range: there are {size:,}")
    return number % size
