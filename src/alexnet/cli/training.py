"""`alexnet doctor`, `train`, `ablate`, `demo`: each recipe is a subcommand with its own values as defaults."""

import json
import shlex
from contextlib import suppress
from dataclasses import dataclass, replace
from inspect import getdoc
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Union

import tyro
from tyro.conf import Positional, arg, subcommand

from alexnet import paper
from alexnet.cli.next_step import free_folder, next_step
from alexnet.cli.tables import print_line, print_path, print_table
from alexnet.console import say
from alexnet.errors import RecipeError
from alexnet.train import ablations, recipes
from alexnet.train.ablations import ABLATIONS
from alexnet.train.recipes import RECIPES, Recipe

if TYPE_CHECKING:
    from alexnet.train.ablate import Plan
    from alexnet.train.doctor import Diagnosis


@dataclass(frozen=True, kw_only=True)
class Training:
    """What `alexnet train RECIPE` takes."""

    data: Path
    """The store to train on, made by `alexnet prepare`."""
    out: Path
    """Folder for the run: configuration, log, checkpoints."""
    recipe: Recipe
    resume: bool = False
    """Go on from the last checkpoint in --out."""
    seeds: str | None = None
    """Train a family, one network for each of these seeds, consecutive numbers such as 0..9, into seed0, seed1 ... of --out."""
    at_once: int = 1
    """Networks of a family that share a GPU; on a CPU they go one after another."""


@dataclass(frozen=True, kw_only=True)
class Ablating:
    """What `alexnet ablate NAME RECIPE` takes."""

    data: Path
    """The store to train on, made by `alexnet prepare`."""
    seeds: int
    """Networks on each side: seeds 0, 1, 2 ..., or from --seed on."""
    recipe: Recipe
    out: Path = Path("ablations")
    """Folder for all ablations with this recipe on this store, which share the standard side. Run again, it goes on."""
    other_lr: float | None = None
    """Learning rate of the changed side; the recipe's if not given."""
    training_error: float = paper.TANH_TRAINING_ERROR
    """Error to reach, where epochs are counted (tanh)."""


@dataclass(frozen=True, kw_only=True)
class Examination:
    """What `alexnet doctor RECIPE` takes."""

    data: Path
    """The store to train on, made by `alexnet prepare`."""
    recipe: Recipe
    json_file: Annotated[Path | None, arg(name="json")] = None
    """Write the diagnosis there too."""


def _for_each_recipe(command: Any, **values: Any) -> Any:
    """One subcommand for each recipe, with that recipe's values as defaults."""
    return Union[  # noqa: UP007 - built from a table
        tuple(
            Annotated[command, subcommand(name, default=command(recipe=make(), **values), description=getdoc(make))]
            for name, make in RECIPES.items()
        )
    ]


if TYPE_CHECKING:
    TrainingChoice = Training
    AblationChoice = Ablating
    ExaminationChoice = Examination
else:
    TrainingChoice = _for_each_recipe(Training, data=tyro.MISSING, out=tyro.MISSING)
    AblationChoice = _for_each_recipe(Ablating, data=tyro.MISSING, seeds=tyro.MISSING)
    ExaminationChoice = _for_each_recipe(Examination, data=tyro.MISSING)


def doctor(command: ExaminationChoice) -> None:
    """Say before training whether a recipe can work on a store, and if not, why not. Exit status 1 if a cause was found."""
    from alexnet.data.store import Store
    from alexnet.train.doctor import examine
    from alexnet.train.run import write_json

    diagnosis = examine(command.recipe, Store(command.data))
    _print_diagnosis(diagnosis)
    if command.json_file:
        write_json(command.json_file, diagnosis.as_json())
    words = shlex.split(recipes.words(command.recipe))
    if diagnosis.causes:
        say(f"Next: change the recipe or the store as it says above, and run `alexnet doctor {words[0]}` again.")
        raise SystemExit(1)
    next_step("train", *words, "--data", command.data, "--out", free_folder("run"))


