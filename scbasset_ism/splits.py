"""Which peaks a model learns from, which choose the best epoch, and which measure it at the end.

A window reaches past its peak, so neighbours share bases. Except in the authors' random split, a
peak whose window shares a base with a held-out window is left out of what it must not leak into.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from scbasset_ism.errors import AccessibilityError
from scbasset_ism.genome import Genome
from scbasset_ism.regions import Region, read_bed

Rows = NDArray[np.int64]
SplitKind = Literal["intervals", "random"]

BLOCKS = 20  # the genome is cut into so many, of which one validates and one tests: 90/5/5


@dataclass(frozen=True)
class Split:
    """Numbers of peaks, ascending.

    Attributes:
        train: To learn from.
        validation: To choose the best epoch by.
        test: To measure the finished model with; nothing else sees them.
    """

    train: Rows
    validation: Rows
    test: Rows

    def __post_init__(self) -> None:
        for name, rows in vars(self).items():
            if not len(rows):
                raise AccessibilityError(
                    f"no peak is left for {name}: there are too few, or the regions held out hold "
                    "all of them or none"
                )

    def names(self, n_peaks: int) -> list[str]:
        """Give the set of every peak, `unused` where it is in none."""
        names = np.full(n_peaks, "unused", dtype=object)
        for name, rows in vars(self).items():
            names[rows] = name
        return list(names)


def split_randomly(n_peaks: int, seed: int) -> Split:
    """Split at random 90/5/5, as the authors do; windows of different sets may overlap."""
    order = np.random.default_rng(seed).permutation(n_peaks)
    held = n_peaks // BLOCKS
    parts = (order[2 * held :], order[:held], order[held : 2 * held])
    return Split(*(np.sort(part) for part in parts))


def split_by_place(
    peaks: Sequence[Region],
    reach: int,
    seed: int,
    *,
    test: Sequence[Region] | None = None,
    validation: Sequence[Region] | None = None,
) -> Split:
    """Split by where peaks lie, so that no base of a held-out window is learned from.

    Args:
        peaks: In any order.
        reach: Bases between the middles of two windows that share none.
        seed: Of the choice of intervals.
        test: Regions whose peaks are held out: those whose middle lies inside. By default one of
            20 intervals of the genome with as many peaks each, chosen by the seed.
        validation: The same for the choice of the best epoch.
    """
    rng = np.random.default_rng(seed)
    place = _places(peaks)
    is_test = (
        _interval(place, np.ones(len(peaks), bool), rng) if test is None else _inside(peaks, test)
    )
    rest = ~is_test & ~_near(place, is_test, reach)
    if validation is None:
        is_validation = _interval(place, rest, rng)
    else:
        is_validation = rest & _inside(peaks, validation)
    is_train = rest & ~is_validation & ~_near(place, is_validation, reach)
    return Split(*(np.flatnonzero(rows) for rows in (is_train, is_validation, is_test)))


def read_regions(path: str | Path, genome: Genome) -> list[Region]:
    """Read a BED file of regions, whose contigs take the genome's own names.

    Raises:
        GenomeError: The genome has none of the contigs.
        RegionError: The file can't be read.
    """
    regions = list(read_bed(path))
    genome.check_contigs(dict.fromkeys(region.chrom for region in regions), str(path))
    named = [(genome.resolve(region.chrom), region) for region in regions]
    return [replace(region, chrom=chrom) for chrom, region in named if chrom]


def peaks_inside(peaks: Sequence[Region], regions: Sequence[Region]) -> Rows:
    """Give the peaks whose middle lies in one of some regions."""
    return np.flatnonzero(_inside(peaks, regions))


def _inside(peaks: Sequence[Region], regions: Sequence[Region]) -> NDArray[np.bool_]:
    middle = np.array([_middle(peak) for peak in peaks], dtype=np.int64)
    chrom = np.array([peak.chrom for peak in peaks], dtype=object)
    found = np.zeros(len(peaks), dtype=bool)
    for region in regions:
        found |= (chrom == region.chrom) & (region.start <= middle) & (middle < region.stop)
    return found


def _middle(region: Region) -> int:
    return region.window_start(0)


def _places(peaks: Sequence[Region]) -> Rows:
    """Put the middles of all peaks on one axis, where contigs lie far from each other."""
    contigs = {chrom: i for i, chrom in enumerate(dict.fromkeys(peak.chrom for peak in peaks))}
    return np.array([(contigs[p.chrom] << 33) + _middle(p) for p in peaks], dtype=np.int64)


def _interval(place: Rows, among: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Draw one of 20 intervals that hold as many of some peaks each."""
    rows = np.flatnonzero(among)
    blocks = np.array_split(rows[np.argsort(place[rows])], BLOCKS)
    chosen = np.zeros(len(place), dtype=bool)
    chosen[blocks[rng.integers(BLOCKS)]] = True
    return chosen


def _near(place: Rows, held: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    """Tell which peaks have a held-out one less than `reach` away."""
    ends = np.concatenate(([-reach], np.sort(place[held]), [np.iinfo(np.int64).max]))
    after = np.searchsorted(ends, place)
    return (place - ends[after - 1] < reach) | (ends[after] - place < reach)
