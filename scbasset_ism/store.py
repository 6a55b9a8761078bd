"""The Zarr store: an AnnData on disk whose columns are cells.

A row is described completely by the few bottleneck numbers of `obsm`, since the head is linear:
`X = obsm @ varm["cell_weight"].T` (plus the intercept where X are logits and not deltas). The
layout `dense` writes X out for tools that want it; `factored` leaves it out. Rows are written one
whole shard at a time, and `status` in the root's attributes becomes `complete` last.
"""

import errno
import json
import logging
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

from scbasset_ism.errors import StoreError

log = logging.getLogger(__name__)

FORMAT_VERSION = 1
Layout = Literal["dense", "factored"]
Floats = NDArray[np.float32]
ZarrArray = zarr.Array[Any]

SHARD_ROWS = {"dense": 8192, "factored": 16384}
CHUNK_ROWS = 1024
CELL_BLOCK = 256
MAX_SHARD_BYTES = 128 * 2**20
ROW_TEXT_BYTES = 64  # measured on 1000 Genomes sites: what the text columns of a row take

# Without a checksum in the innermost codec a flipped bit is read as a number.
_PACKED = [ZstdCodec(level=1), Crc32cCodec()]
_RAW = [Crc32cCodec()]
_SHUFFLED = [BloscCodec(cname="lz4", shuffle="bitshuffle"), Crc32cCodec()]
_ANNDATA = {
    "anndata": "0.1.0",
    "dict": "0.1.0",
    "dataframe": "0.2.0",
    "array": "0.2.0",
    "string-array": "0.2.0",
    "categorical": "0.2.0",
}


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
        kind: `score` or `predict`; the command that writes it.
        obs: An empty frame with the columns and dtypes of a row; its index names the rows.
        factors: Names of the bottleneck arrays in `obsm`; X expands the first.
        has_intercept: X are logits, so the cells' intercepts are added.
    """

    kind: str
    obs: pd.DataFrame
    factors: tuple[str, ...]
    has_intercept: bool

    def expand(self, factor: Floats, weight: Floats, intercept: Floats) -> Floats:
        """Give X: (rows, bottleneck) and (cells, bottleneck) to (rows, cells)."""
        values = factor @ weight.T
        return values + intercept if self.has_intercept else values


@dataclass(frozen=True)
class Plan:
    """How many rows a store has, and how they are cut.

    Attributes:
        n_rows: Rows of the store.
        n_cells: Columns of X.
        bottleneck: Numbers per row and factor.
        layout: `dense` holds X.
    """

    n_rows: int
    n_cells: int
    bottleneck: int
    layout: Layout

    @property
    def shard_rows(self) -> int:
        """Rows that are written together; fewer where a dense shard would be too large."""
        rows = SHARD_ROWS[self.layout]
        if self.layout == "dense":
            while rows > 16 and rows * self.n_cells * 4 > MAX_SHARD_BYTES:
                rows //= 2
        return rows

    @property
    def n_shards(self) -> int:
        """Shards of the store, the last one perhaps not full."""
        return -(-self.n_rows // self.shard_rows)

    def bytes(self, n_factors: int) -> dict[str, int]:
        """Estimate the size of the store in either layout, in bytes."""
        factored = self.n_rows * (4 * n_factors * self.bottleneck + ROW_TEXT_BYTES)
        factored += self.n_cells * (4 * self.bottleneck + ROW_TEXT_BYTES)
        return {"factored": factored, "dense": factored + 4 * self.n_rows * self.n_cells}


class Writer:
    """Writes rows, in order, one whole shard at a time.

    Args:
        path: A directory that does not exist yet.
        schema: What a row is.
        plan: How many rows, and the layout.
        cells: The head of the model.
        attributes: Written at the root (JSON).

    Raises:
        StoreError: The path can't be written, or the disk has no room for the store.
    """

    def __init__(
        self, path: Path, schema: Schema, plan: Plan, *, cells: Cells, attributes: dict[str, Any]
    ) -> None:
        self.path, self.schema, self.plan, self.cells = path, schema, plan, cells
        self._pending: list[tuple[pd.DataFrame, dict[str, Floats]]] = []
        self._next_shard = 0
        check_room(path, schema, plan)
        with _sentences(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self.root = zarr.open_group(path, mode="w-", zarr_format=3)
            _tag(self.root, "anndata")
            self.root.attrs.update(
                attributes
                | {
                    "format_version": FORMAT_VERSION,
                    "kind": schema.kind,
                    "layout": plan.layout,
                    "status": "writing",
                }
            )
            self._create()

    def append(self, obs: pd.DataFrame, factors: Mapping[str, Floats]) -> None:
        """Add rows; whole shards go to the disk.

        Args:
            obs: (rows) with the schema's columns.
            factors: (rows, bottleneck) float32 by name; NaN where a row has no score.
        """
        self._pending.append((obs, dict(factors)))
        while sum(len(obs) for obs, _ in self._pending) >= self.plan.shard_rows:
            self._flush(self.plan.shard_rows)

    def finish(self, attributes: dict[str, Any]) -> None:
        """Write the last shard and mark the store complete.

        Raises:
            StoreError: Fewer or more rows came than were planned.
        """
        remaining = sum(len(obs) for obs, _ in self._pending)
        written = self._next_shard * self.plan.shard_rows + remaining
        if written != self.plan.n_rows:
            raise StoreError(
                f"{self.path}: {written:,} rows came where {self.plan.n_rows:,} were counted; "
                "did the input change during the run?"
            )
        if remaining:
            self._flush(remaining)
        with _sentences(self.path):
            self.root.attrs.update(attributes | {"status": "complete"})
            consolidate(self.path)

    def write_uns(self, name: str, values: NDArray[Any], dim: str) -> None:
        """Write a one-dimensional array below `uns`."""
        with _sentences(self.path):
            write_array(self.root, f"uns/{name}", values, dims=(dim,))

    def write_shard(self, shard: int, obs: pd.DataFrame, factors: Mapping[str, Floats]) -> None:
        """Write all arrays of one shard.

        Raises:
            StoreError: The rows are not those of the shard, or the disk is full.
        """
        start = shard * self.plan.shard_rows
        stop = min(start + self.plan.shard_rows, self.plan.n_rows)
        values = {
            f"obs/{name}": column for name, column in encode_columns(obs, self.schema.obs).items()
        }
        values |= {f"obsm/{name}": factors[name] for name in self.schema.factors}
        if self.plan.layout == "dense":
            first = factors[self.schema.factors[0]]
            values["X"] = self.schema.expand(first, self.cells.weight, self.cells.intercept)
        with _sentences(self.path):
            for name, array in values.items():
                target = array_of(self.root, name)
                if array.shape != (stop - start, *target.shape[1:]):  # zarr would cut in silence
                    raise StoreError(
                        f"{self.path}: {name} has shape {array.shape} for rows {start}-{stop}"
                    )
                target[start:stop] = array

    def _flush(self, n_rows: int) -> None:
        """Write the first pending rows as the next shard; keep the others."""
        obs = pd.concat([obs for obs, _ in self._pending])
        factors = {
            name: np.concatenate([factors[name] for _, factors in self._pending])
            for name in self.schema.factors
        }
        head = {name: values[:n_rows] for name, values in factors.items()}
        self.write_shard(self._next_shard, obs.iloc[:n_rows], head)
        self._next_shard += 1
        tail = {name: values[n_rows:] for name, values in factors.items()}
        self._pending = [(obs.iloc[n_rows:], tail)]

    def _create(self) -> None:
        """Create every array; those of the rows are filled shard by shard."""
        for name in ("layers", "obsp", "varp", "uns", "obsm", "varm"):
            _tag(self.root.create_group(name), "dict")
        rows, shard = self.plan.n_rows, self.plan.shard_rows
        create_frame(self.root, "obs", self.schema.obs, rows=rows, chunk=shard, dim="variants")
        chunk = min(CHUNK_ROWS, shard)
        for name in self.schema.factors:
            self.root.create_array(
                f"obsm/{name}",
                shape=(rows, self.plan.bottleneck),
                dtype="float32",
                chunks=(chunk, self.plan.bottleneck),
                shards=(shard, self.plan.bottleneck),
                compressors=_RAW,
                **_float_options("variants", "bottleneck"),
            )
        if self.plan.layout == "dense":
            block = min(CELL_BLOCK, self.plan.n_cells)
            self.root.create_array(
                "X",
                shape=(rows, self.plan.n_cells),
                dtype="float32",
                chunks=(chunk, block),
                shards=(shard, -(-self.plan.n_cells // block) * block),
                compressors=_SHUFFLED,
                **_float_options("variants", "cells"),
            )
        table = self.cells.table.assign(intercept=self.cells.intercept)
        write_frame(self.root, "var", table.rename_axis("cell_id"), dim="cells")
        write_array(self.root, "varm/cell_weight", self.cells.weight, dims=("cells", "bottleneck"))


def write_array(root: zarr.Group, name: str, values: NDArray[Any], dims: tuple[str, ...]) -> None:
    """Write an array in one piece, with its checksum and the names of its dimensions."""
    is_text = values.dtype.kind in "OUT"
    array = root.create_array(
        name,
        shape=values.shape,
        dtype="string" if is_text else values.dtype,
        chunks=tuple(max(1, size) for size in values.shape),
        compressors=_PACKED,
        dimension_names=dims,
        attributes=_encoding("string-array" if is_text else "array"),
        config={"write_empty_chunks": True},
    )
    if values.size:
        array[:] = values.astype(object) if is_text else values


def create_frame(
    root: zarr.Group, name: str, template: pd.DataFrame, *, rows: int, chunk: int, dim: str
) -> None:
    """Create the arrays of a data frame with the columns of the template."""
    group = root.create_group(name)
    _tag(group, "dataframe", **{"column-order": list(template), "_index": template.index.name})
    for column, values in _with_index(template).items():
        attributes = _encoding("array")
        target, dtype = str(column), str(values.dtype)
        if isinstance(values.dtype, pd.CategoricalDtype):
            _tag(group.create_group(target), "categorical", ordered=False)
            categories = np.asarray(values.dtype.categories, dtype=object)
            write_array(group, f"{target}/categories", categories, dims=(f"{column}_categories",))
            target, dtype = f"{target}/codes", "int32"
        elif not is_numeric(values):
            attributes, dtype = _encoding("string-array"), "string"
        group.create_array(
            target,
            shape=(rows,),
            dtype=dtype,
            chunks=(max(1, chunk),),
            compressors=_PACKED,
            dimension_names=(dim,),
            attributes=attributes,
            config={"write_empty_chunks": True},
        )


def write_frame(root: zarr.Group, name: str, frame: pd.DataFrame, dim: str) -> None:
    """Write a whole data frame in one chunk a column."""
    create_frame(root, name, frame, rows=len(frame), chunk=len(frame), dim=dim)
    for column, values in encode_columns(frame, frame).items():
        if len(values):
            array_of(root, f"{name}/{column}")[:] = values


def encode_columns(frame: pd.DataFrame, template: pd.DataFrame) -> dict[str, NDArray[Any]]:
    """Give the arrays of a frame's index and columns: categories as codes, missing text empty."""
    if list(frame) != list(template) or frame.index.name != template.index.name:
        raise StoreError(f"the columns {list(frame)} are not the store's {list(template)}")
    arrays: dict[str, NDArray[Any]] = {}
    columns = _with_index(frame)
    for name, like in _with_index(template).items():
        values = columns[name]
        if isinstance(like.dtype, pd.CategoricalDtype):
            arrays[f"{name}/codes"] = values.astype(like.dtype).cat.codes.to_numpy(np.int32)
        elif is_numeric(like):
            arrays[str(name)] = values.to_numpy(dtype=str(like.dtype))
        else:
            arrays[str(name)] = values.astype(object).where(values.notna(), "").map(str).to_numpy()
    return arrays


