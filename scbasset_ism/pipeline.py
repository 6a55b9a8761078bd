"""How a run goes: one thread reads ahead of the device, one writes behind, and neither gets far."""

import logging
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any, ParamSpec, TypeVar

from tqdm import tqdm

from scbasset_ism.errors import ScbassetError
from scbasset_ism.store import Layout, Precision

log = logging.getLogger(__name__)

T = TypeVar("T")
P = ParamSpec("P")

# Where the work is done changes the last digits at most; shards say which devices did it.
_UNRECORDED = {"device", "devices", "workers", "overwrite", "progress"}
MEASURED_FOR = 2.0  # seconds, before a run says how long it will take
DEPTH = 3  # batches that wait on either side of the device


@dataclass(frozen=True)
class RunOptions:
    """What all runs have in common.

    Attributes:
        layout: `dense` writes a value for every cell, `factored` what they follow from.
        dense_precision: `bitround` keeps 10 bits of the mantissa in the dense values.
        rc: Average over both strands.
        shifts: Average over windows moved by up to so many bases to either side.
        batch_size: Rows that go through the network together.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        workers: Processes that share the work.
        devices: One for each worker in turn; as many workers as devices at least.
        overwrite: Replace a store that exists.
        progress: Show a bar on stderr where that is a terminal.
    """

    layout: Layout = "dense"
    dense_precision: Precision = "float32"
    rc: bool = False
    shifts: int = 0
    batch_size: int = 256
    device: str = "auto"
    workers: int = 1
    devices: tuple[str, ...] = ()
    overwrite: bool = False
    progress: bool = False

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.shifts < 0 or self.workers < 1:
            raise ScbassetError(
                f"batch size {self.batch_size}, shifts {self.shifts} and workers {self.workers}: "
                "shifts must be at least 0, the others at least 1"
            )

    @property
    def n_workers(self) -> int:
        """Processes that share the work."""
        return max(self.workers, len(self.devices))

    def recorded(self) -> dict[str, Any]:
        """What the store says of them, which is what the numbers depend on; JSON."""
        return {k: v for k, v in asdict(self).items() if k not in _UNRECORDED}


def prefetch(items: Iterable[T]) -> Generator[T]:
    """Run an iterator in a thread of its own, a few items ahead; its errors arrive here."""
    iterator, end = iter(items), object()
    with ThreadPoolExecutor(max_workers=1) as pool:
        waiting = deque(pool.submit(next, iterator, end) for _ in range(DEPTH))
        try:
            while (item := waiting.popleft().result()) is not end:
                waiting.append(pool.submit(next, iterator, end))
                yield item  # type: ignore[misc]
        finally:
            for future in waiting:
                future.cancel()


@contextmanager
def in_background(work: Callable[P, None]) -> Iterator[Callable[P, None]]:
    """Run calls one after the other in a thread; the first error is raised at the next call."""
    waiting = deque[Future[None]]()

    def submit(*args: P.args, **kwargs: P.kwargs) -> None:
        while len(waiting) >= DEPTH:
            waiting.popleft().result()
        waiting.append(pool.submit(work, *args, **kwargs))

    with ThreadPoolExecutor(max_workers=1) as pool:
        try:
            yield submit
            while waiting:
                waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


class Estimate:
    """Tells once how long a run will take, from its own rows on its own device.

    The first rows also pay for what is loaded once, so the clock starts after them.

    Args:
        n_rows: To be done.
    """

    def __init__(self, n_rows: int) -> None:
        self._left, self._done, self._start, self._told = n_rows, 0, 0.0, False

    def __call__(self, n_rows: int) -> str:
        """Count rows that are done; give a sentence when there is one to say."""
        if self._told or not n_rows:
            return ""
        now = perf_counter()
        self._left -= n_rows
        if not self._start:
            self._start = now
            return ""
        self._done += n_rows
        taken = now - self._start
        if taken < MEASURED_FOR or not self._left:
            return ""
        self._told = True
        rate = self._done / taken
        time = duration_text(self._left / rate)
        speed = f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
        return f"time: about {time} for the next {self._left:,} rows, at {speed} rows a second"


def duration_text(seconds: float) -> str:
    """Write a time as people say it.

    >>> [duration_text(seconds) for seconds in (42.4, 500, 12_345, 400_000)]
    ['42 s', '8 min', '3 h 26 min', '4.6 days']
    """
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 90:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes / (24 * 60):.1f} days"


@contextmanager
def progress_bar(total: int, initial: int = 0, *, show: bool) -> Iterator[Callable[[int], object]]:
    """Count rows; say once how long all will take, and show a bar on stderr if it is a terminal."""
    estimate = Estimate(total - initial)
    with tqdm(total=total, initial=initial, unit=" rows", disable=None if show else True) as bar:

        def advance(n_rows: int) -> None:
            bar.update(n_rows)
            if sentence := estimate(n_rows):
                with bar.external_write_mode(file=sys.stderr):
                    log.info(sentence)

        yield advance


@contextmanager
def step_bar(total: int, what: str, *, show: bool) -> Iterator[Callable[..., None]]:
    """Count steps of a training on stderr, where that is a terminal.

    Yields:
        Call it after every step, with numbers to show by name.
    """
    with tqdm(total=total, desc=what, leave=False, disable=None if show else True) as bar:

        def advance(**numbers: float) -> None:
            bar.set_postfix(numbers, refresh=False)
            bar.update()

        yield advance
