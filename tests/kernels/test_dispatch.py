"""Which implementation runs: the reference wherever the kernels cannot, without anyone asking."""

import subprocess
import sys
from inspect import signature
from types import SimpleNamespace

import pytest
import torch

from alexnet import kernels
from alexnet.kernels import reference

NAMES = ("augment", "bias_relu", "relu_lrn_pool", "relu_dropout", "cross_entropy_topk", "sgd_step")


@pytest.mark.parametrize("name", NAMES)
def test_signatures_are_the_references(name: str) -> None:
    assert signature(getattr(kernels, name)) == signature(getattr(reference, name))
    assert getattr(kernels, name).__doc__ == getattr(reference, name).__doc__
    pytest.importorskip("triton")
    module = __import__(f"alexnet.kernels.gpu.{name}", fromlist=[name])
    assert signature(getattr(module, name)) == signature(getattr(reference, name))


def test_the_cpu_takes_the_reference_and_loads_no_kernel() -> None:
    program = (
        "import sys, torch\nfrom alexnet import kernels\n"
        "kernels.relu_dropout(torch.randn(1, 3), 0.5, torch.tensor([1], dtype=torch.int32), False)\n"
        "kernels.sgd_step([torch.ones(2)], [torch.ones(2)], [torch.ones(2)], [], torch.ones(1), [0.0], 0.9)\n"
        "sys.exit(any(name.startswith('alexnet.kernels.gpu') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_public_names() -> None:
    assert all(callable(getattr(kernels, name)) for name in kernels.__all__)


@pytest.mark.parametrize(
    ("is_cuda", "dtype", "hip", "triton", "capability", "expected"),
    [
        (True, torch.bfloat16, None, True, (9, 0), True),
        (True, torch.uint8, None, True, (8, 0), True),
        (True, torch.float32, None, True, (7, 5), False),
        (True, torch.float32, None, False, (9, 0), False),
        (True, torch.float32, "6.3", True, (9, 4), False),
        (True, torch.float64, None, True, (9, 0), False),
        (False, torch.float32, None, True, (9, 0), False),
    ],
)
def test_where_the_kernels_run(
    is_cuda: bool,
    dtype: torch.dtype,
    hip: str | None,
    triton: bool,
    capability: tuple[int, int],
    expected: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kernels, "TRITON", triton)
    monkeypatch.setattr(torch.version, "hip", hip)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    x = SimpleNamespace(is_cuda=is_cuda, dtype=dtype, device="cuda:0")
    assert kernels.on_kernels(x) is expected  # type: ignore[arg-type]


def test_data_on_a_gpu_takes_the_kernel(gpu: torch.device) -> None:
    x = torch.randn(2, 8, 9, 9, device=gpu)
    found = kernels.relu_lrn_pool(x, torch.zeros(8, device=gpu), ("relu", "pool"), 5, 2e-5, 0.75, 2.0)
    assert found.is_contiguous(memory_format=torch.channels_last) and not found.is_contiguous()
