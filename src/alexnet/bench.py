"""Measure this machine's speed. `alexnet bench` times training, its data path alone, and inference,
on this machine.

Every contestant runs in turns within each block (A B C A B C), so a slow minute meets all alike; a
rate is the median over blocks, shown with its extremes. On NVIDIA's GPUs time is taken by their
events, elsewhere by the clock. Pictures are noise of natural contrast, eight batches of them; never
zeros, on which processors are faster.

The last column compares with arithmetic: the operations that training or testing on one picture
takes (`arithmetic.py`), at the speed of a large matrix product, the best of those timed before and
after. On a GPU that is a floor. On a CPU the library of convolutions may be faster than that of
products: up to 134 % was seen on an AMD EPYC.
"""

import shutil
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet import arithmetic, engines
from alexnet.arithmetic import LRN, Linear, Op
from alexnet.console import say
from alexnet.data.augment import Augmentation
from alexnet.data.chance import Chance
from alexnet.data.feed import open_feed
from alexnet.data.image import record_bytes
from alexnet.data.loader import Loader
from alexnet.data.preprocessing import Preprocessing
from alexnet.data.store import Split
from alexnet.devices import cores, pick_precision, room_for, set_precision
from alexnet.model import AlexNet
from alexnet.phrases import counted
from alexnet.run_folder import environment
from alexnet.train.recipes import Recipe
from alexnet.train.start import Start
from alexnet.train.steps.choose import open_plain_step, pays
from alexnet.train.steps.fused import TYPES, FusedStep, build
from alexnet.train.steps.plain import PlainStep
from alexnet.variants import Variant

Contestant = Callable[[], object]
STORED = 256  # side of the stored pictures, or the input's if that is larger
BATCHES = 8
LR = 1e-4  # small enough for noise


@dataclass(frozen=True)
class Timing:
    """What was timed.

    Attributes:
        rates: pictures a second in each block.
        floor: pictures a second that the arithmetic would take at a product's speed; None where
            there is none to speak of.
        first: the rates of the contest's first, in the same blocks.
    """

    name: str
    rates: list[float]
    floor: float | None
    first: list[float]

    @property
    def rate(self) -> float:
        """Median images a second."""
        return statistics.median(self.rates)

    @property
    def ratios(self) -> list[float]:
        """How many times as fast the contest's first was, block by block."""
        return [first / own for first, own in zip(self.first, self.rates, strict=True)]

    def with_floor(self, factor: float) -> "Timing":
        """The same with the floor times `factor`."""
        return replace(self, floor=None if self.floor is None else self.floor * factor)

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        share = None if self.floor is None else round(self.rate / self.floor, 4)
        extremes = [round(f(self.rates), 1) for f in (min, max)]
        ratio = None if self.first is self.rates else round(statistics.median(self.ratios), 3)
        return {"images_per_second": round(self.rate, 1), "range": extremes, "share": share, "first_over_this": ratio}


def bench(
    variant: Variant, device: torch.device, batch: int, peers: bool, compile: bool = True, blocks: int = 5, steps: int = 0
) -> tuple[list[Timing], dict[str, Any]]:
    """Time everything.

    Args:
        peers: also time the naive network and torchvision's.
        compile: whether what can be compiled is, if a compiler is there.
        steps: of training in a block; as many as take about two seconds if 0.

    Returns:
        the rows, and they and the circumstances as plain data.

    Raises:
        TrainingError: the batch does not fit into the GPU's memory.
    """
    with ExitStack() as stack:
        stack.enter_context(room_for(f"batch (={batch})", device, f"--batch {max(1, batch // 2)}"))
        scene = Scene(variant, device, batch, compile and (device.type == "cuda" or bool(shutil.which("g++"))))
        stack.callback(scene.close)
        say(f"Measuring on {scene.hardware}, batch {batch}, {scene.precision} ...")
        speed = product_flops(device, scene.precision)
        train_floor = speed / arithmetic.training_flop(variant.layers())
        test_floor = speed / (2 * variant.multiply_adds)
        training = {"training": scene.training()} | ({**scene.peers()} if peers else {})
        rows = contest(training, device, batch, train_floor, blocks, steps)
        rows += contest({"its data path alone": scene.data()}, device, batch, None, blocks, steps)
        network, name = scene.inference()
        pictures = scene.pictures
        rows += contest({f"testing ({name})": lambda: network(pictures)}, device, batch, test_floor, blocks, steps)
        rows += contest({f"testing, one by one ({name})": lambda: network(pictures[:1])}, device, 1, test_floor, blocks, steps)
        gain = max(1.0, product_flops(device, scene.precision) / speed)  # where the machine was busy at first
        rows, speed = [row.with_floor(gain) for row in rows], speed * gain
    return rows, {
        "benchmark": "bench",
        "variant": variant.name,
        "hardware": scene.hardware,
        "batch": batch,
        "precision": scene.precision,
        "product_tflops": round(speed / 1e12, 3),
        "rows": {row.name: row.as_json() for row in rows},
        "environment": environment(),
    }


