"""Which positions of each layer an edit can change; integers only.

A span is half-open. A chunk of edits shares one width of frame per layer, so that everything is
one dense tensor; each edit has its own frame start. Frames lie inside their layer.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scbasset_ism.model import Config

Integers = NDArray[np.int64]
Span = tuple[Integers, Integers]


@dataclass(frozen=True)
class Geometry:
    """What a layer does to positions: a centred kernel, then pooling.

    Attributes:
        kernel: Taps, odd.
        pool: Positions that one maximum joins.
        length: Positions before the pooling.
    """

    kernel: int
    pool: int
    length: int

    @property
    def pooled(self) -> int:
        """Positions after the pooling."""
        return self.length // self.pool


@dataclass(frozen=True)
class Spots:
    """Where edits of one width lie.

    Attributes:
        window: Row of the window in its batch, (edits,) int64.
        offset: First base in the window, (edits,) int64.
        width: Bases.
    """

    window: Integers
    offset: Integers
    width: int


@dataclass(frozen=True)
class Step:
    """Where the frames of a chunk lie after one layer.

    Attributes:
        width: Pooled positions of each frame.
        rows: First pooled position of each frame, counted through the windows, (edits,).
        shift: Where the first convolved difference lies, in rows before the pooling from the
            frame's first row, maybe less than 0, (edits,).
    """

    width: int
    rows: Integers
    shift: Integers


@dataclass(frozen=True)
class Chunk:
    """Edits that pass the network together; frames of a layer have one width.

    Attributes:
        edits: Their indices, (edits,).
        steps: One per layer.
        final_start: First position of their frames after the last layer, (edits,).
    """

    edits: Integers
    steps: list[Step]
    final_start: Integers


def geometry(config: Config) -> list[Geometry]:
    """List the layers: stem, tower, pointwise."""
    layers = [Geometry(config.stem_kernel, config.stem_pool, config.window)]
    for _ in config.tower_channels:
        layers.append(Geometry(config.tower_kernel, config.tower_pool, layers[-1].pooled))
    return [*layers, Geometry(1, 1, layers[-1].pooled)]


def spans(layers: list[Geometry], start: Integers, stop: Integers) -> list[Span]:
    """Follow [start, stop) through the layers.

    Returns:
        The span of each edit in the input, then after each layer.

    >>> layers = geometry(Config())
    >>> [(int(a[0]), int(b[0])) for a, b in spans(layers, np.array([672]), np.array([673]))]
    [(672, 673), (221, 227), (109, 115), (53, 59), (25, 31), (11, 17), (4, 10), (1, 6), (1, 6)]
    """
    out = [(start, stop)]
    for layer in layers:
        reach = layer.kernel // 2
        start = np.maximum(start - reach, 0) // layer.pool
        stop = -(-np.minimum(stop + reach, layer.length) // layer.pool)
        out.append((start, stop))
    return out


def plan(layers: list[Geometry], spots: Spots, size: int) -> Iterator[Chunk]:
    """Split edits into chunks of at most `size`.

    Edits with equal widths come together, since a chunk's frames are as wide as its widest span.
    """
    followed = spans(layers, spots.offset, spots.offset + spots.width)
    widths = [stop - start for start, stop in followed[1:]]
    order = np.lexsort([spots.offset, spots.window, *widths[::-1]])
    for first in range(0, len(order), size):
        edits = order[first : first + size]
        chosen = [(start[edits], stop[edits]) for start, stop in followed]
        steps, final_start = place_frames(layers, chosen, spots.window[edits])
        yield Chunk(edits, steps, final_start)


def place_frames(
    layers: list[Geometry], followed: list[Span], window: Integers
) -> tuple[list[Step], Integers]:
    """Give each edit a frame around its span in each layer; also where the last ones start."""
    frame, steps = followed[0][0], []
    for layer, (start, stop) in zip(layers, followed[1:], strict=True):
        width = int((stop - start).max())
        pooled_frame = np.minimum(start, layer.pooled - width)
        shift = frame - layer.kernel // 2 - layer.pool * pooled_frame
        steps.append(Step(width, window * layer.pooled + pooled_frame, shift))
        frame = pooled_frame
    return steps, frame
