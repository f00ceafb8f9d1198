"""How ranks find each other and check that they match, through torchrun's key-value store.

The store survives a restart, and with it all that the ranks wrote before. So each start has a
section of its own in it, under a random name that rank 0 draws. Another rank asks for this name
with a random token, so it cannot take the answer to a rank of an earlier start for its own.
"""

import hashlib
import secrets
from dataclasses import replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import alexnet
from alexnet.errors import TrainingError
from alexnet.train.parallel.launch import Launch
from alexnet.train.parallel.notes import Notes, named, polled

ASKED, ANSWERED, LAUNCH = "alexnet/asked/{rank}", "alexnet/answered/{token}", "alexnet/launch"


def meet(launch: Launch, timeout: float) -> tuple[Launch, Notes]:
    """The launch, on rank 0 with its name in the store, and the notes of this start.

    Raises:
        TrainingError: the store cannot be reached, its port is in use, or a rank did not come
            within `timeout` seconds.
    """
    import torch.distributed as dist

    try:
        store = next(dist.rendezvous("env://", launch.rank, launch.count, timeout=timedelta(seconds=timeout)))[0]
    except (RuntimeError, ValueError) as error:  # DistError is a RuntimeError
        raise TrainingError(_unreachable(launch, str(error).splitlines()[0], timeout)) from error
    name = _named(launch, store, timeout) if launch.rank == 0 else _asked(launch, store, timeout)
    launch = _same_launch(launch, store) if launch.rank == 0 else launch
    return launch, Notes(launch.rank, launch.count, timeout, dist.PrefixStore(name, store), launch.restarts_left > 0)


def _same_launch(launch: Launch, store: Any) -> Launch:
    """The launch under a name that lives as long as torchrun's store. torchrun's own name may also
    be that of an earlier launch, and if one machine fails the others do not count a restart.
    """
    token = secrets.token_hex(8)
    name = store.compare_set(LAUNCH, "", token).decode()
    return replace(launch, name=name, restart=name != token)


def _unreachable(launch: Launch, reason: str, timeout: float) -> str:
    if "EADDRINUSE" in reason or "in use" in reason:
        return (
            f"MASTER_PORT (={launch.address.rpartition(':')[2]}) is in use on this machine: choose another one, or "
            "let torchrun choose it with --standalone."
        )
    return (
        f"rank {launch.rank} of {launch.count} cannot reach the others at MASTER_ADDR:MASTER_PORT (={launch.address}) within "
        f"{timeout:g} seconds ({reason}): check the address, and that all machines have started."
    )


def _named(launch: Launch, store: Any, timeout: float) -> str:
    """On rank 0: draw the name of this start, and wait until all ranks have it."""
    name, missing, answered = secrets.token_hex(8), set(range(1, launch.count)), set()
    for _ in polled(timeout):
        for rank in sorted(missing):
            if store.check([ASKED.format(rank=rank)]):
                token = store.get(ASKED.format(rank=rank)).decode()
                if token not in answered:
                    store.set(ANSWERED.format(token=token), name)
                    answered.add(token)
            if store.check([f"{name}/{rank}"]):
                missing.discard(rank)
        if not missing:
            return name
    raise TrainingError(
        f"{named(sorted(missing), launch.count)} did not start within {timeout:g} seconds (--rank-timeout): see what torchrun "
        "reports about it, and start all ranks again."
    )


def _asked(launch: Launch, store: Any, timeout: float) -> str:
    """On another rank: ask for the name of this start."""
    token = secrets.token_hex(8)
    store.set(ASKED.format(rank=launch.rank), token)
    for _ in polled(timeout):
        if store.check([ANSWERED.format(token=token)]):
            name: str = store.get(ANSWERED.format(token=token)).decode()
            store.set(f"{name}/{launch.rank}", "")
            return name
    raise TrainingError(
        f"rank 0 of {launch.count} did not start within {timeout:g} seconds (--rank-timeout): see what torchrun reports "
        "about it, and start all ranks again."
    )


def program(launch: Launch) -> dict[str, str]:
    """What must be the same in all processes, by name."""
    import torch

    return {
        "processes": str(launch.count),
        "alexnet": alexnet.__version__,
        "source code": source_hash(),
        "torch": torch.__version__,
    }


@cache
def source_hash() -> str:
    """A hash of the names and bytes of the package's modules."""
    root, digest = Path(alexnet.__file__).parent, hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12]
