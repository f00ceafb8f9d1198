"""How long something will take on this machine, by trying a little of it: it may be busy."""

import time
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor

from alexnet.data import sources
from alexnet.data.image import Resize, Unreadable, encode
from alexnet.data.sources import Item
from alexnet.data.workers import CORES, FEW
from alexnet.engines import Network
from alexnet.lanes import Lanes
from alexnet.model import AlexNet
from alexnet.phrases import counted
from alexnet.train.recipes import Recipe
from alexnet.train.steps import split

STEPS, WARM_UP = 6, 2
PHOTOS = 8
SHORT = 45  # seconds


class Times(NamedTuple):
    """Seconds that something took in a few tries. Beside other programs they differ, so the time of
    many repetitions can only be predicted as a range.
    """

    usual: float
    least: float
    most: float

    @classmethod
    def of(cls, tried: Sequence[float]) -> "Times":
        """Median, least and most of a few tries."""
        return cls(median(tried), min(tried), max(tried))

    def each(self, factor: float, more: float = 0.0) -> "Times":
        """These times `factor` times over, plus `more` seconds."""
        return Times(*(factor * one + more for one in self))


def step_seconds(recipe: Recipe, classes: int) -> Times:
    """Of one plain step of training, not compiled, on random pictures; on a CPU of those in one
    lane or in as many as there are cores, whichever are faster.
    """
    device = fastest_device()
    generator = torch.Generator().manual_seed(0)
    model = AlexNet(recipe.network(classes), generator).to(device)
    size = model.variant.input_size
    x = torch.rand(recipe.batch_size, 3, size, size, generator=generator).to(device)
    times = _steps_seconds(model, model, x)
    if device.type == "cpu" and split.threads() > 1:
        lanes = Lanes(model, split.threads())
        times = min(times, _steps_seconds(model, lanes, x))
        lanes.close()
    return times


def _steps_seconds(model: AlexNet, network: Network, x: Tensor) -> Times:
    """Of a few steps of a model, computed by `network`."""
    times = []
    for _ in range(STEPS):
        begun = time.monotonic()
        model.zero_grad()
        network(x).logsumexp(1).sum().backward()
        model.fc8.bias.detach().sum().item()  # waits for a GPU
        times.append(time.monotonic() - begun)
    return Times.of(times[WARM_UP:])


@torch.inference_mode()
def picture_seconds(network: Network, input_size: int, device: torch.device) -> Times:
    """Of one picture through a network, forward only."""
    x, times = torch.rand(PHOTOS, 3, input_size, input_size, device=device), []
    for _ in range(STEPS):
        begun = time.monotonic()
        network(x).sum().item()
        times.append((time.monotonic() - begun) / PHOTOS)
    return Times.of(times[WARM_UP:])


def fastest_device() -> torch.device:
    """An accelerator that is here, else the CPU."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def preparing_seconds(items: Sequence[Item], size: int, resize: Resize) -> float:
    """Of decoding and shrinking photos on all cores, by a few from all over the list."""
    chosen = items[:: max(1, len(items) // PHOTOS)][:PHOTOS]
    begun = time.monotonic()
    for item in chosen:
        try:
            encode(sources.read(item), size, resize)
        except (OSError, Unreadable):  # those are skipped, and take no time
            continue
    cores = CORES if len(items) >= FEW else 1
    return (time.monotonic() - begun) / len(chosen) * len(items) / cores


def about(times: Times | float) -> str:
    """A time that is not certain, in words.

    >>> about(20), about(100), about(7300)
    ('less than a minute', 'about 2 minutes', 'about 2:02 hours')
    >>> about(Times(70, 57, 160)), about(Times(70, 20, 100)), about(Times(7000, 3000, 7300))
    ('1 to 3 minutes', 'up to 2 minutes', '0:50 to 2:02 hours')
    """
    least, most = (times.least, times.most) if isinstance(times, Times) else (times, times)
    low, high = _words(least), _words(most)
    if most < SHORT:
        return "less than a minute"
    if least < SHORT:
        return f"up to {high}"
    if low == high:
        return f"about {high}"
    return f"{_hours(least) if 'hours' in high else low.split()[0]} to {high}"


def _words(seconds: float) -> str:
    minutes = max(1, round(seconds / 60))
    return counted(minutes, "minute") if minutes < 100 else f"{_hours(seconds)} hours"


def _hours(seconds: float) -> str:
    """Hours and minutes, as 0:50."""
    return "{}:{:02}".format(*divmod(round(seconds / 60), 60))
