"""Small runs on the drawn pictures, and how two of them compare."""

from pathlib import Path
from typing import Any

import torch

from alexnet.run_folder import read_log
from alexnet.train import recipes
from alexnet.train.recipes import Recipe
from alexnet.weights import native

SMALL: dict[str, Any] = {"width": 1 / 8, "epochs": 2, "batch_size": 10, "lr": 0.005, "compile": "off", "device": "cpu"}
#: Such a run by options of the command, with chance in crops, mirrors and dropout.
OPTIONS = [
    "--width=0.125",
    "--batch-size=9",
    "--lr=0.02",
    "--compile=off",
    "--device=cpu",
    "--dropout=0.5",
    "--crop",
    "--mirror",
]


def recipe(**changes: Any) -> Recipe:
    """`laptop`, for two epochs of a second in all."""
    return recipes.get_recipe("laptop", **{**SMALL, **changes})


def same_weights(first: Path, second: Path) -> bool:
    """Whether two runs have the same weights and velocities, to the bit."""
    one, two = ({**trained.model.state_dict(), **trained.extra} for trained in map(native.load, (first, second)))
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def log(folder: Path) -> list[dict[str, Any]]:
    """A run's log without what the clock says."""
    return [{key: value for key, value in line.items() if key != "images_per_second"} for line in read_log(folder)]
