"""`alexnet train`: one run, a run again, or a family."""

from dataclasses import dataclass, replace
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import tyro

from alexnet import intervals
from alexnet.cli.next_step import free_folder, next_step
from alexnet.cli.options import Data, for_each_recipe
from alexnet.cli.tables import print_line, print_path, print_table
from alexnet.console import say
from alexnet.errors import UsageError
from alexnet.phrases import counted
from alexnet.train import recipes
from alexnet.train.parallel.launch import TIMEOUT, launched
from alexnet.train.recipes import RECIPES, Recipe

if TYPE_CHECKING:
    from alexnet.data.store import Store


@dataclass(frozen=True, kw_only=True)
class Training:
    """Options of `alexnet train RECIPE`."""

    data: Data
    """The store to train on, made by `alexnet prepare`: a folder, or an address such as
    https://HOST/STORE or s3://BUCKET/STORE. Downloaded pictures are kept in $ALEXNET_CACHE, up to
    $ALEXNET_CACHE_GB gigabytes (default 50)."""
    out: Path
    """Folder for the run: configuration, log, checkpoints."""
    recipe: Recipe
    resume: bool = False
    """Continue from the last checkpoint in --out, with its settings. A larger --epochs continues a
    finished run; the learning rate then follows the schedule for that many epochs.
    """
    overwrite: bool = False
    """Delete the run in --out and start again. Other files in the folder are kept, and a folder
    without a run is refused.
    """
    config: Path | None = None
    """Repeat a run, given its folder or its config.json, with the same settings, store and recipe,
    except for those given here. Without --out the new folder is named after the old one, such as
    run2.
    """
    seeds: str | None = None
    """Train a family: one network for each of these seeds (consecutive, such as 0..9), in seed0,
    seed1 ... inside --out.
    """
    lanes: int | None = None
    """Number of parts that a CPU splits each batch into, each with cores of its own; by default the
    fastest, which is measured. It changes results by rounding only.
    """
    at_once: int = 1
    """Number of a family's networks to train at once on a GPU; on a CPU they are trained one after
    another.
    """
    parallel: Literal["auto", "data", "towers", "hybrid"] | None = None
    """How processes started by torchrun divide the training of one network. data: each takes a
    share of every batch. towers: each takes one tower, as in 2012. hybrid: each takes a share of
    the batch in the convolutions and a part of the units in the fully connected layers. auto: the
    scheme that sends the fewest bytes.
    """
    rank_timeout: float = TIMEOUT
    """Seconds that the processes wait for one that does not answer before the run ends; at least
    3.
    """


if TYPE_CHECKING:
    TrainingChoice = Training
else:
    TrainingChoice = for_each_recipe(Training, data=tyro.MISSING, out=tyro.MISSING)


class Begun(NamedTuple):
    """A command that takes its settings from a run: the remaining words, and the defaults from that
    run.
    """

    words: list[str]
    default: Training


def begun(words: list[str]) -> Begun | None:
    """What `train --config RUN` and `train --resume --out RUN` take from the run; None if the
    command names no such run.

    Args:
        words: what follows `alexnet train`.

    Raises:
        UsageError: the command names another recipe than the run's.
        TrainingError: the run's configuration is damaged or missing.
    """
    named, rest = ([words[0]], words[1:]) if words and not words[0].startswith("-") else ([], words)
    given, out, family = (_value(rest, option) for option in ("--config", "--out", "--seeds"))
    resumed = out if "--resume" in rest and family is None else None
    if given is None and resumed is None:
        return None
    from alexnet.run_folder import check_configured, is_run
    from alexnet.train.history import read_config, store_of

    if given is None and not is_run(Path(resumed or "")):
        check_configured(Path(resumed or ""))
        return None
    if given and out is None and "--resume" not in rest and launched():
        raise UsageError("--config under torchrun needs the folder of the new run, the same in all processes: add --out.")
    source = Path(given or out or "")
    config = read_config(source)
    differing = {name: len(recipes.differences(make(), config.recipe)) for name, make in RECIPES.items()}
    if named and differing.get(named[0], inf) > min(differing.values()):
        if given is None:
            return None  # too many changes to recognise its recipe: the options must be given again
        raise UsageError(f"{source} is a run of recipe {recipes.closest(config.recipe)}, not {named[0]}: leave out the recipe.")
    folder = source if source.is_dir() else source.parent
    if given and config.extended:
        steps = " and ".join(counted(one.epochs, "epoch") for one in config.extended)
        say(
            f"{source} was first trained for {steps} and then continued to {config.recipe.epochs} epochs; "
            f"this run trains for {config.recipe.epochs} epochs without a break."
        )
    recipe = replace(config.recipe, seed=0) if family else config.recipe
    own = folder if "--resume" in rest else Path(free_folder(str(folder if folder.name else folder.absolute())))
    default = Training(
        recipe=recipe, data=store_of(folder, config.store.folder), out=own, config=Path(given) if given else None
    )
    return Begun(rest, default)


