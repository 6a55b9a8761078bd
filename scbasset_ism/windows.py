"""From variants to what the model reads: windows of codes, and what the alternate allele changes.

The first base of a variant sits in the middle of its window, whatever its type. A substitution
is a patch on the reference window. An indel moves one side of the window; which one is a
convention, so there are two alternate windows, one with the left and one with the right flank in
its place, both filled up with the genome's bases, and their bottlenecks are averaged.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scbasset_ism.bases import Codes, N, encode
from scbasset_ism.errors import ScbassetError
from scbasset_ism.genome import Genome
from scbasset_ism.regions import Peaks
from scbasset_ism.variants import MAX_ALLELE, Variant
from scbasset_ism.vcf import Record


@dataclass(frozen=True)
class Frame:
    """Which bases around a variant are read.

    Attributes:
        window: Bases that the model reads.
        margin: Bases on each side that shifted windows need in addition.
    """

    window: int
    margin: int = 0

    def __post_init__(self) -> None:
        least = 2 * (_patch_width(MAX_ALLELE) + self.margin)
        if self.window < least:
            raise ScbassetError(
                f"the model reads {self.window} bases; variants need windows of at least {least}"
            )

    @property
    def span(self) -> int:
        """Bases that are read for a window."""
        return self.window + 2 * self.margin

    def holds(self, variant: Variant, start: int) -> bool:
        """Whether every shift of the window at `start` holds the whole variant."""
        first, last = start + self.margin, start + self.window - self.margin
        return first <= variant.start and variant.stop <= last


@dataclass(frozen=True)
class Substitutions:
    """SNVs and MNVs of one patch width.

    Attributes:
        rows: Rows of the batch, (variants,) int64.
        codes: Reference windows, (windows, span) uint8.
        window: Which window a variant lies in, (variants,) int64.
        offset: First base of the patch in the span, (variants,) int64.
        bases: Codes of the patch, (variants, width) uint8.
    """

    rows: NDArray[np.int64]
    codes: Codes
    window: NDArray[np.int64]
    offset: NDArray[np.int64]
    bases: Codes


@dataclass(frozen=True)
class Indels:
    """Insertions, deletions, and replacements by an allele of another length.

    Attributes:
        rows: Rows of the batch, (variants,) int64.
        codes: Reference windows, (variants, span) uint8.
        alternates: With the left, and with the right flank in place, (variants, 2, span) uint8.
    """

    rows: NDArray[np.int64]
    codes: Codes
    alternates: Codes


@dataclass(frozen=True)
class Batch:
    """Records that are scored together.

    Attributes:
        records: One a row.
        window_start: First base of the window, (rows,) int64; -1 where there is none.
        n_fraction: Share of the window that is not A, C, G or T, (rows,) float32.
        substitutions: By patch width.
        indels: None where there are none.
        peaks: Name of the peak whose window a row has, empty where it has its own.
    """

    records: list[Record]
    window_start: NDArray[np.int64]
    n_fraction: NDArray[np.float32]
    substitutions: list[Substitutions]
    indels: Indels | None
    peaks: list[str]


def gather(
    records: Sequence[Record], genome: Genome, frame: Frame, peaks: Peaks | None = None
) -> Batch:
    """Read the windows of a batch and sort its variants by what they need.

    Args:
        records: In the order of the file; those without a variant get no window.
        genome: Where the bases come from.
        frame: Length and margins of the windows.
        peaks: Where given, a variant in a peak gets the peak's window instead of its own.
    """
    window_start = np.full(len(records), -1, dtype=np.int64)
    n_fraction = np.full(len(records), np.nan, dtype=np.float32)
    names = [""] * len(records)
    by_width = defaultdict[int, list[_Placed]](list)
    for row, record in enumerate(records):
        variant = record.variant
        if variant is None:
            continue
        start, names[row] = _window_of(variant, frame, peaks)
        codes = read_window(genome, variant.chrom, start, frame)
        window_start[row] = start
        central = codes[frame.margin : frame.margin + frame.window]
        n_fraction[row] = np.count_nonzero(central == N) / frame.window
        width = _patch_width(len(variant.alt)) if variant.is_substitution else 0
        by_width[width].append(_Placed(row, variant, start, codes))
    indels = by_width.pop(0, [])
    return Batch(
        list(records),
        window_start,
        n_fraction,
        [_substitutions(placed, width, frame) for width, placed in by_width.items()],
        _indels(indels, genome, frame) if indels else None,
        names,
    )


def read_window(genome: Genome, chrom: str, start: int, frame: Frame) -> Codes:
    """Read the codes of a window with its margins, (span,) uint8."""
    return genome.codes(chrom, start - frame.margin, start + frame.window + frame.margin)


def alternate_windows(variant: Variant, genome: Genome, start: int, frame: Frame) -> Codes:
    """Fill the window of an indel from either side.

    Args:
        variant: Normalised.
        genome: Where the bases come from.
        start: First base of the window.
        frame: Its length and margins.

    Returns:
        The alternate window with the left flank in its place and the right one moved, and the
        other way round, (2, span) uint8.
    """
    begin, end = start - frame.margin, start + frame.window + frame.margin
    chrom, allele = variant.chrom, encode(variant.alt)
    left = genome.codes(chrom, begin, variant.start)
    right = genome.codes(chrom, variant.stop, end)
    all_left = genome.codes(chrom, variant.start - frame.span, variant.start)
    all_right = genome.codes(chrom, variant.stop, variant.stop + frame.span)
    return np.stack(
        [
            np.concatenate([left, allele, all_right])[: frame.span],
            np.concatenate([all_left, allele, right])[-frame.span :],
        ]
    )


@dataclass(frozen=True, slots=True)
class _Placed:
    """A variant and its window, codes (span,) uint8."""

    row: int
    variant: Variant
    start: int
    codes: Codes


def _window_of(variant: Variant, frame: Frame, peaks: Peaks | None) -> tuple[int, str]:
    """First base of the variant's window, and the name of the peak that it belongs to."""
    peak = peaks.nearest(variant.chrom, variant.start, variant.stop) if peaks else None
    if peak is not None:
        start = peak.window_start(frame.window)
        if frame.holds(variant, start):
            return start, peak.name
    return variant.start - frame.window // 2, ""


def _patch_width(n_bases: int) -> int:
    """Round up to a power of two, so that few widths occur; reference bases fill the patch."""
    return 1 << (n_bases - 1).bit_length()


def _substitutions(placed: list[_Placed], width: int, frame: Frame) -> Substitutions:
    """Stack variants of one width; those that share a window share its codes."""
    windows: dict[tuple[str, int], int] = {}
    codes, number, offset, bases = [], [], [], []
    for one in placed:
        key = (one.variant.chrom, one.start)
        if key not in windows:
            windows[key] = len(windows)
            codes.append(one.codes)
        first = one.variant.start - one.start + frame.margin
        patch_start = min(first, frame.window - width)  # inside the window at every shift
        patch = one.codes[patch_start : patch_start + width].copy()
        patch[first - patch_start :][: len(one.variant.alt)] = encode(one.variant.alt)
        number.append(windows[key])
        offset.append(patch_start)
        bases.append(patch)
    rows = np.array([one.row for one in placed])
    return Substitutions(rows, np.stack(codes), np.array(number), np.array(offset), np.stack(bases))


def _indels(placed: list[_Placed], genome: Genome, frame: Frame) -> Indels:
    return Indels(
        np.array([one.row for one in placed]),
        np.stack([one.codes for one in placed]),
        np.stack([alternate_windows(one.variant, genome, one.start, frame) for one in placed]),
    )
