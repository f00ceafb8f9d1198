"""The plain step over several processes (`parallel/ranks.py`), in any of three schemes
(`parallel/layout.py`).

Each rank takes its share of the batch through its part of the network. The loss is the sum over
pictures, divided by those of the whole batch, so that the gradients of ranks that share a batch
need only be added, also where they do not divide it.

The gradient of each parameter is added over the ranks as soon as it is there, while those of the
layers below are computed. AlexNet has 16 parameters, and three of them are 96 % of the bytes: there
is nothing to gain by putting several into one exchange, as PyTorch's DistributedDataParallel does.
That puts them together otherwise from its second step on, and where a number lies in an exchange
decides in which order gloo adds the ranks'. On 3 ranks 14 of the 16 gradients of the same batch
have other bits in its second step: a run that is resumed would part from one that went on.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from alexnet.data.chance import Pictures
from alexnet.data.loader import Batch, in_order
from alexnet.data.store import Split
from alexnet.engines import Network, eager
from alexnet.evaluate import BATCH_SIZE
from alexnet.lanes import Lanes
from alexnet.train.parallel.exchange import Group
from alexnet.train.parallel.layout import Layout
from alexnet.train.parallel.part import Apart
from alexnet.train.parallel.ranks import Ranks
from alexnet.train.start import Start
from alexnet.train.steps.plain import LossFunction, PlainStep


class RankedStep(PlainStep):
    """Training steps of all ranks, taken one after the other.

    Args:
        start: the network and all that trains it, of the whole batch; it is whole after
            `whole`, and where the layout cuts it, not while steps are taken.
        apart: the network where the layout cuts it.
        loss_function: of this rank's network, with the size of the whole batch.
        held_out: tested in turn: each rank takes every `ranks.count`-th batch.
    """

    def __init__(
        self,
        start: Start,
        layout: Layout,
        apart: Apart | None,
        loss_function: LossFunction,
        split: Lanes | None,
        ranks: Ranks,
        held_out: Split,
    ) -> None:
        network, optimiser = (apart.part, apart.optimiser) if apart else (start.model, start.optimiser)
        loader = start.of_share(*layout.share).loader
        super().__init__(network, loss_function, optimiser, loader, start.augmentation, split)
        self.start, self.layout, self.apart, self.ranks, self.held_out = start, layout, apart, ranks, held_out
        self._under_way: list[Any] = []
        self._hooks = [
            parameter.register_post_accumulate_grad_hook(partial(self._add_up, group))
            for name, parameter in optimiser.parameters.items()
            if (group := layout.added(name))
        ]

    def _add_up(self, group: Group, parameter: Tensor) -> None:
        """Begin to add a gradient over ranks. Autograd comes here in the same order everywhere,
        as it has the same graph, of no pictures too.
        """
        import torch.distributed as dist

        assert parameter.grad is not None
        self._under_way.append(dist.all_reduce(flat(parameter.grad), group=group.handle, async_op=True))

    def take(self, epoch: int, step: int, lr: float, scale: float, look: Callable[[Tensor], None] | None = None) -> None:
        """As `Step.take`."""
        if self.apart:
            self.apart.release()
        super().take(epoch, step, lr, scale, look)

    def _judged(self, epoch: int, step: int, labels: Tensor) -> tuple[Pictures, Tensor]:
        if not self.layout.whole_batch:
            return super()._judged(epoch, step, labels)
        pictures = self.start.loader.indices(epoch, step)
        return pictures, torch.from_numpy(self.loader.split.labels[pictures].astype("int64"))

    def _of_batch(self, loss: Tensor, wrong: Tensor) -> tuple[Tensor, Tensor]:
        """Summed over the ranks before any goes backward: what is not finite moves no weight on
        any of them.
        """
        sums = self.ranks.total(torch.stack([loss.double(), wrong.double()]) * self.layout.counts)  # 0 x NaN is NaN
        return sums[0], sums[1]

    def _backward(self, loss: Tensor) -> None:
        loss.backward()
        for exchange in self._under_way:
            exchange.wait()
        self._under_way.clear()

    def _show(self, look: Callable[[Tensor], None], images: Tensor) -> None:
        if self.apart:
            self.apart.put_together(gradients=True)
        if self.ranks.first:
            look(images)
        if self.apart:
            self.apart.release()

    def whole(self) -> None:
        """As `Step.whole`."""
        if self.apart and not self.apart.together:
            self.apart.put_together()

    def for_testing(self) -> tuple[Network, Iterable[Batch]]:
        """As `Step.for_testing`; the batches are this rank's."""
        self.whole()
        return eager(self.start.model), in_order(self.held_out, BATCH_SIZE, (self.ranks.rank, self.ranks.count))

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
