"""The processes that train one network together, which torchrun starts:

    torchrun --standalone --nproc-per-node 4 -m alexnet train RECIPE --data STORE --out RUN

Each process is a rank. All of them run the whole program; `Ranks` is how they agree. Rank 0 has the
run's folder and the terminal, and takes the decisions that hang on a clock or a signal; the others
are silent. Without torchrun there is one process, `ALONE`: then nothing of torch.distributed is
used, and every method gives back what it was given.

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
from alexnet.train.parallel.failures import told_by_first
from alexnet.train.parallel.launch import TORCHRUN, Launch, have_met, launched, read_launch
from alexnet.train.parallel.meet import meet, program
from alexnet.train.parallel.notes import Notes
from alexnet.variants import Variant

T = TypeVar("T")

TIMEOUT = 300.0  # in seconds
LONGEST = 1e9  # thirty years; the clocks of gloo and nccl end somewhere beyond


@dataclass(frozen=True)
class Ranks:
    """The processes of a run, seen from one of them.

    Attributes:
        rank: this process, in [0, count).
        count: processes.
        wanted: how they are to share the work; auto to choose.
        launch: how this process was started; None without torchrun.
        notes: what several write to each other.
    """

    rank: int = 0
    count: int = 1
    wanted: Scheme | Literal["auto"] = "auto"
    launch: Launch | None = None
    notes: Notes | None = field(default=None, repr=False)

    @property
    def scheme(self) -> Scheme:
        """How they share the work, once `settled`."""
        assert self.wanted != "auto"
        return self.wanted

    def settled(self, variant: Variant, batch_size: int) -> "Ranks":
        """The same with a scheme: the one that was asked for, or the one that sends the fewest
        bytes, and then a count of all.

        Raises:
            UsageError: the scheme does not fit the network, or the number of ranks.
        """
        if self.wanted != "auto":
            if why := traffic.refusal(variant, self.wanted, self.count):
                raise UsageError(f"parallel (={self.wanted}): {why}")
            return self
        if not self.several:
            return replace(self, wanted="data")
        best, lines = traffic.choose(variant, batch=batch_size, ranks=self.count)
        for line in lines:
            say(line, whole=True)
        return replace(self, wanted=best.scheme)

    @property
    def first(self) -> bool:
        """Whether this is rank 0, which has the run's folder and speaks."""
        return self.rank == 0

    def __str__(self) -> str:
        return f"{self.wanted} over {self.count} processes"

    @property
    def several(self) -> bool:
        """Whether there are others."""
        return self.count > 1

    def together(self, flag: bool) -> bool:
        """Rank 0's decision."""
        if not self.several:
            return flag
        decided = torch.tensor([flag], dtype=torch.uint8)
        self.spread(decided)
        return bool(decided)

    def share(self, thing: T) -> T:
        """What rank 0 gives, at every rank; anything that can be pickled, not large."""
        if not self.several:
            return thing
        import torch.distributed as dist

        things = [thing if self.first else None]
        dist.broadcast_object_list(things, src=0, device=torch.device("cpu"))
        return things[0]  # type: ignore[return-value]

    def gather(self, thing: T) -> list[T]:
        """What each rank gives, in their order, at every rank; as `share`."""
        if not self.several:
            return [thing]
        import torch.distributed as dist

        things: list[Any] = [None] * self.count
        dist.all_gather_object(things, thing)
        return things

    def spread(self, tensor: Tensor) -> Tensor:
        """Fill a tensor with rank 0's values, which have its shape and type everywhere."""
        if self.several:
            import torch.distributed as dist

            plain = tensor.detach().contiguous()  # whatever the strides here and there
            dist.broadcast(plain, src=0)
            if plain.data_ptr() != tensor.data_ptr():
                tensor.detach().copy_(plain)
        return tensor

    def total(self, tensor: Tensor) -> Tensor:
        """Sum a contiguous tensor over the ranks, in place."""
        if self.several:
            import torch.distributed as dist

            dist.all_reduce(tensor)
        return tensor

    def barrier(self) -> None:
        """Wait for all."""
        self.total(torch.zeros(1))

    # --- the beginning --------------------------------------------------------------------------

    def wait_for_first(self) -> None:
        """Before the first exchange: let rank 0 begin the run, however long it takes."""
        if self.notes:
            self.notes.wait_for_first()

    def check_alike(self, mine: Mapping[str, str], remedy: str) -> None:
        """As `Notes.check_alike`; one process is like itself."""
        if self.notes:
            self.notes.check_alike(mine, remedy)


ALONE = Ranks()


@contextmanager
def open_ranks(
    wanted: Scheme | Literal["auto"] | None = None, timeout: float = TIMEOUT, device: str = "auto"
) -> Iterator[Ranks]:
    """The ranks that torchrun started, connected; one process alone if it did not.

    On GPUs tensors travel by nccl, on CPUs by gloo. Ranks other than 0 print nothing from here on.

    Args:
        wanted: how they are to share the work; None for auto.
        timeout: in seconds; a rank that keeps the others waiting for so long ends the run.
        device: as the recipe's: cpu leaves GPUs alone.

    Raises:
        UsageError: a scheme was asked for without torchrun, `timeout` is out of range, what the
            environment says of the ranks does not fit, or this machine has fewer GPUs than ranks.
        TrainingError: another rank failed, or is not like this one; told by rank 0.
    """
    if not 0 < timeout <= LONGEST:
        raise UsageError(f"rank_timeout (={timeout:g}) must be more than 0 seconds, and at most {LONGEST:g}.")
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
    with told_by_first(notes):
        notes.check_alike(program(launch), "install the same on all machines, and start all ranks together")
        _connect(launch, notes, device != "cpu" and torch.cuda.is_available())
        yield Ranks(launch.rank, launch.count, wanted or "auto", launch, notes)


def _connect(launch: Launch, notes: Notes, cuda: bool) -> None:
    """Open the channels for tensors."""
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
