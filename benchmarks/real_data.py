"""The fused step against the plain one on photos: do they learn alike, and does
the network get as good?

    python benchmarks/real_data.py --data STORE    # paper-2012 and modern, three seeds each
    python benchmarks/real_data.py --data STORE --epochs 30 --out RUNS --part accuracy
    python benchmarks/real_data.py --data STORE --device cpu --recipe laptop --part curves \\
        --width 0.5 --input-size 64

Plain is float32, operation by operation, not compiled (`fused="off"`); fused is the step of
`train/steps/fused.py` in bfloat16, as it trains on a GPU. On a CPU its kernels are their reference,
so that all of this runs there too, at small size.

1. Curves. For each seed three runs of `--steps` steps, from the same weights, on the same batches:

       plain    float32
       other    plain again, with other draws of dropout (of crops and mirrors where the recipe
                drops nothing)
       fused    bfloat16, with the draws of plain

   The mean loss over each 20 steps is a curve. other - plain is what two correct float32 runs
   differ by: the noise. Its deviation over the seeds gives Student's 95 % interval for fused -
   plain. Two numbers decide:

       level       the mean over the whole curve of fused - plain, with its sign, must be within
                   the noise's interval;
       distance    the largest |fused - plain| of any 20 steps, a mean over the seeds, must not
                   exceed the upper end of what another set of float32 pairs would show
                   (mean + t s sqrt(2 / n)).

   A correct step fails the first in one of 20 trials, the second in one of 40 or fewer. The
   intervals of single rows are for reading: of 15 rows a correct step may well leave one.

2. Accuracy. Both paths to the recipe's end for each seed (`alexnet train --seeds`), held-out
   top-1 error. The paths are equal within noise if the 95 % interval of the paired difference
   holds zero; its half width says what could have been seen. Seconds are the runs' own,
   evaluation and checkpoints included.

It exits with 1 if the two differ. The last line is one JSON object.
"""

import argparse
import json
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from alexnet.arithmetic import Dropout
from alexnet.data.chance import AUGMENT, DROPOUT, Chance, Numbers, Pictures
from alexnet.data.store import Store
from alexnet.devices import pick_device, pick_precision, set_precision
from alexnet.errors import AlexNetError, Interrupted
from alexnet.run_folder import environment
from alexnet.study.family import train_family
from alexnet.study.paired import difference, t_quantile
from alexnet.train import recipes
from alexnet.train.optim import schedule, warmup
from alexnet.train.recipes import Recipe
from alexnet.train.start import Start, fitting
from alexnet.train.steps.choose import wants_fused
from alexnet.train.steps.fused import open_fused_step
from alexnet.train.steps.plain import PlainStep, loss_function
from alexnet.train.steps.step import Step

WINDOW = 20  # steps, as training logs them
RECIPES = ["paper-2012", "modern"]
PARTS = ["curves", "accuracy"]
SEEDS = 3
OTHER = 1_000_000  # from a seed to that of other draws
PATHS: dict[str, dict[str, Any]] = {
    "plain": {"fused": "off", "precision": "fp32", "compile": "off"},
    "fused": {"fused": "on", "precision": "bf16"},
}

Curve = NDArray[np.float64]  # (windows,), mean losses


def recipe_of(name: str, device: torch.device, epochs: int = 0, **changes: Any) -> Recipe:
    """A named recipe with changes, None being none.

    Args:
        epochs: at most so many, the drops of the learning rate moved in
            proportion; the recipe's own if 0.
    """
    recipe = recipes.get_recipe(name, device=device.type, **{key: value for key, value in changes.items() if value is not None})
    if not 0 < epochs < recipe.epochs:
        return recipe
    drops = tuple(round(drop * epochs / recipe.epochs, 3) for drop in recipe.lr_drops)
    return replace(recipe, epochs=epochs, lr_drops=drops)


# --- curves ---------------------------------------------------------------------------------------


class OtherDraws(PlainStep):
    """The plain step with draws of its own: of dropout, or of crops and mirrors
    where nothing is dropped.
    """

    def chance(self, epoch: int) -> Chance:
        """Other crops or dropout for the same order of pictures."""
        drops = any(isinstance(op, Dropout) and op.rate for op in self.model.ops)
        return OtherChance(self.loader.seed, epoch, DROPOUT if drops else AUGMENT)


@dataclass(frozen=True)
class OtherChance(Chance):
    """Chance with another seed's numbers for one purpose."""

    purpose: int

    def numbers(self, purpose: int, pictures: Pictures, count: int) -> Numbers:
        """As the seed's own, or another's."""
        seed = self.seed + OTHER if purpose == self.purpose else self.seed
        return Chance(seed, self.epoch).numbers(purpose, pictures, count)


