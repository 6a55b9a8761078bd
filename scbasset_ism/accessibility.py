"""Peaks x cells: which peak is open in which cell, as a model is trained on and measured against.

Rows are peaks and columns cells, whatever way round the file has them; a count above 0 is open.
"""

import gzip
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import io, sparse

from scbasset_ism.bases import Codes
from scbasset_ism.cells import read_cells
from scbasset_ism.errors import AccessibilityError
from scbasset_ism.genome import Genome
from scbasset_ism.regions import Region, read_bed

log = logging.getLogger(__name__)

Rows = NDArray[np.int64]

# Names of the columns of coordinates in the files of the tools of the field.
_CHROM = ("chrom", "chr", "chromosome", "seqnames", "contig")
_START = ("start", "chromStart", "peak_start")
_STOP = ("end", "stop", "chromEnd", "peak_end")
_PEAK_NAME = re.compile(r"(?P<chrom>.+)[:_-](?P<start>\d+)[_-](?P<stop>\d+)")  # chr1:100-600


@dataclass(frozen=True)
class Accessibility:
    """Which peak is open in which cell.

    Attributes:
        peaks: In the order of the rows; 0-based and half-open.
        is_open: (peaks, cells) bool, CSR.
        cells: One row per column, index `cell_id`.
        source: What to call the file.
    """

    peaks: list[Region]
    is_open: sparse.csr_array
    cells: pd.DataFrame
    source: str

    def __post_init__(self) -> None:
        if self.is_open.shape != (len(self.peaks), len(self.cells)):
            raise AccessibilityError(
                f"{self.source}: the matrix is {' x '.join(map(str, self.is_open.shape))} for "
                f"{len(self.peaks):,} peaks and {len(self.cells):,} cells"
            )
        if not self.cells.index.is_unique:
            twice = self.cells.index[self.cells.index.duplicated()][0]
            raise AccessibilityError(f"{self.source}: {twice!r} is the name of several cells")

    def take(self, rows: Rows) -> Self:
        """Keep some peaks, in the order given."""
        return type(self)(
            [self.peaks[row] for row in rows], self.is_open[rows], self.cells, self.source
        )

    def inside(self, genome: Genome) -> Self:
        """Drop the peaks that leave the genome, with a count; contigs take its own names.

        Raises:
            AccessibilityError: Nothing is left.
            GenomeError: The genome has none of the contigs.
        """
        said = genome.check_contigs(dict.fromkeys(p.chrom for p in self.peaks), self.source)
        if said:
            log.info(said)
        own = {chrom: genome.resolve(chrom) for chrom in {peak.chrom for peak in self.peaks}}
        peaks = {
            row: replace(peak, chrom=chrom)
            for row, peak in enumerate(self.peaks)
            if (chrom := own[peak.chrom]) and peak.stop <= genome.contigs[chrom]
        }
        self._tell("peaks that leave the genome", len(self.peaks) - len(peaks))
        if not peaks:
            raise AccessibilityError(
                f"{self.source}: no peak lies in {genome.path}; is it the assembly that the reads "
                "were aligned to?"
            )
        return type(self)(list(peaks.values()), self.is_open[list(peaks)], self.cells, self.source)

    def with_counts(self) -> Self:
        """Drop peaks and cells without counts, and say how many.

        Raises:
            AccessibilityError: Nothing is left.
        """
        rows, columns = (np.flatnonzero(self.is_open.sum(axis=axis)) for axis in (1, 0))
        self._tell("peaks without counts", len(self.peaks) - len(rows))
        self._tell("cells without counts", len(self.cells) - len(columns))
        if not len(rows):
            raise AccessibilityError(f"{self.source}: there is not a single count")
        kept = self.take(rows)
        return type(self)(
            kept.peaks, kept.is_open[:, columns], self.cells.iloc[columns], self.source
        )

    def _tell(self, what: str, n: int) -> None:
        if n:
            log.info("%s: %s %s are dropped", self.source, f"{n:,}", what)

    def of_cells(self, names: Iterable[str], what: str) -> Self:
        """Put the cells in the order of a model's.

        Raises:
            AccessibilityError: They are not the same cells.
        """
        wanted = pd.Index(names)
        columns = self.cells.index.get_indexer(wanted)
        if (columns < 0).any():
            raise AccessibilityError(
                f"{self.source} lacks {np.sum(columns < 0):,} of the {len(wanted):,} cells of "
                f"{what}, such as {wanted[columns < 0][0]!r}: give the data that it was trained "
                "on, or other data of the same cells under the same names"
            )
        return type(self)(
            self.peaks, self.is_open[:, columns], self.cells.iloc[columns], self.source
        )

    def read_spans(self, genome: Genome, span: int) -> Codes:
        """Read the bases around the middle of every peak, (peaks, span) uint8.

        The middle lies at offset `span // 2`, as in the window of a region.
        """
        spans = np.empty((len(self.peaks), span), np.uint8)
        order = sorted(range(len(self.peaks)), key=lambda row: self.peaks[row].chrom)
        for row in order:  # contig by contig: the genome keeps one in memory
            peak = self.peaks[row]
            start = peak.window_start(span)
            spans[row] = genome.codes(peak.chrom, start, start + span)
        return spans


