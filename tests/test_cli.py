"""The command line from end to end, on drawn pictures and on real photos."""

import csv
import io
import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from alexnet import AlexNet, engines
from alexnet.cli import main
from alexnet.data.preprocessing import Preprocessing
from alexnet.data.store import Store
from alexnet.variants import get_variant
from alexnet.weights import native
from conftest import draw

FAST = ("--width", "0.125", "--compile", "off", "--device", "cpu")


def fails(capsys: pytest.CaptureFixture[str], status: int, *words: str) -> str:
    """Run, expect this exit status, return what was said on standard error."""
    with pytest.raises(SystemExit) as stop:
        main(list(words))
    assert stop.value.code == status
    return capsys.readouterr().err


def picture_width(path: Path) -> int:
    """Of a picture that is not blank."""
    with Image.open(path) as picture:
        assert picture.convert("L").getextrema()[0] < 200
        return picture.width


# --- summary --------------------------------------------------------------------------------------


def test_summary_json(capsys: pytest.CaptureFixture[str]) -> None:
    main(["summary", "paper", "--format", "json"])
    table = json.loads(capsys.readouterr().out)
    assert table["totals"]["parameters"] == 60_965_224
    assert sum(layer["multiply_adds"] for layer in table["layers"]) == table["totals"]["multiply_adds"] == 724_406_816
    conv1 = table["layers"][0]
    assert (conv1["name"], conv1["kind"], conv1["output"], conv1["parameters"]) == ("conv1", "conv", [96, 55, 55], 34_944)
    assert table["layers"][-1]["output"] == [1000, 1, 1]


def test_summary_changed(capsys: pytest.CaptureFixture[str]) -> None:
    main(["summary", "caffe", "--input-size", "99", "--width", "0.5", "--num-classes", "7", "--format", "json"])
    table = json.loads(capsys.readouterr().out)
    assert (table["input_size"], table["width"], table["layers"][-1]["output"]) == (99, 0.5, [7, 1, 1])


def test_summary_table_and_markdown(capsys: pytest.CaptureFixture[str]) -> None:
    for style in ("table", "markdown"):
        main(["summary", "--format", style])
        text = capsys.readouterr().out
        assert "60,965,224" in text and "724,406,816" in text and "256 x 6 x 6" in text


