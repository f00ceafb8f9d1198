"""`alexnet doctor`, `train`, `ablate`, `demo`: each recipe is a subcommand with its own values as defaults."""

import json
import shlex
from contextlib import suppress
from dataclasses import dataclass, replace
from inspect import getdoc
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Union

import tyro
from tyro.conf import Positional, arg, subcommand

from alexnet import intervals, paper
from alexnet.cli.next_step import command_line, free_folder, next_step
from alexnet.cli.tables import print_line, print_path, print_table
from alexnet.console import say
from alexnet.errors import RecipeError
from alexnet.study import ablations
from alexnet.study.ablations import ABLATIONS
from alexnet.train import recipes
from alexnet.train.recipes import RECIPES, Recipe

if TYPE_CHECKING:
    from alexnet.data.store import Store
    from alexnet.study.ablate import Plan
    from alexnet.train.health.doctor import Diagnosis


@dataclass(frozen=True, kw_only=True)
class Training:
    """What `alexnet train RECIPE` takes."""

    data: Path
    """The store to train on, made by `alexnet prepare`."""
    out: Path
    """Folder for the run: configuration, log, checkpoints."""
    recipe: Recipe
    resume: bool = False
    """Go on from the last checkpoint in --out, with the settings that it has. More --epochs than before continue a finished
    run: from there on its learning rate follows the schedule of that many epochs."""
    overwrite: bool = False
    """Delete the run in --out and begin anew. Files that are not a run's stay, and a folder that holds no run is refused."""
    config: Path | None = None
    """Repeat a run: its folder or its config.json. Settings, store and recipe are taken from there, except for those given;
    without --out the new run's folder is named after the old one's, as in run2."""
    seeds: str | None = None
    """Train a family, one network for each of these seeds, consecutive numbers such as 0..9, into seed0, seed1 ... of --out."""
    at_once: int = 1
    """Networks of a family that share a GPU; on a CPU they are trained one after another."""


@dataclass(frozen=True, kw_only=True)
class Ablating:
    """What `alexnet ablate NAME RECIPE` takes."""

    data: Path
    """The store to train on, made by `alexnet prepare`."""
    seeds: int
    """Networks on each side: seeds 0, 1, 2 ..., or from --seed on."""
    recipe: Recipe
    out: Path = Path("ablations")
    """Folder for all ablations with this recipe on this store; they share the standard side. An interrupted one continues."""
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
    """Also write the diagnosis to this file."""


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
    """Check before training whether a recipe can work on a store, and if not, why. The exit status is 1 if it cannot."""
    from alexnet.data.store import Store
    from alexnet.train.health.doctor import examine
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


class Begun(NamedTuple):
    """A run whose settings a command takes: the words that are left, and what stands in for those that are not given."""

    words: list[str]
    default: Training


def begun(words: list[str]) -> Begun | None:
    """What `train --config RUN` and `train --resume --out RUN` take from the run; None if the command names no such run.

    Args:
        words: what follows `alexnet train`.

    Raises:
        RecipeError: the command names another recipe than the run's.
        TrainingError: the run's configuration is damaged.
    """
    named, rest = ([words[0]], words[1:]) if words and not words[0].startswith("-") else ([], words)
    given, out, family = (_value(rest, option) for option in ("--config", "--out", "--seeds"))
    resumed = "--resume" in rest and out is not None and family is None and (Path(out) / "config.json").exists()
    if given is None and not resumed:
        return None
    from alexnet.train.history import read_config

    source = Path(given or out or "")
    config = read_config(source)
    differing = {name: len(recipes.differences(make(), config.recipe)) for name, make in RECIPES.items()}
    if named and differing.get(named[0], inf) > min(differing.values()):
        if given is None:
            return None  # begun with so many changes that its recipe cannot be told: the flags must be given again
        raise RecipeError(f"{source} is a run of {recipes.closest(config.recipe)}, not of {named[0]}: leave out the recipe.")
    folder = source if source.is_dir() else source.parent
    if given and config.extended:
        steps = " and ".join(str(one.epochs) for one in config.extended)
        say(f"{source} was begun with {steps} epochs and continued to {config.recipe.epochs}; this run trains them in one go.")
    recipe = replace(config.recipe, seed=0) if family else config.recipe
    own = folder if "--resume" in rest else Path(free_folder(str(folder if folder.name else folder.absolute())))
    default = Training(recipe=recipe, data=Path(config.store.folder), out=own, config=Path(given) if given else None)
    return Begun(rest, default)


