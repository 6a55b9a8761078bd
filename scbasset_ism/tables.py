"""Tables as files, in one piece or block by block."""

import gzip
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import IO, Any

import pandas as pd

from scbasset_ism.errors import ScbassetError

Rows = Iterable[pd.DataFrame]


def write_table(blocks: Rows, path: str | Path) -> None:
    """Write blocks of rows with the same columns.

    Args:
        blocks: At least one; indices are left out.
        path: Parquet or TSV by its suffix, gzip where that ends in .gz; `-` is standard output.
            A file appears when it is whole.

    Raises:
        ScbassetError: It can't be written.
    """
    if str(path) == "-":
        _write_tsv(blocks, sys.stdout)
        return
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _aside(target) as partial:
            if target.suffix == ".parquet":
                _write_parquet(blocks, partial)
            elif target.suffix == ".gz":
                with gzip.open(partial, "wt", compresslevel=5, newline="") as file:
                    _write_tsv(blocks, file)
            else:
                with partial.open("w", newline="") as file:
                    _write_tsv(blocks, file)
    except OSError as error:
        raise ScbassetError(f"{path} can't be written: {error.strerror or error}") from error


@contextmanager
def _aside(target: Path) -> Iterator[Path]:
    """Give a name to write at, which becomes the target's when all went well."""
    partial = target.with_name(f".{target.name}.partial")
    try:
        yield partial
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _write_tsv(blocks: Rows, file: IO[str]) -> None:
    for number, block in enumerate(blocks):
        block.to_csv(file, sep="\t", index=False, header=number == 0, lineterminator="\n")


def _write_parquet(blocks: Rows, path: Path) -> None:
    try:
        pyarrow, parquet = (import_module(name) for name in ("pyarrow", "pyarrow.parquet"))
    except ImportError:
        raise ScbassetError(
            f"{path.name} is Parquet, which needs pyarrow: pip install 'scbasset-ism[parquet]'"
        ) from None
    writer: Any = None
    try:
        for block in blocks:
            table = pyarrow.Table.from_pandas(block, preserve_index=False)
            writer = writer or parquet.ParquetWriter(path, table.schema)
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()
