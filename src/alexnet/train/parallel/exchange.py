"""Collectives inside a network, as operations of autograd.

`all_gather` concatenates the ranks' slices of a tensor on each rank. Its backward pass has two
cases; confusing them would change every gradient below by a factor:

- Each rank computes something different from the whole (its kernels of conv3, its units of fc7).
  Its gradient of the whole is then one term of a sum: the ranks' gradients are summed, and each
  rank keeps its slice. That is a reduce-scatter.
- Each rank computes the same from the whole (the loss from all logits). Each then has the complete
  gradient already, and a sum would double it on two ranks: each keeps its slice as it is.

`halo` gives a tower the channels that its normalisation reads from the other one.

The collectives on lists of tensors are in every version of PyTorch; those on single tensors have
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
    """Ranks that communicate with one another; `index` is the place of this one among them."""

    handle: Any
    index: int
    size: int


def all_gather(x: Tensor, group: Group, sizes: Sequence[int], dim: int, summed: bool = True) -> Tensor:
    """The slices of all ranks of a group, concatenated in the order of the ranks.

    Args:
        x: this rank's slice, of size `sizes[group.index]` along `dim`; the other dimensions are
            the same on all ranks.
        sizes: of all slices along `dim`.
        summed: whether each rank's gradient of the whole is one term of a sum.

    Returns:
        A new tensor of `sum(sizes)` along `dim`.
    """
    whole: Tensor = _AllGather.apply(x, group, tuple(sizes), dim, summed)
    return whole


def halo(x: Tensor, group: Group, reach: int) -> Tensor:
    """The other tower's channels next to this tower's.

    Args:
        x: (N, C, H, W), this tower's maps; the first tower has the lower channels.
        reach: number of channels.

    Returns:
        (N, reach, H, W): the first tower gets the second's first channels, the second tower gets
        the first's last ones.
    """
    other: Tensor = _Halo.apply(x, group, reach)
    return other


def all_gather_values(x: Tensor, group: Group, sizes: Sequence[int], dim: int = 0) -> Tensor:
    """As `all_gather`, without gradients."""
    import torch.distributed as dist

    padded = _padded(x.detach(), max(sizes), dim)
    slices = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(slices, padded, group=group.handle)
    whole = torch.cat([one.narrow(dim, 0, size) for one, size in zip(slices, sizes, strict=True)], dim)
    return _like(whole, x)


def _reduce_scatter(whole: Tensor, group: Group, sizes: Sequence[int], dim: int) -> Tensor:
    """This rank's slice of the sum over ranks."""
    import torch.distributed as dist

    slices = [_padded(one, max(sizes), dim) for one in whole.split(tuple(sizes), dim)]
    own = torch.empty_like(slices[0])
    dist.reduce_scatter(own, slices, group=group.handle)
    return _like(own.narrow(dim, 0, sizes[group.index]), whole)


def _padded(x: Tensor, size: int, dim: int) -> Tensor:
    """Contiguous, padded with zeros to `size`: all slices of a collective have the same size."""
    lacking = size - x.shape[dim]
    return (F.pad(x, [0, 0] * (x.dim() - 1 - dim) + [0, lacking]) if lacking else x).contiguous()


def _like(x: Tensor, model: Tensor) -> Tensor:
    """In the memory format of `model`."""
    return x.contiguous(memory_format=memory_format(model))


def memory_format(x: Tensor) -> torch.memory_format:
    """Channels-last, as convolutions need, or contiguous. A slice of channels is neither, and
    operations on it would take the slower contiguous path.
    """
    last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


class _AllGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group, sizes: tuple[int, ...], dim: int, summed: bool) -> Tensor:
        ctx.group, ctx.sizes, ctx.dim, ctx.summed = group, sizes, dim, summed
        return all_gather_values(x, group, sizes, dim)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        group, sizes, dim = ctx.group, ctx.sizes, ctx.dim
        if ctx.summed:
            return _reduce_scatter(gradient, group, sizes, dim), None, None, None, None
        return gradient.split(sizes, dim)[group.index], None, None, None, None


class _Halo(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group, reach: int) -> Tensor:
        ctx.group, ctx.reach, ctx.shape, ctx.memory_format = group, reach, x.shape, memory_format(x)
        both = all_gather_values(_own_halo(x, group, reach), group, (reach, reach), 1)
        return _like(both.split(reach, 1)[1 - group.index], x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        group, reach = ctx.group, ctx.reach
        both = [torch.zeros_like(gradient), gradient]  # zero for this tower, all for the other
        pair = torch.cat(both if group.index == 0 else both[::-1], 1)
        of_x = torch.empty(ctx.shape, dtype=gradient.dtype, device=gradient.device, memory_format=ctx.memory_format).zero_()
        _own_halo(of_x, group, reach).copy_(_reduce_scatter(pair, group, (reach, reach), 1))
        return of_x, None, None


def _own_halo(x: Tensor, group: Group, reach: int) -> Tensor:
    """The channels that the other tower reads: the first tower's last, the second's first."""
    return x[:, -reach:] if group.index == 0 else x[:, :reach]
