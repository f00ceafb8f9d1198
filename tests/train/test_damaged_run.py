"""A run whose files are damaged, whose disk is full, whose folder goes away: one line that says
what, and nothing is lost.
"""

import errno
import json
import math
import os
import re
import resource
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from runs import log, recipe, same_weights
from safetensors import SafetensorError

from alexnet.cli import main
from alexnet.data.store import Store
from alexnet.errors import AlexNetError, CheckpointError, RecipeError, StoreError, TrainingError
from alexnet.run_folder import read_environment, read_log
from alexnet.study import family
from alexnet.train import board
from alexnet.train.history import read_config
from alexnet.train.loop import train
from alexnet.train.optim import SGD
from alexnet.train.place import Place
from alexnet.train.result import read_result, verify_run
from alexnet.weights import native


@pytest.fixture(scope="module")
def finished(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "finished"
    train(recipe(), store, folder)
    return folder


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


# --- damage ---------------------------------------------------------------------------------------

WRONG: tuple[Any, ...] = (None, "x", True, -1, 10**30, 1e300, math.nan, math.inf, [], {}, [[]], "missing")


def spoiled(value: Any) -> Iterator[tuple[str, Any]]:
    """Each way to replace one part of plain data by something wrong: what
    was done, and the outcome.
    """
    pairs: list[tuple[Any, Any]] = list(value.items()) if isinstance(value, dict) else list(enumerate(value))
    for key, item in pairs:
        for wrong in WRONG:
            copied = json.loads(json.dumps(value))
            if wrong == "missing":
                del copied[key]
            else:
                copied[key] = wrong
            yield f"{key} = {wrong}", copied
        if isinstance(item, dict | list):
            for place, changed in spoiled(item):
                copied = json.loads(json.dumps(value))
                copied[key] = changed
                yield f"{key}.{place}", copied
    for wrong in WRONG:
        yield f"all = {wrong}", wrong


@pytest.mark.parametrize(
    ("name", "reader", "accepted"),
    [
        # A recipe's field may be missing (older versions had fewer), and 0,
        # false or None may be right.
        ("config.json", read_config, 0.2),
        ("environment.json", read_environment, 0.5),  # of free texts and numbers
        ("result.json", read_result, 0.4),
    ],
)
def test_a_damaged_file_is_named(copy: Path, name: str, reader: Callable[[Path], object], accepted: float) -> None:
    """No change to any part of it gives an error that is not ours."""
    right = json.loads((copy / name).read_text())
    tried = read = 0
    for what, content in spoiled(right):
        (copy / name).write_text(json.dumps(content))
        tried += 1
        try:
            reader(copy)
            read += 1
        except AlexNetError as error:
            assert f"{name} is damaged: " in str(error) and "\n" not in str(error), what
    assert tried > 100 and read / tried <= accepted


@pytest.mark.parametrize("text", ["", "{", "[1", "\x00", "null", '{"a": ' * 5000])
@pytest.mark.parametrize(("name", "reader"), [("config.json", read_config), ("environment.json", read_environment)])
def test_no_json(copy: Path, name: str, reader: Callable[[Path], object], text: str) -> None:
    (copy / name).write_text(text)
    with pytest.raises(CheckpointError, match=rf"{name} is damaged: .* Restore it from a copy"):
        reader(copy)
    (copy / name).unlink()
    with pytest.raises(CheckpointError, match=rf"{name} cannot be read: No such file"):
        reader(copy)


def test_a_damaged_log(copy: Path) -> None:
    """Line by line; a number is never NaN, an error never above 1."""
    lines = (copy / "log.jsonl").read_text().splitlines()
    for number, line in enumerate(lines):
        for what, content in spoiled(json.loads(line)):
            changed = [*lines[:number], json.dumps(content), *lines[number + 1 :]]
            (copy / "log.jsonl").write_text("\n".join(changed) + "\n")
            try:
                read = read_log(copy)[number]
            except CheckpointError as error:
                assert f"line {number + 1} of {copy / 'log.jsonl'} is damaged: " in str(error), what
                continue
            assert all(math.isfinite(value) for name, value in read.items() if name != "kind"), what
            assert 0 <= read.get("top1_error", 0) <= 1 and read["step"] >= 0, what


def test_half_a_line_at_the_end_is_left_out_and_said(copy: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """As a process leaves it that is killed in the middle of a line; `report` reads such a run."""
    whole = read_log(copy)
    text = (copy / "log.jsonl").read_text()
    (copy / "log.jsonl").write_text(text[:-9])
    assert read_log(copy) == whole[:-1]
    assert f"The last line of {copy / 'log.jsonl'} is cut off, as in a run that was killed" in capfd.readouterr().err


def test_a_damaged_state(finished: Path) -> None:
    """Of a checkpoint: refused as it is read, whatever was changed in it, or right by chance."""
    state = native.load(finished).state
    taken = []
    for what, content in spoiled(state):
        try:
            Place.of(content, finished)
        except CheckpointError as error:
            assert " is damaged: " in str(error) or "holds no state" in str(error), what
        else:
            taken.append(what)
    for part in ("epoch = ", "errors.0 = ", "window.wrong = ", "step = -1", "seconds = nan", "losses.0 = x", "warned = {}"):
        assert not [what for what in taken if what.startswith(part) and "missing" not in what], part
    assert "step = True" not in taken and "log_length = 1e+300" not in taken


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: replace(t, state={**t.state, "step": 7}), r"it is at step 7 of an epoch, which has 6"),
        (lambda t: replace(t, state={**t.state, "step": -6}), r"step is -6, but must be at least 0"),
        (lambda t: replace(t, state={}), r"holds no state of the training"),
        (lambda t: replace(t, extra={}), r"the velocity of conv1.weight is missing"),
        (
            lambda t: replace(t, extra={n: v[:1] for n, v in t.extra.items()}),
            r"the velocity of conv1.weight is float32 of shape",
        ),
        (lambda t: replace(t, extra={n: v.double() for n, v in t.extra.items()}), r"is float64 of shape .*must be float32 of"),
        (lambda t: replace(t, extra={n: v * math.nan for n, v in t.extra.items()}), r"conv1.weight is NaN or infinite"),
    ],
)
def test_a_damaged_checkpoint(copy: Path, store: Store, change: Callable[[Any], Any], message: str) -> None:
    (copy / "result.json").unlink()
    native.save(copy / "latest.safetensors", change(native.load(copy)))
    with pytest.raises(CheckpointError, match=rf"latest.safetensors .*{message}"):
        train(recipe(), store, copy, resume=True)


