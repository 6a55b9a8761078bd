"""Windows against the plain way: edit the text of the contig, and cut it."""

import numpy as np
import pytest
from conftest import random_dna, write_fasta

from scbasset_ism.bases import N, decode
from scbasset_ism.errors import ScbassetError
from scbasset_ism.genome import Genome
from scbasset_ism.regions import Peaks, Region
from scbasset_ism.variants import Status, Variant
from scbasset_ism.vcf import Record
from scbasset_ism.windows import Batch, Frame, alternate_windows, gather

LENGTH = 4000
SEQUENCE = random_dna(LENGTH, seed=5)
PADDED = "N" * 2000 + SEQUENCE + "N" * 2000


@pytest.fixture(scope="module")
def genome(tmp_path_factory: pytest.TempPathFactory) -> Genome:
    return Genome(write_fasta(tmp_path_factory.mktemp("g") / "g.fa", {"1": SEQUENCE, "2": "ACGT"}))


def text(start: int, stop: int) -> str:
    return PADDED[start + 2000 : stop + 2000]


def record(start: int, n_ref: int, alt: str) -> Record:
    ref = SEQUENCE[start : start + n_ref]
    variant = Variant("1", start, ref, alt)
    return Record(0, 1, "1", start + 1, ".", ref, alt, variant, Status.SCORED, 1)


def other(bases: str) -> str:
    """The same length, every base changed."""
    return bases.translate(str.maketrans("ACGT", "CGTA"))


POSITIONS = [0, 1, 671, 672, 2000, LENGTH - 673, LENGTH - 251, LENGTH - 230]


@pytest.mark.parametrize("margin", [0, 3])
@pytest.mark.parametrize("start", POSITIONS)
@pytest.mark.parametrize("width", [1, 2, 3, 17, 200])
def test_substitutions_edit_the_text(genome: Genome, start: int, width: int, margin: int) -> None:
    ref = SEQUENCE[start : start + width]
    batch = gather([record(start, width, other(ref))], genome, Frame(1344, margin))
    (group,) = batch.substitutions
    first = start - 672 - margin
    assert batch.window_start.tolist() == [start - 672]
    assert decode(group.codes[0]) == text(first, first + 1344 + 2 * margin)
    edited = group.codes[0].copy()
    offset = int(group.offset[0])
    edited[offset : offset + group.bases.shape[1]] = group.bases[0]
    want = text(first, start) + other(ref) + text(start + width, first + 1344 + 2 * margin)
    assert decode(edited) == want
    assert decode(group.codes[0]) != want
    assert decode(group.codes[0][margin + 672 :][:width]) == ref


INDELS = [(0, "A"), (1, ""), (3, ""), (200, ""), (0, "ACGT" * 50), (2, "TTTTT"), (5, "GG")]


@pytest.mark.parametrize("margin", [0, 3])
@pytest.mark.parametrize("start", POSITIONS)
@pytest.mark.parametrize(("n_ref", "alt"), INDELS)
def test_indels_fill_from_either_side(
    genome: Genome, start: int, n_ref: int, alt: str, margin: int
) -> None:
    variant = Variant("1", start, SEQUENCE[start : start + n_ref], alt)
    span, first = 1344 + 2 * margin, start - 672 - margin
    left, right = alternate_windows(variant, genome, start - 672, Frame(1344, margin))
    edited = PADDED[: start + 2000] + alt + PADDED[start + n_ref + 2000 :]
    moved = len(alt) - n_ref
    assert decode(left) == edited[first + 2000 :][:span]
    assert decode(right) == edited[first + 2000 + moved :][:span]
    assert decode(left) != decode(right)


@pytest.mark.parametrize("where", [10, 1300], ids=["left edge", "right edge"])
def test_indels_near_the_edge_of_a_shared_window(genome: Genome, where: int) -> None:
    start = 1000
    variant = Variant("1", start + where, "", "A" * 50)
    windows = alternate_windows(variant, genome, start, Frame(1344))
    edited = PADDED[: variant.start + 2000] + variant.alt + PADDED[variant.start + 2000 :]
    assert decode(windows[0]) == edited[start + 2000 :][:1344]
    assert decode(windows[1]) == edited[start + 2050 :][:1344]


