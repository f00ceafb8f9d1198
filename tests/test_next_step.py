"""Each verb ends with the next command, on standard error; who follows them gets from
photos to an exported network.
"""

import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from alexnet.cli import main
from alexnet.cli.next_step import free_folder, next_step
from alexnet.data.store import Store
from alexnet.inspect import drawing
from conftest import draw, write_photos

FAST = ["--width", "0.125", "--compile", "off", "--device", "cpu", "--epochs", "2", "--batch-size", "10"]
Next = Callable[..., list[str]]


@pytest.fixture
def following(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Next:
    """`following(*words)` runs a verb in an empty folder and gives the words of the
    command that it ends with.
    """
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> list[str]:
        try:
            main(list(words))
        except SystemExit as stop:
            assert stop.code == 1
        said = capsys.readouterr()
        last = said.err.splitlines()[-1]
        assert last.startswith("Next: alexnet ") and said.err.count("Next: ") == 1 and "Next: " not in said.out
        return shlex.split(last)[2:]

    return run


def test_from_photos_to_an_export(following: Next) -> None:
    """With a space in every name, and each command run as it was given; only training is
    shortened.
    """
    write_photos(Path("my photos"), 10)
    draw((200, 50, 40), 77).save("photo.jpg")
    words = following("prepare", "my photos", "a store", "--size", "72")
    assert words == ["train", "laptop", "--data", "a store", "--out", "run"]
    words = [*words[:-1], "a run", *FAST]
    assert following("doctor", *words[1:-12], *FAST)[:2] == ["train", "laptop"]
    words = following(*words)
    assert words == ["evaluate", "a run", "--data", "a store"]
    words = following(*words)
    assert words == ["report", "a run", "--data", "a store"]
    words = following(*words)
    assert words == ["predict", "a run", "photo.jpg"]
    words = following(*words)
    assert words == ["predict", "a run", "photo.jpg", "--sheet", "sheet.png"]
    words = following(*words)
    assert words == ["export", "a run", "--to", "onnx"]
    words = following(*words)
    assert words == ["predict", "a run/alexnet.onnx", "photo.jpg"]
    assert following(*words, "--sheet", "again.png") == ["evaluate", "a run/alexnet.onnx", "--data", "store"]
    words = following("evaluate", "a run/alexnet.onnx", "--data", "a store")
    assert words == ["predict", "a run/alexnet.onnx", "photo.jpg"]
    assert following("verify", "a store")[:2] == ["train", "laptop"]
    assert following("verify", "a run") == ["predict", "a run", "photo.jpg"]
    assert following("verify", "a run", "--data", "a store") == ["report", "a run", "--data", "a store"]
    words = following("filters", "a run")
    assert words == ["report", "a run", "--data", str(Path("a store").absolute())]
    assert following("filters", "a run/latest.safetensors") == ["predict", "a run/latest.safetensors", "photo.jpg"]
    words = following("weights", "verify", "a run")
    assert words == ["predict", "a run/latest.safetensors", "photo.jpg"]


def test_of_many_networks(following: Next, store: Store) -> None:
    data = ["--data", str(store.folder)]
    words = following("train", "laptop", *data, "--out", "family", "--seeds", "0..1", *FAST)
    assert words == ["evaluate", "family", *data, "--average"]
    assert following(*words) == ["report", "family/seed0", *data]
    ablated = [
        "laptop",
        "--width",
        "0.125",
        "--epochs",
        "2",
        "--batch-size",
        "10",
        "--device",
        "cpu",
        "--compile",
        "off",
        *data,
    ]
    words = following("ablate", "ten-views", *ablated, "--seeds", "1")
    assert words == ["ablate", "tanh", *ablated, "--seeds", "1", "--out", "ablations"]
    assert following(*words)[:2] == ["ablate", "no-lrn"]  # what is made already is not asked for again


def test_looking_inside(following: Next, shared: Path) -> None:
    words = following("summary", "caffe", "--width", "0.5", "--format", "json")
    assert words == ["summary", "caffe", "--width", "0.5", "--explain"]
    words = following(*words)
    assert words == ["draw", "caffe", "--width", "0.5", "-o", "alexnet.svg"]
    words = following(*words)
    assert words == ["draw", "caffe", "--width", "0.5", "--layer", "conv1", "-o", "conv1.svg"]
    for layer in drawing.layer_names("caffe")[1:]:
        words = following(*words)
        assert words[-4:] == ["--layer", layer, "-o", f"{layer}.svg"]
    assert following(*words) == ["summary", "caffe", "--width", "0.5", "--explain"]
    assert following("weights", "list")[:2] == ["weights", "pull"]
    partial = str(shared / "weights" / "imagenet-conv1-5.npz")
    words = following("weights", "verify", partial)
    assert words == ["filters", partial, "-o", "filters.png"]
    assert following(*words)[:2] == ["weights", "verify"]
    tiny = shared / "weights" / "tiny"
    imported = ["weights", "import", str(tiny / "alexnet-v1.caffemodel"), "--mean", str(tiny / "imagenet-mean.binaryproto")]
    assert following(*imported) == ["weights", "list"]  # as these do not look trained
    words = following("weights", "verify", str(tiny / "imagenet-mean.binaryproto"))
    assert words[:2] == ["weights", "import"] and words[-2:] == ["--mean", str(tiny / "imagenet-mean.binaryproto")]


def test_quoting(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    next_step("predict", Path("my run"), "it's $HOME.jpg", "\x1b[2J")
    assert capsys.readouterr().err == "Next: alexnet predict 'my run' 'it'\"'\"'s $HOME.jpg' '\\x1b[2J'\n"
    monkeypatch.setattr(os, "name", "nt")
    next_step("predict", "my run", "it's.jpg")
    assert capsys.readouterr().err == 'Next: alexnet predict "my run" it\'s.jpg\n'


def test_results_come_first(capfd: pytest.CaptureFixture[str]) -> None:
    """Where both streams go to one file: what waits in standard output's buffer is written
    before.
    """
    print("result", end="", file=sys.stdout)
    next_step("demo")
    assert capfd.readouterr().err == "Next: alexnet demo\n"


def test_free_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert free_folder("run") == "run"
    Path("run").mkdir()
    Path("run2").mkdir()
    assert free_folder("run") == "run3"
