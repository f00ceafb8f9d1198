"""Training on a CPU: images/s of this project's step against the naive network's, update included.

    python benchmarks/train_cpu.py
    python benchmarks/train_cpu.py --width 0.5 --input-size 64 --steps 20

The second is the recipe laptop's size. With ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 before
the command a processor with AVX-512 runs the code of one with AVX2.

Naive is what one writes first: the same layers, eager, NCHW, `F.local_response_norm`,
`torch.optim.SGD`. Ours is what `alexnet train` runs: channels-last, our own normalisation and fully
connected layers, the paper's SGD, memory that stays with the process, and one lane or several.
`naive, memory kept` has our setting of the allocator. Where the processor has bfloat16, ours also
train in it, and naive by PyTorch's autocast, its memory kept. `--before FOLDER` also times the step
of an earlier version, from its `src`. `--only "2 lanes" "2 lanes, bf16"` times these
beside naive: all of them take some 16 GB at full size.

Every contestant is a process of its own, as the allocator's settings are a process's; they take
their blocks of steps in turns, on the same noise of 50 grey levels. `--beside 1` keeps a core busy
meanwhile; `--waiting` also lets PyTorch's threads spin while they wait for each other. The last
line is one JSON object; `ratio` is the best of ours in float32 against naive, the median over
blocks, `range` its extremes, `memory` its peak against naive's; `bf16` the best of ours in bfloat16
against the best in float32 and against naive's. At sgemm speed: as fast as a 4096 x 4096 product.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from inspect import signature
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet import AlexNet, arithmetic
from alexnet.bench import Naive
from alexnet.run_folder import environment
from alexnet.train.optim import SGD
from alexnet.train.steps.plain import loss_function
from alexnet.variants import Variant, get_variant

Step = Callable[[], None]
BF16 = ", bf16"  # in a contestant's name


# --- contestants ----------------------------------------------------------------------------------


def naive_step(variant: Variant, images: Tensor, labels: Tensor, bf16: bool) -> Step:
    """A step of the network as one writes it first; in bfloat16 by autocast."""
    net = Naive(variant)
    optimiser = torch.optim.SGD(net.parameters(), lr=1e-4, momentum=0.9, weight_decay=5e-4)

    def step() -> None:
        optimiser.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = net(images)
        F.cross_entropy(logits.float(), labels).backward()
        optimiser.step()

    return step


def our_step(variant: Variant, images: Tensor, labels: Tensor, lanes: int, bf16: bool) -> Step:
    """A step as `alexnet train` takes it on a CPU; one lane in float32 is what earlier versions
    have.
    """
    net = AlexNet(variant).to(memory_format=torch.channels_last)
    optimiser = SGD(net, momentum=0.9, weight_decay=5e-4, variant=variant)
    network: Any = net
    if lanes > 1:
        from alexnet.lanes import Lanes

        network = Lanes(net, lanes, max(1, torch.get_num_threads() // lanes), torch.bfloat16 if bf16 else None)
    if bf16:
        from alexnet.train.steps.plain import computing_in

        network = computing_in(torch.bfloat16, network)
    forward = loss_function(network, False)
    batch = [images.contiguous(memory_format=torch.channels_last), labels]
    if len(signature(forward).parameters) > 2:  # earlier versions have no keys
        from alexnet.data.chance import Chance

        batch.append(torch.from_numpy(Chance(0, 0).dropout_keys(np.arange(len(images)), net.dropouts)))

    def step() -> None:
        forward(*batch)[0].backward()
        optimiser.step(1e-4)

    return step


def work(name: str, arguments: argparse.Namespace) -> None:
    """Be a contestant: for each number read, take so many steps, and write the seconds."""
    variant = variant_of(arguments)
    torch.manual_seed(0)
    images = torch.randn(arguments.batch, 3, variant.input_size, variant.input_size) * 50
    labels = torch.randint(0, variant.num_classes, (arguments.batch,))
    if name not in ("naive", "before"):
        from alexnet.memory import keep_freed

        keep_freed(arguments.batch * variant.largest_activation_bytes)
    lanes = int(name.split()[0]) if name[0].isdigit() else 1
    bf16 = name.endswith(BF16)
    step = naive_step(variant, images, labels, bf16) if "naive" in name else our_step(variant, images, labels, lanes, bf16)
    for count in map(int, sys.stdin):
        start = time.perf_counter()
        for _ in range(count):
            step()
        print(time.perf_counter() - start, peak_bytes(), flush=True)


def peak_bytes() -> int:
    """The most memory that this process had; 0 where the system does not say."""
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def variant_of(arguments: argparse.Namespace) -> Variant:
    """The network; of fewer pixels than the paper's it has ten classes."""
    classes = {} if arguments.input_size >= 224 else {"num_classes": 10}
    return get_variant(arguments.variant, width=arguments.width, input_size=arguments.input_size, **classes)


# --- the contest ----------------------------------------------------------------------------------


