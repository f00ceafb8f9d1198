"""The processes that train one network together, which torchrun starts:

    torchrun --standalone --nproc-per-node 4 -m alexnet train RECIPE --data STORE --out RUN

Each process is a rank. All of them run the whole program; `Ranks` is how they agree. Rank 0 has the
run's folder and the terminal, and takes the decisions that hang on a clock or a signal; the others
are silent. Without torchrun there is one process, `ALONE`: then nothing of torch.distributed is
used, and every method gives back what it was given.

An error on another rank is put into torchrun's key-value store before its connections close. Rank
0, whose exchange fails by that, finds it there and raises it with the rank's number, so that it is
told once.
"""

import gc
import os
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from alexnet import traffic
from alexnet.console import say, silence
from alexnet.devices import cores
from alexnet.errors import AlexNetError, TrainingError, UsageError
from alexnet.phrases import counted
from alexnet.traffic import Scheme
from alexnet.variants import Variant

T = TypeVar("T")

TIMEOUT = 300.0  # in seconds
#: An error waits so long to be told by rank 0, and rank 0 so long to find one.
TELL_SECONDS, FIND_SECONDS = 20.0, 5.0
#: Between the moment at which rank 0 has found an error and the end of its last line.
SPEAK_SECONDS = 1.0
#: Rank 0 may take its time before the first exchange: it resamples a store, fits a last layer.
BEGIN_TIMEOUT = timedelta(days=7)
TORCHRUN = "torchrun --standalone --nproc-per-node 2 -m alexnet train"
#: In torchrun's key-value store.
BEGUN, FAILED, TOLD = "alexnet/begun", "alexnet/failed/{rank}", "alexnet/told"


@dataclass(frozen=True)
class Ranks:
    """The processes of a run, seen from one of them.

    Attributes:
        rank: this process, in [0, count).
        count: processes.
        wanted: how they are to share the work; auto to choose.
    """

    rank: int = 0
    count: int = 1
    wanted: Scheme | Literal["auto"] = "auto"
    _notes: Any = field(default=None, repr=False)  # torchrun's key-value store

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

    # --- the beginning and errors ---------------------------------------------------------------

    def wait_for_first(self) -> None:
        """Before the first exchange: let rank 0 begin the run, however long it takes."""
        if self.several and self.first:
            self._notes.set(BEGUN, "")
        elif self.several:
            self._notes.wait([BEGUN], BEGIN_TIMEOUT)

    def tell(self, text: str) -> None:
        """Leave word of an error for rank 0; before this rank's connections close."""
        with suppress(RuntimeError):  # rank 0's machine is gone
            self._notes.set(FAILED.format(rank=self.rank), text)

    def told(self) -> tuple[int, str] | None:
        """The lowest rank that left word of an error, and its word."""
        with suppress(RuntimeError):
            for rank in range(1, self.count):
                if self._notes.check([FAILED.format(rank=rank)]):
                    return rank, self._notes.get(FAILED.format(rank=rank)).decode()
        return None


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
        UsageError: a scheme was asked for without torchrun, `timeout` is not positive, or this
            machine has fewer GPUs than ranks.
        TrainingError: another rank failed; told by rank 0.
    """
    if not timeout > 0:
        raise UsageError(f"rank_timeout (={timeout:g}) must be more than 0 seconds.")
    if not launched():
        if wanted is not None:
            raise UsageError(f"parallel (={wanted}) needs several processes: begin the command with `{TORCHRUN}`.")
        yield ALONE
        return
    ranks = _connected(wanted or "auto", timedelta(seconds=timeout), device != "cpu" and torch.cuda.is_available())
    try:
        with _told_by_first(ranks):
            yield ranks
    finally:
        _disconnect()


def launched() -> bool:
    """Whether torchrun, or something like it, started this process as one of several or as the
    only one.
    """
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def _connected(wanted: Scheme | Literal["auto"], timeout: timedelta, cuda: bool) -> Ranks:
    """As torchrun's environment says; one process alone is connected to nobody."""
    if int(os.environ["WORLD_SIZE"]) == 1:
        return Ranks(wanted=wanted)
    import torch.distributed as dist

    if int(os.environ["RANK"]) > 0:
        silence()
    local, here = int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if cuda:
        if here > torch.cuda.device_count():
            raise UsageError(
                f"{here} processes are too many for this machine's {counted(torch.cuda.device_count(), 'GPU')}: start one for "
                "each with --nproc-per-node, or pass --device cpu."
            )
        torch.cuda.set_device(local)
    if os.environ.get("OMP_NUM_THREADS") == "1":  # torchrun's own setting: half a machine for two ranks is more
        torch.set_num_threads(max(1, cores() // here))
    notes, rank, count = next(dist.rendezvous("env://", timeout=timeout))
    backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
    dist.init_process_group(backend, store=notes, rank=rank, world_size=count, timeout=timeout)
    return Ranks(rank, count, wanted, notes)


def _disconnect(error: BaseException | None = None) -> None:
    """Close the connections: others that wait for this rank then fail at once.

    gloo closes one when nothing refers to it any more, and the frames that an error went through
    do: without clearing them the others learn of it only when this process ends.
    """
    import torch.distributed as dist

    if error:
        _forget(error)
    if dist.is_initialized():
        dist.destroy_process_group()


def _forget(error: BaseException | None) -> None:
    """Let go of all that the frames of an error, and of those that it came from, refer to."""
    while error:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
    gc.collect()


@contextmanager
def _told_by_first(ranks: Ranks) -> Iterator[None]:
    """An error on any rank is raised by rank 0, once, and ends the others without a word."""
    try:
        yield
    except BaseException as error:
        if not ranks.several:
            raise
        if not ranks.first:
            _leave(ranks, error)
        raised = _of_another(ranks, error)
        with suppress(RuntimeError):
            ranks._notes.set(TOLD, "")
        if raised:
            raise raised from error
        raise


def _leave(ranks: Ranks, error: BaseException) -> None:
    """End a rank other than 0: with word of an error of its own, once rank 0 has told it. torchrun
    ends all ranks as soon as one has ended, and rank 0 must have spoken by then.
    """
    own = not lost(error)
    if own:
        ranks.tell(str(error) if isinstance(error, AlexNetError) else f"{type(error).__name__}: {error}")
    _disconnect(error)
    with suppress(RuntimeError):
        ranks._notes.wait([TOLD], timedelta(seconds=TELL_SECONDS))
        time.sleep(SPEAK_SECONDS)
    if not own:
        raise SystemExit(1) from None


def _of_another(ranks: Ranks, error: BaseException) -> TrainingError | None:
    """Where an exchange failed because of another rank: what to raise instead."""
    if not lost(error):
        return None
    until = time.monotonic() + FIND_SECONDS
    while not (found := ranks.told()) and time.monotonic() < until:
        time.sleep(0.05)
    if found:
        return TrainingError(f"rank {found[0]} of {ranks.count}: {found[1]}")
    return TrainingError(
        f"another of the {ranks.count} ranks ended or stopped answering ({str(error).splitlines()[0]}). Look at what "
        "torchrun says of it below, and continue with --resume."
    )


def lost(error: BaseException) -> bool:
    """Whether an exchange failed because another rank was gone or did not answer."""
    import torch.distributed as dist

    if isinstance(error, AlexNetError) or not isinstance(error, RuntimeError):
        return False
    return isinstance(error, dist.DistError) or any(word in str(error) for word in ("gloo", "NCCL", "Connection closed"))
