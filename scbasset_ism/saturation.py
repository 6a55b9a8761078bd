"""Saturation mutagenesis: what every substitution of a stretch of DNA changes in every cell.

A row is a window and the stretch in it that is mutated; see `stretches`.
"""

from collections import defaultdict
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from scbasset_ism.agreement import SelfCheck
from scbasset_ism.delta import Precision, resolve_precision
from scbasset_ism.device import Scorer, pick_device
from scbasset_ism.frames import Floats
from scbasset_ism.genome import Genome
from scbasset_ism.model import Scbasset
from scbasset_ism.places import Location
from scbasset_ism.progress import Part
from scbasset_ism.runs import Job, Rows, run, run_part
from scbasset_ism.saturations import Saturations, open_saturations
from scbasset_ism.store import Plan
from scbasset_ism.stretches import (
    Origin,
    Source,
    StretchOptions,
    Window,
    set_up,
    spooled,
    table,
    without_failures,
)

SELF_CHECKS = 32  # edits of a run


@dataclass(frozen=True)
class IsmOptions(StretchOptions):
    """How to mutate.

    Attributes:
        allele: Haplotype that is mutated around a variant; `both` makes two rows of it.
        precision: Of the engine's products; `auto` is bfloat16 where the device has it.
    """

    allele: Literal["ref", "alt", "both"] | None = "ref"
    precision: Literal["auto"] | Precision = "auto"


def saturate(
    source: Source,
    genome: Genome,
    model: Scbasset,
    out: Location,
    *,
    options: IsmOptions | None = None,
) -> Saturations:
    """Write what every substitution around variants, or of regions, changes in every cell.

    Args:
        source: A BED file (.bed, .narrowPeak, plain or .gz) or regions; else variants, as
            `score_variants` takes them.
        genome: Where the bases come from.
        model: It is left as it was, in mode and on its device.
        out: Where the store will lie: a path, or an fsspec URL.
        options: How.

    Returns:
        The finished store.

    Raises:
        VariantError: The variants can't be read.
        RegionError: The regions can't be read.
        ReferenceMismatchError: Over a tenth of the variants have a REF that the genome has not.
        StoreError: The store can't be written, is finished, or was begun by another run.
    """
    with spooled(source) as kept:
        run(partial(_job, kept, genome, model), out, options or IsmOptions())
    return open_saturations(out)


def saturate_part(
    source: Source,
    genome: Genome,
    model: Scbasset,
    out: Location,
    *,
    part: Part,
    options: IsmOptions | None = None,
) -> None:
    """Write a part of a store, or what is missing of it; `finalize` follows when all are written.

    Args:
        source: As for `saturate`; the same for all parts, like all that follows.
        genome: Where the bases come from.
        model: It is left as it was, in mode and on its device.
        out: Where the store lies or will lie.
        part: Which part.
        options: How.

    Raises:
        ScbassetError: As for `saturate`; another worker has the part.
    """
    with spooled(source) as kept:
        run_part(partial(_job, kept, genome, model), out, part, options or IsmOptions())


def _job(source: Source, genome: Genome, model: Scbasset, options: IsmOptions) -> Job:
    """Say what is to be written, and how."""
    device = pick_device(options.device)
    precision = resolve_precision(options.precision, device, "ism")
    given = set_up(source, genome, model, replace(options, precision=precision))
    scorer = Scorer(model, device, given.views, precision)
    encoder = given.encoder("ism", ("delta_bottleneck", "ref_bottleneck"), table([], given.frame))
    plan, n_checks = encoder.plan, checks_of(given.origin)
    checks = defaultdict[int, SelfCheck](SelfCheck)

    def rows(ranges: Sequence[range]) -> Generator[Rows]:
        for own, batch in given.batches(ranges):
            factors = _mutate(batch, scorer, plan, n_checks[own])
            checks[own[0] // plan.shard_rows] += scorer.checked
            yield table(without_failures(batch, factors), given.frame), factors

    def facts(shard: int) -> dict[str, Any]:
        checked = checks.pop(shard).sums()
        return {"contig_md5": genome.md5s, "device": str(device), "self_check": checked}

    return Job(encoder, given.fingerprint, rows, facts)


def checks_of(origin: Origin) -> NDArray[np.int64]:
    """Share out the edits that every run checks, (rows): the same whoever computes them."""
    checks = np.zeros(origin.n_rows, dtype=np.int64)
    rng = np.random.default_rng(int(origin.sha256[:16], 16))
    chosen = rng.permutation(origin.n_rows)[:SELF_CHECKS]
    checks[chosen] = -(-SELF_CHECKS // max(1, len(chosen)))
    return checks


def _mutate(
    batch: Sequence[Window], scorer: Scorer, plan: Plan, check: NDArray[np.int64]
) -> dict[str, Floats]:
    """Give the numbers of a batch; NaN in the rows without a window."""
    longest, bases = plan.inner
    delta = np.full((len(batch), longest, bases, plan.bottleneck), np.nan, dtype=np.float32)
    ref = np.full((len(batch), plan.bottleneck), np.nan, dtype=np.float32)
    rows = [row for row, window in enumerate(batch) if window.codes is not None]
    scorer.checked = SelfCheck()
    if rows:
        codes = np.stack([window.codes for window in batch if window.codes is not None])
        within = np.array([(batch[row].within.start, batch[row].within.stop) for row in rows])
        ref[rows], changed = scorer.saturate(codes, within, check[rows])
        delta[rows, : changed.shape[1]] = changed
    return {"delta_bottleneck": delta, "ref_bottleneck": ref}
