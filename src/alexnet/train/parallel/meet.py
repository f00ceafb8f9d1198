"""How ranks find each other and make sure that they are alike, by torchrun's key-value store.

The store outlives a restart, and with it all that the ranks wrote before: so each start has a part
of its own, under a name that rank 0 makes anew. Another rank asks for the name with a word that it
makes anew itself, so that neither takes an answer to a rank that is gone for its own.
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
from alexnet.train.parallel.notes import Notes, polled

ASKED, ANSWERED, LAUNCH = "alexnet/asked/{rank}", "alexnet/answered/{word}", "alexnet/launch"


def meet(launch: Launch, timeout: float) -> tuple[Launch, Notes]:
    """The launch, with what rank 0 alone can know of it, and the notes of this start.

    Raises:
        TrainingError: the store cannot be reached, its port is in use, or a rank did not come
            within `timeout` seconds.
    """
    import torch.distributed as dist

    try:
        notes = next(dist.rendezvous("env://", launch.rank, launch.count, timeout=timedelta(seconds=timeout)))[0]
    except (RuntimeError, ValueError) as error:  # DistError is a RuntimeError
        raise TrainingError(_unreachable(launch, str(error).splitlines()[0], timeout)) from error
    name = _named(launch, notes, timeout) if launch.rank == 0 else _asked(launch, notes, timeout)
    launch = _same_launch(launch, notes) if launch.rank == 0 else launch
    return launch, Notes(launch.rank, launch.count, timeout, dist.PrefixStore(name, notes), launch.restarts_left > 0)


def _same_launch(launch: Launch, notes: Any) -> Launch:
    """With a name that lives as long as torchrun's store. torchrun's own name may be an earlier
    launch's too, and where one machine fails the others do not count a restart.
    """
    word = secrets.token_hex(8)
    name = notes.compare_set(LAUNCH, "", word).decode()
    return replace(launch, name=name, restart=name != word)


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


def _named(launch: Launch, notes: Any, timeout: float) -> str:
    """At rank 0: name the start, and wait until all know the name."""
    name, missing, answered = secrets.token_hex(8), set(range(1, launch.count)), set()
    for _ in polled(timeout):
        for rank in sorted(missing):
            if notes.check([ASKED.format(rank=rank)]):
                word = notes.get(ASKED.format(rank=rank)).decode()
                if word not in answered:
                    notes.set(ANSWERED.format(word=word), name)
                    answered.add(word)
            if notes.check([f"{name}/{rank}"]):
                missing.discard(rank)
        if not missing:
            return name
    listed = ", ".join(map(str, sorted(missing)))
    raise TrainingError(
        f"rank {listed} of {launch.count} did not start within {timeout:g} seconds (--rank-timeout): look at what "
        "torchrun says of it, and start all of them again."
    )


def _asked(launch: Launch, notes: Any, timeout: float) -> str:
    """At another rank: ask for the start's name."""
    word = secrets.token_hex(8)
    notes.set(ASKED.format(rank=launch.rank), word)
    for _ in polled(timeout):
        if notes.check([ANSWERED.format(word=word)]):
            name: str = notes.get(ANSWERED.format(word=word)).decode()
            notes.set(f"{name}/{launch.rank}", "")
            return name
    raise TrainingError(
        f"rank 0 of {launch.count} did not start within {timeout:g} seconds (--rank-timeout): look at what torchrun says of it."
    )


def program(launch: Launch) -> dict[str, str]:
    """What has to be alike for the processes to understand each other."""
    import torch

    return {
        "processes": str(launch.count),
        "alexnet": alexnet.__version__,
        "source code": source_hash(),
        "torch": torch.__version__,
    }


@cache
def source_hash() -> str:
    """Of the package's modules: their names and bytes."""
    root, digest = Path(alexnet.__file__).parent, hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12]
