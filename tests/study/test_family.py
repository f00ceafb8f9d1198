"""Families: each member is the run it would be alone, also when the family was stopped."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alexnet import AlexNet, kernels
from alexnet.data.augment import Augmentation
from alexnet.data.chance import Chance
from alexnet.data.loader import INIT, Loader, stream
from alexnet.data.store import Store
from alexnet.errors import Interrupted, RecipeError, TrainingError
from alexnet.run_folder import FAMILY, member, members
from alexnet.study import family
from alexnet.study.family import parse_seeds, train_family
from alexnet.study.record import write_family
from alexnet.train import recipes
from alexnet.train.loop import train
from alexnet.train.optim import SGD
from alexnet.train.recipes import Recipe
from alexnet.train.start import Start
from alexnet.weights import native
from stopping import stop_after

SMALL: dict[str, Any] = {"width": 1 / 8, "epochs": 2, "batch_size": 10, "lr": 0.005, "compile": "off", "device": "cpu"}
STEPS = 6  # an epoch


def recipe(**changes: Any) -> Recipe:
    return recipes.get_recipe("laptop", **{**SMALL, **changes})


def weights(path: Path) -> dict[str, torch.Tensor]:
    trained = native.load(path)
    return {**trained.model.state_dict(), **trained.extra}


def same(first: Path, second: Path) -> bool:
    one, two = weights(first), weights(second)
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def log(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "images_per_second"} for line in lines]


@pytest.fixture(scope="module")
def quiet(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seeds 0 and 1, never interrupted; weights kept at the start and after each epoch."""
    folder = tmp_path_factory.mktemp("families") / "quiet"
    train_family(recipe(keep="0..2"), store, folder, (0, 1))
    return folder


