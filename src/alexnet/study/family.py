"""Many networks that differ in their seed alone: `alexnet train RECIPE --data STORE
--out FAMILY --seeds 0..9`.

    FAMILY/
    ├── family.json     one row for each finished network; written anew whenever one ends
    ├── README.md       the table: n, mean, deviation, cost, hardware, versions, command
    ├── curves.png      training and held-out error, with bands of one deviation
    └── seed0/ ...      each a run like any other (run.py), with its result.json (result.py)

A network's seed decides its weights at the start, the order of the pictures, the crops and the
dropout, so each member can be trained alone, and again, without the others. A family that was
stopped is finished by the same command and --resume: what has ended stays unchanged, what had begun
goes on from its checkpoint, and no batch is repeated or skipped.

On a CPU the members are trained one after another, since one already fills it. A small network
leaves most of a GPU idle; `--at-once` shares it between several processes.
"""

import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from os import PathLike
from pathlib import Path
from statistics import mean, stdev
from types import FrameType
from typing import Any

from alexnet.console import say
from alexnet.data.store import Store
from alexnet.devices import pick_device
from alexnet.errors import AlexNetError, Interrupted, RecipeError, TrainingError
from alexnet.files import make_folder
from alexnet.run_folder import FAMILY, RESULT, is_run, member, members
from alexnet.train.loop import train
from alexnet.train.recipes import Recipe, numbers
from alexnet.train.result import read_result
from alexnet.train.run import check_is_path, check_same, check_settings, write_json
from alexnet.train.start import fitting


def parse_seeds(text: str) -> tuple[int, ...]:
    """Seeds from "0..9" or "0,1,2".

    Raises:
        RecipeError: no numbers, repeats, falling numbers, or gaps: a family is n seeds in a row, so
            that none can have been left out for its result.
    """
    seeds = numbers("seeds", text)
    missing = sorted(set(range(seeds[0], seeds[-1] + 1)) - set(seeds))
    if missing:
        raise RecipeError(
            f"seeds (={text}) must be consecutive, without gaps; "
            f"{', '.join(map(str, missing[:5]))} missing. Write {seeds[0]}..{seeds[-1]}, or train "
            "the seeds on each side as separate families."
        )
    return seeds


def train_family(
    recipe: Recipe,
    store: Store,
    folder: Path,
    seeds: Sequence[int],
    resume: bool = False,
    at_once: int = 1,
    lanes: int | None = None,
) -> dict[str, Any]:
    """Train one network for each seed, or go on training them.

    Args:
        recipe: of all of them; its own seed is not used.
        folder: the family's folder.
        seeds: consecutive.
        resume: finish what the folder holds unfinished. More seeds than before may
            be given, not fewer.
        at_once: how many share a GPU.
        lanes: of each on a CPU, as in `loop.train`.

    Returns:
        What `family.json` holds: see `summary`.

    Raises:
        RecipeError: recipe and store do not fit, or more than one at once without a GPU.
        TrainingError: the folder is in the way, or a member had to stop.
        Interrupted: the user stopped it; it was saved.
    """
    store = checked(recipe, store, folder, seeds, resume, at_once)
    unfinished = [seed for seed in seeds if not is_finished(replace(recipe, seed=seed), store, member(folder, seed))]
    if at_once > 1:
        _train_together([(replace(recipe, seed=seed), store.given, member(folder, seed)) for seed in unfinished], at_once)
    for number, seed in enumerate(seeds, 1):
        train_member(replace(recipe, seed=seed), store, member(folder, seed), f"seed {seed} ({number} of {len(seeds)})", lanes)
        write_json(folder / FAMILY, summary(folder, seeds[:number], at_once))
    return summary(folder, seeds, at_once)


def checked(recipe: Recipe, store: Store, folder: Path, seeds: Sequence[int], resume: bool, at_once: int) -> Store:
    """The store in pictures that fit the recipe, once it is clear that the family may be trained.

    Raises:
        RecipeError, TrainingError: as `train_family`.
    """
    check_at_once(recipe, at_once)
    _check_folder(folder, seeds, resume)
    for seed in seeds:
        if is_run(run := member(folder, seed)):
            check_settings(run, replace(recipe, seed=seed))
    return fitting(recipe, store, member(folder, seeds[0]))


def train_member(recipe: Recipe, store: Store, folder: Path, label: str, lanes: int | None = None) -> None:
    """Train one run to its end, unless it has been."""
    if not is_finished(recipe, store, folder):
        say(f"{folder}: {label}")
        train(recipe, store, folder, resume=is_run(folder), lanes=lanes, compared=True)


