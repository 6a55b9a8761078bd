"""Tables of cells: one row per output of a model, index `cell_id`."""

from pathlib import Path

import pandas as pd

from scbasset_ism.errors import CheckpointError

_ID_COLUMNS = ("cell_id", "barcode")
# First lines that are a header even where there is but one column.
_HEADERS = {*_ID_COLUMNS, "barcodes", "cell", "cells", "cell_barcode", "index"}


def read_cells(path: str | Path, n_cells: int) -> pd.DataFrame:
    """Read the table of a model's cells, in the order of its outputs.

    Args:
        path: TSV, or CSV by its suffix, with a header; may be gzipped. The ids are the column
            `cell_id`, else `barcode`, else the first. A single column needs no header.
        n_cells: Outputs of the model.

    Returns:
        The other columns, index `cell_id` (text).

    Raises:
        CheckpointError: The table can't be read, has another number of rows, or ids that are empty
            or not unique.
    """
    path = Path(path)
    separator = "," if ".csv" in path.suffixes else "\t"
    try:
        first = pd.read_csv(
            path, sep=separator, header=None, nrows=1, dtype=str, keep_default_na=False
        ).iloc[0]
        if len(first) == 1 and str(first[0]).lower() not in _HEADERS:
            header, columns = None, ["cell_id"]
        else:
            header, columns = 0, [str(column) for column in first]
        id_column = next((name for name in _ID_COLUMNS if name in columns), columns[0])
        cells = pd.read_csv(
            path,
            sep=separator,
            header=header,
            names=columns,
            converters={id_column: str},
            float_precision="round_trip",
        )
        if not isinstance(cells.index, pd.RangeIndex):
            raise ValueError("its rows have more columns than its header")
    except (OSError, EOFError, ValueError) as error:
        reason = str(error).strip()
        raise CheckpointError(f"{path} can't be read as a table of cells: {reason}") from None
    if len(cells) != n_cells:
        raise CheckpointError(
            f"{path} has {len(cells):,} cells and the model {n_cells:,}: give the table of "
            "those that it was trained on, in their order, with a header"
        )
    ids = cells.pop(id_column).rename("cell_id")
    wrong = ids[ids.duplicated() | (ids == "")]
    if len(wrong):
        raise CheckpointError(
            f"{path}: ids of cells must be unique and not empty; {wrong.iloc[0]!r} is not"
        )
    return cells.set_index(pd.Index(ids, name="cell_id"))
