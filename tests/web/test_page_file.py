"""The page as one file: what it holds is read back, and names in it stay text."""

import base64
import gzip
import json
import re
from dataclasses import replace
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


def test_what_is_refused(photo: Path, tmp_path: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In one line, and a page that was there stays."""
    (tmp_path / "text.jpg").write_text("hello")
    (tmp_path / "empty").mkdir()
    out = tmp_path / "page.html"
    out.write_text("earlier")
    for words, reason in (
        ([str(tmp_path / "none.jpg")], "none.jpg cannot be read: No such file"),
        ([str(tmp_path / "text.jpg")], "text.jpg cannot be read: not an image in a known format"),
        ([str(tmp_path)], "is a folder, and a page shows one picture: name one of the pictures in it."),
        ([str(photo), "--max-pixels", "100"], "red.png cannot be read: 90 x 61 are more than 100 pixels"),
        ([str(photo), "--run", str(tmp_path / "empty")], "has no latest.safetensors: it is not a run, or training has not"),
        ([str(photo), "--run", "nothing"], "nothing does not exist: name a run's folder"),
        ([str(photo), "-o", "page.pdf"], "out (=page.pdf) must end in .html."),
        ([str(photo), "--data", str(tmp_path)], "manifest"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(
                [
                    "explain",
                    *words,
                    *([] if "-o" in words else ["-o", str(out)]),
                    *([] if "--run" in words else ["--run", str(run)]),
                ]
            )
        said = capsys.readouterr().err.splitlines()
        assert stop.value.code == 2 and len(said) == 1 and reason in said[0], said
    assert out.read_text() == "earlier"


def test_an_animated_picture(tmp_path: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frames = [draw(colour, 1) for colour in ((200, 50, 40), (40, 60, 200))]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    main(["explain", str(tmp_path / "moving.gif"), "--run", str(run), "-o", str(tmp_path / "page.html")])
    said = capsys.readouterr().err.splitlines()
    assert "moving.gif holds 2 pictures: the first one is shown." in said[0]
    assert said[-1] == f"Next: alexnet serve {run}"


def test_the_network_has_no_say_in_the_page(photo: Path) -> None:
    """Class names are data, in any script and direction."""
    shown = fresh("paper")
    names = ["</script><img src=x onerror=alert(1)>", "קו‮לם", "金鱼", "'; alert(1); '", "a\u2028b"]
    hostile = replace(shown, classes=tuple(names * 200), name="<!--<script>", source="run")
    scene = Scene.of(hostile, photo.read_bytes(), "a.png")
    page = export.page(scene).decode()
    assert page.count("<script") == page.count("</script>") == 5 and "<img" not in page and "<!--" not in page
    description, _ = read(gzip.decompress(base64.b64decode(element(page, "scene"))))
    assert {one["name"] for one in description["classes"]["top"]} <= set(names)
    assert json.loads(element(page, "page"))["networks"][0]["label"] == "<!--<script> (paper)"


def test_nothing_else_is_loaded(photo: Path) -> None:
    """Code, style and words are in the file, and its policy lets nothing else run."""
    page = export.page(Scene.of(fresh("paper"), photo.read_bytes())).decode()
    policy = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)[0]
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy and "*" not in policy
    inline = re.findall(r"<script type=\"(?:importmap|module)\">(.*?)</script>", page, re.DOTALL)
    assert len(inline) == 2 and all(export.script_hash(text) in policy for text in inline)
    assert export.script_hash(re.findall(r"<style>(.*?)</style>", page, re.DOTALL)[0]) in policy
    imports = json.loads(inline[0])["imports"]
    for name, code in export.modules().items():
        assert base64.b64decode(imports[name].removeprefix("data:text/javascript;base64,")).decode() == code
    markup = re.sub(r"<(script|style).*?</\1>", "", page, flags=re.DOTALL)
    assert not re.findall(r"(?:src|href)=\"(?!data:)", markup) and not re.findall(r"\s(?:on\w+|style)=", markup)
    assert "{{" not in page.partition('id="scene"')[0].replace('id="words"', "")
