"""From resident records to the input of conv1 in one launch: gather, crop, mirror, YUV to RGB,
colour, mean, scale, layout.

Pixels are made in the order of the output: where does it stand in the crop, and from there, where
are its luma and chroma in the record? Pictures (N, 3, K, K) are blocks of one pixel, so both
layouts are one kernel with the side of a block as parameter.

Bytes per image for 224 x 224 in blocks and bfloat16: reads 75,264 of a record, writes 57 *
57 * 48 * 2 = 311,904. The mean image, 602,112 bytes of it, is the same for all pictures and
stays in the GPU's cache.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from alexnet.kernels import blocks
from alexnet.kernels.gpu.tiles import octave, tuned
from alexnet.kernels.reference import stored_side

# Eight, four or two pixels a thread: more share the offsets' arithmetic, fewer leave more loads of
# single bytes in flight.
CONFIGS = [triton.Config({"PIXELS": pixels}, num_warps=warps) for pixels, warps in ((1024, 4), (512, 4), (256, 4), (1024, 8))]


@tuned(CONFIGS, key=["S", "CELL", "MEAN_IMAGE", "octave"])
@triton.jit
def _augment(
    out_ptr,  # (N, B, B, 3 * CELL * CELL)
    records_ptr,  # (M, S * S * 3 / 2) uint8
    index_ptr,  # (N,) int64, which record
    top_ptr,  # (N,)
    left_ptr,  # (N,)
    mirror_ptr,  # (N,)
    colour_ptr,  # (N, 3)
    mean_ptr,  # (3, S, S), or (3,) without MEAN_IMAGE
    scale_ptr,  # (3,)
    K,
    B,
    BEFORE,
    octave,
    S: tl.constexpr,
    CELL: tl.constexpr,
    MEAN_IMAGE: tl.constexpr,
    BGR: tl.constexpr,
    PIXELS: tl.constexpr,
):
    n = tl.program_id(1)
    p = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    block, within = p // (CELL * CELL), p % (CELL * CELL)
    i = block // B * CELL + within // CELL - BEFORE
    j = block % B * CELL + within % CELL - BEFORE
    inside = (i >= 0) & (i < K) & (j >= 0) & (j < K)  # the rest is padding

    row = tl.load(top_ptr + n).to(tl.int32) + i
    column = tl.load(left_ptr + n).to(tl.int32) + tl.where(tl.load(mirror_ptr + n), K - 1 - j, j)
    luma = row * S + column
    chroma = S * S + row // 2 * (S // 2) + column // 2
    record = records_ptr + tl.load(index_ptr + n) * (S * S * 3 // 2)  # 64 bits: records fill the memory
    y = tl.load(record + luma, mask=inside, other=0).to(tl.float32)
    u = tl.load(record + chroma, mask=inside, other=0).to(tl.float32) - 128.0
    v = tl.load(record + chroma + S * S // 4, mask=inside, other=0).to(tl.float32) - 128.0
    rgb = (y + 1.402 * v, y - 0.344136286 * u - 0.714136286 * v, y + 1.772 * u)

    out = out_ptr + n.to(tl.int64) * (B * B * 3 * CELL * CELL) + block * (3 * CELL * CELL) + within
    for c in tl.static_range(3):
        value = tl.minimum(tl.maximum(rgb[c], 0.0), 255.0) + tl.load(colour_ptr + 3 * n + c)
        if MEAN_IMAGE:
            value -= tl.load(mean_ptr + c * S * S + luma, mask=inside, other=0)
        else:
            value -= tl.load(mean_ptr + c)
        value = tl.where(inside, value * tl.load(scale_ptr + c), 0.0)
        channel = 2 - c if BGR else c
        tl.store(out + channel * CELL * CELL, value.to(out_ptr.dtype.element_ty), mask=p < B * B * CELL * CELL)


def augment(
    records: Tensor,
    top: Tensor,
    left: Tensor,
    mirror: Tensor,
    colour: Tensor,
    mean: Tensor,
    scale: Tensor,
    size: int,
    bgr: bool,
    index: Tensor | None = None,
    padding: tuple[int, int] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """As `reference.augment`; the output is channels-last."""
    n, device = len(top), records.device
    if index is None:
        index = torch.arange(n, device=device)
    cell, side, before = 1, size, 0
    if padding:
        cell, side, before = blocks.CELL, blocks.blocks_per_side(size, padding), padding[0]
    shape = n, 3 * cell * cell, side, side
    out = torch.empty(shape, dtype=dtype, device=device, memory_format=torch.channels_last)
    _augment[lambda meta: (triton.cdiv(side * side * cell * cell, meta["PIXELS"]), n)](
        out,
        records.contiguous(),
        index.contiguous(),
        top.contiguous(),
        left.contiguous(),
        mirror.contiguous(),
        colour.contiguous(),
        mean.contiguous(),
        scale.contiguous(),
        size,
        side,
        before,
        octave(out.numel()),
        S=stored_side(records.shape[1]),
        CELL=cell,
        MEAN_IMAGE=mean.shape[1] > 1,
        BGR=bgr,
        enable_fp_fusion=True,
    )
    return out
