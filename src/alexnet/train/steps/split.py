"""How many lanes a run's batches are split over on a CPU: as `--lanes` says, or the fastest here.

Lanes of one core each are fastest where operations are small or cores many, and one lane of all
cores where a batch has few pictures; where the border is depends on the processor, the network and
the batch. So a few steps are timed as a run begins, without an update, and the answer is kept in
the user's cache. Lanes do not change what is computed, but the order in which the convolutions'
gradients are summed: a run that is resumed keeps its own where it can.
"""

import hashlib
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Annotated

import torch

from alexnet import schema
from alexnet.console import say
from alexnet.data.chance import Chance
from alexnet.data.feed import host_memory
from alexnet.devices import cores
from alexnet.errors import AlexNetError, CheckpointError, UsageError
from alexnet.files import write_json
from alexnet.lanes import Lanes
from alexnet.phrases import counted
from alexnet.published.registry import cache_folder
from alexnet.run_folder import Environment, environment
from alexnet.schema import Range
from alexnet.train.start import Start
from alexnet.train.steps.plain import loss_function

CHOSEN = "lanes.json"  # in the user's cache
ROUNDS = 3  # of one step each, after one to warm up
#: A measured step must be followed by so many of training: then measuring takes 4 % at most.
PAYS_AFTER = 25


def choose_lanes(start: Start, wanted: int | None) -> int:
    """The lanes of a run on a CPU; a line says them where there was something to choose.

    Args:
        wanted: as the user says; None to choose.

    Raises:
        UsageError: fewer than one.
    """
    most, why = _most(start)
    if wanted is not None:
        check_lanes(wanted)
        if wanted > most:
            say(f"lanes (={wanted}) is more than {why}: using {counted(most, 'lane')}.")
        return min(wanted, most)
    if most == 1:
        return 1
    if before := lanes_before(start.place.environments[-1:]):
        return min(before, most)
    key = _key(start)
    known = _read()
    if key in known:
        lanes = min(known[key], most)
        say(f"Batches are split over {_described(lanes)}, as measured here before (--lanes changes it).")
        return lanes
    candidates = [2**power for power in range(most.bit_length())]
    left = start.recipe.epochs * start.loader.steps_per_epoch - start.place.epoch * start.loader.steps_per_epoch
    if left < PAYS_AFTER * len(candidates) * (1 + ROUNDS):
        return 1
    rates = measured(start, candidates)
    lanes = max(rates, key=lambda count: rates[count])
    listed = ", ".join(f"{counted(count, 'lane')} {rate:,.0f}" for count, rate in rates.items())
    say(f"Batches are split over {_described(lanes)} (images/s without the update: {listed}; --lanes changes it).")
    with suppress(AlexNetError, OSError):  # a home that cannot be written to: it is measured again
        cache_folder().mkdir(parents=True, exist_ok=True)
        write_json(cache_folder() / CHOSEN, known | {key: lanes})
    return lanes


def check_lanes(wanted: int | None) -> None:
    """Refuse a number of lanes that no machine has.

    Raises:
        UsageError: fewer than one.
    """
    if wanted is not None and wanted < 1:
        raise UsageError(f"lanes (={wanted}) must be at least 1.")


def threads() -> int:
    """Those that PyTorch has here and cores are there for."""
    return min(cores(), torch.get_num_threads())


def threads_each(lanes: int) -> int:
    """Of each lane."""
    return max(1, threads() // lanes)


def lanes_before(environments: Iterable[Environment]) -> int | None:
    """The lanes that a run had in its last environment, if that is this one."""
    for earlier in environments:
        lanes = earlier.get("lanes", 1)
        if isinstance(lanes, int) and lanes >= 1 and {**earlier, "lanes": 1} == {**environment(), "lanes": 1}:
            return lanes
    return None


def _most(start: Start) -> tuple[int, str]:
    """The most lanes that make sense, and what limits them."""
    most = threads()
    weights = start.model.named_parameters()
    each = sum(weight.nbytes for name, weight in weights if name.startswith("conv"))  # a lane's own gradients
    limits = {
        f"the {counted(most, 'core')} of this process": most,
        f"the {counted(start.loader.batch_size, 'picture')} of a batch": start.loader.batch_size,
        "the free memory has room for": max(1, (host_memory() or each * most) // each),
    }
    why = min(limits, key=lambda name: limits[name])
    return limits[why], why


def measured(start: Start, candidates: Iterable[int]) -> dict[int, float]:
    """Images a second, forward and backward, with each number of lanes. The weights stay as they
    are.
    """
    model, loader = start.model, start.loader
    batch, pictures = loader.batch(0, 0), loader.indices(0, 0)
    keys = torch.from_numpy(Chance(loader.seed, 0).dropout_keys(pictures, model.dropouts))
    middle = start.preprocessing.views(1)[0]
    images = start.preprocessing.view(batch.records, *middle).contiguous(memory_format=torch.channels_last)
    networks = {count: Lanes(model, count, threads_each(count)) if count > 1 else model for count in candidates}
    losses = {count: loss_function(network, compiled=False) for count, network in networks.items()}
    seconds: dict[int, list[float]] = {count: [] for count in networks}
    model.train()
    for _ in range(1 + ROUNDS):
        for count, loss in losses.items():
            begun = time.perf_counter()
            loss(images, batch.labels, keys)[0].backward()
            seconds[count].append(time.perf_counter() - begun)
            model.zero_grad()
    for network in networks.values():
        if isinstance(network, Lanes):
            network.close()
    return {count: len(images) / min(times[1:]) for count, times in seconds.items()}


def _described(lanes: int) -> str:
    return f"{counted(lanes, 'lane')} of {counted(threads_each(lanes), 'core')}"


def _key(start: Start) -> str:
    """What the choice depends on."""
    here = environment()
    machine = [here[name] for name in ("processor", "cpu_capability", "threads", "torch")]
    return hashlib.sha256(repr((machine, cores(), start.variant, start.loader.batch_size)).encode()).hexdigest()[:16]


def _read() -> dict[str, int]:
    """The choices made here; none where they cannot be read."""
    path = cache_folder() / CHOSEN
    with suppress(CheckpointError):
        return schema.read_json(path, dict[str, Annotated[int, Range(1)]], CheckpointError, "It is measured again.")
    return {}
