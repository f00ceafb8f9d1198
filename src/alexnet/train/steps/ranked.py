"""The plain step on several processes (`parallel/ranks.py`), in any of three schemes
(`parallel/layout.py`).

Each rank computes its share of the batch with its part of the network. Its loss is a sum over
pictures, divided by the size of the whole batch, so the gradients of ranks that share a batch need
only be summed, even if the shares are not equal.

The gradient of each parameter is summed over the ranks as soon as it is there, while those of the
layers below are computed. AlexNet has 16 parameters, and three of them have 96 % of the bytes:
nothing is gained by buckets of several gradients, as in PyTorch's DistributedDataParallel. That
rebuilds its buckets after the first step, and the position of a number in a bucket decides the
order in which Gloo sums the ranks' values. On 3 ranks, 14 of the 16 gradients of the same batch
have other bits in the second step: a resumed run would differ from one that was not stopped.
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
from alexnet.train.parallel.part import Sharded
from alexnet.train.parallel.ranks import Ranks
from alexnet.train.start import Start
from alexnet.train.steps.plain import LossFunction, PlainStep


class RankedStep(PlainStep):
    """Training steps of all ranks, taken one after the other.

    Args:
        start: the network and all that trains it, for the whole batch. If the layout shards it, it
            is complete only after `whole`.
        sharded: the network in shards; None if each rank has all of it.
        loss_function: of this rank's network, with the size of the whole batch.
        held_out: to test on; each rank takes every `ranks.count`-th batch.
    """

    def __init__(
        self,
        start: Start,
        layout: Layout,
        sharded: Sharded | None,
        loss_function: LossFunction,
        split: Lanes | None,
        ranks: Ranks,
        held_out: Split,
    ) -> None:
        network, optimiser = (sharded.shard, sharded.optimiser) if sharded else (start.model, start.optimiser)
        loader = start.of_share(*layout.share).loader
        super().__init__(network, loss_function, optimiser, loader, start.augmentation, split)
        self.start, self.layout, self.sharded, self.ranks, self.held_out = start, layout, sharded, ranks, held_out
        self._under_way: list[Any] = []
        self._hooks = [
            parameter.register_post_accumulate_grad_hook(partial(self._sum, group))
            for name, parameter in optimiser.parameters.items()
            if (group := layout.summed(name))
        ]

    def _sum(self, group: Group, parameter: Tensor) -> None:
        """Start to sum a gradient over the ranks. Autograd calls this in the same order on all of
        them, as they have the same graph, even a rank without pictures.
        """
        import torch.distributed as dist

        assert parameter.grad is not None
        self._under_way.append(dist.all_reduce(flat(parameter.grad), group=group.handle, async_op=True))

    def take(self, epoch: int, step: int, lr: float, scale: float, look: Callable[[Tensor], None] | None = None) -> None:
        """As `Step.take`."""
        if self.sharded:
            self.sharded.release()
        super().take(epoch, step, lr, scale, look)

    def _judged(self, epoch: int, step: int, labels: Tensor) -> tuple[Pictures, Tensor]:
        if not self.layout.whole_batch:
            return super()._judged(epoch, step, labels)
        pictures = self.start.loader.indices(epoch, step)
        return pictures, torch.from_numpy(self.loader.split.labels[pictures].astype("int64"))

    def _of_batch(self, loss: Tensor, wrong: Tensor) -> tuple[Tensor, Tensor]:
        """Summed over the ranks before the backward pass: a loss that is not finite changes no
        weight on any rank.
        """
        sums = self.ranks.all_reduce(torch.stack([loss.double(), wrong.double()]) * self.layout.counts)  # 0 x NaN is NaN
        return sums[0], sums[1]

    def _backward(self, loss: Tensor) -> None:
        loss.backward()
        for exchange in self._under_way:
            exchange.wait()
        self._under_way.clear()

    def _show(self, look: Callable[[Tensor], None], images: Tensor) -> None:
        if self.sharded:
            self.sharded.gather(gradients=True)
        if self.ranks.first:
            look(images)
        if self.sharded:
            self.sharded.release()

    def whole(self) -> None:
        """As `Step.whole`."""
        if self.sharded and not self.sharded.gathered:
            self.sharded.gather()

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
    """A tensor's memory in one dimension, whatever its memory format; a gradient has that of its
    parameter.
    """
    return tensor.as_strided((tensor.numel(),), (1,), tensor.storage_offset())
