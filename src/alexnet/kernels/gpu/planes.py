"""Maps whose towers may be apart (`kernels/planes.py`), as kernels write and read them."""

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def place(channel, positions, WIDTH: tl.constexpr, PLANES: tl.constexpr):
    """Where a channel is, from the start of its position's row of `WIDTH` channels in the first
    plane. In one plane that is its number."""
    return channel if PLANES == 1 else channel // WIDTH * (positions * WIDTH) + channel % WIDTH


def new_maps(x: Tensor, channels: int, planes: int, height: int, width: int, dtype: torch.dtype | None = None) -> Tensor:
    """Memory for maps of so many channels in so many planes, channels-last, for the pictures of x,
    whose planes have as many channels."""
    shape = len(x) * x.shape[1] // channels * planes, channels // planes, height, width
    return torch.empty(shape, dtype=dtype or x.dtype, device=x.device, memory_format=torch.channels_last)
