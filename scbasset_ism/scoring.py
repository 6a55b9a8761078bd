"""From a file of variants to a store of their effects: read, score on the device, write.

A reader thread, the device and a writer thread work at the same time, on a few batches each, so
memory does not grow with the file.
"""

import logging
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scbasset_ism import vcf
from scbasset_ism.delta import Precision, resolve_precision
from scbasset_ism.device import Scorer, pick_device
from scbasset_ism.errors import ReferenceMismatchError
from scbasset_ism.genome import Genome
from scbasset_ism.model import Scbasset
from scbasset_ism.pipeline import RunOptions, batched, in_background, prefetch, progress_bar
from scbasset_ism.provenance import cells_of, describe_genome, describe_model
from scbasset_ism.reader import Scores, open_scores
from scbasset_ism.regions import Peaks, read_bed
from scbasset_ism.store import Cells, Floats, Plan, Schema, Writer, check_output
from scbasset_ism.variants import Status
from scbasset_ism.views import all_views
from scbasset_ism.windows import Batch, Frame, gather

log = logging.getLogger(__name__)

MISMATCHES_ALLOWED = 0.1  # of all rows; more of them speak of another assembly
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
    """

    peaks: str | None = None
    region: str | None = None
    ref_mismatch: vcf.OnMismatch = "skip"
    precision: Literal["auto"] | Precision = "auto"


def score_variants(
    variants: vcf.Source,
    genome: Genome,
    model: Scbasset,
    out: str | Path,
    *,
    options: ScoreOptions | None = None,
) -> Scores:
    """Write what every variant does in every cell.

    Args:
        variants: Path of a VCF, BCF, TSV or Parquet file, or variants.
        genome: The assembly that they were called on.
        model: It is left as it was, in mode and on its device.
        out: Where the store will lie.
        options: How to score.

    Returns:
        The finished store, one row per ALT in the order of the file.

    Raises:
        VariantError: The variants can't be read.
        ReferenceMismatchError: Over a tenth of the rows have a REF that the genome has not.
        StoreError: The store can't be written.
    """
    options, out = options or ScoreOptions(), Path(out)
    frame = Frame(model.config.window, margin=options.shifts)
    views = all_views(frame.window, rc=options.rc, shifts=options.shifts)
    device = pick_device(options.device)
    precision = resolve_precision(options.precision, device, "score")
    scorer = Scorer(model, device, views, precision)
    peaks = Peaks(read_bed(options.peaks), genome.resolve) if options.peaks else None
    check_output(out, overwrite=options.overwrite)
    with vcf.spooled(variants) as source:
        scan = vcf.scan(source, region=options.region)
        if aliases := genome.check_contigs(scan.contigs, scan.name):
            log.info(aliases)
        records = vcf.read(source, genome, ref_mismatch=options.ref_mismatch, region=options.region)
        rows = Rows(scan, genome, cells_of(model), has_peaks=peaks is not None)
        plan = Plan(scan.n_rows, model.config.n_cells, model.config.bottleneck, options.layout)
        writer = Writer(out, rows.schema, plan, cells=rows.cells, attributes=describe_model(model))
        counts = Counter[Status]()
        batches = (
            gather(some, genome, frame, peaks) for some in batched(records, options.batch_size)
        )
        with (
            progress_bar(scan.n_rows, " variants", show=options.progress) as advance,
            in_background(lambda batch, ref, delta: rows.write(writer, batch, ref, delta)) as write,
        ):
            for batch in prefetch(batches):
                ref, delta = scorer(batch, checked_rows(counts.total(), len(batch.records), scan))
                mark_failed(batch, ref, delta)
                counts.update(record.status for record in batch.records)
                check_mismatches(counts, scan, genome)
                write(batch, ref, delta)
                advance(len(batch.records))
        log.info("self-check: %s", scorer.checked)
        writer.finish(
            {
                "variants": {"path": scan.name, "sha256": scan.sha256, "rows": scan.n_rows},
                "genome": describe_genome(writer, genome),
                "options": options.recorded()
                | {"device": str(scorer.device), "precision": precision},
                "self_check": scorer.checked.summary(),
                "counts": {status.name: counts[status] for status in Status},
            }
        )
    return open_scores(out)


class Rows:
    """Turns scored batches into rows of the store.

    Args:
        scan: What the file holds.
        genome: Whose contigs the rows count.
        cells: The head of the model.
        has_peaks: Rows say which peak they belong to.
    """

    def __init__(self, scan: vcf.Scan, genome: Genome, cells: Cells, *, has_peaks: bool) -> None:
        self.cells, self.has_peaks = cells, has_peaks
        self._contig_number = {name: number for number, name in enumerate(genome.contigs)}
        self._mean_weight = cells.weight.mean(axis=0)
        self._covariance = np.cov(cells.weight, rowvar=False, bias=True).astype(np.float32)
        self._chroms = pd.CategoricalDtype(list(scan.contigs))
        self._statuses = pd.CategoricalDtype([status.name for status in Status])
        width = cells.weight.shape[1]
        nothing = Batch([], np.empty(0, np.int64), np.empty(0, np.float32), [], None, [])
        self.schema = Schema(
            kind="score",
            obs=self.table(nothing, np.empty((0, width), np.float32)),
            factors=("delta_bottleneck", "ref_bottleneck"),
            has_intercept=False,
        )

    def write(self, writer: Writer, batch: Batch, ref: Floats, delta: Floats) -> None:
        """Append a scored batch."""
        factors = {"delta_bottleneck": delta, "ref_bottleneck": ref}
        writer.append(self.table(batch, delta), factors)

    def table(self, batch: Batch, delta: Floats) -> pd.DataFrame:
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
        if self.has_peaks:
            columns["peak"] = np.array(batch.peaks, dtype=object)
        index = pd.Index(np.array(names, dtype=object), name="variant_name")
        return pd.DataFrame(columns, index=index)


def checked_rows(first: int, n_rows: int, scan: vcf.Scan) -> NDArray[np.int64]:
    """Give those of some rows, counted from the first of them, that every run checks.

    The sample is the same for the same file, however its rows are cut into batches.
    """
    rng = np.random.default_rng(int(scan.sha256[:16], 16))
    rows = rng.choice(scan.n_rows, size=min(SELF_CHECKS, scan.n_rows), replace=False) - first
    return rows[(rows >= 0) & (rows < n_rows)]


def mark_failed(batch: Batch, ref: Floats, delta: Floats) -> None:
    """Take back, in place, the rows whose numbers are not finite."""
    for row in np.flatnonzero(~np.isfinite(ref + delta).all(axis=1)):
        ref[row] = delta[row] = np.nan
        if batch.records[row].status is Status.SCORED:
            batch.records[row] = replace(batch.records[row], status=Status.FAILED)


def check_mismatches(counts: Counter[Status], scan: vcf.Scan, genome: Genome) -> None:
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