def read_accessibility(
    path: str | Path, matrix: str | Path | None = None, cells: str | Path | None = None
) -> Accessibility:
    """Read peaks x cells.

    Args:
        path: AnnData (.h5ad), cells x peaks or peaks x cells, told apart by which of its tables
            holds the coordinates: columns such as chrom, start and end, else names such as
            chr1:100-600. Or a BED file of peaks, which needs the two others.
        matrix: Matrix Market file, plain or gzip, peaks x cells or cells x peaks.
        cells: Barcodes, or a table of the cells (see `read_cells`).

    Raises:
        AccessibilityError: A file can't be read, or they don't fit each other.
    """
    path = Path(path)
    if path.suffix == ".h5ad":
        if matrix or cells:
            raise AccessibilityError(f"{path} has its own matrix and cells: leave out the others")
        return _read_anndata(path)
    if matrix is None or cells is None:
        raise AccessibilityError(
            f"{path} is not an .h5ad file, so it is read as BED: give --matrix and --barcodes too"
        )
    peaks = list(read_bed(path))
    counts = _read_matrix_market(Path(matrix))
    if counts.shape[0] != len(peaks):
        counts = counts.T.tocsr()
    table = read_cells(cells, counts.shape[1])
    return Accessibility(peaks, _opened(counts, str(matrix)), table, str(path))


def _read_anndata(path: Path) -> Accessibility:
    try:
        anndata: Any = import_module("anndata")
    except ImportError:
        raise AccessibilityError(
            f"{path} needs anndata: pip install 'scbasset-ism[train]'"
        ) from None
    try:
        data = anndata.read_h5ad(path)
    except (OSError, KeyError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise AccessibilityError(f"{path} can't be read as AnnData: {reason}") from None
    if data.X is None:
        raise AccessibilityError(f"{path} has no X")
    found = {axis: _regions(getattr(data, axis)) for axis in ("var", "obs")}
    axes = [axis for axis, peaks in found.items() if peaks is not None]
    if len(axes) != 1:
        raise AccessibilityError(
            f"{path}: {'both' if axes else 'neither'} of obs and var hold the coordinates of peaks "
            "(columns chrom, start, end, or names like chr1:100-600); exactly one must"
        )
    peaks, cells = found[axes[0]], data.obs if axes[0] == "var" else data.var
    counts = data.X.T if axes[0] == "var" else data.X
    cells = cells.rename_axis("cell_id")
    cells.index = cells.index.astype(str)
    return Accessibility(peaks or [], _opened(counts, f"{path}: X"), cells, str(path))


def _regions(table: pd.DataFrame) -> list[Region] | None:
    """Turn a table of peaks into regions; None where it holds no coordinates."""
    names = [str(name) for name in table.index]
    columns = [next((n for n in known if n in table), None) for known in (_CHROM, _START, _STOP)]
    if None not in columns:
        places = list(zip(*(table[name] for name in columns), strict=True))
    elif names and all(found := [_PEAK_NAME.fullmatch(name) for name in names]):
        places = [match.groups() for match in found if match]
    else:
        return None
    try:
        located = [(str(chrom), int(start), int(stop)) for chrom, start, stop in places]
    except (TypeError, ValueError) as error:
        raise AccessibilityError(f"a coordinate of the peaks is no number: {error}") from None
    for name, (_, start, stop) in zip(names, located, strict=True):
        if not 0 <= start < stop:
            raise AccessibilityError(f"peak {name} has start {start} and end {stop}")
    return [
        Region(chrom, start, stop, name, (start + stop) // 2)
        for name, (chrom, start, stop) in zip(names, located, strict=True)
    ]


def _read_matrix_market(path: Path) -> sparse.csr_array:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return sparse.csr_array(io.mmread(file))  # type: ignore[arg-type]
    except (OSError, EOFError, ValueError) as error:
        raise AccessibilityError(f"{path} can't be read as Matrix Market: {error}") from None


def _opened(counts: Any, what: str) -> sparse.csr_array:
    """Tell which counts are above 0, (peaks, cells) bool; a sparse matrix stays sparse."""
    matrix = sparse.csr_array(counts)
    if not np.isfinite(matrix.data).all() or (matrix.data < 0).any():
        raise AccessibilityError(f"{what} holds numbers that are no counts (negative, NaN)")
    matrix.eliminate_zeros()
    return matrix.astype(bool)
