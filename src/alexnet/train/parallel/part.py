"""A network that is sharded over ranks: each has slices of the layers' kernels and units, and
gathers what its layers read of the other ranks.

A shard runs `AlexNet`'s own sequence of operations and overrides those that need other ranks.
Figure 2 of the paper draws it for two towers: kernels of conv2, conv4 and conv5 read their own
tower's maps, those of conv3 and all fully connected layers read both.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet import kernels
from alexnet.arithmetic import LRN, Conv, Dropout, Linear, Op
from alexnet.model import AlexNet
from alexnet.train.optim import SGD
from alexnet.train.parallel.exchange import Group, all_gather, all_gather_values, halo, memory_format
from alexnet.train.parallel.layout import Layout
from alexnet.train.start import Start


def split_sizes(count: int, parts: int) -> tuple[int, ...]:
    """`count` divided as evenly as possible; the first parts are larger by one if need be."""
    return tuple(count // parts + (part < count % parts) for part in range(parts))


class Shard(AlexNet):
    """A rank's shard of a network in training.

    Args:
        whole: the network. Parameters that are not sharded are shared with it; of the others, this
            rank's slices are copied.
        layout: which parameters are sharded, and over which ranks.
        batch_size: of the whole batch.
    """

    def __init__(self, whole: AlexNet, layout: Layout, batch_size: int) -> None:
        nn.Module.__init__(self)
        self.variant, self.ops, self.seam, self.layout = whole.variant, whole.ops, whole.seam, layout
        self.shares = split_sizes(batch_size, layout.share[1])
        self._reads: dict[str, tuple[Group, tuple[int, ...]]] = {}  # what a layer has to gather, by its name
        self._first: dict[str, int] = {}  # the number of the first unit of a dropout
        for name, parameter in whole.named_parameters():
            self._add(name, parameter)
        self._walk()

    def _add(self, name: str, parameter: nn.Parameter) -> None:
        layer, _, kind = name.partition(".")
        if kind == "weight":
            self.add_module(layer, nn.Module())
        group = self.layout.sharded(name)
        if group:
            own = parameter.detach().split(split_sizes(len(parameter), group.size))[group.index]
            parameter = nn.Parameter(own.clone(), parameter.requires_grad)
        self.get_submodule(layer).register_parameter(kind, parameter)

    def _walk(self) -> None:
        """Note what each layer has to gather, and the first unit of each dropout."""
        group: Group | None = None
        sizes: tuple[int, ...] = ()
        for layer in self.variant.layers():
            op = layer.op
            if isinstance(op, Dropout):
                each = layer.input[1] * layer.input[2] if len(layer.input) == 3 else 1
                self._first[op.name] = sum(sizes[: group.index]) * each if group else 0
            if not isinstance(op, Conv | Linear):
                continue
            if group and not (isinstance(op, Conv) and op.groups > 1):
                self._reads[op.name] = group, sizes
            group = self.layout.sharded(op.name)
            sizes = split_sizes(layer.output[0], group.size) if group else ()
        self._outputs = group, sizes

    def classifier(self, x: Tensor, keys: Tensor | None = None) -> Tensor:
        """The fully connected layers, on the whole batch if the layout says so; the logits of all
        classes.
        """
        if self.layout.whole_batch and self.layout.sharded_linear:
            x = all_gather(x, self.layout.sharded_linear, self.shares, 0)
        x = super().classifier(x, keys)
        group, sizes = self._outputs
        return all_gather(x, group, sizes, 1, summed=False) if group else x  # every rank computes the same loss

    def drop(self, op: Dropout, x: Tensor, keys: Tensor) -> Tensor:
        """As in the whole network: the keys decide by a unit's number in the layer."""
        return kernels.dropout(x, op.rate, keys, op.inverted, self._first[op.name])

    def compute(self, op: Op, x: Tensor) -> Tensor:
        """As `AlexNet.compute`, after gathering what the operation reads."""
        if op.name in self._reads:
            x = all_gather(x, *self._reads[op.name], 1)
        match op:
            case Conv(name=name, padding=(before, after), stride=stride):
                if before != after:
                    x, before = F.pad(x, (before, after, before, after)), 0
                weight, bias = self._parameters_of(name, x)
                return F.conv2d(x, weight, bias, stride, before, groups=x.shape[1] // weight.shape[1])
            case LRN() if self.layout.sharded_convolutions:
                return self._normalised(op, x, self.layout.sharded_convolutions)
        return super().compute(op, x)

    def _normalised(self, op: LRN, x: Tensor, pair: Group) -> Tensor:
        """A tower's maps, normalised; windows that reach into the other tower see its channels."""
        own = replace(op, towers=1)
        if op.towers > 1:
            return super().compute(own, x)
        reach = min(op.size // 2, x.shape[1])
        beyond = halo(x, pair, reach)
        if pair.index == 0:
            tower = super().compute(own, torch.cat([x, beyond], 1))[:, :-reach]
        else:
            tower = super().compute(own, torch.cat([beyond, x], 1))[:, reach:]
        return tower.contiguous(memory_format=memory_format(x))


class Sharded:
    """A network that is trained in shards, and gathered to be tested, saved and looked at.

    Args:
        start: its model and velocity hold nothing of sharded parameters except between `gather`
            and `release`.
        saves: whether this rank needs the whole velocity, too.
    """

    def __init__(self, start: Start, layout: Layout, saves: bool) -> None:
        self.saves = saves
        self.model, self.whole, self.layout = start.model, start.optimiser, layout
        self.shard = Shard(start.model, layout, start.loader.batch_size)
        self.optimiser: SGD = start.optimising(self.shard)
        for name, velocity in self.optimiser.velocity.items():
            group, known = layout.sharded(name), self.whole.velocity[name]
            velocity.copy_(known.split(split_sizes(len(known), group.size))[group.index] if group else known)
        self._sizes = {name: len(one) for name, one in self.model.named_parameters()}
        self.gathered = True
        self.release()

    @torch.no_grad()
    def gather(self, gradients: bool = False) -> None:
        """Fill model and velocity from all ranks. All ranks must call this."""
        for name, parameter in self.model.named_parameters():
            own = self.shard.get_parameter(name)
            parameter.data = self._whole(name, own.data)
            if name in self.whole.velocity:
                velocity = self._whole(name, self.optimiser.velocity[name])
                self.whole.velocity[name] = velocity if self.saves else velocity.new_empty(0)
            if gradients and own.grad is not None:
                parameter.grad = self._whole(name, own.grad)
        self.gathered = True

    def _whole(self, name: str, own: Tensor) -> Tensor:
        group = self.layout.sharded(name)
        return all_gather_values(own, group, split_sizes(self._sizes[name], group.size)) if group else own

    def release(self) -> None:
        """Free the whole: between steps a rank holds only its own shard."""
        if not self.gathered:
            return
        for name, parameter in self.model.named_parameters():
            if self.layout.sharded(name):
                parameter.grad = None
                parameter.data = parameter.data.new_empty(0)
                if name in self.whole.velocity:
                    self.whole.velocity[name] = parameter.data
        self.gathered = False