# --- seeds ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("0..9", tuple(range(10))), ("0,1,2", (0, 1, 2)), ("3", (3,)), ("0..2,3,4..5", tuple(range(6))), ("7..7", (7,))],
)
def test_seeds(text: str, seeds: tuple[int, ...]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0,2", r"seeds \(=0,2\) must be consecutive, without gaps; 1 missing"),
        ("0..2,5..6", r"without gaps; 3, 4 missing"),
        ("0,1,1", "must rise, so 1 cannot follow 1: write 0,1."),
        ("0..3,2", "must rise, so 2 cannot follow 3: write 0,1,2,3."),
        ("3..1", "must rise, so 1 cannot follow 3: write 1..3."),
        ("", "must be whole numbers such as 0..9"),
        ("a", r"\(=a\) must be whole numbers such as 0\.\.9 or 0,1,2\.$"),
        ("-1", r"\(=-1\) must be whole numbers such as 0\.\.9 or 0,1,2\.$"),
        ("0..", r"\(=0\.\.\) must be whole numbers such as 0\.\.9 or 0,1,2\.$"),
        ("0,,1", "not ''"),
        ("²", r"\(=²\) must be whole numbers such as 0\.\.9 or 0,1,2\.$"),
        ("0..99999999", "names more than 10000 numbers"),
        ("0..9999999999999999", r"must be whole numbers such as 0\.\.9 or 0,1,2\.$"),
    ],
)
def test_seeds_refused(text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse_seeds(text)


@pytest.mark.parametrize(
    ("keep", "message"), [("0,1,3", "names epoch 3, but the run has 2"), ("1,1", "must rise"), ("x", "must be whole numbers")]
)
def test_keep_refused(keep: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe(keep=keep)


# --- what a family is -----------------------------------------------------------------------------


def test_each_member_is_the_run_of_its_seed(quiet: Path, store: Store, tmp_path: Path) -> None:
    """Alone, with more loader workers, checkpoints at every step and nothing kept: the same
    bits.
    """
    for seed in (0, 1):
        train(recipe(seed=seed, workers=3, checkpoint_minutes=0.0), store, tmp_path / f"{seed}")
        assert same(tmp_path / f"{seed}", member(quiet, seed))
        assert log(tmp_path / f"{seed}") == log(member(quiet, seed))
    assert not same(member(quiet, 0), member(quiet, 1))


def test_the_summary(quiet: Path) -> None:
    summary = json.loads((quiet / FAMILY).read_text())
    results = [json.loads((member(quiet, seed) / "result.json").read_text()) for seed in (0, 1)]
    errors = [one["evaluation"]["top1_error"] for one in results]
    assert [row["top1_error"] for row in summary["members"]] == errors
    assert [row["weights_sha256"] for row in summary["members"]] == [one["weights"]["sha256"] for one in results]
    assert summary["mean_top1_error"] == pytest.approx(np.mean(errors))
    assert summary["deviation_top1_error"] == pytest.approx(np.std(errors, ddof=1))
    assert summary["seconds_per_model"] == pytest.approx(np.mean([one["seconds"] for one in results]))
    assert members(quiet) == [member(quiet, 0), member(quiet, 1)]
    assert members(quiet / "seed0") == []


def test_kept_epochs(quiet: Path, store: Store) -> None:
    """Epoch 0 is the start, the last one is the latest checkpoint; no velocity."""
    run = member(quiet, 1)
    assert sorted(path.name for path in run.glob("epoch-*")) == [f"epoch-000{n}.safetensors" for n in (0, 1, 2)]
    seed = int(stream(1, INIT).integers(2**62))
    fresh = AlexNet(recipe().network(3), torch.Generator().manual_seed(seed)).state_dict()
    first, last = (native.load(run / f"epoch-000{n}.safetensors") for n in (0, 2))
    assert all(torch.equal(first.model.state_dict()[name], fresh[name]) for name in fresh)
    assert not first.extra and not last.extra
    latest = native.load(run).model.state_dict()
    assert all(torch.equal(last.model.state_dict()[name], latest[name]) for name in latest)
    assert (last.state["epoch"], len(last.state["errors"])) == (2, 2)


def test_the_record(quiet: Path, store: Store) -> None:
    write_family(quiet, recipe(keep="0..2"), store, json.loads((quiet / FAMILY).read_text()))
    page = (quiet / "README.md").read_text()
    assert "mean ± deviation, n = 2" in page and "seconds of training for each model" in page
    words = "alexnet train laptop --width 0.125 --epochs 2 --batch-size 10 --lr 0.005 --device cpu --compile off --keep 0..2"
    assert f"{words} --data STORE --out FAMILY --seeds 0..1" in page
    assert (quiet / "curves.png").stat().st_size > 5000


# --- stopping and going on ------------------------------------------------------------------------


@pytest.mark.parametrize("after", [2, 2 * STEPS, 2 * STEPS + 1, 3 * STEPS])
def test_stopped_and_resumed(quiet: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Ctrl-C in either member or between them: the same bits and logs in the end, and
    no batch trained on twice.
    """
    folder, steps = tmp_path / "family", stop_after(monkeypatch, SGD, "step", after)
    with pytest.raises(Interrupted, match="--resume"):
        train_family(recipe(keep="0..2"), store, folder, (0, 1))
    train_family(recipe(keep="0..2"), store, folder, (0, 1), resume=True)
    assert len(steps) == 2 * 2 * STEPS
    for seed in (0, 1):
        for name in ("latest.safetensors", "epoch-0000.safetensors", "epoch-0001.safetensors"):
            assert same(member(folder, seed) / name, member(quiet, seed) / name)
        assert log(member(folder, seed)) == log(member(quiet, seed))


def test_more_seeds(quiet: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the new one is trained; its own name is in the table."""
    trained: list[Path] = []
    monkeypatch.setattr(family, "train", lambda *arguments, **words: (trained.append(arguments[2]), train(*arguments, **words)))
    summary = train_family(recipe(keep="0..2"), store, quiet, (0, 1, 2), resume=True)
    assert trained == [member(quiet, 2)]
    assert [row["seed"] for row in summary["members"]] == [0, 1, 2]
    with pytest.raises(TrainingError, match=r"holds seed2 too, which seeds \(=0..1\) leave out"):
        train_family(recipe(keep="0..2"), store, quiet, (0, 1), resume=True)


def test_refused(quiet: Path, store: Store, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="is not empty: add --resume"):
        train_family(recipe(), store, quiet, (0, 1, 2))
    with pytest.raises(TrainingError, match=r"other settings \(lr 0.005, now 0.1, keep 0..2, now None\)"):
        train_family(recipe(lr=0.1), store, quiet, (0, 1, 2), resume=True)
    with pytest.raises(TrainingError, match="holds a single run"):
        train_family(recipe(), store, member(quiet, 0), (0, 1), resume=True)
    with pytest.raises(TrainingError, match="nothing to resume"):
        train_family(recipe(), store, tmp_path / "none", (0, 1), resume=True)
    with pytest.raises(RecipeError, match=r"at_once \(=2\) works on a GPU only"):
        train_family(recipe(), store, tmp_path / "new", (0, 1), at_once=2)
    with pytest.raises(RecipeError, match=r"at_once \(=0\) must be at least 1"):
        train_family(recipe(), store, tmp_path / "new", (0, 1), at_once=0)
    assert not (tmp_path / "new").exists()
    (tmp_path / FAMILY).write_text("{}")
    with pytest.raises(TrainingError, match="is damaged"):
        members(tmp_path)


def test_several_at_once(quiet: Path, store: Store, tmp_path: Path) -> None:
    """Processes of their own (on the CPU here): one ends with the bits of its seed, the
    other says why it did not.
    """
    good, bad = member(tmp_path, 0), member(tmp_path, 1)
    jobs = [(recipe(keep="0..2"), store.folder, good), (recipe(input_size=128), store.folder, bad)]
    with pytest.raises(TrainingError, match=r"1 of 2 runs had to stop.*seed1.txt"):
        family._train_together(jobs, 2)
    assert same(good, member(quiet, 0))
    assert "alexnet: input_size (=128) is larger" in Path(f"{bad}.txt").read_text()
    assert "epoch 2: val top-1 error" in Path(f"{good}.txt").read_text()


# --- determinism on a GPU -------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_what_a_seed_fixes_on_a_gpu(store: Store) -> None:
    """The weights at the start, the batches after augmentation, and the dropout; to the bit,
    twice.
    """
    device, seen = torch.device("cuda"), []
    one = recipe(dropout=0.5, crop=True, mirror=True, colour_noise=0.1)
    for _ in range(2):
        trained = Start.fresh(one, store, device).trained
        loader = Loader(store.train, 10, 0)
        records, _ = loader.batch(1, 2)
        augmentation = Augmentation.of(trained.preprocessing, store, True, True, 0.1)
        pictures, chance = loader.indices(1, 2), Chance(0, 1)
        images = augmentation(records.to(device), pictures, chance)
        keys = torch.from_numpy(chance.dropout_keys(pictures, 1)).to(device)
        dropped = kernels.dropout(torch.ones(len(keys), 1000, device=device), 0.5, keys[:, 0], True)
        seen.append([*trained.model.state_dict().values(), images, dropped])
    assert all(torch.equal(first, second) for first, second in zip(*seen, strict=True))
    on_cpu = Start.fresh(one, store, torch.device("cpu")).trained
    assert all(torch.equal(a.cpu(), b) for a, b in zip(seen[0], on_cpu.model.state_dict().values(), strict=False))
