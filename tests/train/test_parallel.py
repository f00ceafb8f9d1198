"""Several ranks train as one process does, by number: every scheme, every variant, dropout on."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from in_ranks import AGAIN, Case, cases
from safetensors.torch import load_file
from torch import Tensor

from alexnet.data.store import Store

#: Of the largest entry of each tensor.
LIMITS = {True: 1e-12, False: 1e-5}


@pytest.fixture(scope="module")
def results(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("in_ranks")
    script = Path(__file__).with_name("in_ranks.py")
    done = subprocess.run(
        [sys.executable, "-W", "error", script, store.folder, folder], capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr
    return folder


def read(folder: Path, case: Case) -> dict[str, Tensor]:
    return load_file(folder / f"{case.name}.safetensors")


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_equal_to_one_process(results: Path, case: Case) -> None:
    """The gradients of the first step; weights, velocity and loss after 20."""
    ours, alone = read(results, case), read(results, case.alone)
    assert ours.keys() == alone.keys() and sum(name.startswith("gradient.") for name in ours) == 16
    for name, expected in alone.items():
        difference = (ours[name] - expected).abs().max()
        assert difference <= LIMITS[case.double] * expected.abs().max(), f"{name}: {difference / expected.abs().max():.1e}"
    assert ours["wrong"] == alone["wrong"]


@pytest.mark.parametrize("case", AGAIN, ids=lambda case: case.name)
def test_same_ranks_same_bits(results: Path, case: Case) -> None:
    first, second = read(results, replace(case, again=0)), read(results, case)
    assert all(torch.equal(first[name], second[name]) for name in first)
