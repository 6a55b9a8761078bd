"""Tables of cells: one row per output of a model, index `cell_id`."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scbasset_ism.errors import CheckpointError, ScbassetError

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


def select_cells(cells: pd.DataFrame, group: str) -> NDArray[np.bool_]:
    """Find the cells that a text means, (cells) bool.

    Args:
        cells: Their table, index `cell_id`.
        group: An id; else a label that stands in one of the columns; else a query as of
            `pandas.DataFrame.query`, such as `tissue == "blood" and depth > 1000`.

    Raises:
        ScbassetError: No cell is meant, or the label stands in several columns.
    """
    if (chosen := np.asarray(cells.index == group)).any():
        return chosen
    texts = cells.astype(str) == group
    columns = list(cells.columns[texts.any()])
    if len(columns) == 1:
        return texts[columns[0]].to_numpy()
    if columns:
        raise ScbassetError(
            f"cells are called {group!r} in several columns: ask for {columns[0]} == {group!r}"
        )
    try:
        found: Any = cells.eval(group, engine="python")
    except Exception:  # whatever pandas says of a text that is no query
        found = None
    if not isinstance(found, pd.Series) or found.dtype != bool:
        raise ScbassetError(
            f"no cell has the id or label {group!r}, and it is no query of their columns "
            f"({', '.join(map(str, cells)) or 'there are none'})"
        )
    if not found.any():
        raise ScbassetError(f"no cell fulfils {group!r}")
    return found.to_numpy()
