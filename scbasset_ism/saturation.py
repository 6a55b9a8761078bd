"""Saturation mutagenesis: what every substitution of a stretch of DNA changes in every cell.

A row is a window and the stretch in it that is mutated, which lies in the window's middle. Around
a variant the stretch is `span` bases with the variant's first base at `span // 2`. A region is cut
into the fewest stretches of at most `span` bases, equal but for one base, so that each of its bases
is mutated once, and at most `span / 2` from the middle of a window.
"""

import hashlib
import logging
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scbasset_ism import vcf
from scbasset_ism.agreement import SelfCheck
from scbasset_ism.bases import Codes, N, decode
from scbasset_ism.delta import Precision, resolve_precision
from scbasset_ism.device import Scorer, pick_device
from scbasset_ism.encoder import Encoder
from scbasset_ism.errors import ScbassetError
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
from scbasset_ism.regions import Region, read_bed
from scbasset_ism.runs import Job, Rows, run, run_part
from scbasset_ism.saturations import Saturations, open_saturations
from scbasset_ism.store import Layout, Plan, Schema
from scbasset_ism.streams import batched_by_shard, pick
from scbasset_ism.variants import Status, Variant
from scbasset_ism.views import all_views
from scbasset_ism.windows import Frame, alternate_windows, read_window

log = logging.getLogger(__name__)

Allele = Literal["ref", "alt"]
Source = vcf.Source | Sequence[Region]
SELF_CHECKS = 32  # edits of a run
BED = (".bed", ".narrowPeak")

_STATUSES = pd.CategoricalDtype([status.name for status in Status])
_ALLELES = pd.CategoricalDtype(["ref", "alt"])


@dataclass(frozen=True)
class IsmOptions(RunOptions):
    """How to mutate.

    Attributes:
        span: Bases that are mutated around a variant, the whole window by default; of regions, at
            most so many in one window, a quarter of it by default.
        allele: Haplotype that is mutated around a variant; `both` makes two rows of it.
        precision: Of the engine's products; `auto` is bfloat16 where the device has it.
    """

    layout: Layout = "factored"
    span: int | None = None
    allele: Literal["ref", "alt", "both"] = "ref"
    precision: Literal["auto"] | Precision = "auto"


@dataclass(frozen=True)
class Stretch:
    """What a row mutates.

    Attributes:
        name: Of the row.
        source: The variant, or the region's name.
        place: The stretch, on the contig as written.
        variant: Normalised; put into the window first where the haplotype is `alt`.
        allele: Haplotype.
        status: Why there is nothing to mutate; SCORED where there is.
    """

    name: str
    source: str
    place: Region
    variant: Variant | None = None
    allele: Allele = "ref"
    status: Status = Status.SCORED


@dataclass(frozen=True)
class Window:
    """A stretch in its window.

    Attributes:
        stretch: What is mutated.
        start: First base of the window.
        codes: Window with margins, (span,) uint8; None without a score.
    """

    stretch: Stretch
    start: int
    codes: Codes | None


@dataclass(frozen=True)
class Origin:
    """Where stretches come from.

    Attributes:
        stretches: Lists all of them.
        n_rows: How many there are.
        longest: Bases of the longest.
        sha256: Of the input.
        attributes: What the store says of it; JSON.
    """

    stretches: Callable[[], Iterator[Stretch]]
    n_rows: int
    longest: int
    sha256: str
    attributes: dict[str, Any]


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
    with _spooled(source) as kept:
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
    with _spooled(source) as kept:
        run_part(partial(_job, kept, genome, model), out, part, options or IsmOptions())


def is_bed(source: object) -> bool:
    """Whether a path is that of regions, by its name."""
    return isinstance(source, str | Path) and str(source).removesuffix(".gz").endswith(BED)


def place_stretch(stretch: Stretch, genome: Genome, frame: Frame) -> Window:
    """Read the window of a stretch, or say why it has none."""
    start = stretch.place.window_start(frame.window)
    if stretch.status is not Status.SCORED:
        return Window(stretch, -1, None)
    chrom = genome.resolve(stretch.place.chrom)
    if chrom is None:
        return Window(replace(stretch, status=Status.CONTIG_MISSING), -1, None)
    if stretch.place.start >= genome.contigs[chrom]:
        return Window(replace(stretch, status=Status.OFF_CONTIG), -1, None)
    if stretch.variant is None or stretch.allele == "ref":
        return Window(stretch, start, read_window(genome, chrom, start, frame))
    return Window(stretch, start, alternate_windows(stretch.variant, genome, start, frame)[0])


