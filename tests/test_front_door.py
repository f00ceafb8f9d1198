"""`import alexnet`: what a user's own program sees, also by way of a type checker."""

import io
import json
import pydoc
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import alexnet
from alexnet.cli import main
from alexnet.data.image import decode
from alexnet.data.store import Store
from alexnet.errors import CheckpointError, SourceError, UsageError, VariantError
from alexnet.model import AlexNet
from conftest import draw


@pytest.fixture(scope="module")
def run(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("front") / "run"
    words = ["train", "laptop", "--data", str(store.folder), "--out", str(folder), "--epochs", "6", "--batch-size", "10"]
    main([*words, "--width", "0.125", "--compile", "off", "--device", "cpu"])
    return folder


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "red.png"
    draw((200, 50, 40), 77, (90, 61)).save(path)
    return path


def test_all_of_it_is_shown() -> None:
    assert [name for name in dir(alexnet) if not name.startswith("_")] == sorted(set(alexnet.__all__) - {"__version__"})
    assert "__version__" in dir(alexnet)
    text = pydoc.render_doc(alexnet, renderer=pydoc.plaintext)
    assert (
        "class AlexNet(torch.nn" in text and "load(path" in text and "predict(self, picture" in text and "class Variant" in text
    )


def test_importing_it_loads_no_pytorch() -> None:
    code = "import sys, alexnet; dir(alexnet), alexnet.load; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_a_fresh_network() -> None:
    net = alexnet.AlexNet("paper", num_classes=10, width=0.5)
    assert isinstance(net, AlexNet) and net.conv1.out_channels == 48
    assert net(torch.zeros(1, 3, 224, 224)).shape == (1, 10)
    assert net.variant == alexnet.AlexNet(net.variant).variant
    with pytest.raises(VariantError, match=r"unknown field 'num_clases' of a variant: did you mean 'num_classes'"):
        alexnet.AlexNet("paper", num_clases=10)


def test_predict_is_what_the_command_line_says(run: Path, photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["predict", str(run), str(photo), "--format", "jsonl", "--views", "10"])
    expected = json.loads(capsys.readouterr().out)["top"]
    found = alexnet.load(run).predict(photo, views=10)
    assert [name for name, _ in found] == [one["class"] for one in expected]
    # Another engine may have answered there, which differs by float32's rounding
    # (tests/test_engines.py).
    assert [share for _, share in found] == pytest.approx([one["probability"] for one in expected], abs=1e-5)
    assert found[0][0] == "red" and sum(share for _, share in found) == pytest.approx(1)


def test_a_picture_from_anywhere(run: Path, photo: Path, tmp_path: Path) -> None:
    """A path, bytes, Pillow's and NumPy's pictures of the same pixels have
    the same answer to the bit.
    """
    network = alexnet.load(str(run / "latest.safetensors"))
    assert network.classes == ("blue", "green", "red") and network.path == run / "latest.safetensors"
    expected = network.predict(str(photo))
    image = Image.open(photo)
    pixels = np.asarray(image)
    turned = image.transpose(Image.Transpose.ROTATE_90)
    turned.getexif()[0x0112] = 6  # to be turned back by 90 degrees to the right
    opaque = image.convert("RGBA")
    for picture in (photo, photo.read_bytes(), image, pixels, pixels[:, ::-1][:, ::-1], turned, opaque, np.asarray(opaque)):
        assert network.predict(picture) == expected
    grey = image.convert("L")
    grey.save(tmp_path / "grey.png")
    for picture in (np.asarray(grey), np.asarray(grey)[..., None], grey):
        assert network.predict(picture) == network.predict(tmp_path / "grey.png")
    image.convert("CMYK").save(tmp_path / "print.tiff")
    assert network.predict(image.convert("CMYK")) == network.predict(tmp_path / "print.tiff")


def test_stages(run: Path, photo: Path, store: Store) -> None:
    """They are the network's for the centre crop, and NumPy takes them as they are."""
    network = alexnet.load(run)
    assert repr(network) == f"<alexnet.Loaded '{run / 'latest.safetensors'}': paper, {len(network.classes)} classes>"
    assert network.model is not None
    stages = network.stages(photo)
    assert list(stages) == [layer.name for layer in network.model.variant.layers()]
    assert stages["conv1"].numpy().shape == (1, *network.model.variant.layers()[0].output)
    logits = stages["fc8"].softmax(1)[0].numpy()
    assert dict(network.predict(photo)) == pytest.approx(dict(zip(network.classes, logits.tolist(), strict=True)), abs=1e-6)
    stored = Image.fromarray(decode(store.train.records[0]))  # a picture of the store's size is not shrunk again
    assert network.stages(stored)["pool5"].isfinite().all()


def test_exported(run: Path, photo: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    main(["export", str(run), "--to", "onnx", "-o", str(tmp_path / "net.onnx")])
    network = alexnet.load(tmp_path / "net.onnx")
    assert network.predict(photo)[0][0] == "red" and network.model is None
    with pytest.raises(CheckpointError, match="load the run that it was exported from"):
        network.stages(photo)


@pytest.mark.parametrize(
    ("picture", "reason"),
    [
        ("none.jpg", "none.jpg cannot be read: No such file"),
        (".", "Is a directory"),
        ("\0", "null"),
        (b"", "the picture cannot be read: empty file"),
        (b"GIF89a", "cannot be read"),
        (None, "a picture of type NoneType cannot be read: pass a path"),
        (3, "of type int"),
        (np.zeros((4, 4, 3), np.float32), r"shape \(4, 4, 3\) and type float32"),
        (np.zeros((3, 4, 5), np.uint8), r"shape \(3, 4, 5\)"),
        (np.zeros((0, 4, 3), np.uint8), r"shape \(0, 4, 3\)"),
        (Image.new("F", (4, 4)), "mode F"),
    ],
)
def test_a_picture_that_is_none(run: Path, picture: Any, reason: str) -> None:
    network = alexnet.load(run)
    for ask in (network.predict, network.stages):
        with pytest.raises(SourceError, match=reason):
            ask(picture)


def test_wrong_questions(run: Path, photo: Path, tmp_path: Path) -> None:
    network = alexnet.load(run)
    for top in (0, -1, 1.5, "3", True):
        with pytest.raises(UsageError, match="top"):
            network.predict(photo, top=top)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"views \(=5\) must be 1 or 10"):
        network.predict(photo, views=5)  # type: ignore[arg-type]
    assert network.predict(photo, top=99) == network.predict(photo)
    for path, reason in ((tmp_path / "none", "does not exist"), (tmp_path, "has no latest"), (None, r"path \(=None\)")):
        with pytest.raises(CheckpointError, match=reason):
            alexnet.load(path)  # type: ignore[arg-type]
    truncated = Image.open(io.BytesIO(photo.read_bytes()[:-600]))
    with pytest.raises(SourceError, match="cannot be read"):
        network.predict(truncated)


@pytest.mark.parametrize("device", ["nope", "cuda:99", None, 3.5])
def test_devices_that_are_not_there(run: Path, device: Any) -> None:
    with pytest.raises(CheckpointError, match=r"^device \(=.*\) cannot be used here: .*Use cpu or cuda\.$"):
        alexnet.load(run, device)
