"""Threads keep the order, stay bounded, and hand over errors."""

import threading
import time
from collections.abc import Iterator

import pytest

from scbasset_ism.pipeline import DEPTH, in_background, prefetch
from scbasset_ism.streams import batched


@pytest.mark.parametrize("n", [0, 1, 3, 4, 5, 8])
def test_batches_hold_everything_in_order(n: int) -> None:
    batches = list(batched(range(n), 4))
    assert [item for batch in batches for item in batch] == list(range(n))
    assert all(len(batch) == 4 for batch in batches[:-1])
    assert all(batches)


@pytest.mark.parametrize("n", [0, 1, DEPTH, 50])
def test_prefetch_keeps_the_order_and_does_not_run_away(n: int) -> None:
    produced, consumed, ahead = 0, 0, []

    def source() -> Iterator[int]:
        nonlocal produced
        for i in range(n):
            produced += 1
            yield i

    for i in prefetch(source()):
        assert i == consumed
        consumed += 1
        time.sleep(0.001)
        ahead.append(produced - consumed)
    assert consumed == n
    assert max(ahead, default=0) <= DEPTH


def test_prefetch_works_in_another_thread_and_hands_errors_over() -> None:
    def source() -> Iterator[int]:
        yield threading.get_ident()
        raise ValueError("bad line")

    items = prefetch(source())
    assert next(items) != threading.get_ident()
    with pytest.raises(ValueError, match="bad line"):
        next(items)


def test_background_work_is_done_in_order_and_finished() -> None:
    done: list[int] = []

    def work(i: int) -> None:
        time.sleep(0.001)
        done.append(i)

    with in_background(work) as submit:
        for i in range(20):
            submit(i)
    assert done == list(range(20))


@pytest.mark.parametrize("failing", [0, 19], ids=["early", "last"])
def test_background_errors_reach_the_caller(failing: int) -> None:
    def work(i: int) -> None:
        if i == failing:
            raise OSError("disk full")

    def submit_all() -> None:
        with in_background(work) as submit:
            for i in range(20):
                submit(i)

    with pytest.raises(OSError, match="disk full"):
        submit_all()


def test_an_error_of_the_caller_drops_what_waits() -> None:
    done: list[int] = []

    def work(i: int) -> None:
        time.sleep(0.05)
        done.append(i)

    def fail_after_three() -> None:
        with in_background(work) as submit:
            submit(0)
            submit(1)
            submit(2)
            raise KeyError

    with pytest.raises(KeyError):
        fail_after_three()
    assert len(done) < 3
