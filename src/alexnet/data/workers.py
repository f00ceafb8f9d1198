"""Worker processes that read and decode pictures ahead of the process that writes.

Each process has a pipe of its own, and a thread here that waits for its answers. So one that dies,
for lack of memory say, is the end of its pipe and an error at once. (In
`concurrent.futures.ProcessPoolExecutor` all share one pipe: half an answer of a dead process keeps
the others, and the parent, waiting for ever.) Ctrl-C and SIGTERM are answered by the parent alone,
which ends its processes; when it is killed, their pipes end.
"""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from queue import SimpleQueue
from types import FrameType
from typing import Any, NamedTuple, TypeVar

from alexnet.errors import StoreError

Job = TypeVar("Job")
Answer = TypeVar("Answer")

CORES = os.cpu_count() or 1
#: More processes than this wait for cores and take memory: 0.2 GB each.
MOST = max(8, 4 * CORES)
#: Below this many pictures, starting processes (they load PyTorch) takes longer than decoding.
FEW = 500


class WorkerDied(Exception):
    """A process ended without an answer."""


def check_workers(workers: int | None) -> None:
    """Refuse an impossible number of worker processes.

    Raises:
        StoreError: it is not a whole number from 1 to `MOST`.
    """
    if workers is not None and (type(workers) is not int or not 1 <= workers <= MOST):
        raise StoreError(f"workers (={workers!r}) must be a whole number from 1 to {MOST}; this machine has {CORES} cores.")


class Worker(NamedTuple):
    """A process, and this side of its pipe."""

    process: BaseProcess
    pipe: "Connection[Any, Any]"


class Workers:
    """Runs jobs in other processes, or in this one if it has none."""

    def __init__(self, workers: Sequence[Worker] = (), threads: ThreadPoolExecutor | None = None) -> None:
        self._threads, self._ahead = threads, 2 * len(workers)
        self._idle: SimpleQueue[Worker] = SimpleQueue()
        for worker in workers:
            self._idle.put(worker)

    def each(self, function: Callable[[Job], Answer], jobs: Iterable[Job]) -> Iterator[Answer]:
        """`function` of each job, in order; a few are done ahead of the next result.

        Raises:
            WorkerDied: a process ended, killed by the system perhaps.
        """
        if self._threads is None:
            yield from map(function, jobs)
            return
        waiting: deque[Future[Answer]] = deque()
        for job in jobs:
            waiting.append(self._threads.submit(self._ask, function, job))
            if len(waiting) > self._ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def _ask(self, function: Callable[[Job], Answer], job: Job) -> Answer:
        worker = self._idle.get()  # there are as many threads as processes
        try:
            worker.pipe.send((function, job))
            answer, error = worker.pipe.recv()
        except (EOFError, OSError) as end:
            raise WorkerDied(f"process {worker.process.pid} ended without an answer") from end
        finally:
            self._idle.put(worker)
        if error is not None:
            raise error
        result: Answer = answer
        return result


@contextmanager
def open_workers(workers: int | None, images: int) -> Iterator[Workers]:
    """As many processes as given; if None, one for each core, or this process
    where there are few images."""
    count = workers or (CORES if images >= FEW else 1)
    if count == 1:
        yield Workers()
        return
    started: list[Worker] = []
    threads = ThreadPoolExecutor(count)
    try:
        with _deaf():
            _start(count, started)
        yield Workers(started, threads)
    finally:
        with _deaf():  # a second Ctrl-C must not leave processes behind
            threads.shutdown(wait=False, cancel_futures=True)
            for worker in started:
                worker.process.kill()  # the threads that wait for them end with their pipes
            for worker in started:
                worker.process.join()
            threads.shutdown(wait=True)
            for worker in started:
                worker.pipe.close()


def _start(count: int, started: list[Worker]) -> None:
    # Forking from a process whose threads have started can hang; the fork server has none.
    methods = multiprocessing.get_all_start_methods()
    context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    for _ in range(count):
        pipe, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs,), daemon=True)
        process.start()
        theirs.close()
        started.append(Worker(process, pipe))


def _work(pipe: "Connection[Any, Any]") -> None:
    """Answer jobs until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import torch

    torch.set_num_threads(1)
    while True:
        try:
            function, job = pipe.recv()
        except EOFError:
            return
        answer: tuple[Any, Exception | None]
        try:
            answer = function(job), None
        except Exception as error:
            answer = None, error
        try:
            pipe.send(answer)
        except BrokenPipeError:  # the parent was killed
            return


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """Let SIGTERM raise KeyboardInterrupt, so that it ends workers and says how to continue, as
    Ctrl-C does.
    """
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
    """Ignore Ctrl-C within the block (processes started in it ignore it for good), and delay
    SIGTERM.
    """
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