def table(rows: list[Timing]) -> list[list[str]]:
    """The header, then a line for each row; for peers how many times as fast `training` was,
    block by block.
    """
    peers = any(row.first is not row.rates for row in rows)
    lines = [["", "images/s", "range", "of a product", *([f"{rows[0].name} is"] if peers else [])]]
    for row in rows:
        share = "" if row.floor is None else f"{row.rate / row.floor:.1%}"
        ratio = f"{statistics.median(row.ratios):.2f}x ({min(row.ratios):.2f} to {max(row.ratios):.2f})"
        line = [row.name, f"{row.rate:,.0f}", f"{min(row.rates):,.0f} to {max(row.rates):,.0f}", share]
        lines.append([*line, *(["" if row.first is row.rates else ratio] if peers else [])])
    return lines


# --- timing ---------------------------------------------------------------------------------------


def contest(
    contestants: Mapping[str, Contestant], device: torch.device, batch: int, floor: float | None, blocks: int, steps: int
) -> list[Timing]:
    """Time the contestants in turns. One that fails drops out with a line; one that
    is out of memory ends all.
    """
    alive: dict[str, int] = {}
    for name, run in contestants.items():
        try:
            seconds(run, device, 3)
            alive[name] = steps or max(1, min(1000, round(2 / seconds(run, device, 2))))
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:  # a peer's compiler, for one
            say(f"{name} cannot run here ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}).")
    rates: dict[str, list[float]] = {name: [] for name in alive}
    for _ in range(blocks):
        for name, count in alive.items():
            rates[name].append(batch / seconds(contestants[name], device, count))
    first = next(iter(rates.values()), [])
    return [Timing(name, measured, floor, first) for name, measured in rates.items()]


def seconds(run: Contestant, device: torch.device, count: int) -> float:
    """Seconds of one of `count` runs in a row."""
    if device.type == "cuda":
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(count):
            run()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1000 / count
    _settle(device)
    start = time.perf_counter()
    for _ in range(count):
        run()
    _settle(device)
    return (time.perf_counter() - start) / count


def _settle(device: torch.device) -> None:
    """Wait until Apple's GPU has done what was queued; a CPU has."""
    if device.type == "mps":
        torch.mps.synchronize()


def product_flops(device: torch.device, precision: str) -> float:
    """Operations a second of a large square matrix product, of side 8192 on a GPU, 1024 on
    a CPU; the best of five.
    """
    side = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(side, side, device=device).to(TYPES[precision]) for _ in range(2))
    seconds(lambda: a @ b, device, 3)
    return float(2 * side**3 / min(seconds(lambda: a @ b, device, 4) for _ in range(5)))


# --- contestants ----------------------------------------------------------------------------------


