"""`alexnet ablate NAME --data STORE --seeds N`: train pairs of networks and measure how they
differ.

    OUT/
    ├── standard/seed0 ...      runs of the standard side, shared by all ablations of this recipe
    └── NAME/
        ├── seed0 ...           runs of the changed side
        └── record/             to publish (record.py): README, curves, each run's settings and log

The two networks of a pair have the same seed: the same pictures in the same batches with the same
crops, mirrors and colours. Their weights at the start are drawn from the same numbers too, but a
layer that is missing or of another width shifts those that follow.

The same command goes on where it was stopped, and with a larger --seeds adds pairs
to those that are there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf, isfinite, log
from pathlib import Path
from statistics import mean

import numpy as np
from numpy.typing import NDArray

from alexnet import engines, paper
from alexnet.data.store import Store
from alexnet.ensemble import evaluate_average
from alexnet.errors import Interrupted, RecipeError, TrainingError
from alexnet.evaluate import Evaluation, evaluate_classifier
from alexnet.run_folder import Log, is_run, member, read_log
from alexnet.study.ablations import Ablation, sides
from alexnet.study.family import is_finished, train_member
from alexnet.study.paired import Difference, difference
from alexnet.train.recipes import MOST_NUMBERS, Recipe
from alexnet.train.result import read_result
from alexnet.train.run import check_settings
from alexnet.train.start import fitting

SMOOTHING = 3  # lines of the log; each is the mean of up to 20 steps
Errors = tuple[float, float]  # top-1 and top-5, shares in [0, 1]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """An ablation of one recipe.

    Attributes:
        recipe: what the standard side is made from; the first pair has its seed.
        seeds: networks on each side.
        other_lr: learning rate of the changed side; the recipe's if None.
        training_error: share to reach, where epochs are measured.
    """

    ablation: Ablation
    recipe: Recipe
    seeds: int
    other_lr: float | None = None
    training_error: float = paper.TANH_TRAINING_ERROR

    def __post_init__(self) -> None:
        nets = self.ablation.nets
        if self.seeds < 1:
            raise RecipeError(f"seeds (={self.seeds}) must be at least 1.")
        if self.seeds > MOST_NUMBERS:
            raise RecipeError(f"seeds (={self.seeds}) must be at most {MOST_NUMBERS}.")
        if self.seeds < nets:
            raise RecipeError(f"seeds (={self.seeds}) must be at least {nets}: each {nets} networks give one comparison.")
        if not 0 < self.training_error < 1:
            raise RecipeError(f"training_error (={self.training_error:g}) must be between 0 and 1.")
        _ = self.pair  # refuses what does not apply

    @cached_property
    def pair(self) -> tuple[Recipe, Recipe]:
        """The standard and the changed recipe."""
        return sides(self.ablation, self.recipe, self.other_lr)

    @property
    def trained(self) -> dict[str, Recipe]:
        """The sides that have networks of their own, by their folders' names."""
        standard, changed = self.pair
        # What both sides change makes another standard, which other ablations do not share.
        name = f"standard-{self.ablation.name}" if self.ablation.both else "standard"
        return {name: standard, self.ablation.name: changed} if self.ablation.trains else {name: standard}

    def runs(self, folder: Path) -> dict[str, list[Path]]:
        """The runs' folders, by side, in the order of the pairs."""
        numbers = range(self.recipe.seed, self.recipe.seed + self.seeds)
        return {side: [member(folder / side, seed) for seed in numbers] for side in self.trained}

    def jobs(self, folder: Path) -> list[tuple[Recipe, Path, str]]:
        """What is to be trained, pair by pair: recipe, folder, and words for it."""
        runs = self.runs(folder)
        return [
            (replace(recipe, seed=self.recipe.seed + pair), runs[side][pair], f"{side}, pair {pair + 1} of {self.seeds}")
            for pair in range(self.seeds)
            for side, recipe in self.trained.items()
        ]


@dataclass(frozen=True)
class Outcome:
    """The results of an ablation.

    Attributes:
        standard, changed: one value for each pair; top-1 error as a share, or epochs
            (infinite: not reached).
        standard5, changed5: top-5 errors; empty where epochs are measured.
        seconds: mean training time of one network, by side.
    """

    plan: Plan
    standard: tuple[float, ...]
    changed: tuple[float, ...]
    standard5: tuple[float, ...]
    changed5: tuple[float, ...]
    seconds: Mapping[str, float]

    @property
    def reached(self) -> bool:
        """Whether every network reached the training error; always so where errors are measured."""
        return all(map(isfinite, self.standard + self.changed))

    @property
    def top1(self) -> Difference:
        """In points of top-1 error; where epochs are measured, of their natural logarithms. They
        must have been reached.
        """
        if self.plan.ablation.measure == "epochs":
            return difference(list(map(log, self.standard)), list(map(log, self.changed)))
        return difference([100 * value for value in self.standard], [100 * value for value in self.changed])

    @property
    def top5(self) -> Difference:
        """In points of top-5 error."""
        return difference([100 * value for value in self.standard5], [100 * value for value in self.changed5])


