"""Checking a finished store: every byte against its checksum, a sample against the definition.

A sampled variant is scored again by `naive_delta` with its whole alternate window as the edit:
two full float32 passes, and nothing of what makes scoring fast.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch

from scbasset_ism import vcf
from scbasset_ism.delta import Edits, naive_delta
from scbasset_ism.errors import StoreError
from scbasset_ism.frames import Floats, ZarrArray, every_array, undamaged
from scbasset_ism.genome import Genome
from scbasset_ism.model import Scbasset
from scbasset_ism.places import Location, place_of
from scbasset_ism.provenance import weights_sha256
from scbasset_ism.reader import Scores, Store, read_rows
from scbasset_ism.store import BITS_KEPT
from scbasset_ism.variants import Variant
from scbasset_ism.views import all_views
from scbasset_ism.windows import Frame, alternate_windows, read_window

# Of the largest delta in the sample; float32 on two devices differs by 1e-5, bfloat16 by 1e-2.
TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2}
_COLUMNS = ("chrom", "variant_position", "variant_ref", "variant_alt")
_BLOCK = 1 << 24  # values of X that are compared at once


@dataclass(frozen=True)
class Verification:
    """What was found.

    Attributes:
        n_arrays: Arrays that were read to their end.
        n_bytes: What they hold.
        n_sampled: Rows that were scored again.
        largest: Largest delta of the bottleneck among them.
        error: Largest difference between the store and the definition.
        problems: One sentence each; none where all is well.
    """

    n_arrays: int
    n_bytes: int
    n_sampled: int = 0
    largest: float = 0.0
    error: float = 0.0
    problems: list[str] = field(default_factory=list)


def verify_files(store: Store) -> Verification:
    """Read every chunk of every array, and compare X with what it expands."""
    problems, n_arrays, n_bytes = list[str](), 0, 0
    for array in every_array(place_of(store.path)):
        n_arrays, n_bytes = n_arrays + 1, n_bytes + array.nbytes
        problems += _damage(array)
    if not problems and store.attributes["layout"] == "dense":
        problems += _differences(store, store.x)
    return Verification(n_arrays, n_bytes, problems=problems)


def verify_scores(
    path: Location, genome: Genome, model: Scbasset, *, sample: int = 64, seed: int = 0
) -> Verification:
    """Check a store of scores.

    Args:
        path: Where it lies.
        genome: The one that it was written with.
        model: The one that it was written with; it is left as it was.
        sample: Rows to score again, at most.
        seed: Which rows.

    Raises:
        StoreError: The store can't be opened, or is of another model or genome.
    """
    scores = Scores(path)
    _check_model(scores, model)
    found = verify_files(scores)
    if found.problems:
        return found
    table = scores.variants()
    scored = np.flatnonzero(table["status"] == "SCORED")
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(scored, min(sample, len(scored)), replace=False))
    if not len(rows):
        return found
    want = rescore(table.iloc[rows], scores, genome, model)
    largest = float(np.abs(want).max())
    errors = np.abs(read_rows(scores.delta_bottleneck, rows) - want).max(axis=1)
    allowed = TOLERANCE[scores.attributes["options"]["precision"]] * largest
    wrong = np.flatnonzero(~(errors <= allowed))
    problems = [
        f"row {rows[i]} ({table.index[rows[i]]}): its delta is off by {errors[i]:.2g}"
        for i in wrong
    ]
    return Verification(
        found.n_arrays, found.n_bytes, len(rows), largest, float(errors.max()), problems
    )


def rescore(table: pd.DataFrame, scores: Scores, genome: Genome, model: Scbasset) -> Floats:
    """Score rows of a store by the definition.

    Returns:
        Alt minus ref, (rows, bottleneck).
    """
    options = scores.attributes["options"]
    frame = Frame(model.config.window, margin=options["shifts"])
    variants = [
        Variant(str(chrom), int(position) - 1, ref.upper(), alt.upper())
        for chrom, position, ref, alt in zip(*(table[name] for name in _COLUMNS), strict=True)
    ]
    peaks = table["peak"] if "peak" in table else pd.Series("", index=table.index)
    ref, alt, signs = [], [], []
    for record, start, peak in zip(
        vcf.read(variants, genome, ref_mismatch=options["ref_mismatch"]),
        table["window_start"],
        peaks,
        strict=True,
    ):
        if record.variant is None:
            raise StoreError(
                f"{scores.path}: {record.chrom}:{record.pos} has no score in "
                f"{genome.path} ({record.status.name}); is it the same genome?"
            )
        own = record.variant.start - frame.window // 2
        first = int(start) if peak else own
        ref.append(read_window(genome, record.variant.chrom, first, frame))
        alt.append(alternate_windows(record.variant, genome, first, frame))
        signs.append(record.sign)
    _check_genome(scores, genome)
    codes = torch.from_numpy(np.stack(ref)).to(model.head.weight.device)
    alternates = torch.from_numpy(np.concatenate(alt)).to(codes.device)  # two fillings a row
    window = torch.arange(len(codes), device=codes.device).repeat_interleave(2)
    deltas = []
    for view in all_views(frame.window, rc=options["rc"], shifts=options["shifts"]):
        edits = Edits(window, torch.zeros_like(window), view.codes(alternates))
        both = naive_delta(model, view.codes(codes), edits).delta_bottleneck
        deltas.append(both.view(len(codes), 2, -1).mean(1))
    mean = torch.stack(deltas).mean(0).float().cpu().numpy()
    return np.asarray(mean * np.array(signs, np.float32)[:, None])


def _damage(array: ZarrArray) -> Iterator[str]:
    """Read an array, a shard at a time; say which can't be read."""
    step = (array.shards or array.chunks)[0]
    for start in range(0, array.shape[0], step):
        try:
            with undamaged(array):
                array[start : start + step]
        except StoreError as error:
            yield str(error)


def _differences(store: Store, x: ZarrArray) -> Iterator[str]:
    """Compare X with the product that it is."""
    step = max(1, _BLOCK // max(1, x.shape[1]))
    bitround = store.attributes["options"].get("dense_precision") == "bitround"
    relative = 2.0 ** -(BITS_KEPT + 1) if bitround else 1e-5
    for start in range(0, x.shape[0], step):
        found, want = x[start : start + step], store.expanded[start : start + step]
        if not np.allclose(found, want, rtol=relative, atol=2e-5, equal_nan=True):
            yield f"{x.store_path}: rows {start}-{start + len(want)} are not W times the deltas"


def _check_model(scores: Scores, model: Scbasset) -> None:
    recorded, own = scores.attributes["model"]["weights_sha256"], weights_sha256(model)
    if recorded != own:
        raise StoreError(
            f"{scores.path} was written with other weights (sha256 {recorded[:12]}...) than "
            f"{model.provenance.get('source')} has ({own[:12]}...): give its --model"
        )


def _check_genome(scores: Scores, genome: Genome) -> None:
    for contig, md5 in genome.md5s.items():
        recorded = scores.attributes["genome"]["contig_md5"].get(contig)
        if recorded != md5:
            raise StoreError(
                f"{scores.path} was written with another {contig} (MD5 {recorded}) than "
                f"{genome.path} has ({md5}): give its --genome"
            )
