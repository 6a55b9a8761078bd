"""The Zarr store: an AnnData on disk whose columns are cells.

A row is described completely by the few bottleneck numbers of `obsm`, since the head is linear:
`X = obsm @ varm["cell_weight"].T` (plus the intercept where X are logits and not deltas). The
layout `dense` writes X out for tools that want it; `factored` leaves it out. Here is what a store
holds and how it is cut; `encoder` makes its files, `progress` brings them to the disk.
"""

import logging
from dataclasses import dataclass
from math import prod
from typing import Literal

import pandas as pd

from scbasset_ism.errors import StoreError
from scbasset_ism.frames import Floats
from scbasset_ism.progress import Progress

log = logging.getLogger(__name__)

FORMAT_VERSION = 2
Layout = Literal["dense", "factored"]
Precision = Literal["float32", "bitround"]

SHARD_ROWS = {"dense": 8192, "factored": 16384}
CHUNK_ROWS = 1024  # of X; the other arrays have one chunk a shard
CELL_BLOCK = 256
WIDE_ROWS, WIDE_BYTES = 256, 16 * 2**20  # of a shard whose rows are arrays: such rows take seconds
BITS_KEPT = 10  # of the 23 of a float32's mantissa, with `bitround`
MAX_SHARD_BYTES = 128 * 2**20
ROW_TEXT_BYTES = 64  # measured on 1000 Genomes sites: what the text columns of a row take


@dataclass(frozen=True)
class Cells:
    """The head of a model, as the store keeps it.

    Attributes:
        table: The cells' own columns, index `cell_id`.
        weight: (cells, bottleneck) float32.
        intercept: (cells,) float32.
    """

    table: pd.DataFrame
    weight: Floats
    intercept: Floats


@dataclass(frozen=True)
class Schema:
    """What a kind of store holds.

    Attributes:
        kind: `score`, `predict` or `ism`; the command that writes it.
        obs: An empty frame with the columns and dtypes of a row; its index names the rows.
        factors: Names of the bottleneck arrays in `obsm`; X expands the first.
        has_intercept: X are logits, so the cells' intercepts are added.
        rows: Name of the dimension of the rows.
        inner: Names of the dimensions of the first factor between row and bottleneck; where there
            are any, `obsm/delta_logit` stands for X, which has two dimensions in an AnnData.
    """

    kind: str
    obs: pd.DataFrame
    factors: tuple[str, ...]
    has_intercept: bool
    rows: str = "variants"
    inner: tuple[str, ...] = ()

    @property
    def dense(self) -> str:
        """Path of the array with a value for every cell."""
        return "obsm/delta_logit" if self.inner else "X"

    def expand(self, factor: Floats, weight: Floats, intercept: Floats) -> Floats:
        """Give X: (rows, ..., bottleneck) and (cells, bottleneck) to (rows, ..., cells)."""
        values = product(factor, weight)
        return values + intercept if self.has_intercept else values


@dataclass(frozen=True)
class Plan:
    """How many rows a store has, and how they are cut.

    Attributes:
        n_rows: Rows of the store.
        n_cells: Columns of X.
        bottleneck: Numbers per row and factor.
        layout: `dense` holds X.
        dense_precision: Of X: all bits, or those that matter, which take half the bytes.
        inner: Sizes of the dimensions of the first factor between row and bottleneck.
    """

    n_rows: int
    n_cells: int
    bottleneck: int
    layout: Layout
    dense_precision: Precision = "float32"
    inner: tuple[int, ...] = ()

    @property
    def shard_rows(self) -> int:
        """Rows that are written together; fewer where a shard would be too large."""
        rows, least, allowed = SHARD_ROWS[self.layout], 16, MAX_SHARD_BYTES
        if self.inner:
            rows, least = min(rows, WIDE_ROWS), 1
            allowed = MAX_SHARD_BYTES if self.layout == "dense" else WIDE_BYTES
        width = self.n_cells if self.layout == "dense" else self.bottleneck
        if self.layout == "dense" or self.inner:
            while rows > least and rows * prod(self.inner) * width * 4 > allowed:
                rows //= 2
        return rows

    def rows(self, shard: int) -> range:
        """Rows of a shard."""
        return range(shard * self.shard_rows, min((shard + 1) * self.shard_rows, self.n_rows))

    @property
    def n_shards(self) -> int:
        """Shards of the store, the last one perhaps not full."""
        return -(-self.n_rows // self.shard_rows)

    def bytes(self, n_factors: int) -> dict[str, int]:
        """Estimate the size of the store in either layout, in bytes."""
        inner = prod(self.inner)
        per_row = 4 * (inner + n_factors - 1) * self.bottleneck
        factored = self.n_rows * (per_row + ROW_TEXT_BYTES)
        factored += self.n_cells * (4 * self.bottleneck + ROW_TEXT_BYTES)
        bits = 32 if self.dense_precision == "float32" else 9 + BITS_KEPT
        return {
            "factored": factored,
            "dense": factored + bits * self.n_rows * inner * self.n_cells // 8,
        }


def product(factor: Floats, weight: Floats) -> Floats:
    """Give `factor @ weight.T`, (..., bottleneck) and (cells, bottleneck) to (..., cells).

    Of one cell's weight, (bottleneck), it is (...). As one product of two matrices: numpy would
    make one for each of the leading indices.
    """
    flat = factor.reshape(-1, factor.shape[-1]) @ weight.T
    return flat.reshape(*factor.shape[:-1], *weight.shape[:-1])


def check_room(progress: Progress, schema: Schema, plan: Plan, *, overwrite: bool) -> None:
    """Say how large the store will be, and refuse what the disk can't hold.

    Args:
        progress: Of a store that has begun, or not yet.
        schema: What a row is.
        plan: How many rows, and the layout.
        overwrite: What lies there makes room.

    Raises:
        StoreError: There is no room.
    """
    place, sizes = progress.store, plan.bytes(len(schema.factors))
    free, needed, told = place.free(), float(sizes[plan.layout]), ""
    if overwrite:
        free = None if free is None else free + sum(place.sizes().values())
    elif progress.manifest() is not None:
        share = len(progress.missing()) / max(1, plan.n_shards)
        needed, told = needed * share, f" of which {share:.0%} are still to be done"
    log.info(
        "store: %s, %s rows%s, %s (dense %s, factored %s)%s",
        place,
        f"{plan.n_rows:,}",
        told,
        plan.layout,
        size_text(sizes["dense"]),
        size_text(sizes["factored"]),
        "" if free is None else f", {size_text(free)} free",
    )
    if free is None or needed <= free:
        return
    alternative = ""
    if plan.layout == "dense" and sizes["factored"] <= free and not told:
        alternative = f", or take --layout factored, which needs {size_text(sizes['factored'])}"
    raise StoreError(
        f"{place}: the store needs {size_text(needed)} and the disk has {size_text(free)} free: "
        f"choose another disk{alternative}"
    )


def size_text(n_bytes: float) -> str:
    """Write a number of bytes as people read it.

    >>> size_text(813_600_000)
    '813.6 MB'
    """
    for unit in ("bytes", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:,.0f} bytes" if unit == "bytes" else f"{n_bytes:,.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:,.1f} TB"
