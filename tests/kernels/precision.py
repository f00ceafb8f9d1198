"""How far a kernel may be from float64, ||found - expected|| / ||expected||, and memory in which an
unwritten number shows.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

#: float32 rounds by 6e-8, a hundred times or so; bfloat16 rounds by 2^-8 at most, 1.7e-3 in the
#: mean over many numbers.
LIMITS = {torch.float32: 1e-5, torch.bfloat16: 4e-3}
#: The interpreter cuts bfloat16 off instead of rounding, which doubles that.
CUT_OFF = 8e-3


def check(found: Tensor, expected: Tensor, dtype: torch.dtype | None = None) -> None:
    """Assert that `found` is `expected` to the precision of `dtype`, its own if None; NaN never
    is.
    """
    dtype = dtype or found.dtype
    limit = CUT_OFF if dtype == torch.bfloat16 and found.device.type == "cpu" else LIMITS[dtype]
    found, expected = found.detach().double(), expected.detach()
    assert found.shape == expected.shape
    distance = float((found - expected).norm() / expected.norm())
    assert distance < limit, f"{distance:.2e} away, {limit:.0e} allowed"


@contextmanager
def poisoned() -> Iterator[None]:
    """New tensors hold NaN, or the largest integer, until something is written to them."""
    assert torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
