"""Tasks in processes of their own, which end with the process that started them."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import connection, get_context, parent_process
from multiprocessing.connection import Connection

from scbasset_ism.errors import ScbassetError

_context = get_context("spawn")  # a fork would share what torch and CUDA have in memory


def run_together(tasks: Sequence[Callable[[], None]], every: float = 1.0) -> Iterator[None]:
    """Run tasks at once, a process each; gives control back every few seconds, and at the end.

    Args:
        tasks: May be pickled.
        every: Seconds.

    Raises:
        ScbassetError: A task failed, or its process died; the others are ended.
    """
    pipes = [_context.Pipe(duplex=False) for _ in tasks]
    processes = [
        _context.Process(target=_work, args=(task, sender), daemon=True)
        for task, (_, sender) in zip(tasks, pipes, strict=True)
    ]
    started = []
    try:
        for process, (_, sender) in zip(processes, pipes, strict=True):
            with _deaf():
                process.start()
            started.append(process)
            sender.close()
        running = {receiver for receiver, _ in pipes}
        while running:
            for receiver in running.intersection(connection.wait(list(running), timeout=every)):
                running.remove(receiver)
                _check(receiver)
            yield
    finally:
        for process in started:
            process.kill()  # what it was writing lies aside, and never counts
            process.join()


def _check(receiver: Connection) -> None:
    """Raise what a task raised."""
    try:
        error = receiver.recv()
    except EOFError:
        raise ScbassetError(
            "a worker died without a word, perhaps since memory ran out: take fewer --workers or "
            "a smaller --batch-size, and run the same command again"
        ) from None
    if error is not None:
        raise error


def _work(task: Callable[[], None], sender: Connection) -> None:
    """Run a task in a new process, and send its error, or None."""
    threading.Thread(target=_die_with_the_parent, daemon=True).start()
    try:
        task()
        error = None
    except ScbassetError as said:
        error = said
    sender.send(error)


@contextmanager
def _deaf() -> Iterator[None]:
    """Let processes that start now not hear Ctrl-C: who started them does, and ends them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, heard)


def _die_with_the_parent() -> None:
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
