"""`alexnet ablate`: pairs of networks that differ in one thing."""

import shlex
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import tyro
from tyro.conf import Positional

from alexnet import paper
from alexnet.cli.next_step import next_step
from alexnet.cli.options import Data, for_each_recipe
from alexnet.cli.tables import print_line, print_path
from alexnet.errors import RecipeError
from alexnet.study import ablations
from alexnet.study.ablations import ABLATIONS
from alexnet.train import recipes
from alexnet.train.recipes import Recipe

if TYPE_CHECKING:
    from alexnet.study.ablate import Plan


@dataclass(frozen=True, kw_only=True)
class Ablating:
    """Options of `alexnet ablate NAME RECIPE`."""

    data: Data
    """The store to train on, made by `alexnet prepare`."""
    seeds: int
    """Networks on each side of the comparison: seeds 0, 1, 2 ..., or counted from --seed."""
    recipe: Recipe
    out: Path = Path("ablations")
    """Folder for all ablations with this recipe on this store; they share the unchanged networks.
    An interrupted ablation continues.
    """
    other_lr: float | None = None
    """Learning rate of the changed side; the recipe's if not given."""
    training_error: float = paper.TANH_TRAINING_ERROR
    """Training stops at this error, if the ablation compares epochs (tanh)."""


if TYPE_CHECKING:
    AblationChoice = Ablating
else:
    AblationChoice = for_each_recipe(Ablating, data=tyro.MISSING, seeds=tyro.MISSING)


def ablate(name: Positional[str], command: AblationChoice) -> None:
    """Train pairs of networks that differ in one thing, and compare the difference
    in error with the paper's.

    The default RECIPE is small-photos. Any field of the recipe can be changed.

    All ablations in one --out share the unchanged networks. If interrupted, the same command
    continues.

    Args:
        name: the change.
    """
    from alexnet.data.store import Store
    from alexnet.study import record
    from alexnet.study.ablate import Plan, checked
    from alexnet.study.ablate import ablate as run

    plan = Plan(
        ablation=ablations.get_ablation(name),
        recipe=command.recipe,
        seeds=command.seeds,
        other_lr=command.other_lr,
        training_error=command.training_error,
    )
    store = checked(plan, Store(command.data), command.out)
    outcome = run(plan, store, command.out)
    for line in record.tell(outcome):
        print_line(line)
    print_path(record.write_ablation(outcome, store, command.out) / record.README)
    _next_ablation(plan, command)


def _next_ablation(plan: "Plan", command: Ablating) -> None:
    """Another ablation that this recipe allows and that is not done yet; half of its networks are
    already trained.
    """
    others = [one for one in ABLATIONS.values() if not (command.out / one.name / "record").exists()]
    for other in others:
        with suppress(RecipeError):
            replace(plan, ablation=other)
            words = shlex.split(recipes.words(command.recipe))
            next_step("ablate", other.name, *words, "--data", command.data, "--seeds", command.seeds, "--out", command.out)
            return
    next_step("summary", command.recipe.variant, "--explain")