def test_rows_without_a_variant_have_no_window(genome: Genome) -> None:
    skipped = Record(0, 1, "1", 5, ".", "A", "<DEL>", None, Status.SYMBOLIC, 1)
    batch = gather([skipped, record(1000, 1, other(SEQUENCE[1000])), skipped], genome, Frame(1344))
    assert batch.window_start.tolist() == [-1, 328, -1]
    assert np.isnan(batch.n_fraction).tolist() == [True, False, True]
    assert [group.rows.tolist() for group in batch.substitutions] == [[1]]
    assert batch.indels is None


def test_n_fraction_counts_what_lies_past_the_end(genome: Genome) -> None:
    batch = gather([record(0, 1, other(SEQUENCE[0]))], genome, Frame(1344, margin=2))
    assert batch.n_fraction[0] == np.float32(672 / 1344)
    assert (batch.substitutions[0].codes[0] == N).sum() == 674


def groups(batch: Batch) -> dict[int, list[int]]:
    return {group.bases.shape[1]: group.rows.tolist() for group in batch.substitutions}


def test_variants_are_sorted_by_what_they_need(genome: Genome) -> None:
    kinds = [(1, 1), (3, 3), (1, 1), (4, 4), (2, 0), (1, 2)]
    records = [record(1500, n_ref, other(SEQUENCE[1500:1504])[:n_alt]) for n_ref, n_alt in kinds]
    batch = gather(records, genome, Frame(1344))
    assert groups(batch) == {1: [0, 2], 4: [1, 3]}
    assert batch.indels is not None
    assert batch.indels.rows.tolist() == [4, 5]
    assert all(len(group.codes) == 1 for group in batch.substitutions)  # one place, one window


class TestPeaks:
    peaks = Peaks([Region("1", 1000, 1501, "p", 1250), Region("1", 1400, 2000, "q", 1700)])

    def test_variants_of_a_peak_share_its_window(self, genome: Genome) -> None:
        records = [record(start, 1, other(SEQUENCE[start])) for start in (1100, 1300, 3000, 1450)]
        batch = gather(records, genome, Frame(1344), self.peaks)
        assert batch.peaks == ["p", "p", "", "p"]
        assert batch.window_start.tolist() == [578, 578, 3000 - 672, 578]
        (group,) = batch.substitutions
        assert len(group.codes) == 2
        for row, start in zip(group.window, batch.window_start, strict=True):
            assert decode(group.codes[row]) == text(start, start + 1344)
        positions = group.offset + batch.window_start
        assert positions.tolist() == [1100, 1300, 3000, 1450]

    def test_the_nearest_summit_wins(self) -> None:
        nearest = [self.peaks.nearest("1", start, start + 1) for start in (1400, 1474, 1476, 1501)]
        assert [peak and peak.name for peak in nearest] == ["p", "p", "q", "q"]
        assert self.peaks.nearest("1", 999, 1000) is None
        assert self.peaks.nearest("1", 1000, 1001) is not None
        assert self.peaks.nearest("1", 2000, 2001) is None
        assert self.peaks.nearest("2", 1100, 1101) is None

    def test_a_variant_that_sticks_out_keeps_its_own_window(self, genome: Genome) -> None:
        wide = Peaks([Region("1", 0, 4000, "wide", 2000)])
        records = [record(start, 1, other(SEQUENCE[start])) for start in (1327, 1328, 2671, 2672)]
        batch = gather(records, genome, Frame(1344), wide)
        assert batch.peaks == ["", "wide", "wide", ""]

    @pytest.mark.parametrize("margin", [0, 3])
    @pytest.mark.parametrize("width", [1, 3, 9])
    def test_patches_stay_inside_at_every_shift(
        self, genome: Genome, width: int, margin: int
    ) -> None:
        wide = Peaks([Region("1", 0, 4000, "wide", 2000)])
        for start in range(2672 - 2 * width - margin, 2672):
            ref = SEQUENCE[start : start + width]
            batch = gather([record(start, width, other(ref))], genome, Frame(1344, margin), wide)
            (group,) = batch.substitutions
            offset, stop = group.offset[0], group.offset[0] + group.bases.shape[1]
            assert 2 * margin <= offset
            assert stop <= 1344
            first = int(batch.window_start[0]) - margin
            edited = group.codes[0].copy()
            edited[offset:stop] = group.bases[0]
            assert decode(edited) == (
                text(first, start) + other(ref) + text(start + width, first + len(edited))
            )


def test_short_windows_are_refused() -> None:
    with pytest.raises(ScbassetError, match="at least 512"):
        Frame(511)
    assert Frame(512).span == 512
    with pytest.raises(ScbassetError, match="at least 514"):
        Frame(512, margin=1)
