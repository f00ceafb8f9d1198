"""The table for a user's machine: every row is there, and the numbers are what they say."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from alexnet import bench as benching
from alexnet import cli
from alexnet.bench import Timing, bench, contest, noise, seconds, table
from alexnet.cli.tables import print_table
from alexnet.errors import TrainingError
from alexnet.variants import get_variant

CPU = torch.device("cpu")
SMALL = get_variant("paper", width=1 / 8, input_size=67, num_classes=5)


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is chosen here is not kept for the user."""
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path / "cache"))


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    rows, result = bench(SMALL, CPU, 4, peers=True, compile=False, blocks=2, steps=1)
    header, *cells = table(rows)
    print_table(header, cells)
    assert list(result["rows"]) == [
        "training",
        "naive network",
        "torchvision's",
        "its data path alone",
        "testing (PyTorch, eager)",
        "testing, one by one (PyTorch, eager)",
    ]
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 7 and lines[0].endswith("training is")
    assert ["x (" in line for line in lines[1:]] == [False, True, True, False, False, False]
    for name, row in result["rows"].items():
        low, high = row["range"]
        assert 0 < low <= row["images_per_second"] <= high
        assert (row["share"] is None) == (name == "its data path alone")
    json.dumps(result)


def test_a_rate_is_pictures_over_time() -> None:
    """Sleeping 10 ms for a batch of 5 is 500 pictures a second at most, and not much less."""
    import time

    (row,) = contest({"sleep": lambda: time.sleep(0.01)}, CPU, 5, 1000.0, 3, 4)
    assert 200 < row.rate <= 500 and row.as_json()["share"] == pytest.approx(row.rate / 1000, abs=1e-3)
    assert seconds(lambda: time.sleep(0.01), CPU, 2) >= 0.01


def test_ratios_are_block_by_block() -> None:
    row = Timing("peer", [50.0, 200.0], None, first=[100.0, 100.0])
    assert row.ratios == [2.0, 0.5] and row.as_json()["first_over_this"] == 1.25
    assert replace(row, first=row.rates).as_json()["first_over_this"] is None


def test_a_peer_that_fails_drops_out(capsys: pytest.CaptureFixture[str]) -> None:
    def broken() -> None:
        raise RuntimeError("no compiler\nhere")

    rows = contest({"broken": broken, "works": lambda: None}, CPU, 1, None, 1, 1)
    assert [row.name for row in rows] == ["works"]
    assert "broken cannot run here (RuntimeError: no compiler)." in capsys.readouterr().err


def test_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> list[Timing]:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(benching, "contest", full)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**30, 8 * 2**30))
    with pytest.raises(TrainingError, match=r"batch \(=4\) does not fit .*1.0 of 8.0 GiB.*--batch 2"):
        bench(SMALL, CPU, 4, peers=False, compile=False, blocks=1, steps=1)


def test_noise_is_no_zeros() -> None:
    split = noise(64, 6, 3)
    assert split.records.shape == (6, 6144) and split.records[:, :4096].std() > 50
    assert split.records[:, 4096:].min() >= 100 and split.labels.max() < 3


def test_the_verb_checks_its_batch(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["bench", "--device", "cpu", "--batch", "0"])
    assert "batch (=0) must be at least 1." in capsys.readouterr().err


def test_the_gpus_benchmark_says_that_it_needs_one() -> None:
    script = Path(__file__).parents[1] / "benchmarks/train_gpu.py"
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, script, "1"], env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("No CUDA device is here") and "Traceback" not in done.stderr
