"""How a run computes on a CPU: over how many lanes its batches are split, and whether in bfloat16.
`--lanes` and `--precision` decide it, or else what is fastest here.

Lanes of one core each are fastest where operations are small or cores many, and one lane of all
cores where a batch has few pictures; where the border is depends on the processor, the network and
the batch. So a few steps are timed as a run begins, without an update, and the answer is kept in
the user's cache. Lanes do not change what is computed, but the order in which the convolutions'
gradients are summed: a run that is resumed keeps its own where it can.

bfloat16 changes more than that, and `auto` takes it only if it is `MARGIN` times as fast and does
not change the outputs of the initial network too much (`rounding`, which a GPU is asked, too).
Small networks gain little: half of their step is waiting, normalisation and update. If the initial
outputs for different pictures are nearly equal, bfloat16 cannot distinguish them: numbers near 1
that differ by less than 1/256 are one number. The paper's own initialisation is such a case
(`alexnet doctor paper-text`).
"""

import hashlib
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass
from math import inf, isfinite
from typing import Annotated, Literal

import torch
from torch import Tensor

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
from alexnet.train.steps.check import exact_products
from alexnet.train.steps.fused import TYPES
from alexnet.train.steps.plain import computing_in, loss_function

CHOSEN = "ways.json"  # in the user's cache
ROUNDS = 3  # of one step each, after one to warm up
#: A measured step must be followed by so many of training: then measuring takes 4 % at most.
PAYS_AFTER = 25
#: How many times as fast bfloat16 must be.
MARGIN = 1.25
#: The most that bfloat16 may move the logits by, of what they differ by from picture to picture:
#: 0.02 in `laptop`, whose error is equal; 0.46 in `paper-text`, 3 at half width.
ROUNDING = 0.05
PICTURES = 32  # by which it is measured

Precision = Literal["fp32", "bf16"]
BF16 = "bf16 on cpu"  # in a run's record


@dataclass(frozen=True)
class Way:
    """How a batch is computed."""

    precision: Precision
    lanes: Annotated[int, Range(1)]

    def __str__(self) -> str:
        return f"{counted(self.lanes, 'lane')}{' in bf16' if self.precision == 'bf16' else ''}"

    @property
    def dtype(self) -> torch.dtype:
        """Of the pictures and all that is computed from them."""
        return TYPES[self.precision]


def choose_lanes(start: Start, wanted: int | None, precision: Precision = "fp32") -> int:
    """The lanes of a run on a CPU; a line names them if there was something to choose.

    Args:
        wanted: as the user asked; None to choose.

    Raises:
        UsageError: fewer than one.
    """
    way, why = _fastest(start, _possible(start, wanted), (precision,))
    _say(way, why)
    return way.lanes


def choose_way(start: Start, wanted: int | None) -> Way:
    """Precision and lanes of a run on a CPU that has bfloat16; a resumed run keeps its own.

    Args and errors as those of `choose_lanes`.
    """
    place = start.place
    if place.trained_by or place.epoch or place.step:
        precision: Precision = "bf16" if place.trained_by[-1:] == [BF16] else "fp32"
        return Way(precision, choose_lanes(start, wanted, precision))
    wanted = _possible(start, wanted)
    way, why = _fastest(start, wanted, ("fp32", "bf16"))
    if way.precision == "bf16" and (reason := too_coarse(start)):
        way, _ = _fastest(start, wanted, ("fp32",))
        why = f", in float32: {reason}"
    _say(way, why)
    return way


def too_coarse(start: Start) -> str | None:
    """Why a run that could compute in bfloat16 should not, or None."""
    if (moved := rounding(start)) <= ROUNDING:
        return None
    much = f"{moved:.0%} of what they differ by" if moved < 1 else "more than they differ"
    return (
        f"bf16 is faster here, but it would move the logits of this network's start by {much} from "
        f"picture to picture (limit {ROUNDING:.0%}); --precision bf16 uses it anyway"
    )


def _say(way: Way, why: str) -> None:
    """One line on what was chosen, if there was something to choose."""
    if why:
        say(f"Batches are computed in {_described(way)}{why}.")


def _fastest(start: Start, wanted: int | None, precisions: Sequence[Precision]) -> tuple[Way, str]:
    """The fastest way and the reason, which is empty if nothing was measured; the first precision
    if the run is too short to measure, or the other one is not `MARGIN` times as fast.
    """
    counts = _counts(start, wanted)
    ways = [Way(precision, count) for precision in precisions for count in counts]
    if len(ways) == 1:
        return ways[0], ""
    key, known = _key(start, ways), _read()
    changes = "--lanes changes it" if len(precisions) == 1 else "--lanes and --precision change it"
    if key in known:
        return known[key], f", as measured here before ({changes})"
    left = start.recipe.epochs * start.loader.steps_per_epoch - start.place.epoch * start.loader.steps_per_epoch
    if left < PAYS_AFTER * len(ways) * (1 + ROUNDS):
        return _fastest(start, wanted, precisions[:1]) if len(precisions) > 1 else (ways[0], "")
    rates = measured(start, ways)
    way = best(rates)
    first = {one: rate for one, rate in rates.items() if one.precision == precisions[0]}  # measured for itself, too
    _remember(known | {_key(start, [*first]): best(first), key: way})
    listed = ", ".join(f"{one} {rate:,.0f}" for one, rate in rates.items())
    return way, f" (images/s without the update: {listed}; {changes})"