def test_a_run_that_has_ended_without_its_network(copy: Path, store: Store) -> None:
    """To go on would train it again in silence, under a result that is there."""
    (copy / "latest.safetensors").unlink()
    with pytest.raises(TrainingError, match="has ended, but its latest.safetensors, .* is missing: .* --overwrite in place of"):
        train(recipe(), store, copy, resume=True)
    train(recipe(), store, copy, overwrite=True)
    train(recipe(), store, copy, resume=True)


def test_the_checkpoint_of_another_run(copy: Path, store: Store, tmp_path: Path) -> None:
    train(recipe(width=1 / 16, epochs=1), store, tmp_path / "other")
    shutil.copyfile(tmp_path / "other" / "latest.safetensors", copy / "latest.safetensors")
    (copy / "result.json").unlink()
    with pytest.raises(CheckpointError, match=r"it holds another network than config.json asks for. Put the run's own"):
        train(recipe(), store, copy, resume=True)


def test_a_damaged_family(tmp_path: Path) -> None:
    row = {"seed": 0, "top1_error": 0.1, "top5_error": 0.0, "seconds": 1.0, "weights_sha256": "0" * 64}
    right = {
        "members": [row],
        "n": 1,
        "mean_top1_error": 0.1,
        "deviation_top1_error": None,
        "seconds_per_model": 1.0,
        "at_once": 1,
    }
    for what, content in [("nothing", right), *spoiled(right)]:
        (tmp_path / "family.json").write_text(json.dumps(content))
        try:
            assert family.members(tmp_path) == [tmp_path / "seed0"], what
        except TrainingError as error:
            assert "family.json is damaged: " in str(error) and "--resume to write it again" in str(error), what
            assert what != "nothing"


