"""From photos to a tested network in one command, which goes on wherever it was stopped."""

import json
import os
import re
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alexnet import AlexNet, intervals, report
from alexnet import fit as module
from alexnet.cli import main
from alexnet.data.store import Store
from alexnet.data.writer import Writer
from alexnet.errors import AlexNetError, CheckpointError, Interrupted, RecipeError, SourceError, TrainingError
from alexnet.files import lock, unlock
from alexnet.fit import fit
from alexnet.forecast import Times
from alexnet.plan import OTHER_SECONDS, Plan, Work, weights_here
from alexnet.train import recipes
from alexnet.train.history import read_config
from alexnet.train.loop import train
from alexnet.train.result import read_result
from alexnet.train.steps.plain import PlainStep
from alexnet.train.tune.base import open_base
from alexnet.trained import Trained
from alexnet.variants import get_variant
from alexnet.weights import native
from alexnet.weights.importer import published_preprocessing
from conftest import draw
from stopping import stop_after
from train import runs

Photos = Callable[..., Path]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The recipe for photos is one that takes a second, and no weights are on this machine."""
    monkeypatch.setitem(recipes.RECIPES, "small-photos", runs.recipe)
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path / "cache"))


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err


def test_in_one_command(photos: Photos, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The result on standard output; at the end how good it is, the page, how to use it."""
    folder, out = photos(12), tmp_path / "run"
    main(["fit", str(folder), "--out", str(out)])
    output = capsys.readouterr()
    result = json.loads(output.out)
    lines = output.err.splitlines()
    assert "`alexnet weights pull torchvision` downloads them" in lines[0]
    assert "36 photos of 3 classes: preparing, training from scratch (2 epochs of small-photos)" in lines[1]
    assert "less than a minute" in lines[1]
    tested = read_result(out)["evaluation"]
    assert result["images"] == tested["images"] == len(Store(out / "store").held_out)
    assert result["top1_error"] == pytest.approx(tested["top1_error"], abs=1e-6)
    wrong = round(result["top1_error"] * result["images"])
    assert lines[-3].startswith(f"Error on held-out photos: {intervals.stated(wrong, result['images'], result['chance'])}")
    assert lines[-2] == f"The page about it: {out / 'report.html'}" and result["report"] == str(out / "report.html")
    assert lines[-1] == f"Next: alexnet predict {out} photo.jpg"
    assert "AlexNet on photos" in (out / "report.html").read_text()


