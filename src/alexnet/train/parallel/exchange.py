"""What ranks exchange inside a network, as operations of autograd.

`gather` puts the ranks' slices of a tensor together, on each of them. On the way back there are two
cases, and to take one for the other changes every gradient below by a factor:

- Each rank computes something of its own from the whole (its kernels of conv3, its units of fc7).
  Then its gradient of the whole is a part of a sum: the ranks' gradients are added, and each keeps
  its slice. That is a reduce-scatter.
- Each rank computes the same from the whole (the loss from all logits). Then each has the whole
  gradient already, and adding them would double it on two ranks: each keeps its slice as it is.

`edge` gives a tower the channels beyond the seam that its normalisation reads.

The collectives in terms of lists are in every version of PyTorch; those of single tensors have
changed their names.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


@dataclass(frozen=True)
class Group:
    """Ranks that exchange with one another; `index` is this one's place among them."""

    handle: Any
    index: int
    size: int


def gather(x: Tensor, group: Group, sizes: Sequence[int], dim: int, added: bool = True) -> Tensor:
    """The slices of all ranks of a group, in their order.

    Args:
        x: this rank's slice, of `sizes[group.index]` along `dim`; equal elsewhere.
        sizes: of all slices.
        added: whether each rank's gradient of the whole is a part of a sum.

    Returns:
        A new tensor of `sum(sizes)` along `dim`.
    """
    whole: Tensor = _Gather.apply(x, group, tuple(sizes), dim, added)
    return whole


def edge(x: Tensor, group: Group, reach: int) -> Tensor:
    """The other tower's channels next to the seam.

    Args:
        x: (N, C, H, W), this tower's maps: the first of two has the lower channels.
        reach: how many.

    Returns:
        (N, reach, H, W): the other's first ones for the first tower, its last ones for the second.
    """
    other: Tensor = _Edge.apply(x, group, reach)
    return other


def put_together(x: Tensor, group: Group, sizes: Sequence[int], dim: int = 0) -> Tensor:
    """As `gather`, outside autograd."""
    import torch.distributed as dist

    padded = _padded(x.detach(), max(sizes), dim)
    slices = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(slices, padded, group=group.handle)
    whole = torch.cat([one.narrow(dim, 0, size) for one, size in zip(slices, sizes, strict=True)], dim)
    return _like(whole, x)


def _add_and_cut(whole: Tensor, group: Group, sizes: Sequence[int], dim: int) -> Tensor:
    """This rank's slice of the sum over ranks."""
    import torch.distributed as dist

    slices = [_padded(one, max(sizes), dim) for one in whole.split(tuple(sizes), dim)]
    own = torch.empty_like(slices[0])
    dist.reduce_scatter(own, slices, group=group.handle)
    return _like(own.narrow(dim, 0, sizes[group.index]), whole)


def _padded(x: Tensor, size: int, dim: int) -> Tensor:
    """In plain order, with zeros up to `size`: ranks exchange slices of one size."""
    lacking = size - x.shape[dim]
    return (F.pad(x, [0, 0] * (x.dim() - 1 - dim) + [0, lacking]) if lacking else x).contiguous()


def _like(x: Tensor, model: Tensor) -> Tensor:
    """In the order of dimensions that convolutions want, if `model` has it."""
    return x.contiguous(memory_format=order(model))


def order(x: Tensor) -> torch.memory_format:
    """Of a tensor's dimensions in memory: convolutions want the channels last. A slice of channels
    has neither order, and what is computed from it would take the slower one."""
    last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group, sizes: tuple[int, ...], dim: int, added: bool) -> Tensor:
        ctx.group, ctx.sizes, ctx.dim, ctx.added = group, sizes, dim, added
        return put_together(x, group, sizes, dim)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        group, sizes, dim = ctx.group, ctx.sizes, ctx.dim
        if ctx.added:
            return _add_and_cut(gradient, group, sizes, dim), None, None, None, None
        return gradient.split(sizes, dim)[group.index], None, None, None, None


class _Edge(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group, reach: int) -> Tensor:
        ctx.group, ctx.reach, ctx.shape, ctx.order = group, reach, x.shape, order(x)
        both = put_together(_own_edge(x, group, reach), group, (reach, reach), 1)
        return _like(both.split(reach, 1)[1 - group.index], x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        group, reach = ctx.group, ctx.reach
        both = [torch.zeros_like(gradient), gradient]  # nothing for itself, all for the other
        pair = torch.cat(both if group.index == 0 else both[::-1], 1)
        of_x = torch.empty(ctx.shape, dtype=gradient.dtype, device=gradient.device, memory_format=ctx.order).zero_()
        _own_edge(of_x, group, reach).copy_(_add_and_cut(pair, group, (reach, reach), 1))
        return of_x, None, None


def _own_edge(x: Tensor, group: Group, reach: int) -> Tensor:
    """What the other tower wants: the last channels of the first, the first of the second."""
    return x[:, -reach:] if group.index == 0 else x[:, :reach]