def is_numeric(values: pd.Series) -> bool:
    """Whether a column holds numbers or booleans, and not text."""
    return isinstance(values.dtype, np.dtype) and values.dtype.kind in "biuf"


def array_of(group: zarr.Group, name: str) -> ZarrArray:
    """Give an array of a group by its path."""
    array = group[name]
    if not isinstance(array, zarr.Array):
        raise StoreError(f"{group.store_path}: {name} is no array")
    return array


def values_of(group: zarr.Group, name: str) -> NDArray[Any]:
    """Read a whole array; text comes as objects."""
    values = np.asarray(array_of(group, name)[:])
    return values.astype(object) if values.dtype.kind in "OUT" else values


def check_output(path: Path, *, overwrite: bool) -> None:
    """Make way for a new store.

    Raises:
        StoreError: Something lies at the path, and it may not or must not be replaced.
    """
    if not path.exists():
        return
    if not overwrite:
        raise StoreError(f"{path} exists: choose another output, or replace it with --overwrite")
    if not is_store(path):
        raise StoreError(f"{path} is not one of our stores, so --overwrite leaves it alone")
    with _sentences(path):
        shutil.rmtree(path)


def is_store(path: Path) -> bool:
    """Whether a directory holds a store of this package, finished or not."""
    try:
        metadata = json.loads((path / "zarr.json").read_text())
    except (OSError, ValueError):
        return False
    return "format_version" in metadata.get("attributes", {})


