"""Joins finished stores that differ in their input alone, such as a run for each chromosome.

Whole shards are copied where a store begins at the edge of one; elsewhere the numbers are cut anew,
and stay the same. Nothing is copied without its checksums being checked.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import accumulate, combinations, product, starmap
from typing import Any

import numpy as np
import pandas as pd

from scbasset_ism.agreement import SelfCheck
from scbasset_ism.encoder import Encoder, facts_of
from scbasset_ism.errors import StoreError
from scbasset_ism.finishing import try_to_finish
from scbasset_ism.frames import Floats, chunk_file, undamaged
from scbasset_ism.pipeline import progress_bar
from scbasset_ism.places import Folder, Location, Place, place_of
from scbasset_ism.progress import Progress, differences
from scbasset_ism.reader import INPUTS, OWN, Store, open_store, read_rows
from scbasset_ism.runs import begin, check_mismatches, finalize
from scbasset_ism.store import Cells, Plan, Schema
from scbasset_ism.window_store import WindowStore


@dataclass(frozen=True)
class Source:
    """A store that is merged.

    Attributes:
        store: It is finished and has rows.
        first: Its first row's number in the merged store.
        first_record: Its first record's number there.
    """

    store: Store
    first: int
    first_record: int

    def rows(self, merged: range) -> range:
        """Give those of its rows that some rows of the merged store are."""
        inside = range(len(self.store))
        return inside[max(0, merged.start - self.first) : max(0, merged.stop - self.first)]


def merge(
    stores: Sequence[Location], out: Location, *, overwrite: bool = False, progress: bool = False
) -> Store:
    """Join finished stores of one model, genome and set of options, in the order given.

    A merge that was killed goes on where it stopped when it is called again.

    Args:
        stores: Where they lie: paths, or fsspec URLs; they stay as they are.
        out: Where the merged store will lie.
        overwrite: Replace what is there.
        progress: Show a bar on stderr where that is a terminal.

    Returns:
        The merged store: the rows of the first, then of the second, ...

    Raises:
        StoreError: A store is unfinished, damaged, without rows or of another run than the first,
            it says in what; two have the same input; or the merged one can't be written.
    """
    sources = _open(stores, out)
    first = sources[0].store
    if isinstance(first, WindowStore):
        raise StoreError(
            f"{stores[0]}: stores of `{first.kind}` can't be merged; open them one by one"
        )
    encoder = _encoder(sources)
    begun = begin(encoder, _fingerprint(sources), out, overwrite=overwrite, facts=_facts(sources))
    for _ in range(2):  # once more where a shard of an earlier call turns out to be damaged
        _write(sources, encoder, begun, show=progress)
        if not try_to_finish(begun, check_mismatches):
            return open_store(out)
    finalize(out)
    return open_store(out)


def _open(paths: Sequence[Location], out: Location) -> list[Source]:
    """Open stores and check that they belong together."""
    if len(paths) < 2:
        raise StoreError("there is nothing to merge: give two stores or more")
    if any(_is_same(place_of(path), place_of(out)) for path in paths):
        raise StoreError(f"{out} can't be merged into itself: choose another output")
    stores = [open_store(path) for path in paths]
    for store in stores:
        if not len(store):
            raise StoreError(f"{store.path} has no rows: leave it out")
    for before, store in combinations(stores, 2):
        _check_alike(before, store)
        if any(starmap(_overlap, product(before.inputs, store.inputs))):
            raise StoreError(
                f"{store.path} has the same input as {before.path}: rows would be there twice"
            )
    rows = accumulate(map(len, stores), initial=0)
    records = accumulate(map(_n_records, stores), initial=0)
    return [Source(*one) for one in zip(stores, rows, records, strict=False)]


def _is_same(a: Place, b: Place) -> bool:
    if isinstance(a, Folder) and isinstance(b, Folder):
        return a.path.resolve() == b.path.resolve()
    return str(a) == str(b)


def _overlap(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Whether two inputs are the same file, in the same region or as a whole."""
    one, other = ({"region": None} | dict(x["fingerprint"]) for x in (a, b))
    regions = {one.pop("region"), other.pop("region")}
    return one == other and (len(regions) == 1 or None in regions)


def _check_alike(first: Store, other: Store) -> None:
    """Raise StoreError, and say what differs, unless only the input does."""
    found = differences(_common(first), _common(other))
    md5s = [store.attributes.get("genome", {}).get("contig_md5", {}) for store in (first, other)]
    shared = [contig for contig in md5s[0] if contig in md5s[1]]
    found += differences(*({f"contig {name}": md5[name] for name in shared} for md5 in md5s))
    if found:
        raise StoreError(
            f"{other.path} can't be merged with {first.path}: {'; '.join(found)}; only stores "
            "that differ in their input alone belong together"
        )


def _common(store: Store) -> dict[str, Any]:
    """What stores that are merged have in common."""
    fingerprint: dict[str, Any] = store.attributes["fingerprint"]
    return {k: v for k, v in fingerprint.items() if k not in {*OWN, "inputs", "rows"}}


def _fingerprint(sources: Sequence[Source]) -> dict[str, Any]:
    inputs = [one["fingerprint"] for source in sources for one in source.store.inputs]
    digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
    return _common(sources[0].store) | {"inputs": digest}