def ablate(plan: Plan, store: Store, folder: Path) -> Outcome:
    """Train what is missing, pair by pair, and compare.

    Args:
        folder: for all ablations of this recipe on this store.

    Raises:
        RecipeError: plan and store do not fit.
        TrainingError: a run had to stop, or the folder holds runs of other settings.
        Interrupted: the user stopped it; it was saved.
    """
    store = checked(plan, store, folder)
    runs = plan.runs(folder)
    jobs = plan.jobs(folder)
    for recipe, run, _ in jobs:
        is_finished(recipe, store, run)  # refuses a run of another store now, not after hours of training
    try:
        for recipe, run, label in jobs:
            train_member(recipe, store, run, label)
    except Interrupted as stop:
        raise Interrupted from stop
    return _compare(plan, list(runs.values()), store)


def checked(plan: Plan, store: Store, folder: Path) -> Store:
    """The store in pictures of a size that the recipe needs.

    Raises:
        RecipeError: plan and store do not fit.
        TrainingError: the folder is in the way.
    """
    if is_run(folder):
        raise TrainingError(f"{folder} holds a single run, not ablations: choose another folder.")
    for recipe, run, _ in plan.jobs(folder):
        if is_run(run):
            check_settings(run, recipe)
    store = fitting(plan.recipe, store, next(iter(plan.runs(folder).values()))[0])
    size = plan.recipe.crop_size
    if plan.ablation.views > 1 and store.size <= size:
        raise RecipeError(
            f"{plan.ablation.name} needs {plan.ablation.needs}: those of {store.address} have {store.size} pixels, the net "
            f"takes {size}, and all corners would be one crop. Prepare a store with a larger --size, or pass a smaller "
            "--input-size."
        )
    return store


def _compare(plan: Plan, runs: Sequence[Sequence[Path]], store: Store) -> Outcome:
    ended = [[read_result(run) for run in side] for side in runs]
    seconds = {name: mean(one["seconds"] for one in side) for name, side in zip(plan.trained, ended, strict=True)}
    if plan.ablation.measure == "epochs":
        standard, changed = (tuple(epochs_to(plan.training_error, read_log(run)) for run in side) for side in runs)
        return Outcome(plan, standard, changed, (), (), seconds)
    errors = [[(one["evaluation"]["top1_error"], one["evaluation"]["top5_error"]) for one in side] for side in ended]
    if plan.ablation.views > 1:
        networks = (engines.load(run, "torch") for run in runs[0])
        errors.append([_errors(evaluate_classifier(network, store, views=plan.ablation.views)) for network in networks])
    elif plan.ablation.nets > 1:
        errors = _together(errors[0], runs[0], plan.ablation.nets, store)
    (first, first5), (second, second5) = (tuple(zip(*side, strict=True)) for side in errors)
    return Outcome(plan, first, second, first5, second5, seconds)


def _together(alone: Sequence[Errors], runs: Sequence[Path], nets: int, store: Store) -> list[list[Errors]]:
    """For each group of `nets` runs, the mean of their errors and the error of their average; runs
    left over are not used.
    """
    groups = [range(start, start + nets) for start in range(0, len(runs) - nets + 1, nets)]
    means = [(mean(alone[i][0] for i in group), mean(alone[i][1] for i in group)) for group in groups]
    return [
        means,
        [_errors(evaluate_average([engines.load(runs[i], "torch") for i in group], store).plain) for group in groups],
    ]


def _errors(evaluation: Evaluation) -> Errors:
    return evaluation.top1_error, evaluation.top5_error


def epochs_to(error: float, log: Log) -> float:
    """When a run's training error first fell to `error`, in epochs; infinite if it never did.

    The error is that of the batches as they were trained on, averaged over three neighbouring lines
    of the log (up to 60 steps); the moment is on the straight line between the last mean above and
    the first one below.
    """
    epochs, errors = training_errors(log)
    ones = np.ones(min(SMOOTHING, len(errors)))
    places, smooth = (np.convolve(values, ones / len(ones), "valid") for values in (epochs, errors))
    below = np.flatnonzero(smooth <= error)
    if not len(below):
        return inf
    around = slice(max(below[0] - 1, 0), below[0] + 1)
    return float(np.interp(-error, -smooth[around], places[around]))  # interp needs rising values; errors fall here


def training_errors(log: Log) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Epochs (the middle of each line's steps) and top-1 errors on the
    training batches, from a log.
    """
    per_epoch = next(line["step"] / line["epoch"] for line in log if "epoch" in line)
    lines = [line for line in log if line["kind"] == "train"]
    ends = np.array([0, *(line["step"] for line in lines)])
    return (ends[1:] + ends[:-1]) / 2 / per_epoch, np.array([line["top1_error"] for line in lines])
