"""Arrays and data frames in AnnData's encoding, as Zarr keeps them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
import zarr
from google_crc32c import value as crc32c
from numcodecs import VLenUTF8, Zstd
from numpy.typing import NDArray
from zarr.abc.store import ByteRequest
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import FsspecStore, LocalStore, WrapperStore

from scbasset_ism.errors import StoreError
from scbasset_ism.places import Folder, Place

Floats = NDArray[np.float32]
ZarrArray = zarr.Array[Any]

# Without a checksum in the innermost codec a flipped bit is read as a number.
PACKED = [ZstdCodec(level=1), Crc32cCodec()]
RAW = [Crc32cCodec()]
SHUFFLED = [BloscCodec(cname="lz4", shuffle="bitshuffle"), Crc32cCodec()]
DAMAGED = "the store is damaged; copy it again, or write it again with --overwrite"
_ANNDATA = {
    "anndata": "0.1.0",
    "dict": "0.1.0",
    "dataframe": "0.2.0",
    "array": "0.2.0",
    "string-array": "0.2.0",
    "categorical": "0.2.0",
}


class _WholeStore(WrapperStore[LocalStore | FsspecStore]):
    """Every chunk must exist; Zarr would read a missing one as the fill value."""

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Read a file, or a part of it."""
        found = await super().get(key, prototype, byte_range)
        if found is None and "/c/" in key:
            raise StoreError(f"{self._store}/{key} is missing: {DAMAGED}")
        return found


def open_root(place: Place) -> zarr.Group:
    """Open the root of a store, to be read."""
    if isinstance(place, Folder):
        store: LocalStore | FsspecStore = LocalStore(place.path, read_only=True)
    else:
        store = FsspecStore.from_url(place.url, read_only=True)
    return zarr.open_group(_WholeStore(store), mode="r")


def every_array(place: Place) -> Iterator[ZarrArray]:
    """Give all arrays of a finished store.

    Raises:
        StoreError: The metadata of an array are not those that the root has of it.
    """
    root = open_root(place)
    listed = json.loads(place.read("zarr.json") or b"")["consolidated_metadata"]["metadata"]
    for name, metadata in sorted(listed.items()):
        try:
            own = json.loads(place.read(f"{name}/zarr.json") or b"")
        except ValueError:
            own = {}
        if {**own, "consolidated_metadata": None} != {**metadata, "consolidated_metadata": None}:
            raise StoreError(f"{place}/{name}: its metadata are not those of the root: {DAMAGED}")
        if metadata["node_type"] == "array":
            yield array_of(root, name)


def write_array(root: zarr.Group, name: str, values: NDArray[Any], dims: tuple[str, ...]) -> None:
    """Write an array in one piece, with its checksum and the names of its dimensions."""
    is_text = values.dtype.kind in "OUT"
    array = root.create_array(
        name,
        shape=values.shape,
        dtype="string" if is_text else values.dtype,
        chunks=tuple(max(1, size) for size in values.shape),
        compressors=PACKED,
        dimension_names=dims,
        attributes=_encoding("string-array" if is_text else "array"),
        config={"write_empty_chunks": True},
    )
    if values.size:
        array[:] = values.astype(object) if is_text else values


def create_frame(
    root: zarr.Group, name: str, template: pd.DataFrame, *, rows: int, chunk: int, dim: str
) -> None:
    """Create the arrays of a data frame with the columns of the template."""
    group = root.create_group(name)
    tag(group, "dataframe", **{"column-order": list(template), "_index": template.index.name})
    for column, values in _with_index(template).items():
        attributes = _encoding("array")
        target, dtype = str(column), str(values.dtype)
        if isinstance(values.dtype, pd.CategoricalDtype):
            tag(group.create_group(target), "categorical", ordered=False)
            categories = np.asarray(values.dtype.categories, dtype=object)
            write_array(group, f"{target}/categories", categories, dims=(f"{column}_categories",))
            target, dtype = f"{target}/codes", "int32"
        elif not is_numeric(values):
            attributes, dtype = _encoding("string-array"), "string"
        group.create_array(
            target,
            shape=(rows,),
            dtype=dtype,
            chunks=(max(1, chunk),),
            compressors=PACKED,
            dimension_names=(dim,),
            attributes=attributes,
            config={"write_empty_chunks": True},
        )


def write_frame(root: zarr.Group, name: str, frame: pd.DataFrame, dim: str) -> None:
    """Write a whole data frame in one chunk a column."""
    create_frame(root, name, frame, rows=len(frame), chunk=len(frame), dim=dim)
    for column, values in encode_columns(frame, frame).items():
        if len(values):
            array_of(root, f"{name}/{column}")[:] = values


