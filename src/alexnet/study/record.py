"""Describe the results of a family or an ablation: sentences, a README with n, mean and deviation,
curves.

The folder that `write_ablation` fills has the layout of the project's
`records/`, and holds no weights.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from math import exp, isfinite, log
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from alexnet import figure_file, figures, paper
from alexnet.data.store import Store
from alexnet.phrases import counted
from alexnet.run_folder import CONFIG, ENVIRONMENT, LOG, RESULT, environment, members, read_log
from alexnet.study.ablate import Outcome, Plan
from alexnet.study.ablations import what_changes
from alexnet.study.paired import Difference
from alexnet.train import recipes
from alexnet.train.history import read_config
from alexnet.train.recipes import Recipe
from alexnet.train.run import write_json

CURVES, README = "curves.png", "README.md"

FAMILY_PAGE = """# {words}, {n} seeds

{facts}

```sh
alexnet train {words} --data STORE --out FAMILY --seeds {seeds}
```

{table}

{spent} {machine}

![curves]({curves})
"""

ABLATION_PAGE = """# {name}: {pairs}

{facts}

```sh
alexnet ablate {name} {words} --data STORE --seeds {seeds}{options}
```

{table}

{verdict}

The interval covers what the seed decides, not which pictures happen to be held out. The paper's numbers are those of ImageNet,
full width and 90 epochs: a smaller network, other pictures or a shorter training may well have another difference.

What differs: {changes}. Parameters: {parameters}.{both}

Seconds of training for one model: {seconds}. {machine}