def test_a_checkpoint_cut_short(copy: Path, store: Store) -> None:
    """It never was a file of another format; the best network is named while it is whole."""
    latest, best = copy / "latest.safetensors", copy / "best.safetensors"
    (copy / "result.json").unlink()
    latest.write_bytes(latest.read_bytes()[:-9])
    remedy = r" Restore latest\.safetensors from a copy, or train again with --overwrite\.$"
    for whole in (True, False):
        named = rf" {re.escape(str(best))} is whole: .* for `alexnet predict` and `evaluate`\." if whole else ""
        message = rf"latest\.safetensors is damaged \([^)]*\(?[^)]*\)?\)\.{named}{remedy}"
        with pytest.raises(CheckpointError, match=message):
            train(recipe(), store, copy, resume=True)
        with pytest.raises(CheckpointError, match=message):
            native.load(copy)
        best.write_bytes(best.read_bytes()[:-9])


def test_a_lost_configuration(copy: Path, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    """With the recipe on the command line or without it."""
    (copy / "config.json").unlink()
    message = "has the latest.safetensors of a run, but its config.json, which says what the run does, is missing: restore it"
    with pytest.raises(TrainingError, match=message):
        train(recipe(), store, copy, resume=True)
    with pytest.raises(SystemExit, match="2"):
        main(["train", "--resume", "--out", str(copy)])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("added", "cut"), [(b'{"kind": "tr', True), (b"{bad\n", True), (b"", False)])
def test_a_last_line_that_is_left_out(
    copy: Path, store: Store, capsys: pytest.CaptureFixture[str], added: bytes, cut: bool
) -> None:
    (copy / "log.jsonl").write_bytes((copy / "log.jsonl").read_bytes() + added)
    train(recipe(epochs=3), store, copy, resume=True)
    said = capsys.readouterr().err
    assert said.count(f"The last line of {copy / 'log.jsonl'} is cut off, as in a run that was killed") == cut
    assert read_log(copy)


def test_a_folder_that_cannot_be_made(store: Store) -> None:
    with pytest.raises(TrainingError, match=r"^/proc/x cannot be created \(.*\): choose another --out\.$"):
        train(recipe(), store, Path("/proc/x"))


