"""How long something will take on this machine, by trying a little of it: it may be busy."""

import time
from collections.abc import Sequence
from statistics import median

import torch
from torch import Tensor

from alexnet import engines
from alexnet.console import duration
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
from alexnet.variants import Variant

STEPS, WARM_UP = 6, 2
PHOTOS = 8


def step_seconds(recipe: Recipe, classes: int) -> float:
    """Of one plain step of training, not compiled: the median of a few, on random pictures; on a
    CPU of those in one lane or in as many as there are cores, whichever are faster.
    """
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    generator = torch.Generator().manual_seed(0)
    model = AlexNet(recipe.network(classes), generator).to(device)
    size = model.variant.input_size
    x = torch.rand(recipe.batch_size, 3, size, size, generator=generator).to(device)
    seconds = _steps_seconds(model, model, x)
    if device.type == "cpu" and split.threads() > 1:
        lanes = Lanes(model, split.threads())
        seconds = min(seconds, _steps_seconds(model, lanes, x))
        lanes.close()
    return seconds


def _steps_seconds(model: AlexNet, network: Network, x: Tensor) -> float:
    """The median of a few steps of a model, computed by `network`."""
    times = []
    for _ in range(STEPS):
        begun = time.monotonic()
        model.zero_grad()
        network(x).logsumexp(1).sum().backward()
        model.fc8.bias.detach().sum().item()  # waits for a GPU
        times.append(time.monotonic() - begun)
    return median(times[WARM_UP:])


def picture_seconds(variant: Variant) -> float:
    """Of one picture through a network, forward only."""
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    model = AlexNet(variant, torch.Generator().manual_seed(0)).to(device).eval()
    x = torch.rand(PHOTOS, 3, variant.input_size, variant.input_size, device=device)
    network, times = engines.eager(model), []
    with torch.inference_mode():
        for _ in range(WARM_UP + 1):
            begun = time.monotonic()
            network(x).sum().item()
            times.append(time.monotonic() - begun)
    return times[-1] / len(x)


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


def about(seconds: float) -> str:
    """A time that is not certain, in words.

    >>> about(20), about(100), about(7300)
    ('less than a minute', 'about 2 minutes', 'about 2:01 hours')
    """
    if seconds < 45:
        return "less than a minute"
    minutes = max(1, round(seconds / 60))
    return f"about {counted(minutes, 'minute')}" if minutes < 100 else f"about {duration(seconds)[:-3]} hours"
