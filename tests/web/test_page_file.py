"""The page as one file: what it holds is read back, and names in it stay text."""

import base64
import gzip
import json
from pathlib import Path

import pytest
from reading import element, read

from alexnet.cli import main
from alexnet.web import export
from alexnet.web.scene import Scene
from alexnet.web.shown import fresh
from conftest import draw


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
