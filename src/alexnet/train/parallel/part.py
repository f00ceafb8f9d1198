"""A rank's part of a network that is cut over ranks: slices of the layers' kernels and units, and
the network around them, which exchanges what the layers read of one another.

The network is `AlexNet`'s own sequence of operations; a part overrides what crosses the cut.
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
from alexnet.train.parallel.exchange import Group, edge, gather, order, put_together
from alexnet.train.parallel.layout import Layout
from alexnet.train.start import Start


def split_sizes(count: int, parts: int) -> tuple[int, ...]:
    """As even as can be; where it does not divide, the first ones have one more."""
    return tuple(count // parts + (part < count % parts) for part in range(parts))


class Part(AlexNet):
    """A rank's part of a network in training.

    Args:
        whole: the network. Parameters that are not cut are its own; of the others, slices are
            copied.
        layout: says which are cut, and where this rank is.
        batch_size: of the whole batch.
    """

    def __init__(self, whole: AlexNet, layout: Layout, batch_size: int) -> None:
        nn.Module.__init__(self)
        self.variant, self.ops, self.seam, self.layout = whole.variant, whole.ops, whole.seam, layout
        self.shares = split_sizes(batch_size, layout.share[1])
        self._reads: dict[str, tuple[Group, tuple[int, ...]]] = {}  # what a layer gathers first
        self._first: dict[str, int] = {}  # the first unit that a dropout sees
        for name, parameter in whole.named_parameters():
            self._add(name, parameter)
        self._walk()

    def _add(self, name: str, parameter: nn.Parameter) -> None:
        layer, _, kind = name.partition(".")
        if kind == "weight":
            self.add_module(layer, nn.Module())
        group = self.layout.cut(name)
        if group:
            own = parameter.detach().split(split_sizes(len(parameter), group.size))[group.index]
            parameter = nn.Parameter(own.clone(), parameter.requires_grad)
        self.get_submodule(layer).register_parameter(kind, parameter)

    def _walk(self) -> None:
        """Note what each layer reads, and where each dropout begins."""
        cut: Group | None = None
        sizes: tuple[int, ...] = ()
        for layer in self.variant.layers():
            op = layer.op
            if isinstance(op, Dropout):
                each = layer.input[1] * layer.input[2] if len(layer.input) == 3 else 1
                self._first[op.name] = sum(sizes[: cut.index]) * each if cut else 0
            if not isinstance(op, Conv | Linear):
                continue
            if cut and not (isinstance(op, Conv) and op.groups > 1):
                self._reads[op.name] = cut, sizes
            cut = self.layout.cut(op.name)
            sizes = split_sizes(layer.output[0], cut.size) if cut else ()
        self._outputs = cut, sizes

    def classifier(self, x: Tensor, keys: Tensor | None = None) -> Tensor:
        """The fully connected layers, of the whole batch if the layout says so; the logits of all
        units.
        """
        if self.layout.whole_batch and self.layout.cut_linear:
            x = gather(x, self.layout.cut_linear, self.shares, 0)
        x = super().classifier(x, keys)
        group, sizes = self._outputs
        return gather(x, group, sizes, 1, added=False) if group else x  # every rank computes the same loss

    def drop(self, op: Dropout, x: Tensor, keys: Tensor) -> Tensor:
        """What the whole layer would lose of these units."""
        return kernels.dropout(x, op.rate, keys, op.inverted, self._first[op.name])

    def compute(self, op: Op, x: Tensor) -> Tensor:
        """As `AlexNet.compute`, after the exchange that the operation needs."""
        if op.name in self._reads:
            x = gather(x, *self._reads[op.name], 1)
        match op:
            case Conv(name=name, padding=(before, after), stride=stride):
                if before != after:
                    x, before = F.pad(x, (before, after, before, after)), 0
                weight, bias = self._parameters_of(name, x)
                return F.conv2d(x, weight, bias, stride, before, groups=x.shape[1] // weight.shape[1])
            case LRN() if self.layout.cut_convolutions:
                return self._normalised(op, x, self.layout.cut_convolutions)
        return super().compute(op, x)

    def _normalised(self, op: LRN, x: Tensor, pair: Group) -> Tensor:
        """A tower's maps, normalised; a window that crosses the seam sees the other's channels."""
        own = replace(op, towers=1)
        if op.towers > 1:
            return super().compute(own, x)
        reach = min(op.size // 2, x.shape[1])
        beyond = edge(x, pair, reach)
        if pair.index == 0:
            tower = super().compute(own, torch.cat([x, beyond], 1))[:, :-reach]
        else:
            tower = super().compute(own, torch.cat([beyond, x], 1))[:, reach:]
        return tower.contiguous(memory_format=order(x))


class Apart:
    """A network that is trained in parts, and put together where the whole is needed: to test, to
    save, and to look at.

    Args:
        start: its model and velocity are taken apart, and empty but between `put_together` and
            `release`.
        saves: whether this rank needs the whole velocity too.
    """

    def __init__(self, start: Start, layout: Layout, saves: bool) -> None:
        self.saves = saves
        self.model, self.whole, self.layout = start.model, start.optimiser, layout
        self.part = Part(start.model, layout, start.loader.batch_size)
        self.optimiser: SGD = start.optimising(self.part)
        for name, velocity in self.optimiser.velocity.items():
            group, known = layout.cut(name), self.whole.velocity[name]
            velocity.copy_(known.split(split_sizes(len(known), group.size))[group.index] if group else known)
        self._sizes = {name: len(one) for name, one in self.model.named_parameters()}
        self.together = True
        self.release()

    @torch.no_grad()
    def put_together(self, gradients: bool = False) -> None:
        """Fill model and velocity from all ranks. All of them call this."""
        for name, parameter in self.model.named_parameters():
            own = self.part.get_parameter(name)
            parameter.data = self._joined(name, own.data)
            if name in self.whole.velocity:
                velocity = self._joined(name, self.optimiser.velocity[name])
                self.whole.velocity[name] = velocity if self.saves else velocity.new_empty(0)
            if gradients and own.grad is not None:
                parameter.grad = self._joined(name, own.grad)
        self.together = True

    def _joined(self, name: str, own: Tensor) -> Tensor:
        group = self.layout.cut(name)
        return put_together(own, group, split_sizes(self._sizes[name], group.size)) if group else own

    def release(self) -> None:
        """Let go of the whole: between steps a rank holds its own part alone."""
        if not self.together:
            return
        for name, parameter in self.model.named_parameters():
            if self.layout.cut(name):
                parameter.grad = None
                parameter.data = parameter.data.new_empty(0)
                if name in self.whole.velocity:
                    self.whole.velocity[name] = parameter.data
        self.together = False
