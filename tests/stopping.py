"""Ctrl-C at a chosen moment of a run."""

import os
import signal
from typing import Any

import pytest


def stop_after(patch: pytest.MonkeyPatch, owner: type, name: str, after: int) -> list[int]:
    """Have the process interrupted once a method has been called `after` times; the
    numbers of its calls so far.
    """
    method, calls = getattr(owner, name), []

    def counted(*arguments: Any) -> None:
        method(*arguments)
        calls.append(len(calls) + 1)
        if len(calls) == after:
            os.kill(os.getpid(), signal.SIGINT)

    patch.setattr(owner, name, counted)
    return calls
