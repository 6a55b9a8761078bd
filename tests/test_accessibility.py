"""Peaks x cells: every way round, what is dropped, and what is refused."""

import gzip
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import io, sparse

from scbasset_ism.accessibility import Accessibility, read_accessibility
from scbasset_ism.bases import decode
from scbasset_ism.errors import AccessibilityError, GenomeError
from scbasset_ism.genome import Genome

# Peaks 0 and 2 are as they should be; 1 has no counts, 3 leaves its contig, 4 has no contig.
PEAKS = pd.DataFrame(
    {
        "chrom": ["chr1", "chr1", "2", "2", "9"],
        "start": [1000, 3000, 10, 2900, 100],
        "end": [1500, 3500, 511, 3001, 600],
    },
    index=[f"peak{i}" for i in range(5)],
)
CELLS = pd.DataFrame({"type": list("TTBB")}, index=["a", "b", "c", "d"])
COUNTS = np.array([[1, 0, 2, 0], [0, 0, 0, 0], [0, 0, 3, 1], [0, 1, 0, 0], [1, 0, 0, 0]])


def write_h5ad(
    path: Path, counts: np.ndarray = COUNTS, peaks: pd.DataFrame = PEAKS, *, cells_first: bool
) -> Path:
    matrix = sparse.csr_matrix(counts.astype(np.float32))
    tables = (CELLS, peaks) if cells_first else (peaks, CELLS)
    anndata.AnnData(matrix.T.tocsr() if cells_first else matrix, *tables).write_h5ad(path)
    return path


@pytest.fixture
def read(tmp_path: Path) -> Accessibility:
    return read_accessibility(write_h5ad(tmp_path / "atac.h5ad", cells_first=True))


@pytest.mark.parametrize("cells_first", [True, False], ids=["cells x peaks", "peaks x cells"])
def test_anndata_is_read_either_way_round(tmp_path: Path, cells_first: bool) -> None:
    found = read_accessibility(write_h5ad(tmp_path / "a.h5ad", cells_first=cells_first))
    assert found.is_open.dtype == bool
    np.testing.assert_array_equal(found.is_open.toarray(), COUNTS > 0)
    assert list(found.cells.index) == list("abcd")
    assert list(found.cells["type"]) == list("TTBB")
    places = [(peak.chrom, peak.start, peak.stop, peak.name) for peak in found.peaks]
    assert places[2] == ("2", 10, 511, "peak2")


@pytest.mark.parametrize(
    "names",
    [["chr1:1000-1500", "chr1:3000-3500"], ["chr1_1000_1500", "chr1_3000_3500"]],
    ids=["colon", "underscore"],
)
def test_coordinates_may_stand_in_the_names(tmp_path: Path, names: list[str]) -> None:
    path = write_h5ad(tmp_path / "a.h5ad", COUNTS[:2], pd.DataFrame(index=names), cells_first=True)
    assert [(p.chrom, p.start, p.stop) for p in read_accessibility(path).peaks] == [
        ("chr1", 1000, 1500),
        ("chr1", 3000, 3500),
    ]


@pytest.mark.parametrize("transposed", [False, True], ids=["peaks x cells", "cells x peaks"])
@pytest.mark.parametrize("suffix", [".mtx", ".mtx.gz"])
def test_matrix_market_is_read_either_way_round(
    tmp_path: Path, transposed: bool, suffix: str
) -> None:
    peaks, cells = tmp_path / "peaks.bed", tmp_path / "barcodes.tsv"
    PEAKS.to_csv(peaks, sep="\t", header=False, index=False)
    cells.write_text("a\nb\nc\nd\n")
    matrix = tmp_path / f"matrix{suffix}"
    with gzip.open(matrix, "wb") if suffix.endswith("gz") else matrix.open("wb") as file:
        io.mmwrite(file, sparse.coo_array(COUNTS.T if transposed else COUNTS))
    found = read_accessibility(peaks, matrix, cells)
    np.testing.assert_array_equal(found.is_open.toarray(), COUNTS > 0)
    assert list(found.cells.index) == list("abcd")


