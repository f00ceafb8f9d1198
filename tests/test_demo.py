"""The demo, on a small stand-in for Fashion-MNIST in the same four files."""

import contextlib
import gzip
import hashlib
import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet import demo
from alexnet.cli import main
from alexnet.published.registry import FASHION_MNIST


def idx(array: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]") -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes() + array.tobytes()


@pytest.fixture(autouse=True)
def _in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten classes, told apart by where a bright square is, as files in the
    cache; checksums to match.
    """
    rng = np.random.default_rng(0)
    folder = tmp_path / "cache" / "alexnet" / "fashion-mnist"
    folder.mkdir(parents=True)
    content = {}
    for split, count in (("train", 200), ("t10k", 40)):
        labels = np.arange(count, dtype=np.uint8) % 10
        pictures = rng.integers(0, 60, (count, 28, 28), dtype=np.uint8)
        for picture, label in zip(pictures, labels, strict=True):
            row, column = divmod(int(label), 4)
            picture[row * 9 : row * 9 + 9, column * 7 : column * 7 + 7] = 230
        for kind, array in (("images-idx3", pictures), ("labels-idx1", labels)):
            content[f"{split}-{kind}-ubyte.gz"] = idx(array)
    for name, data in content.items():
        (folder / name).write_bytes(gzip.compress(data))
    files = [replace(one, unpacked_sha256=hashlib.sha256(content[one.file]).hexdigest()) for one in FASHION_MNIST.files]
    monkeypatch.setattr(demo, "FASHION_MNIST", replace(FASHION_MNIST, files=tuple(files)))
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path / "cache" / "alexnet"))


def test_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["demo", "--out", str(tmp_path / "out"), "--epochs", "1"])
    output = capsys.readouterr()
    result = json.loads(output.out.splitlines()[-1])
    assert set(result) == {"dataset", "images", "top1_error", "seconds", "report"}
    assert result["images"] == 40
    assert 0 <= result["top1_error"] <= 1
    assert result["report"] == str(tmp_path / "out" / "report.html")
    report = Path(result["report"]).read_text()
    assert "T-shirt" in report and 'href="explain.html"' in report
    assert '"source":"demo"' in (tmp_path / "out" / "explain.html").read_text()
    with Image.open(tmp_path / "out" / "picture.png") as picture:
        assert picture.size == (72, 72)
    assert re.match(r"The demo gets Fashion-MNIST .*: about \d+ minutes? on this machine", output.err)
    said = output.err.splitlines()
    assert said[-1] == f"Next: alexnet evaluate {tmp_path}/out/run --data {tmp_path}/out/store --views 10"
    commands = [line for line in said if line.startswith("  alexnet ")]
    assert len(commands) == 5 and shlex.split(commands[-1])[1:3] == ["train", "modern"]
    for words in (shlex.split(said[-1])[2:], *(shlex.split(line)[1:] for line in commands[:-1])):  # they work
        with contextlib.suppress(SystemExit):  # the doctor found a cause
            main(words)
    said = capsys.readouterr().err.splitlines()
    assert not [line for line in said if line.startswith("alexnet: ") and "warning" not in line]
    assert sum(line.startswith("Next: ") for line in said) == 5
    main(["demo", "--out", str(tmp_path / "out"), "--epochs", "1"])  # again: nothing is trained twice
    again = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert again["top1_error"] == result["top1_error"] and again["seconds"] == result["seconds"]
