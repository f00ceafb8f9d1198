"""Tile sizes: every one that may be chosen gives the right numbers, and what
was chosen is found again.

The interpreter runs a kernel's first configuration only, so here each takes that place in turn.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import test_augment_kernel
import test_bias_relu
import test_relu_lrn_pool
import test_sgd_step
import torch

STEPS = "relu", "norm", "pool"
SCRIPT = Path(__file__).with_name("tune_kernels.py")


def each(module: ModuleType, patch: pytest.MonkeyPatch, **configs: str) -> Iterator[str]:
    """Go through all configurations of the module's kernels, given as kernel=name of the list; a
    launch takes the current ones.
    """
    lists = {kernel: getattr(module, name) for kernel, name in configs.items()}
    for number in range(max(map(len, lists.values()))):
        for kernel, choices in lists.items():
            patch.setattr(getattr(module, kernel), "configs", [choices[number % len(choices)]])
        yield f"configuration {number}"


@pytest.mark.parametrize(
    ("programs", "shape"),
    [(2, (2, 21, 17, 21)), (2048, (1, 21, 9, 9))],
    ids=["several tiles a program", "programs without a tile"],
)
def test_block(programs: int, shape: tuple[int, ...], device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    from alexnet.kernels.gpu import relu_lrn_pool as module

    monkeypatch.setattr(module, "PROGRAMS", programs)
    for _ in each(module, monkeypatch, _forward="FORWARD", _backward="BACKWARD"):
        test_relu_lrn_pool.compare(*test_relu_lrn_pool.maps(*shape), STEPS, 1, torch.float32, device)


@pytest.mark.parametrize("programs", [2, 512], ids=["several tiles a program", "programs without a tile"])
def test_bias_then_relu(programs: int, device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    from alexnet.kernels.gpu import bias_relu as module

    monkeypatch.setattr(module, "PROGRAMS", programs)
    for _ in each(module, monkeypatch, _forward="CONFIGS", _backward="CONFIGS"):
        test_bias_relu.compare((3, 130, 5, 7), torch.float32, device)


@pytest.mark.parametrize("padding", [None, (1, 2)])
def test_augment(padding: tuple[int, int] | None, device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    from alexnet.kernels.gpu import augment as module

    for _ in each(module, monkeypatch, _augment="CONFIGS"):
        test_augment_kernel.compare(test_augment_kernel.arguments(3, 44, 37, True), device, padding=padding, bgr=False)


def test_update(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    from alexnet.kernels.gpu import sgd_step as module

    for _ in each(module, monkeypatch, _step="CONFIGS"):
        test_sgd_step.test_kernel(True, True, torch.bfloat16, device)


def test_smallest_tiles_are_the_smallest(device: torch.device) -> None:
    """The backward kernels' partial sums are counted by them."""
    from alexnet.kernels.gpu import bias_relu, relu_lrn_pool

    assert min(config.kwargs["P"] for config in bias_relu.CONFIGS) == bias_relu.SMALLEST_P
    assert min(config.kwargs["ELEMENTS"] for config in relu_lrn_pool.BACKWARD) == relu_lrn_pool.SMALLEST_ELEMENTS


def test_octaves(device: torch.device) -> None:
    from alexnet.kernels.gpu.tiles import octave

    assert [octave(n) for n in (1, 2**20, 2**20 + 1, 2**21, 2**31 - 1)] == [20, 20, 21, 21, 31]


def tune(where: str, cache: Path) -> dict[str, Any]:
    """What tune_kernels.py says in a new process with this cache."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(cache)
    done = subprocess.run([sys.executable, SCRIPT, where], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("where", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_measured_once(where: str, tmp_path: Path) -> None:
    """Each configuration once, though each kernel is launched twice; a second process none; and
    never on the real weights.
    """
    pytest.importorskip("triton")
    if where == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    first, second = (tune(where, tmp_path) for _ in range(2))
    # augment, bias_relu's two, relu_lrn_pool's two, sgd, and of convolve's nine those that can help
    assert first["measured"] == 4 + 4 + 4 + 6 + 4 + 4 + 3
    assert second["measured"] == 0 and second["chosen"] == first["chosen"]
    assert first["updates"] == second["updates"] == 2
    if where == "cpu":  # the last was the fastest
        assert first["chosen"]["relu_lrn_pool"].startswith("ELEMENTS: 2048, ROWS: 7, num_warps: 8")
        assert first["chosen"]["convolve"].startswith("P: 128, K: 32, MORE: 16, T: 64")
