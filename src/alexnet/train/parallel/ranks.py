"""The processes that train one network together, which torchrun starts:

    torchrun --standalone --nproc-per-node 4 -m alexnet train RECIPE --data STORE --out RUN

Each process is a rank. All of them run the whole program and agree through `Ranks`. Rank 0 has the
run's folder and the terminal, and takes the decisions that depend on a clock or a signal; the
others are silent. Without torchrun there is one process, `ALONE`: torch.distributed is not used,
and every method returns its argument.

How they find each other is in `meet.py`, what happens when one of them fails in `failures.py`.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from alexnet import traffic
from alexnet.console import say, silence
from alexnet.devices import cores
from alexnet.errors import UsageError
from alexnet.phrases import counted
from alexnet.traffic import Scheme
from alexnet.train.parallel.failures import reported_once
from alexnet.train.parallel.launch import LONGEST, SHORTEST, TIMEOUT, TORCHRUN, Launch, have_met, launched, read_launch
from alexnet.train.parallel.meet import meet, program
from alexnet.train.parallel.notes import Notes
from alexnet.variants import Variant

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """The processes of a run, seen from one of them.

    Attributes:
        rank: this process, in [0, count).
        count: processes.
        wanted: the scheme that the user asked for; auto to choose.
        launch: how this process was started; None without torchrun.
        notes: messages of several ranks to each other; None for one.
    """

    rank: int = 0
    count: int = 1
    wanted: Scheme | Literal["auto"] = "auto"
    launch: Launch | None = None
    notes: Notes | None = field(default=None, repr=False)

    @property
    def scheme(self) -> Scheme:
        """How they divide the work, once `settled`."""
        assert self.wanted != "auto"
        return self.wanted

    def settled(self, variant: Variant, batch_size: int) -> "Ranks":
        """The same with a scheme: the one asked for, or the one that sends the fewest bytes, after
        printing the count of all.

        Raises:
            UsageError: the scheme does not fit the network, or the number of ranks.
        """
        if self.wanted != "auto":
            if why := traffic.refusal(variant, self.wanted, self.count):
                raise UsageError(f"parallel (={self.wanted}) {why.removeprefix(f'{self.wanted} ')}")
            return self
        if not self.several:
            return replace(self, wanted="data")
        best, lines = traffic.choose(variant, batch=batch_size, ranks=self.count)
        for line in lines:
            say(line, whole=True)
        return replace(self, wanted=best.scheme)

    @property
    def first(self) -> bool:
        """Whether this is rank 0, which has the run's folder and prints."""
        return self.rank == 0

    def __str__(self) -> str:
        return f"{self.wanted} over {self.count} processes"

    @property
    def several(self) -> bool:
        """Whether there is more than one rank."""
        return self.count > 1

    def agree(self, flag: bool) -> bool:
        """Rank 0's decision, on every rank."""
        if not self.several:
            return flag
        decided = torch.tensor([flag], dtype=torch.uint8)
        self.broadcast(decided)
        return bool(decided)

    def broadcast_object(self, thing: T) -> T:
        """Rank 0's object, on every rank; small, and of any type that can be pickled."""
        if not self.several:
            return thing
        import torch.distributed as dist

        things = [thing if self.first else None]
        dist.broadcast_object_list(things, src=0, device=torch.device("cpu"))
        return things[0]  # type: ignore[return-value]

    def all_gather_object(self, thing: T) -> list[T]:
        """The objects of all ranks in order, on every rank; as `broadcast_object`."""
        if not self.several:
            return [thing]
        import torch.distributed as dist

        things: list[Any] = [None] * self.count
        dist.all_gather_object(things, thing)
        return things

    def broadcast(self, tensor: Tensor) -> Tensor:
        """Fill a tensor with rank 0's values; all ranks pass the same shape and type."""
        if self.several:
            import torch.distributed as dist

            plain = tensor.detach().contiguous()  # whatever the strides here and there
            dist.broadcast(plain, src=0)
            if plain.data_ptr() != tensor.data_ptr():
                tensor.detach().copy_(plain)
        return tensor

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Sum a contiguous tensor over the ranks, in place."""
        if self.several:
            import torch.distributed as dist

            dist.all_reduce(tensor)
        return tensor

    def barrier(self) -> None:
        """Wait until all ranks are here."""
        self.all_reduce(torch.zeros(1))

    # --- the beginning --------------------------------------------------------------------------

    def wait_for_first(self) -> None:
        """As `Notes.wait_for_first`; one process does not wait."""
        if self.notes:
            self.notes.wait_for_first()

    def check_alike(self, mine: Mapping[str, str], remedy: str) -> None:
        """As `Notes.check_alike`; one process passes."""
        if self.notes:
            self.notes.check_alike(mine, remedy)


ALONE = Ranks()


@contextmanager
def open_ranks(
    wanted: Scheme | Literal["auto"] | None = None, timeout: float = TIMEOUT, device: str = "auto"
) -> Iterator[Ranks]:
    """The ranks that torchrun started, connected; one process alone if it did not.

    GPUs use NCCL, CPUs use Gloo. Ranks other than 0 print nothing from here on.

    Args:
        wanted: how to divide the work; None for auto.
        timeout: seconds; a rank that does not answer for so long ends the run.
        device: the recipe's; cpu does not use GPUs.

    Raises:
        UsageError: a scheme was asked for without torchrun, `timeout` is out of range, torchrun's
            environment variables are invalid, or this machine has fewer GPUs than ranks.
        TrainingError: another rank failed or differs from this one; raised by rank 0.
    """
    if not SHORTEST <= timeout <= LONGEST:
        raise UsageError(f"rank_timeout (={timeout:g}) must be at least {SHORTEST:g} seconds, and at most {LONGEST:,.0f}.")
    if not launched():
        if wanted is not None:
            raise UsageError(f"parallel (={wanted}) needs several processes: begin the command with `{TORCHRUN}`.")
        yield ALONE
        return
    launch = read_launch()
    if launch.count == 1:  # connected to nobody
        yield Ranks(wanted=wanted or "auto", launch=launch)
        return
    launch, notes = meet(launch, timeout)
    have_met()
    if not notes.first:
        silence()
    with reported_once(notes):
        notes.check_alike(program(launch), "install the same on all machines, and start all ranks together")
        _connect(launch, notes, device != "cpu" and torch.cuda.is_available())
        yield Ranks(launch.rank, launch.count, wanted or "auto", launch, notes)


def _connect(launch: Launch, notes: Notes, cuda: bool) -> None:
    """Open the connections for tensors."""
    import torch.distributed as dist

    if cuda:
        if launch.local_count > torch.cuda.device_count():
            raise UsageError(
                f"{launch.local_count} processes are too many for this machine's {counted(torch.cuda.device_count(), 'GPU')}: "
                "start one for each with --nproc-per-node, or pass --device cpu."
            )
        torch.cuda.set_device(launch.local_rank)
    if os.environ.get("OMP_NUM_THREADS") == "1":  # torchrun's own setting: half a machine for two ranks is more
        torch.set_num_threads(max(1, cores() // launch.local_count))
    backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
    timeout = timedelta(seconds=notes.timeout)
    dist.init_process_group(backend, store=notes.store, rank=launch.rank, world_size=launch.count, timeout=timeout)