def encode_columns(frame: pd.DataFrame, template: pd.DataFrame) -> dict[str, NDArray[Any]]:
    """Give the arrays of a frame's index and columns: categories as codes, missing text empty."""
    if list(frame) != list(template) or frame.index.name != template.index.name:
        raise StoreError(f"the columns {list(frame)} are not the store's {list(template)}")
    arrays: dict[str, NDArray[Any]] = {}
    columns = _with_index(frame)
    for name, like in _with_index(template).items():
        values = columns[name]
        if isinstance(like.dtype, pd.CategoricalDtype):
            arrays[f"{name}/codes"] = values.astype(like.dtype).cat.codes.to_numpy(np.int32)
        elif is_numeric(like):
            arrays[str(name)] = values.to_numpy(dtype=str(like.dtype))
        else:
            arrays[str(name)] = values.astype(object).where(values.notna(), "").map(str).to_numpy()
    return arrays


def is_numeric(values: pd.Series) -> bool:
    """Whether a column holds numbers or booleans, and not text."""
    return isinstance(values.dtype, np.dtype) and values.dtype.kind in "biuf"


def array_of(group: zarr.Group, name: str) -> ZarrArray:
    """Give an array of a group by its path."""
    array = group[name]
    if not isinstance(array, zarr.Array):
        raise StoreError(f"{group.store_path}: {name} is no array")
    return array.with_config({"write_empty_chunks": True})  # as it is not kept on the disk


def values_of(group: zarr.Group, name: str, rows: slice = slice(None)) -> NDArray[Any]:
    """Read an array, or some of its rows that lie together; text comes as objects."""
    array = array_of(group, name)
    with undamaged(array):
        return _texts(array, rows) if array.dtype.kind in "OUT" else np.asarray(array[rows])


def chunk_file(array: ZarrArray, number: int) -> str:
    """Name the file, from the root, of an array's rows that are written together."""
    key = array.metadata.encode_chunk_key((number, *([0] * (array.ndim - 1))))
    return f"{array.path}/{key}"


def _texts(array: ZarrArray, rows: slice) -> NDArray[np.object_]:
    """Read text, (rows); Zarr would take a detour by numpy's strings, twice as long."""
    start, stop, _ = rows.indices(array.shape[0])
    size, pieces = array.chunks[0], [np.empty(0, dtype=object)]
    for chunk in range(start // size, -(-stop // size) if stop > start else 0):
        content = sync(array.store.get(chunk_file(array, chunk), default_buffer_prototype()))
        packed = content.to_bytes() if content is not None else b""
        if int.from_bytes(packed[-4:], "little") != crc32c(packed[:-4]):
            raise ValueError(f"the checksum of chunk {chunk} is another")
        first = chunk * size
        texts = VLenUTF8().decode(Zstd().decode(packed[:-4]))
        pieces.append(texts[max(0, start - first) : stop - first])
    return np.concatenate(pieces)


@contextmanager
def undamaged(array: ZarrArray) -> Iterator[None]:
    """Say in one sentence that the bytes of an array are not those that were written."""
    try:
        yield
    except (ValueError, RuntimeError) as error:
        raise StoreError(f"{array.store_path}: {error}: {DAMAGED}") from error


def read_frame(root: zarr.Group, name: str, rows: slice = slice(None)) -> pd.DataFrame:
    """Read a data frame in AnnData's encoding, or some of its rows that lie together."""
    group = root[name]
    attributes: dict[str, Any] = dict(group.attrs)
    columns: dict[str, Any] = {}
    for column in (attributes["_index"], *attributes["column-order"]):
        if isinstance(group[column], zarr.Group):
            codes = values_of(root, f"{name}/{column}/codes", rows)
            categories = pd.Index(values_of(root, f"{name}/{column}/categories"))
            columns[column] = pd.Categorical.from_codes(codes, categories=categories)
        else:
            columns[column] = values_of(root, f"{name}/{column}", rows)
    return pd.DataFrame(columns).set_index(attributes["_index"])


def read_vectors(root: zarr.Group, name: str) -> dict[tuple[str, str], NDArray[Any]]:
    """Read the one-dimensional arrays of a group, by dimension and name."""
    group, vectors = root[name], dict[tuple[str, str], NDArray[Any]]()
    if isinstance(group, zarr.Group):
        for child in group:
            dims: Any = array_of(group, child).metadata.to_dict()["dimension_names"]
            vectors[dims[0], child] = values_of(group, child)
    return vectors


def _with_index(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.reset_index()


def _encoding(kind: str) -> dict[str, Any]:
    return {"encoding-type": kind, "encoding-version": _ANNDATA[kind]}


def tag(group: zarr.Group, kind: str, **attributes: Any) -> None:
    """Say what a group is to AnnData."""
    group.attrs.update(_encoding(kind) | attributes)


def float_options(*dims: str) -> dict[str, Any]:
    """Give what all arrays of numbers by row have in common, as arguments of `create_array`."""
    return {
        "fill_value": np.nan,
        "dimension_names": dims,
        "attributes": _encoding("array"),
        "config": {"write_empty_chunks": True},
    }
