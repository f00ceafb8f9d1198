"""How many lanes a run takes, whether in bfloat16, and that a run in lanes is a run."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import log, recipe, same_weights

from alexnet import devices
from alexnet.data.store import Store
from alexnet.errors import Interrupted, UsageError
from alexnet.run_folder import environment
from alexnet.study.family import train_family
from alexnet.train import recipes
from alexnet.train.loop import train
from alexnet.train.optim import SGD
from alexnet.train.recipes import Recipe
from alexnet.train.result import read_result
from alexnet.train.start import Start
from alexnet.train.steps import choose, split
from alexnet.train.steps.choose import open_plain_step
from alexnet.train.steps.split import Precision, Way, choose_lanes, choose_way
from stopping import stop_after

PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")


@pytest.fixture(autouse=True)
def _four_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And an empty cache."""
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(split, "threads", lambda: 4)


def begun(store: Store, **changes: Any) -> Start:
    """A run on the drawn pictures as it begins."""
    return Start.fresh(recipe(**changes), store, torch.device("cpu"))


def test_lanes_by_hand(store: Store, capfd: pytest.CaptureFixture[str]) -> None:
    assert [choose_lanes(begun(store), wanted) for wanted in (1, 3, 4)] == [1, 3, 4]
    assert not capfd.readouterr().err
    assert choose_lanes(begun(store), 9) == 4
    assert "lanes (=9) is more than the 4 cores of this process: using 4 lanes." in capfd.readouterr().err
    assert choose_lanes(begun(store, batch_size=2), 4) == 2
    assert "lanes (=4) is more than the 2 pictures of a batch: using 2 lanes." in capfd.readouterr().err
    assert choose_way(begun(store), 9).lanes == 4
    assert capfd.readouterr().err.count("lanes (=9) is more than") == 1
    with pytest.raises(UsageError, match=r"lanes \(=0\) must be at least 1"):
        choose_lanes(begun(store), 0)


