"""The weights that a run begins with: any file, whole or a part of a network.

What is there is taken, and what is not is drawn as the recipe says. The weights decide the variant,
the order of the channels, the mean and the size of the pictures; the store decides the classes.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from alexnet.arguments import check_here
from alexnet.console import say
from alexnet.data.preprocessing import Preprocessing
from alexnet.data.resample import resampled
from alexnet.data.store import Store
from alexnet.errors import CheckpointError, RecipeError
from alexnet.phrases import counted
from alexnet.published import registry
from alexnet.train.recipes import NETWORK_FIELDS, OF_WEIGHTS, Recipe
from alexnet.variants import LAYER_NAMES, REMOVABLE, Variant, named
from alexnet.weights import check, importer, native
from alexnet.weights.importer import OURS
from alexnet.weights.match import Foreign
from alexnet.weights.native import weights_hash

#: Stages that a last layer can read, with the hidden layers that each needs.
HIDDEN = {"pool5": (), "fc6": ("fc6",), "fc7": ("fc6", "fc7")}
#: Fields that the weights decide: a recipe that sets one of them contradicts them.
DECIDED = tuple(name for name in NETWORK_FIELDS if name not in ("init", "init_std", "dropout", "input_size"))


@dataclass(frozen=True)
class Base:
    """Weights that a run begins with.

    Attributes:
        file: where they were read.
        variant: the network that they belong to.
        preprocessing: with which it was trained.
        parameters: of the layers that are there, by name.
        view_seconds: of one view of a picture, least and most, where a forecast was made with them.
    """

    file: Path
    variant: Variant
    preprocessing: Preprocessing
    parameters: dict[str, Tensor]
    view_seconds: tuple[float, float] | None = None

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that are there."""
        return tuple(name for name in LAYER_NAMES if f"{name}.weight" in self.parameters)

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages that a last layer can read without a layer that would have to be drawn."""
        return tuple(stage for stage, hidden in HIDDEN.items() if all(name in self.layers for name in hidden))

    def network(self, stage: str, recipe: Recipe, num_classes: int) -> Variant:
        """The variant whose last layer reads a stage."""
        behind = {name for name in ("fc6", "fc7") if name not in HIDDEN[stage]}
        removed = tuple(name for name in REMOVABLE if name in behind or name in self.variant.removed)
        changes: dict[str, Any] = {
            name: getattr(recipe, name) for name in ("init", "init_std", "dropout") if getattr(recipe, name) is not None
        }
        size = recipe.input_size or self.variant.input_size
        return replace(self.variant, removed=removed, num_classes=num_classes, input_size=size, **changes)

    def taken(self, variant: Variant) -> dict[str, Tensor]:
        """The parameters that a network begins with: all that are there but the last layer's."""
        return {
            name: self.parameters[name]
            for name in variant.parameter_shapes()
            if name in self.parameters and not name.startswith("fc8.")
        }

    def hash(self, variant: Variant) -> str:
        """SHA-256 of what a network takes, whatever file it is read from."""
        return weights_hash(self.taken(variant))

    def settled(self, recipe: Recipe, stage: Any, **changes: Any) -> Recipe:
        """A recipe that says of the network what the weights say."""
        own, known = self.network(stage, recipe, 2), named()[self.variant.name]
        differing = {name: getattr(own, name) for name in DECIDED if getattr(own, name) != getattr(known, name)}
        size = None if own.input_size == known.input_size else own.input_size
        return replace(recipe, variant=own.name, width=own.width, input_size=size, features=stage, **differing, **changes)


def open_base(recipe: Recipe) -> Base:
    """Read the weights that a recipe names, and say what is known of them.

    Raises:
        CheckpointError: no such file, none of an AlexNet, or it does not say which variant it is.
        RecipeError: the recipe contradicts the weights.
    """
    if recipe.weights is None:
        raise RecipeError(
            "finetune begins with trained weights: name them with --from: a file, a run's folder, or a name from "
            "`alexnet weights list`."
        )
    file, variant, mean = _located(recipe)
    if recipe.variant != OF_WEIGHTS:
        variant = recipe.variant
    size = None if file.is_dir() or native.is_ours(file) else recipe.input_size  # ours say which
    trained, foreign = importer.import_weights(file, variant, size, mean, partial=True)
    base = Base(
        file,
        trained.model.variant,
        trained.preprocessing,
        {**trained.model.state_dict(), **importer.layers_behind(trained)},
    )
    _check(recipe, base)
    if recipe.input_size not in (None, base.variant.input_size):
        preprocessing = importer.published_preprocessing(replace(base.variant, input_size=recipe.input_size, removed=()))
        base = replace(base, preprocessing=_colour_only(base.preprocessing, preprocessing))
    _say(base, foreign)
    for warning in check.part(trained).warnings():
        say(f"Warning: {file}: {warning}")
    return base


