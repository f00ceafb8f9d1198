"""Processes that read and decode ahead of the one that writes.

Ctrl-C and SIGTERM are answered by the parent alone, which ends its workers. A parent that is killed ends them too: each waits
for that in a thread.
"""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import wait
from types import FrameType
from typing import TypeVar

from alexnet.errors import StoreError

Job = TypeVar("Job")
Answer = TypeVar("Answer")

CORES = os.cpu_count() or 1
#: More processes than this wait for cores and take memory: 0.2 GB each.
MOST = max(8, 4 * CORES)
#: Seconds that a worker lives on after SIGTERM.
PATIENCE = 10.0
#: Below this many pictures, starting processes (they load PyTorch) takes longer than decoding.
FEW = 500


def check_workers(workers: int | None) -> None:
    """Refuse a number of processes that cannot be meant.

    Raises:
        StoreError: it is not a whole number from 1 to `MOST`.
    """
    if workers is not None and (type(workers) is not int or not 1 <= workers <= MOST):
        raise StoreError(f"workers (={workers!r}) must be a whole number from 1 to {MOST}: this machine has {CORES} cores.")


class Workers:
    """Where jobs are done: in `count` processes, or in this one."""

    def __init__(self, executor: Executor | None, count: int) -> None:
        self._executor, self._ahead = executor, 2 * count

    def each(self, function: Callable[[Job], Answer], jobs: Iterable[Job]) -> Iterator[Answer]:
        """`function` of each job, in order; a few are done ahead of the one that is asked for."""
        if self._executor is None:
            yield from map(function, jobs)
            return
        waiting: deque[Future[Answer]] = deque()
        for job in jobs:
            waiting.append(self._executor.submit(function, job))
            if len(waiting) > self._ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@contextmanager
def open_workers(workers: int | None, images: int) -> Iterator[Workers]:
    """As many processes as asked for; if None, one for each core, or this process where there are few images."""
    workers = workers or (CORES if images >= FEW else 1)
    if workers == 1:
        yield Workers(None, 1)
        return
    # Forking from a process whose threads have started can hang; the fork server has none.
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    with _deaf():  # Ctrl-C reaches the whole group of processes; the parent alone shall answer, and not halfway through a start
        if method == "forkserver":
            from multiprocessing import forkserver  # not on every system

            forkserver.ensure_running()
        executor = ProcessPoolExecutor(workers, multiprocessing.get_context(method), initializer=_start)
        for _ in range(workers):
            executor.submit(os.getpid)  # each first task starts a worker
    try:
        yield Workers(executor, workers)
    finally:
        with _deaf():  # a second Ctrl-C must not leave the workers behind; they end with the blocks that they have in hand
            executor.shutdown(wait=True, cancel_futures=True)


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt, so that it ends workers and says how to go on, as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    earlier = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)


def _interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - as `signal` calls it
    raise KeyboardInterrupt


@contextmanager
def _deaf() -> Iterator[None]:
    """For a moment ignore Ctrl-C, which processes started in it ignore for ever, and put off SIGTERM."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    put_off: list[int] = []
    at_ctrl_c = signal.signal(signal.SIGINT, signal.SIG_IGN)
    at_sigterm = signal.signal(signal.SIGTERM, lambda number, _: put_off.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, at_ctrl_c)
        signal.signal(signal.SIGTERM, at_sigterm)
        if put_off:
            signal.raise_signal(signal.SIGTERM)


def _start() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end_late)
    import torch

    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_late(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - as `signal` calls it
    """A SIGTERM to the whole group: go on, as the parent has it too and will say when to end.

    Ending here could leave half a result in the pipe that the parent reads, and it would wait for the rest for ever. Only if
    the parent does not answer, as it lost another worker, this one ends by itself.
    """
    timer = threading.Timer(PATIENCE, os._exit, [1])
    timer.daemon = True
    timer.start()


def _end_with_parent() -> None:
    """A killed parent cannot say so; without this its workers would wait for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