def tiles(region: Region, span: int) -> list[Region]:
    """Cut a region into stretches.

    >>> [(t.start, t.stop) for t in tiles(Region("1", 100, 111, "r", 0), 4)]
    [(100, 103), (103, 107), (107, 111)]
    """
    length = region.stop - region.start
    n = -(-length // span)
    edges = [region.start + length * i // n for i in range(n + 1)]
    names = [f"{region.name}/{i + 1}" for i in range(n)] if n > 1 else [region.name]
    return [
        replace(region, start=a, stop=b, name=name)
        for a, b, name in zip(edges, edges[1:], names, strict=False)
    ]


def around(record: vcf.Record, span: int, allele: Allele) -> Stretch:
    """Give the stretch around a variant, on one of its haplotypes."""
    text = f"{record.chrom}:{record.pos}:{record.ref}:{record.alt}"
    name = text if allele == "ref" else f"{text}/alt"
    middle = record.variant.start if record.variant else record.pos - 1
    start = middle - span // 2
    place = Region(record.chrom, start, start + span, name, middle)
    return Stretch(name, text, place, record.variant, allele, record.status)


def _spooled(source: Any) -> AbstractContextManager[Any]:
    """Make variants on standard input readable twice; regions pass as they are."""
    return vcf.spooled(source)


def _origin_of_regions(source: Any, genome: Genome, span: int) -> Origin:
    is_file = isinstance(source, str | Path)

    def stretches() -> Iterator[Stretch]:
        for region in read_bed(source) if is_file else source:
            for tile in tiles(region, span):
                yield Stretch(tile.name, region.name, tile)

    n_rows, longest, contigs = 0, 0, dict[str, None]()
    for stretch in stretches():
        n_rows, contigs[stretch.place.chrom] = n_rows + 1, None
        longest = max(longest, stretch.place.stop - stretch.place.start)
    name = str(source) if is_file else "the regions given"
    if aliases := genome.check_contigs(contigs, name):
        log.info(aliases)
    text = "" if is_file else "".join(f"{r.chrom}\t{r.start}\t{r.stop}\t{r.name}\n" for r in source)
    sha256 = fingerprint_file(source) if is_file else hashlib.sha256(text.encode()).hexdigest()
    return Origin(stretches, n_rows, max(longest, 1), sha256, {"regions": name})


def _origin_of_variants(source: Any, genome: Genome, options: IsmOptions, span: int) -> Origin:
    scan = vcf.scan(source)
    if aliases := genome.check_contigs(scan.contigs, scan.name):
        log.info(aliases)
    alleles: tuple[Allele, ...] = ("ref", "alt")
    wanted = [allele for allele in alleles if options.allele in {allele, "both"}]

    def stretches() -> Iterator[Stretch]:
        for record in vcf.read(source, genome):
            for allele in wanted:
                yield around(record, span, allele)

    known = {"path": scan.name, "sha256": scan.sha256, "rows": scan.n_rows}
    return Origin(stretches, scan.n_rows * len(wanted), span, scan.sha256, {"variants": known})


def _span(options: IsmOptions, window: int, *, whole: bool) -> int:
    """Bases that are mutated in one window."""
    most = window - 2 * options.shifts
    span = options.span or (most if whole else min(most, window // 4))
    if not 0 < span <= most:
        raise ScbassetError(
            f"span {span:,}: from 1 to {most:,} bases of a window of {window:,} can be mutated"
            + (f" with shifts of {options.shifts}" if options.shifts else "")
        )
    return span


def _job(source: Source, genome: Genome, model: Scbasset, options: IsmOptions) -> Job:
    """Say what is to be written, and how."""
    frame = Frame(model.config.window, margin=options.shifts)
    views = all_views(frame.window, rc=options.rc, shifts=options.shifts)
    device = pick_device(options.device)
    precision = resolve_precision(options.precision, device, "ism")
    is_regions = is_bed(source) or _are_regions(source)
    if is_regions and options.allele != "ref":
        raise ScbassetError(f"regions have no alternate allele: leave out allele {options.allele}")
    span = _span(options, frame.window, whole=not is_regions)
    options = replace(options, precision=precision, span=span)
    origin = (
        _origin_of_regions(source, genome, span)
        if is_regions
        else _origin_of_variants(source, genome, options, span)
    )
    scorer, checks = Scorer(model, device, views, precision), defaultdict[int, SelfCheck](SelfCheck)
    plan = Plan(
        origin.n_rows,
        model.config.n_cells,
        model.config.bottleneck,
        options.layout,
        options.dense_precision,
        inner=(origin.longest, 4),
    )
    encoder = Encoder(
        Schema(
            kind="ism",
            obs=table([], frame),
            factors=("delta_bottleneck", "ref_bottleneck"),
            has_intercept=False,
            rows="windows",
            inner=("position", "base"),
        ),
        plan,
        cells=cells_of(model),
        uns=contigs_of(genome) | {("base", "bases"): np.array(list("ACGT"), dtype=object)},
        attributes=describe_model(model)
        | origin.attributes
        | {"genome": {"path": str(genome.path)}, "options": options.recorded()},
    )
    n_checks = checks_of(origin)

    def rows(ranges: Sequence[range]) -> Generator[Rows]:
        numbers = chain.from_iterable(ranges)
        windows = (place_stretch(s, genome, frame) for s in pick(origin.stretches(), ranges))
        with closing(prefetch(batched_by_shard(windows, ranges, options.batch_size))) as ready:
            for batch in ready:
                own = list(islice(numbers, len(batch)))
                factors = _mutate(batch, scorer, plan, n_checks[own])
                checks[own[0] // plan.shard_rows] += scorer.checked
                yield table(_failed(batch, factors), frame), factors

    def facts(shard: int) -> dict[str, Any]:
        checked = checks.pop(shard).sums()
        return {"contig_md5": genome.md5s, "device": str(device), "self_check": checked}

    which = "regions" if is_regions else "variants"
    fingerprint = {which: origin.sha256} | fingerprint_genome(genome) | options.recorded()
    return Job(encoder, fingerprint_model(model) | fingerprint, rows, facts)


def _are_regions(source: Any) -> bool:
    is_list = not isinstance(source, str | Path) and len(source) > 0
    return is_list and all(isinstance(one, Region) for one in source)


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
        within = np.array([_within(batch[row], codes.shape[1]) for row in rows])
        ref[rows], changed = scorer.saturate(codes, within, check[rows])
        delta[rows, : changed.shape[1]] = changed
    return {"delta_bottleneck": delta, "ref_bottleneck": ref}


def _within(window: Window, n_codes: int) -> tuple[int, int]:
    """Where the stretch begins and ends in the codes; the margins are as long on either side."""
    place = window.stretch.place
    length = place.stop - place.start
    first = n_codes // 2 - length // 2
    return first, first + length


def _failed(batch: Sequence[Window], factors: dict[str, Floats]) -> list[Window]:
    """Take back, in place, the windows whose numbers are not finite, and say so."""
    marked = list(batch)
    delta, ref = factors["delta_bottleneck"], factors["ref_bottleneck"]
    for row, window in enumerate(batch):
        place = window.stretch.place
        own = delta[row, : place.stop - place.start]
        if window.codes is not None and not (
            np.isfinite(own).all() and np.isfinite(ref[row]).all()
        ):
            delta[row] = ref[row] = np.nan
            failed = replace(window.stretch, status=Status.FAILED)
            marked[row] = Window(failed, window.start, window.codes)
    return marked


def table(windows: Sequence[Window], frame: Frame) -> pd.DataFrame:
    """Describe the rows of a batch."""
    stretches = [window.stretch for window in windows]
    sequences, n_fraction = [], []
    for window in windows:
        if window.codes is None:
            sequences.append("")
            n_fraction.append(np.nan)
            continue
        sequences.append(decode(window.codes[slice(*_within(window, len(window.codes)))]))
        seen = window.codes[frame.margin : frame.margin + frame.window]
        n_fraction.append(float(np.mean(seen == N)))
    texts: dict[str, Any] = {
        "source": [s.source for s in stretches],
        "chrom": [s.place.chrom for s in stretches],
        "sequence": sequences,
    }
    columns = {name: np.array(values, dtype=object) for name, values in texts.items()} | {
        "start": np.array([s.place.start for s in stretches], dtype=np.int64),
        "stop": np.array([s.place.stop for s in stretches], dtype=np.int64),
        "allele": pd.Categorical([s.allele for s in stretches], dtype=_ALLELES),
        "status": pd.Categorical([s.status.name for s in stretches], dtype=_STATUSES),
        "window_start": np.array([window.start for window in windows], dtype=np.int64),
        "n_fraction": np.array(n_fraction, dtype=np.float32),
    }
    names = np.array([s.name for s in stretches], dtype=object)
    return pd.DataFrame(columns, index=pd.Index(names, name="window_name"))
