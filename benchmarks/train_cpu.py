"""Training on a CPU: images/s of this project's step against the naive network's, timed
alternately in one process.

    python benchmarks/train_cpu.py

Naive is what one writes first: the same layers, eager, NCHW, `F.local_response_norm`,
`torch.optim.SGD`. Ours is what `alexnet train` runs: channels-last, the hand-written LRN, compiled
where a C++ compiler is found, the paper's SGD. Both see the same batch of noise of 50 grey levels.
The last line is one JSON object; `ratio` is the median over blocks, `range` its extremes. At sgemm
speed: 4.136 GFLOP an image, as fast as a 4096 x 4096 product.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet import AlexNet, arithmetic
from alexnet.bench import Naive
from alexnet.data.chance import Chance
from alexnet.run_folder import environment
from alexnet.train.optim import SGD
from alexnet.train.steps.plain import loss_function
from alexnet.variants import get_variant


def naive_step(variant: str, images: Tensor, labels: Tensor) -> Callable[[], None]:
    """A step of the network as one writes it first."""
    net = Naive(get_variant(variant))
    optimiser = torch.optim.SGD(net.parameters(), lr=1e-4, momentum=0.9, weight_decay=5e-4)

    def step() -> None:
        optimiser.zero_grad()
        F.cross_entropy(net(images), labels).backward()
        optimiser.step()

    return step


def our_step(variant: str, images: Tensor, labels: Tensor, compiled: bool) -> Callable[[], None]:
    """A step as `alexnet train` takes it on a CPU."""
    net = AlexNet(get_variant(variant)).to(memory_format=torch.channels_last)
    optimiser = SGD(net, momentum=0.9, weight_decay=5e-4, variant=net.variant)
    forward = loss_function(net, compiled)
    images = images.contiguous(memory_format=torch.channels_last)
    keys = torch.from_numpy(Chance(0, 0).dropout_keys(np.arange(len(images)), net.dropouts))

    def step() -> None:
        forward(images, labels, keys)[0].backward()
        optimiser.step(1e-4)

    return step


def sgemm_flops() -> float:
    """Floating-point operations a second of a 4096 x 4096 product."""
    a, b = torch.randn(2, 4096, 4096)
    a @ b
    start = time.perf_counter()
    for _ in range(3):
        a @ b
    return 3 * 2 * 4096**3 / (time.perf_counter() - start)


def main() -> None:
    """Time ours against the naive step and print the table and the line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", default="paper")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=2, help="in each block")
    parser.add_argument("--blocks", type=int, default=7)
    arguments = parser.parse_args()

    torch.manual_seed(0)
    variant = get_variant(arguments.variant)
    images = torch.randn(arguments.batch, 3, variant.input_size, variant.input_size) * 50
    labels = torch.randint(0, variant.num_classes, (arguments.batch,))
    steps = {
        "naive": naive_step(arguments.variant, images, labels),
        "ours, uncompiled": our_step(arguments.variant, images, labels, compiled=False),
        "ours": our_step(arguments.variant, images, labels, compiled=True),
    }
    for step in steps.values():
        for _ in range(2):
            step()
    rates: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(arguments.blocks):
        for name, step in steps.items():
            start = time.perf_counter()
            for _ in range(arguments.steps):
                step()
            rates[name].append(arguments.steps * arguments.batch / (time.perf_counter() - start))

    at_sgemm_speed = sgemm_flops() / arithmetic.training_flop(variant.layers())
    print(f"{'':18}{'images/s':>10}{'x naive':>10}{'range':>16}")
    ratios = {name: [ours / naive for ours, naive in zip(rates[name], rates["naive"], strict=True)] for name in steps}
    for name in steps:
        low, middle, high = min(ratios[name]), statistics.median(ratios[name]), max(ratios[name])
        print(f"{name:18}{statistics.median(rates[name]):10.1f}{middle:10.2f}   {low:.2f} to {high:.2f}")
    print(f"{'at sgemm speed':18}{at_sgemm_speed:10.1f}")
    result = {
        "benchmark": "train_cpu",
        "variant": variant.name,
        "batch": arguments.batch,
        "images_per_second": {name: round(statistics.median(values), 2) for name, values in rates.items()},
        "at_sgemm_speed": round(at_sgemm_speed, 1),
        "ratio": round(statistics.median(ratios["ours"]), 3),
        "range": [round(f(ratios["ours"]), 3) for f in (min, max)],
        "environment": environment(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