![curves]({curves})
"""


# --- a family -------------------------------------------------------------------------------------


def write_family(folder: Path, recipe: Recipe, store: Store, summary: dict[str, Any]) -> None:
    """README and curves beside a family's runs.

    Args:
        recipe: of its members, whatever their seeds.
        summary: what `family.json` holds.
    """
    rows = summary["members"]
    errors = {key: [row[key] for row in rows] for key in ("top1_error", "top5_error")}
    cells = [
        [f"{row['seed']}", _percent(row["top1_error"]), _percent(row["top5_error"]), f"{row['seconds']:,.1f}"] for row in rows
    ]
    if len(rows) > 1:
        cells.append([f"mean ± deviation, n = {len(rows)}", *map(_spread, errors.values()), ""])
    runs = members(folder)
    trained = read_config(runs[0]).recipe  # with what weights and pictures have decided
    figure_file.save(figures.bands({trained.variant: [read_log(run) for run in runs]}), folder / CURVES)
    seeds = [row["seed"] for row in rows]
    page = FAMILY_PAGE.format(
        words=recipes.words(recipe),
        n=len(rows),
        seeds=f"{seeds[0]}..{seeds[-1]}",
        facts=_facts(trained, store),
        table=_table([["seed", "top-1 error", "top-5 error", "seconds"], *cells]),
        spent=_spent(trained, summary),
        machine=_machine(),
        curves=CURVES,
    )
    (folder / README).write_text(page, encoding="utf-8")


def _spent(recipe: Recipe, summary: dict[str, Any]) -> str:
    """The time of a model, in a sentence."""
    if recipe.tune:
        return (
            "The first seed computes the pictures' features and later ones reuse them, so the mean of the seconds says nothing."
        )
    shared = f", {summary['at_once']} at once" if summary["at_once"] > 1 else ""
    return f"{summary['seconds_per_model']:,.1f} seconds of training for each model{shared}."


def _percent(error: float) -> str:
    return f"{100 * error:.2f} %"


def _spread(errors: Sequence[float]) -> str:
    return f"{100 * mean(errors):.2f} ± {100 * stdev(errors):.2f} %"


# --- an ablation, in words ------------------------------------------------------------------------


def tell(outcome: Outcome) -> list[str]:
    """The result in words, whether this many pairs are evidence, and what the paper says."""
    epochs = outcome.plan.ablation.measure == "epochs"
    return [*(_epochs_in_words(outcome) if epochs else _errors_in_words(outcome)), f"The paper: {outcome.plan.ablation.claim}."]


def _errors_in_words(outcome: Outcome) -> list[str]:
    ablation, lines = outcome.plan.ablation, []
    for measure, difference, stated in zip(("top-1", "top-5"), (outcome.top1, outcome.top5), ablation.points, strict=True):
        interval = _interval(difference, lambda points: f"{points:+.2f}")
        lines.append(
            f"{measure} error, {ablation.name} minus standard: {difference.mean:+.2f} points, {interval}. "
            f"{verdict(difference, stated, lambda points: f'{points:+.2f}')}"
        )
    return lines


def _epochs_in_words(outcome: Outcome) -> list[str]:
    name, n, target = outcome.plan.ablation.name, len(outcome.standard), f"{outcome.plan.training_error:.0%} training error"
    if not outcome.reached:
        counts = [sum(map(isfinite, side)) for side in (outcome.standard, outcome.changed)]
        return [
            f"{target} was reached by {counts[0]} of {n} standard and {counts[1]} of {n} {name} networks: no number is "
            "given. Train longer (--epochs), or compare at a higher --training-error."
        ]
    factor = outcome.top1
    interval = _interval(factor, lambda logarithm: f"{exp(logarithm):.2f}")
    judged = verdict(factor, log(paper.TANH_EPOCHS), lambda logarithm: f"factor of {exp(logarithm):.2f}")
    return [f"Epochs to {target}, {name} over standard: {exp(factor.mean):.2f} times, {interval}. {judged}"]


def _interval(difference: Difference, show: Callable[[float], str]) -> str:
    if difference.half is None:
        return f"no interval (n = {difference.n})"
    lower, upper = difference.mean - difference.half, difference.mean + difference.half
    return f"95 % interval {show(lower)} to {show(upper)} (n = {difference.n})"


def verdict(difference: Difference, stated: float | None, show: Callable[[float], str]) -> str:
    """Whether a difference is shown, and how it compares with the paper's.

    Args:
        stated: the paper's difference, in the same unit; None if it gives none.
        show: a difference as text.
    """
    if difference.n == 1:
        return "One pair is not evidence; a second could reverse the sign."
    if difference.half is None:
        return "All pairs differ by the same, to the picture: too few are held out to draw an interval from."
    beside = "" if stated is None else f", the paper's {show(stated)} {'inside' if difference.holds(stated) else 'outside'}"
    if difference.shown:
        return f"Shown: zero is outside the interval{beside}."
    text = f"Not shown: zero is inside the interval{beside}."
    if stated is not None and abs(stated) <= difference.half:
        needed = difference.pairs_needed(stated)
        text += f" To tell the paper's from zero would take {'over 1000' if needed is None else f'about {needed}'} pairs."
    return text


# --- an ablation's record -------------------------------------------------------------------------


def write_ablation(outcome: Outcome, store: Store, folder: Path) -> Path:
    """Write everything that can be published; what an earlier start wrote is replaced.

    Args:
        folder: the one that `ablate` was given.

    Returns:
        The record's folder.
    """
    plan = outcome.plan
    runs = plan.runs(folder)
    record = folder / plan.ablation.name / "record"
    for side, of_side in runs.items():
        if (record / side).exists():
            shutil.rmtree(record / side)  # an earlier start may have had more seeds
        for run in of_side:
            (record / side / run.name).mkdir(parents=True, exist_ok=True)
            for name in (CONFIG, ENVIRONMENT, LOG, RESULT):
                shutil.copyfile(run / name, record / side / run.name / name)
    write_json(record / CONFIG, _config(plan, store))
    write_json(record / RESULT, _result(outcome))
    epochs = plan.ablation.measure == "epochs"
    curves = figures.bands(
        {side: [read_log(run) for run in of_side] for side, of_side in runs.items()},
        plan.training_error if epochs else None,
        figures.Pairs(
            "epochs to the training error" if epochs else "held-out top-1 error, last epoch",
            ("standard", plan.ablation.name),
            not epochs,
            outcome.standard,
            outcome.changed,
        ),
    )
    figure_file.save(curves, record / CURVES)
    (record / README).write_text(_page(outcome, store), encoding="utf-8")
    return record


def _config(plan: Plan, store: Store) -> dict[str, Any]:
    return {
        "ablation": plan.ablation.name,
        "claim": plan.ablation.claim,
        "paper_points": plan.ablation.points,
        "sides": {side: asdict(recipe) for side, recipe in plan.trained.items()},
        "seeds": plan.seeds,
        "views": plan.ablation.views,
        "nets": plan.ablation.nets,
        "training_error": plan.training_error if plan.ablation.measure == "epochs" else None,
        "store": {
            "fingerprint": store.fingerprint,
            "classes": len(store.classes),
            "train": len(store.train),
            "held_out": len(store.held_out),
        },
    }


def _result(outcome: Outcome) -> dict[str, Any]:
    def plain(values: tuple[float, ...]) -> list[float | None]:
        return [value if isfinite(value) else None for value in values]

    epochs = outcome.plan.ablation.measure == "epochs"
    return {
        "unit": "epochs" if epochs else "share",
        "standard": plain(outcome.standard),
        "changed": plain(outcome.changed),
        "standard_top5": outcome.standard5,
        "changed_top5": outcome.changed5,
        "difference_unit": "natural logarithm of the ratio" if epochs else "points",
        "difference": asdict(outcome.top1) if outcome.reached else None,
        "difference_top5": asdict(outcome.top5) if outcome.standard5 else None,
        "seconds": dict(outcome.seconds),
        "environment": environment(),
    }


def _page(outcome: Outcome, store: Store) -> str:
    plan, n = outcome.plan, len(outcome.standard)
    options = "" if plan.other_lr is None else f" --other-lr {plan.other_lr:g}"
    options += f" --training-error {plan.training_error:g}" * (plan.ablation.measure == "epochs")
    both = ", ".join(f"{name.replace('_', '-')} {value}" for name, value in plan.ablation.both.items())
    counts = [f"{side} {recipe.network(len(store.classes)).parameters:,}" for side, recipe in plan.trained.items()]
    return ABLATION_PAGE.format(
        name=plan.ablation.name,
        pairs=counted(n, "pair"),
        facts=_facts(plan.pair[0], store),
        words=recipes.words(plan.recipe),
        seeds=plan.seeds,
        options=options,
        table=_table(_pairs(outcome)),
        verdict="\n".join(f"* {line}" for line in tell(outcome)),
        changes="; ".join(what_changes(*plan.pair))
        or f"{counted(plan.ablation.views, 'view')}, {counted(plan.ablation.nets, 'network')} averaged",
        parameters=", ".join(counts),
        both=f" On both sides: {both}." if both else "",
        seconds=", ".join(f"{side} {seconds:,.1f}" for side, seconds in outcome.seconds.items()),
        machine=_machine(),
        curves=CURVES,
    )


def _pairs(outcome: Outcome) -> list[list[str]]:
    """The rows of an ablation's table."""
    plan, epochs = outcome.plan, outcome.plan.ablation.measure == "epochs"
    rows = [["seed", "standard", plan.ablation.name, "ratio" if epochs else "points"]]
    for number, (first, second) in enumerate(zip(outcome.standard, outcome.changed, strict=True)):
        seed, nets = plan.recipe.seed + number * plan.ablation.nets, plan.ablation.nets
        name = f"{seed}" if nets == 1 else f"{seed} to {seed + nets - 1}"
        if epochs:
            shown = [f"{value:.2f} epochs" if isfinite(value) else "not reached" for value in (first, second)]
            rows.append([name, *shown, f"{second / first:.2f}" if isfinite(first + second) else ""])
        else:
            rows.append([name, _percent(first), _percent(second), f"{100 * (second - first):+.2f}"])
    if len(outcome.standard) > 1 and outcome.reached:
        sides = [outcome.standard, outcome.changed]
        spreads = [f"{mean(side):.2f} ± {stdev(side):.2f} epochs" if epochs else _spread(side) for side in sides]
        rows.append([f"mean ± deviation, n = {len(outcome.standard)}", *spreads, ""])
    return rows


# --- both -----------------------------------------------------------------------------------------


def _facts(recipe: Recipe, store: Store) -> str:
    network = recipe.network(len(store.classes))
    return (
        f"{counted(len(store.train), 'picture')} of {len(store.classes)} classes to train on, "
        f"{len(store.held_out):,} held out (store {store.fingerprint}); {network.label}, {network.input_size} "
        f"pixels, {counted(recipe.epochs, 'epoch')}. "
        "Errors are those after the last epoch, one view where nothing else is said."
    )


def _machine() -> str:
    where = environment()
    return (
        f"{where['processor']}, {where['threads']} threads, {where['gpu'] or 'no GPU'}; PyTorch {where['torch']}, Python "
        f"{where['python']}, alexnet {where['alexnet']}. Each run's own are in its environment.json."
    )


def _table(rows: list[list[str]]) -> str:
    """Markdown, the first row as the head, all but the first column right-aligned."""
    head, *body = rows
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, rule, *body])