def _value(words: list[str], option: str) -> str | None:
    """The value of an option, given as `--option value` or `--option=value`; the last one
    counts."""
    value = None
    for word, following in pairwise([*words, ""]):
        if word == option:
            value = following
        elif word.startswith(f"{option}="):
            value = word.partition("=")[2]
    return value


def joined(words: list[str]) -> list[str]:
    """The words of a command line, with `--tune from conv4` as one value."""
    for place, pair in enumerate(pairwise(words)):
        if pair == ("--tune", "from") and place + 2 < len(words):
            return [*words[: place + 1], f"from {words[place + 2]}", *words[place + 3 :]]
    return words


def train(command: TrainingChoice) -> None:
    """Train a network with a recipe. Any field of the recipe can be changed, as in --epochs 100
    --lr 0.02.
    """
    from alexnet.data.store import Store
    from alexnet.train.loop import train as run
    from alexnet.train.parallel.ranks import open_ranks

    if command.seeds is not None:
        if command.parallel or launched():
            raise UsageError(
                f"seeds (={command.seeds}) trains several networks, one after another in one process: drop torchrun and "
                "--parallel, or train one network with --seed."
            )
        _train_family(command, command.seeds)
        return
    if command.at_once != 1:
        raise UsageError(f"at_once (={command.at_once}) needs several networks: add --seeds, such as --seeds 0..9.")
    with open_ranks(command.parallel, command.rank_timeout, command.recipe.device) as ranks:
        store = Store(command.data)
        if command.config and not command.resume:
            say(f"Repeating {command.config} in {command.out}: alexnet train {recipes.words(command.recipe)}")
        trained = run(command.recipe, store, command.out, command.resume, command.overwrite, command.lanes, ranks)
    if not ranks.first:
        return
    for line in _outcome(command.out, trained.state["errors"], store):
        print_line(line)
    next_step("evaluate", command.out, "--data", command.data)


def _outcome(run: Path, errors: list[float], store: "Store") -> list[str]:
    """Print a run's held-out error with its interval, the error of chance, and a warning if it is
    uncertain.
    """
    import numpy as np

    from alexnet.train.result import read_result

    evaluation = read_result(run)["evaluation"]
    by_chance = intervals.chance(np.bincount(store.held_out.labels).tolist())
    stated = intervals.stated(evaluation["top1_wrong"], evaluation["images"], by_chance)
    top5 = f"; top-5 error {intervals.percent(evaluation['top5_error'])}" if len(store.classes) > 5 else ""
    lines = [f"{run}: held-out top-1 error {stated}{top5}, after {counted(len(errors), 'epoch')}."]
    best = errors.index(min(errors))
    if errors[best] < errors[-1]:
        lowest = intervals.percent(errors[best])
        lines.append(
            f"The lowest error was {lowest}, after epoch {best + 1} (best.safetensors). Other commands use the last network."
        )
    few = intervals.warning(evaluation["images"])
    return [*lines, *([f"Warning: {few}"] if few else [])]


def _train_family(command: Training, seeds: str) -> None:
    from alexnet.data.store import Store
    from alexnet.study import record
    from alexnet.study.family import checked, parse_seeds, train_family

    if command.recipe.seed:
        raise UsageError(f"seed (={command.recipe.seed}) cannot be combined with seeds (={seeds}): leave one of them out.")
    wanted = parse_seeds(seeds)
    if command.overwrite:
        raise UsageError(
            f"--overwrite replaces a single run, not a family: delete {command.out} yourself, or choose another --out."
        )
    store = checked(command.recipe, Store(command.data), command.out, wanted, command.resume, command.at_once)
    summary = train_family(command.recipe, store, command.out, wanted, command.resume, command.at_once, command.lanes)
    record.write_family(command.out, command.recipe, store, summary)
    rows = [[f"seed {row['seed']}", f"{row['top1_error']:.2%}", f"{row['seconds']:,.1f}"] for row in summary["members"]]
    deviation = summary["deviation_top1_error"]
    spread = f"{summary['mean_top1_error']:.2%}" + ("" if deviation is None else f" ± {deviation:.2%}")
    mean = [f"mean, n = {summary['n']}", spread, "" if command.recipe.tune else f"{summary['seconds_per_model']:,.1f}"]
    print_table(["", "held-out top-1 error", "seconds per model"], [*rows, mean])
    print_path(command.out / record.README)
    next_step("evaluate", command.out, "--data", command.data, "--average")
