"""Processes that decode: in order, their errors here, and no waiting for one that died."""

import os
import struct
import sys
import time

import pytest

from alexnet.data.workers import WorkerDied, Workers, open_workers
from alexnet.errors import SourceError


def triple(number: int) -> bytes:
    """A long answer, which a pipe holds a part of at most."""
    return bytes([number]) * 300_000


def fail(number: int) -> int:
    if number == 5:
        raise SourceError(f"number {number}")
    return number


def die(number: int) -> bytes:
    """The fourth job ends its process when half of the answer is in the pipe."""
    if number == 3:
        pipe = sys._getframe(1).f_locals["pipe"]
        os.write(pipe.fileno(), struct.pack("!i", 1000) + bytes(500))
        os._exit(1)
    return b""


def test_in_this_process() -> None:
    assert list(Workers().each(triple, iter(range(3)))) == [triple(number) for number in range(3)]


def test_in_two() -> None:
    """Answers are in order, an error is raised where its answer would be, a dead process
    is an error and ends all.
    """
    with open_workers(2, 0) as workers:
        assert list(workers.each(triple, range(40))) == [triple(number) for number in range(40)]
        answers = workers.each(fail, range(9))
        assert [next(answers) for _ in range(5)] == list(range(5))
        with pytest.raises(SourceError, match="number 5"):
            next(answers)
        begun = time.monotonic()
        with pytest.raises(WorkerDied, match=r"process \d+ ended without an answer"):
            list(workers.each(die, range(20)))
    assert time.monotonic() - begun < 20
