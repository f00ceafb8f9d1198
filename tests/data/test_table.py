"""Tables of labels, with every oddity that tables have; and the photos that they name."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from alexnet.cli import main
from alexnet.data.prepare import prepare
from alexnet.data.sources import Source, find
from alexnet.data.store import Store
from alexnet.errors import SourceError
from conftest import write_photos

Given = Callable[..., Source]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four photos, of which `sub` holds one."""
    return write(tmp_path / "photos", "a.jpg", "b.jpg", "c.png", "sub/d.JPEG")


def write(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"\xff\xd8\xff" + name.encode())
    return root


@pytest.fixture
def given(folder: Path, tmp_path: Path) -> Given:
    """`given(text)` is the source of the folder and a table of that text."""

    def make(text: str | bytes) -> Source:
        table = tmp_path / "labels.csv"
        table.write_bytes(text if isinstance(text, bytes) else text.encode())
        return find([folder], labels=table)

    return make


def classes(source: Source, split: str = "train") -> dict[str, str]:
    """The class of each photo."""
    return {item.name: source.classes[item.label] for item in source.splits[split]}


ALL = {"a.jpg": "cat", "b.jpg": "dog", "c.png": "cat", "sub/d.JPEG": "dog"}
PLAIN = "a.jpg,cat\nb.jpg,dog\nc.png,cat\nsub/d.JPEG,dog\n"


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        PLAIN.replace(",", ";"),
        PLAIN.replace(",", "\t"),
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("\n", "\n\n"),
        PLAIN.rstrip(),
        PLAIN.replace(",", " , "),
        PLAIN.replace("\n", ",\n"),
        "\ufeff" + PLAIN,
        b"\xff\xfe" + PLAIN.encode("utf-16-le"),
        '"a.jpg","cat"\n"b.jpg","dog"\n"c.png", "cat"\n"sub/d.JPEG","dog"\n',
        "./" + PLAIN,
        PLAIN.replace("sub/", "sub\\"),
    ],
    ids=[
        "comma",
        "semicolon",
        "tab",
        "CRLF",
        "empty-lines",
        "no-end",
        "spaces",
        "ends-in-commas",
        "BOM",
        "UTF-16",
        "quotes",
        "dot",
        "backslash",
    ],
)
def test_a_table(given: Given, text: str | bytes, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is said: nothing was guessed or left out."""
    source = given(text)
    assert classes(source) == ALL and source.classes == ("cat", "dog")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("header", ["file,class", "id,breed", "Image Name,Label", ",", "x,y"])
def test_a_header(given: Given, header: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert classes(given(f"{header}\n{PLAIN}")) == ALL
    said = capsys.readouterr().err
    assert header == "," or f"The first line of labels.csv ({header.replace(',', ', ')}) is taken for its header.\n" == said


def test_columns_in_another_order_and_more_of_them(given: Given, capsys: pytest.CaptureFixture[str]) -> None:
    """The class by its title, the file by the photos that it names."""
    rows = [f"{number},{'ab'[number % 2]},{line}" for number, line in enumerate(PLAIN.splitlines())]
    assert classes(given("\n".join([",kind,path,label", *rows]))) == ALL
    assert "Of labels.csv, 'path' is the file and 'label' the class; left out: 'column 1', 'kind'." in capsys.readouterr().err
    swapped = "\n".join(",".join(line.split(",")[::-1]) for line in PLAIN.splitlines())
    assert classes(given(swapped)) == ALL


def test_numbered_rows_are_not_the_classes(given: Given, capsys: pytest.CaptureFixture[str]) -> None:
    assert classes(given("\n".join(f"{number},{line}" for number, line in enumerate(PLAIN.splitlines())))) == ALL
    assert "'column 2' is the file and 'column 3' the class; left out: 'column 1'" in capsys.readouterr().err


def test_ids_without_an_ending(given: Given, capsys: pytest.CaptureFixture[str]) -> None:
    """As in Kaggle's tables; in the folder of the photos, or above it."""
    assert classes(given("id,breed\na,cat\nb,dog\nc,cat\nd,dog\n")) == ALL
    said = capsys.readouterr().err
    assert "3 rows with no ending: 'a' is taken for 'a.jpg'.\n" in said
    assert "1 row with no ending and other folders: 'd' is taken for 'sub/d.JPEG'.\n" in said


def test_ids_that_are_numbers_like_the_classes(tmp_path: Path) -> None:
    """0 is a photo and a class; the column that names more photos is the file's."""
    photos = write(tmp_path / "photos", *(f"{number}.jpg" for number in range(30)))
    (tmp_path / "labels.csv").write_text("\n".join(f"{number + 5},{number % 12}" for number in range(30)))
    source = find([photos], labels=tmp_path / "labels.csv")
    assert source.classes == tuple(map(str, range(12))) and len(source.splits["train"]) == 25
    assert classes(source)["5.jpg"] == "0" and classes(source)["16.jpg"] == "11"


@pytest.mark.parametrize("prefix", ["photos/", "C:\\me\\photos\\", "/home/me/photos/", "elsewhere/"])
def test_paths_from_further_up(given: Given, prefix: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = "".join(f"{prefix}{line}\n" for line in PLAIN.splitlines())
    assert classes(given(text)) == ALL
    assert f"with other folders: {f'{prefix}a.jpg'!r} is taken for 'a.jpg'" in capsys.readouterr().err


def test_a_photo_of_another_folder_is_not_one_of_this(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One table for train/ and test/, which number their photos alike."""
    photos = write(tmp_path / "data" / "train", "1.jpg", "2.jpg")
    table = tmp_path / "labels.csv"
    table.write_text("train/1.jpg,cat\ntrain/2.jpg,dog\ntest/1.jpg,dog\ntest/2.jpg,cat\n")
    assert classes(find([photos], labels=table)) == {"1.jpg": "cat", "2.jpg": "dog"}
    assert "2 rows of labels.csv whose file is not there: 'test/1.jpg', 'test/2.jpg'" in capsys.readouterr().err


def test_other_capitals(given: Given, capsys: pytest.CaptureFixture[str]) -> None:
    assert classes(given(PLAIN.replace("a.jpg", "A.JPG").replace("d.JPEG", "D.jpeg"))) == ALL
    assert "2 rows with other capitals: 'A.JPG' is taken for 'a.jpg'." in capsys.readouterr().err


def test_decomposed_letters(tmp_path: Path) -> None:
    """macOS writes é in two characters, the table in one."""
    photos = write(tmp_path / "photos", "caf\u0065\u0301.jpg", "b.jpg")
    (tmp_path / "labels.csv").write_text("caf\u00e9.jpg,r\u00e9d\nb.jpg,re\u0301d\nb.jpg,re\u0301d\n")
    with pytest.raises(SourceError, match="only one class"):  # both spellings are one
        find([photos], labels=tmp_path / "labels.csv")


def test_windows_1252(given: Given, capsys: pytest.CaptureFixture[str]) -> None:
    assert classes(given(PLAIN.replace("dog", "chiot\u00e9").encode("cp1252")))["b.jpg"] == "chiot\u00e9"
    assert "is not UTF-8: read as Windows-1252" in capsys.readouterr().err


def test_what_is_left_out_is_said(given: Given, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "notes.txt").touch()
    gone = "".join(f"gone{number}.jpg,cat\n" for number in range(7))
    source = given("a.jpg,cat\nb.jpg,dog\na.jpg,cat\nc.png,\n" + gone)
    assert classes(source) == {"a.jpg": "cat", "b.jpg": "dog"}
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "Left out: 7 rows of labels.csv whose file is not there: 'gone0.jpg', 'gone1.jpg', 'gone2.jpg', 'gone3.jpg', "
        "'gone4.jpg' and 2 more.",
        "Left out: 1 picture without a class in labels.csv: 'c.png'.",
        "Left out: 1 row of labels.csv that an earlier one says already.",
        "Left out: 1 picture without a row in labels.csv: 'sub/d.JPEG'.",
    ]


def test_names_with_commas_and_quotes(tmp_path: Path) -> None:
    photos = write(tmp_path / "photos", "a, b.jpg", 'the "best".jpg', "c;d.jpg")
    with open(tmp_path / "labels.csv", "w", newline="") as file:
        csv.writer(file).writerows([["a, b.jpg", "cat, small"], ['the "best".jpg', "dog"], ["c;d.jpg", "dog"]])
    assert classes(find([photos], labels=tmp_path / "labels.csv")) == {
        "a, b.jpg": "cat, small",
        'the "best".jpg': "dog",
        "c;d.jpg": "dog",
    }


def test_names_that_steer_a_terminal(given: Given) -> None:
    assert given("a.jpg,\x1b[2Jcat\nb.jpg,dog\n").classes == ("\x1b[2Jcat", "dog")


def test_classes_in_order(given: Given, capsys: pytest.CaptureFixture[str]) -> None:
    assert given("a.jpg,10\nb.jpg,9\nc.png,x\n").classes == ("9", "10", "x")
    assert given("a.jpg,Cat\nb.jpg,cat\n").classes == ("Cat", "cat")
    assert "The classes 'Cat', 'cat' differ in capitals only" in capsys.readouterr().err


def test_wordnet_ids(given: Given) -> None:
    assert given("a.jpg,n03394916\nb.jpg,n01440764\n").classes == ("tench", "French horn")


# --- splits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "file,class,split\na.jpg,cat,train\nb.jpg,dog,Training\nc.png,cat,valid\nsub/d.JPEG,dog,val\n",
        "a.jpg,cat,train\nb.jpg,dog,train\nc.png,cat,val\nsub/d.JPEG,dog,dev\n",
        "is_valid,file,class\nFalse,a.jpg,cat\n0,b.jpg,dog\nTrue,c.png,cat\n1,sub/d.JPEG,dog\n",
    ],
    ids=["title", "no header", "is_valid"],
)
def test_a_column_with_the_split(given: Given, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    source = given(text)
    assert classes(source) == {"a.jpg": "cat", "b.jpg": "dog"}
    assert classes(source, "val") == {"c.png": "cat", "sub/d.JPEG": "dog"}
    assert "of labels.csv says which split a photo belongs to." in capsys.readouterr().err


def test_a_column_that_is_not_a_split(given: Given, capsys: pytest.CaptureFixture[str]) -> None:
    """LEGO has sets too."""
    assert classes(given("file,class,set\na.jpg,cat,castle\nb.jpg,dog,space\n")) == {"a.jpg": "cat", "b.jpg": "dog"}
    assert "left out: 'set'" in capsys.readouterr().err


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.jpg,cat\nb.jpg,dog\na.jpg,dog\n", "'a.jpg' twice, with the class 'cat' in line 1 and 'dog' in line 3.*Remove one"),
        ("a.jpg,cat\nA.jpg,dog\n", "'a.jpg' twice, with the class 'cat' in line 1 and 'dog' in line 2"),
        ("f,class,split\na.jpg,x,train\na.jpg,x,val\n", "twice, with the split 'train' in line 2 and 'val' in line 3"),
        ("f,class,split\na.jpg,x,train\nb.jpg,y,later\n", "line 3: the split is 'later', but must be train, val or test"),
        ("f,class,is_valid\na.jpg,x,true\nb.jpg,y,\n", "line 3: the split is '', but must be true or false"),
        ("f,class,split\na.jpg,x,val\nb.jpg,y,val\n", "found the split val .* but no train"),
        ("x.jpg,cat\ny.jpg,dog\n", "names no file in .*photos, which has 'a.jpg' and 3 more; the table has 'x.jpg'"),
        ("file,class\n", "names no file in .*photos, which has 'a.jpg'"),
        ("a.jpg\nb.jpg\n", "is not a table of labels: its first line has no tab, semicolon, comma"),
        ("", "is not a table of labels"),
        ("\n\n", "is not a table of labels"),
        ("a.jpg,cat\nb.jpg,dog\nc.png,cat, small\n", "line 3, has 3 cells, but the first line has 2: put a text that contains a"),
        ('a.jpg,cat\n"b.jpg,dog\n', "line 2, is not a row of a table .*check its quotation marks"),
        ('a.jpg,cat\n"b"x.jpg,dog\n', "line 2, is not a row of a table .*check its quotation marks"),
        (f"a.jpg,cat\nb.jpg,{'x' * 200_000}\n", "line 2, is not a row of a table .*larger than field limit"),
        ("a.jpg,cat\nb.jpg,cat\n", r"only one class in the table labels.csv .*Add photos of another class\.$"),
        (b"PK\x03\x04\x00\x00", "is not a text file"),
        ("file,split\na.jpg,train\nb.jpg,train\n", "has no column with the classes"),
    ],
)  # fmt: skip
def test_errors(given: Given, text: str | bytes, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        given(text)


@pytest.mark.parametrize("name", ["x", "x.jpg"])
def test_one_row_for_two_photos(tmp_path: Path, name: str) -> None:
    photos = write(tmp_path / "photos", "cat/x.jpg", "dog/x.jpg", "y.jpg")
    (tmp_path / "labels.csv").write_text(f"y.jpg,dog\n{name},cat\n")
    with pytest.raises(SourceError, match=f"line 2: '{name}' can be 'cat/x.jpg' or 'dog/x.jpg': write which"):
        find([photos], labels=tmp_path / "labels.csv")


def test_one_id_for_two_photos(tmp_path: Path) -> None:
    photos = write(tmp_path / "photos", "x.jpg", "x.png", "y.jpg")
    (tmp_path / "labels.csv").write_text("y,dog\nx,cat\n")
    with pytest.raises(SourceError, match=r"line 2: 'x' can be 'x.jpg' or 'x.png': write which, .* its ending"):
        find([photos], labels=tmp_path / "labels.csv")


def test_labels_are_for_one_folder(folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text(PLAIN)
    for paths in ([], [folder, folder], [folder / "a.jpg"], [tmp_path / "gone"]):
        with pytest.raises(SourceError, match="needs one folder of photos"):
            find(paths, labels=table)
    with pytest.raises(SourceError, match="drop --train and --test. A third column"):
        find(train=folder, labels=table)
    with pytest.raises(SourceError, match="--image applies to WebDataset shards only"):
        find([folder], labels=table, image="png")
    with pytest.raises(SourceError, match="gone.csv cannot be read"):
        find([folder], labels=tmp_path / "gone.csv")


def test_many_photos_take_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """10,000 rows, each found by its id: a look at every photo for every row would take minutes."""
    paths = [str(tmp_path / "photos" / f"{number:05}" / "x" / f"{number:05}.jpg") for number in range(10_000)]
    monkeypatch.setattr("alexnet.data.sources.lookup.walk", lambda *_: iter(paths))
    (tmp_path / "photos").mkdir()
    (tmp_path / "labels.csv").write_text("\n".join(f"{number:05},{number % 7}" for number in range(10_000)))
    assert len(find([tmp_path / "photos"], labels=tmp_path / "labels.csv").splits["train"]) == 10_000


# --- to the store ---------------------------------------------------------------------------------


def test_a_store_by_a_table_holds_out_as_one_by_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same pictures, the same split: it is drawn by their content."""
    by_folder = write_photos(tmp_path / "folders", 12)
    flat, rows = tmp_path / "flat", ["id;kind"]
    flat.mkdir()
    for number, path in enumerate(sorted(by_folder.glob("*/*.jpg"), key=lambda path: path.read_bytes())):
        shutil.copy(path, flat / f"{number}.jpg")
        rows.append(f"{number};{path.parent.name}")
    (flat / "labels.csv").write_text("\n".join(rows))
    main(["prepare", str(flat), str(tmp_path / "a"), "--labels", str(flat / "labels.csv"), "--size", "32"])
    assert "Found no test split in the table labels.csv" in capsys.readouterr().err
    own, other = Store(tmp_path / "a"), prepare(by_folder, tmp_path / "b", size=32)
    assert own.classes == other.classes == ("blue", "green", "red")
    for split in ("train", "val"):
        assert sorted(map(bytes, own.splits[split].records)) == sorted(map(bytes, other.splits[split].records))


def test_a_real_set(shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its photos by a table with the paths that it has: what the folders say."""
    folder = shared / "data" / "imagenette-mini"
    photos = sorted(folder.rglob("*.JPEG"))
    (tmp_path / "labels.csv").write_text(
        "path,noisy_labels_0,is_valid\n"
        + "".join(f"{path.relative_to(folder).as_posix()},{path.parent.name},{path.parts[-3] == 'val'}\n" for path in photos)
    )
    source, expected = find([folder], labels=tmp_path / "labels.csv"), find([folder])
    assert source.classes == expected.classes and source.splits.keys() == expected.splits.keys()
    for split, items in expected.splits.items():
        assert {(one.path, one.label) for one in source.splits[split]} == {(one.path, one.label) for one in items}
