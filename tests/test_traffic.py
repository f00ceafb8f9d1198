"""Bytes that ranks exchange in a step, held to numbers worked out by hand."""

from itertools import product
from math import prod

import pytest

from alexnet.errors import UsageError
from alexnet.traffic import SCHEMES, Exchange, Traffic, choose, count, refusal
from alexnet.variants import get_variant, named

PAPER = get_variant("paper")
CONVOLUTIONS = 34_944 + 307_456 + 885_120 + 663_936 + 442_624  # parameters of conv1 to conv5
CLASSIFIER = 37_752_832 + 16_781_312 + 4_097_000  # of fc6 to fc8


def test_gradients_of_the_paper() -> None:
    """243.9 MB a step, of which fc6 to fc8 have 234.5."""
    exchanges = count(PAPER, "data", batch=128, ranks=2).exchanges
    assert len(exchanges) == 17 and exchanges[-1].what == "loss" and exchanges[-1].payload == 16
    assert sum(one.payload for one in exchanges[:-1]) == 243_860_896 == 4 * (CONVOLUTIONS + CLASSIFIER)
    assert sum(one.payload for one in exchanges if one.layer.startswith("fc")) == 234_524_576


@pytest.mark.parametrize(("ranks", "sent"), [(1, 0), (2, 243_860_912), (4, 365_791_368), (64, 480_101_170)])
def test_data_sends_its_gradients_around_a_ring(ranks: int, sent: int) -> None:
    """2 (R - 1) / R of them and of 16 bytes for the loss, for any batch; each of 17 sums rounds a
    fraction of a byte down.
    """
    for batch in (128, 8192):
        traffic = count(PAPER, "data", batch=batch, ranks=ranks)
        assert traffic.sent == pytest.approx(sent, abs=17)
        assert set(traffic.by_what()) <= {"gradients", "loss"}


def test_hybrid_of_two() -> None:
    """Of pool5 at 128 pictures a rank, each sends its 4.7 MB and as much of gradients back; of fc6
    and fc7 half the units of 256 pictures.
    """
    pool5, units, logits = 128 * 9216 * 4, 256 * 2048 * 4, 256 * 500 * 4
    assert pool5 == 4_718_592
    assert count(PAPER, "hybrid", batch=256, ranks=2).by_what() == {
        "gradients": 4 * CONVOLUTIONS,
        "pool5": 2 * pool5,
        "units of fc6": 2 * units,
        "units of fc7": 2 * units,
        "logits": logits,
        "loss": 16,
    }


def test_hybrid_pads_what_does_not_divide() -> None:
    """10 pictures and 1000 classes on 3 ranks: 4 pictures each, 1366 units, 334 classes."""
    payloads = {
        (one.what, one.forward): one.payload
        for one in count(PAPER, "hybrid", batch=10, ranks=3).exchanges
        if one.what not in ("gradients", "loss")
    }
    assert payloads == {
        ("pool5", True): 12 * 9216 * 4,
        ("pool5", False): 12 * 9216 * 4,
        ("units of fc6", True): 10 * 4098 * 4,
        ("units of fc6", False): 10 * 4098 * 4,
        ("units of fc7", True): 10 * 4098 * 4,
        ("units of fc7", False): 10 * 4098 * 4,
        ("logits", True): 10 * 1002 * 4,
    }


def test_towers_of_one_pair() -> None:
    """As figure 2 draws it: half of pool2 for conv3, half of what each fully connected layer reads,
    two channels of 55 x 55 and 27 x 27 at the seam; no gradients.
    """
    assert count(PAPER, "towers", batch=128, ranks=2).by_what() == {
        "seam at norm1": 2 * 128 * 2 * 55 * 55 * 4,
        "seam at norm2": 2 * 128 * 2 * 27 * 27 * 4,
        "maps at conv3": 2 * 128 * 128 * 13 * 13 * 4,
        "pool5": 2 * 128 * 4608 * 4,
        "units of fc6": 2 * 128 * 2048 * 4,
        "units of fc7": 2 * 128 * 2048 * 4,
        "logits": 128 * 500 * 4,
        "loss": 16,
    }


