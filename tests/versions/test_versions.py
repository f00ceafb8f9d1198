"""What earlier versions wrote opens, gives what it gave, and goes on. `make.py` made the
archives.
"""

import json
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from alexnet import engines
from alexnet.cli import main
from alexnet.data.store import Store
from alexnet.errors import CheckpointError, StoreError
from alexnet.evaluate import probabilities
from alexnet.train.history import read_config
from alexnet.train.loop import train
from alexnet.train.result import verify_run

ARCHIVES = sorted(Path(__file__).parent.glob("*.tar.xz"))


@pytest.fixture(params=ARCHIVES, ids=lambda path: path.name.removesuffix(".tar.xz"))
def earlier(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    with tarfile.open(request.param) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def test_there_is_one_of_this_version() -> None:
    assert Path(__file__).with_name("0.1.0.tar.xz") in ARCHIVES


def test_it_is_what_it_was(earlier: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Store and run are whole, and the network gives the same probabilities, to the rounding of
    another processor's float32 sums of up to 288 terms.
    """
    expected = json.loads((earlier / "expected.json").read_text())
    store = Store(earlier / "store")
    assert store.fingerprint == expected["fingerprint"] and store.verify() == []
    assert verify_run(earlier / "run", earlier / "store") == []
    classifier = engines.load(earlier / "run", "torch")
    records = torch.from_numpy(np.array(store.held_out.records))
    given = probabilities(classifier.network, classifier.preprocessing, records, 1)
    np.testing.assert_allclose(given.numpy(), expected["probabilities"], atol=1e-5)
    main(["evaluate", str(earlier / "run"), "--data", str(earlier / "store")])
    assert "top-1 error" in capsys.readouterr().out


def test_a_run_goes_on(earlier: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And says that chance draws in another way since then, once."""
    config = read_config(earlier / "run")
    store = Store(earlier / "store")
    recipe = replace(config.recipe, epochs=3)
    train(recipe, store, earlier / "run", resume=True)
    assert read_config(earlier / "run").recipe.epochs == 3 and verify_run(earlier / "run", earlier / "store") == []
    told = "drew crops, mirrors, colours and dropout by (seed, epoch, step) until now"
    assert capsys.readouterr().err.count(told) == 1
    assert json.loads((earlier / "run" / "result.json").read_text())["drawn_by"] == ["step", "picture"]
    train(replace(recipe, epochs=4), store, earlier / "run", resume=True)
    assert told not in capsys.readouterr().err


def test_files_of_a_later_format_are_refused_by_its_number(earlier: Path) -> None:
    def later(path: Path) -> None:
        content: dict[str, Any] = json.loads(path.read_text())
        path.write_text(json.dumps(content | {"format": 9}))

    later(earlier / "store" / "manifest.json")
    with pytest.raises(StoreError, match=r"is a store of format 9, but this version of alexnet reads format 1"):
        Store(earlier / "store")
    later(earlier / "run" / "config.json")
    with pytest.raises(CheckpointError, match=r"config.json is of format 9, but this version of alexnet reads format 1"):
        read_config(earlier / "run")
    path = earlier / "run" / "latest.safetensors"
    with safe_open(path, "pt") as file:
        tensors, header = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    save_file(tensors, path, header | {"format": "alexnet 9"})
    with pytest.raises(CheckpointError, match=r"is of format 9, but this version of alexnet reads format 1"):
        engines.load(earlier / "run")
