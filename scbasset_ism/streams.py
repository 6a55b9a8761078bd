"""Cutting a stream into what goes together."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def pick(items: Iterable[T], rows: Iterable[range]) -> Iterator[T]:
    """Give the items of some rows: ranges in ascending order.

    >>> list(pick("abcdefgh", [range(1, 3), range(6, 7)]))
    ['b', 'c', 'g']
    """
    iterator, place = iter(items), 0
    for wanted in rows:
        yield from islice(iterator, wanted.start - place, wanted.stop - place)
        place = wanted.stop


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Cut a stream into lists of `size`; the last one may be shorter."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def batched_by_shard(items: Iterable[T], rows: Iterable[range], size: int) -> Iterator[list[T]]:
    """Cut the items of some rows into batches, none of which reaches into two ranges.

    What goes through the network together rounds together, so batches must not depend on which
    shards a worker has.

    >>> list(batched_by_shard("abcde", [range(0, 3), range(6, 8)], 2))
    [['a', 'b'], ['c'], ['d', 'e']]
    """
    iterator = iter(items)
    for wanted in rows:
        yield from batched(islice(iterator, len(wanted)), size)
