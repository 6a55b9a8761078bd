"""Checking a finished store: every byte against its checksum, a sample against the definition."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np

from scbasset_ism.errors import StoreError
from scbasset_ism.frames import ZarrArray, every_array, undamaged
from scbasset_ism.genome import Genome
from scbasset_ism.model import Scbasset
from scbasset_ism.places import Location, place_of
from scbasset_ism.progress import ROOT, is_whole_root
from scbasset_ism.provenance import weights_sha256
from scbasset_ism.reader import Scores, Store, open_store, read_rows
from scbasset_ism.rescoring import InputGoneError, mutate_again, predict_again, rescore_variants
from scbasset_ism.saturations import Saturations
from scbasset_ism.store import BITS_KEPT

# Of the largest number in the sample; float32 on two devices differs by 1e-5, bfloat16 by 1e-2.
TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2}
_BLOCK = 1 << 24  # values of X that are compared at once


@dataclass(frozen=True)
class Verification:
    """What was found.

    Attributes:
        n_arrays: Arrays that were read to their end.
        n_bytes: What they hold.
        n_sampled: Rows that were scored again.
        largest: Largest number of the bottleneck among them; of scores, largest delta.
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
    path: Location, genome: Genome | None, model: Scbasset, *, sample: int = 64, seed: int = 0
) -> Verification:
    """Check a store, and score a sample of its rows again.

    Args:
        path: Where it lies.
        genome: The one that it was written with; None where the store is of sequences.
        model: The one that it was written with; it is left as it was.
        sample: Rows to score again, at most.
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
    scored = np.flatnonzero(table["status"] == "SCORED")
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(scored, min(sample, len(scored)), replace=False))
    if not len(rows):
        return found
    try:
        if isinstance(store, Saturations):
            places, want = mutate_again(table.iloc[rows], store, genome, model, seed=seed)
            have = np.stack(
                [read_rows(store.bottleneck, int(r))[p] for r, p in zip(rows, places, strict=True)]
            )
        elif isinstance(store, Scores):
            want = rescore_variants(table.iloc[rows], store, genome, model)
        else:
            want = predict_again(rows, store, genome, model)
        if not isinstance(store, Saturations):
            have = read_rows(store.bottleneck, rows)
    except InputGoneError as error:
        return replace(found, unchecked=str(error))
    largest = float(np.abs(want).max())
    errors = np.abs(have - want).max(axis=1)
    allowed = TOLERANCE[store.attributes["options"].get("precision", "float32")] * largest
    wrong = np.flatnonzero(~(errors <= allowed))
    problems = [
        f"row {rows[i]} ({table.index[rows[i]]}): its score is off by {errors[i]:.2g}"
        for i in wrong
    ]
    return replace(
        found, n_sampled=len(rows), largest=largest, error=float(errors.max()), problems=problems
    )


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
