"""Prediction equals evaluation, survives bad files, and keeps nothing."""

import io
import os
import shutil
import socket
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alexnet import AlexNet, engines
from alexnet.data.prepare import prepare
from alexnet.data.preprocessing import Preprocessing
from alexnet.data.store import Store
from alexnet.engines import Classifier
from alexnet.errors import SourceError, UsageError
from alexnet.evaluate import probabilities
from alexnet.predict import BATCH_SIZE, Prediction, expand, predict
from alexnet.trained import Trained
from alexnet.variants import get_variant
from conftest import deep_folder, draw, write_photos


@pytest.fixture
def classifier(store: Store) -> Classifier:
    variant = get_variant("paper", width=1 / 16, input_size=64, num_classes=3)
    model = AlexNet(variant, torch.Generator().manual_seed(0)).eval()
    with torch.no_grad():
        model.fc8.weight.mul_(1000)  # so that classes differ
    return engines.of(Trained(model, store.classes, Preprocessing.of(variant, store), {}, {}))


@pytest.mark.parametrize("views", [1, 10])
def test_as_from_the_store(classifier: Classifier, tmp_path: Path, views: int) -> None:
    """The same file through `prepare` and through `predict`: the same record, and
    so the same probabilities.
    """
    folder = write_photos(tmp_path / "photos", 3)
    own = prepare([folder], tmp_path / "store", size=72, hold_out=0.4)
    for split in own.splits.values():
        files = [str(folder / name) for name in split.files]
        found = list(predict(classifier, files, top=3, views=views))
        shares = probabilities(classifier.network, classifier.preprocessing, torch.from_numpy(np.array(split.records)), views)
        for prediction, record, row in zip(found, split.records, shares, strict=True):
            assert np.array_equal(prediction.record, record)
            named = dict(prediction.top)
            assert [named[name] for name in classifier.classes] == pytest.approx(row.tolist(), abs=1e-5)
            assert [share for _, share in prediction.top] == sorted(named.values(), reverse=True)


def test_more_than_a_batch_in_order_with_bad_files(classifier: Classifier, tmp_path: Path) -> None:
    good = tmp_path / "good.jpg"
    draw((200, 50, 40), 1).save(good)
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "cut.jpg").write_bytes(good.read_bytes()[:400])
    files = [str(tmp_path / name) for name in ("good.jpg", "empty.jpg", "text.jpg", "cut.jpg", "missing.jpg")] * BATCH_SIZE
    found = list(predict(classifier, files))
    assert [prediction.path for prediction in found] == files
    reasons = [prediction.error or "" for prediction in found[:5]]
    for reason, part in zip(reasons, ("", "empty file", "not an image", "truncated", "No such file"), strict=True):
        assert part in reason
    assert all(bool(prediction.top) != bool(prediction.error) for prediction in found)


def test_only_bad_files(classifier: Classifier) -> None:
    assert [prediction.error for prediction in predict(classifier, ["a\0b", "none"])][1] == "No such file or directory"
    assert [prediction.error for prediction in predict(classifier, ["none*.jpg"])] == ["no file matches this pattern"]


def test_the_true_class_is_the_folders(classifier: Classifier, tmp_path: Path) -> None:
    folder = write_photos(tmp_path / "photos", 1)
    found = list(predict(classifier, expand([str(folder)])))
    assert [prediction.true for prediction in found] == ["blue", "green", "red"]
    draw((1, 2, 3), 1).save(tmp_path / "alone.png")
    assert next(predict(classifier, [str(tmp_path / "alone.png")])).true is None
    twice = replace(classifier, classes=("red", "red", "green"))  # which of the two is meant, nobody can say
    assert [prediction.true for prediction in predict(twice, expand([str(folder)]))] == [None, "green", None]


def test_the_true_class_of_a_folder_in_another_spelling(classifier: Classifier, tmp_path: Path) -> None:
    """Decomposed letters, or bytes that are not UTF-8: as `prepare` names the class."""
    names = ("caf\u00e9", r"caf\xe9", "red")
    spelled = replace(classifier, classes=names)
    for folder in (os.fsencode("cafe\u0301"), b"caf\xe9"):
        try:
            os.mkdir(os.path.join(os.fsencode(tmp_path), folder))  # noqa: PTH102 - bytes
        except OSError:
            pytest.skip("this file system refuses the name")
        draw((1, 2, 3), 1).save(tmp_path / os.fsdecode(folder) / "x.png")
    assert {one.true for one in predict(spelled, expand([str(tmp_path)]))} == set(names[:2])


