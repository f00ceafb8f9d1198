"""`alexnet doctor`: whether a recipe can work on a store."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from tyro.conf import arg

from alexnet.cli.next_step import free_folder, next_step
from alexnet.cli.options import Data, for_each_recipe
from alexnet.cli.tables import print_line, print_table
from alexnet.console import say
from alexnet.phrases import counted
from alexnet.train import recipes
from alexnet.train.recipes import Recipe

if TYPE_CHECKING:
    from alexnet.train.health.doctor import Diagnosis


LEGEND = """\
spread: how much outputs differ between pictures; dead: units that never fire;
gradient: its norm; update: size of the first step, relative to the weights"""


@dataclass(frozen=True, kw_only=True)
class Examination:
    """Options of `alexnet doctor RECIPE`."""

    data: Data
    """The store to train on, made by `alexnet prepare`."""
    recipe: Recipe
    json_file: Annotated[Path | None, arg(name="json")] = None
    """Also write the diagnosis to this file."""


if TYPE_CHECKING:
    ExaminationChoice = Examination
else:
    ExaminationChoice = for_each_recipe(Examination, data=tyro.MISSING)


def doctor(command: ExaminationChoice) -> None:
    """Check before training whether a recipe can work on a store and, if not, why. The exit status
    is 1 if it cannot.
    """
    from alexnet.data.store import Store
    from alexnet.files import make_ready, write_json
    from alexnet.train.health.doctor import examine

    if command.json_file:
        make_ready(command.json_file)
    diagnosis = examine(command.recipe, Store(command.data))
    _print_diagnosis(diagnosis)
    if command.json_file:
        write_json(command.json_file, diagnosis.as_json())
    words = shlex.split(recipes.words(command.recipe))
    if diagnosis.causes:
        say(f"Next: change the recipe or the store as described above, then run `alexnet doctor {words[0]}` again.")
        raise SystemExit(1)
    next_step("train", *words, "--data", command.data, "--out", free_folder("run"))


def _print_diagnosis(diagnosis: "Diagnosis") -> None:
    from alexnet.train.health.probe import RELATED

    rows = []
    for layer in diagnosis.layers:
        dead = "" if layer.dead is None else f"{layer.dead:.0%}"
        norms = [""] * 2 if layer.gradient is None else [f"{layer.gradient:.2g}", f"{layer.update:.1e}"]
        rows.append([layer.name, f"{layer.spread:.4f}", dead, *norms, layer.verdict])
    print_table(["stage", "spread", "dead", "gradient", "update", "verdict"], rows)
    print(LEGEND)
    pictures, labels = diagnosis.pictures, diagnosis.labels
    print(f"Network input: mean {pictures.mean:.2f}, standard deviation {pictures.deviation:.2f}")
    if labels.score is not None:
        print_line(
            f"Labels: a small regression on {counted(labels.pictures, 'thumbnail')} beats chance by {labels.score:.1f} "
            f"standard deviations (below {RELATED:g}, the labels may be shuffled)"
        )
    print(f"First loss: {diagnosis.first_loss:.3f} (knowing only how frequent each class is: {diagnosis.expected_loss:.3f})")
    losses = " ".join(f"{loss:.3g}" for loss in diagnosis.trial)
    print_line(f"Trial: loss at each of {counted(len(diagnosis.trial), 'training step')}: {losses}")
    for cause in diagnosis.causes:
        print_line(f"{cause.name} ({cause.field}): {cause}")
    print(f"{'Not healthy' if diagnosis.causes else 'No known failure found'}, examined in {diagnosis.seconds:.1f} s.")
