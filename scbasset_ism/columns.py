"""What a file holds of a store: columns of deltas by cells or by groups, read block by block."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from scbasset_ism.errors import ExportError
from scbasset_ism.frames import Floats
from scbasset_ism.reader import Scores, group_weights, read_rows
from scbasset_ism.store import product

TABLE_ROWS = 1 << 14  # a shard of the layout `factored`, two or more of the layout `dense`
NUMBER = "%.9g"  # so many digits give the same float32 when they are read again
TEXT_VALUES = 1 << 19  # values that are text at once: some 50 MB


@dataclass(frozen=True)
class Columns:
    """Which deltas are written.

    Attributes:
        names: Of the cells or groups.
        about: What each is, in a few words.
        weight: (columns, bottleneck) float32; a delta is the bottleneck's times this.
    """

    names: tuple[str, ...]
    about: tuple[str, ...]
    weight: Floats

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Block:
    """Rows of a store that lie together.

    Attributes:
        table: Of the rows.
        values: (rows, columns) float32, NaN in rows without a score.
    """

    table: pd.DataFrame
    values: Floats


def choose_columns(
    store: Scores,
    by: str | Sequence[Any] | pd.Series | None = None,
    cells: Sequence[str | int] | None = None,
) -> Columns:
    """Choose cells or groups of a store; the mean over all cells where neither is named.

    Args:
        store: Of the scores.
        by: Column of the cells' table, or `cell_id` for each of them, or one label per cell.
        cells: Ids or numbers of cells.

    Raises:
        ExportError: Both are named, or what is named holds nothing.
        StoreError: There is no such column or cell.
    """
    if by is not None and cells is not None:
        raise ExportError("means by a column, or single cells? Give one of --by and --cells")
    if isinstance(by, str) and by == store.cells.index.name:
        cells = range(len(store.cells))
    if cells is not None:
        return _cells(store, cells)
    if by is None:
        about = f"mean over all {len(store.cells):,} cells"
        return Columns(("mean",), (about,), store.cell_weight.mean(axis=0, keepdims=True))
    groups = group_weights(store.group_labels(by))
    if groups.empty:
        raise ExportError(f"{store.path}: the cells have nothing but empty labels in {by!r}")
    sizes, names = (groups > 0).sum(axis=1), tuple(map(str, groups.index))
    column = by if isinstance(by, str) else "group"
    texts = (
        f"mean over cells with {column} {name!r} ({size:,})"
        for name, size in zip(names, sizes, strict=True)
    )
    return Columns(names, tuple(texts), groups.to_numpy() @ store.cell_weight)


def _cells(store: Scores, cells: Sequence[str | int]) -> Columns:
    numbers = store.cell_numbers(cells)
    if not numbers:
        raise ExportError(f"{store.path}: no cells are named")
    names = tuple(map(str, store.cells.index[numbers]))
    return Columns(names, tuple(f"cell {name!r}" for name in names), store.cell_weight[numbers])


def blocks(
    store: Scores, columns: Columns, rows: range | None = None, most: int | None = None
) -> Iterator[Block]:
    """Read rows in blocks of at most `TABLE_ROWS` rows, and `most` values where that is less.

    There is a block, if an empty one, even of no rows.
    """
    rows = range(len(store)) if rows is None else rows
    step = TABLE_ROWS if most is None else min(TABLE_ROWS, max(1, most // len(columns)))
    inside = range((rows.start // TABLE_ROWS + 1) * TABLE_ROWS, rows.stop, TABLE_ROWS)
    for start, stop in pairwise([rows.start, *inside, rows.stop]):
        table = store.rows(slice(start, stop))
        factor = read_rows(store.bottleneck, slice(start, stop))
        for first in range(0, max(1, len(table)), step):
            some = slice(first, first + step)
            yield Block(table.iloc[some], product(factor[some], columns.weight))


def text_rows(values: Floats, template: str, missing: str) -> list[str]:
    """Write rows as text.

    Args:
        values: (rows, columns).
        template: Of a row, with `NUMBER` for each value.
        missing: What stands for a row without a score.
    """
    is_there = ~np.isnan(values[:, 0])
    return [
        template % tuple(row) if there else missing
        for row, there in zip(values.tolist(), is_there.tolist(), strict=True)
    ]


def symbol(name: str) -> str:
    """Make a name fit for headers that allow few characters.

    >>> symbol("CD14+ monocyte")
    'CD14__monocyte'
    """
    return re.sub(r"[^0-9A-Za-z_.]", "_", name)


def distinct(names: Iterable[str], taken: Iterable[str] = ()) -> list[str]:
    """Number names that are there already.

    >>> distinct(["B", "T", "B"], taken=["T"])
    ['B', 'T_2', 'B_2']
    """
    found, used = list[str](), set(taken)
    for name in names:
        free, number = name, 1
        while free in used:
            number += 1
            free = f"{name}_{number}"
        used.add(free)
        found.append(free)
    return found