def test_the_largest_picture_is_set_by_max_pixels(classifier: Classifier, tmp_path: Path) -> None:
    draw((1, 2, 3), 0, (30, 20)).save(tmp_path / "a.png")
    (read,) = predict(classifier, [str(tmp_path / "a.png")], max_pixels=600)
    (refused,) = predict(classifier, [str(tmp_path / "a.png")], max_pixels=599)
    assert read.top
    assert refused.error == ("30 x 20 are more than 599 pixels: refused as a decompression bomb (--max-pixels sets the limit)")
    with pytest.raises(UsageError, match=r"max_pixels \(=0\) must be a whole number of at least 1\.$"):
        predict(classifier, ["a.png"], max_pixels=0)


def test_top_is_at_most_the_classes(classifier: Classifier, tmp_path: Path) -> None:
    draw((1, 2, 3), 1).save(tmp_path / "x.png")
    assert [len(next(predict(classifier, [str(tmp_path / "x.png")], top=top)).top) for top in (1, 2, 9)] == [1, 2, 3]


def test_expand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_photos(tmp_path / "photos", 2)
    (folder / "blue" / ".hidden.jpg").write_bytes(b"")
    (folder / "notes.txt").write_text("")
    assert len(list(expand([str(folder)]))) == 6
    assert len(list(expand([str(folder / "*" / "0.jpg")]))) == 3
    assert len(list(expand([str(folder / "**" / "*.jpg")]))) == 6
    assert len(list(expand([str(folder / "[bg]*")]))) == 4  # folders, as where the shell expands the pattern
    assert len(list(expand([str(folder / "*" / "**")]))) == 6
    assert list(expand(["none-*.jpg"])) == ["none-*.jpg"]  # is reported as missing
    (tmp_path / "odd[1].jpg").write_bytes(b"")
    assert list(expand([str(tmp_path / "odd[1].jpg")])) == [str(tmp_path / "odd[1].jpg")]  # a file, not a pattern
    monkeypatch.setattr("sys.stdin", io.StringIO("a.jpg\n\nb c.jpg\n"))
    assert list(expand(["x.jpg", "-"])) == ["x.jpg", "a.jpg", "b c.jpg"]


class Bytes:
    """A standard input of these bytes."""

    def __init__(self, data: bytes) -> None:
        self.buffer = io.BytesIO(data)