class Course:
    """One run of a recipe, step by step, without evaluation or files."""

    def __init__(self, recipe: Recipe, store: Store) -> None:
        self.recipe, self.store, self.device = recipe, store, pick_device(recipe.device)
        self.start = Start.fresh(recipe, store, self.device)
        self.start.model.train()

    def plain(self, steps: int, kind: type[PlainStep] = PlainStep) -> Curve:
        """By the plain step in float32."""
        set_precision("fp32", self.device)
        start = self.start
        loss = loss_function(start.model, False, self.recipe.label_smoothing)
        return self._walk(steps, kind(start.model, loss, start.optimiser, start.loader, start.augmentation))

    def fused(self, steps: int) -> Curve:
        """By the fused step in bfloat16."""
        precision = pick_precision("bf16", self.device, True)
        set_precision(precision, self.device)
        return self._walk(steps, open_fused_step(self.start, self.store.held_out, precision))

    def _walk(self, steps: int, step: Step) -> Curve:
        """The learning rate as in training."""
        per_epoch, found = self.start.loader.steps_per_epoch, []
        recipe = replace(self.recipe, epochs=max(self.recipe.epochs, math.ceil(steps / per_epoch)))
        try:
            for number in range(steps):
                now = number / per_epoch
                lr = recipe.lr * warmup(recipe, now + 1 / per_epoch)
                step.take(*divmod(number, per_epoch), lr, schedule(recipe, now, ()))
                if (number + 1) % WINDOW == 0:
                    found.append(step.collect()[0] / WINDOW)
        finally:
            step.close()
        return np.array(found)


@dataclass(frozen=True)
class Curves:
    """Mean losses, (seeds, windows) each, and what follows from them."""

    plain: Curve
    other: Curve
    fused: Curve

    @property
    def noise(self) -> Curve:
        """Differences between two runs of the plain step that differ in chance alone."""
        return self.other - self.plain

    @property
    def difference(self) -> Curve:
        """Differences between the fused step and the plain one."""
        return self.fused - self.plain

    def half(self, noise: Curve) -> Curve:
        """Half the 95 % interval of the mean of pairs with the deviation of `noise`,
        (seeds, ...).
        """
        n = len(noise)
        return np.asarray(t_quantile(n - 1) * noise.std(0, ddof=1) / math.sqrt(n))

    @property
    def level(self) -> tuple[float, float]:
        """fused - plain over the whole curve, and the half interval that it must lie in."""
        return float(self.difference.mean()), float(self.half(self.noise.mean(1)))

    @property
    def distance(self) -> tuple[float, float]:
        """The largest difference of a window, and its limit; means over the seeds."""
        farthest = np.abs(self.noise).max(1)
        limit = farthest.mean() + math.sqrt(2) * self.half(farthest)
        return float(np.abs(self.difference).max(1).mean()), float(limit)

    @property
    def agree(self) -> bool:
        """Not so either if a loss is no longer finite."""
        (level, half), (distance, limit) = self.level, self.distance
        return abs(level) <= half and distance <= limit

    def as_json(self) -> dict[str, Any]:
        """Plain data, with the curves rounded to five digits."""
        curves = {name: getattr(self, name).round(5).tolist() for name in ("plain", "other", "fused")}
        return {"level": self.level, "distance": self.distance, "agree": self.agree, **curves}


def curves(recipe: Recipe, store: Store, steps: int, seeds: int) -> Curves:
    """Three runs for each seed."""
    found: dict[str, list[Curve]] = {"plain": [], "other": [], "fused": []}
    for seed in range(seeds):
        seeded = replace(recipe, seed=seed)
        found["plain"].append(Course(seeded, store).plain(steps))
        found["other"].append(Course(seeded, store).plain(steps, OtherDraws))
        found["fused"].append(Course(seeded, store).fused(steps))
    return Curves(*(np.stack(found[name]) for name in ("plain", "other", "fused")))


def print_curves(name: str, found: Curves) -> None:
    """One row for each 20 steps, means over the seeds, then the two numbers that decide."""
    print(f"\n{name}, loss, {len(found.plain)} seeds")
    print(f"{'steps':>12}{'plain':>10}{'fused':>10}{'fused - plain':>15}{'noise, 95 %':>14}")
    rows = zip(found.plain.mean(0), found.fused.mean(0), found.difference.mean(0), found.half(found.noise), strict=True)
    for number, (plain, fused, apart, half) in enumerate(rows):
        steps = f"{number * WINDOW + 1}-{(number + 1) * WINDOW}"
        outside = " *" if abs(apart) > half else ""
        print(f"{steps:>12}{plain:10.4f}{fused:10.4f}{apart:+15.4f}{f'+-{half:.4f}':>14}{outside}")
    (level, half), (distance, limit) = found.level, found.distance
    print(f"{'level':>12}: {level:+.5f}, noise +-{half:.5f}")
    print(f"{'distance':>12}: {distance:.5f}, noise at most {limit:.5f}")
    print(f"{name}: the fused step's loss is {'within' if found.agree else 'OUTSIDE'} the noise of float32", flush=True)


# --- accuracy -------------------------------------------------------------------------------------


