"""Bytes that several processes exchange in one step of training, counted before anything runs.

Three schemes divide a step among ranks, one process for each device:

- **data**: data parallelism. Each rank has the whole network and a share of the batch; the
  gradients are summed.
- **towers**: the model parallelism of 2012. Each rank of a pair has one tower and all pictures, and
  they exchange maps where the towers meet in figure 2 of the paper; several pairs share the batch
  as in data.
- **hybrid**: Krizhevsky's "one weird trick" (2014). Convolutions as in data; the units of the fully
  connected layers, with 96 % of the parameters and 8 % of the arithmetic, are divided, and every
  rank gathers their inputs for the whole batch instead of summing their gradients.

The size of the gradients does not depend on the batch, that of maps and units does: so the batch
decides which scheme sends the least. Standard library only.

>>> from alexnet.variants import get_variant
>>> count(get_variant("paper"), "data", batch=128, ranks=2).sent
243860896
"""

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, prod
from typing import Literal, get_args

from alexnet.arithmetic import LRN, Conv, Linear
from alexnet.errors import UsageError
from alexnet.phrases import counted
from alexnet.variants import Variant

Scheme = Literal["data", "hybrid", "towers"]
SCHEMES: tuple[Scheme, ...] = get_args(Scheme)  # of equal counts, the first is the simplest
Collective = Literal["all_reduce", "all_gather", "reduce_scatter"]
PAIR = 2  # ranks of one network in towers
FLOAT_BYTES = 4
COLUMNS = 80  # of a terminal
LOSS_BYTES = 16  # the loss and the wrong guesses of a batch, in float64


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """One collective operation of a step, in which every rank takes part in some group."""

    what: str
    """What is exchanged: gradients, maps at conv3, seam at norm1, pool5, units of fc6, logits,
    loss.
    """
    layer: str
    """The parameter whose gradient it is, or the operation that reads what is gathered."""
    collective: Collective
    """The operation of torch.distributed."""
    forward: bool
    """Whether it belongs to the forward pass, which waits for it."""
    group: int
    """Number of ranks that communicate with one another."""
    payload: int
    """Bytes of the whole tensor: the result of all_reduce and all_gather, the input of
    reduce_scatter. If the ranks' slices differ in size, all are padded to the largest."""

    @property
    def rounds(self) -> int:
        """Number of messages one after another; each costs one latency."""
        return (self.group - 1) * (2 if self.collective == "all_reduce" else 1)

    @property
    def sent(self) -> int:
        """Bytes that each rank sends, and receives, in a ring. No algorithm without sums in the
        network's switches needs fewer.
        """
        return self.rounds * self.payload // self.group


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """What one step exchanges."""

    scheme: Scheme
    ranks: int
    batch: int
    exchanges: tuple[Exchange, ...]

    @property
    def sent(self) -> int:
        """Bytes that each rank sends, and receives, in a step."""
        return sum(exchange.sent for exchange in self.exchanges)

    def by_what(self) -> dict[str, int]:
        """`sent`, by what is exchanged."""
        sums: dict[str, int] = {}
        for exchange in self.exchanges:
            sums[exchange.what] = sums.get(exchange.what, 0) + exchange.sent
        return sums

    def row(self) -> str:
        """This scheme in the table of `choose`: all, and what of it are gradients, the maps of
        convolutions and the units of fully connected layers, in MB.
        """
        sums = self.by_what()
        gradients = sums.get("gradients", 0)
        maps = sum(sent for what, sent in sums.items() if what.startswith(("seam", "maps", "pool5")))
        units = sum(sent for what, sent in sums.items() if what.startswith(("units", "logits")))
        return _row(self.scheme, *map(_mb, (self.sent, gradients, maps, units)))


def _mb(size: int) -> str:
    """Of a small network the first two digits, so that 0.0 is not taken for nothing."""
    return f"{size / 1e6:,.1f}" if size >= 1e6 else f"{size / 1e6:.2g}" if size else "–"


def _row(scheme: str, *cells: str) -> str:
    return f"  {scheme:<7}{''.join(f'{cell:>11}' for cell in cells)}"


def count(variant: Variant, scheme: Scheme, *, batch: int, ranks: int, map_bytes: int = FLOAT_BYTES) -> Traffic:
    """What a step of training exchanges.

    Args:
        variant: the network.
        scheme: data, towers or hybrid.
        batch: pictures in one update, of all ranks together.
        ranks: number of processes.
        map_bytes: bytes of one number of an activation; gradients are float32.

    Raises:
        UsageError: the scheme does not fit the network or the number of ranks, as `refusal` says.
    """
    if why := refusal(variant, scheme, ranks):
        raise UsageError(why)
    found = {"data": _data, "towers": _towers, "hybrid": _hybrid}[scheme](variant, batch, ranks, map_bytes)
    loss = Exchange(what="loss", layer="loss", collective="all_reduce", forward=True, group=ranks, payload=LOSS_BYTES)
    exchanges = tuple(exchange for exchange in (*found, loss) if exchange.group > 1)
    return Traffic(scheme=scheme, ranks=ranks, batch=batch, exchanges=exchanges)


