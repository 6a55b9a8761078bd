"""Annotations for heritability models: one row per row of a plink .bim, in its order.

S-LDSC and PolyFun model the variance of a variant's effect, which does not know which allele is
counted. So the values are absolute deltas, and the .bim may have the alleles either way around.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scbasset_ism.columns import (
    NUMBER,
    TABLE_ROWS,
    TEXT_VALUES,
    Columns,
    distinct,
    symbol,
    text_rows,
)
from scbasset_ism.errors import ExportError
from scbasset_ism.export_tables import parquet_writer
from scbasset_ism.frames import Floats
from scbasset_ism.genome import bare_name
from scbasset_ism.outputs import bgzipped
from scbasset_ism.reader import Scores, read_rows
from scbasset_ism.store import product
from scbasset_ism.variants import Status

NOT_IN_STORE = "NOT_IN_STORE"  # stands with the statuses where they are counted

_BIM = ("CHR", "SNP", "CM", "BP", "A1", "A2")
_TAKEN = (*_BIM, "MAF")
_PLINK = {"23": "X", "24": "Y", "25": "X", "26": "MT"}  # 25 is X's pseudoautosomal part
_KEY = ["chrom", "position", "alleles"]


class Annotations:
    """Absolute deltas in the order of a .bim.

    Args:
        store: Of the scores.
        columns: Which deltas.
        bim: Path of the .bim.
        allow_missing: A row without a score is 0, as if it had no effect.

    Raises:
        ExportError: The .bim can't be read; rows have no score, and that isn't allowed.
    """

    def __init__(
        self, store: Scores, columns: Columns, bim: Path, *, allow_missing: bool = False
    ) -> None:
        self.bim, self._store, self._columns = read_bim(bim), store, columns
        self.names = distinct(map(symbol, columns.names), taken=_TAKEN)
        self._rows, statuses = match(self.bim, store)
        self.counts = Counter(statuses.tolist())
        missing = np.flatnonzero(self._rows < 0)
        is_hopeless = len(missing) == len(self.bim)
        if is_hopeless or (len(missing) and not allow_missing):
            first = self.bim.iloc[missing[0]]
            reasons = (f"{n:,} {why}" for why, n in self.counts.items() if why != "SCORED")
            raise ExportError(
                f"{bim}: {len(missing):,} of {len(self.bim):,} rows have no score in {store.path} "
                f"({', '.join(reasons)}), the first is {first['SNP']} at {first['CHR']}:"
                f"{first['BP']} {first['A1']}/{first['A2']}: "
                + (
                    "is it of another assembly?"
                    if is_hopeless
                    else "score them too, or let them be 0 with --allow-missing"
                )
            )

    def write_text(self, path: Path) -> None:
        """Write what S-LDSC reads: CHR, BP, SNP, CM and the annotations, gzip."""
        names, template = ["CHR", "BP", "SNP", "CM"], "\t".join([NUMBER] * len(self.names))
        with bgzipped(path) as file:
            file.write(("\t".join([*names, *self.names]) + "\n").encode())
            for rows, values in self._blocks(max(1, TEXT_VALUES // len(self.names))):
                fields = (rows[name].astype(str) for name in names)
                lines = zip(*fields, text_rows(values, template, missing=""), strict=True)
                file.write("".join("\t".join(line) + "\n" for line in lines).encode())

    def write_parquet(self, path: Path) -> None:
        """Write what PolyFun reads: CHR, BP, SNP, A1, A2 and the annotations, Parquet."""
        is_number = self.bim["CHR"].str.fullmatch("[0-9]+").all()
        with parquet_writer(path) as write:
            for rows, values in self._blocks(TABLE_ROWS):
                head = rows[["CHR", "BP", "SNP", "A1", "A2"]].astype(
                    {"CHR": "int64" if is_number else "object"}
                )
                numbers = pd.DataFrame(values, columns=self.names, index=head.index)
                write(pd.concat([head, numbers], axis=1))

    def _blocks(self, most: int) -> Iterator[tuple[pd.DataFrame, Floats]]:
        """Rows of the .bim and their values, at most so many rows at once."""
        step = min(TABLE_ROWS, most)
        for start in range(0, len(self.bim), step):
            some = slice(start, start + step)
            yield self.bim.iloc[some], self._values(self._rows[some])

    def _values(self, rows: NDArray[np.int64]) -> Floats:
        """Absolute deltas, (rows, columns); 0 where there is no row."""
        values = np.zeros((len(rows), len(self._columns)), dtype=np.float32)
        numbers, places = np.unique(rows[rows >= 0], return_inverse=True)
        if len(numbers):
            factor = read_rows(self._store.bottleneck, numbers)
            values[rows >= 0] = np.abs(product(factor, self._columns.weight))[places]
        return values


def read_bim(path: Path) -> pd.DataFrame:
    """Read a plink .bim: CHR, SNP, CM, BP, A1 and A2, all text but BP.

    Raises:
        ExportError: It can't be read, or is none.
    """
    try:
        bim = pd.read_csv(
            path,
            sep=r"\s+",
            header=None,
            dtype={i: str for i in range(len(_BIM)) if _BIM[i] != "BP"}
            | {_BIM.index("BP"): "int64"},
            keep_default_na=False,
        )
        if bim.shape[1] != len(_BIM):
            raise ValueError(f"it has {bim.shape[1]} columns")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error).strip()
        raise ExportError(
            f"{path} can't be read as a .bim, which has six columns (chromosome, id, centimorgan, "
            f"position, two alleles) and no header: {reason}"
        ) from None
    return bim.set_axis(_BIM, axis=1)


def match(bim: pd.DataFrame, store: Scores) -> tuple[NDArray[np.int64], NDArray[np.object_]]:
    """Find the rows of a .bim in a store: same place, same two alleles, either way around.

    Contigs may be named with `chr` or without, and X, Y and MT as plink numbers them. Where the
    store has a variant several times, a row with a score is preferred, then the first.

    Returns:
        (rows of the .bim): number of the row in the store, -1 without a score; and its status.
    """
    known = (_numbering(), _numbering())
    chroms = (_PLINK.get(name, name) for name in bim["CHR"])
    wanted = _keys(chroms, bim["BP"], zip(bim["A1"], bim["A2"], strict=True), known)
    there = wanted["chrom"].unique()
    pieces = [wanted.iloc[:0].assign(row=0, status=0)]
    for start in range(0, len(store), TABLE_ROWS):
        table = store.rows(slice(start, start + TABLE_ROWS))
        pairs = zip(table["variant_ref"], table["variant_alt"], strict=True)
        keys = _keys(table["chrom"], table["variant_position"], pairs, known)
        keys["row"] = np.arange(start, start + len(table))
        keys["status"] = [Status[name].value for name in table["status"]]
        pieces.append(keys[keys["chrom"].isin(there)])
    rows = pd.concat(pieces).sort_values("status", kind="stable").drop_duplicates(_KEY)
    found = wanted.merge(rows, how="left", on=_KEY)
    names = {status.value: status.name for status in Status}
    statuses = found["status"].map(names).fillna(NOT_IN_STORE).to_numpy(dtype=object)
    numbers = found["row"].where(found["status"] == Status.SCORED.value, -1)
    return numbers.to_numpy(dtype=np.int64), statuses


def _numbering() -> defaultdict[object, int]:
    """Gives every new key the next number."""
    numbers = defaultdict[object, int]()
    numbers.default_factory = numbers.__len__
    return numbers


def _keys(
    chroms: Iterable[str],
    positions: pd.Series,
    pairs: Iterable[tuple[str, str]],
    known: tuple[defaultdict[object, int], defaultdict[object, int]],
) -> pd.DataFrame:
    """Places and alleles as numbers, which take little memory; equal alleles in either order."""
    contigs, alleles = known
    columns = {
        "chrom": [contigs[bare_name(chrom)] for chrom in chroms],
        "position": positions.to_numpy(),
        "alleles": [alleles[tuple(sorted((a.upper(), b.upper())))] for a, b in pairs],
    }
    return pd.DataFrame(columns, dtype=np.int64)
