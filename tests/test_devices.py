"""Precision: both sets of PyTorch's switches agree, or asking one of them is an error."""

from collections.abc import Iterator

import pytest
import torch

from alexnet.devices import set_precision


@pytest.fixture
def switches() -> Iterator[None]:
    """All of them are set back."""
    products, conv = torch.backends.cuda.matmul, torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = torch.get_float32_matmul_precision(), products.fp32_precision, conv.fp32_precision, torch.backends.cudnn.benchmark
    yield
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32 = before[2] == "tf32"
    products.fp32_precision, conv.fp32_precision, torch.backends.cudnn.benchmark = before[1:]


@pytest.mark.usefixtures("switches")
def test_old_and_new_switches_agree() -> None:
    """In any order; no GPU is needed to set them."""
    for precision in ("bf16", "fp32", "tf32", "fp32"):
        set_precision(precision, torch.device("cuda"))
        tf32 = precision != "fp32"
        assert torch.get_float32_matmul_precision() == ("high" if tf32 else "highest")
        assert torch.backends.cuda.matmul.allow_tf32 == torch.backends.cudnn.allow_tf32 == tf32
        kinds = torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision
        assert kinds == (("tf32" if tf32 else "ieee"),) * 2


@pytest.mark.usefixtures("switches")
def test_a_cpu_has_none() -> None:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark
    set_precision("fp32", torch.device("cpu"))
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark) == before