@pytest.mark.parametrize(
    ("data", "names"),
    [
        (b"a.jpg\r\n\r\nb c.jpg\r\n", ["a.jpg", "b c.jpg"]),
        (b"\xef\xbb\xbfa.jpg\nb.jpg", ["a.jpg", "b.jpg"]),
        (b"caf\xe9.jpg\ncaf\xc3\xa9.jpg\n", [os.fsdecode(b"caf\xe9.jpg"), "caf\u00e9.jpg"]),
        (b" a .jpg \n   \nline\x0bfeed\x85\n", [" a .jpg ", os.fsdecode(b"line\x0bfeed\x85")]),
        (b"", []),
    ],
    ids=["Windows", "byte order mark", "not UTF-8", "spaces", "empty"],
)
def test_lists(data: bytes, names: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A name's bytes are what they were; line ends and marks that Windows adds are no part of
    it.
    """
    monkeypatch.setattr("sys.stdin", Bytes(data))
    assert list(expand(["-"])) == names


def test_lists_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.stdin", Bytes("a.jpg\n".encode("utf-16")))
    with pytest.raises(SourceError, match="is UTF-16: save it as UTF-8"):
        list(expand(["-"]))
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(SourceError, match="standard input is closed"):
        list(expand(["-"]))
    with (tmp_path / "written only").open("w") as stream:
        monkeypatch.setattr("sys.stdin", stream)
        with pytest.raises(SourceError, match="standard input cannot be read"):
            list(expand(["-"]))


def test_what_was_named_before_an_error_is_predicted(classifier: Classifier) -> None:
    """Two and a half batches are read ahead when the list breaks off."""

    def names() -> Iterator[str]:
        yield from (f"{number}.jpg" for number in range(2 * BATCH_SIZE + 3))
        raise SourceError("the list on standard input cannot be read: broken off.")

    given: list[str] = []
    with pytest.raises(SourceError, match="broken off"):
        given.extend(one.path for one in predict(classifier, names()))  # keeps what came before
    assert given == [f"{number}.jpg" for number in range(2 * BATCH_SIZE + 3)]


@pytest.mark.parametrize("wrong", [None, 3, "cat.jpg", Path("cat.jpg"), b"cat.jpg", [None], [3], [["cat.jpg"]]], ids=repr)
def test_wrong_types(wrong: Any, classifier: Classifier) -> None:
    """A name in the place of a list would be taken letter by letter, and a number for an open
    file.
    """
    with pytest.raises(SourceError, match="^expand takes"):
        list(expand(wrong))
    with pytest.raises(SourceError, match="^predict takes"):
        list(predict(classifier, wrong))


@pytest.mark.parametrize(
    "options",
    [{"top": 0}, {"top": -1}, {"top": "5"}, {"top": 1.5}, {"top": True}, {"views": 3}, {"views": None}, {"views": True}],
)
def test_wrong_options(options: dict[str, Any], classifier: Classifier) -> None:
    (name,) = options
    with pytest.raises(UsageError, match=f"^{name} "):
        predict(classifier, ["cat.jpg"], **options)


def test_paths_of_any_kind(classifier: Classifier, tmp_path: Path) -> None:
    draw((1, 2, 3), 1).save(tmp_path / "x.png")
    path = tmp_path / "x.png"
    assert [one.path for one in predict(classifier, [path, str(path), bytes(path)])] == [str(path)] * 3
    assert list(expand([path, tmp_path])) == [str(path)] * 2


# --- folders --------------------------------------------------------------------------------------


def save(path: Path, form: str = "PNG") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    draw((200, 50, 40), 1).save(path, form)
    return path


def test_pictures_are_recognised_by_content(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever the ending; what is left out is counted; what should be a
    picture by its ending is tried.
    """
    forms = {"a.jfif": "JPEG", "b.jpe": "JPEG", "c.pgm": "PPM", "d.apng": "PNG", "e": "WEBP", "f.txt": "GIF", "g.JPG": "BMP"}
    for name, form in forms.items():
        save(tmp_path / name, form)
    (tmp_path / "h.jpg").write_text("<html>")
    (tmp_path / "i.heic").write_bytes(b"")
    (tmp_path / "notes").write_text("notes")
    (tmp_path / "film.mp4").write_bytes(b"\0\0\0\x18ftypisom")
    (tmp_path / "empty").write_bytes(b"")
    found = [Path(path).name for path in expand([tmp_path])]
    assert found == [*forms, "h.jpg", "i.heic"]
    said = capsys.readouterr().err
    assert said == f"Left out: 3 files without a picture in a known format, such as {tmp_path / 'empty'}\n"


def test_links_in_a_circle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two links that lead up: each picture once, by folder and by pattern, and an end."""
    picture = save(tmp_path / "L" / "a" / "x.png")
    (tmp_path / "L" / "a" / "up").symlink_to("..")
    (tmp_path / "L" / "up").symlink_to(".")
    (tmp_path / "L" / "a" / "again.png").symlink_to("x.png")
    for argument in (tmp_path / "L", tmp_path / "L" / "**", tmp_path / "*" / "**" / "*.png", tmp_path / "**" / "x.*"):
        assert list(expand([argument])) == [str(picture)]
        assert "already included" in capsys.readouterr().err


def test_patterns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("a.png", "one/b.png", "one/two/c.png", "one/two/d.jpg", "other/e.png"):
        save(tmp_path / place)
    monkeypatch.chdir(tmp_path)
    sep = os.sep
    for pattern, places in {
        "**": ["a.png", "one/b.png", "one/two/c.png", "one/two/d.jpg", "other/e.png"],
        "**/*.png": ["a.png", "one/b.png", "one/two/c.png", "other/e.png"],
        "**/two/*": ["one/two/c.png", "one/two/d.jpg"],
        "one/**/*.png": ["one/b.png", "one/two/c.png"],
        "o*/**/[ce].png": ["one/two/c.png", "other/e.png"],
        "*/*.png": ["one/b.png", "other/e.png"],
        "none/**/*.png": ["none/**/*.png"],
    }.items():
        assert list(expand([pattern])) == [place.replace("/", sep) for place in places], pattern


@pytest.mark.skipif(os.name == "nt", reason="pipes with a name")
def test_pipes_sockets_and_devices(classifier: Classifier, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Left out of a folder; named, they are an error. None is waited for."""
    picture = save(tmp_path / "p" / "x.png")
    os.mkfifo(tmp_path / "p" / "pipe.jpg")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "p" / "s.jpg"))
    (tmp_path / "p" / "zero.jpg").symlink_to("/dev/zero")
    assert list(expand([tmp_path / "p"])) == [str(picture)]
    assert "Left out: 3 pipes, sockets or devices, such as" in capsys.readouterr().err
    named = [str(tmp_path / "p" / name) for name in ("pipe.jpg", "s.jpg", "zero.jpg")]
    for one in predict(classifier, [*named, "/dev/null", str(tmp_path), "/dev/stdin"]):
        assert one.error and ("regular file" in one.error or "directory" in one.error)
    listening.close()


