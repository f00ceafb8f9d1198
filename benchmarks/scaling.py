"""How fast N devices train AlexNet: a model of a step's time, from bytes, bandwidths and rates.

    python benchmarks/scaling.py                # the tables of docs/scaling.md, in a second

A step's time is computed layer by layer. A layer waits for its input from other devices. Gradients
are sent while the layers below are computed, and the step waits at its end for those still on their
way. The exchanges are those that `alexnet.traffic` counts. docs/scaling.md says where each rate
comes from, and which of them nobody has measured.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from math import ceil, inf, log2

from alexnet.traffic import PAIR, SCHEMES, Exchange, Scheme, Traffic, count
from alexnet.variants import Variant, get_variant

PAPER = get_variant("paper")
DEVICES = (1, 2, 4, 8, 16, 32, 64)
EACH = 128  # pictures a device, where the batch grows with the devices
GLOBAL = 1024  # pictures of a batch that is shared among more and more devices
MOST_EACH = 4096  # where the search for a crossing ends
US = 1e-6


@dataclass(frozen=True)
class Device:
    """What computes: a step of b pictures takes `step + b * picture` seconds."""

    name: str
    step: float
    picture: float

    @classmethod
    def through(cls, name: str, *points: tuple[int, float]) -> "Device":
        """Through two points (pictures a step, images/s)."""
        (few, slow), (many, fast) = points
        picture = (many / fast - few / slow) / (many - few)
        return cls(name, few / slow - few * picture, picture)


#: Predicted, not measured: PyTorch's own operations on an H200, compiled in bfloat16; and one by
#: one in TF32.
GPU = Device.through("H200 in bfloat16", (128, 39_000), (1024, 53_000))
SLOWER = Device.through("H200 in TF32", (128, 13_500), (1024, 16_000))
#: Measured: 82.95 images/s in batches of 64, of which the update takes 39 ms a step.
CPU = Device("two cores of an EPYC", 0.039, 1 / 82.95 - 0.039 / 64)


@dataclass(frozen=True)
class Interconnect:
    """Bytes a second in each direction: of a device's own adapter to other machines, and inside a
    machine with several devices.
    """

    name: str
    between: float
    inside: float = inf
    machine: int = 1  # devices in one


INTERCONNECTS = (
    Interconnect("NVLink, 8 a machine, InfiniBand between", 50e9, inside=376e9, machine=8),
    Interconnect("InfiniBand NDR, 1 a machine", 50e9),
    Interconnect("100 Gb Ethernet, 1 a machine", 12.5e9),
    Interconnect("10 Gb Ethernet, 1 a machine", 1.25e9),
)


@dataclass(frozen=True)
class Algorithm:
    """An algorithm of NCCL: microseconds to start and for each message, inside a machine and
    between two, and the share of the bandwidth that it reaches.
    """

    start: float
    inside: float
    between: float
    share: float


#: From the table by which NCCL itself chooses (NVIDIA/nccl, src/graph/tuning.cc): ring/Simple,
#: ring/LL, and, for sums alone, tree/LL.
RINGS = Algorithm(8.4, 3.4, 9.6, 1), Algorithm(3.6, 0.47, 2.7, 1 / 4)
TREE = Algorithm(4.4, 0.52, 5.0, 0.9 / 3.8)


# --- the model ------------------------------------------------------------------------------------


def exchange_seconds(interconnect: Interconnect, exchange: Exchange, traffic: Traffic) -> float:
    """Seconds that one exchange takes alone, by the fastest algorithm."""
    near = _near(interconnect, exchange, traffic)
    machines = ceil(exchange.group / near)
    bandwidth = interconnect.inside if machines == 1 else min(interconnect.inside, near * interconnect.between)
    far = (machines - 1) * exchange.rounds // (exchange.group - 1)  # of the messages, those between machines
    found = [
        (ring.start + (exchange.rounds - far) * ring.inside + far * ring.between) * US
        + exchange.sent / (ring.share * bandwidth)
        for ring in RINGS
    ]
    if exchange.collective == "all_reduce":  # up the tree and down again
        hops = 2 * ((near - 1) * TREE.inside + log2(machines) * TREE.between)
        found.append((TREE.start + hops) * US + 2 * exchange.payload / (TREE.share * bandwidth))
    return min(found)


def _near(interconnect: Interconnect, exchange: Exchange, traffic: Traffic) -> int:
    """Devices of a group that are in one machine. The towers of a pair are neighbours."""
    here = min(interconnect.machine, traffic.ranks)
    if traffic.scheme != "towers":
        return here
    return max(1, here // PAIR) if exchange.what == "gradients" else min(PAIR, here)


def step_seconds(device: Device, interconnect: Interconnect, traffic: Traffic, variant: Variant = PAPER) -> float:
    """Seconds that one step takes; every device computes an equal share of it."""
    clock, backlog = device.step, 0.0  # seconds so far; seconds of gradients that have yet to travel
    share = ceil(traffic.batch / traffic.ranks) * device.picture
    times = {exchange: exchange_seconds(interconnect, exchange, traffic) for exchange in traffic.exchanges}

    def waits(layer: str, forward: bool) -> float:
        """Exchanges that a layer waits for, or that wait for it: gradients let them pass."""
        return sum(time for one, time in times.items() if one.layer == layer and one.forward == forward)

    def gradients(layer: str) -> float:
        return sum(time for one, time in times.items() if one.layer.startswith(f"{layer}."))

    for layer, part in parts(variant).items():
        clock += waits(layer, True) + part.forward * share
    clock += waits("loss", True)
    for layer, part in reversed(parts(variant).items()):
        computing = part.backward * share
        backlog = max(0.0, backlog - computing) + gradients(layer)
        clock += computing + waits(layer, False)
    return clock + backlog


@dataclass(frozen=True)
class Part:
    """A layer's shares of the arithmetic."""

    forward: float
    backward: float


