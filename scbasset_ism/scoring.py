"""From a file of variants to a store of their effects: read, score on the device, write.

A reader thread, the device and a writer thread work at the same time, on a few batches each, so
memory does not grow with the file.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scbasset_ism import vcf
from scbasset_ism.agreement import SelfCheck
from scbasset_ism.calibration import Background
from scbasset_ism.delta import Precision, resolve_precision
from scbasset_ism.device import Scorer, pick_device
from scbasset_ism.encoder import Encoder
from scbasset_ism.errors import ReferenceMismatchError
from scbasset_ism.frames import Floats
from scbasset_ism.genome import Genome
from scbasset_ism.model import Scbasset
from scbasset_ism.pipeline import RunOptions, prefetch
from scbasset_ism.places import Location
from scbasset_ism.progress import Part
from scbasset_ism.provenance import (
    cells_of,
    contigs_of,
    describe_model,
    fingerprint_file,
    fingerprint_genome,
    fingerprint_model,
)
from scbasset_ism.reader import Scores, open_scores
from scbasset_ism.regions import Peaks, read_bed
from scbasset_ism.runs import MISMATCHES_ALLOWED, Job, Rows, run, run_part
from scbasset_ism.store import Cells, Plan, Schema
from scbasset_ism.streams import batched_by_shard
from scbasset_ism.variants import Status
from scbasset_ism.views import all_views
from scbasset_ism.windows import Batch, Frame, gather

log = logging.getLogger(__name__)

SELF_CHECKS = 64  # rows
MISMATCHES_EARLY = (1000, 0.5)  # this share of the rows so far, once there are so many


@dataclass(frozen=True)
class ScoreOptions(RunOptions):
    """How to score.

    Attributes:
        peaks: BED file; variants in a peak are scored in the peak's window, which they share.
        region: `chrom:start-stop`; other variants are not read.
        ref_mismatch: What becomes of a REF that is not in the genome.
        precision: Of the engine's products; `auto` is float32 here (see `resolve_precision`).
        background: A store of variants that mostly do nothing, scored alike; rows then say how
            large their effect is among those.
    """

    peaks: str | None = None
    region: str | None = None
    ref_mismatch: vcf.OnMismatch = "skip"
    precision: Literal["auto"] | Precision = "auto"
    background: str | None = None


def score_variants(
    variants: vcf.Source,
    genome: Genome,
    model: Scbasset,
    out: Location,
    *,
    options: ScoreOptions | None = None,
) -> Scores:
    """Write what every variant does in every cell, or what is missing of an unfinished store.

    Args:
        variants: Path of a VCF, BCF, TSV or Parquet file, or variants.
        genome: The assembly that they were called on.
        model: It is left as it was, in mode and on its device.
        out: Where the store will lie: a path, or an fsspec URL.
        options: How to score.

    Returns:
        The finished store, one row per ALT in the order of the file.

    Raises:
        VariantError: The variants can't be read.
        ReferenceMismatchError: Over a tenth of the rows have a REF that the genome has not.
        StoreError: The store can't be written, is finished, or was begun by another run.
        CalibrationError: The background is of another model, averaged otherwise, or too small.
    """
    options = options or ScoreOptions()
    with vcf.spooled(variants) as source:
        run(partial(_job, source, genome, model), out, options)
    return open_scores(out)


def score_part(
    variants: vcf.Source,
    genome: Genome,
    model: Scbasset,
    out: Location,
    *,
    part: Part,
    options: ScoreOptions | None = None,
) -> None:
    """Write a part of a store, or what is missing of it; `finalize` follows when all are written.

    Parts may be written at once, by processes or machines that share a file system. The first of
    them begins the store.

    Args:
        variants: As for `score_variants`; the same for all parts, like all that follows.
        genome: The assembly that they were called on.
        model: It is left as it was, in mode and on its device.
        out: Where the store lies or will lie.
        part: Which part.
        options: How to score.

    Raises:
        ScbassetError: As for `score_variants`; another worker has the part.
    """
    options = options or ScoreOptions()
    with vcf.spooled(variants) as source:
        run_part(partial(_job, source, genome, model), out, part, options)


def _job(source: vcf.Source, genome: Genome, model: Scbasset, options: ScoreOptions) -> Job:
    """Say what is to be written, and how."""
    frame = Frame(model.config.window, margin=options.shifts)
    views = all_views(frame.window, rc=options.rc, shifts=options.shifts)
    device = pick_device(options.device)
    precision = resolve_precision(options.precision, device, "score")
    options = replace(options, precision=precision)
    scorer, checks = Scorer(model, device, views, precision), defaultdict[int, SelfCheck](SelfCheck)
    peaks = Peaks(read_bed(options.peaks), genome.resolve) if options.peaks else None
    background = Background(options.background) if options.background else None
    if background:
        background.require(fingerprint_model(model) | options.recorded(), "these variants will be")
    scan = vcf.scan(source, region=options.region)
    if aliases := genome.check_contigs(scan.contigs, scan.name):
        log.info(aliases)
    table = Table(scan, genome, cells_of(model), has_peaks=peaks is not None, background=background)
    plan = Plan(
        scan.n_rows,
        model.config.n_cells,
        model.config.bottleneck,
        options.layout,
        options.dense_precision,
    )
    encoder = Encoder(
        table.schema,
        plan,
        cells=table.cells,
        uns=contigs_of(genome),
        attributes=describe_model(model)
        | {
            "variants": {"path": scan.name, "sha256": scan.sha256, "rows": scan.n_rows},
            "genome": {"path": str(genome.path)},
            "options": options.recorded(),
        }
        | ({"background": background.description()} if background else {}),
    )

    def rows(ranges: Sequence[range]) -> Generator[Rows]:
        counts, numbers, sample = Counter[Status](), chain.from_iterable(ranges), sampled_rows(scan)
        records = vcf.read(
            source, genome, ref_mismatch=options.ref_mismatch, region=options.region, rows=ranges
        )
        batches = (
            gather(some, genome, frame, peaks)
            for some in batched_by_shard(records, ranges, options.batch_size)
        )
        with closing(prefetch(batches)) as ready:
            for batch in ready:
                own = list(islice(numbers, len(batch.records)))
                ref, delta = scorer(batch, np.flatnonzero(np.isin(own, sample)))
                checks[own[0] // plan.shard_rows] += scorer.checked
                mark_failed(batch, ref, delta)
                counts.update(record.status for record in batch.records)
                stop_early(counts, scan, genome)
                factors = {"delta_bottleneck": delta, "ref_bottleneck": ref}
                yield table(batch, delta), factors

    def facts(shard: int) -> dict[str, Any]:
        checked = checks.pop(shard).sums()
        return {"contig_md5": genome.md5s, "device": str(device), "self_check": checked}

    return Job(
        encoder,
        fingerprint_model(model)
        | {"variants": scan.sha256}
        | fingerprint_genome(genome)
        | options.recorded()
        | {
            "peaks": fingerprint_file(options.peaks) if options.peaks else None,
            "background": background.description()["sha256"] if background else None,
        },
        rows,
        facts,
    )


class Table:
    """Turns scored batches into rows of the store.

    Args:
        scan: What the file holds.
        genome: Whose contigs the rows count.
        cells: The head of the model.
        has_peaks: Rows say which peak they belong to.
        background: Rows say how large their effect is among its own.
    """

    def __init__(
        self,
        scan: vcf.Scan,
        genome: Genome,
        cells: Cells,
        *,
        has_peaks: bool,
        background: Background | None = None,
    ) -> None:
        self.cells, self.has_peaks, self._background = cells, has_peaks, background
        self._contig_number = {name: number for number, name in enumerate(genome.contigs)}
        self._mean_weight = cells.weight.mean(axis=0)
        self._covariance = np.cov(cells.weight, rowvar=False, bias=True).astype(np.float32)
        self._chroms = pd.CategoricalDtype(list(scan.contigs))
        self._statuses = pd.CategoricalDtype([status.name for status in Status])
        width = cells.weight.shape[1]
        nothing = Batch([], np.empty(0, np.int64), np.empty(0, np.float32), [], None, [])
        self.schema = Schema(
            kind="score",
            obs=self(nothing, np.empty((0, width), np.float32)),
            factors=("delta_bottleneck", "ref_bottleneck"),
            has_intercept=False,
        )

    def __call__(self, batch: Batch, delta: Floats) -> pd.DataFrame:
        """Describe the rows of a batch; the mean and SD over cells need no cell."""
        records = batch.records
        names = [f"{r.chrom}:{r.pos}:{r.ref}:{r.alt}" for r in records]
        contigs = [
            -1 if r.variant is None else self._contig_number[r.variant.chrom] for r in records
        ]
        variance = np.einsum("rb,bc,rc->r", delta, self._covariance, delta)
        columns: dict[str, Any] = {
            "variant_contig": np.array(contigs, dtype=np.int32),
            "variant_position": np.array([r.pos for r in records], dtype=np.int64),
            "variant_id": np.array([r.id for r in records], dtype=object),
            "variant_ref": np.array([r.ref for r in records], dtype=object),
            "variant_alt": np.array([r.alt for r in records], dtype=object),
            "chrom": pd.Categorical([r.chrom for r in records], dtype=self._chroms),
            "variant_record": np.array([r.record for r in records], dtype=np.int64),
            "variant_alt_index": np.array([r.alt_index for r in records], dtype=np.int32),
            "status": pd.Categorical([r.status.name for r in records], dtype=self._statuses),
            "window_start": batch.window_start,
            "n_fraction": batch.n_fraction,
            "delta_logit_mean": delta @ self._mean_weight,
            "delta_logit_sd": np.sqrt(np.maximum(variance, 0)),
        }
        if self._background:
            columns |= self._background.overall(delta)
        if self.has_peaks:
            columns["peak"] = np.array(batch.peaks, dtype=object)
        index = pd.Index(np.array(names, dtype=object), name="variant_name")
        return pd.DataFrame(columns, index=index)


def sampled_rows(scan: vcf.Scan) -> NDArray[np.int64]:
    """Choose the rows that every run checks: the same for the same file, whoever scores them."""
    rng = np.random.default_rng(int(scan.sha256[:16], 16))
    return rng.choice(scan.n_rows, size=min(SELF_CHECKS, scan.n_rows), replace=False)


def mark_failed(batch: Batch, ref: Floats, delta: Floats) -> None:
    """Take back, in place, the rows whose numbers are not finite."""
    for row in np.flatnonzero(~np.isfinite(ref + delta).all(axis=1)):
        ref[row] = delta[row] = np.nan
        if batch.records[row].status is Status.SCORED:
            batch.records[row] = replace(batch.records[row], status=Status.FAILED)


def stop_early(counts: Counter[Status], scan: vcf.Scan, genome: Genome) -> None:
    """Stop a run whose genome is not the one that the variants were called on.

    Raises:
        ReferenceMismatchError: Over a tenth of all rows, or half of the first ones, mismatch.
    """
    wrong, seen = counts[Status.REF_MISMATCH], counts.total()
    first, share = MISMATCHES_EARLY
    if wrong > MISMATCHES_ALLOWED * scan.n_rows or (seen >= first and wrong > share * seen):
        raise ReferenceMismatchError(
            f"{scan.name}: REF differs from the genome in {wrong:,} of the first {seen:,} of "
            f"{scan.n_rows:,} rows; is {genome.path} the assembly they were called on?"
        )
