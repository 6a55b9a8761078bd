"""From regions or sequences to a store of accessibility logits."""

import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scbasset_ism.bases import Codes, N, encode
from scbasset_ism.device import Scorer, pick_device
from scbasset_ism.encoder import Encoder
from scbasset_ism.errors import SequenceError
from scbasset_ism.genome import Genome, read_fasta
from scbasset_ism.model import Scbasset
from scbasset_ism.pipeline import RunOptions, prefetch
from scbasset_ism.places import Location
from scbasset_ism.provenance import (
    cells_of,
    contigs_of,
    describe_model,
    fingerprint_file,
    fingerprint_genome,
    fingerprint_model,
)
from scbasset_ism.reader import Predictions, open_predictions
from scbasset_ism.regions import Region, read_bed
from scbasset_ism.runs import Job, Rows, run
from scbasset_ism.store import Plan, Schema
from scbasset_ism.streams import batched_by_shard, pick
from scbasset_ism.variants import Status
from scbasset_ism.views import all_views
from scbasset_ism.windows import Frame, read_window

log = logging.getLogger(__name__)

_STATUSES = pd.CategoricalDtype([status.name for status in Status])


@dataclass(frozen=True)
class Window:
    """One row: what the model reads, or why there is nothing to read.

    Attributes:
        region: Where it lies; a bare sequence has no contig and starts at 0.
        start: First base of the window.
        codes: (span,) uint8; None where there are none.
        status: SCORED, CONTIG_MISSING or OFF_CONTIG.
    """

    region: Region
    start: int
    codes: Codes | None
    status: Status


@dataclass(frozen=True)
class Origin:
    """Where windows come from.

    Attributes:
        attributes: What the store says of it; JSON.
        fingerprint: What the numbers depend on; JSON.
        genome: None where the bases come from no genome.
    """

    attributes: dict[str, Any]
    fingerprint: dict[str, str]
    genome: Genome | None = None


def predict_regions(
    bed: str | Path, genome: Genome, model: Scbasset, out: Location, *, options: RunOptions
) -> Predictions:
    """Write the accessibility of every region of a BED file in every cell.

    The window of a region has the region's middle at its own (`Region.window_start`).

    Raises:
        RegionError: The file can't be read, or none of its contigs is in the genome.
        StoreError: The store can't be written, is finished, or was begun by another run.
    """
    run(partial(_region_job, bed, genome, model), out, options)
    return open_predictions(out)


def predict_sequences(
    sequences: str | Path, model: Scbasset, out: Location, *, options: RunOptions
) -> Predictions:
    """Write the accessibility of sequences in every cell.

    Args:
        sequences: A Path of a FASTA file whose records fill the window, or one sequence as text.
        model: It is left as it was.
        out: Where the store will lie: a path, or an fsspec URL.
        options: Without shifts: a sequence has no bases beside it.

    Raises:
        SequenceError: A sequence has another length than the window, or shifts were asked for.
        StoreError: The store can't be written, is finished, or was begun by another run.
    """
    run(partial(_sequence_job, sequences, model), out, options)
    return open_predictions(out)


def _region_job(bed: str | Path, genome: Genome, model: Scbasset, options: RunOptions) -> Job:
    """Say how the regions of a BED file are predicted."""
    frame = Frame(model.config.window, margin=options.shifts)
    n_rows, contigs = 0, dict[str, None]()
    for region in read_bed(bed):
        n_rows += 1
        contigs[region.chrom] = None
    if aliases := genome.check_contigs(contigs, str(bed)):
        log.info(aliases)

    def windows(ranges: Sequence[range]) -> Iterator[Window]:
        return (_region_window(r, genome, frame) for r in pick(read_bed(bed), ranges))

    origin = Origin(
        {"regions": str(bed), "genome": {"path": str(genome.path)}},
        {"regions": fingerprint_file(bed)} | fingerprint_genome(genome),
        genome,
    )
    return _job(windows, n_rows, model, options=options, origin=origin)


