"""Stretches of DNA in the middle of windows: what `ism` mutates and `attribute` attributes.

Around a variant the stretch is `span` bases with the variant's first base at `span // 2`. A region
is cut into the fewest stretches of at most `span` bases, equal but for one base, so that each of
its bases is in one of them, and at most `span / 2` from the middle of a window.
"""

import hashlib
import logging
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import numpy as np
import pandas as pd

from scbasset_ism import vcf
from scbasset_ism.bases import Codes, N, decode
from scbasset_ism.encoder import Encoder
from scbasset_ism.errors import ScbassetError
from scbasset_ism.frames import Floats
from scbasset_ism.genome import Genome
from scbasset_ism.model import Scbasset
from scbasset_ism.pipeline import RunOptions, prefetch
from scbasset_ism.provenance import (
    cells_of,
    contigs_of,
    describe_model,
    fingerprint_file,
    fingerprint_genome,
    fingerprint_model,
)
from scbasset_ism.regions import Region, read_bed
from scbasset_ism.store import Layout, Plan, Schema
from scbasset_ism.streams import batched_by_shard, pick
from scbasset_ism.variants import Status, Variant
from scbasset_ism.views import View, all_views
from scbasset_ism.windows import Frame, alternate_windows, read_window

log = logging.getLogger(__name__)

Allele = Literal["ref", "alt"]
Source = vcf.Source | Sequence[Region]
BED = (".bed", ".narrowPeak")

_STATUSES = pd.CategoricalDtype([status.name for status in Status])
_ALLELES = pd.CategoricalDtype(["ref", "alt"])


@dataclass(frozen=True)
class StretchOptions(RunOptions):
    """What part of which windows.

    Attributes:
        span: Bases around a variant, the whole window by default; of regions, at most so many in
            one window, a quarter of it by default.
        allele: Haplotype around a variant; `both`, the default, makes two rows of it.
    """

    layout: Layout = "factored"
    span: int | None = None
    allele: Literal["ref", "alt", "both"] | None = None


T = TypeVar("T", bound=StretchOptions)


@dataclass(frozen=True)
class Stretch:
    """What a row is about.

    Attributes:
        name: Of the row.
        source: The variant, or the region's name.
        place: The stretch, on the contig as written.
        variant: Normalised; put into the window first where the haplotype is `alt`.
        allele: Haplotype.
        status: Why there are no numbers; SCORED where there are.
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
        stretch: What is in its middle.
        start: First base of the window.
        codes: Window with margins, (span,) uint8; None without a score.
    """

    stretch: Stretch
    start: int
    codes: Codes | None

    @property
    def within(self) -> slice:
        """Where the stretch lies in the codes; the margins are as long on either side."""
        length = self.stretch.place.stop - self.stretch.place.start
        n_codes = 0 if self.codes is None else len(self.codes)
        first = n_codes // 2 - length // 2
        return slice(first, first + length)

    def marked(self, status: Status) -> "Window":
        """Give the same window with another status."""
        return replace(self, stretch=replace(self.stretch, status=status))


@dataclass(frozen=True)
class Origin:
    """Where stretches come from.

    Attributes:
        unit: `variants` or `regions`.
        stretches: Lists all of them.
        n_rows: How many there are.
        longest: Bases of the longest.
        sha256: Of the input.
        known: What the store says of it; JSON.
    """

    unit: str
    stretches: Callable[[], Iterator[Stretch]]
    n_rows: int
    longest: int
    sha256: str
    known: Any


@dataclass(frozen=True)
class Setting(Generic[T]):
    """What a run over stretches is given.

    Attributes:
        origin: Where the stretches come from.
        genome: Where the bases come from.
        model: Whose window it is.
        options: With all defaults filled in.
    """

    origin: Origin
    genome: Genome
    model: Scbasset
    options: T

    @property
    def frame(self) -> Frame:
        """The windows, with margins for the views."""
        return Frame(self.model.config.window, margin=self.options.shifts)

    @property
    def views(self) -> list[View]:
        """What is averaged over."""
        return all_views(self.frame.window, rc=self.options.rc, shifts=self.options.shifts)

    @property
    def fingerprint(self) -> dict[str, Any]:
        """All that the numbers depend on; JSON."""
        own = {self.origin.unit: self.origin.sha256} | self.options.recorded()
        return fingerprint_model(self.model) | fingerprint_genome(self.genome) | own

    def encoder(self, kind: str, factors: tuple[str, ...], obs: pd.DataFrame) -> Encoder:
        """Make what makes the files; the first factor is for every base at every position.

        Args:
            kind: The command.
            factors: Names of the bottleneck arrays.
            obs: An empty frame with the columns of a row.
        """
        config, options = self.model.config, self.options
        return Encoder(
            Schema(
                kind,
                obs,
                factors,
                has_intercept=False,
                rows="windows",
                inner=("position", "base"),
            ),
            Plan(
                self.origin.n_rows,
                config.n_cells,
                config.bottleneck,
                options.layout,
                options.dense_precision,
                inner=(self.origin.longest, 4),
            ),
            cells=cells_of(self.model),
            uns=contigs_of(self.genome) | {("base", "bases"): np.array(list("ACGT"), object)},
            attributes=describe_model(self.model)
            | {self.origin.unit: self.origin.known}
            | {"genome": {"path": str(self.genome.path)}, "options": options.recorded()},
        )

    def batches(self, ranges: Sequence[range]) -> Generator[tuple[list[int], list[Window]]]:
        """Give the windows of some rows, with their numbers, in batches of one shard each."""
        numbers, frame = chain.from_iterable(ranges), self.frame
        chosen = pick(self.origin.stretches(), ranges)
        windows = (place_stretch(stretch, self.genome, frame) for stretch in chosen)
        batches = batched_by_shard(windows, ranges, self.options.batch_size)
        with closing(prefetch(batches)) as ready:
            for batch in ready:
                yield list(islice(numbers, len(batch))), batch


