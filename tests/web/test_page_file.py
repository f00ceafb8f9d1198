"""The page as one file: what it holds is read back, and names in it stay text."""

import base64
import gzip
import json
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from alexnet.cli import main
from alexnet.web import export
from alexnet.web.scene import Scene
from alexnet.web.shown import fresh
from conftest import draw


def element(page: str, name: str) -> str:
    return re.findall(rf'<script type="[^"]+" id="{name}">(.*?)</script>', page, re.DOTALL)[0]


def read(scene: bytes) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """A scene's bytes as its description and arrays: the page's reader once more."""
    assert scene[:8] == b"AXSCENE1"
    (length,) = struct.unpack("<I", scene[8:12])
    description = json.loads(scene[12 : 12 + length])
    start = -(-(12 + length) // 16) * 16
    kinds = {"f4": "<f4", "u1": "u1", "i4": "<i4"}
    arrays = {
        name: np.frombuffer(scene, kinds[one["type"]], int(np.prod(one["shape"])), start + one["offset"]).reshape(one["shape"])
        for name, one in description["arrays"].items()
    }
    return description, arrays


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "red.png"
    draw((200, 50, 40), 77, (90, 61)).save(path)
    return path


def test_the_command(photo: Path, tmp_path: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "pages" / "page.html"
    main(["explain", str(photo), "--run", str(run), "-o", str(out), "--lang", "zh"])
    assert capsys.readouterr().out == f"{out}\n"
    page = out.read_text()
    about = json.loads(element(page, "page"))
    assert about["mode"] == "file" and about["lang"] == "zh"
    description, arrays = read(gzip.decompress(base64.b64decode(element(page, "scene"))))
    assert description["picture"]["name"] == "red.png" and description["network"]["name"] == str(run)
    assert arrays["conv1"].shape == (12, 15, 15)
    assert "http:" not in page.replace("http://www.w3.org", "") and "https:" not in page


def test_names_are_data(photo: Path) -> None:
    """No text of a file can end the script that holds it."""
    shown = fresh("paper")
    evil = "</script><img src=x onerror=alert(1)><!--"
    scene = Scene.of(shown, photo.read_bytes(), evil)
    page = export.page(scene).decode()
    assert "<img" not in page and page.count("<!--") == 0
    assert json.loads(export.json_text({evil: "\u2028&amp;"})) == {evil: "\u2028&amp;"}