@pytest.mark.parametrize("name", ["paper", "code-2012", "caffe", "torchvision"])
def test_summary_fits_the_terminal(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is wrapped or cut. 80 columns have all but the kind, which the layer's
    name tells; 120 have all.
    """
    monkeypatch.setenv("FORCE_COLOR", "1")
    for columns in (40, 60, 72, 80, 100, 120, 200):
        monkeypatch.setenv("COLUMNS", str(columns))
        main(["summary", name])
        lines = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
        assert max(map(len, lines)) <= columns and "\u2026" not in "".join(lines)
        heading, first, second = lines[(start := [line[:5] for line in lines].index("layer")) : start + 3]
        assert (first.split()[0], second.split()[0]) == ("conv1", "norm1" if name == "code-2012" else "relu1")
        if columns in (80, 120):
            assert ("kind" in heading) == (columns == 120)
            assert heading.split()[-3:] == ["mult-adds" if columns == 80 else "multiply-adds", "kB", "sees"]
            assert first.split()[-4:-2] == (["34,944", "105,415,200"] if name != "torchvision" else ["23,296", "70,276,800"])


def test_summary_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean 'caffe'" in fails(capsys, 2, "summary", "cafe")
    assert "smallest that works is 64" in fails(capsys, 2, "summary", "--input-size", "32")
    assert "multiples of 1/16" in fails(capsys, 2, "summary", "--width", "0.3")
    assert "--input-size" in fails(capsys, 2, "summary", "--inputsize", "64")  # the nearest one is named
    assert "--explain prints text or Markdown" in fails(capsys, 2, "summary", "--explain", "--format", "json")
    assert "add --explain, or drop --lang" in fails(capsys, 2, "summary", "--lang", "zh")
    assert "lang (=fr) must be one of en, zh" in fails(capsys, 2, "summary", "--explain", "--lang", "fr")


# --- prepare, verify ------------------------------------------------------------------------------


def test_prepare_and_verify(photos: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = photos(10)
    (folder / "red" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    store = tmp_path / "store"
    main(["prepare", str(folder), str(store), "--size", "64"])
    output = capsys.readouterr()
    assert "10% of each class is held out" in output.err
    word, train, val = output.out.splitlines()[4].split()
    assert word == "total" and int(train) + int(val) == 30 and int(val) >= 3
    assert "1 file skipped" in output.out and "red/broken.jpg': " in output.out
    main(["verify", str(store)])
    assert f"is undamaged: {train} train, {val} val pictures" in capsys.readouterr().out
    records = store / "train.records"
    records.write_bytes(records.read_bytes()[:-1] + b"\x00")
    with pytest.raises(SystemExit) as stop:
        main(["verify", str(store)])
    assert stop.value.code == 1
    assert f"records 0 to {int(train) - 1} are damaged" in capsys.readouterr().out


def test_prepare_of_parts_named_by_hand(
    photos: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The refusal prints the command that works."""
    photos(4, "set/A")
    photos(2, "set/B")
    store = str(tmp_path / "store")
    said = fails(capsys, 2, "prepare", str(tmp_path / "set"), store)
    assert len(said.splitlines()) == 1
    command = re.findall(r"If they are splits: alexnet (.*?) STORE", said)[0].split()
    main([*command, store, "--size", "32"])
    assert {name: len(split) for name, split in Store(store).splits.items()} == {"train": 12, "test": 6}
    assert Store(store).train.files[0] == "A/blue/0.jpg"
    assert "name the training split too" in fails(capsys, 2, "prepare", "--test", "x", store)


def test_prepare_chooses_the_picture_of_a_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Photos and masks in one shard: --image takes the masks."""
    with tarfile.open(tmp_path / "train.tar", "w") as tar:
        for key in range(6):
            for ending in ("jpg", "png"):
                draw((250 if ending == "png" else 20,) * 3, key).save(tmp_path / f"{key}.{ending}")
                tar.add(tmp_path / f"{key}.{ending}", f"{key}.{ending}")
            (tmp_path / "cls").write_text(str(key % 2))
            tar.add(tmp_path / "cls", f"{key}.cls")
    for store, options in (("photos", ()), ("masks", ("--image", "png"))):
        main(["prepare", str(tmp_path / "train.tar"), str(tmp_path / store), "--size", "32", *options])
    photos, masks = (Store(tmp_path / store).mean_image.mean() for store in ("photos", "masks"))
    assert photos < 60 < 180 < masks
    assert "6 keys have several pictures: using .jpg, leaving out .png" in capsys.readouterr().err


def test_prepare_refuses(photos: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "does not exist" in fails(capsys, 2, "prepare", str(tmp_path / "none"), str(tmp_path / "store"))
    assert "needs a source and a store" in fails(capsys, 2, "prepare", str(tmp_path))
    folder = photos(3)
    (folder / "red" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    assert "drop --strict" in fails(capsys, 2, "prepare", str(folder), str(tmp_path / "store"), "--strict")


# --- train ----------------------------------------------------------------------------------------


def test_train_refuses(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ("--data", str(store.folder), "--out", str(tmp_path / "run"))
    assert "--batch-size" in fails(capsys, 2, "train", "laptop", *out, "--batchsize", "3")  # the nearest key
    assert "unknown recipe 'laptob': did you mean 'laptop'" in fails(capsys, 2, "train", "laptob", *out)
    assert "train needs a recipe first" in fails(capsys, 2, "train", *out)
    assert "unknown verb 'trian': did you mean 'train'" in fails(capsys, 2, "trian", *out)
    assert "lr (=-1.0) must be above 0" in fails(capsys, 2, "train", "laptop", *out, "--lr", "-1")
    assert "is not a store" in fails(
        capsys, 2, "train", "laptop", "--data", str(tmp_path / "none"), "--out", str(tmp_path / "run")
    )
    assert not (tmp_path / "run").exists()


def test_family(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Trained, tested together, verified; whatever is changed afterwards is found."""
    data, family = ("--data", str(store.folder)), str(tmp_path / "family")
    options = ("--epochs", "2", "--batch-size", "10", *FAST)
    main(["train", "laptop", *data, "--out", family, "--seeds", "0..2", "--keep", "0,2", *options])
    table = capsys.readouterr().out
    assert "seed 2" in table and "mean, n = 3" in table and "±" in table
    assert (tmp_path / "family" / "seed1" / "epoch-0000.safetensors").exists()
    assert "n = 3" in (tmp_path / "family" / "README.md").read_text()
    assert picture_width(tmp_path / "family" / "curves.png") > 200
    main(["verify", family])
    assert capsys.readouterr().out.count("matches its result.json: top-1 error") == 3
    result = tmp_path / "result.json"
    main(["evaluate", family, *data, "--average", "--fit", "--json", str(result), "--out", str(tmp_path)])
    table = capsys.readouterr().out
    assert "on 9 pictures" in table and "plain average" in table and "weighted average" in table
    assert "95% interval" in table and "chance" in table and "top-5" not in table  # three classes
    assert sum(json.loads(result.read_text())["coefficients"]) == pytest.approx(1)
    runs = [str(tmp_path / "family" / f"seed{seed}") for seed in (0, 1)]
    main(["evaluate", *runs, *data, "--average", "--json", str(result), "--out", str(tmp_path)])
    assert json.loads(result.read_text())["average"]["images"] == 18
    (tmp_path / "family" / "seed1" / "config.json").write_text("{}")
    fails(capsys, 1, "verify", family)
    main(["evaluate", f"{runs[0]}/epoch-0002.safetensors", *data, "--out", str(tmp_path)])
    main(["verify", runs[0], *data])
    assert "seed0 matches its result.json" in capsys.readouterr().out


def test_family_refuses(run: Path, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ("--data", str(store.folder))
    out = (*data, "--out", str(tmp_path / "family"), *FAST)
    assert "1 missing" in fails(capsys, 2, "train", "laptop", *out, "--seeds", "0,2")
    assert "must rise, so 1 cannot follow 1: write 0,1." in fails(capsys, 2, "train", "laptop", *out, "--seeds", "0,1,1")
    assert "add --seeds" in fails(capsys, 2, "train", "laptop", *out, "--at-once", "2")
    assert "works on a GPU only" in fails(capsys, 2, "train", "laptop", *out, "--seeds", "0..1", "--at-once", "2")
    assert "names epoch 9" in fails(capsys, 2, "train", "laptop", *out, "--seeds", "0..1", "--keep", "0,9")
    assert "is larger than the pictures" in fails(capsys, 2, "train", "laptop", *out, "--seeds", "0..1", "--input-size", "96")
    assert not (tmp_path / "family").exists()
    assert "seed (=3) cannot be combined with seeds" in fails(
        capsys, 2, "train", "laptop", *out, "--seeds", "0..1", "--seed", "3"
    )
    assert "add --average" in fails(capsys, 2, "evaluate", str(run), str(run), *data)
    assert "the same network is named twice" in fails(
        capsys, 2, "evaluate", str(run), str(run / "latest.safetensors"), str(run), *data, "--average"
    )
    assert "add --average" in fails(capsys, 2, "evaluate", str(run), *data, "--fit")
    assert "needs at least two networks" in fails(capsys, 2, "evaluate", str(run), *data, "--average")
    assert "--data is for runs" in fails(capsys, 2, "verify", str(store.folder), *data)


# --- ablate ---------------------------------------------------------------------------------------


def test_ablate(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a recipe it is small-photos; a second time nothing is trained, and the same is
    said.
    """
    words = ["ablate", "no-dropout", "--data", str(store.folder), "--seeds", "2", "--out", str(tmp_path)]
    words += ["--input-size", "64", "--epochs", "2", "--batch-size", "10", *FAST]
    main(words)
    first = capsys.readouterr().out
    assert first.startswith("top-1 error, no-dropout minus standard: ") and "(section 4.2)" in first
    main(words)
    again = capsys.readouterr()
    assert again.out == first and "epoch 1" not in again.err
    record = tmp_path / "no-dropout" / "record"
    assert "alexnet ablate no-dropout small-photos --width 0.125 --input-size 64" in (record / "README.md").read_text()
    assert picture_width(record / "curves.png") > 200


def test_ablate_refuses(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ("--data", str(store.folder), "--seeds", "2", "--out", str(tmp_path / "out"))
    assert "did you mean 'no-lrn'" in fails(capsys, 2, "ablate", "no-lnr", *data)
    assert "ablate needs a name first" in fails(capsys, 2, "ablate", *data)
    assert "did you mean 'laptop'" in fails(capsys, 2, "ablate", "no-lrn", "laptob", *data)
    assert "no-dropout does not apply" in fails(capsys, 2, "ablate", "no-dropout", "laptop", *data)
    assert "must be at least 5" in fails(capsys, 2, "ablate", "five-nets", "laptop", *data)
    assert "is larger than the pictures" in fails(capsys, 2, "ablate", "no-lrn", *data, "--input-size", "96", *FAST)
    assert not (tmp_path / "out").exists()


# --- doctor ---------------------------------------------------------------------------------------


def test_doctor(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A healthy recipe ends quietly; a cause is named with its field, in the JSON file
    too, and by exit status 1.
    """
    file = tmp_path / "diagnosis.json"
    words = ("doctor", "laptop", "--data", str(store.folder), "--json", str(file), *FAST)
    main([*words])
    output = capsys.readouterr().out
    assert "No known failure found" in output
    lines = output.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["stage", "conv1", "relu1"]
    legend = [line for line in lines if line.startswith(("spread: ", "gradient: "))]
    assert len(legend) == 2 and max(map(len, legend)) <= 80
    assert all(f"{column}: " in " ".join(legend) for column in lines[0].split()[1:-1])
    assert "Trial: loss at each of 8 training steps: 1" in output and "knowing only how frequent each class is: 1.099" in output
    assert json.loads(file.read_text())["causes"] == []
    assert fails(capsys, 1, *words, "--init", "gaussian").startswith("Next: change the recipe")
    assert json.loads(file.read_text())["causes"][0]["name"] == "small-pixels"


def test_doctor_says_the_cause(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["doctor", "laptop", "--data", str(store.folder), *FAST, "--init", "gaussian"])
    output = capsys.readouterr().out
    assert "small-pixels (pixels): all pictures look alike" in output and "--pixels mean-image" in output


def test_doctor_refuses(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ("--data", str(store.folder))
    assert "doctor needs a recipe first" in fails(capsys, 2, "doctor", *data)
    assert "did you mean 'laptop'" in fails(capsys, 2, "doctor", "laptob", *data)
    assert "is larger than the pictures" in fails(capsys, 2, "doctor", "small-photos", *data)
    assert "is not a store" in fails(capsys, 2, "doctor", "laptop", "--data", str(tmp_path / "none"))


# --- evaluate, report -----------------------------------------------------------------------------


@pytest.mark.parametrize("views", ["1", "10"])
def test_evaluate(run: Path, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str], views: str) -> None:
    result = tmp_path / "result.json"
    main(["evaluate", str(run), "--data", str(store.folder), "--views", views, "--json", str(result), "--out", str(tmp_path)])
    written = json.loads(result.read_text())
    assert (written["images"], written["views"]) == (18, int(views))
    assert written["top1_error"] < 0.2
    output = capsys.readouterr()
    *_, everything, by_chance, _ = output.out.splitlines()
    low, high = written["top1_interval"]
    assert everything.split() == ["all", "18", f"{written['top1_error']:.2%}", f"{low:.2%}", "to", f"{high:.2%}"]
    assert by_chance.split() == ["chance", "66.67%"]
    assert "top-5" not in output.out  # three classes
    assert "only 18 test pictures" in output.err
    rows = list(csv.reader((tmp_path / "confusion.csv").read_text().splitlines()))
    assert rows[0][1:] == ["blue", "green", "red"]
    correct = sum(int(rows[i + 1][i + 1]) for i in range(3))
    assert 1 - correct / 18 == pytest.approx(written["top1_error"])
    assert picture_width(tmp_path / "confusion.png") > 200


def test_evaluate_writes_nothing_unless_asked(run: Path, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    main(["evaluate", str(run), "--data", str(store.folder)])
    main(["evaluate", str(run / "latest.safetensors"), "--data", str(store.folder)])
    assert "confusion" not in capsys.readouterr().out.lower()
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_evaluate_refuses(run: Path, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ("--data", str(store.folder))
    assert "does not exist" in fails(capsys, 2, "evaluate", str(tmp_path / "none"), *data)
    assert "has no split 'test'" in fails(capsys, 2, "evaluate", str(run), *data, "--split", "test")
    assert "views (=5) must be one of 1, 10." in fails(capsys, 2, "evaluate", str(run), *data, "--views", "5")


def test_names_with_odd_characters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Dollar signs are no formula to matplotlib, and a folder whose name is no UTF-8 has
    one that can be written.
    """
    for index, name in enumerate((b"$x^$", b"caf\xe9")):
        folder = tmp_path / "photos" / os.fsdecode(name)
        folder.mkdir(parents=True)
        for number in range(5):
            draw((200 * index, 50, 40), number).save(folder / f"{number}.jpg")
    store, run = str(tmp_path / "store"), str(tmp_path / "run")
    main(["prepare", str(tmp_path / "photos"), store, "--size", "64"])
    main(["train", "laptop", "--data", store, "--out", run, "--epochs", "1", "--batch-size", "4", *FAST])
    main(["report", run, "--data", store])
    page = (tmp_path / "run" / "report.html").read_text()
    assert "$x^$" in page and "caf" in page
    main(["evaluate", run, "--data", store, "--out", str(tmp_path)])
    assert picture_width(tmp_path / "confusion.png") > 100


def test_files_in_the_way(run: Path, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the file system refuses is said in a line, not in a traceback."""
    (tmp_path / "file").write_text("")
    data = ("--data", str(store.folder))
    assert "file" in fails(capsys, 2, "evaluate", str(run), *data, "--out", str(tmp_path / "file"))
    assert "needs a run's folder" in fails(capsys, 2, "report", str(run / "latest.safetensors"), *data)
    assert "must end in .png" in fails(capsys, 2, "predict", str(run), "x.jpg", "--sheet", "x.xyz")


def test_report(run: Path, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "new" / "page.html"
    main(["report", str(run), "--data", str(store.folder), "-o", str(page)])
    assert capsys.readouterr().out == f"{page}\n"
    assert [path.name for path in page.parent.iterdir()] == ["page.html"]  # one file, its pictures inside
    said = fails(capsys, 2, "report", str(run), "--data", str(store.folder), "--out", str(tmp_path / "folder"))
    assert "must end in .html" in said


# --- predict --------------------------------------------------------------------------------------


def test_predict_formats(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x, y.png"
    draw((200, 50, 40), 77).save(path)
    main(["predict", str(run), str(path)])
    assert capsys.readouterr().out.startswith(f"{path}  red ")
    main(["predict", str(run), str(path), "--format", "jsonl", "--top", "2"])
    line = json.loads(capsys.readouterr().out)
    assert line["file"] == str(path) and line["top"][0]["class"] == "red" and len(line["top"]) == 2
    main(["predict", str(run), str(path), "--format", "csv"])
    rows = list(csv.reader(capsys.readouterr().out.splitlines()))
    assert rows[0] == ["file", "rank", "class", "probability"]
    assert rows[1][:3] == [str(path), "1", "red"] and len(rows) == 4


def test_predict_goes_on_after_a_bad_file(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw((200, 50, 40), 77).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"\x89PNG")
    said = fails(capsys, 1, "predict", str(run), str(tmp_path), "none.jpg", "--sheet", str(tmp_path / "sheet.png"))
    assert "bad.png: " in said and "none.jpg: No such file" in said
    assert f"{tmp_path / 'sheet.png'}: 1 picture\nNext: " in said
    assert picture_width(tmp_path / "sheet.png") > 100
    assert "Next" not in fails(capsys, 1, "predict", str(run), "none.jpg")  # nothing was classified


def test_predict_refuses(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "needs pictures" in fails(capsys, 2, "predict", str(run))
    assert "no pictures found in" in fails(capsys, 2, "predict", str(run), str(tmp_path))
    assert "top (=0)" in fails(capsys, 2, "predict", str(run), "x.jpg", "--top", "0")
    assert "does not exist" in fails(capsys, 2, "predict", str(tmp_path / "none"), "x.jpg")


def test_predict_from_a_list(run: Path, tmp_path: Path) -> None:
    draw((200, 50, 40), 77).save(tmp_path / "good.png")
    command = [sys.executable, "-c", "from alexnet.cli import main; main()", "predict", str(run), "-", "--format", "jsonl"]
    result = subprocess.run(command, input=f"{tmp_path / 'good.png'}\n", capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["top"][0]["class"] == "red"


# --- numbers out of range, for every verb that takes numbers --------------------------------------

HUGE = "1" + "0" * 20
RANGES = {
    ("summary", "--input-size"): ("0", "-1", HUGE, "nan"),
    ("summary", "--width"): ("0", "-1", HUGE, "nan", "inf"),
    ("summary", "--num-classes"): ("0", "-1", HUGE),
    ("draw", "--input-size"): ("0", "-1", HUGE, "nan"),
    ("draw", "--width"): ("0", "-1", HUGE, "nan", "inf"),
    ("draw", "--num-classes"): ("0", "-1", HUGE),
    ("prepare", "--size"): ("0", "-2", "3", HUGE),
    ("prepare", "--hold-out"): ("0", "-1", "1", HUGE, "nan", "inf"),
    ("prepare", "--workers"): ("0", "-1"),
    ("predict", "--top"): ("0", "-1", "nan"),
    ("predict", "--views"): ("0", "-1", HUGE),
    ("evaluate", "--views"): ("0", "-1", HUGE),
    ("bench", "--batch"): ("0", "-1", HUGE),
    ("train", "--epochs"): ("0", "-1", "nan"),
    ("train", "--batch-size"): ("0", "-1"),
    ("train", "--lr"): ("0", "-1", "nan", "inf"),
    ("train", "--width"): ("0", "-1", HUGE, "nan"),
    ("train", "--input-size"): ("0", "-1", HUGE),
    ("train", "--pool-size"): ("0", "-1", HUGE),
    ("train", "--towers"): ("0", "-1", HUGE),
    ("train", "--dropout"): ("-1", "1", HUGE, "nan"),
    ("train", "--patience"): ("0", "-1"),
    ("train", "--seed"): ("-1", "nan"),
    ("train", "--seeds"): ("-1", HUGE, "0..99999"),
    ("train", "--keep"): ("-1", HUGE),
    ("train", "--at-once"): ("0", "-1", HUGE),
    ("train", "--workers"): ("0", "-1"),
    ("train", "--checkpoint-minutes"): ("-1", "nan"),
    ("ablate", "--seeds"): ("0", "-1", HUGE),
    ("ablate", "--other-lr"): ("0", "-1", "nan", "inf"),
    ("ablate", "--training-error"): ("-1", "nan", HUGE),
}


@pytest.mark.parametrize(("verb", "option"), RANGES)
def test_numbers_out_of_range(
    verb: str,
    option: str,
    run: Path,
    store: Store,
    photos: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each is refused by name, before any work and without a traceback."""
    draw((200, 50, 40), 77).save(tmp_path / "x.png")
    out = ("--data", str(store.folder), "--out", str(tmp_path / "out"), *FAST)
    words = {
        "summary": lambda: ("summary",),
        "draw": lambda: ("draw", "-o", str(tmp_path / "out" / "x.svg")),
        "prepare": lambda: ("prepare", str(photos(2)), str(tmp_path / "out")),
        "predict": lambda: ("predict", str(run), str(tmp_path / "x.png")),
        "evaluate": lambda: ("evaluate", str(run), "--data", str(store.folder)),
        "bench": lambda: ("bench", "--device", "cpu", "--no-compile"),
        "train": lambda: ("train", "laptop", *out),
        "ablate": lambda: ("ablate", "no-dropout", "small-photos", *out, "--input-size", "64", "--seeds", "2"),
    }[verb]()
    field = option.strip("-").replace("other-", "").replace("-", "_")
    for value in RANGES[verb, option]:
        said = fails(capsys, 2, *words, f"{option}={value}")
        assert field in said.replace("-", "_") or "need" in said, said
        assert not (tmp_path / "out").exists()


def test_more_classes_than_there_are(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw((200, 50, 40), 77).save(tmp_path / "x.png")
    for top in ("99999", HUGE):
        main(["predict", str(run), str(tmp_path / "x.png"), "--top", top, "--format", "jsonl"])
        assert len(json.loads(capsys.readouterr().out)["top"]) == 3


# --- foreign names reach the terminal harmless ----------------------------------------------------


@pytest.fixture
def hostile(store: Store, tmp_path: Path) -> Path:
    """A run's file whose classes steer a terminal."""
    variant = get_variant("paper", width=1 / 16, input_size=64, num_classes=3)
    classes = tuple(f"{name}\x1b[2J\x1b]0;{name}\x07\n\x9b31m\u202e" for name in ("a", "b", "c"))
    trained = native.Trained(AlexNet(variant).eval(), classes, Preprocessing.of(variant, store), {}, {})
    native.save(tmp_path / "hostile.safetensors", trained)
    return tmp_path / "hostile.safetensors"


@pytest.mark.parametrize("form", ["table", "jsonl"])
def test_names_that_steer_a_terminal(hostile: Path, form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of classes and of files, those that are read and those that are not; a picture stays a
    line.
    """
    names = ["x\x1b[2J\n.png", "y\u202egpj.exe", "z\x1b[31m.png"]
    for name in names[:2]:
        draw((200, 50, 40), 77).save(tmp_path / name, "PNG")
    (tmp_path / names[2]).write_bytes(b"\x89PNG")
    with pytest.raises(SystemExit):
        main(["predict", str(hostile), *(str(tmp_path / name) for name in names), "none\x1b[2J.png", "--format", form])
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == (2 if form == "table" else 4) and len(said.err.splitlines()) == 3
    assert not set(said.out + said.err) & set("\x1b\x07\x9b\u202e\r")
    assert r"z\x1b[31m.png: " in said.err


def test_csv_is_exact_where_a_program_reads_it(
    hostile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A name with a line break, quotes or a carriage return is one cell; a terminal
    gets what does it no harm.
    """
    names = ["one\ntwo.png", 'quoted "a", b.png', "ret\rurn.png", " spaces .png"]
    for name in names:
        draw((200, 50, 40), 77).save(tmp_path / name)
    main(["predict", str(hostile), *(str(tmp_path / name) for name in names), "--format", "csv", "--top", "2"])
    text = capsys.readouterr().out
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert rows[0] == ["file", "rank", "class", "probability"]
    assert [row[0] for row in rows[1:]] == [str(tmp_path / name) for name in names for _ in range(2)]
    assert {row[2] for row in rows[1:]} <= set(engines.load(hostile, "torch").classes)
    assert "\r\n" not in text
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    main(["predict", str(hostile), str(tmp_path / names[0]), "--format", "csv", "--top", "1"])
    shown = capsys.readouterr().out
    assert r"one\ntwo.png,1," in shown and not set(shown) & set("\x1b\x07\x9b\u202e\r")


# --- all of it, on real photos --------------------------------------------------------------------


def test_real_photos(shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """600 photos of ten classes: prepared, trained for two epochs
    (towards nothing much), tested, one predicted.
    """
    photos, store, run = shared / "data" / "imagenette-mini", tmp_path / "store", tmp_path / "run"
    main(["prepare", str(photos), str(store), "--size", "128"])
    assert "total" in capsys.readouterr().out
    main(["train", "small-photos", "--data", str(store), "--out", str(run), "--epochs", "2", "--input-size", "96", *FAST])
    main(["evaluate", str(run), "--data", str(store), "--views", "10", "--out", str(run)])
    output = capsys.readouterr()
    assert "top-5 error" in output.out and "chance" in output.out
    assert "200" in output.out and (run / "confusion.png").exists()
    main(["predict", str(run), str(photos / "val" / "n01440764"), "--sheet", str(tmp_path / "sheet.png")])
    assert len(capsys.readouterr().out.splitlines()) == 20


# --- weights, export, compare ---------------------------------------------------------------------


def test_import_and_predict(shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Caffe's file with its mean, and at once a prediction without an option."""
    tiny, out = shared / "weights" / "tiny", tmp_path / "out.safetensors"
    main(
        [
            "weights",
            "import",
            str(tiny / "alexnet-v1.caffemodel"),
            "--mean",
            str(tiny / "imagenet-mean.binaryproto"),
            "-o",
            str(out),
        ]
    )
    said = capsys.readouterr()
    assert "format: Caffe, layout of 2014" in said.out
    assert "pictures: squash to 256, centre 227 x 227, BGR, minus the mean image (122.7, 116.7, 104.0)" in said.out
    assert "does NOT look trained" in said.out
    assert "Warning: " in said.err
    photo = next((shared / "data" / "imagenet-originals").glob("*.JPEG"))
    main(["predict", str(out), str(photo), "--format", "jsonl"])
    first = json.loads(capsys.readouterr().out)["top"][0]
    assert first["class"].startswith("class ")


def test_import_refuses_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "page.caffemodel").write_text("<html>not found</html>")
    error = fails(capsys, 2, "weights", "import", str(tmp_path / "page.caffemodel"), "-o", str(tmp_path / "x.safetensors"))
    assert "page.caffemodel is a web page" in error
    assert not (tmp_path / "x.safetensors").exists()
    assert "did you mean 'import'" in fails(capsys, 2, "weights", "imprt")


def test_import_never_overwrites_its_source(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nor a run's checkpoint, which holds more than an import keeps."""
    latest = run / "latest.safetensors"
    before = latest.read_bytes()
    for source in (run, latest):
        assert "is the file that is being exported" in fails(capsys, 2, "weights", "import", str(source), "-o", str(latest))
    assert latest.read_bytes() == before
    assert "must end in .safetensors" in fails(capsys, 2, "weights", "import", str(run), "-o", str(tmp_path / "x.onnx"))
    assert not (tmp_path / "x.onnx").exists()


def test_weights_list(capsys: pytest.CaptureFixture[str]) -> None:
    main(["weights", "list"])
    out = capsys.readouterr().out
    assert "caffenet" in out
    assert "57.1" in out
    assert "56.522" in out


def test_weights_verify(shared: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["weights", "verify", str(shared / "weights" / "imagenet-conv1-5.npz")])
    assert "looks trained" in capsys.readouterr().out
    main(["weights", "verify", str(shared / "weights" / "tiny" / "imagenet-mean.binaryproto")])
    assert "is identical to the published 'caffe-mean'" in capsys.readouterr().out
    assert "do not look trained" in fails(capsys, 1, "weights", "verify", str(shared / "weights/tiny/alexnet-v2.caffemodel"))


def test_weights_pull_an_unknown_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean 'caffenet'" in fails(capsys, 2, "weights", "pull", "cafenet")
    assert "is not a network: it is downloaded but not imported" in fails(
        capsys, 2, "weights", "pull", "caffe-mean", "-o", "mean.binaryproto"
    )


def test_export_and_back(run: Path, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    out = tmp_path / "net.onnx"
    main(["export", str(run), "--to", "onnx", "-o", str(out), "--precision", "int8", "--data", str(store.folder)])
    said = capsys.readouterr().out
    assert "18 held-out pictures" in said
    assert "net.onnx: paper" in said
    main(["evaluate", str(out), "--data", str(store.folder)])
    assert "top-1 error" in capsys.readouterr().out
    main(["export", str(run / "best.safetensors"), "--to", "safetensors"])
    assert (run / "best-plain.safetensors").exists()
    error = fails(capsys, 2, "export", str(run), "--to", "torchvision", "-o", str(tmp_path / "x.pth"))
    assert "torchvision's alexnet has" in error
    assert not (tmp_path / "x.pth").exists()


def test_compare(shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo = next((shared / "data" / "imagenet-originals").glob("*.JPEG"))
    weights = shared / "weights" / "tiny" / "alexnet-v2.caffemodel"
    main(["compare", "caffe", "paper", "--weights", str(weights), "--image", str(photo)])
    out = capsys.readouterr().out
    assert "relative L2 distance" in out
    assert "The first difference comes from" in out
    assert "lrn_k 1.0 -> 2.0: changed alone, it first shows at norm1" in out
    error = fails(capsys, 2, "compare", "caffe", "torchvision", "--weights", str(weights), "--image", str(photo))
    assert "do not fit 'torchvision'" in error
    assert "cannot be read" in fails(capsys, 2, "compare", "caffe", "paper", "--weights", str(weights), "--image", str(weights))


def test_engine(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every engine that is installed says the same."""
    draw((200, 50, 40), 1).save(tmp_path / "x.png")
    answers = []
    for engine in ("torch", *(name for name in engines.SERVING if engines.find_spec(name))):
        main(["predict", str(run), str(tmp_path / "x.png"), "--format", "csv", "--engine", engine])
        answers.append([line.split(",")[:3] for line in capsys.readouterr().out.splitlines()])
    assert all(answer == answers[0] for answer in answers)


def test_many_pictures_say_how_fast(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw((200, 50, 40), 1).save(tmp_path / "x.png")
    main(["predict", str(run), *[str(tmp_path / "x.png")] * 200, "--engine", "torch"])
    assert re.search(r"200 pictures in .* per second\. The limit is (decoding|the network)", capsys.readouterr().err)


def test_places_that_cannot_be_written_are_refused_before_the_work(
    run: Path, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file stands where the folder should be (permissions would not stop an administrator);
    missing folders are made.
    """
    (tmp_path / "file").write_text("")
    for words in (
        ["evaluate", run, "--data", store.folder, "--out", tmp_path / "file" / "x"],
        ["evaluate", run, "--data", store.folder, "--json", tmp_path / "file" / "x.json"],
        ["predict", run, "none.jpg", "--sheet", tmp_path / "file" / "x.png"],
        ["export", run, "--to", "npy", "-o", tmp_path / "file" / "x.npy"],
        ["report", run, "--data", store.folder, "--out", tmp_path / "file" / "x.html"],
    ):
        with pytest.raises(SystemExit, match="2"):
            main([str(word) for word in words])
        said = capsys.readouterr()
        assert "cannot be written" in said.err and "choose another path" in said.err and not said.out, words
    main([str(word) for word in ("export", run, "--to", "onnx", "-o", tmp_path / "new" / "folder" / "x.onnx")])
    assert (tmp_path / "new" / "folder" / "x.onnx").exists()