def test_what_is_of_no_use_is_dropped_and_counted(
    read: Accessibility, tiny_genome: Genome, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    found = read.inside(tiny_genome).with_counts()
    assert [(p.chrom, p.name) for p in found.peaks] == [("1", "peak0"), ("2", "peak2")]
    assert list(found.cells.index) == ["a", "c", "d"]
    np.testing.assert_array_equal(found.is_open.toarray(), (COUNTS > 0)[[0, 2]][:, [0, 2, 3]])
    for words in (
        "2 peaks that leave the genome",
        "1 peaks without counts",
        "1 cells without counts",
    ):
        assert words in caplog.text


def test_cells_take_the_order_of_a_model(read: Accessibility) -> None:
    found = read.of_cells(["d", "a"], "the model")
    assert list(found.cells["type"]) == ["B", "T"]
    np.testing.assert_array_equal(found.is_open.toarray(), (COUNTS > 0)[:, [3, 0]])
    with pytest.raises(AccessibilityError, match=r"lacks 1 of the 2 cells of the model.*'x'"):
        read.of_cells(["a", "x"], "the model")


@pytest.mark.parametrize("span", [7, 1344])
def test_spans_have_the_middle_of_the_peak_in_their_own(
    read: Accessibility, tiny_genome: Genome, tiny_sequences: dict[str, str], span: int
) -> None:
    inside = read.inside(tiny_genome)
    spans = inside.read_spans(tiny_genome, span)
    for peak, codes in zip(inside.peaks, spans, strict=True):
        padded = "N" * span + tiny_sequences[peak.chrom].upper() + "N" * span
        middle = span + (peak.start + peak.stop) // 2
        assert decode(codes) == padded[middle - span // 2 :][:span]


def test_another_assembly_is_refused(read: Accessibility, tiny_genome: Genome) -> None:
    with pytest.raises(GenomeError, match="no contig in common"):
        read.take(np.array([4])).inside(tiny_genome)
    with pytest.raises(AccessibilityError, match="no peak lies in"):
        read.take(np.array([3])).inside(tiny_genome)
    with pytest.raises(AccessibilityError, match="not a single count"):
        read.take(np.array([1])).with_counts()


@pytest.mark.parametrize("value", [-1, np.nan], ids=["negative", "NaN"])
def test_numbers_that_are_no_counts_are_refused(tmp_path: Path, value: float) -> None:
    counts = COUNTS.astype(float)
    counts[0, 0] = value
    with pytest.raises(AccessibilityError, match="no counts"):
        read_accessibility(write_h5ad(tmp_path / "a.h5ad", counts, cells_first=True))


def test_coordinates_must_be_on_one_side(tmp_path: Path) -> None:
    path = write_h5ad(tmp_path / "a.h5ad", peaks=PEAKS[["chrom", "start"]], cells_first=True)
    with pytest.raises(AccessibilityError, match="neither of obs and var"):
        read_accessibility(path)
    wrong = PEAKS.assign(end=PEAKS["start"])
    with pytest.raises(AccessibilityError, match="peak0 has start 1000 and end 1000"):
        read_accessibility(write_h5ad(tmp_path / "b.h5ad", peaks=wrong, cells_first=True))


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    peaks, cells, matrix = (tmp_path / name for name in ("p.bed", "cells.tsv", "m.mtx"))
    PEAKS.to_csv(peaks, sep="\t", header=False, index=False)
    cells.write_text("a\nb\nc\nd\n")
    with pytest.raises(AccessibilityError, match="--matrix and --barcodes"):
        read_accessibility(peaks)
    io.mmwrite(matrix, sparse.coo_array(COUNTS[:4]))
    with pytest.raises(AccessibilityError, match="4 x 4 for 5 peaks and 4 cells"):
        read_accessibility(peaks, matrix, cells)
    matrix.write_text("nonsense")
    with pytest.raises(AccessibilityError, match="can't be read as Matrix Market"):
        read_accessibility(peaks, matrix, cells)
    (tmp_path / "x.h5ad").write_bytes(b"nonsense")
    with pytest.raises(AccessibilityError, match="can't be read as AnnData"):
        read_accessibility(tmp_path / "x.h5ad")


def test_names_of_cells_must_differ(tmp_path: Path) -> None:
    with pytest.raises(AccessibilityError, match="'a' is the name of several cells"):
        Accessibility([], sparse.csr_array((0, 2), dtype=bool), CELLS.iloc[[0, 0]], "here")
