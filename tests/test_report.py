"""A run's page: one file that asks for nothing, with honest numbers and any names."""

import base64
import csv
import io
import json
import re
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from alexnet import AlexNet, engines, report
from alexnet.data.prepare import prepare
from alexnet.data.preprocessing import Preprocessing
from alexnet.data.store import Store
from alexnet.errors import OutputError
from alexnet.evaluate import Evaluation, evaluate_classifier
from alexnet.examples import Example
from alexnet.train.recipes import get_recipe
from alexnet.trained import Trained
from alexnet.variants import get_variant
from conftest import draw

NAMES = ("<script>alert(1)", "大熊猫", "قطة كبيرة", "$x^$ & co", "l" * 150, "tabby")
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Checks that tags nest, and collects what they point to and the text outside of the style."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.links: list[str] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open, self.open
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.words.append(data)


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Six classes with odd names, five pictures each, two of them held out."""
    folder = tmp_path_factory.mktemp("odd")
    for number, name in enumerate(NAMES):
        for index in range(5):
            place = folder / "photos" / ("val" if index < 2 else "train") / name
            place.mkdir(parents=True, exist_ok=True)
            draw((40 * number, 50, 200 - 30 * number), index + 10 * number).save(place / f"<b>{index}.png")
    return prepare([folder / "photos"], folder / "store", size=72)


def trained(store: Store, variant: str = "paper") -> Trained:
    chosen = get_variant(variant, width=1 / 16, input_size=64, num_classes=len(store.classes))
    model = AlexNet(chosen, torch.Generator().manual_seed(0)).eval()
    with torch.no_grad():
        model.fc8.weight.mul_(1000)  # so that classes differ
    state = {"epoch": 3, "seconds": 75.0}
    return Trained(model, store.classes, Preprocessing.of(chosen, store), {}, state)


def run_folder(folder: Path, epochs: int = 60, **changes: object) -> Path:
    folder.mkdir()
    asked, place = get_recipe("laptop", width=1 / 16, **changes), {"folder": "store", "fingerprint": "0"}
    (folder / "config.json").write_text(json.dumps({"recipe": asdict(asked), "store": place, "compiled": False}))
    (folder / "environment.json").write_text(json.dumps({"torch": "<2.11>", "threads": 2}))
    lines = []
    for epoch in range(1, epochs + 1):
        lines.append(
            {
                "kind": "train",
                "step": 10 * epoch,
                "loss": 2 / epoch,
                "top1_error": 0.9 / epoch,
                "lr": 0.01,
                "images_per_second": 9.0,
            }
        )
        lines.append({"kind": "val", "step": 10 * epoch, "epoch": epoch, "top1_error": 0.8 / epoch, "top5_error": 0.0})
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def write(store: Store, folder: Path, run: Path, **state: object) -> tuple[Page, str, Evaluation]:
    net = trained(store)
    net.state.update(state)
    result = evaluate_classifier(engines.of(net), store)
    path = report.write(folder / "page.html", "AlexNet on <odd>", net, store, result, run)
    assert [entry.name for entry in folder.iterdir() if entry.is_file()] == ["page.html"]
    text = path.read_text(encoding="utf-8")
    return Page(text), text, result


@pytest.fixture(scope="module")
def page(odd: Store, tmp_path_factory: pytest.TempPathFactory) -> tuple[Page, str, Evaluation]:
    folder = tmp_path_factory.mktemp("report")
    return write(odd, folder, run_folder(folder / "run"))


def test_asks_for_nothing(page: tuple[Page, str, Evaluation]) -> None:
    """Every address is a data: URI, and the page forbids all others."""
    parsed, text, _ = page
    assert len(parsed.links) > 15 and all(link.startswith("data:") for link in parsed.links)
    assert not re.search(r"https?://|//[a-z]+\.|url\(|@import|<script|<link|<iframe", text)
    metas = [attributes for tag, attributes in parsed.tags if tag == "meta"]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in metas
    assert any("default-src 'none'" in (one.get("content") or "") for one in metas)
    assert len(text) < 1_000_000


def test_pictures_are_whole(page: tuple[Page, str, Evaluation]) -> None:
    parsed, _, _ = page
    images = [attributes for tag, attributes in parsed.tags if tag == "img"]
    assert all(one["alt"] for one in images)
    for one in images:
        Image.open(io.BytesIO(base64.b64decode((one["src"] or "").partition(",")[2]))).load()


def test_numbers(page: tuple[Page, str, Evaluation]) -> None:
    """As SciPy says for the counts of an evaluation made apart."""
    binomtest = pytest.importorskip("scipy.stats").binomtest
    parsed, _, result = page
    assert result.images == 12
    bounds = binomtest(result.wrong, 12).proportion_ci(method="wilson")
    assert f"Top-1 error {result.wrong / 12:.2%}" in parsed.text
    assert f"95% interval {bounds.low:.2%} to {bounds.high:.2%}" in parsed.text
    assert f"{result.wrong} of 12 test pictures were classified wrongly. Top-5 error: {result.top5_error:.2%}." in parsed.text
    assert "chance 83.33%" in parsed.text  # 2 of each of 6 classes
    assert "Only 12 test pictures: the error is a rough estimate." in parsed.text
    for number in range(6):
        bounds = binomtest(int(2 - result.confusion[number, number]), 2).proportion_ci(method="wilson")
        assert f"{bounds.low:.1%} to {bounds.high:.1%}" in parsed.text


def test_settings(page: tuple[Page, str, Evaluation]) -> None:
    """What differs from the recipe first; the rest is folded."""
    parsed, _, _ = page
    shown, _, folded = parsed.text.partition("All settings")
    assert "Closest recipe: laptop . This run differs in:" in shown and "width 0.5 0.0625" in shown and "momentum" not in shown
    assert "momentum 0.9" in folded and "alexnet train laptop --width 0.0625 --data store" in folded and "<2.11>" in folded


def test_more_epochs_later(odd: Store, tmp_path: Path, page: tuple[Page, str, Evaluation]) -> None:
    run = run_folder(tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    config["extended"] = [{"epochs": 1, "at": 1.0}, {"epochs": 40, "at": 12.5}]
    (run / "config.json").write_text(json.dumps(config))
    (tmp_path / "page").mkdir()
    planned = f"for 1 epoch until epoch 1, for 40 epochs until epoch 12.5, and for {config['recipe']['epochs']} from there on"
    assert f"given more epochs later: it was planned {planned}" in write(odd, tmp_path / "page", run)[1]
    assert "given more epochs" not in page[1]


@pytest.mark.parametrize(
    ("places", "said", "table"),
    [
        ([{"torch": "<2.11>", "lanes": 2}], "", "what value torch <2.11> lanes 2"),
        ([{"torch": "3", "ranks": 2, "parallel": "data"}], "2 processes (--parallel data)", "ranks 2 parallel data"),
        (
            [
                {"threads": 2, "ranks": 4, "parallel": "towers"},
                {"threads": 1, "ranks": 4, "parallel": "towers"},
                {"threads": 1, "ranks": 2, "parallel": "hybrid"},
                {"threads": 1, "lanes": 2, "gpu": "H<100>"},
            ],
            "4 processes (--parallel towers), then by 2 processes (--parallel hybrid), then by 1 process",
            "what first then then then threads 2 1 1 1 ranks 4 4 2 1 parallel towers towers hybrid none lanes 1 1 1 2 "
            "gpu none none none H<100>",
        ),
    ],
)
def test_which_processes_trained_it(odd: Store, tmp_path: Path, places: list[Any], said: str, table: str) -> None:
    """As result.json lists them; number and scheme before all that is folded."""
    (tmp_path / "page").mkdir()
    text = write(odd, tmp_path / "page", run_folder(tmp_path / "run"), environments=places)[0].text
    shown, _, folded = text.partition("All settings")
    assert (f"Trained by {said}." in shown) == bool(said) and ("process" in shown) == bool(said)
    assert table in folded


def test_names(page: tuple[Page, str, Evaluation]) -> None:
    parsed, text, _ = page
    assert "<script>" not in text and "<odd>" not in text.replace("&lt;odd&gt;", "")
    for name in NAMES:
        assert name in parsed.text
    assert "<b>0.png" in parsed.text or "<b>1.png" in parsed.text  # a file's name


@pytest.mark.parametrize(
    ("file", "shown"),
    {
        "IMG_20261126.jpeg": "IMG_20261126.jpeg",
        "t10k-images-idx3-ubyte.gz[9441]": "t10k-image…e.gz[9441]",  # the picture's number is what counts
    }.items(),
)
def test_the_end_of_a_long_file_name_is_shown(file: str, shown: str) -> None:
    example = Example(file, np.zeros((8, 8, 3), np.uint8), 0, ((1, 0.75), (0, 0.25)), 0.25)
    card = report._card(example, ["cat", "dog"])
    assert f'title="{file}"><bdi>{shown}</bdi>' in card and "<b><bdi>cat</bdi></b>, taken for <bdi>dog</bdi>" in card


def test_mistakes_come_first(page: tuple[Page, str, Evaluation]) -> None:
    parsed, _, result = page
    verdicts = re.findall(r", (taken for|right)\b", parsed.text)
    assert verdicts == ["taken for"] * 2 * result.wrong + ["right"] * (12 - result.wrong)
    assert 0 < result.wrong < 12


def test_kinds_of_mistakes(page: tuple[Page, str, Evaluation]) -> None:
    """Each kind that there is has a heading that asks what to do about it, and its number."""
    parsed, _, result = page
    counts = re.findall(r"(\d+) of all 12 test pictures", parsed.text)
    assert sum(map(int, counts)) == result.wrong
    headings = re.findall(r"<h2>(Labelled wrongly\?|Nearly right|Mistakes)</h2>", page[1])
    assert len(headings) == len(counts) > 0


def test_counts_as_csv(page: tuple[Page, str, Evaluation]) -> None:
    parsed, _, result = page
    (link,) = [attributes["href"] for tag, attributes in parsed.tags if tag == "a"]
    rows = list(csv.reader(io.StringIO(base64.b64decode((link or "").partition(",")[2]).decode())))
    assert sorted(rows[0][1:]) == sorted(NAMES)
    assert [[int(cell) for cell in row[1:]] for row in rows[1:]] == result.confusion.tolist()


def test_a_run_that_has_logged_nothing(store: Store, tmp_path: Path) -> None:
    parsed, _, _ = write(store, tmp_path, run_folder(tmp_path / "run", epochs=0))
    assert "has no training lines yet" in parsed.text and "Top-5" not in parsed.text  # three classes


def test_nothing_is_written_on_a_full_disk(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_folder(tmp_path / "run", epochs=1)
    (tmp_path / "page.html").write_text("the page before")

    def full(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    net = trained(store)
    result = evaluate_classifier(engines.of(net), store)
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OutputError, match=r"page\.html could not be written .*No space left"):
        report.write(tmp_path / "page.html", "x", net, store, result, run)
    assert (tmp_path / "page.html").read_text() == "the page before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.html", "run"]


@pytest.mark.parametrize("k", [2, 30, 31, 1000])
def test_any_number_of_classes(k: int) -> None:
    """A table up to 30; beyond, a picture with the pairs beside it, and long lists folded."""
    rng = np.random.default_rng(0)
    confusion = 5 * np.eye(k, dtype=np.int64)
    confusion[rng.integers(0, k, 3 * k), rng.integers(0, k, 3 * k)] += 1
    confusion[0, 1] = 40
    names = tuple(f"class {number}, with words after it" for number in range(k))
    result = Evaluation(names, 1, confusion, confusion.sum(1))
    text = "\n".join([*report._confusion(result), *report._classes(result)])
    parsed = Page(text)
    assert ("class=matrix" in text) == (k <= 30) and ("<img" in text) == (k > 30)
    assert ("<details open" in text) == (k <= 20)
    pairs = parsed.text.partition("Most frequent mistakes")[2]
    assert pairs.split("of class")[1].split()[:12] == f"{names[0]} {names[1]}".split()
    assert ("counts as CSV" in parsed.text) == (k < 1000) and len(text) < 1_500_000


@pytest.mark.parametrize(
    ("changes", "dropout", "said"),
    [
        ({}, True, "on cropped, mirrored and recoloured pictures, with dropout"),
        ({"crop": False, "colour_noise": 0.0}, False, "on mirrored pictures"),
        ({"colour_noise": 0.0}, False, "on cropped and mirrored pictures"),
        ({"crop": False, "mirror": False, "colour_noise": 0.0}, True, "with dropout"),
        ({"crop": False, "mirror": False, "colour_noise": 0.0}, False, ""),
    ],
)
def test_what_makes_training_harder_is_the_recipes(changes: dict[str, object], dropout: bool, said: str) -> None:
    assert report._harder(get_recipe("small-photos", **changes), dropout) == said
