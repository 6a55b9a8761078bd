"""Splits: complete, of the right sizes, and without a base in common."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scbasset_ism.errors import AccessibilityError
from scbasset_ism.genome import Genome
from scbasset_ism.regions import Region
from scbasset_ism.splits import Split, peaks_inside, read_regions, split_by_place, split_randomly

REACH = 1347


def peak(chrom: str, start: int) -> Region:
    return Region(chrom, start, start + 500, f"{chrom}:{start}", start + 250)


def some_peaks(n: int = 400, step: int = 700) -> list[Region]:
    """Neighbours in random order, on two contigs."""
    peaks = [peak("1" if i % 3 else "2", i * step) for i in range(n)]
    return [peaks[i] for i in np.random.default_rng(0).permutation(n)]


def shares_bases(peaks: list[Region], some: np.ndarray, others: np.ndarray) -> bool:
    """The plain definition: two windows, one of them shifted, lie on common ground."""
    return any(
        peaks[i].chrom == peaks[j].chrom
        and abs(peaks[i].window_start(0) - peaks[j].window_start(0)) < REACH
        for i in some
        for j in others
    )


@pytest.mark.parametrize("seed", range(5))
def test_sets_by_place_share_no_base(seed: int) -> None:
    peaks = some_peaks()
    split = split_by_place(peaks, REACH, seed)
    sets = list(vars(split).values())
    assert len(np.unique(np.concatenate(sets))) == sum(map(len, sets))
    assert not any(shares_bases(peaks, a, b) for i, a in enumerate(sets) for b in sets[:i])
    assert len(split.test) == 20
    assert len(split.train) > 340
    for rows in (split.test, split.validation):  # an interval: no other peak lies between
        places = sorted((peaks[row].chrom, peaks[row].start) for row in rows)
        assert all(a[0] != b[0] or b[1] - a[1] <= 2100 for a, b in pairwise(places))


def test_a_random_split_does_share_bases() -> None:
    peaks = some_peaks()
    split = split_randomly(len(peaks), 0)
    assert [len(rows) for rows in vars(split).values()] == [360, 20, 20]
    assert shares_bases(peaks, split.train, split.test)


def test_the_seed_chooses() -> None:
    peaks = some_peaks()
    first, again, other = (split_by_place(peaks, REACH, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.test, again.test)
    assert list(first.test) != list(other.test)


def test_regions_choose_what_is_held_out() -> None:
    peaks = some_peaks()
    test, validation = Region("1", 49_900, 90_000, "t", 0), Region("2", 0, 50_000, "v", 0)
    split = split_by_place(peaks, REACH, 0, test=[test], validation=[validation])
    assert list(split.test) == [
        row
        for row, p in enumerate(peaks)
        if p.chrom == "1" and 49_900 <= (p.start + p.stop) // 2 < 90_000
    ]
    assert {peaks[row].chrom for row in split.validation} == {"2"}
    names = split.names(len(peaks))
    assert {"train", "test", "validation", "unused"} == set(names)
    assert not shares_bases(peaks, split.train, split.test)


@given(
    starts=st.lists(st.integers(0, 40_000), min_size=60, max_size=90),
    middle=st.integers(10_000, 30_000),
)
def test_no_place_of_peaks_lets_a_base_leak(starts: list[int], middle: int) -> None:
    peaks = [peak("1", start) for start in starts]
    held = [Region("1", middle, middle + 5000, "t", 0)]
    try:
        split = split_by_place(peaks, REACH, 0, test=held)
    except AccessibilityError:
        return
    assert not shares_bases(peaks, split.train, np.concatenate([split.test, split.validation]))
    assert not shares_bases(peaks, split.validation, split.test)


def test_a_peak_just_far_enough_is_kept() -> None:
    far = [peak("1", 100_000 + REACH * i) for i in range(60)]
    held = [Region("1", 100_000, 100_600, "t", 0)]
    assert len(split_by_place(far, REACH, 0, test=held).train) > 50
    near = [peak("1", 100_000), peak("1", 100_000 + REACH - 1), *far[2:]]
    assert 1 not in split_by_place(near, REACH, 0, test=held).train


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(AccessibilityError, match="no peak is left for test"):
        split_by_place(some_peaks(), REACH, 0, test=[Region("3", 0, 100, "t", 0)])
    with pytest.raises(AccessibilityError, match="no peak is left for validation"):
        split_randomly(19, 0)
    with pytest.raises(AccessibilityError, match="no peak is left for train"):
        Split(np.array([], int), np.array([1]), np.array([2]))


def test_regions_take_the_genomes_names(tmp_path: Path, tiny_genome: Genome) -> None:
    bed = tmp_path / "held.bed"
    bed.write_text("chr1\t0\t2000\nchr7\t0\t2000\n")
    regions = read_regions(bed, tiny_genome)
    assert [region.chrom for region in regions] == ["1"]
    assert list(peaks_inside([peak("2", 0), peak("1", 0), peak("1", 1800)], regions)) == [1]
