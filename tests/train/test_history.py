"""A run's folder read back: half a last line is left out, all other damage is named."""

import json
from pathlib import Path

import pytest

from alexnet.errors import CheckpointError
from alexnet.run_folder import read_log
from alexnet.train import history
from alexnet.train.recipes import RECIPES, get_recipe

GOOD = (
    {"kind": "train", "step": 20, "loss": 2.3, "top1_error": 0.9, "lr": 0.01, "images_per_second": 900.0},
    {"kind": "signals", "step": 20, "spread/conv1": 1.2},
    {"kind": "val", "step": 40, "epoch": 1, "top1_error": 0.8, "top5_error": 0.4},
)


def write(folder: Path, *lines: dict, end: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + end)
    return folder


def test_half_a_last_line(tmp_path: Path) -> None:
    assert read_log(write(tmp_path, *GOOD)) == list(GOOD)
    assert read_log(write(tmp_path, *GOOD, end='{"kind": "train", "st')) == list(GOOD)
    assert read_log(write(tmp_path)) == []


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ({"kind": "train", "step": 20, "top1_error": 0.9, "lr": 0.01}, "loss is missing"),
        ({**GOOD[0], "step": -1}, "step is -1"),
        ({**GOOD[0], "top1_error": "x"}, "top1_error is 'x'"),
        ({**GOOD[2], "epoch": 0}, "epoch is 0"),
        ({**GOOD[2], "top1_error": 7}, "top1_error is 7"),
        ({"step": 1}, "kind is missing"),
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, line: dict, says: str) -> None:
    with pytest.raises(CheckpointError, match=rf"line 2 of .*log\.jsonl is damaged: .*{says}"):
        read_log(write(tmp_path, GOOD[0], line, GOOD[2]))


def test_other_damage(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"log\.jsonl cannot be read: No such file"):
        read_log(tmp_path)
    write(tmp_path, *GOOD, end="{half\n")
    with pytest.raises(CheckpointError, match=r"line 4 of .* is not valid JSON"):
        read_log(tmp_path)
    (tmp_path / "config.json").write_text('{"recipe": {"epochs": "many"}, "store": {}, "compiled": true}')
    with pytest.raises(CheckpointError, match=r"config\.json is damaged: recipe\.epochs is 'many'"):
        history.read(tmp_path)


def test_every_record_reads() -> None:
    """Records of older versions lack fields, and read all the same."""
    folders = sorted(path.parent for path in (Path(__file__).parents[2] / "records").glob("*/seed0/config.json"))
    assert len(folders) > 5
    for folder in folders:
        found = history.read(folder)
        assert found.log and found.recipe.epochs >= 1 and found.environment
    laptop = next(folder for folder in folders if "fashion-mnist-laptop" in str(folder))
    assert history.read(laptop).recipe == get_recipe("laptop") and "laptop" in RECIPES
