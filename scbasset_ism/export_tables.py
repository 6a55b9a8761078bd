"""Tables of variants: TSV, TSV that tabix reads, and Parquet. One row per ALT, in store order."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd

from scbasset_ism.columns import NUMBER, TEXT_VALUES, Block, Columns, blocks, distinct, text_rows
from scbasset_ism.errors import ExportError
from scbasset_ism.outputs import bgzipped, try_to_index
from scbasset_ism.reader import Scores

HEAD = {
    "chrom": "chrom",
    "pos": "variant_position",
    "ref": "variant_ref",
    "alt": "variant_alt",
    "id": "variant_id",
    "status": "status",
}


def write_tsv(store: Scores, columns: Columns, path: Path) -> Counter[str]:
    """Write plain text with NA in rows without a score; counts the statuses."""
    counts = Counter[str]()
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(_header(columns))
        for block in blocks(store, columns, most=TEXT_VALUES):
            counts.update(block.table["status"])
            file.write(_lines(block, missing="NA"))
    return counts


def write_indexed_tsv(store: Scores, columns: Columns, path: Path) -> Counter[str]:
    """Write bgzip with an index of tabix, and a dot for what is missing; counts the statuses.

    Raises:
        ExportError: The rows are not in the order of their positions.
    """
    counts, order = Counter[str](), _Order()
    with bgzipped(path) as file:
        file.write(f"#{_header(columns)}".encode())
        for block in blocks(store, columns, most=TEXT_VALUES):
            order.check(block.table)
            counts.update(block.table["status"])
            file.write(_lines(block, missing=".").encode())
    if not try_to_index(path, seq_col=0, start_col=1, end_col=1, meta_char="#"):
        raise ExportError(f"{store.path}: tabix can't index these positions; name a .tsv")
    return counts


def write_parquet(store: Scores, columns: Columns, path: Path) -> Counter[str]:
    """Write Parquet, null in rows without a score; counts the statuses."""
    counts, names = Counter[str](), distinct(columns.names, taken=HEAD)
    with parquet_writer(path) as write:
        for block in blocks(store, columns):
            counts.update(block.table["status"])
            head = {name: block.table[column].array for name, column in HEAD.items()}
            write(pd.DataFrame(head | dict(zip(names, block.values.T, strict=True))))
    return counts


@contextmanager
def parquet_writer(path: Path) -> Iterator[Callable[[pd.DataFrame], None]]:
    """Give a function that appends rows to a Parquet file; NaN becomes null.

    Raises:
        ExportError: pyarrow isn't installed.
    """
    try:
        pyarrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        raise ExportError(
            f"{path.name} is Parquet, which needs pyarrow: pip install 'scbasset-ism[parquet]'"
        ) from None
    writer: Any = None

    def write(rows: pd.DataFrame) -> None:
        nonlocal writer
        table = pyarrow.Table.from_pandas(rows, preserve_index=False)
        writer = writer or parquet.ParquetWriter(path, table.schema)
        writer.write_table(table)

    try:
        yield write
    finally:
        if writer is not None:
            writer.close()


def _header(columns: Columns) -> str:
    """Names of the columns; white space within a name can't be a tab or a new line."""
    names = (re.sub(r"[\t\r\n]+", " ", name) for name in columns.names)
    return "\t".join([*HEAD, *distinct(names, taken=HEAD)]) + "\n"


def _lines(block: Block, missing: str) -> str:
    """Rows as text."""
    head = (block.table[column].astype(str) for column in HEAD.values())
    width = block.values.shape[1]
    template, empty = ("\t".join([one] * width) for one in (NUMBER, missing))
    values = text_rows(block.values, template, empty)
    return "".join("\t".join(fields) + "\n" for fields in zip(*head, values, strict=True))


class _Order:
    """Tells whether rows lie as an index needs them: contigs in one piece, positions ascending."""

    def __init__(self) -> None:
        self._seen, self._last = {""}, ("", 0)

    def check(self, table: pd.DataFrame) -> None:
        """Take the next rows; raise ExportError where they don't follow those before."""
        for row in zip(table["chrom"], table["variant_position"], strict=True):
            chrom, position = row
            last_chrom, last_position = self._last
            if position < last_position if chrom == last_chrom else chrom in self._seen:
                raise ExportError(
                    f"{chrom}:{position} comes after {last_chrom}:{last_position}, and tabix needs "
                    "rows in the order of their positions: name a .tsv, or score a sorted file"
                )
            self._seen.add(chrom)
            self._last = row