class Scene:
    """A network, noise to train it on, and whoever competes."""

    def __init__(self, variant: Variant, device: torch.device, batch: int, compile: bool) -> None:
        self.variant, self.device, self.batch, self.compile = variant, device, batch, compile
        self.takes_fused = pays(variant, device)
        self.precision = pick_precision("auto", device, self.takes_fused)
        set_precision(self.precision, device)
        self.split = noise(max(STORED, variant.input_size), BATCHES * batch, variant.num_classes)
        preprocessing = preprocessing_of(variant).to(device)
        self.augmentation = Augmentation(preprocessing, True, True, np.eye(3))
        self.pictures = preprocessing.view(torch.from_numpy(self.split.records[:batch]).to(device), 0, 0, False)
        self.labels = torch.from_numpy(self.split.labels[:batch].astype(np.int64)).to(device)
        here = environment()
        cpu = f"{here['processor']} ({here['cpu_capability']}, {counted(cores(), 'core')})"
        self.hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu
        self._fused: FusedStep | None = None
        self._plain: PlainStep | None = None

    def begun(self) -> Start:
        """A run as it begins."""
        return Start.on_records(Recipe(), self.variant, self.split, self.augmentation).in_batches_of(self.batch)

    def fused(self, beside: bool = True) -> FusedStep:
        """The fused step with everything resident; `beside` as `FusedStep` takes it."""
        start = self.begun()
        feed = open_feed("resident", start.loader, self.device)
        self._fused = build(feed, start.model, start.augmentation, start.optimiser, TYPES[self.precision], beside=beside)
        return self._fused

    def training(self) -> Contestant:
        """One step after the other as `alexnet train` takes them here, in as many lanes."""
        if self.takes_fused:
            fused = self.fused()
            return Steps(fused.feed.loader, lambda epoch, step: fused.take(epoch, step, LR, 1.0))
        start = self.begun()
        plain = self._plain = open_plain_step(start, self.device.type == "cuda" and self.compile)
        return Steps(start.loader, lambda epoch, step: plain.take(epoch, step, LR, 1.0))

    def data(self) -> Contestant:
        """The batches alone."""
        if self._fused:
            return self._fused.data_alone()

        loader = self.begun().loader

        def make(epoch: int, step: int) -> None:
            records = loader.batch(epoch, step).records.to(self.device)
            self.augmentation(records, loader.indices(epoch, step), Chance(0, epoch))

        return Steps(loader, make)

    def inference(self) -> tuple[engines.Network, str]:
        """What `alexnet predict` and `evaluate` would multiply with, and its name."""
        network = engines.fastest(self.begun().model.eval())
        return torch.inference_mode()(network), "fused" if self.takes_fused else "PyTorch, eager"

    def peers(self) -> dict[str, Contestant]:
        """The naive network and torchvision's, on one ready batch on the device."""
        cuda = self.device.type == "cuda"
        own, theirs = Naive(self.variant).to(self.device), torchvisions(self.variant.num_classes).to(self.device)
        peers = {"naive network": self._peer(own, False, False)}
        if cuda:
            peers["naive network, AMP"] = self._peer(own, True, False)
        if self.compile:
            kind = "AMP, compiled" if cuda else "compiled"
            peers[f"plain network, {kind}"] = self._peer(self.begun().model, cuda, True)
        peers[f"torchvision's{', AMP' if cuda else ''}"] = self._peer(theirs, cuda, False)
        if self.compile:
            peers[f"torchvision's{', AMP' if cuda else ''}, compiled"] = self._peer(theirs, cuda, True)
        return peers

    def _peer(self, model: nn.Module, amp: bool, compiled: bool) -> Contestant:
        channels_last = amp or compiled
        images = self.pictures.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
        if channels_last:
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        cuda = self.device.type == "cuda"
        optimiser = torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9, weight_decay=5e-4, fused=cuda)
        # On a GPU recorded as CUDA graphs too, as the fused step is.
        forward = torch.compile(model, dynamic=False, mode="reduce-overhead" if cuda else None) if compiled else model

        def step() -> None:
            optimiser.zero_grad()
            with torch.autocast(self.device.type, torch.bfloat16) if amp else nullcontext():
                loss = F.cross_entropy(forward(images), self.labels)
            loss.backward()
            optimiser.step()

        return step

    def close(self) -> None:
        """Let the step's threads and stream go."""
        for step in (self._fused, self._plain):
            if step:
                step.close()


class Steps:
    """A run that takes step after step, epoch after epoch."""

    def __init__(self, loader: Loader, take: Callable[[int, int], object]) -> None:
        self.loader, self.take, self.number = loader, take, 0

    def __call__(self) -> None:
        """Take the next step."""
        self.take(*divmod(self.number, self.loader.steps_per_epoch))
        self.number += 1


class Naive(AlexNet):
    """The network as one writes it first, with the framework's own layers."""

    def compute(self, op: Op, x: Tensor) -> Tensor:
        """As the network's own, but for normalisation and the fully connected layers."""
        if isinstance(op, Linear):
            return self.get_submodule(op.name)(x.flatten(1))
        if isinstance(op, LRN):
            towers = x.reshape(x.shape[0] * op.towers, -1, *x.shape[2:])
            return F.local_response_norm(towers, op.size, op.coefficient * op.size, op.beta, op.k).reshape(x.shape)
        return super().compute(op, x)


def torchvisions(classes: int) -> nn.Sequential:
    """torchvision's alexnet, layer by layer; 4.145 GFLOP to train on a picture where
    the paper's takes 4.136.
    """
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, 4, 2),
        nn.ReLU(True),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(True),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(True),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(True),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(True),
        nn.MaxPool2d(3, 2),
        nn.AdaptiveAvgPool2d(6),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(9216, 4096),
        nn.ReLU(True),
        nn.Dropout(),
        nn.Linear(4096, 4096),
        nn.ReLU(True),
        nn.Linear(4096, classes),
    )


def noise(side: int, count: int, classes: int) -> Split:
    """Stored pictures of grey noise with the contrast of photos, in blocks of 16
    pixels, and some colour.
    """
    rng = np.random.default_rng(0)
    records = rng.integers(100, 157, (count, record_bytes(side)), np.uint8)
    luma = rng.integers(0, 256, (count, side // 16 + 1, side // 16 + 1), np.uint8).repeat(16, 1).repeat(16, 2)
    records[:, : side * side] = luma[:, :side, :side].reshape(count, -1)
    return Split("train", records, rng.integers(0, classes, count, np.int32), Path())


def preprocessing_of(variant: Variant) -> Preprocessing:
    """The variant's kind of pixels, with round numbers for a data set's."""
    side = max(STORED, variant.input_size)
    mean = torch.full((3, side, side) if variant.pixels == "mean-image" else (3, 1, 1), 120.0)
    scale = torch.full((3,), 1 / 60 if variant.pixels == "unit" else 1.0)
    return Preprocessing(side, variant.input_size, variant.resize, variant.channel_order == "BGR", mean, scale)
