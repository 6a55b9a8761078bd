"""From regions or sequences to a store of accessibility logits."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scbasset_ism.bases import Codes, N, encode
from scbasset_ism.device import Scorer, pick_device
from scbasset_ism.errors import SequenceError
from scbasset_ism.genome import Genome, read_fasta
from scbasset_ism.model import Scbasset
from scbasset_ism.pipeline import RunOptions, batched, in_background, prefetch, progress_bar
from scbasset_ism.provenance import cells_of, describe_genome, describe_model
from scbasset_ism.reader import Predictions, open_predictions
from scbasset_ism.regions import Region, read_bed
from scbasset_ism.store import Plan, Schema, Writer, check_output
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


def predict_regions(
    bed: str | Path, genome: Genome, model: Scbasset, out: str | Path, *, options: RunOptions
) -> Predictions:
    """Write the accessibility of every region of a BED file in every cell.

    The window of a region has the region's middle at its own (`Region.window_start`).

    Raises:
        RegionError: The file can't be read, or none of its contigs is in the genome.
        StoreError: The store can't be written.
    """
    frame = Frame(model.config.window, margin=options.shifts)
    n_rows, contigs = 0, dict[str, None]()
    for region in read_bed(bed):
        n_rows += 1
        contigs[region.chrom] = None
    if aliases := genome.check_contigs(contigs, str(bed)):
        log.info(aliases)
    windows = (_region_window(region, genome, frame) for region in read_bed(bed))
    return _predict(
        windows,
        n_rows,
        model,
        Path(out),
        options=options,
        inputs=lambda writer: {"regions": str(bed), "genome": describe_genome(writer, genome)},
    )


def predict_sequences(
    sequences: str | Path, model: Scbasset, out: str | Path, *, options: RunOptions
) -> Predictions:
    """Write the accessibility of sequences in every cell.

    Args:
        sequences: A Path of a FASTA file whose records fill the window, or one sequence as text.
        model: It is left as it was.
        out: Where the store will lie.
        options: Without shifts: a sequence has no bases beside it.

    Raises:
        SequenceError: A sequence has another length than the window, or shifts were asked for.
        StoreError: The store can't be written.
    """
    if options.shifts:
        raise SequenceError("a sequence has no bases beside it to shift to: leave out --shifts")
    n_rows = 0
    for name, text in _named(sequences):
        model.check_length(text, name)
        n_rows += 1
    windows = (
        Window(Region("", 0, len(text), name, 0), 0, encode(text), Status.SCORED)
        for name, text in _named(sequences)
    )
    source = str(sequences) if isinstance(sequences, Path) else "text"
    return _predict(
        windows, n_rows, model, Path(out), options=options, inputs=lambda _: {"sequences": source}
    )


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


def _predict(
    windows: Iterable[Window],
    n_rows: int,
    model: Scbasset,
    out: Path,
    *,
    options: RunOptions,
    inputs: Callable[[Writer], dict[str, Any]],
) -> Predictions:
    """Send windows through the network and write what comes out."""
    views = all_views(model.config.window, rc=options.rc, shifts=options.shifts)
    scorer = Scorer(model, pick_device(options.device), views)
    check_output(out, overwrite=options.overwrite)
    plan = Plan(n_rows, model.config.n_cells, model.config.bottleneck, options.layout)
    schema = Schema("predict", _table([], options.shifts), ("bottleneck",), has_intercept=True)
    writer = Writer(out, schema, plan, cells=cells_of(model), attributes=describe_model(model))
    counts = Counter[Status]()
    with (
        progress_bar(n_rows, " windows", show=options.progress) as advance,
        in_background(writer.append) as write,
    ):
        for batch in prefetch(batched(windows, options.batch_size)):
            bottleneck = np.full((len(batch), plan.bottleneck), np.nan, dtype=np.float32)
            codes = {row: w.codes for row, w in enumerate(batch) if w.codes is not None}
            if codes:
                bottleneck[list(codes)] = scorer.encode(np.stack(list(codes.values())))
            write(_table(batch, options.shifts), {"bottleneck": bottleneck})
            counts.update(window.status for window in batch)
            advance(len(batch))
    writer.finish(
        {
            **inputs(writer),
            "options": options.recorded() | {"device": str(scorer.device)},
            "counts": {status.name: count for status, count in counts.items()},
        }
    )
    return open_predictions(out)


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
