"""Threads keep the order, stay bounded, and hand over errors."""

import logging
import threading
import time
from collections.abc import Iterator

import pytest

from scbasset_ism import pipeline
from scbasset_ism.pipeline import DEPTH, Estimate, in_background, prefetch, progress_bar
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


class TestEstimate:
    @pytest.fixture
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> list[float]:
        """The time, which only the test changes."""
        now = [100.0]
        monkeypatch.setattr(pipeline, "perf_counter", lambda: now[0])
        return now

    def test_it_is_told_once_after_the_first_rows(self, clock: list[float]) -> None:
        estimate, told = Estimate(1_000_000), []
        for seconds, rows in [(60, 250), (0.5, 250), (1, 0), (1, 250), (9, 250), (9, 250)]:
            clock[0] += seconds
            told.append(estimate(rows))
        assert told.count("") == 5
        assert told[3] == "time: about 83 min for the next 999,250 rows, at 200 rows a second"

    def test_short_runs_say_nothing(self, clock: list[float]) -> None:
        for n_rows, seconds in ((200, 60.0), (600, 0.3)):
            estimate = Estimate(n_rows)
            for _ in range(0, n_rows, 100):
                clock[0] += seconds
                assert not estimate(100)

    def test_a_run_says_it(
        self, clock: list[float], caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "scbasset_ism")
        with progress_bar(1000, 200, show=True) as advance:
            for _ in range(3):
                clock[0] += 10
                advance(100)
        assert [record.message for record in caplog.records] == [
            "time: about 60 s for the next 600 rows, at 10 rows a second"
        ]
