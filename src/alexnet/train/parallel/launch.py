"""What torchrun sets in the environment of the processes that it starts. It is read without
PyTorch.
"""

import os
import platform
from dataclasses import dataclass

from alexnet.errors import UsageError

#: Seconds that ranks wait for one that does not answer: by default, at least, at most. Ranks that
#: are well start up to a second apart; beyond thirty years the clocks of gloo and nccl end.
TIMEOUT, SHORTEST, LONGEST = 300.0, 3.0, 1e9
TORCHRUN = "torchrun --standalone --nproc-per-node 2 -m alexnet train"
#: torchrun's name for a launch without --rdzv-id.
NAMELESS = "none"

_met: list[bool] = []


@dataclass(frozen=True)
class Launch:
    """One process of a launch.

    Attributes:
        rank: this process, in [0, count).
        count: processes.
        local_rank, local_count: the same among those on this machine.
        address: of their key-value store, "host:port"; empty for a single process.
        restart: whether torchrun restarted the processes, as it does when one of them fails.
        restarts_left: how often torchrun may still restart them.
        name: of the launch: the same after a restart, and another for another torchrun.
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
    """Whether torchrun or a similar launcher started this process, alone or as one of several."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def several_by_torchrun() -> bool:
    """Whether torchrun itself started several processes."""
    return "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("WORLD_SIZE") != "1"


def another_speaks() -> bool:
    """Whether this process leaves errors before the ranks are connected to rank 0, or to the first
    rank of its machine: all have the same command.
    """
    return launched() and not _met and all(os.environ.get(name, "0") not in ("", "0") for name in ("RANK", "LOCAL_RANK"))


def have_met() -> None:
    """The ranks are connected: from here on rank 0 reports errors."""
    _met.append(True)


def read_launch() -> Launch:
    """This process, from its environment.

    Raises:
        UsageError: a variable is missing or invalid.
    """
    count = _number("WORLD_SIZE", 1, None)
    rank = _number("RANK", 0, count - 1)
    local_count = _number("LOCAL_WORLD_SIZE", 1, count) if "LOCAL_WORLD_SIZE" in os.environ else 1
    local_rank = _number("LOCAL_RANK", 0, local_count - 1) if "LOCAL_RANK" in os.environ else 0
    address = f"{_given('MASTER_ADDR')}:{_number('MASTER_PORT', 0, 65535)}" if count > 1 else ""
    restarts, most = (int(os.environ.get(f"TORCHELASTIC_{name}", "0")) for name in ("RESTART_COUNT", "MAX_RESTARTS"))
    return Launch(rank, count, local_rank, local_count, address, restarts > 0, most - restarts, _name())


def _name() -> str:
    """The --rdzv-id of the launch, or if it has none, the machine and process of torchrun."""
    given = os.environ.get("TORCHELASTIC_RUN_ID", NAMELESS)
    return given if given != NAMELESS else f"{platform.node()}, process {os.getppid()}"


def _given(name: str) -> str:
    if value := os.environ.get(name):
        return value
    raise UsageError(f"{name} is not set, but RANK and WORLD_SIZE are: start with `{TORCHRUN}`, which sets all of them.")


def _number(name: str, least: int, most: int | None) -> int:
    value = _given(name)
    if value.isdecimal() and least <= int(value) and (most is None or int(value) <= most):
        return int(value)
    rule = f"at least {least}" if most is None else f"from {least} to {most}"
    raise UsageError(
        f"{name} (={value}) must be a whole number {rule}: leave it to torchrun (`{TORCHRUN}`), or unset RANK and "
        "WORLD_SIZE to train in one process."
    )
