"""The model of training on several devices: held to cases that are worked out by hand, and its
tables to the page that shows them.
"""

import importlib
from math import inf
from pathlib import Path
from typing import Any

import pytest

from alexnet.traffic import SCHEMES, Exchange, Traffic, count
from alexnet.variants import get_variant

ROOT = Path(__file__).parents[1]
PAPER = get_variant("paper")


@pytest.fixture
def scaling(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("scaling")


def test_the_page_has_the_tables(scaling: Any) -> None:
    page = (ROOT / "docs/scaling.md").read_text()
    for caption, table in scaling.tables().items():
        assert f"**{caption}**\n\n{table}\n" in page, f"docs/scaling.md: paste the table {caption!r} of benchmarks/scaling.py"


def test_the_command_prints_them(scaling: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["scaling.py"])
    scaling.main()
    printed = capsys.readouterr().out
    assert all(table in printed for table in scaling.tables().values())


def test_a_device_has_its_rates(scaling: Any) -> None:
    """The line goes through both points; one device exchanges nothing."""
    for batch, rate in ((128, 39_000), (1024, 53_000)):
        traffic = count(PAPER, "data", batch=batch, ranks=1)
        assert batch / scaling.step_seconds(scaling.GPU, scaling.INTERCONNECTS[0], traffic) == pytest.approx(rate)
    assert scaling.alone(scaling.CPU, 64) == pytest.approx(64 / 82.95)


def test_the_arithmetic_is_whole(scaling: Any) -> None:
    """Forward a third, but for conv1, whose pictures need no gradient."""
    parts = scaling.parts(PAPER)
    assert sum(part.forward + part.backward for part in parts.values()) == pytest.approx(1)
    assert parts["conv1"].backward == parts["conv1"].forward and parts["fc6"].backward == 2 * parts["fc6"].forward
    assert sum(part.forward for name, part in parts.items() if name.startswith("fc")) == pytest.approx(
        58_621_952 / 2_067_805_248
    )


def exchange(collective: str, group: int, payload: int, what: str = "gradients") -> Exchange:
    return Exchange(what=what, layer="fc6.weight", collective=collective, forward=False, group=group, payload=payload)  # type: ignore[arg-type]


def traffic_of(one: Exchange, ranks: int, scheme: str = "data") -> Traffic:
    return Traffic(scheme=scheme, ranks=ranks, batch=1, exchanges=(one,))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("group", "payload", "collective", "expected"),
    [
        # 4 machines: 6 messages of 9.6 us, and 1.5 GB at 1 GB/s
        (4, 10**9, "all_reduce", 8.4e-6 + 6 * 9.6e-6 + 1.5),
        (4, 10**9, "all_gather", 8.4e-6 + 3 * 9.6e-6 + 0.75),
        (4, 10**9, "reduce_scatter", 8.4e-6 + 3 * 9.6e-6 + 0.75),
        # next to nothing: around a ring by messages of 2.7 us, or up and down a tree of six levels
        (4, 4, "all_reduce", 3.6e-6 + 6 * 2.7e-6 + 6e-9 * 4),
        (64, 64, "all_reduce", 4.4e-6 + 12 * 5e-6 + 2 * 64e-9 / (0.9 / 3.8)),
        (4, 4, "all_gather", 3.6e-6 + 3 * 2.7e-6 + 3e-9 * 4),
    ],
)
def test_an_exchange_between_machines(scaling: Any, group: int, payload: int, collective: str, expected: float) -> None:
    one = exchange(collective, group, payload)
    interconnect = scaling.Interconnect("some", 1e9)
    assert scaling.exchange_seconds(interconnect, one, traffic_of(one, group)) == pytest.approx(expected)


def test_an_exchange_in_machines_of_eight(scaling: Any) -> None:
    """Inside one: 7 messages. Of 16 in two: 15, of which one goes between, with eight adapters; for
    each tower's gradients four.
    """
    interconnect = scaling.Interconnect("some", 1e9, inside=100e9, machine=8)
    one = exchange("all_gather", 8, 8 * 10**9)
    assert scaling.exchange_seconds(interconnect, one, traffic_of(one, 8)) == pytest.approx(8.4e-6 + 7 * 3.4e-6 + 7 / 100)
    one = exchange("all_gather", 16, 16 * 10**9)
    expected = 8.4e-6 + 14 * 3.4e-6 + 9.6e-6 + 15 / 8
    assert scaling.exchange_seconds(interconnect, one, traffic_of(one, 16)) == pytest.approx(expected)
    one = exchange("all_gather", 8, 8 * 10**9)
    expected = 8.4e-6 + 6 * 3.4e-6 + 9.6e-6 + 7 / 4
    assert scaling.exchange_seconds(interconnect, one, traffic_of(one, 16, "towers")) == pytest.approx(expected)
    pair = exchange("all_gather", 2, 2 * 10**9, "pool5")
    assert scaling.exchange_seconds(interconnect, pair, traffic_of(pair, 16, "towers")) == pytest.approx(
        8.4e-6 + 3.4e-6 + 1 / 100
    )


def test_gradients_hide_behind_arithmetic(scaling: Any) -> None:
    """Behind a slow device all but conv1's, which come last; a device that needs no time waits for
    all of them.
    """
    traffic, interconnect = count(PAPER, "data", batch=4, ranks=4), scaling.Interconnect("some", 1e9)
    times = {one.layer: scaling.exchange_seconds(interconnect, one, traffic) for one in traffic.exchanges}
    slow, instant = scaling.Device("slow", 0.0, 1000.0), scaling.Device("instant", 0.5, 0.0)
    last = times["conv1.weight"] + times["conv1.bias"] + times["loss"]
    assert scaling.step_seconds(slow, interconnect, traffic) == pytest.approx(1000 + last, rel=1e-12)
    assert scaling.step_seconds(instant, interconnect, traffic) == pytest.approx(0.5 + sum(times.values()))


def test_what_is_gathered_does_not(scaling: Any) -> None:
    traffic, interconnect = count(PAPER, "hybrid", batch=4, ranks=4), scaling.Interconnect("some", 1e9)
    times = {one: scaling.exchange_seconds(interconnect, one, traffic) for one in traffic.exchanges}
    waited = sum(time for one, time in times.items() if one.what != "gradients")
    last = sum(time for one, time in times.items() if one.layer.startswith("conv1."))
    slow = scaling.Device("slow", 0.0, 1000.0)
    assert len(times) == 10 + 7 + 1 and scaling.step_seconds(slow, interconnect, traffic) == pytest.approx(
        1000 + waited + last, rel=1e-12
    )


@pytest.mark.parametrize("scheme", SCHEMES)
def test_more_bandwidth_is_no_slower(scaling: Any, scheme: str) -> None:
    traffic = count(PAPER, scheme, batch=2048, ranks=16)  # type: ignore[arg-type]
    times = [
        scaling.step_seconds(scaling.GPU, scaling.Interconnect("some", bandwidth), traffic)
        for bandwidth in (1e8, 1e9, 1e10, inf)
    ]
    assert times == sorted(times, reverse=True) and times[-1] > scaling.alone(scaling.GPU, 128)
