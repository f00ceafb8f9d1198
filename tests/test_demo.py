"""The demo, on a small stand-in for Fashion-MNIST in the same four files."""

import contextlib
import gzip
import hashlib
import json
import os
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from alexnet import demo
from alexnet.cli import main
from alexnet.errors import SourceError


def idx(array: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]") -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes() + array.tobytes()


@pytest.fixture
def debian(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ten classes, told apart by where a bright square is, as files in Debian's
    folder; checksums to match.
    """
    rng = np.random.default_rng(0)
    folder = tmp_path / "debian"
    folder.mkdir()
    checksums = {}
    for split, count in (("train", 200), ("t10k", 40)):
        labels = np.arange(count, dtype=np.uint8) % 10
        pictures = rng.integers(0, 60, (count, 28, 28), dtype=np.uint8)
        for picture, label in zip(pictures, labels, strict=True):
            row, column = divmod(int(label), 4)
            picture[row * 9 : row * 9 + 9, column * 7 : column * 7 + 7] = 230
        for kind, array in (("images-idx3", pictures), ("labels-idx1", labels)):
            name = f"{split}-{kind}-ubyte.gz"
            (folder / name).write_bytes(gzip.compress(idx(array)))
            checksums[name] = hashlib.sha256(idx(array)).hexdigest()
    monkeypatch.setattr(demo, "CHECKSUMS", checksums)
    monkeypatch.setattr(demo, "DEBIAN_FOLDER", folder)
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path / "cache" / "alexnet"))
    return folder


def test_demo(debian: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["demo", "--out", str(tmp_path / "out"), "--epochs", "1"])
    output = capsys.readouterr()
    result = json.loads(output.out.splitlines()[-1])
    assert set(result) == {"dataset", "images", "top1_error", "seconds", "report"}
    assert result["images"] == 40
    assert 0 <= result["top1_error"] <= 1
    assert result["report"] == str(tmp_path / "out" / "report.html")
    assert "T-shirt" in Path(result["report"]).read_text()
    assert re.match(r"The demo gets Fashion-MNIST .*: about \d+ minutes? on this machine", output.err)
    said = output.err.splitlines()
    assert said[-1] == f"Next: alexnet evaluate {tmp_path}/out/run --data {tmp_path}/out/store --views 10"
    commands = [line for line in said if line.startswith("  alexnet ")]
    assert len(commands) == 4 and shlex.split(commands[-1])[1:3] == ["train", "modern"]
    for words in (shlex.split(said[-1])[2:], *(shlex.split(line)[1:] for line in commands[:-1])):  # they work
        with contextlib.suppress(SystemExit):  # the doctor found a cause
            main(words)
    said = capsys.readouterr().err.splitlines()
    assert not [line for line in said if line.startswith("alexnet: ") and "warning" not in line]
    assert sum(line.startswith("Next: ") for line in said) == 4
    main(["demo", "--out", str(tmp_path / "out"), "--epochs", "1"])  # again: nothing is trained twice
    again = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert again["top1_error"] == result["top1_error"] and again["seconds"] == result["seconds"]


def test_a_damaged_download_is_obtained_anew(debian: Path, tmp_path: Path) -> None:
    folder = demo.fashion_mnist()
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(b"damaged")
    assert demo._whole(demo.fashion_mnist())


def test_nothing_to_be_had(debian: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No package, no apt-get, no network: each way's failure is told."""
    for file in debian.iterdir():
        file.unlink()
    monkeypatch.setattr(demo, "CANONICAL", "http://127.0.0.1:9/")
    monkeypatch.setenv("PATH", os.devnull)
    with pytest.raises(SourceError) as error:
        demo.fashion_mnist()
    for part in ("not installed", "could not be fetched", "did not answer", "Put its four .gz files into"):
        assert part in str(error.value)


def test_debian_archive(debian: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """apt-get download and dpkg -x as two small programs that do what the
    real ones do to these files.
    """
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "apt-get").write_text('#!/bin/sh\n[ "$1 $2" = "download dataset-fashion-mnist" ] && : > package_1_all.deb\n')
    (tools / "dpkg").write_text(
        f'#!/bin/sh\nmkdir -p usr/share/datasets\ncp -r "{tmp_path}/archive" usr/share/datasets/fashion-mnist\n'
    )
    for tool in tools.iterdir():
        tool.chmod(0o755)
    debian.rename(tmp_path / "archive")
    monkeypatch.setattr(demo, "DEBIAN_FOLDER", Path("usr/share/datasets/fashion-mnist"))
    monkeypatch.setattr(demo, "CANONICAL", "http://127.0.0.1:9/")
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    if (Path("/") / demo.DEBIAN_FOLDER).exists():
        pytest.skip("the real package is installed")
    assert demo._whole(demo.fashion_mnist())
