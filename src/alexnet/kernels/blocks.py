"""conv1 without its stride: 11 x 11 / 4 over 3 colours is 3 x 3 / 1 over 48.

Matrix units need many input channels, and conv1 has three: padded to the eight that they take,
37 % of the work is useful. So cut the padded picture into blocks of 4 x 4 pixels and call a
block's 48 numbers channels. A kernel of 11 x 11 pixels, widened to 12 x 12 by a row and a
column of zeros, then covers 3 x 3 blocks and moves by one block: the same sums over 48 x 9 =
432 terms, 84 % of them useful. Both sides are one `pixel_unshuffle`; channel (c * 4 + row) *
4 + column is colour c of that pixel.

Apply `weight_blocks` to conv1's own weight in every step (35,000 numbers) and autograd drops the
gradient at the 69 of 432 taps that do not exist. Whoever trains the (96, 48, 3, 3) weight itself
multiplies its gradient by `tap_mask`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet.arithmetic import output_size

CELL = 4  # conv1's stride
SIZE = 11  # side of conv1's kernels
SPAN = -(-SIZE // CELL)  # blocks under a kernel, along one side
CHANNELS = 3 * CELL * CELL


def blocks_per_side(size: int, padding: tuple[int, int]) -> int:
    """Blocks along one side of a picture of `size` pixels: two more than conv1 has
    positions (224 with [1, 2]: 57)."""
    return output_size(size, SIZE, CELL, padding) + SPAN - 1


def picture_blocks(x: Tensor, padding: tuple[int, int]) -> Tensor:
    """The input of conv1 in blocks.

    Args:
        x: (N, 3, K, K), normalised: the padding is zeros of what the convolution sees.
        padding: conv1's zeros above and left, below and right.

    Returns:
        (N, 48, B, B) with B = `blocks_per_side`; for `F.conv2d(..., weight_blocks(weight))`
        without stride or padding.
    """
    before, size = padding[0], x.shape[-1]
    after = CELL * blocks_per_side(size, padding) - before - size  # negative where conv1 leaves out the last pixels
    return F.pixel_unshuffle(F.pad(x, (before, after, before, after)), CELL)


def weight_blocks(weight: Tensor) -> Tensor:
    """conv1's weight (C, 3, 11, 11) for pictures in blocks: (C, 48, 3, 3). Differentiable."""
    missing = SPAN * CELL - SIZE
    return F.pixel_unshuffle(F.pad(weight, (0, missing, 0, missing)), CELL)


def tap_mask(device: torch.device | str = "cpu") -> Tensor:
    """(1, 48, 3, 3) bool, False at the 69 taps that a kernel of 11 x 11 does not have."""
    return weight_blocks(torch.ones(1, 3, SIZE, SIZE, device=device)) > 0