def _remember(ways: Mapping[str, Way]) -> None:
    """Write all choices; if the cache cannot be written, they are measured again."""
    with suppress(AlexNetError, OSError):
        cache_folder().mkdir(parents=True, exist_ok=True)
        write_json(cache_folder() / CHOSEN, {key: asdict(way) for key, way in ways.items()})


def best(rates: Mapping[Way, float]) -> Way:
    """The fastest way, in bfloat16 only if that is `MARGIN` times as fast as any in float32."""
    return max(rates, key=lambda way: rates[way] / (MARGIN if way.precision == "bf16" else 1))


def _possible(start: Start, wanted: int | None) -> int | None:
    """The lanes that the user asked for, or the most that make sense, which a line then says."""
    check_lanes(wanted)
    most, why = _most(start)
    if wanted is None or wanted <= most:
        return wanted
    say(f"lanes (={wanted}) is more than {why}: using {counted(most, 'lane')}.")
    return most


def _counts(start: Start, wanted: int | None) -> list[int]:
    """The numbers of lanes to choose from."""
    if wanted is not None:
        return [wanted]
    most, _ = _most(start)
    if before := lanes_before(start.place.environments[-1:]):
        return [min(before, most)]
    return [2**power for power in range(most.bit_length())]


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


def measured(start: Start, ways: Iterable[Way]) -> dict[Way, float]:
    """Images a second, forward and backward, of each way. The weights stay as they are."""
    model, loader = start.model, start.loader
    batch, pictures = loader.batch(0, 0), loader.indices(0, 0)
    keys = torch.from_numpy(Chance(loader.seed, 0).dropout_keys(pictures, model.dropouts))
    images = _middle(start, batch.records)
    networks = {way: Lanes(model, way.lanes, threads_each(way.lanes), way.dtype) if way.lanes > 1 else model for way in ways}
    losses = {way: loss_function(computing_in(way.dtype, network), compiled=False) for way, network in networks.items()}
    seconds: dict[Way, list[float]] = {way: [] for way in networks}
    model.train()
    for _ in range(1 + ROUNDS):
        for way, loss in losses.items():
            begun = time.perf_counter()
            loss(images, batch.labels, keys)[0].backward()
            seconds[way].append(time.perf_counter() - begun)
            model.zero_grad()
    for network in networks.values():
        if isinstance(network, Lanes):
            network.close()
    return {way: len(images) / min(times[1:]) for way, times in seconds.items()}


@torch.no_grad()
def rounding(start: Start) -> float:
    """How far bfloat16 moves the logits of a batch's first pictures, relative to what they differ
    by from picture to picture; infinite where they do not differ.
    """
    images = _middle(start, start.loader.batch(0, 0).records[:PICTURES])
    start.model.eval()
    with exact_products() if start.device.type == "cuda" else nullcontext():
        exact = start.model(images)
    rounded = start.model(images.bfloat16())
    moved = float((rounded - exact).norm() / (exact - exact.mean(0)).norm())
    return moved if isfinite(moved) else inf


def _middle(start: Start, records: Tensor) -> Tensor:
    """The middle of pictures, as the network takes it and where it is."""
    middle = start.preprocessing.views(1)[0]
    pictures = start.preprocessing.to(records.device).view(records, *middle)
    return pictures.to(start.device).contiguous(memory_format=torch.channels_last)


def _described(way: Way) -> str:
    each = threads_each(way.lanes)
    cores = "one core" if each == 1 else counted(each, "core")
    lanes = f"{counted(way.lanes, 'lane')}, {cores} each" if way.lanes > 1 else f"one lane on {cores}"
    return f"{lanes}, in bf16" if way.precision == "bf16" else lanes


def _key(start: Start, ways: Sequence[Way]) -> str:
    """What the choice depends on."""
    here = environment()
    machine = [here[name] for name in ("processor", "cpu_capability", "threads", "torch")]
    return hashlib.sha256(repr((machine, cores(), start.variant, start.loader.batch_size, ways)).encode()).hexdigest()[:16]


def _read() -> dict[str, Way]:
    """The choices made here; none where they cannot be read."""
    path = cache_folder() / CHOSEN
    with suppress(CheckpointError):
        return schema.read_json(path, dict[str, Way], CheckpointError, "It is measured again.")
    return {}