def _print_diagnosis(diagnosis: "Diagnosis") -> None:
    rows = []
    for layer in diagnosis.layers:
        dead = "" if layer.dead is None else f"{layer.dead:.0%}"
        norms = [""] * 2 if layer.gradient is None else [f"{layer.gradient:.2g}", f"{layer.update:.1e}"]
        rows.append([layer.name, f"{layer.spread:.4f}", dead, *norms, layer.verdict])
    print_table(["stage", "spread", "dead", "gradient", "update", "verdict"], rows)
    pictures, labels = diagnosis.pictures, diagnosis.labels
    print(f"Input: mean {pictures.mean:.2f}, deviation {pictures.deviation:.2f}")
    if labels.score is not None:
        print(
            f"Labels: thumbnails of {labels.pictures:,} pictures tell them {labels.score:.1f} standard deviations above chance"
        )
    print(f"First loss: {diagnosis.first_loss:.3f}, expected {diagnosis.expected_loss:.3f} and a little more")
    print(f"Trial: {' '.join(f'{loss:.3g}' for loss in diagnosis.trial)}")
    for cause in diagnosis.causes:
        print_line(f"{cause.name} ({cause.field}): {cause}")
    print(f"{'Not healthy' if diagnosis.causes else 'No known failure found'}, examined in {diagnosis.seconds:.1f} s.")


def train(command: TrainingChoice) -> None:
    """Train a network by a recipe. Any field of the recipe can be changed, as with --epochs 100 --lr 0.02."""
    from alexnet.data.store import Store
    from alexnet.train.loop import train as run

    if command.seeds is not None:
        _train_family(command, command.seeds)
    elif command.at_once != 1:
        raise RecipeError(f"at_once (={command.at_once}) is for several networks: name their --seeds.")
    else:
        trained = run(command.recipe, Store(command.data), command.out, command.resume)
        print_line(
            f"{command.out}: held-out top-1 error {trained.state['errors'][-1]:.2%} after {trained.state['epoch']} epochs."
        )


def _train_family(command: Training, seeds: str) -> None:
    from alexnet.data.store import Store
    from alexnet.train import record
    from alexnet.train.family import parse_seeds, train_family

    if command.recipe.seed:
        raise RecipeError(f"seed (={command.recipe.seed}) has no use beside seeds (={seeds}): leave one of them out.")
    store, wanted = Store(command.data), parse_seeds(seeds)
    summary = train_family(command.recipe, store, command.out, wanted, command.resume, command.at_once)
    record.write_family(command.out, command.recipe, store, summary)
    rows = [[f"seed {row['seed']}", f"{row['top1_error']:.2%}", f"{row['seconds']:,.1f}"] for row in summary["members"]]
    deviation = summary["deviation_top1_error"]
    spread = f"{summary['mean_top1_error']:.2%}" + ("" if deviation is None else f" ± {deviation:.2%}")
    mean = [f"mean, n = {summary['n']}", spread, f"{summary['seconds_per_model']:,.1f}"]
    print_table(["", "held-out top-1 error", "seconds a model"], [*rows, mean])
    print_path(command.out / record.README)
    next_step("evaluate", command.out, "--data", command.data, "--average")


def ablate(name: Positional[str], command: AblationChoice) -> None:
    """Train pairs of networks that differ in one thing, and say what it is worth beside what the paper says.

    Without a RECIPE it is small-photos. Any field of the recipe can be changed.

    The standard networks are shared by all ablations in one --out. The same command goes on where it was stopped.

    Args:
        name: what changes.
    """
    from alexnet.data.store import Store
    from alexnet.train import record
    from alexnet.train.ablate import Plan
    from alexnet.train.ablate import ablate as run

    plan = Plan(
        ablation=ablations.get(name), recipe=command.recipe, seeds=command.seeds, other_lr=command.other_lr,
        training_error=command.training_error,
    )  # fmt: skip
    store = Store(command.data)
    outcome = run(plan, store, command.out)
    for line in record.tell(outcome):
        print_line(line)
    print_path(record.write_ablation(outcome, store, command.out) / record.README)
    _next_ablation(plan, command)


def _next_ablation(plan: "Plan", command: Ablating) -> None:
    """Another that this recipe allows and that has not been made: half of its networks are trained already."""
    others = [one for one in ABLATIONS.values() if not (command.out / one.name / "record").exists()]
    for other in others:
        with suppress(RecipeError):
            replace(plan, ablation=other)
            words = shlex.split(recipes.words(command.recipe))
            next_step("ablate", other.name, *words, "--data", command.data, "--seeds", command.seeds, "--out", command.out)
            return
    next_step("summary", command.recipe.variant, "--explain")


def demo(out: Path = Path("demo"), epochs: int | None = None) -> None:
    """Get Fashion-MNIST, train on it, test it and write a report. The last line is one JSON object.

    Args:
        out: folder for the store, the run and the report; run again, it goes on where it was stopped.
        epochs: of the recipe laptop; its own number if not given.
    """
    from alexnet.demo import demo as run

    print(json.dumps(run(out, epochs)))
