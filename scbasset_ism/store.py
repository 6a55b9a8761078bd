"""The Zarr store: an AnnData on disk whose columns are cells.

A row is described completely by the few bottleneck numbers of `obsm`, since the head is linear:
`X = obsm @ varm["cell_weight"].T` (plus the intercept where X are logits and not deltas). The
layout `dense` writes X out for tools that want it; `factored` leaves it out. Files are made in
memory, one whole shard at a time; `progress` brings them to the disk.
"""

import logging
import warnings
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import zarr
from numpy.typing import NDArray
from zarr.core.buffer import Buffer
from zarr.core.buffer.cpu import Buffer as MemoryBuffer
from zarr.storage import MemoryStore

from scbasset_ism.agreement import SelfCheck
from scbasset_ism.errors import StoreError
from scbasset_ism.frames import (
    RAW,
    SHUFFLED,
    Floats,
    array_of,
    create_frame,
    encode_columns,
    float_options,
    tag,
    write_array,
    write_frame,
)
from scbasset_ism.progress import ROOT, Manifest, Progress, seals

log = logging.getLogger(__name__)

FORMAT_VERSION = 1
Layout = Literal["dense", "factored"]
Precision = Literal["float32", "bitround"]

SHARD_ROWS = {"dense": 8192, "factored": 16384}
CHUNK_ROWS = 1024
CELL_BLOCK = 256
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
        dense_precision: Of X: all bits, or those that matter, which take half the bytes.
    """

    n_rows: int
    n_cells: int
    bottleneck: int
    layout: Layout
    dense_precision: Precision = "float32"

    @property
    def shard_rows(self) -> int:
        """Rows that are written together; fewer where a dense shard would be too large."""
        rows = SHARD_ROWS[self.layout]
        if self.layout == "dense":
            while rows > 16 and rows * self.n_cells * 4 > MAX_SHARD_BYTES:
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
        factored = self.n_rows * (4 * n_factors * self.bottleneck + ROW_TEXT_BYTES)
        factored += self.n_cells * (4 * self.bottleneck + ROW_TEXT_BYTES)
        bits = 32 if self.dense_precision == "float32" else 9 + BITS_KEPT
        return {"factored": factored, "dense": factored + bits * self.n_rows * self.n_cells // 8}


class Encoder:
    """Makes the files of a store, in memory.

    Args:
        schema: What a row is.
        plan: How many rows, and the layout.
        cells: The head of the model.
        uns: One-dimensional arrays below `uns`, by dimension and name.
        attributes: Written at the root (JSON).
    """

    def __init__(
        self,
        schema: Schema,
        plan: Plan,
        *,
        cells: Cells,
        uns: Mapping[tuple[str, str], NDArray[Any]],
        attributes: Mapping[str, Any],
    ) -> None:
        self.schema, self.plan, self._cells = schema, plan, cells
        self._files: MutableMapping[str, Buffer] = {}
        self._root = zarr.open_group(MemoryStore(self._files), mode="w", zarr_format=3)
        tag(self._root, "anndata")
        own: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            "kind": schema.kind,
            "layout": plan.layout,
        }
        self._root.attrs.update(dict(attributes) | own | {"status": "writing"})
        for name in ("layers", "obsp", "varp", "uns", "obsm", "varm"):
            tag(self._root.create_group(name), "dict")
        self._create_rows()
        table = cells.table.assign(intercept=cells.intercept)
        write_frame(self._root, "var", table.rename_axis("cell_id"), dim="cells")
        write_array(self._root, "varm/cell_weight", cells.weight, dims=("cells", "bottleneck"))
        for (dim, name), values in uns.items():
            write_array(self._root, f"uns/{name}", values, dims=(dim,))
        self.skeleton = {name: buffer.to_bytes() for name, buffer in self._files.items()}

    def manifest(self, fingerprint: Mapping[str, Any]) -> Manifest:
        """Say which run writes the store; the fingerprint gets what the layout depends on."""
        whole = {
            "command": self.schema.kind,
            "format_version": FORMAT_VERSION,
            "layout": self.plan.layout,
            "rows": self.plan.n_rows,
            "rows of a shard": self.plan.shard_rows,
            **fingerprint,
        }
        static = {name: content for name, content in self.skeleton.items() if name != ROOT}
        return Manifest(whole, self.plan.n_shards, seals(static), facts_of(self.schema.obs))

    def shard(
        self, shard: int, obs: pd.DataFrame, factors: Mapping[str, Floats]
    ) -> dict[str, bytes]:
        """Make all files of a shard.

        Args:
            shard: Its number.
            obs: (rows) with the schema's columns.
            factors: (rows, bottleneck) float32 by name; NaN where a row has no score.

        Raises:
            StoreError: The rows are not those of the shard.
        """
        rows = self.plan.rows(shard)
        values = {
            f"obs/{name}": column for name, column in encode_columns(obs, self.schema.obs).items()
        }
        values |= {f"obsm/{name}": factors[name] for name in self.schema.factors}
        if self.plan.layout == "dense":
            first = factors[self.schema.factors[0]]
            values["X"] = self.schema.expand(first, self._cells.weight, self._cells.intercept)
            if self.plan.dense_precision == "bitround":
                values["X"] = bitround(values["X"])
        for name, array in values.items():
            target = array_of(self._root, name)
            if array.shape != (len(rows), *target.shape[1:]):  # zarr would cut in silence
                raise StoreError(
                    f"{name} has shape {array.shape} for rows {rows.start}-{rows.stop}"
                )
            target[rows.start : rows.stop] = array
        made = [name for name in self._files if name not in self.skeleton]
        return {name: self._files.pop(name).to_bytes() for name in made}

    def _create_rows(self) -> None:
        """Create the arrays of the rows; they are filled shard by shard."""
        rows, shard = self.plan.n_rows, self.plan.shard_rows
        create_frame(self._root, "obs", self.schema.obs, rows=rows, chunk=shard, dim="variants")
        chunk = min(CHUNK_ROWS, shard)
        for name in self.schema.factors:
            self._root.create_array(
                f"obsm/{name}",
                shape=(rows, self.plan.bottleneck),
                dtype="float32",
                chunks=(chunk, self.plan.bottleneck),
                shards=(shard, self.plan.bottleneck),
                compressors=RAW,
                **float_options("variants", "bottleneck"),
            )
        if self.plan.layout == "dense":
            block = min(CELL_BLOCK, self.plan.n_cells)
            self._root.create_array(
                "X",
                shape=(rows, self.plan.n_cells),
                dtype="float32",
                chunks=(chunk, block),
                shards=(shard, -(-self.plan.n_cells // block) * block),
                compressors=SHUFFLED,
                **float_options("variants", "cells"),
            )


class Writer:
    """Writes rows, in order, one whole shard at a time.

    Args:
        encoder: Makes the files.
        progress: Of a store that has begun.
        shards: Which shards the rows are of, ascending.
        facts: What is to be known of a shard that was just made, besides its statuses; JSON.
    """

    def __init__(
        self,
        encoder: Encoder,
        progress: Progress,
        shards: Sequence[int],
        facts: Callable[[int], dict[str, Any]] = lambda _: {},
    ) -> None:
        self._encoder, self._progress, self._facts = encoder, progress, facts
        self._shards = list(reversed(shards))
        self._pending: list[tuple[pd.DataFrame, Mapping[str, Floats]]] = []

    def append(self, obs: pd.DataFrame, factors: Mapping[str, Floats]) -> None:
        """Add rows of one shard; when it is whole it goes to the disk.

        Args:
            obs: (rows) with the schema's columns.
            factors: (rows, bottleneck) float32 by name; NaN where a row has no score.
        """
        self._pending.append((obs, factors))
        if sum(len(obs) for obs, _ in self._pending) < len(self._rows()):
            return
        tables, numbers = zip(*self._pending, strict=True)
        self._pending = []
        whole = pd.concat(tables)
        arrays = {name: np.concatenate([n[name] for n in numbers]) for name in factors}
        shard = self._shards[-1]
        files = self._encoder.shard(shard, whole, arrays)
        self._progress.write(shard, files, facts_of(whole) | self._facts(shard))
        self._shards.pop()

    def close(self) -> None:
        """Make sure that all shards are written.

        Raises:
            StoreError: Fewer rows came than were counted.
        """
        if self._shards:
            pending = sum(len(obs) for obs, _ in self._pending)
            raise StoreError(
                f"{self._progress.store}: the input ended at row {self._rows().start + pending:,} "
                f"where {self._encoder.plan.n_rows:,} were counted; did it change during the run?"
            )

    def _rows(self) -> range:
        """Rows of the shard that is next."""
        return self._encoder.plan.rows(self._shards[-1]) if self._shards else range(0)


def bitround(values: Floats) -> Floats:
    """Keep the leading bits of each mantissa, rounded to nearest, ties to even.

    The numbers stay float32, so whatever reads them needs no codec for it; the zero bits cost next
    to nothing once they are compressed.
    """
    dropped = 23 - BITS_KEPT
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    half = ((bits >> dropped) & 1) + np.uint32((1 << (dropped - 1)) - 1)
    rounded = (bits + half) >> dropped << dropped
    return np.where(np.isfinite(values), rounded.view(np.float32), values)


def facts_of(obs: pd.DataFrame) -> dict[str, Any]:
    """Count the statuses of a table of rows."""
    return {"counts": obs["status"].value_counts(sort=False).to_dict() if "status" in obs else {}}


def try_to_finish(progress: Progress, check: Callable[[dict[str, Any]], None]) -> list[int]:
    """Check all files of a store and mark it complete, if nothing is missing.

    Args:
        progress: Of a store that has begun.
        check: Raises where the store, by its final attributes, must not be finished.

    Returns:
        The shards that are missing, so that the store is still unfinished; else nothing.

    Raises:
        StoreError: A process is writing, or a file that is not of a shard is damaged.
    """
    with progress.finishing():
        missing, manifest = progress.check(), progress.manifest()
        if missing or manifest is None:
            return missing
        names = [name for name in (ROOT, *manifest.files) if name.endswith(ROOT)]
        contents = {name: progress.store.read(name) or b"" for name in names}
        files: MutableMapping[str, Buffer] = {
            name: MemoryBuffer.from_bytes(content) for name, content in contents.items()
        }
        memory = MemoryStore(files)
        root = zarr.open_group(memory, mode="r+")
        attributes = _final_attributes(dict(root.attrs), progress.facts())
        check(attributes)
        root.attrs.update(attributes | {"fingerprint": manifest.fingerprint, "status": "complete"})
        with warnings.catch_warnings():  # zarr warns that version 3 has not yet standardised this
            warnings.simplefilter("ignore")
            zarr.consolidate_metadata(memory)
        progress.finish(files[ROOT].to_bytes())
    return []


def _final_attributes(
    attributes: dict[str, Any], facts: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Add up what the shards say: statuses, contigs and devices."""
    counts: dict[str, int] = {}
    for one in facts:
        for status, count in one["counts"].items():
            counts[status] = counts.get(status, 0) + count
    md5s: dict[str, str] = {}
    for one in facts:
        for contig, md5 in one.get("contig_md5", {}).items():
            if md5s.setdefault(contig, md5) != md5:
                raise StoreError(
                    f"contig {contig} of the genome changed during the run: its MD5 was "
                    f"{md5s[contig]} and then {md5}; start anew with --overwrite"
                )
    final = attributes | {"counts": counts}
    if "genome" in attributes:
        final["genome"] = attributes["genome"] | {"contig_md5": dict(sorted(md5s.items()))}
    checks = [SelfCheck(**one["self_check"]) for one in facts if "self_check" in one]
    if checks:
        checked = sum(checks, SelfCheck())
        checked.require(attributes["options"]["precision"])
        log.info("self-check: %s", checked)
        final["self_check"] = checked.summary()
    if devices := sorted({one["device"] for one in facts if "device" in one}):
        final["options"] = attributes["options"] | {"device": ", ".join(devices)}
    return final


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
