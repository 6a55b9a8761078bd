"""Checking a finished store: every byte against its checksum, a sample against the definition."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from scbasset_ism.attributions import Attributions
from scbasset_ism.errors import StoreError
from scbasset_ism.frames import Floats, ZarrArray, every_array, undamaged
from scbasset_ism.genome import Genome
from scbasset_ism.model import Scbasset
from scbasset_ism.places import Location, place_of
from scbasset_ism.progress import ROOT, is_whole_root
from scbasset_ism.provenance import weights_sha256
from scbasset_ism.reader import Scores, Store, open_store, read_rows
from scbasset_ism.rescoring import InputGoneError, predict_again, rescore_variants
from scbasset_ism.saturations import Saturations
from scbasset_ism.store import BITS_KEPT
from scbasset_ism.window_rescoring import attribute_again, mutate_again

# Of the largest number in the sample; float32 on two devices differs by 1e-5, bfloat16 by 1e-2.
TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2}
SAMPLE = {"attribute": 8}  # rows; of the other kinds 64
_BLOCK = 1 << 24  # values of X that are compared at once


@dataclass(frozen=True)
class Verification:
    """What was found.

    Attributes:
        n_arrays: Arrays that were read to their end.
        n_bytes: What they hold.
        n_sampled: Rows that were scored again.
        largest: Largest number among them: of the bottleneck; of scores, delta of the bottleneck;
            of attributions, logits of one cell for each window.
        error: Largest difference between the store and the definition.
        unchecked: Why no row could be scored again, where that is so.
        problems: One sentence each; none where all is well.
    """

    n_arrays: int
    n_bytes: int
    n_sampled: int = 0
    largest: float = 0.0
    error: float = 0.0
    unchecked: str = ""
    problems: list[str] = field(default_factory=list)


def verify_files(store: Store) -> Verification:
    """Read the root's metadata and every chunk of every array; compare X with what it expands."""
    place = place_of(store.path)
    problems, n_arrays, n_bytes = list[str](), 0, 0
    if not is_whole_root(place.read(ROOT) or b""):
        problems.append(f"{place}/{ROOT}: its attributes or metadata are not as they were written")
    for array in every_array(place):
        n_arrays, n_bytes = n_arrays + 1, n_bytes + array.nbytes
        problems += _damage(array)
    if not problems and store.attributes["layout"] == "dense":
        problems += _differences(store)
    return Verification(n_arrays, n_bytes, problems=problems)


def verify_scores(
    path: Location,
    genome: Genome | None,
    model: Scbasset,
    *,
    sample: int | None = None,
    seed: int = 0,
) -> Verification:
    """Check a store, and score a sample of its rows again.

    Args:
        path: Where it lies.
        genome: The one that it was written with; None where the store is of sequences.
        model: The one that it was written with; it is left as it was.
        sample: Rows to score again, at most; by default 64, or 8 windows of attributions, which
            take a thousand times as long.
        seed: Which rows.

    Raises:
        StoreError: The store can't be opened, or is of another model or genome.
    """
    store = open_store(path)
    _check_model(store, model)
    found = verify_files(store)
    if found.problems:
        return found
    table = store.rows()
    scored = np.flatnonzero(table["status"].isin(["SCORED", "INCOMPLETE"]))
    rng = np.random.default_rng(seed)
    size = SAMPLE.get(store.kind, 64) if sample is None else sample
    rows = np.sort(rng.choice(scored, min(size, len(scored)), replace=False))
    if not len(rows):
        return found
    try:
        pairs = _computed_again(store, rows, genome, model, seed=seed)
    except InputGoneError as error:
        return replace(found, unchecked=str(error))
    share = TOLERANCE[store.attributes["options"].get("precision", "float32")]
    problems = []
    for have, want in pairs:
        errors = np.array([np.abs(h - w).max() for h, w in zip(have, want, strict=True)])
        wrong = np.flatnonzero(~(errors <= share * _largest(want)))
        problems += [
            f"row {rows[i]} ({table.index[rows[i]]}): its score is off by {errors[i]:.2g}"
            for i in wrong
        ]
        found = replace(found, largest=max(found.largest, _largest(want)))
        found = replace(found, error=max(found.error, float(errors.max())))
    return replace(found, n_sampled=len(rows), problems=problems)


def _computed_again(
    store: Store, rows: NDArray[np.int64], genome: Genome | None, model: Scbasset, *, seed: int
) -> list[tuple[list[Floats], list[Floats]]]:
    """Give what the store has and what it should have; each quantity is a list by row."""
    table = store.rows().iloc[rows]
    if isinstance(store, Saturations):
        places, deltas = mutate_again(table, store, genome, model, seed=seed)
        pairs = zip(rows.tolist(), places, strict=True)
        return [([read_rows(store.bottleneck, r)[p] for r, p in pairs], list(deltas))]
    if isinstance(store, Attributions):
        again = attribute_again(table, store, genome, model, seed=seed)
        weights = [store.cell_weight[one.cell] for one in again]
        wide = [read_rows(store.bottleneck, r) for r in rows.tolist()]
        maps = [
            values[: len(one.hypothetical)] @ weight
            for values, one, weight in zip(wide, again, weights, strict=True)
        ]
        sums = [read_rows(store.difference, r) @ w for r, w in zip(rows, weights, strict=True)]
        wanted = [np.array(one.difference) for one in again]
        return [(maps, [one.hypothetical for one in again]), (sums, wanted)]
    if isinstance(store, Scores):
        scores = rescore_variants(table, store, genome, model)
    else:
        scores = predict_again(rows, store, genome, model)
    return [(list(read_rows(store.bottleneck, rows)), list(scores))]


def _largest(values: list[Floats]) -> float:
    return max(float(np.abs(one).max()) for one in values)


def _damage(array: ZarrArray) -> Iterator[str]:
    """Read an array, a shard at a time; say which can't be read."""
    step = (array.shards or array.chunks)[0]
    for start in range(0, array.shape[0], step):
        try:
            with undamaged(array):
                array[start : start + step]
        except StoreError as error:
            yield str(error)


def _differences(store: Store) -> Iterator[str]:
    """Compare X with the product that it is."""
    x = store.dense if isinstance(store, Saturations) else store.x
    step = max(1, _BLOCK // max(1, prod(x.shape[1:])))
    bitround = store.attributes["options"].get("dense_precision") == "bitround"
    relative = 2.0 ** -(BITS_KEPT + 1) if bitround else 1e-5
    for start in range(0, x.shape[0], step):
        found, want = x[start : start + step], store.expanded[start : start + step]
        if not np.allclose(found, want, rtol=relative, atol=2e-5, equal_nan=True):
            yield f"{x.store_path}: rows {start}-{start + len(want)} are not W times the deltas"


def _check_model(store: Store, model: Scbasset) -> None:
    recorded, own = store.attributes["model"]["weights_sha256"], weights_sha256(model)
    if recorded != own:
        raise StoreError(
            f"{store.path} was written with other weights (sha256 {recorded[:12]}...) than "
            f"{model.provenance.get('source')} has ({own[:12]}...): give its --model"
        )
