"""The plain step over several processes (`parallel/ranks.py`).

Each rank takes its share of the batch through the network. The loss is the sum over its pictures,
divided by those of the whole batch, so that the gradients of the ranks need only be added, also
where the ranks do not divide the batch.

The gradients of each parameter are added as soon as they are there, while those of the layers below
are computed. AlexNet has 16 parameters, and three of them are 95 % of the bytes: there is nothing
to gain by putting several into one exchange, as PyTorch's DistributedDataParallel does. What it
puts together changes after its first step, and with it the order in which the ranks' numbers are
added: the first step after a resume would be rounded otherwise than that of a run that went on.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from alexnet.data.augment import Augmentation
from alexnet.data.loader import Batch, Loader, in_order
from alexnet.data.store import Split
from alexnet.engines import Network, eager
from alexnet.evaluate import BATCH_SIZE
from alexnet.lanes import Lanes
from alexnet.model import AlexNet
from alexnet.train.optim import SGD
from alexnet.train.parallel.ranks import Ranks
from alexnet.train.steps.plain import LossFunction, PlainStep


class RankedStep(PlainStep):
    """Training steps of all ranks, taken one after the other.

    Args:
        loss_function: with the size of the whole batch.
        loader: of this rank's share.
        held_out: tested in turn: each rank takes every `ranks.count`-th batch.
    """

    def __init__(
        self,
        model: AlexNet,
        loss_function: LossFunction,
        optimiser: SGD,
        loader: Loader,
        augmentation: Augmentation,
        split: Lanes | None,
        ranks: Ranks,
        held_out: Split,
    ) -> None:
        super().__init__(model, loss_function, optimiser, loader, augmentation, split)
        self.ranks, self.held_out = ranks, held_out
        self._under_way: list[Any] = []
        self._hooks = [one.register_post_accumulate_grad_hook(self._add_up) for one in optimiser.parameters.values()]

    def _add_up(self, parameter: Tensor) -> None:
        """Begin to add a gradient over the ranks. Autograd comes here in the same order everywhere,
        as it has the same graph, of no pictures too.
        """
        import torch.distributed as dist

        assert parameter.grad is not None
        self._under_way.append(dist.all_reduce(flat(parameter.grad), async_op=True))

    def _of_batch(self, loss: Tensor, wrong: Tensor) -> tuple[Tensor, Tensor]:
        """Summed over the ranks before any goes backward: what is not finite moves no weight on
        any of them.
        """
        sums = self.ranks.total(torch.stack([loss.double(), wrong.double()]))
        return sums[0], sums[1]

    def _backward(self, loss: Tensor) -> None:
        loss.backward()
        for exchange in self._under_way:
            exchange.wait()
        self._under_way.clear()

    def _show(self, look: Callable[[Tensor], None], images: Tensor) -> None:
        if self.ranks.first:
            look(images)

    def for_testing(self) -> tuple[Network, Iterable[Batch]]:
        """As `Step.for_testing`; the batches are this rank's."""
        return eager(self.model), in_order(self.held_out, BATCH_SIZE, (self.ranks.rank, self.ranks.count))

    def close(self) -> None:
        """As `PlainStep.close`."""
        for hook in self._hooks:
            hook.remove()
        super().close()


def flat(tensor: Tensor) -> Tensor:
    """A tensor's memory as one row, whatever the order of its dimensions; a gradient has that of
    its parameter.
    """
    return tensor.as_strided((tensor.numel(),), (1,), tensor.storage_offset())