def refusal(variant: Variant, scheme: Scheme, ranks: int) -> str | None:
    """Why a scheme cannot divide this network among so many ranks, with the next step, or None."""
    if ranks < 1:
        return f"ranks (={ranks}) must be at least 1."
    if scheme != "towers":
        return None
    if variant.towers != PAIR:
        return f"towers needs a network of two towers, but {variant.label} has {variant.towers}: use data or hybrid."
    if ranks % PAIR:
        return f"towers needs an even number of ranks, one for each tower, not {ranks}: start one more, or use data or hybrid."
    return None


def choose(variant: Variant, *, batch: int, ranks: int) -> tuple[Traffic, list[str]]:
    """The possible scheme that sends the fewest bytes, and the counts of all schemes as lines to
    print, of at most `COLUMNS`. If counts are equal, the simplest is chosen: data, then hybrid.
    """
    lines = [f"MB that each of {counted(ranks, 'rank')} sends in a step of {counted(batch, 'picture')}:"]
    lines.append(_row("", "together", "gradients", "maps", "units"))
    counts = []
    for scheme in SCHEMES:
        if why := refusal(variant, scheme, ranks):
            lines += textwrap.wrap(why, COLUMNS, initial_indent="  ", subsequent_indent=" " * 4)
        else:
            counts.append(count(variant, scheme, batch=batch, ranks=ranks))
            lines.append(counts[-1].row())
    best = min(counts, key=lambda traffic: traffic.sent)
    return best, [*lines, f"auto takes {best.scheme}."]


def _data(variant: Variant, batch: int, ranks: int, map_bytes: int) -> Iterator[Exchange]:
    del batch, map_bytes  # the size of gradients does not depend on them
    for name, shape in variant.parameter_shapes().items():
        yield _summed(name, prod(shape) * FLOAT_BYTES, ranks)


def _hybrid(variant: Variant, batch: int, ranks: int, map_bytes: int) -> Iterator[Exchange]:
    """Every rank computes its own units for the whole batch, so their gradients need no sum."""
    for name, shape in variant.parameter_shapes().items():
        if name.startswith("conv"):
            yield _summed(name, prod(shape) * FLOAT_BYTES, ranks)
    layers = [layer for layer in variant.layers() if isinstance(layer.op, Linear)]
    maps = ranks * ceil(batch / ranks) * prod(layers[0].input)
    yield from _gathered("pool5", layers[0].name, maps * map_bytes, ranks)
    for source, reader in pairwise(layers):
        units = batch * _padded(source.output[0], ranks)
        yield from _gathered(f"units of {source.name}", reader.name, units * map_bytes, ranks)
    yield _logits(batch * _padded(variant.num_classes, ranks) * map_bytes, ranks)


def _towers(variant: Variant, batch: int, ranks: int, map_bytes: int) -> Iterator[Exchange]:
    """A rank has half of every layer's kernels or units; replicas of the pair share the batch."""
    replicas = ranks // PAIR
    for name, (outputs, *others) in variant.parameter_shapes().items():
        yield _summed(name, ceil(outputs / PAIR) * prod(others) * FLOAT_BYTES, replicas)
    share, source = ceil(batch / replicas), "pool5"
    for layer in variant.layers():
        match layer.op:
            case Conv(groups=1, name=name) if name != "conv1":  # conv1 reads the picture
                yield from _gathered(f"maps at {name}", name, share * prod(layer.input) * map_bytes, PAIR)
            case LRN(towers=1, size=size, name=name):  # size // 2 channels from either side
                seam = PAIR * (size // 2) * prod(layer.input[1:])
                yield from _gathered(f"seam at {name}", name, share * seam * map_bytes, PAIR)
            case Linear(name=name):
                yield from _gathered(source, name, share * prod(layer.input) * map_bytes, PAIR)
                source = f"units of {name}"
    yield _logits(share * _padded(variant.num_classes, PAIR) * map_bytes, PAIR)


def _padded(count: int, parts: int) -> int:
    """The next multiple of `parts`: all slices are padded to the largest."""
    return parts * ceil(count / parts)


def _summed(name: str, payload: int, group: int) -> Exchange:
    """A gradient, summed as soon as the backward pass has it."""
    return Exchange(what="gradients", layer=name, collective="all_reduce", forward=False, group=group, payload=payload)


def _gathered(what: str, layer: str, payload: int, group: int) -> Iterator[Exchange]:
    """Slices concatenated for the layer that reads them; in the backward pass the ranks' gradients
    of the whole are summed, and each keeps its slice.
    """
    yield Exchange(what=what, layer=layer, collective="all_gather", forward=True, group=group, payload=payload)
    yield Exchange(what=what, layer=layer, collective="reduce_scatter", forward=False, group=group, payload=payload)


def _logits(payload: int, group: int) -> Exchange:
    """Every rank computes the whole loss and keeps its slice of the gradient: the backward pass
    exchanges nothing.
    """
    return Exchange(what="logits", layer="loss", collective="all_gather", forward=True, group=group, payload=payload)
