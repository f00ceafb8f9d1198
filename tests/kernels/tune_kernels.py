"""Launch every kernel that is tuned, twice, and say what was measured.

    python tests/kernels/tune_kernels.py cuda
    python tests/kernels/tune_kernels.py cpu

One line of JSON: how many configurations were measured, which were chosen, and how often a kernel
was launched that updates the weights it was given. On a CPU nothing is launched and the times are
invented (the last configuration is the fastest), which leaves the choosing and keeping to be looked
at. Run by `test_tiles.py` in a process of its own: one that interprets kernels tunes none.
"""

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget

from alexnet.kernels.gpu import tiles

measured: list[str] = []
updates: list[Any] = []
device = torch.device(sys.argv[1])
benchmark = tiles.measure


def measure(launch: Callable[[], object], quantiles: Sequence[float]) -> list[float]:
    measured.append("a configuration")
    if device.type == "cuda":
        return benchmark(launch, quantiles)
    launch()
    return [1 / len(measured)] * 3


class Driver:
    """Of a GPU that is not there."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)


tiles.measure = measure
from alexnet.kernels.gpu import augment, bias_relu, convolve, relu_lrn_pool, sgd_step  # noqa: E402

KERNELS = {
    "augment": augment._augment,
    "bias_relu": bias_relu._forward,
    "bias_relu backward": bias_relu._backward,
    "convolve": convolve._convolve,
    "relu_lrn_pool": relu_lrn_pool._forward,
    "relu_lrn_pool backward": relu_lrn_pool._backward,
    "sgd": sgd_step._step,
}


def stand_in(kernel: Any) -> None:
    """Have a kernel's launches do nothing but work out their grids."""
    kernel.fn.run = lambda *args, grid, **kwargs: grid(kwargs) if callable(grid) else grid


def watch(weights: torch.Tensor) -> None:
    """Count the updates of `weights`."""
    run = sgd_step._step.fn.run

    def counted(*args: Any, **kwargs: Any) -> Any:
        updates.extend(w for w in args[0] if w is weights)
        return run(*args, **kwargs)

    sgd_step._step.fn.run = counted


def launch(weights: torch.Tensor) -> None:
    """Every kernel, at sizes of one octave; the second time written with towers apart."""
    for n, planes in ((7, 1), (8, 2)):
        x, bias = torch.randn(n, 96, 13, 13, device=device), torch.zeros(96, device=device)
        bias_relu.bias_relu_backward(x, bias_relu.bias_relu(x, bias, planes), 96, 1)
        y, winner = relu_lrn_pool.relu_lrn_pool_forward(x, bias, True, True, 2e-5, 2.0, 1, planes)
        relu_lrn_pool.relu_lrn_pool_backward(y, winner.fill_(9), x, bias, True, True, 2e-5, 2.0, 1)
        records = torch.zeros(n, 72 * 72 * 3 // 2, dtype=torch.uint8, device=device)
        zeros, threes = torch.zeros(n, dtype=torch.int64, device=device), torch.zeros(3, device=device)
        colour, mean = torch.zeros(n, 3, device=device), torch.zeros(3, 1, 1, device=device)
        augment.augment(records, zeros, zeros, zeros.bool(), colour, mean, threes, 67, False)
        sgd_step.sgd_step([weights], [weights.clone()], [weights.clone()], [], torch.zeros(1, device=device), [0.0], 0.9)
        x, weight = torch.zeros(2, 16, 9, 9, device=device), torch.zeros(96, 8, 3, 3, device=device)
        convolve.forward(x, weight, 1, 2)  # 48 kernels a tower


def main() -> None:
    if device.type == "cpu":
        triton.runtime.driver.set_active(Driver())
        for kernel in KERNELS.values():
            stand_in(kernel)
    weights = torch.randn(5000, device=device)
    watch(weights)
    launch(weights)
    chosen = {name: str(kernel.best_config) for name, kernel in KERNELS.items()}
    print(json.dumps({"measured": len(measured), "updates": len(updates), "chosen": chosen}))


if __name__ == "__main__":
    main()