def accuracy(recipe: Recipe, store: Store, folder: Path, seeds: int) -> dict[str, Any]:
    """Both paths to the end; what is finished in `folder` is not trained again."""
    families = {}
    for path, fields in PATHS.items():
        place = folder / path
        families[path] = train_family(replace(recipe, **fields), store, place, range(seeds), resume=place.exists())
    errors = {path: [one["top1_error"] for one in family["members"]] for path, family in families.items()}
    found = difference(errors["plain"], errors["fused"])
    spent = {path: family["seconds_per_model"] for path, family in families.items()}
    return {"errors": errors, "difference": found.mean, "half": found.half, "agree": not found.shown, "seconds": spent}


def print_accuracy(name: str, found: dict[str, Any]) -> None:
    """Mean and deviation of each path in percent, the difference in points."""
    print(f"\n{name}, held-out top-1 error, {len(found['errors']['plain'])} seeds")
    for path, errors in found["errors"].items():
        print(f"{path:>12}: {100 * mean(errors):.2f} +- {100 * stdev(errors):.2f} %, {found['seconds'][path]:.1f} s a network")
    half = "" if found["half"] is None else f" +- {100 * found['half']:.2f}"
    print(f"{'difference':>12}: {100 * found['difference']:+.2f}{half} points, fused - plain")
    verdict = "equal within noise" if found["agree"] else "DIFFERENT"
    if found["half"] is None:
        verdict = "equal" if not found["difference"] else "apart by the same in every pair, which gives no interval"
    print(f"{name}: the paths' errors are {verdict}", flush=True)


# --- the command ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Photos:
    """A store, and the recipes to compare the paths on."""

    store: Store
    named: dict[str, Recipe]


def opened(arguments: argparse.Namespace, device: torch.device, **changes: Any) -> Photos:
    """As asked.

    Raises:
        AlexNetError: store, recipe and device do not fit.
    """
    store = Store(arguments.data)
    named = {name: recipe_of(name, device, arguments.epochs, **changes) for name in arguments.recipe}
    for recipe in named.values():
        fitting(recipe, store)
        wants_fused(replace(recipe, fused="on"), recipe.network(len(store.classes)), device)
    return Photos(store, named)


def one_part(part: str, name: str, recipe: Recipe, store: Store, arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Curves or accuracy of one recipe, printed; as plain data."""
    if part == "curves":
        curved = curves(recipe, store, arguments.steps, arguments.seeds)
        print_curves(name, curved)
        return curved.as_json()
    reached = accuracy(recipe, store, folder, arguments.seeds)
    print_accuracy(name, reached)
    return reached


def compare(photos: Photos, arguments: argparse.Namespace, parts: Sequence[str] = PARTS) -> dict[str, Any]:
    """All parts for all recipes, printed; as plain data."""
    found: dict[str, Any] = {part: {} for part in parts}
    with tempfile.TemporaryDirectory() as temporary:
        out = arguments.out or Path(temporary)
        for part in parts:
            for name, recipe in photos.named.items():
                try:
                    found[part][name] = one_part(part, name, recipe, fitting(recipe, photos.store), arguments, out / name)
                except Interrupted:
                    raise
                except (AlexNetError, torch.cuda.OutOfMemoryError) as error:  # the rest is worth having
                    print(f"{name}: {part} FAILED: {error}", flush=True)
                    found[part][name] = {"agree": False, "error": str(error)}
    return found | {"agree": all(one["agree"] for part in parts for one in found[part].values())}


def add_arguments(parser: argparse._ActionsContainer) -> None:
    """What `train_gpu.py` takes too."""
    parser.add_argument("--recipe", nargs="+", default=RECIPES, metavar="NAME", help="what to compare the paths on")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="of each comparison, from 0 on; at least 2")
    parser.add_argument("--steps", type=int, default=300, help="of each curve, whole windows of 20")
    parser.add_argument("--epochs", type=int, default=0, help="at most, the schedule with them; 0 for the recipe's own")
    parser.add_argument("--out", type=Path, help="keep the trained networks here and continue with those that are here")


def check(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Refuse what no interval can be drawn from."""
    if arguments.seeds < 2:
        parser.error(f"seeds (={arguments.seeds}) must be at least 2: one pair has no deviation.")
    if arguments.steps < WINDOW or arguments.steps % WINDOW:
        parser.error(f"steps (={arguments.steps}) must be a multiple of {WINDOW}: curves are means over so many steps.")


def main() -> None:
    """Compare the two steps and print the line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, metavar="STORE", help="a store, as `alexnet prepare` makes it")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--part", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--width", type=float)
    parser.add_argument("--input-size", type=int)
    parser.add_argument("--batch-size", type=int)
    add_arguments(parser)
    arguments = parser.parse_args()
    check(parser, arguments)
    changes = {name: getattr(arguments, name) for name in ("width", "input_size", "batch_size")}
    try:
        found = compare(opened(arguments, pick_device(arguments.device), **changes), arguments, arguments.part)
    except AlexNetError as error:
        raise SystemExit(str(error)) from None
    given = {name: str(value) if isinstance(value, Path) else value for name, value in vars(arguments).items()}
    print(json.dumps({"benchmark": "real_data", "arguments": given, **found, "environment": environment()}))
    if not found["agree"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