@cache
def parts(variant: Variant) -> dict[str, Part]:
    """By layer: forward, and twice that for the gradients of weights and of inputs; the picture
    needs none.
    """
    layers = variant.layers()
    weighted = [layer.multiply_adds for layer in layers if layer.multiply_adds]
    whole = 3 * sum(weighted) - weighted[0]
    factor = {layer.name: 1 if layer is layers[0] else 2 for layer in layers}
    return {one.name: Part(one.multiply_adds / whole, factor[one.name] * one.multiply_adds / whole) for one in layers}


@cache
def seconds(device: Device, interconnect: Interconnect, scheme: Scheme, batch: int, ranks: int, map_bytes: int = 4) -> float:
    """Seconds of a step that `ranks` devices share by `scheme`."""
    return step_seconds(device, interconnect, count(PAPER, scheme, batch=batch, ranks=ranks, map_bytes=map_bytes))


def alone(device: Device, batch: int) -> float:
    """Seconds of a step on one device."""
    return device.step + batch * device.picture


def efficiency(device: Device, interconnect: Interconnect, scheme: Scheme, ranks: int) -> float:
    """Images/s a device, against one alone, at 128 pictures a device."""
    return alone(device, EACH) / seconds(device, interconnect, scheme, EACH * ranks, ranks) if ranks > 1 else 1.0


def speedup(device: Device, interconnect: Interconnect, scheme: Scheme, ranks: int) -> float:
    """Images/s against one device, with batches of 1,024."""
    return alone(device, GLOBAL) / seconds(device, interconnect, scheme, GLOBAL, ranks) if ranks > 1 else 1.0


def crossing(device: Device, interconnect: Interconnect, ranks: int, map_bytes: int) -> int | None:
    """The most pictures a device, in powers of two, with which hybrid is faster than data."""

    def faster(each: int) -> bool:
        hybrid, data = (seconds(device, interconnect, scheme, each * ranks, ranks, map_bytes) for scheme in ("hybrid", "data"))
        return hybrid < data

    return max(filter(faster, (2**power for power in range(MOST_EACH.bit_length()))), default=None)


# --- the tables -----------------------------------------------------------------------------------

Rows = Iterator[Sequence[object]]


def interconnect_rows() -> Rows:
    """What is assumed of each interconnect."""
    yield ("interconnect", "devices in a machine", "GB/s each way inside", "GB/s each way of a device to other machines")
    for one in INTERCONNECTS:
        inside = "–" if one.machine == 1 else f"{one.inside / 1e9:g}"
        yield (one.name, one.machine, inside, f"{one.between / 1e9:g}")


