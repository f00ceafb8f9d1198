"""The interface of a step, for both `plain.py` or `fused.py`."""

from collections.abc import Callable, Iterable
from typing import Protocol

from torch import Tensor

from alexnet.data.loader import Batch
from alexnet.engines import Network


class Step(Protocol):
    """From records to new weights, one step after the other.

    Attributes:
        at_once: whether `collect` costs nothing after each step.
        lanes: that a batch is split over, on a CPU; 1 elsewhere.
    """

    lanes: int

    @property
    def at_once(self) -> bool:
        """See the class."""
        ...

    def take(self, epoch: int, step: int, lr: float, scale: float, look: Callable[[Tensor], None] | None = None) -> None:
        """One step: batch, forward, backward, update.

        Args:
            epoch, step: which; steps of an epoch follow one another, from any on.
            lr, scale: as in `SGD.step`.
            look: called with the batch's first pictures between gradients and update, while the
                parameters hold the gradients; with several processes, by the first only.
        """

    def collect(self) -> tuple[float, int, int]:
        """Sum of losses, wrong first guesses and steps since the last call."""

    def pictures(self, count: int) -> Tensor:
        """(count, 3, K, K) float32: the first pictures of the last step."""

    def whole(self) -> None:
        """Gather the network and velocity if several processes have a shard each. All must call
        this before the network is tested, saved or looked at.
        """

    def for_testing(self) -> tuple[Network, Iterable[Batch] | None]:
        """The network as `evaluate` takes it, and batches of held-out pictures: those already
        loaded, or this process's share of them; None for all, read from the store.
        """

    def close(self) -> None:
        """End threads and free memory."""