@pytest.mark.skipif(os.name == "nt", reason="would fill the disk")
def test_a_file_of_many_gigabytes_is_not_read(classifier: Classifier, tmp_path: Path) -> None:
    """It is looked at first. The file has no blocks on the disk, but would take all memory."""
    for name, head in (("film.mp4", b""), ("picture.jpg", b"\xff\xd8\xff")):
        (tmp_path / name).write_bytes(head)
        os.truncate(tmp_path / name, 60 * 2**30)
    assert list(expand([tmp_path])) == [str(tmp_path / "picture.jpg")]
    errors = [str(one.error) for one in predict(classifier, [tmp_path / "film.mp4", tmp_path / "picture.jpg"])]
    assert "not an image" in errors[0] and "bytes, more than" in errors[1]


def test_folders_that_vanish(classifier: Classifier, tmp_path: Path) -> None:
    """In the middle of a run: a line for each file, and the end."""
    names = [str(save(tmp_path / "p" / f"{number:03}.png")) for number in range(5 * BATCH_SIZE)]
    found = predict(classifier, expand([tmp_path / "p"]))
    first = next(found)
    shutil.rmtree(tmp_path / "p")
    rest = list(found)
    assert [one.path for one in (first, *rest)] == names
    assert first.top and rest[-1].error == "No such file or directory"
    assert all(one.top or one.error == "No such file or directory" for one in rest)


def test_deep_folders(tmp_path: Path) -> None:
    """Deeper than Python's stack."""
    with deep_folder(tmp_path, 1100):
        save(Path("x.png"))
        os.chdir(tmp_path)
        assert list(expand(["d"])) == [os.path.join(*["d"] * 1100, "x.png")]


def test_a_folder_as_people_have_it(shared: Path, classifier: Classifier, tmp_path: Path) -> None:
    """What `prepare` takes: every ending, none at all, and a name with a line break."""
    folder = shutil.copytree(shared / "cases" / "08-predict", tmp_path / "p")
    shutil.copy(folder / "a.jpg", folder / "line\nbreak.jpg")
    found = {Path(one.path).name: one for one in predict(classifier, expand([folder]))}
    assert set(found) == {path.name for path in folder.iterdir()}
    assert all(one.top for name, one in found.items() if not name.endswith(".HEIC") or find_spec("pi_heif"))


def test_constant_memory(classifier: Classifier, tmp_path: Path) -> None:
    """From an endless list of files: 1,000 more pictures, whose records are
    7.8 MB, add less than 2 MB.
    """
    path = tmp_path / "x.jpg"
    draw((1, 2, 3), 1).save(path)

    def endless() -> Iterator[str]:
        while True:
            yield str(path)

    stream: Iterator[Prediction] = predict(classifier, endless())
    tracemalloc.start()  # not the process's peak: the tests before this one have raised it by gigabytes
    try:
        for _ in islice(stream, 10 * BATCH_SIZE):
            pass
        before, _ = tracemalloc.get_traced_memory()
        for _ in islice(stream, 1000):
            pass
        assert tracemalloc.get_traced_memory()[0] - before < 2_000_000
    finally:
        tracemalloc.stop()
    stream.close()  # type: ignore[attr-defined]