def check_room(path: Path, schema: Schema, plan: Plan) -> None:
    """Say how large the store will be; raise StoreError where the disk can't hold it."""
    folder = next(parent for parent in path.resolve().parents if parent.exists())
    free = shutil.disk_usage(folder).free
    sizes = plan.bytes(len(schema.factors))
    log.info(
        "store: %s, %s rows, %s (dense %s, factored %s), %s free",
        path,
        f"{plan.n_rows:,}",
        plan.layout,
        size_text(sizes["dense"]),
        size_text(sizes["factored"]),
        size_text(free),
    )
    if sizes[plan.layout] <= free:
        return
    alternative = ""
    if plan.layout == "dense" and sizes["factored"] <= free:
        alternative = f", or take --layout factored, which needs {size_text(sizes['factored'])}"
    raise StoreError(
        f"{path}: the store needs {size_text(sizes[plan.layout])} and {folder} has "
        f"{size_text(free)} free: choose another disk{alternative}"
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


def consolidate(path: Path) -> None:
    """Collect all metadata at the root, which is one read on an object store."""
    with warnings.catch_warnings():  # zarr warns that version 3 has not yet standardised this
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(path)


@contextmanager
def _sentences(path: Path) -> Iterator[None]:
    """Turn what the operating system says into one sentence."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise StoreError(
                f"{path}: the disk is full; make room, then run again with --overwrite"
            ) from error
        raise StoreError(f"{path} can't be written: {error.strerror or error}") from error


def _with_index(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.reset_index()


def _encoding(kind: str) -> dict[str, Any]:
    return {"encoding-type": kind, "encoding-version": _ANNDATA[kind]}


def _tag(group: zarr.Group, kind: str, **attributes: Any) -> None:
    group.attrs.update(_encoding(kind) | attributes)


def _float_options(*dims: str) -> dict[str, Any]:
    return {
        "fill_value": np.nan,
        "dimension_names": dims,
        "attributes": _encoding("array"),
        "config": {"write_empty_chunks": True},
    }
