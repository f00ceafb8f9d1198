"""Softmax cross-entropy, its gradient, and whether the guesses were right, in
one pass over the logits.

A program holds one picture's logits in registers, so the loss, the gradient (softmax - target) / N
and the rank of the right class cost one read of the logits and one write of the gradient: 8 kB per
image of 1000 classes in float32. The pictures' losses and hits are added up afterwards, in a fixed
order, by one reduction. The tile is the row: there is no size to tune.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _cross_entropy(
    logits_ptr,  # (N, K)
    labels_ptr,  # (N,) int64
    rows_ptr,  # (N, 3) float32: loss / N, first guess right, right one among five
    gradient_ptr,  # (N, K)
    K,
    one_over_n,
    smoothing,
    CLASSES: tl.constexpr,
):
    n = tl.program_id(0)
    c = tl.arange(0, CLASSES)
    z = tl.load(logits_ptr + n * K + c, mask=c < K, other=float("-inf")).to(tl.float32)
    label = tl.load(labels_ptr + n)

    largest = tl.max(z, 0)
    e = tl.exp(z - largest)
    total = tl.sum(e, 0)
    target = tl.where(c == label, 1 - smoothing, 0.0) + smoothing / K
    loss = largest + tl.log(total) - tl.sum(target * tl.where(c < K, z, 0.0), 0)
    gradient = (e / total - target) * one_over_n
    tl.store(gradient_ptr + n * K + c, gradient.to(gradient_ptr.dtype.element_ty), mask=c < K)

    right = tl.sum(tl.where(c == label, z, 0.0), 0)
    rank = tl.sum(((z > right) | ((z == right) & (c < label))).to(tl.int32), 0)
    rank = tl.where(right == right, rank, K)  # NaN is never right
    tl.store(rows_ptr + 3 * n, loss * one_over_n)
    tl.store(rows_ptr + 3 * n + 1, (rank < 1).to(tl.float32))
    tl.store(rows_ptr + 3 * n + 2, (rank < 5).to(tl.float32))


@torch.library.custom_op("alexnet::cross_entropy_topk", mutates_args=())
def cross_entropy_rows(logits: Tensor, labels: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
    """(N, 3) float32 of each picture's share in the mean loss, top-1 and top-5 hits; (N, K)
    gradient of the mean loss."""
    logits = logits.contiguous()
    (n, k), device = logits.shape, logits.device
    rows, gradient = torch.empty(n, 3, dtype=torch.float32, device=device), torch.empty_like(logits)
    _cross_entropy[n,](
        logits,
        labels.contiguous(),
        rows,
        gradient,
        k,
        1 / n,
        smoothing,
        CLASSES=triton.next_power_of_2(k),
        enable_fp_fusion=True,
    )
    return rows, gradient


@cross_entropy_rows.register_fake
def _(logits: Tensor, labels: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
    rows = torch.empty(logits.shape[0], 3, dtype=torch.float32, device=logits.device)
    return rows, torch.empty_like(logits, memory_format=torch.contiguous_format)


def _save(ctx, inputs, output):
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1])
    ctx.set_materialize_grads(False)  # of the gradient it would be a tensor of zeros


def _gradient(ctx, g, _):
    if g is None:
        return None, None, None
    (gradient,) = ctx.saved_tensors
    return (gradient * g[:, :1]).to(gradient.dtype), None, None  # g's first column is 1 where the mean loss is what we minimise


cross_entropy_rows.register_autograd(_gradient, setup_context=_save)


def cross_entropy_topk(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
    """As `reference.cross_entropy_topk`."""
    total = cross_entropy_rows(logits, labels, smoothing)[0].sum(0)
    return total[0], total[1:].detach()