def _located(recipe: Recipe) -> tuple[Path, str | None, Path | None]:
    """The file, and what a published one's entry says: variant and mean."""
    weights = recipe.weights or ""
    path, known = Path(weights), ", ".join(entry.name for entry in registry.networks())
    check_here(path, "weights", CheckpointError)
    if path.exists() or weights not in registry.names():
        if not path.exists():
            raise CheckpointError(f"weights (={weights}) do not exist: name a file, a run's folder, or one of {known}.")
        return path, None, None
    entry = registry.get_published(weights)
    if entry.variant is None:
        raise CheckpointError(f"weights (={weights}) is not a network: name one of {known}, or a file.")
    files = registry.usable(entry)
    if files is None:
        raise CheckpointError(f"weights (={weights}) are not on this machine yet: run `alexnet weights pull {weights}` first.")
    file, mean = files
    return file, entry.variant, mean


def _check(recipe: Recipe, base: Base) -> None:
    asked = {name: getattr(recipe, name) for name in DECIDED if getattr(recipe, name) is not None}
    asked |= {"width": recipe.width} if recipe.width != 1 else {}
    for name, value in asked.items():
        actual = getattr(base.variant, name)
        if actual != value and not (name == "removed" and recipe.features):  # a recipe that was settled
            raise RecipeError(f"{name} (={value}) is decided by the weights, which have {actual}: leave it out.")
    fully = [name for name in ("fc6", "fc7", "fc8") if name in base.layers]
    if recipe.input_size not in (None, base.variant.input_size) and "fc6" in fully:
        raise RecipeError(
            f"input_size (={recipe.input_size}) is decided by fc6 of {base.file}, which reads pictures of "
            f"{base.variant.input_size} pixels: leave it out."
        )
    needed = HIDDEN[recipe.features] if recipe.features else ()
    if gone := [name for name in needed if name in base.variant.removed]:
        raise RecipeError(
            f"features (={recipe.features}): the weights are of a network without {', '.join(gone)}; choose from "
            f"{', '.join(base.stages)}."
        )


def _colour_only(own: Preprocessing, sized: Preprocessing) -> Preprocessing:
    """The preprocessing at another size, for which a mean image is averaged to its colour."""
    return replace(sized, resize=own.resize, bgr=own.bgr, mean=own.mean.mean((1, 2), keepdim=True), scale=own.scale)


def _say(base: Base, foreign: Foreign) -> None:
    preprocessing = base.preprocessing
    for note in foreign.notes:
        say(f"{base.file}: {note}.")
    if foreign.preprocessing is None and foreign.format != OURS and preprocessing.mean.shape[1] == 1:
        colour = ", ".join(f"{value:.1f}" for value in preprocessing.mean.flatten().tolist())
        say(f"{base.file} does not contain a mean: ImageNet's mean colour is subtracted ({colour}; red, green, blue).")


def table(base: Base, variant: Variant) -> list[str]:
    """Which layers of a network were loaded, and which are new: lines for people."""
    shapes, lines = variant.parameter_shapes(), [f"{variant.label} of {base.file}:"]
    for name in LAYER_NAMES:
        shape = " x ".join(map(str, shapes.get(f"{name}.weight", ())))
        if name in variant.removed:
            there = "in the file, but not used" if name in base.layers else "not there"
        elif name == "fc8":
            there = f"new, for {counted(variant.num_classes, 'class')}"
        else:
            there = "loaded" if name in base.layers else "not in the file: drawn at random"
        lines.append(f"  {name:5}  {shape or '-':18}  {there}")
    return lines


def pictures_for(base: Base, store: Store) -> Store:
    """The store in the size that the weights were trained on.

    Raises:
        StoreError: it cannot be resampled.
    """
    own, resize = base.preprocessing, store.manifest["resize"]
    if store.size < own.stored_size:
        say(
            f"The pictures of {store.address} have {store.size} pixels, the weights were trained on {own.stored_size}: they "
            f"are enlarged, which adds no detail. Prepare the photos with --size {own.stored_size} if they are larger."
        )
    if resize != own.resize:
        say(
            f"The weights were trained on {own.resize} pictures, {store.address} holds {resize} ones: shapes differ from "
            f"what the network knows, which costs a little. Prepare the photos with --resize {own.resize} to avoid it."
        )
    return resampled(store, own.stored_size)
