"""What ranks give to each other in a step of training is what `alexnet.traffic` counts: seen by
standing between them and torch.distributed, in real processes.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from alexnet.traffic import SCHEMES, count
from alexnet.variants import get_variant

SCRIPT = Path(__file__).parents[1] / "benchmarks/train_ranks.py"
SMALL = ("--width", "0.125", "--input-size", "64")


def ran(*words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(SCRIPT), *SMALL, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""})


def result(done: "subprocess.CompletedProcess[str]") -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_four_ranks_give_what_is_predicted() -> None:
    """9 pictures, which they do not divide, in each scheme."""
    found = result(ran("--ranks", "4", "--batch", "9", "--blocks", "0", "--scheme", *SCHEMES))
    assert set(found) == set(SCHEMES)
    for scheme, one in found.items():
        assert one["as_predicted"], f"{scheme}: {one['not_predicted']} instead of {one['not_seen']}"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the loopback's count is Linux's")
def test_two_ranks_against_one_process() -> None:
    """What goes over the loopback is what a ring sends, and a little more for each message's head;
    others may use it too.
    """
    done = ran("--ranks", "2", "--batch", "8", "--blocks", "1", "--steps", "1")
    found = result(done)
    row = found["rows"]["data"]
    assert row["as_predicted"] and {"one 1", "one 2", "data"} == set(found["rows"])
    assert row["bytes_predicted"] == row["bytes_by_gloo"] <= row["bytes_on_loopback"]
    assert row["predicted_hidden"] < row["predicted_waiting"] and row["seconds"] > 0
    assert "as predicted" in done.stdout and "NOT" not in done.stdout


def test_a_wrong_prediction_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import train_ranks

    traffic = count(get_variant("paper"), "data", batch=8, ranks=2)
    seen = [[*key, number] for key, number in train_ranks.predicted(traffic).items()]
    assert train_ranks.compared({"seen": seen, "sent": 0}, traffic)["as_predicted"]
    seen[0][2] -= 4
    wrong = train_ranks.compared({"seen": seen, "sent": 0}, traffic)
    assert not wrong["as_predicted"] and wrong["not_predicted"] == [seen[0]] and len(wrong["not_seen"]) == 1