def _value(words: list[str], option: str) -> str | None:
    """The value of an option, given as `--option value` or `--option=value`; the last one counts."""
    found = None
    for word, following in pairwise([*words, ""]):
        if word == option:
            found = following
        elif word.startswith(f"{option}="):
            found = word.partition("=")[2]
    return found


def train(command: TrainingChoice) -> None:
    """Train a network by a recipe. Any field of the recipe can be changed, as with --epochs 100 --lr 0.02."""
    from alexnet.data.store import Store
    from alexnet.train.loop import train as run

    if command.seeds is not None:
        _train_family(command, command.seeds)
        return
    if command.at_once != 1:
        raise RecipeError(f"at_once (={command.at_once}) is for several networks: name their --seeds.")
    store = Store(command.data)
    if command.config and not command.resume:
        say(f"Repeating {command.config} in {command.out}: alexnet train {recipes.words(command.recipe)}")
    trained = run(command.recipe, store, command.out, command.resume, command.overwrite)
    for line in _outcome(command.out, trained.state["errors"], store):
        print_line(line)
    next_step("evaluate", command.out, "--data", command.data)


def _outcome(run: Path, errors: list[float], store: "Store") -> list[str]:
    """What a run gave: its held-out error with interval and chance, and how far to trust it."""
    import numpy as np

    from alexnet.train.result import read_result

    evaluation = read_result(run)["evaluation"]
    by_chance = intervals.chance(np.bincount(store.held_out.labels).tolist())
    stated = intervals.stated(evaluation["top1_wrong"], evaluation["images"], by_chance)
    top5 = f"; top-5 error {intervals.percent(evaluation['top5_error'])}" if len(store.classes) > 5 else ""
    lines = [f"{run}: held-out top-1 error {stated}{top5}, after {len(errors)} epochs."]
    best = errors.index(min(errors))
    if errors[best] < errors[-1]:
        lowest = intervals.percent(errors[best])
        lines.append(f"It was lowest after epoch {best + 1}, {lowest}: best.safetensors. The other verbs use the last network.")
    few = intervals.warning(evaluation["images"])
    return [*lines, *([f"warning: {few}"] if few else [])]


def _train_family(command: Training, seeds: str) -> None:
    from alexnet.data.store import Store
    from alexnet.study import record
    from alexnet.study.family import parse_seeds, train_family
    from alexnet.train.loop import fitting

    if command.recipe.seed:
        raise RecipeError(f"seed (={command.recipe.seed}) has no use beside seeds (={seeds}): leave one of them out.")
    wanted = parse_seeds(seeds)
    if command.overwrite:
        raise RecipeError("overwrite is for a single run: delete the family's folder yourself, or name another.")
    store = fitting(command.recipe, Store(command.data), command.out / f"seed{wanted[0]}")
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
    """Train pairs of networks that differ in one thing, and compare the difference in error with the paper's.

    Without a RECIPE it is small-photos. Any field of the recipe can be changed.

    All ablations in one --out share the standard networks. If interrupted, the same command continues.

    Args:
        name: what changes.
    """
    from alexnet.data.store import Store
    from alexnet.study import record
    from alexnet.study.ablate import Plan, checked
    from alexnet.study.ablate import ablate as run

    plan = Plan(
        ablation=ablations.get(name), recipe=command.recipe, seeds=command.seeds, other_lr=command.other_lr,
        training_error=command.training_error,
    )  # fmt: skip
    store = checked(plan, Store(command.data), command.out)
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
        out: folder for the store, the run and the report; run again, it continues where it was stopped.
        epochs: passes over the pictures; the recipe laptop's own number if not given.
    """
    from alexnet.demo import demo as run
    from alexnet.demo import ideas

    result = run(out, epochs)
    print(json.dumps(result))
    first, *others = ideas(out)
    say(f"Open {result['report']} in a browser. More to try on what is there now:")
    for words in others:
        say(f"  {command_line(words)}")
    next_step(*first)
