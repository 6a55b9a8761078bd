"""Makes the files of a store in memory, one whole shard at a time, and hands them on."""

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import zarr
from numpy.typing import NDArray
from zarr.core.buffer import Buffer
from zarr.storage import MemoryStore

from scbasset_ism import store
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
from scbasset_ism.store import BITS_KEPT, FORMAT_VERSION, Cells, Plan, Schema


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

    def manifest(
        self, fingerprint: Mapping[str, Any], facts: Mapping[str, Any] | None = None
    ) -> Manifest:
        """Say which run writes the store; the fingerprint gets what the layout depends on.

        Args:
            fingerprint: All else that the numbers depend on, by name; JSON.
            facts: What is known before the first shard; JSON.
        """
        whole = {
            "command": self.schema.kind,
            "format_version": FORMAT_VERSION,
            "layout": self.plan.layout,
            "rows": self.plan.n_rows,
            "rows of a shard": self.plan.shard_rows,
            **fingerprint,
        }
        static = {name: content for name, content in self.skeleton.items() if name != ROOT}
        return Manifest(
            whole, self.plan.n_shards, seals(static), facts_of(self.schema.obs) | dict(facts or {})
        )

    def shard(
        self, shard: int, obs: pd.DataFrame, factors: Mapping[str, Floats]
    ) -> dict[str, bytes]:
        """Make all files of a shard.

        Args:
            shard: Its number.
            obs: (rows) with the schema's columns.
            factors: (rows, bottleneck) float32 by name, the first with the schema's inner
                dimensions; NaN where a row has no score.

        Raises:
            StoreError: The rows are not those of the shard.
        """
        values = {f"obsm/{name}": factors[name] for name in self.schema.factors}
        if self.plan.layout == "dense":
            first = factors[self.schema.factors[0]]
            dense = self.schema.expand(first, self._cells.weight, self._cells.intercept)
            is_rounded = self.plan.dense_precision == "bitround"
            values[self.schema.dense] = bitround(dense) if is_rounded else dense
        return self.table(shard, obs) | self._files_of(shard, values)

    def table(self, shard: int, obs: pd.DataFrame) -> dict[str, bytes]:
        """Make the files of a shard that hold the table of its rows, and no numbers."""
        columns = encode_columns(obs, self.schema.obs)
        return self._files_of(shard, {f"obs/{name}": array for name, array in columns.items()})

    @property
    def numbers(self) -> list[str]:
        """Names of the arrays that hold the numbers of the rows."""
        dense = [self.schema.dense] if self.plan.layout == "dense" else []
        return [*dense, *(f"obsm/{name}" for name in self.schema.factors)]

    def _files_of(self, shard: int, values: Mapping[str, NDArray[Any]]) -> dict[str, bytes]:
        """Make the files of arrays, (rows of the shard, ...) by name."""
        rows = self.plan.rows(shard)
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
        dim, names, inner = self.schema.rows, self.schema.inner, self.plan.inner
        create_frame(self._root, "obs", self.schema.obs, rows=rows, chunk=shard, dim=dim)
        if inner:
            self._create_wide(self.schema.factors[0])
        for name in self.schema.factors[bool(inner) :]:
            self._root.create_array(
                f"obsm/{name}",
                shape=(rows, self.plan.bottleneck),
                dtype="float32",
                chunks=(shard, self.plan.bottleneck),
                compressors=RAW,
                **float_options(dim, "bottleneck"),
            )
        if self.plan.layout == "dense":
            block = min(store.CELL_BLOCK, self.plan.n_cells)
            self._root.create_array(
                self.schema.dense,
                shape=(rows, *inner, self.plan.n_cells),
                dtype="float32",
                chunks=(1 if inner else min(store.CHUNK_ROWS, shard), *inner, block),
                shards=(shard, *inner, -(-self.plan.n_cells // block) * block),
                compressors=SHUFFLED,
                **float_options(dim, *names, "cells"),
            )

    def _create_wide(self, factor: str) -> None:
        """Create an array whose rows are arrays; each can be read alone."""
        row = (*self.plan.inner, self.plan.bottleneck)
        self._root.create_array(
            f"obsm/{factor}",
            shape=(self.plan.n_rows, *row),
            dtype="float32",
            chunks=(1, *row),
            shards=(self.plan.shard_rows, *row),
            compressors=SHUFFLED,  # a quarter are zeros
            **float_options(self.schema.rows, *self.schema.inner, "bottleneck"),
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