def _sequence_job(sequences: str | Path, model: Scbasset, options: RunOptions) -> Job:
    """Say how sequences are predicted."""
    if options.shifts:
        raise SequenceError("a sequence has no bases beside it to shift to: leave out --shifts")
    n_rows = 0
    for name, text in _named(sequences):
        model.check_length(text, name)
        n_rows += 1

    def windows(ranges: Sequence[range]) -> Iterator[Window]:
        return (
            Window(Region("", 0, len(text), name, 0), 0, encode(text), Status.SCORED)
            for name, text in pick(_named(sequences), ranges)
        )

    is_file = isinstance(sequences, Path)
    origin = Origin(
        {"sequences": str(sequences) if is_file else "text"},
        {"sequences": fingerprint_file(sequences) if is_file else str(sequences)},
    )
    return _job(windows, n_rows, model, options=options, origin=origin)


def _named(sequences: str | Path) -> Iterator[tuple[str, str]]:
    if isinstance(sequences, Path):
        yield from read_fasta(sequences)
    else:
        yield "sequence", sequences


def _region_window(region: Region, genome: Genome, frame: Frame) -> Window:
    """Read a region's window, or say why it has none."""
    start = region.window_start(frame.window)
    chrom = genome.resolve(region.chrom)
    if chrom is None:
        return Window(region, start, None, Status.CONTIG_MISSING)
    if region.start >= genome.contigs[chrom]:
        return Window(region, start, None, Status.OFF_CONTIG)
    return Window(region, start, read_window(genome, chrom, start, frame), Status.SCORED)


def _job(
    windows: Callable[[Sequence[range]], Iterator[Window]],
    n_rows: int,
    model: Scbasset,
    *,
    options: RunOptions,
    origin: Origin,
) -> Job:
    """Say what is to be written, and how: windows go through the network."""
    views = all_views(model.config.window, rc=options.rc, shifts=options.shifts)
    scorer = Scorer(model, pick_device(options.device), views)
    plan = Plan(
        n_rows,
        model.config.n_cells,
        model.config.bottleneck,
        options.layout,
        options.dense_precision,
    )
    encoder = Encoder(
        Schema("predict", _table([], options.shifts), ("bottleneck",), has_intercept=True),
        plan,
        cells=cells_of(model),
        uns=contigs_of(origin.genome) if origin.genome else {},
        attributes=describe_model(model) | origin.attributes | {"options": options.recorded()},
    )

    def rows(ranges: Sequence[range]) -> Generator[Rows]:
        batches = batched_by_shard(windows(ranges), ranges, options.batch_size)
        with closing(prefetch(batches)) as ready:
            for batch in ready:
                bottleneck = np.full((len(batch), plan.bottleneck), np.nan, dtype=np.float32)
                codes = {row: w.codes for row, w in enumerate(batch) if w.codes is not None}
                if codes:
                    bottleneck[list(codes)] = scorer.encode(np.stack(list(codes.values())))
                yield _table(batch, options.shifts), {"bottleneck": bottleneck}

    def facts(_: int) -> dict[str, Any]:
        md5s = {"contig_md5": origin.genome.md5s} if origin.genome else {}
        return md5s | {"device": str(scorer.device)}

    fingerprint = fingerprint_model(model) | origin.fingerprint | options.recorded()
    return Job(encoder, fingerprint, rows, facts)


def _table(windows: list[Window], margin: int) -> pd.DataFrame:
    """Describe the rows of a batch."""
    regions = [window.region for window in windows]
    columns = {
        "chrom": np.array([region.chrom for region in regions], dtype=object),
        "start": np.array([region.start for region in regions], dtype=np.int64),
        "stop": np.array([region.stop for region in regions], dtype=np.int64),
        "window_start": np.array([window.start for window in windows], dtype=np.int64),
        "n_fraction": np.array(
            [_n_fraction(window.codes, margin) for window in windows], np.float32
        ),
        "status": pd.Categorical([window.status.name for window in windows], dtype=_STATUSES),
    }
    names = np.array([region.name for region in regions], dtype=object)
    return pd.DataFrame(columns, index=pd.Index(names, name="region_name"))


def _n_fraction(codes: Codes | None, margin: int) -> float:
    return np.nan if codes is None else float(np.mean(codes[margin : len(codes) - margin] == N))