def test_little_memory(store: Store, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    start = begun(store)
    each = sum(weight.nbytes for name, weight in start.model.named_parameters() if name.startswith("conv"))
    monkeypatch.setattr(split, "host_memory", lambda: 3 * each)
    assert choose_lanes(start, 4) == 3
    assert "lanes (=4) is more than the free memory has room for: using 3 lanes." in capfd.readouterr().err


def test_one_core(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split, "threads", lambda: 1)
    monkeypatch.setattr(split, "measured", lambda *_: pytest.fail("there is nothing to measure"))
    assert choose_lanes(begun(store, epochs=1000), None) == 1


def test_the_fastest_is_measured_once(store: Store, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    asked = []

    def measured(_: Start, ways: list[Way]) -> dict[Way, float]:
        asked.append([way.lanes for way in ways])
        return dict(zip(ways, (10.0, 30.0, 20.0), strict=True))

    monkeypatch.setattr(split, "measured", measured)
    assert choose_lanes(begun(store, epochs=2), None) == 1  # too short a run
    assert choose_lanes(begun(store, epochs=1000), None) == 2
    assert (
        "computed in 2 lanes, 2 cores each (images/s without the update: 1 lane 10, 2 lanes 30, 4 lanes 20;"
        in capfd.readouterr().err
    )
    assert choose_lanes(begun(store, epochs=2), None) == 2
    assert "computed in 2 lanes, 2 cores each, as measured here before (--lanes" in capfd.readouterr().err
    assert asked == [[1, 2, 4]]
    (split.cache_folder() / split.CHOSEN).write_text("{")
    assert choose_lanes(begun(store, epochs=1000), None) == 2 and len(asked) == 2
    choose_lanes(begun(store, epochs=1000, batch_size=20), None)
    assert len(asked) == 3


@pytest.mark.parametrize(
    ("way", "threads", "said"),
    [
        (Way("fp32", 2), 2, "2 lanes, one core each"),
        (Way("fp32", 1), 2, "one lane on 2 cores"),
        (Way("bf16", 2), 8, "2 lanes, 4 cores each, in bf16"),
        (Way("bf16", 1), 1, "one lane on one core, in bf16"),
    ],
)
def test_the_way_in_words(way: Way, threads: int, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split, "threads", lambda: threads)
    assert split._described(way) == said


def timed(monkeypatch: pytest.MonkeyPatch, gain: float) -> None:
    """Two lanes are fastest, and bfloat16 is so many times as fast."""
    speed = {1: 10.0, 2: 30.0, 4: 20.0}
    monkeypatch.setattr(
        split, "measured", lambda _, ways: {way: speed[way.lanes] * (gain if way.precision == "bf16" else 1) for way in ways}
    )


@pytest.mark.parametrize(("gain", "expected"), [(1.24, "fp32"), (1.26, "bf16")])
def test_bfloat16_must_be_worth_it(
    store: Store, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], gain: float, expected: Precision
) -> None:
    timed(monkeypatch, gain)
    assert choose_way(begun(store, epochs=2), None) == Way("fp32", 1)  # too short a run
    assert choose_way(begun(store, epochs=60), None) == Way("fp32", 2)  # long enough to choose lanes alone
    capfd.readouterr()
    assert choose_way(begun(store, epochs=1000), None) == Way(expected, 2)
    told = capfd.readouterr().err
    chosen = "2 lanes, 2 cores each" + (", in bf16" if expected == "bf16" else "")
    assert f"computed in {chosen} (images/s without the update: 1 lane 10, 2 lanes 30, 4 lanes 20, 1 lane in bf16 1" in told
    assert choose_way(begun(store, epochs=2), None) == Way(expected, 2)
    assert f"{chosen}, as measured here before (--lanes and --precision change it)." in capfd.readouterr().err
    assert choose_way(begun(store, epochs=1000), 4) == Way(expected, 4)


def test_a_start_that_bfloat16_would_blur(
    store: Store, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """All pictures alike, as in the paper's own start; nothing of the network is invented here."""
    timed(monkeypatch, 2.0)
    healthy = begun(store, epochs=1000)
    alike = Start.fresh(
        recipes.get_recipe("paper-text", width=1 / 8, batch_size=10, input_size=67, epochs=999), store, torch.device("cpu")
    )
    before = [weight.detach().clone() for weight in alike.model.parameters()]
    assert split.rounding(healthy) < split.ROUNDING < 0.3 < split.rounding(alike)
    assert all(map(torch.equal, before, alike.model.parameters()))
    assert choose_way(healthy, None) == Way("bf16", 2)
    capfd.readouterr()
    assert choose_way(alike, None) == Way("fp32", 2)
    (line,) = capfd.readouterr().err.splitlines()
    assert "computed in 2 lanes, 2 cores each, in float32: bf16 is faster here, but it would move the logits of this" in line


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_run_that_goes_on_keeps_its_precision(store: Store, monkeypatch: pytest.MonkeyPatch, precision: Precision) -> None:
    timed(monkeypatch, 0.5 if precision == "bf16" else 2.0)
    start = begun(store, epochs=1000)
    start.place.trained_by = [f"{precision} on cpu"]
    assert choose_way(start, None).precision == precision


def test_who_chooses(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of its own by auto, from scratch, where the processor has it; a study's runs do not."""
    timed(monkeypatch, 2.0)
    few = recipe(epochs=1)
    lacking = ["this one has neither"]
    monkeypatch.setattr(choose, "lacks_bf16", lambda: lacking[0] if lacking else None)
    choose_way(begun(store, epochs=1000), None)  # so that it is remembered, and short runs have it too
    assert trained_by(few, store, tmp_path / "without") == ["fp32 on cpu"]
    lacking.clear()
    assert trained_by(few, store, tmp_path / "auto") == ["bf16 on cpu"]
    assert trained_by(replace(few, precision="fp32"), store, tmp_path / "asked") == ["fp32 on cpu"]
    assert trained_by(few, store, tmp_path / "study", compared=True) == ["fp32 on cpu"]
    assert trained_by(replace(few, epochs=2), store, tmp_path / "auto", resume=True) == ["bf16 on cpu"]
    family = tmp_path / "family"
    train_family(few, store, family, [0])
    assert read_result(family / "seed0")["trained_by"] == ["fp32 on cpu"]


def trained_by(recipe: Recipe, store: Store, folder: Path, **arguments: Any) -> list[str]:
    """What a run says of itself."""
    train(recipe, store, folder, **arguments)
    kinds: list[str] = read_result(folder)["trained_by"]
    return kinds


def test_measuring_leaves_no_trace(store: Store) -> None:
    start, same = begun(store), begun(store)
    ways = [Way(precision, lanes) for precision in PRECISIONS for lanes in (1, 2)]
    rates = split.measured(start, ways)
    assert [*rates] == ways and min(rates.values()) > 0
    assert all(weight.equal(same.model.get_parameter(name)) for name, weight in start.model.named_parameters())
    assert all(weight.grad is None for weight in start.model.parameters())


def test_pictures_made_in_lanes_are_the_same(store: Store) -> None:
    """Of 10 pictures in 4 lanes, crops, mirrors and colours."""
    made = []
    for lanes in (1, 4):
        step = open_plain_step(begun(store, crop=True, mirror=True, colour_noise=0.1), False, lanes)
        step.take(0, 1, 0.01, 1.0)
        made.append(step.pictures(10))
        step.close()
    assert made[0].equal(made[1])


def test_a_container_with_a_part_of_a_core(tmp_path: Path) -> None:
    assert devices._quota(tmp_path) == float("inf")
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert devices._quota(tmp_path) == 0.5
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert devices._quota(tmp_path) == float("inf")
    (tmp_path / "cpu.max").unlink()
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("250000\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert devices._quota(tmp_path) == 2.5
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    assert devices._quota(tmp_path) == float("inf")


def test_cores_of_a_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "CGROUP", tmp_path)
    monkeypatch.setattr(devices.os, "sched_getaffinity", lambda _: {0, 2, 5}, raising=False)
    found = []
    for quota in ("max", "50000", "200000", "800000"):
        (tmp_path / "cpu.max").write_text(f"{quota} 100000\n")
        found.append(devices.cores())
    assert found == [3, 1, 2, 3]


def test_a_run_in_lanes(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 10 pictures in 4 lanes; stopped and resumed, which finds the lanes again."""
    lanes, again = tmp_path / "lanes", tmp_path / "again"
    train(recipe(), store, lanes, lanes=4)
    with monkeypatch.context() as patch:
        stop_after(patch, SGD, "step", 8)
        with pytest.raises(Interrupted):
            train(recipe(), store, again, lanes=4)
    train(recipe(), store, again, resume=True)
    assert same_weights(lanes, again) and log(lanes) == log(again)
    assert read_result(again)["environments"] == [environment() | {"lanes": 4}]


def test_no_lanes_cost_no_run(store: Store, tmp_path: Path) -> None:
    """They are refused before an earlier run is deleted or a new folder made."""
    folder = tmp_path / "run"
    train(recipe(epochs=1), store, folder)
    before = sorted(folder.iterdir())
    with pytest.raises(UsageError, match=r"lanes \(=0\) must be at least 1"):
        train(recipe(epochs=1), store, folder, overwrite=True, lanes=0)
    assert sorted(folder.iterdir()) == before
    with pytest.raises(UsageError):
        train(recipe(epochs=1), store, tmp_path / "new", lanes=0)
    assert not (tmp_path / "new").exists()


def test_resuming_in_other_lanes(store: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    train(recipe(epochs=1), store, folder)
    train(recipe(epochs=2), store, folder, resume=True, lanes=2)
    assert "continues in another environment (lanes 1, now 2): its weights" in capfd.readouterr().err
    assert [place["lanes"] for place in read_result(folder)["environments"]] == [1, 2]
    assert "lanes" not in json.loads((folder / "config.json").read_text())["recipe"]