def _n_records(store: Store) -> int:
    last = store.rows(slice(len(store) - 1, None))
    return int(last["variant_record"].iloc[0]) + 1 if "variant_record" in last else 0


def _encoder(sources: Sequence[Source]) -> Encoder:
    """Lay the merged store out as its sources are."""
    stores = [source.store for source in sources]
    first = stores[0]
    templates = [store.rows(slice(0)) for store in stores]
    template = templates[0].copy()
    for name, column in template.items():
        if isinstance(column.dtype, pd.CategoricalDtype):
            known = dict.fromkeys(c for t in templates for c in t[name].cat.categories)
            template[name] = column.astype(pd.CategoricalDtype(list(known)))
    plan = Plan(
        sum(map(len, stores)),
        len(first.cells),
        first.bottleneck.shape[1],
        first.attributes["layout"],
        first.attributes["options"]["dense_precision"],
    )
    cells = first.cells
    return Encoder(
        Schema(first.kind, template, first.factors, has_intercept=first.has_intercept),
        plan,
        cells=Cells(
            cells.drop(columns="intercept"),
            first.cell_weight,
            cells["intercept"].to_numpy(np.float32),
        ),
        uns=first.uns,
        attributes=_attributes(stores),
    )


def _attributes(stores: Sequence[Store]) -> dict[str, Any]:
    """Say what the merged store was made of."""
    kept = {
        name: value
        for name, value in stores[0].attributes.items()
        if name in {"version", "model", "genome", "options"}
    }
    inputs = [one for store in stores for one in store.inputs]
    for name in INPUTS:
        if name in stores[0].attributes:
            kept[name] = _joined([store.attributes[name] for store in stores])
    if "region" in kept["options"]:
        regions = dict.fromkeys(store.attributes["options"]["region"] for store in stores)
        kept["options"] |= {"region": ", ".join(map(str, regions)) if any(regions) else None}
    return kept | {"merged": inputs}


def _joined(values: Sequence[Any]) -> Any:
    """Join what stands in several stores: texts with commas, numbers as a sum."""
    if isinstance(values[0], Mapping):
        return {name: _joined([value[name] for value in values]) for name in values[0]}
    return sum(values) if isinstance(values[0], int) else ", ".join(map(str, values))


def _facts(sources: Sequence[Source]) -> dict[str, Any]:
    """Add up what the sources say of the genome, the devices and their self-checks."""
    attributes = [source.store.attributes for source in sources]
    md5s = [one["genome"]["contig_md5"] for one in attributes if "genome" in one]
    devices = {d for one in attributes for d in one["options"].get("device", "").split(", ") if d}
    checks = [SelfCheck.of(one["self_check"]) for one in attributes if "self_check" in one]
    facts: dict[str, Any] = {"contig_md5": reduce(dict.__or__, md5s, {})} if md5s else {}
    facts |= {"device": ", ".join(sorted(devices))} if devices else {}
    return facts | ({"self_check": sum(checks, SelfCheck()).sums()} if checks else {})


def _write(sources: Sequence[Source], encoder: Encoder, progress: Progress, *, show: bool) -> None:
    """Write the shards that are missing."""
    plan = encoder.plan
    shards = range(plan.n_shards)
    with progress.writing(shards):
        missing = progress.missing(shards)
        n_rows = sum(len(plan.rows(shard)) for shard in missing)
        with progress_bar(n_rows, show=show) as advance:
            for shard in missing:
                rows = plan.rows(shard)
                pieces = [(one, own) for one in sources if len(own := one.rows(rows))]
                obs = pd.concat([_table(*piece, encoder.schema.obs) for piece in pieces])
                source, own = pieces[0]
                if len(pieces) == 1 and own.start % plan.shard_rows == 0:
                    files = encoder.table(shard, obs) | dict(_copied(source, own, shard, encoder))
                else:
                    files = encoder.shard(shard, obs, _factors(pieces, encoder.schema.factors))
                progress.write(shard, files, facts_of(obs))
                advance(len(rows))


def _table(source: Source, rows: range, template: pd.DataFrame) -> pd.DataFrame:
    """Read rows of a source, as the merged store has them."""
    table = source.store.rows(slice(rows.start, rows.stop)).astype(dict(template.dtypes))
    if "variant_record" in table:
        table["variant_record"] += source.first_record
    return table


def _factors(pieces: Sequence[tuple[Source, range]], names: Sequence[str]) -> dict[str, Floats]:
    """Read the bottlenecks of pieces, (rows, bottleneck) by name."""
    return {
        name: np.concatenate(
            [
                read_rows(source.store.array(f"obsm/{name}"), slice(own.start, own.stop))
                for source, own in pieces
            ]
        )
        for name in names
    }


def _copied(
    source: Source, rows: range, shard: int, encoder: Encoder
) -> Iterator[tuple[str, bytes]]:
    """Give the files with the numbers of a shard that is whole in a source."""
    own = rows.start // encoder.plan.shard_rows
    for name in encoder.numbers:
        array = source.store.array(name)
        with undamaged(array):
            array[rows.start : rows.stop]  # each chunk is checked against its crc32c
        content = place_of(source.store.path).read(chunk_file(array, own))
        yield chunk_file(array, shard), content or b""