# --- a full disk, a folder that goes away ---------------------------------------------------------


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture(scope="module")
def quiet(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One epoch with a kept checkpoint at its start: every kind of file that a run writes."""
    folder = tmp_path_factory.mktemp("quiet") / "run"
    train(recipe(epochs=1, keep="0"), store, folder)
    return folder


@pytest.mark.parametrize("number", range(1, 8))
def test_a_full_disk_at_every_file(
    quiet: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """At the n-th file: one line, no half file, and once there is space the run ends with
    the bits of a quiet one.
    """
    folder, flush, count = tmp_path / "run", os.fsync, 0

    def fill(file: int) -> None:
        nonlocal count
        count += 1
        if count == number:
            full()
        flush(file)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fill)
        if number == 7:  # environment, config, epoch-0000, best, latest, result: there is no seventh
            train(recipe(epochs=1, keep="0"), store, folder)
            assert count == 6
        else:
            with pytest.raises(AlexNetError, match="No space left on device") as raised:
                train(recipe(epochs=1, keep="0"), store, folder)
            assert "\n" not in str(raised.value)
    assert not list(folder.glob(".*tmp"))
    train(recipe(epochs=1, keep="0"), store, folder, resume=(folder / "config.json").exists())
    assert same_weights(quiet, folder) and log(quiet) == log(folder)
    assert verify_run(folder) == []


def test_a_full_disk_at_the_first_checkpoints(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The best network is written, the latest is not: there is nothing to continue from. At the
    next epoch there is.
    """
    folder, write, count, number = tmp_path / "run", native.save_file, 0, 2

    def fill(*arguments: Any) -> None:
        nonlocal count
        count += 1
        if count == number:
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
        write(*arguments)

    monkeypatch.setattr(native, "save_file", fill)
    space = r"No space left on device\. The checkpoints of this run take up to [\d,]+ MB in all; [\d,]+ MB are free\. "
    with pytest.raises(TrainingError, match=space + "No checkpoint was saved yet: free some space and start again"):
        train(recipe(epochs=2), store, folder)
    with pytest.raises(TrainingError, match="without a checkpoint to continue from, only its best.safetensors: start again"):
        train(recipe(epochs=2), store, folder)
    count, number = 0, 3
    with pytest.raises(TrainingError, match=space + "The last good checkpoint .* continue with --resume"):
        train(recipe(epochs=2), store, folder, overwrite=True)


@pytest.mark.parametrize("number", [1, 3, 8])
def test_a_full_disk_under_tensorboard(
    quiet: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    write, count = board.RecordWriter.write, 0

    def fill(self: Any, data: bytes) -> None:
        nonlocal count
        count += 1
        if count == number:
            full()
        write(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(board.RecordWriter, "write", fill)
        with pytest.raises(
            TrainingError,
            match=r"No space left on device.*No checkpoint was saved yet: free some space and start again with --overwrite",
        ):
            train(recipe(epochs=1, keep="0"), store, tmp_path / "run")
    train(recipe(epochs=1, keep="0"), store, tmp_path / "run", resume=True)
    assert same_weights(quiet, tmp_path / "run") and log(quiet) == log(tmp_path / "run")


@pytest.mark.parametrize("limit", [40, 400, 1500, 40_000])
def test_files_that_may_not_grow(store: Store, tmp_path: Path, limit: int) -> None:
    """The system itself refuses, wherever that is: one line."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        with pytest.raises(AlexNetError, match=r"File too large") as raised:
            train(recipe(), store, tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("after", [2, 6, 8])
def test_a_run_folder_that_goes_away(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """In the middle of an epoch and at its end: one line that says so."""
    folder, step, count = tmp_path / "run", SGD.step, 0

    def vanish(self: Any, *arguments: float) -> None:
        nonlocal count
        step(self, *arguments)
        count += 1
        if count == after:
            shutil.rmtree(folder)

    monkeypatch.setattr(SGD, "step", vanish)
    with pytest.raises(AlexNetError, match=r"run is gone: it was deleted or moved while a run was using it"):
        train(recipe(), store, folder)


@pytest.mark.parametrize("gone", [False, True])
def test_a_store_that_shrinks_or_goes_away(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: bool) -> None:
    """A mapped file that is cut would kill the process. The last checkpoint stays, and with the
    store back the run ends.
    """
    other = Store(shutil.copytree(store.folder, tmp_path / "store"))
    records, folder, step, count = other.folder / "train.records", tmp_path / "run", SGD.step, 0

    def spoil(self: Any, *arguments: float) -> None:
        nonlocal count
        step(self, *arguments)
        count += 1
        if count == 8:
            records.unlink()
            if not gone:
                records.write_bytes(b"short")

    with monkeypatch.context() as patch:
        patch.setattr(SGD, "step", spoil)
        with pytest.raises(StoreError, match=r"train.records (is gone|has shrunk)"):
            train(recipe(), other, folder)
    assert native.load(folder).state["epoch"] == 1
    shutil.copyfile(store.folder / "train.records", records)
    train(recipe(), Store(other.folder), folder, resume=True)
    quiet = tmp_path / "quiet"
    train(recipe(), store, quiet)
    assert same_weights(quiet, folder)


def test_memory_that_is_not_there(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_memory(*_: object) -> None:
        raise RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"
        )

    monkeypatch.setattr(SGD, "step", full_memory)
    with pytest.raises(TrainingError, match=r"batch_size \(=10\) and the network do not fit .*--batch-size 5 or a smaller"):
        train(recipe(), store, tmp_path / "run")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("laptop", "STORE", "run"), r"recipe \(='laptop'\) must be a Recipe, such as"),
        (("RECIPE", "store", "run"), r"store \(='store'\) must be a Store, such as"),
        (("RECIPE", "STORE", None), r"folder \(=None\) must be a path"),
        (("RECIPE", "STORE", 3), r"folder \(=3\) must be a path"),
    ],
)
def test_arguments_of_other_types(store: Store, arguments: tuple[Any, ...], message: str) -> None:
    named = {"RECIPE": recipe(), "STORE": store}
    with pytest.raises(RecipeError, match=message):
        train(*(named.get(one, one) for one in arguments))