def set_up(source: Source, genome: Genome, model: Scbasset, options: T) -> Setting[T]:
    """Count what there is to do.

    Args:
        source: A BED file or regions; else variants.
        genome: Where the bases come from.
        model: Whose window it is.
        options: Defaults that depend on the source are filled in.

    Raises:
        VariantError: The variants can't be read.
        RegionError: The regions can't be read.
        ScbassetError: The options don't fit the source or the model.
    """
    is_regions = is_bed(source) or _are_regions(source)
    if is_regions and options.allele not in {None, "ref"}:
        raise ScbassetError(f"regions have no alternate allele: leave out allele {options.allele}")
    options = replace(
        options,
        span=_span(options, model.config.window, whole=not is_regions),
        allele="ref" if is_regions else options.allele or "both",
    )
    find = _origin_of_regions if is_regions else _origin_of_variants
    return Setting(find(source, genome, options), genome, model, options)


def spooled(source: Any) -> AbstractContextManager[Any]:
    """Make variants on standard input readable twice; regions pass as they are."""
    return vcf.spooled(source)


def is_bed(source: object) -> bool:
    """Whether a path is that of regions, by its name."""
    return isinstance(source, str | Path) and str(source).removesuffix(".gz").endswith(BED)


def _are_regions(source: Any) -> bool:
    is_list = not isinstance(source, str | Path) and len(source) > 0
    return is_list and all(isinstance(one, Region) for one in source)


def _span(options: StretchOptions, window: int, *, whole: bool) -> int:
    """Bases of a stretch, at most."""
    most = window - 2 * options.shifts
    span = options.span or (most if whole else min(most, window // 4))
    if not 0 < span <= most:
        raise ScbassetError(
            f"span {span:,}: from 1 to {most:,} bases of a window of {window:,} can be taken"
            + (f" with shifts of {options.shifts}" if options.shifts else "")
        )
    return span


def _origin_of_regions(source: Any, genome: Genome, options: StretchOptions) -> Origin:
    is_file, span = isinstance(source, str | Path), options.span or 1

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
    return Origin("regions", stretches, n_rows, max(longest, 1), sha256, name)


def _origin_of_variants(source: Any, genome: Genome, options: StretchOptions) -> Origin:
    scan, span = vcf.scan(source), options.span or 1
    if aliases := genome.check_contigs(scan.contigs, scan.name):
        log.info(aliases)
    alleles: tuple[Allele, ...] = ("ref", "alt")
    wanted = [allele for allele in alleles if options.allele in {allele, "both"}]

    def stretches() -> Iterator[Stretch]:
        for record in vcf.read(source, genome):
            for allele in wanted:
                yield around(record, span, allele)

    known = {"path": scan.name, "sha256": scan.sha256, "rows": scan.n_rows}
    return Origin("variants", stretches, scan.n_rows * len(wanted), span, scan.sha256, known)


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


def without_failures(windows: Sequence[Window], factors: Mapping[str, Floats]) -> list[Window]:
    """Take back, in place, the numbers of windows where they are not finite, and mark these.

    Args:
        windows: Rows of a batch.
        factors: Their numbers; the first for every position, NaN past the end of a stretch.
    """
    marked = list(windows)
    wide, *others = factors.values()
    for row, window in enumerate(windows):
        place = window.stretch.place
        own = [wide[row, : place.stop - place.start], *(factor[row] for factor in others)]
        if window.codes is not None and not all(np.isfinite(values).all() for values in own):
            for factor in factors.values():
                factor[row] = np.nan
            marked[row] = window.marked(Status.FAILED)
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
        sequences.append(decode(window.codes[window.within]))
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