def test_the_long_way_works_on_it(photos: Photos, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What it makes is a run and a store like any other."""
    out = tmp_path / "run"
    fit(photos(12), out)
    draw((200, 50, 40), 77).save(tmp_path / "photo.jpg")
    for words in (
        ["predict", str(out), str(tmp_path / "photo.jpg")],
        ["evaluate", str(out), "--data", str(out / "store")],
        ["report", str(out), "--data", str(out / "store")],
        ["verify", str(out)],
        ["train", "--resume", "--out", str(out), "--epochs", "3"],
    ):
        main(words)
    assert read_result(out)["epochs"] == 3
    capsys.readouterr()
    fit(tmp_path / "photos", out)  # the page is of the run as it is
    assert "is finished" in said(capsys)


def test_a_table_of_labels(photos: Photos, tmp_path: Path) -> None:
    """A flat folder with a table gives the same classes as a folder per class."""
    folder, flat = photos(12), tmp_path / "flat"
    flat.mkdir()
    rows = []
    for file in sorted(folder.rglob("*.jpg")):
        name = f"{file.parent.name}-{file.name}"
        shutil.copy(file, flat / name)
        rows.append(f"{name},{file.parent.name}")
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(["file,class", *rows]) + "\n")
    fit(flat, tmp_path / "run", labels=table)
    assert Store(tmp_path / "run" / "store").classes == ("blue", "green", "red")
    with pytest.raises(TrainingError, match=r"was begun with labels \(=.*labels.csv\), not none: name the same"):
        fit(flat, tmp_path / "run")


STEPS: dict[str, tuple[type, str]] = {"preparing": (Writer, "append"), "training": (PlainStep, "take")}


@pytest.mark.parametrize("step", STEPS)
def test_stopped_it_goes_on(photos: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """The same command continues, and ends with the same weights."""
    folder = photos(12)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    fit(folder, whole)
    with monkeypatch.context() as patch:
        stop_after(patch, *STEPS[step], 1)
        with pytest.raises(Interrupted, match="^stopped and saved: run the same command to continue\\.$"):
            fit(folder, stopped)
    fit(folder, stopped)
    assert runs.same_weights(whole, stopped)


def test_killed_before_the_page(photos: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, out = photos(12), tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(report, "write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(Interrupted):
            fit(folder, out)
    first = (out / "result.json").read_bytes()
    assert fit(folder, out).report.exists()
    assert (out / "result.json").read_bytes() == first


def test_finished_it_says_so_at_once(photos: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    folder, out = photos(12), tmp_path / "run"
    first = fit(folder, out)
    capsys.readouterr()
    for name in ("train_and_test", "prepare", "evaluate_classifier"):
        monkeypatch.setattr(module, name, None)  # none of these is called
    assert fit(folder, out) == first
    assert f"{out} is finished. To train it for longer: `alexnet train --resume --out {out} --epochs 4`" in said(capsys)
    draw((200, 50, 40), 5).save(folder / "red" / "new.jpg")
    (folder / "blue" / "0.jpg").unlink()
    assert fit(folder, out, minutes=7) == first
    lines = said(capsys)
    assert f"{folder} has changed since {out / 'store'} was made (1 photo new, 1 photo gone)" in lines
    assert "minutes (=7) counts at the first start only" in lines
    shutil.rmtree(folder)
    assert fit(folder, out) == first


def test_a_store_of_its_own_place(photos: Photos, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is made where it is asked for; one that is there is used as it is, photos or not."""
    folder, data = photos(12), tmp_path / "elsewhere"
    fit(folder, tmp_path / "one", data=data)
    assert not (tmp_path / "one" / "store").exists()
    first = Store(data).fingerprint
    fit(folder, tmp_path / "two", data=data)
    shutil.rmtree(folder)
    capsys.readouterr()
    fit(folder, tmp_path / "three", data=data)
    assert f"{folder} is no longer there: going on with the store" in said(capsys)
    assert Store(data).fingerprint == first
    assert runs.same_weights(tmp_path / "one", tmp_path / "three")


def test_minutes(photos: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """As many epochs as they allow, at most the recipe's; fewer than one is refused."""
    folder = photos(12)
    monkeypatch.setattr("alexnet.plan.step_seconds", lambda *_: Times.of([9, 10, 20]))
    monkeypatch.setattr("alexnet.forecast.preparing_seconds", lambda *_: 20.0)
    with pytest.raises(RecipeError, match=r"minutes \(=0.5\) is too little for one pass over 36 photos.*: allow [12] or more"):
        fit(folder, tmp_path / "run", minutes=0.5)
    assert not (tmp_path / "run").exists()
    with pytest.raises(RecipeError, match=r"minutes \(=-1\) must be above 0"):
        fit(folder, tmp_path / "run", minutes=-1)
    fit(folder, tmp_path / "run", minutes=1.1)
    assert "from scratch (1 epoch of small-photos) and testing take 1 to 2 minutes on this machine" in said(capsys)
    assert read_result(tmp_path / "run")["epochs"] == 1
    fit(folder, tmp_path / "more", minutes=100)
    assert read_result(tmp_path / "more")["epochs"] == 2


def fit_stopped(monkeypatch: pytest.MonkeyPatch, folder: Path, out: Path, **options: Any) -> None:
    """`fit`, interrupted after its first step."""
    with monkeypatch.context() as patch:
        stop_after(patch, PlainStep, "take", 1)
        with pytest.raises(Interrupted):
            fit(folder, out, **options)


def test_a_class_that_was_renamed(photos: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before training has ended it is refused, with what to do; nothing is lost."""
    folder, out = photos(12), tmp_path / "run"
    fit_stopped(monkeypatch, folder, out)
    (folder / "red").rename(folder / "crimson")
    with pytest.raises(
        SourceError, match=r"has other classes than when .* \(new: 'crimson'; gone: 'red'\): name them as they were"
    ):
        fit(folder, out)
    (folder / "crimson").rename(folder / "red")
    assert fit(folder, out).tested.images


def test_a_class_that_was_renamed_later(photos: Photos, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """After training has ended it is said, of a folder or a word of the table; the run stays."""
    folder, out, table = photos(12), tmp_path / "run", tmp_path / "labels.csv"
    first = fit(folder, out)
    (folder / "red").rename(folder / "crimson")
    capsys.readouterr()
    assert fit(folder, out) == first
    changes = "(12 photos new, 12 photos gone, classes new: 'crimson'; gone: 'red'); this run uses the photos as they were then"
    assert f"{folder} has changed since {out / 'store'} was made {changes}" in said(capsys)
    for file in folder.rglob("*.jpg"):
        file.unlink()
    assert fit(folder, out) == first
    assert "The photos cannot be compared with those that it was trained on: " in said(capsys)
    files = [f"{number}.jpg" for number in range(24)]
    for number, name in enumerate(files):
        draw((200, 50, 40) if number % 2 else (40, 60, 200), number).save(folder / name)
    rows = [f"{name},{'red' if number % 2 else 'blue'}" for number, name in enumerate(files)]
    table.write_text("\n".join(["file,class", *rows]))
    fit(folder, tmp_path / "labelled", labels=table)
    table.write_text(table.read_text().replace("red", "crimson"))
    capsys.readouterr()
    fit(folder, tmp_path / "labelled", labels=table)
    assert "(12 photos of another class, classes new: 'crimson'; gone: 'red')" in said(capsys)


@pytest.mark.parametrize("stopped", [True, False])
def test_all_of_it_has_moved(
    photos: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], stopped: bool
) -> None:
    """The run with its store, and the photos: it goes on in the new place, and says so."""
    folder, place = photos(12), tmp_path / "place"
    shutil.move(folder, place / "photos")
    fit(place / "photos", tmp_path / "whole")
    with monkeypatch.context() as patch:
        if stopped:
            stop_after(patch, PlainStep, "take", 1)
        with pytest.raises(Interrupted) if stopped else nullcontext():
            fit(place / "photos", place / "run")
    place, old = place.rename(tmp_path / "elsewhere"), place
    capsys.readouterr()
    assert fit(place / "photos", place / "run").tested.images
    lines = said(capsys)
    assert (
        f"{old / 'photos'}, with which {place / 'run'} was begun, no longer exists: using {place / 'photos'} instead." in lines
    )
    assert ("is finished" in lines) != stopped and "has changed" not in lines
    assert runs.same_weights(tmp_path / "whole", place / "run")
    main(["verify", str(place / "run")])
    main(["train", "--resume", "--out", str(place / "run"), "--epochs", "3"])


def test_what_is_in_the_way(photos: Photos, tmp_path: Path, store: Store) -> None:
    folder = photos(12)
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("")
    cases: list[tuple[Path, Path, type[AlexNetError], str]] = [
        (folder, other, TrainingError, "exists and is not a run of `alexnet fit`"),
        (folder, other / "thesis.txt", TrainingError, "exists and is not a run"),
        (tmp_path / "no", tmp_path / "run", SourceError, "no does not exist"),
        (folder / "red", tmp_path / "run", SourceError, "red"),
    ]
    for source, out, error, message in cases:
        with pytest.raises(error, match=message):
            fit(source, out)
    assert [entry.name for entry in other.iterdir()] == ["thesis.txt"] and not (tmp_path / "run").exists()
    train(runs.recipe(epochs=1), store, tmp_path / "trained")
    with pytest.raises(TrainingError, match="is a run of `alexnet train`: continue it with"):
        fit(folder, tmp_path / "trained")


def test_a_folder_that_cannot_be_made(photos: Photos) -> None:
    with pytest.raises(TrainingError, match=r"^/proc/x cannot be created \(.*\): choose another --out\.$"):
        fit(photos(), "/proc/x")


def test_another_run_is_not_mixed_in(photos: Photos, tmp_path: Path) -> None:
    fit(photos(12), tmp_path / "run")
    with pytest.raises(
        TrainingError, match=r"was begun with photos \(=.*photos\), not .*others: name the same, or another --out"
    ):
        fit(photos(12, "others"), tmp_path / "run")


def test_refused_photos_bind_nothing(photos: Photos, tmp_path: Path) -> None:
    """After photos that are too few the folder is free for others."""
    few = photos(1, "few")
    counts = "'blue' has 1 file, 'green' has 1 file, 'red' has 1 file"
    with pytest.raises(SourceError, match=rf"^{few}: no class has two different readable pictures, .*\({counts}\): add photos"):
        fit(few, tmp_path / "run")
    for file in few.rglob("*.jpg"):
        file.unlink()
    with pytest.raises(
        SourceError, match=rf"found no pictures in the folder {few}: expected JPEG, .*Put photos there, or name"
    ):
        fit(few, tmp_path / "run")
    draw((200, 50, 40), 1).save(few / "red" / "only.jpg")
    shutil.rmtree(few / "blue")
    shutil.rmtree(few / "green")
    with pytest.raises(
        SourceError, match=rf"only one class in the folder {few} \('red'\): .*Add a folder with photos of another"
    ):
        fit(few, tmp_path / "run")
    assert fit(photos(12), tmp_path / "run", minutes=9).tested.images
    assert json.loads((tmp_path / "run" / "fit.json").read_text())["photos"] == str(tmp_path / "photos")


def test_a_copy_is_as_finished(photos: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Whatever the times of its files, and without the store; nothing is written."""
    folder = photos(12)
    first = fit(folder, tmp_path / "run")
    copy = Path(shutil.copytree(tmp_path / "run", tmp_path / "copy"))
    os.utime(copy / "report.html", (0, 0))
    monkeypatch.setattr(module, "train_and_test", None)
    assert fit(folder, copy).tested == first.tested
    shutil.rmtree(copy / "store")
    assert fit(folder, copy).tested == first.tested
    lines = said(capsys)
    assert f"{copy / 'store'}, its store, is gone: nothing needs doing, unless" in lines
    assert "--resume" not in lines.partition(f"{copy} is finished.")[2].partition(f"{copy} is finished.")[2]


def test_finished_but_its_network_is_gone(photos: Photos, tmp_path: Path) -> None:
    """It is not called finished; what is said to do keeps the photos to test on."""
    folder, out = photos(12), tmp_path / "run"
    first = fit(folder, out)
    (out / "latest.safetensors").unlink()
    same = f"restore it from a copy, or fit again with another --out, where --data {out / 'store'} keeps the same test photos"
    with pytest.raises(TrainingError, match=f"is finished, but its latest.safetensors, .* is missing: {same}"):
        fit(folder, out)
    with pytest.raises(SystemExit):
        main(["train", "--resume", "--out", str(out)])
    assert fit(folder, tmp_path / "again", data=out / "store").tested.wrong == first.tested.wrong
    shutil.rmtree(out / "store")
    with pytest.raises(TrainingError, match=r"or fit again with another --out\.$"):
        fit(folder, out)


@pytest.mark.parametrize("on_weights", [False, True])
def test_the_store_of_an_unfinished_run_is_gone(
    photos: Photos, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, on_weights: bool
) -> None:
    """The same photos give the same store, the same ones held out; others are refused."""
    folder, out, start = photos(15), tmp_path / "run", weights if on_weights else None
    for number in range(15):
        draw((200, 50, 40), 3000 + number).save(folder / "red" / f"copy{number}.jpg", quality=60)  # groups: sides change
    place = ("alexnet.train.tune.begin.fit", None) if on_weights else ("alexnet.train.steps.plain.PlainStep.take", None)
    with monkeypatch.context() as patch:
        patch.setattr(place[0], lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(Interrupted):
            fit(folder, out, weights=start)
    before = Store(out / "store").fingerprint
    shutil.rmtree(out / "store")
    late = draw((200, 50, 40), 99)
    late.save(folder / "red" / "late.jpg")
    with pytest.raises(TrainingError, match="prepared again it is another one.* other photos would be held out for testing"):
        fit(folder, out)
    assert not (out / "store").exists()
    (folder / "red" / "late.jpg").unlink()
    with monkeypatch.context() as patch:  # killed between preparing and looking for near-duplicates
        patch.setattr(module, "_with_groups", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(Interrupted):
            fit(folder, out)
    fit(folder, out)
    assert Store(out / "store").fingerprint == before
    fit(folder, tmp_path / "whole", weights=start)
    assert runs.same_weights(tmp_path / "whole", out)


def test_the_store_of_an_unfinished_run_is_another(photos: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused as that, not as one that is gone, and stays."""
    folder, out = photos(12), tmp_path / "run"
    fit_stopped(monkeypatch, folder, out)
    shutil.rmtree(out / "store")
    main(["prepare", str(folder), str(out / "store"), "--size", "200"])
    with pytest.raises(
        TrainingError, match="store of .*run, is not the one that it was begun with: other photos would be held"
    ):
        fit(folder, out)
    assert Store(out / "store").size == 200


def test_the_store_of_another_is_gone(photos: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that this command did not make is not made by it."""
    folder, data = photos(12), tmp_path / "elsewhere"
    fit(folder, tmp_path / "one", data=data)
    fit_stopped(monkeypatch, folder, tmp_path / "two", data=data)
    shutil.rmtree(data)
    with pytest.raises(TrainingError, match="elsewhere, the store of .*two, is gone: put it back, or begin anew with another"):
        fit(folder, tmp_path / "two", data=data)


def test_a_store_of_small_pictures(photos: Photos, tmp_path: Path, weights: Path) -> None:
    """From scratch it is refused before anything is written; on weights it is enlarged."""
    folder, data = photos(12), tmp_path / "small"
    main(["prepare", str(folder), str(data), "--size", "32"])
    with pytest.raises(RecipeError, match=r"data \(=.*small\) has pictures of 32 pixels, .* leave out --data, .* --from"):
        fit(folder, tmp_path / "run", data=data)
    assert not (tmp_path / "run").exists()
    fit(folder, tmp_path / "run", data=data, weights=weights)


def test_a_store_that_cannot_be_there(photos: Photos, tmp_path: Path) -> None:
    """Said before anything is written."""
    folder, other = photos(12), tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("")
    for data, problem in (
        (tmp_path / "run", "must not hold the run"),
        (tmp_path, "must not hold"),
        (other, "is not a store"),
        (Path("http://host/store"), r"data \(=http://host/store\) is an address, .* name one"),
    ):
        with pytest.raises(AlexNetError, match=problem):
            fit(folder, tmp_path / "run", data=data)
    assert not (tmp_path / "run").exists()


def test_two_at_once(photos: Photos, tmp_path: Path) -> None:
    """The one that comes later is refused before it touches the store."""
    folder, out = photos(12), tmp_path / "run"
    out.mkdir()
    held = lock(out)
    assert held
    with pytest.raises(TrainingError, match="another process is at work in .*run: wait for it to finish"):
        fit(folder, out)
    assert [entry.name for entry in out.iterdir()] == [".lock"]
    unlock(held)
    assert fit(folder, out).tested.images


def test_few_and_unequal_classes(photos: Photos, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = photos(30)
    for number in range(6, 30):
        (folder / "red" / f"{number}.jpg").unlink()
    (folder / "blue" / "29.jpg").write_bytes(b"not a picture")
    (folder / "green" / "29.jpg").write_bytes(b"")
    fit(folder, tmp_path / "run")
    lines = said(capsys)
    listed = tmp_path / "run" / "store" / "skipped.jsonl"
    assert (
        f"2 files skipped ('blue/29.jpg': not an image in a known format; 'green/29.jpg': empty file), listed in {listed}."
        in lines
    )
    assert "1 class has fewer than 10 photos ('red'): so few hardly teach or test." in lines
    assert "The classes are of unequal size, from 6 ('red') to 29 photos ('blue')" in lines


def test_near_duplicates_are_on_one_side(photos: Photos, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each photo with a copy of other quality, which only content tells; all are in the store."""
    folder, out = photos(15), tmp_path / "run"
    for number in range(15):
        for name, colour in (("blue", (40, 60, 200)), ("green", (40, 180, 60)), ("red", (200, 50, 40))):
            picture = draw(colour, 1000 * len(name) + number)
            picture.save(folder / name / f"copy{number}.jpg", quality=60)
    fit(folder, out)
    assert "90 photos are near-duplicates (bursts, copies), in 45 groups." in said(capsys)
    sides = {name: split.name for split in Store(out / "store").splits.values() for name in split.files}
    assert len(sides) == 90
    for name, side in sides.items():
        twin = name.replace("copy", "") if "copy" in name else name.replace("/", "/copy")
        assert sides[twin] == side


# --- on trained weights ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network of five other classes, for pictures of 72 pixels, squashed."""
    variant = get_variant("caffe", width=1 / 16, input_size=67, num_classes=5, init="he")
    net = AlexNet(variant, torch.Generator().manual_seed(5))
    preprocessing = replace(published_preprocessing(variant), stored_size=72)
    path = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    native.save(path, Trained(net, tuple("abcde"), preprocessing, {}, {}))
    return path


def test_on_weights(photos: Photos, tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They decide the pictures; near-duplicates are found by what they make of them; it goes on."""
    folder, out = photos(15), tmp_path / "run"
    main(["fit", str(folder), "--out", str(out), "--from", str(weights)])
    lines = said(capsys)
    assert f"45 photos of 3 classes: preparing, training on the weights {weights} and testing take" in lines
    store = Store(out / "store")
    assert (store.size, store.manifest["resize"]) == (72, "squash")
    assert all(f"looking for near-duplicates in {split}: " in lines for split in ("train", "val"))
    recipe = read_config(out).recipe
    assert recipe.weights == str(weights) and recipe.tune == "head"
    assert "from the weights that the run began with, and were not trained here." in (out / "report.html").read_text()
    first = fit(folder, out)
    assert "is finished" in said(capsys) and first.tested.images == len(store.held_out)
    with pytest.raises(TrainingError, match=r"was begun with weights \(=.*\), not torchvision: name the same"):
        fit(folder, out, weights="torchvision")


@pytest.mark.parametrize("count", [2, 3])
def test_a_photo_or_two_of_each_class(photos: Photos, tmp_path: Path, weights: Path, count: int) -> None:
    """So few that not every fifth of them has one: the last layer is chosen all the same."""
    folder = photos(count)
    shutil.rmtree(folder / "green")
    assert fit(folder, tmp_path / "run", weights=weights).tested.images >= 1
    assert len(Store(tmp_path / "run" / "store").train) < 5


def test_weights_are_read_once(photos: Photos, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is to be said of them is said once: here that none of their layers looks trained."""
    variant = get_variant("caffe", width=1 / 16, input_size=67, num_classes=5, init="he")
    drawn = AlexNet(variant, torch.Generator().manual_seed(5)).state_dict()
    np.savez(tmp_path / "drawn.npz", **{name: value.numpy() for name, value in drawn.items() if name.startswith("conv")})
    fit(photos(12), tmp_path / "run", weights=tmp_path / "drawn.npz", variant="caffe")
    lines = said(capsys)
    assert lines.count("does not contain a mean") == lines.count("Warning: ") == 1


def test_on_weights_it_goes_on(photos: Photos, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped after the features, the same bits in the end."""
    folder = photos(12)
    fit(folder, tmp_path / "whole", weights=weights)
    with monkeypatch.context() as patch:
        patch.setattr("alexnet.train.tune.begin.fit", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(Interrupted, match="run the same command to continue"):
            fit(folder, tmp_path / "stopped", weights=weights)
    fit(folder, tmp_path / "stopped")
    assert runs.same_weights(tmp_path / "whole", tmp_path / "stopped")


def test_minutes_on_weights(weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """They are for the last layer first; what is left is for all layers and their trial."""
    monkeypatch.setattr("alexnet.plan.picture_seconds", lambda *_: Times.of([0.01]))
    recipe = recipes.get_recipe("finetune", weights=str(weights))
    plan = Plan(recipe, open_base(recipe))
    assert plan.within(None, Work(400, 3)).recipe == recipe and "if training all" not in said(capsys)  # too few to ask
    assert plan.within(None, Work(600, 3)).recipe == recipe
    more = "take about 2 minutes on this machine as it is now, and about 2 minutes more if training all layers helps"
    assert more in said(capsys)
    once, epoch = 17 * 600 * 0.01, 3 * (600 + 480) * 0.01
    for epochs in (0, 1, 3):
        minutes = (OTHER_SECONDS + once + (epochs + 0.5) * epoch) / 60
        assert plan.within(minutes, Work(600, 3)).recipe.epochs == 1 + epochs
        assert ("if training all layers helps" in said(capsys)) == (epochs > 0)


@pytest.mark.parametrize(("forecast", "wrong"), [(1e-9, True), (1e3, True), (None, False)])
def test_a_forecast_that_was_wrong(
    photos: Photos, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, forecast: float, wrong: bool
) -> None:
    """It is corrected in one line when half of the features are there."""
    monkeypatch.setattr("alexnet.train.tune.features.SHORT_SECONDS", 0)
    monkeypatch.setattr("alexnet.train.tune.features.BATCH", 8)
    times = Times.of([forecast]) if forecast else Times(1.0, 0.0, 1e9)  # these hold whatever comes
    monkeypatch.setattr("alexnet.plan.picture_seconds", lambda *_: times)
    fit(photos(15), tmp_path / "run", weights=weights)
    lines = [line for line in said(capsys).splitlines() if "forecast" in line]
    assert len(lines) == wrong
    if wrong:
        left = r"The forecast at the start was wrong: computing features takes about 0:\d\d in all, not [\d:]+; 0:\d\d of it is"
        assert re.match(left, lines[0])


def test_weights_that_are_here(weights: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    """Published ones in the cache are taken, and named."""
    assert weights_here(None) is None
    assert weights_here("mine.npz") == "mine.npz"
    capsys.readouterr()
    monkeypatch.setattr("alexnet.published.registry.cached", lambda entry: tmp_path if entry.name == "torchvision" else None)
    assert weights_here(None) == "torchvision"
    assert "begins with the published weights torchvision, which are on this machine" in said(capsys)


def test_weights_that_cannot_be_used(photos: Photos, tmp_path: Path, weights: Path) -> None:
    """Something else, one that is not there, too few minutes: nothing is left behind."""
    folder, other = photos(12), tmp_path / "other.npz"
    np.savez(other, hidden=np.zeros((3, 3), np.float32))
    cases: list[tuple[dict[str, Any], type[AlexNetError], str]] = [
        ({"weights": other}, CheckpointError, "other.npz"),
        ({"weights": "nowhere.npz"}, CheckpointError, r"nowhere.npz\) do not exist"),
        ({"weights": weights, "minutes": 0.001}, RecipeError, r"minutes \(=0.001\) is too little for one pass over 36 photos"),
    ]
    for arguments, error, message in cases:
        with pytest.raises(error, match=message):
            fit(folder, tmp_path / "run", **arguments)
        assert not (tmp_path / "run").exists()


def test_classes_count_alike(photos: Photos, tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = photos(24)
    for number in range(6, 24):
        (folder / "red" / f"{number}.jpg").unlink()
    fit(folder, tmp_path / "run", weights=weights, class_weights="balanced")
    assert read_config(tmp_path / "run").recipe.class_weights == "balanced"
    assert "unequal size" not in said(capsys)