def sent_rows() -> Rows:
    """MB that each device sends in a step."""
    yield ("devices", *(f"{name}, {batch}" for batch in (f"{EACH} a device", f"batch {GLOBAL:,}") for name in SCHEMES))
    for ranks in DEVICES[1:]:
        batches = (EACH * ranks, GLOBAL)
        yield (ranks, *(f"{count(PAPER, name, batch=one, ranks=ranks).sent / 1e6:,.0f}" for one in batches for name in SCHEMES))


def scaling_rows(value: Callable[[Device, Interconnect, Scheme, int], float], form: str, device: Device) -> Rows:
    """A row for each interconnect and scheme."""
    yield ("interconnect", "scheme", *DEVICES[1:])
    for interconnect in INTERCONNECTS if device is GPU else INTERCONNECTS[2:]:
        found = {scheme: [value(device, interconnect, scheme, ranks) for ranks in DEVICES[1:]] for scheme in SCHEMES}
        best = [f"{max(column):{form}}" for column in zip(*found.values(), strict=True)]
        for scheme, row in found.items():
            cells = [f"{one:{form}}" for one in row]
            yield (
                interconnect.name,
                scheme,
                *(f"**{one}**" if one == most else one for one, most in zip(cells, best, strict=True)),
            )


def crossing_rows() -> Rows:
    """Up to how many pictures a device hybrid is faster than data, by the type of the maps."""
    yield ("interconnect", "maps", *DEVICES[1:])
    for map_bytes, name in ((4, "float32"), (2, "bfloat16")):
        for interconnect in INTERCONNECTS:
            yield (interconnect.name, name, *(_named(crossing(GPU, interconnect, ranks, map_bytes)) for ranks in DEVICES[1:]))


def _named(each: int | None) -> str:
    return "never" if each is None else "always" if each >= MOST_EACH else f"{each:,}"


def end_rows() -> Rows:
    """Where more devices stop to help."""
    yield (
        "interconnect",
        "device",
        f"devices at which batches of {GLOBAL:,} are fastest",
        "speed-up there",
        "most devices at half rate",
    )
    for device in (GPU, SLOWER):
        for interconnect in INTERCONNECTS:
            best = {ranks: max(speedup(device, interconnect, scheme, ranks) for scheme in SCHEMES) for ranks in DEVICES}
            fastest = max(best, key=lambda ranks: best[ranks])
            rates = {ranks: max(efficiency(device, interconnect, scheme, ranks) for scheme in SCHEMES) for ranks in DEVICES}
            half = max(ranks for ranks in DEVICES if rates[ranks] >= 0.5)
            yield (interconnect.name, device.name, fastest, f"{best[fastest]:.1f}", half)


def markdown(rows: Rows) -> str:
    """A table; what is not in words is right-aligned."""
    header, *body = ([str(cell) for cell in row] for row in rows)
    words = [all(any(map(str.isalpha, row[column])) for row in body) for column in range(len(header))]
    rule = ["---" if wordy else "---:" for wordy in words]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *body))


def tables() -> dict[str, str]:
    """Every table of docs/scaling.md that is computed, by its caption."""
    return {
        "What is assumed of the interconnects": markdown(interconnect_rows()),
        "MB that each device sends in a step, float32": markdown(sent_rows()),
        f"{EACH} pictures a device, {GPU.name}: images/s of a device, in % of one alone": markdown(
            scaling_rows(efficiency, ".0%", GPU)
        ),
        f"Batches of {GLOBAL:,}, {GPU.name}: images/s against one device": markdown(scaling_rows(speedup, ".1f", GPU)),
        "Pictures a device up to which hybrid is faster than data": markdown(crossing_rows()),
        "Where it ends": markdown(end_rows()),
        f"{EACH} pictures a device, {CPU.name}: images/s of a device, in % of one alone": markdown(
            scaling_rows(efficiency, ".0%", CPU)
        ),
        f"Batches of {GLOBAL:,}, {CPU.name}: images/s against one device": markdown(scaling_rows(speedup, ".1f", CPU)),
    }


def main() -> None:
    """Print the tables."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    for caption, table in tables().items():
        print(f"{caption}\n\n{table}\n")


if __name__ == "__main__":
    main()