def test_two_pairs_of_towers() -> None:
    """Half the pictures, and half of each parameter summed over two replicas."""
    one, two = (count(PAPER, "towers", batch=256 // (3 - pairs), ranks=2 * pairs) for pairs in (1, 2))
    shared = two.by_what()
    assert shared.pop("gradients") == 2 * (CONVOLUTIONS + CLASSIFIER)
    assert shared == one.by_what() | {"loss": 24} and {one.group for one in two.exchanges[:-1]} == {2}


@pytest.mark.parametrize(
    ("name", "seams"), [("code-2012", {}), ("caffenet", {"norm1": 27, "norm2": 13}), ("caffe", {"norm1": 55, "norm2": 27})]
)
def test_the_seam_of_each_variant(name: str, seams: dict[str, int]) -> None:
    """None where the normalisation stays in a tower; small where pooling comes first."""
    found = count(named()[name], "towers", batch=8, ranks=2).by_what()
    expected = {f"seam at {norm}": 2 * 8 * 2 * side**2 * 4 for norm, side in seams.items()}
    assert {what: sent for what, sent in found.items() if what.startswith("seam")} == expected


def test_maps_in_another_precision() -> None:
    """bfloat16 halves what is gathered, not the gradients of float32 weights."""
    full, half = (count(PAPER, "hybrid", batch=64, ranks=2, map_bytes=size).by_what() for size in (4, 2))
    assert half.pop("gradients") == full.pop("gradients") and half.pop("loss") == full.pop("loss") == 16
    assert half == {what: sent // 2 for what, sent in full.items()}


def test_layers_that_are_left_out() -> None:
    variant = get_variant("paper", removed=("conv3", "fc6", "fc7"))
    assert set(count(variant, "towers", batch=4, ranks=2).by_what()) == {
        "seam at norm1",
        "seam at norm2",
        "pool5",
        "logits",
        "loss",
    }
    assert set(count(variant, "hybrid", batch=4, ranks=2).by_what()) == {"gradients", "pool5", "logits", "loss"}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_gradient_is_somewhere(scheme: str) -> None:
    """What is summed, and what a rank computes alone, are all the parameters of the network."""
    summed = {one.layer: one.payload for one in count(PAPER, scheme, batch=8, ranks=4).exchanges if one.what == "gradients"}  # type: ignore[arg-type]
    alone = {"data": 0, "hybrid": CLASSIFIER, "towers": (CONVOLUTIONS + CLASSIFIER) // 2}[scheme]
    assert sum(summed.values()) == 4 * (CONVOLUTIONS + CLASSIFIER - alone)
    assert set(summed) <= {name for name, shape in PAPER.parameter_shapes().items() if prod(shape)}


@pytest.mark.parametrize(
    ("name", "batch", "ranks", "best"),
    [
        ("paper", 128, 1, "data"),  # nothing to send: the simplest
        ("paper", 128, 2, "hybrid"),
        ("owt", 1024, 8, "hybrid"),
        ("owt", 8192, 64, "data"),
        ("paper", 8192, 64, "towers"),
    ],
)
def test_the_fewest_bytes(name: str, batch: int, ranks: int, best: str) -> None:
    traffic, lines = choose(named()[name], batch=batch, ranks=ranks)
    assert traffic.scheme == best and lines[-1] == f"auto takes {best}."
    assert [line.split()[0] for line in lines[2:-1] if line[2] != " "] == list(SCHEMES)


CASES = list(product(named().values(), (1, 10**6), (2, 3, 1000)))


def test_the_count_is_printed() -> None:
    """As a table that a terminal of 80 columns shows, whose parts are the sum, but for the loss."""
    _, lines = choose(PAPER, batch=128, ranks=2)
    assert lines == [
        "MB that each of 2 ranks sends in a step of 128 pictures:",
        "            together  gradients       maps      units",
        "  data         243.9      243.9          –          –",
        "  hybrid        18.5        9.3        4.7        4.5",
        "  towers        39.0          –       34.6        4.5",
        "auto takes hybrid.",
    ]
    small = get_variant("paper", width=1 / 16, input_size=64, num_classes=3)
    assert choose(small, batch=4, ranks=2)[1][3].split() == ["hybrid", "0.053", "0.045", "0.00026", "0.0082"]
    tables = [choose(variant, batch=batch, ranks=ranks)[1][2:-1] for variant, batch, ranks in CASES]
    assert 70 < max(len(row) for rows in tables for row in rows) <= 80
    numbers = [
        row.replace(",", "").replace("–", "0").split()[1:]
        for rows in tables
        for row in rows
        if row[2] != " " and "needs" not in row
    ]
    for together, *parts in numbers:
        assert sum(map(float, parts)) == pytest.approx(float(together), abs=0.2) and len(parts) == 3
    _, lines = choose(named()["owt"], batch=128, ranks=3)
    assert lines[4] == "  towers needs a network of two towers, but owt has 1: use data or hybrid."
    _, lines = choose(PAPER, batch=128, ranks=3)
    assert " ".join(" ".join(lines[4:6]).split()) == refusal(PAPER, "towers", 3)


def test_data_and_hybrid_cross() -> None:
    """Where 2 x fc6-8's gradients equal the whole batch's inputs of fc6, fc7 and fc8, forward and
    back, and the logits: at 3,274 pictures, whatever the number of ranks that divide them."""
    crossing = 2 * 4 * CLASSIFIER / (4 * (2 * (9216 + 4096 + 4096) + 1000))
    assert crossing == pytest.approx(3274.1, abs=0.1)
    for ranks in (2, 8):
        below, above = (choose(named()["owt"], batch=batch, ranks=ranks)[0].scheme for batch in (3264, 3280))
        assert (below, above) == ("hybrid", "data")


@pytest.mark.parametrize(
    ("name", "scheme", "ranks", "message"),
    [
        ("paper", "towers", 3, "even number of ranks, one for each tower, not 3"),
        ("torchvision", "towers", 2, "torchvision has 1: use data or hybrid"),
        ("paper", "data", 0, r"ranks \(=0\) must be at least 1"),
    ],
)
def test_what_does_not_fit_is_refused(name: str, scheme: str, ranks: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        count(named()[name], scheme, batch=8, ranks=ranks)  # type: ignore[arg-type]
    assert refusal(PAPER, "towers", 2) is None


def test_a_ring() -> None:
    """Of 4 ranks, 12 bytes: a sum is 6 messages of 3 bytes, putting together 3."""
    sizes = {"what": "", "layer": "", "forward": True, "group": 4, "payload": 12}
    for collective, rounds in (("all_reduce", 6), ("all_gather", 3), ("reduce_scatter", 3)):
        exchange = Exchange(collective=collective, **sizes)  # type: ignore[arg-type]
        assert (exchange.rounds, exchange.sent) == (rounds, 3 * rounds)
    assert Traffic(scheme="data", ranks=4, batch=1, exchanges=(exchange,) * 2).sent == 18
