"""Where cells lie on a map: columns of their table, or an embedding in an AnnData file."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scbasset_ism.errors import ScbassetError


def read_coordinates(source: str, cells: pd.DataFrame) -> pd.DataFrame:
    """Look up two coordinates of every cell.

    Args:
        source: Two columns of the cells' table with a comma between them (`umap_1,umap_2`), or an
            AnnData file and the key of an array in its `obsm` (`atlas.h5ad:X_umap`, `.zarr`), of
            which the first two columns are taken. Its cells are found by their ids.
        cells: Table of the cells, index `cell_id`.

    Returns:
        (cells, 2) float64, named for the axes.

    Raises:
        ScbassetError: There is no such thing, a cell is missing in it, or it holds no numbers.
    """
    columns = [name.strip() for name in source.split(",")]
    if len(columns) == 2 and set(columns) <= set(cells):
        found = cells[columns]
    elif ":" in source:
        path, key = source.rsplit(":", 1)
        found = _embedding(path, key, cells.index)
    else:
        raise ScbassetError(
            f"coordinates {source!r} are neither two columns of the cells' table "
            f"({', '.join(map(str, cells)) or 'it has none'}) nor an AnnData file and a key, "
            "as atlas.h5ad:X_umap"
        )
    try:
        numbers = found.astype(np.float64)
    except (TypeError, ValueError):
        raise ScbassetError(f"coordinates {source!r} are no numbers") from None
    if not np.isfinite(numbers.to_numpy()).all():
        raise ScbassetError(f"coordinates {source!r}: some cells have none")
    return numbers


def _embedding(path: str, key: str, ids: pd.Index) -> pd.DataFrame:
    """Read the first two columns of an array in `obsm`, in the order of some cells."""
    with open_anndata(path) as (file, read):
        known = list(file.get("obsm", {}))
        if key not in known:
            raise ScbassetError(
                f"{path} has no embedding {key!r} in obsm; it has {', '.join(known) or 'none'}"
            )
        names = pd.Index(read(file["obs"]).index.astype(str))
        values = np.asarray(read(file["obsm"][key]))[:, :2]
    places = names.get_indexer(ids)
    if (places < 0).any():
        raise ScbassetError(
            f"{path} lacks {(places < 0).sum():,} of {len(ids):,} cells, {ids[places < 0][0]} first"
        )
    if values.shape[1] < 2:
        raise ScbassetError(f"{path}: {key} has one column, and a map needs two")
    axes = [f"{key.removeprefix('X_')} {number}" for number in (1, 2)]
    return pd.DataFrame(values[places], index=ids, columns=axes)


@contextmanager
def open_anndata(path: str | Path) -> Iterator[tuple[Any, Any]]:
    """Open an AnnData file of HDF5 or Zarr; gives it and the function that reads a part.

    Raises:
        ScbassetError: It can't be read.
    """
    try:
        read = import_module("anndata.io").read_elem
        opened = import_module("zarr" if Path(path).is_dir() else "h5py")
    except ImportError:
        raise ScbassetError(f"{path} needs anndata: pip install 'scbasset-ism[anndata]'") from None
    try:
        file = opened.open_group(path, mode="r") if Path(path).is_dir() else opened.File(path)
    except (OSError, ValueError) as error:
        raise ScbassetError(f"{path} can't be read as an AnnData file: {error}") from None
    try:
        yield file, read
    finally:
        if hasattr(file, "close"):
            file.close()