def is_finished(recipe: Recipe, store: Store, folder: Path) -> bool:
    """Whether a run has ended.

    Raises:
        TrainingError: it has, or had begun, with another recipe or store.
    """
    if not is_run(folder):
        return False
    check_same(folder, recipe, store)
    return (folder / RESULT).exists()


def summary(folder: Path, seeds: Iterable[int], at_once: int = 1) -> dict[str, Any]:
    """Rows of the finished runs, and their mean and deviation; errors are shares in [0, 1].

    `seconds_per_model` is the mean of the runs' own training times, divided by the
    number that ran at once.
    """
    rows = []
    for seed in seeds:
        one = read_result(member(folder, seed))
        evaluation = one["evaluation"]
        rows.append(
            {
                "seed": seed,
                "top1_error": evaluation["top1_error"],
                "top5_error": evaluation["top5_error"],
                "seconds": one["seconds"],
                "weights_sha256": one["weights"]["sha256"],
            }
        )
    errors = [row["top1_error"] for row in rows]
    return {
        "members": rows,
        "n": len(rows),
        "mean_top1_error": mean(errors),
        "deviation_top1_error": stdev(errors) if len(errors) > 1 else None,
        "seconds_per_model": mean(row["seconds"] for row in rows) / at_once,
        "at_once": at_once,
    }


def _check_folder(folder: Path, seeds: Sequence[int], resume: bool) -> None:
    check_is_path(folder)
    if is_run(folder):
        raise TrainingError(f"{folder} holds a single run, not a family: choose another folder.")
    if resume and not folder.exists():
        raise TrainingError(f"{folder} does not exist, so there is nothing to resume: drop --resume to start.")
    if not resume and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise TrainingError(f"{folder} is not empty: add --resume if it holds this family, or choose another folder.")
    left_out = [run.name for run in members(folder) if run not in [member(folder, seed) for seed in seeds]]
    if left_out:
        raise TrainingError(f"{folder} holds {', '.join(left_out[:5])} too, which seeds (={seeds[0]}..{seeds[-1]}) leave out.")


# --- several on one GPU ---------------------------------------------------------------------------

TrainingJob = tuple[Recipe, str | PathLike[str], Path]  # recipe, store, run


def check_at_once(recipe: Recipe, at_once: int) -> None:
    """Refuse a number of runs at once that makes no sense here."""
    if at_once < 1:
        raise RecipeError(f"at_once (={at_once}) must be at least 1.")
    if at_once > 1 and pick_device(recipe.device).type == "cpu":
        raise RecipeError(f"at_once (={at_once}) works on a GPU only, as a single run keeps a CPU busy: drop --at-once.")


def _train_together(jobs: Sequence[TrainingJob], at_once: int) -> None:
    """Train each job in a process of its own, `at_once` of them at a time. What they say goes
    into their folders' .txt.
    """
    context = multiprocessing.get_context("spawn")
    waiting, failed = deque(jobs), list[Path]()
    running: dict[Path, SpawnProcess] = {}
    earlier = signal.signal(signal.SIGTERM, _as_interrupt)
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                job = waiting.popleft()
                make_folder(job[2].parent, TrainingError)
                process = context.Process(target=_job, args=(job,))
                process.start()
                running[job[2]] = process
                say(f"{job[2]}: started; its messages go to {job[2]}.txt")
            wait([process.sentinel for process in running.values()])
            for folder in [folder for folder, process in running.items() if process.exitcode is not None]:
                failed += [folder] if running.pop(folder).exitcode else []
    except KeyboardInterrupt:
        raise Interrupted("stopped; every run was saved. To continue, run the same command with --resume.") from None
    finally:
        for process in running.values():
            process.terminate()  # SIGTERM: the run saves and ends
        for process in running.values():
            process.join()
        signal.signal(signal.SIGTERM, earlier)
    if failed:
        names = ", ".join(f"{folder}.txt" for folder in failed)
        raise TrainingError(
            f"{len(failed)} of {len(jobs)} runs had to stop; see {names} for the reasons. To continue, add --resume."
        )


def _as_interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt


def _job(job: TrainingJob) -> None:
    """One run in its own process."""
    recipe, store, folder = job
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # Ctrl-C reaches the family alone, which asks each run once: a second asking would stop it unsaved
    with open(f"{folder}.txt", "a", encoding="utf-8") as sys.stderr:
        try:
            train(recipe, Store(store), folder, resume=is_run(folder), compared=True)
        except AlexNetError as error:
            say(f"alexnet: {error}")
            raise SystemExit(1) from None
