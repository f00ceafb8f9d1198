"""Several ranks train as one process does, by number: every scheme, every variant, dropout on."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from in_ranks import AGAIN, ELASTIC, Case, cases, settings, tuning
from runs import log
from safetensors.torch import load_file
from torch import Tensor

from alexnet.cli import dispatch
from alexnet.data.loader import Loader
from alexnet.data.store import Store
from alexnet.errors import UsageError
from alexnet.traffic import Scheme
from alexnet.train.loop import train
from alexnet.train.parallel.ranks import Ranks, open_ranks
from alexnet.train.result import read_result
from alexnet.trained import Trained
from alexnet.variants import get_variant
from alexnet.weights import native

#: Of the largest entry of each tensor.
LIMITS = {True: 1e-12, False: 1e-5}


@pytest.fixture(scope="module")
def results(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("in_ranks")
    script = Path(__file__).with_name("in_ranks.py")
    done = subprocess.run(
        [sys.executable, "-W", "error", script, store.folder, folder], capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr
    return folder


def read(folder: Path, case: Case) -> dict[str, Tensor]:
    return load_file(folder / f"{case.name}.safetensors")


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_equal_to_one_process(results: Path, case: Case) -> None:
    """The gradients of the first step; weights, velocity and loss after 20."""
    ours, alone = read(results, case), read(results, case.alone)
    assert ours.keys() == alone.keys() and sum(name.startswith("gradient.") for name in ours) == 16
    for name, expected in alone.items():
        difference = (ours[name] - expected).abs().max()
        assert difference <= LIMITS[case.double] * expected.abs().max(), f"{name}: {difference / expected.abs().max():.1e}"
    assert ours["wrong"] == alone["wrong"]


@pytest.mark.parametrize("case", AGAIN, ids=lambda case: case.name)
def test_same_ranks_same_bits(results: Path, case: Case) -> None:
    first, second = read(results, replace(case, again=0)), read(results, case)
    assert all(torch.equal(first[name], second[name]) for name in first)


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variant", "ranks", "reason"),
    [
        ("owt", Ranks(0, 2, "towers"), "owt has 1: use data or hybrid"),
        ("torchvision", Ranks(0, 2, "towers"), "torchvision has 1: use data or hybrid"),
        ("paper", Ranks(0, 3, "towers"), "an even number of ranks, one for each tower, not 3"),
        ("paper", Ranks(0, 1, "towers"), "an even number of ranks, one for each tower, not 1"),
    ],
)
def test_towers_that_do_not_fit(variant: str, ranks: Ranks, reason: str) -> None:
    with pytest.raises(UsageError, match=f"parallel .=towers. needs .*{reason}"):
        ranks.settled(get_variant(variant), 128)


@pytest.mark.parametrize(
    ("wanted", "timeout", "reason"),
    [
        ("data", 300.0, "begin the command with `torchrun"),
        (None, 2.9, "rank_timeout .=2.9. must be at least 3 seconds, and at most"),
        (None, math.inf, "rank_timeout .=inf. must be at least 3 seconds, and at most"),
        (None, math.nan, "rank_timeout .=nan. must be at least 3 seconds, and at most"),
    ],
)
def test_arguments_that_do_not_fit(wanted: Scheme | None, timeout: float, reason: str) -> None:
    with pytest.raises(UsageError, match=reason), open_ranks(wanted, timeout):
        pass


def test_a_family_in_several_processes(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    words = ["train", "laptop", "--data", str(store.folder), "--out", str(tmp_path / "family"), "--seeds", "2"]
    with pytest.raises(UsageError, match="drop torchrun and --parallel"):
        dispatch.run(words)
    assert not (tmp_path / "family").exists()


def test_one_process_needs_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchrun --nproc-per-node 1: no connection, and auto has nothing to choose."""
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("RANK", "0")
    with open_ranks("auto") as ranks:
        assert not ranks.several and ranks.settled(get_variant("paper"), 128).scheme == "data"
        assert ranks.broadcast_object("x") == "x" and ranks.all_gather_object("x") == ["x"] and ranks.agree(True)


# --- a run that goes on with other ranks ----------------------------------------------------------


@pytest.fixture(scope="module")
def alone(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of `elastic` in one process, never stopped."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    train(settings(), store, folder, lanes=1)
    return folder


def assert_same_run(run: Path, alone: Path) -> Trained:
    """Weights, velocity and evaluation, within float32's limit; `run`'s last checkpoint."""
    ours, theirs = native.load(run), native.load(alone)
    found = {**ours.model.state_dict(), **ours.extra}
    for name, expected in {**theirs.model.state_dict(), **theirs.extra}.items():
        assert (found[name] - expected).abs().max() <= LIMITS[False] * expected.abs().max(), name
    assert read_result(run)["evaluation"] == read_result(alone)["evaluation"]
    return ours


def test_fine_tuning(results: Path, store: Store, tmp_path: Path) -> None:
    """Rank 0 reads the weights and fits the last layer; layers below conv4 stay as they are."""
    train(tuning(results / "elastic"), store, tmp_path / "alone", lanes=1)
    assert_same_run(results / "tuned", tmp_path / "alone")


def test_other_ranks_go_on(results: Path, alone: Path) -> None:
    """Four ranks in towers, two in hybrid, one, and three: but for rounding, the run of one
    process, with the same files.
    """
    run = results / "elastic"
    ours = assert_same_run(run, alone)
    for mine, other in zip(log(run), log(alone), strict=True):
        assert mine.pop("kind") == other.pop("kind") and mine.keys() == other.keys()
        of_pictures = ("spread", "dead")  # rank 0 looks at its own
        numbers = {name: value for name, value in other.items() if not name.startswith(of_pictures)}
        assert {name: mine[name] for name in numbers} == pytest.approx(numbers, rel=1e-4)
    assert {path.name for path in run.iterdir()} == {path.name for path in alone.iterdir()}
    kept = [native.load(folder / "epoch-0002.safetensors").model.fc8.weight for folder in (run, alone)]
    assert (kept[0] - kept[1]).abs().max() <= 1e-5 * kept[1].abs().max()
    assert [(one.get("ranks", 1), one.get("parallel")) for one in ours.state["environments"]] == [
        (4, "towers"),
        (2, "hybrid"),
        (1, None),
        (3, "hybrid"),
    ]


def test_a_loss_that_is_not_finite(results: Path) -> None:
    """All ranks stop at the same step, and rank 0, which has the whole network then, says why."""
    told = [(results / f"broken-{rank}.txt").read_text() for rank in range(2)]
    assert told[0].startswith(told[1]) and "became non-finite first: lr 100000 is too high" in told[0]
    assert not (results / "broken" / "latest.safetensors").exists()


def test_every_picture_once(results: Path, store: Store) -> None:
    """Over all ranks and starts, each epoch is the permutation of one process, batch by batch."""
    shares: dict[tuple[int, int, int], list[int]] = {}
    for number, (count, _, _) in enumerate(ELASTIC):
        for rank in range(count):
            for epoch, step, (share, _), pictures in json.loads((results / f"seen-{number}-{rank}.json").read_text()):
                assert shares.setdefault((epoch, step, share), pictures) == pictures  # both towers see the same
    batches = [
        [picture for at, pictures in sorted(shares.items()) if at[:2] == (epoch, step) for picture in pictures]
        for epoch in range(4)
        for step in range(6)
    ]
    loader = Loader(store.train, 9, settings().seed)
    assert batches == [loader.indices(epoch, step).tolist() for epoch in range(4) for step in range(6)]
