"""BED files as people have them."""

import gzip
from pathlib import Path

import pytest

from scbasset_ism.errors import RegionError
from scbasset_ism.regions import Peaks, Region, read_bed


def test_bed_with_and_without_names(tmp_path: Path) -> None:
    path = tmp_path / "a.bed"
    path.write_text("# note\ntrack name=x\nchr1\t10\t20\n\nchr2 30 41\nchr1\t5\t9\tmine\t0\t+\r\n")
    assert list(read_bed(path)) == [
        Region("chr1", 10, 20, "chr1:10-20", 15),
        Region("chr2", 30, 41, "chr2:30-41", 35),
        Region("chr1", 5, 9, "mine", 7),
    ]


def test_narrow_peak_has_its_summit(tmp_path: Path) -> None:
    path = tmp_path / "a.narrowPeak.gz"
    lines = ["1\t100\t200\tp\t0\t.\t1\t1\t1\t90", "1\t100\t200\tq\t0\t.\t1\t1\t1\t-1"]
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    assert [region.summit for region in read_bed(path)] == [190, 150]


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("chr1\t10", id="two columns"),
        pytest.param("chr1\tten\t20", id="not a number"),
        pytest.param("chr1\t20\t20", id="empty"),
        pytest.param("chr1\t-5\t20", id="negative"),
        pytest.param("\t5\t20", id="no contig"),
        pytest.param("chr1,5,20", id="commas"),
    ],
)
def test_what_is_not_bed_names_the_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "a.bed"
    path.write_text(f"chr1\t1\t2\n{line}\n")
    with pytest.raises(RegionError, match=r"a\.bed, line 2: .* is not BED"):
        list(read_bed(path))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RegionError, match="can't be read as BED"):
        list(read_bed(tmp_path / "missing.bed"))
    cut = tmp_path / "cut.bed.gz"
    cut.write_bytes(gzip.compress(b"chr1\t1\t2\n" * 1000)[:-20])
    with pytest.raises(RegionError, match="can't be read as BED"):
        list(read_bed(cut))
    binary = tmp_path / "a.bam"
    binary.write_bytes(bytes(range(128, 256)))
    with pytest.raises(RegionError, match="can't be read as BED"):
        list(read_bed(binary))


def test_peaks_of_unknown_contigs_are_left_out() -> None:
    regions = [Region("chr1", 0, 10, "a", 5), Region("chrUn", 0, 10, "b", 5)]
    peaks = Peaks(regions, {"chr1": "1"}.get)
    found = peaks.nearest("1", 3, 4)
    assert found is not None
    assert found.name == "a"
    assert peaks.nearest("chrUn", 3, 4) is None
