"""What torchrun tells the processes that it starts, in their environment. PyTorch is not needed to
read it.
"""

import os
import platform
from dataclasses import dataclass

from alexnet.errors import UsageError

TORCHRUN = "torchrun --standalone --nproc-per-node 2 -m alexnet train"
#: torchrun's name of a launch that was given none.
NAMELESS = "none"


@dataclass(frozen=True)
class Launch:
    """One process of a launch.

    Attributes:
        rank: this process, in [0, count).
        count: processes.
        local_rank, local_count: the same on this machine.
        address: where their key-value store is, "host:port"; empty for one process alone.
        restart: whether torchrun has started its processes before: it repeats the command when one
            of them ends with an error.
        restarts_left: how often it will.
        name: the same after a restart, another for another torchrun.
    """

    rank: int
    count: int
    local_rank: int
    local_count: int
    address: str
    restart: bool
    restarts_left: int
    name: str


def launched() -> bool:
    """Whether torchrun, or something like it, started this process as one of several or as the
    only one.
    """
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def several_by_torchrun() -> bool:
    """Whether torchrun itself started this process and others."""
    return "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("WORLD_SIZE") != "1"


def another_speaks() -> bool:
    """Whether the first process on this machine says what goes wrong before all are connected: they
    have the same command.
    """
    return launched() and all(os.environ.get(name, "0") not in ("", "0") for name in ("RANK", "LOCAL_RANK"))


def read_launch() -> Launch:
    """This process, as its environment says.

    Raises:
        UsageError: a variable is missing or does not fit.
    """
    count = _number("WORLD_SIZE", 1, None)
    rank = _number("RANK", 0, count - 1)
    local_count = _number("LOCAL_WORLD_SIZE", 1, count) if "LOCAL_WORLD_SIZE" in os.environ else 1
    local_rank = _number("LOCAL_RANK", 0, local_count - 1) if "LOCAL_RANK" in os.environ else 0
    address = f"{_given('MASTER_ADDR')}:{_number('MASTER_PORT', 0, 65535)}" if count > 1 else ""
    restarts, most = (int(os.environ.get(f"TORCHELASTIC_{name}", "0")) for name in ("RESTART_COUNT", "MAX_RESTARTS"))
    return Launch(rank, count, local_rank, local_count, address, restarts > 0, most - restarts, _name())


def _name() -> str:
    """The one that torchrun has, if it is its own; otherwise that of its process."""
    given = os.environ.get("TORCHELASTIC_RUN_ID", NAMELESS)
    return given if given != NAMELESS else f"{platform.node()}, process {os.getppid()}"


def _given(name: str) -> str:
    if value := os.environ.get(name):
        return value
    raise UsageError(f"{name} is not set, and RANK and WORLD_SIZE are: start with `{TORCHRUN}`, which sets all of them.")


def _number(name: str, least: int, most: int | None) -> int:
    value = _given(name)
    if value.isdecimal() and least <= int(value) and (most is None or int(value) <= most):
        return int(value)
    rule = f"at least {least}" if most is None else f"from {least} to {most}"
    raise UsageError(
        f"{name} (={value}) must be a whole number {rule}: leave it to torchrun (`{TORCHRUN}`), or unset RANK and "
        "WORLD_SIZE to train in one process."
    )
