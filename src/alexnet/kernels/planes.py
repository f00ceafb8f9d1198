"""Maps with their towers apart in memory.

Maps are channels-last, so a position's channels are side by side, and a convolution in two towers
sees half of each such row. Libraries are at their best with dense maps, for which each half would
first have to be copied. Apart, (N, C, H, W) is (towers * N, C / towers, H, W): one tower of all
pictures, then the next, in planes of their own. Each is a dense channels-last map, a `chunk` of the
whole, and no copy.
"""

import torch
from torch import Tensor


def apart(x: Tensor, planes: int) -> Tensor:
    """(N, C, H, W) to (planes * N, C / planes, H, W); a copy, unless it is one plane."""
    return torch.cat(x.chunk(planes, 1)) if planes > 1 else x


def together(x: Tensor, planes: int) -> Tensor:
    """(planes * N, C / planes, H, W) to (N, C, H, W); a copy, unless it is one plane."""
    return torch.cat(x.chunk(planes), 1) if planes > 1 else x