class Contestant:
    """A process that takes steps when it is told to."""

    def __init__(self, name: str, words: list[str], variables: dict[str, str]) -> None:
        command = [sys.executable, __file__, *words, "--worker", name]
        self.name = name
        self.process = subprocess.Popen(command, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.peak = 0

    def take(self, steps: int) -> float:
        """Seconds of so many steps."""
        assert self.process.stdin and self.process.stdout
        print(steps, file=self.process.stdin, flush=True)
        seconds, peak = self.process.stdout.readline().split()
        self.peak = int(peak)
        return float(seconds)


@contextmanager
def contestants(arguments: argparse.Namespace, words: list[str]) -> Iterator[list[Contestant]]:
    """All of them, started and warm; ended afterwards."""
    from alexnet.devices import lacks_bf16  # here, as earlier versions have none

    sleeping = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    spinning = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    lanes = [2**power for power in range(torch.get_num_threads().bit_length())]
    ours = [f"{count} lane{'s' * (count > 1)}" for count in lanes]
    names = dict.fromkeys(["naive", "naive, memory kept", *ours], sleeping)
    if lacks_bf16() is None:
        names |= dict.fromkeys([name + BF16 for name in ("naive", *ours)], sleeping)
    if arguments.before:
        names["before"] = {**sleeping, "PYTHONPATH": arguments.before}
    if arguments.only:
        names = {name: variables for name, variables in names.items() if name in ("naive", *arguments.only)}
    if arguments.waiting:
        names |= {f"{name}, spinning": spinning for name in ours}
    with ExitStack() as stack:
        busy = [sys.executable, "-c", "while True: pass"]
        for command in [busy] * arguments.beside:
            stack.callback(subprocess.Popen(command).kill)
        started = [Contestant(name, words, variables) for name, variables in names.items()]
        for one in started:
            stack.callback(one.process.kill)
        for one in started:
            one.take(2)
        yield started


def sgemm_flops() -> float:
    """Floating-point operations a second of a 4096 x 4096 product; the best of three."""
    a, b = torch.randn(2, 4096, 4096)
    a @ b
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - start)
    return 2 * 4096**3 / min(seconds)


def main() -> None:
    """Time them all and print the table and the line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", default="paper")
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--input-size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=2, help="in each block")
    parser.add_argument("--blocks", type=int, default=7)
    parser.add_argument("--beside", type=int, default=0, help="processes that keep a core busy")
    parser.add_argument("--waiting", action="store_true", help="also time threads that spin")
    parser.add_argument("--only", nargs="+", help="time these beside naive")
    parser.add_argument("--before", help="src of an earlier version")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.worker, arguments)
        return
    rates: dict[str, list[float]] = {}
    with contestants(arguments, sys.argv[1:]) as started:
        for _ in range(arguments.blocks):
            for one in started:
                rates.setdefault(one.name, []).append(arguments.steps * arguments.batch / one.take(arguments.steps))
        peaks = {one.name: one.peak for one in started}
    report(arguments, rates, peaks)


def against(ours: list[float], theirs: list[float]) -> list[float]:
    """How many times as fast, block by block: the median, the least, the most."""
    ratios = [own / other for own, other in zip(ours, theirs, strict=True)]
    return [round(f(ratios), 3) for f in (statistics.median, min, max)]


def report(arguments: argparse.Namespace, rates: dict[str, list[float]], peaks: dict[str, int]) -> None:
    """The table, and the line of JSON."""
    variant = variant_of(arguments)
    at_sgemm_speed = sgemm_flops() / arithmetic.training_flop(variant.layers())
    medians = {name: statistics.median(values) for name, values in rates.items()}
    ratios = {name: [ours / naive for ours, naive in zip(rates[name], rates["naive"], strict=True)] for name in rates}
    ours = [name for name in rates if name[0].isdigit() and "spinning" not in name]
    best = max((name for name in ours if not name.endswith(BF16)), key=lambda name: medians[name])
    print(f"{'':20}{'images/s':>10}{'x naive':>10}{'range':>17}{'memory, MB':>12}{'of sgemm':>10}")
    for name, ratio in ratios.items():
        cells = f"{medians[name]:10.1f}{statistics.median(ratio):10.2f}   {min(ratio):5.2f} to {max(ratio):5.2f}"
        print(f"{name:20}{cells}{peaks[name] / 1e6:12.0f}{medians[name] / at_sgemm_speed:10.0%}")
    print(f"{'at sgemm speed':20}{at_sgemm_speed:10.1f}")
    result = {
        "benchmark": "train_cpu",
        "variant": variant.name,
        "width": arguments.width,
        "input_size": arguments.input_size,
        "batch": arguments.batch,
        "beside": arguments.beside,
        "images_per_second": {name: round(value, 2) for name, value in medians.items()},
        "peak_megabytes": {name: round(peak / 1e6) for name, peak in peaks.items()},
        "at_sgemm_speed": round(at_sgemm_speed, 1),
        "best": best,
        "ratio": round(statistics.median(ratios[best]), 3),
        "range": [round(f(ratios[best]), 3) for f in (min, max)],
        "memory": round(peaks[best] / max(peaks["naive"], 1), 3),
        "environment": environment(),
    }
    if narrow := [name for name in ours if name.endswith(BF16)]:
        fastest = max(narrow, key=lambda name: medians[name])
        result["bf16"] = {"best": fastest, "over_float32": against(rates[fastest], rates[best])}
        if naive := rates.get("naive" + BF16):
            result["bf16"]["over_naive"] = against(rates[fastest], naive)
    if arguments.before:
        result["over_before"] = against(rates[best], rates["before"])
    print(json.dumps(result))


if __name__ == "__main__":
    main()
