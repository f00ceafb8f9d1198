"""From weights and a store to the network that training begins with: `begin`.

    features of every training picture    features.py
    a new last layer on them              head.py
    whether to train the layers below     trial.py
    at which learning rates               here

Everything that is chosen is put into the recipe, which then says what was done: repeating it
chooses nothing and ends with the same bits.
"""

import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from alexnet.arithmetic import Linear
from alexnet.console import say
from alexnet.data.loader import INIT, stream
from alexnet.data.preprocessing import Preprocessing
from alexnet.data.store import Store
from alexnet.errors import RecipeError
from alexnet.intervals import percent
from alexnet.model import AlexNet
from alexnet.phrases import counted
from alexnet.run_folder import member
from alexnet.train.balance import class_weights
from alexnet.train.recipes import Recipe
from alexnet.train.tune.base import Base, table
from alexnet.train.tune.features import TEN, Extractor, Stages, views_for
from alexnet.train.tune.head import FOLDS, MOST, Head, Parted, Trial, choose, fit
from alexnet.train.tune.trial import LEAST, OnPart, ask, some
from alexnet.trained import Trained
from alexnet.variants import LAYER_NAMES, PerLayer, Variant

#: Of the learning rate, for layers that were loaded; and for the last layer, over the mean squared
#: norm of what it reads: with pool5's million, a rate of 0.001 undoes the fit in one epoch (18 to
#: 42 % error on 400 photos).
LOADED_RATE, LAST_RATE = 0.1, 300.0
#: A step of training takes so many times as long as a test of its pictures.
STEP_PASSES = 3.0


@dataclass(frozen=True)
class Beginning:
    """A network with its new last layer.

    Attributes:
        recipe: what was asked for, with everything that was chosen.
        trained: on the CPU.
        loss, error: of the last layer on the training pictures' views.
        seconds: that it took.
    """

    recipe: Recipe
    trained: Trained
    loss: float
    error: float
    seconds: float


@dataclass(frozen=True)
class Seen:
    """The training pictures as a last layer reads them.

    Attributes:
        extractor: holds the network that gives the features, on its device.
        features: (N, V, D) of each stage.
        labels: (N,) int64.
        side: of pool5's maps, in places.
        weights: (K,) of the classes; None where they count alike.
    """

    extractor: Extractor
    features: Stages
    labels: Tensor
    side: int
    weights: Tensor | None

    @classmethod
    def of(cls, recipe: Recipe, base: Base, store: Store, device: torch.device, folder: Path) -> "Seen":
        """Computed, or read from the run's folder; arguments and errors as those of `begin`."""
        stages = (recipe.features,) if recipe.features else base.stages
        variant = base.network(stages[-1], recipe, len(store.classes))
        check_tune(recipe, variant)
        model = with_layers(base, variant, recipe.seed).to(device)
        trained = Trained(model, store.classes, _pictures(base, store).to(device), {}, {})
        extractor = Extractor(trained, stages, recipe.head_views or views_for(len(store.train)), base.view_seconds)
        seconds = None if recipe.minutes is None else 60 * recipe.minutes
        features = extractor.of(store.train, store.fingerprint, _cache(folder, recipe), seconds)
        labels = torch.from_numpy(store.train.labels.astype("int64"))
        side = next(layer.input[1:2] or (1,) for layer in variant.layers() if isinstance(layer.op, Linear))[0]
        return cls(extractor, features, labels, side, class_weights(recipe, store.train, len(store.classes)))

    def without_closer(self) -> "Seen":
        """In a test's ten views alone."""
        features = {stage: values[:, :TEN].contiguous() for stage, values in self.features.items()}
        return replace(self, extractor=replace(self.extractor, views=TEN), features=features)

    def head(self, choice: Trial, which: Tensor | slice = slice(None)) -> Head:
        """A last layer fitted to some of the pictures, by their numbers, or to all."""
        classes, features = len(self.extractor.trained.classes), self.features[choice.stage]
        return fit(features[which], self.labels[which], classes, choice.decay, choice.blur, self.side, self.weights)

    def network(self, variant: Variant, head: Head) -> AlexNet:
        """The network with a last layer, on the CPU; nothing is shared."""
        state = self.extractor.trained.model.state_dict()
        below = {name: state[name].cpu().clone() for name in variant.parameter_shapes() if not name.startswith("fc8.")}
        return AlexNet.holding(variant, {**below, "fc8.weight": head.weight.clone(), "fc8.bias": head.bias.clone()})


def begin(recipe: Recipe, base: Base, store: Store, device: torch.device, folder: Path, on_part: OnPart) -> Beginning:
    """Fit a last layer for a store's classes onto weights, and settle what is trained after it.

    Args:
        base: the weights, as `base.open_base` gives them.
        store: of pictures in the size that the weights want (`base.pictures_for`).
        device: where features are computed.
        folder: of the run, in which they are kept.
        on_part: `Start.on_part`.

    Raises:
        RecipeError: the store has one class only, or the recipe names a layer that is not there.
        TrainingError: `minutes` is too small.
    """
    began = time.monotonic()
    check_store(store)
    seen = Seen.of(recipe, base, store, device, folder)
    choice = _chosen(recipe, seen)
    if not _closer_help(recipe, seen, choice):
        seen = seen.without_closer()
    head = seen.head(choice)
    variant = base.network(choice.stage, recipe, len(store.classes))
    for line in table(base, variant):
        say(line)
    views = seen.extractor.views
    recipe = base.settled(recipe, choice.stage, head_decay=choice.decay, head_blur=choice.blur, head_views=views)
    parted = Parted.of(seen.labels, recipe.seed)
    recipe = in_minutes(worth_a_trial(recipe, parted), seen.extractor, store, time.monotonic() - began, len(parted.used))
    if recipe.tune == "auto":
        helps = _all_helps(recipe, base, variant, store, seen, choice, parted, on_part)
        recipe = replace(recipe, tune="all" if helps else "head")
    recipe = settle(recipe, base, variant, head.size)
    trained = Trained(seen.network(variant, head), store.classes, _pictures(base, store), {}, {})
    return Beginning(recipe, trained, head.loss, head.error, time.monotonic() - began)


def _all_helps(
    recipe: Recipe, base: Base, variant: Variant, store: Store, seen: Seen, choice: Trial, parted: Parted, on_part: OnPart
) -> bool:
    """Whether training every layer helps, by a trial on some of the pictures; prints it."""
    part = seen.head(choice, parted.used)
    tried = settle(replace(recipe, tune="all", shuffle_blocks=None), base, variant, part.size)  # the part is in memory
    own = seen.extractor.trained
    model = seen.network(variant, part).to(own.model.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    start = on_part(tried, replace(own, model=model), store, some(store.train, parted.used))
    verdict = ask(start, part, some(store.train, parted.held), parted, seen.features[choice.stage], seen.weights)
    say(str(verdict))
    return verdict.helps


def loaded(recipe: Recipe, base: Base, store: Store) -> tuple[Recipe, Trained]:
    """A recipe that trains every layer, and the network with a last layer that is drawn."""
    check_store(store)
    stage = recipe.features or base.stages[-1]
    variant = base.network(stage, recipe, len(store.classes))
    check_tune(recipe, variant)
    model = with_layers(base, variant, recipe.seed)
    torch.nn.init.normal_(model.fc8.weight, 0, 0.01, torch.Generator().manual_seed(recipe.seed))
    trained = Trained(model, store.classes, _pictures(base, store), {}, {})
    recipe = replace(base.settled(recipe, stage), tune="all" if recipe.tune == "auto" else recipe.tune)
    size = Extractor(trained, (stage,), 1).size_of_some(store.train)
    return settle(recipe, base, variant, size), trained


def check_store(store: Store) -> None:
    """Refuse a store that no last layer can be fitted to."""
    there = sorted(set(store.train.labels.tolist()))
    if len(there) < 2:
        raise RecipeError(
            f"{store.address} has training pictures of {counted(len(there), 'class')} only: a network needs two classes or "
            "more to tell apart. Add photos of another class and prepare the store again."
        )


def check_tune(recipe: Recipe, variant: Variant) -> None:
    """Refuse a layer that the network does not have."""
    layer = recipe.lowest_layer
    if layer in LAYER_NAMES and layer in variant.removed:
        there = [name for name in LAYER_NAMES if name not in variant.removed]
        raise RecipeError(f"tune (=from {layer}): the network has no {layer}, only {', '.join(there)}. Choose one of them.")


def with_layers(base: Base, variant: Variant, seed: int) -> AlexNet:
    """The network with what the weights have; the rest is drawn."""
    taken = base.taken(variant)
    if set(taken) | {"fc8.weight", "fc8.bias"} >= set(variant.parameter_shapes()):
        shapes = variant.parameter_shapes()
        new = {name: torch.zeros(shapes[name]) for name in ("fc8.weight", "fc8.bias")}
        return AlexNet.holding(variant, {**{name: value.clone() for name, value in taken.items()}, **new}).eval()
    model = AlexNet(variant, torch.Generator().manual_seed(int(stream(seed, INIT).integers(2**62))))
    model.load_state_dict(taken, strict=False)
    return model.eval()


def _pictures(base: Base, store: Store) -> Preprocessing:
    """What the weights do with pictures, of a store that may be resized by another rule."""
    return replace(base.preprocessing, resize=store.manifest["resize"])


def _cache(folder: Path, recipe: Recipe) -> Path:
    """Where features are kept: the networks of a family share them."""
    return folder.parent if member(folder.parent, recipe.seed) == folder else folder


def _closer_help(recipe: Recipe, seen: Seen, choice: Trial) -> bool:
    """Whether the last layer is fitted to closer views too, if there are any.

    They help where a thing may be anywhere in the picture, as blurring pool5's maps does, and harm
    where pictures fill their frame. Held-out pictures say clearly whether a blur helps, and by
    chance whether closer views do (docs/log.md): so the blur decides both.
    """
    blur_was_chosen = recipe.head_blur is None and choice.stage == "pool5" and seen.side > 1
    if recipe.head_views is not None or not blur_was_chosen:
        return True
    return choice.blur > 0 or seen.extractor.views <= TEN


def _chosen(recipe: Recipe, seen: Seen) -> Trial:
    """What the last layer reads and how it is fitted; a line says so, where it is not given."""
    features = seen.features
    if None not in (recipe.head_decay, recipe.head_blur) and len(features) == 1:
        return Trial(next(iter(features)), recipe.head_decay or 0.0, recipe.head_blur or 0.0, 0.0, 0.0)
    best, tried = choose(features, seen.labels, recipe.seed, recipe.head_decay, recipe.head_blur, seen.side, seen.weights)
    others = {stage: min(one.loss for one in tried if one.stage == stage) for stage in features}
    beside = "".join(f"; on {stage} {loss:.3f}" for stage, loss in others.items() if stage != best.stage)
    blur = f", blur {best.blur:g}" if best.blur else ""
    views = f"{seen.extractor.views} views" if _closer_help(recipe, seen, best) else f"no blur and so {TEN} views, none closer"
    say(
        f"A last layer on {best.stage} (decay {best.decay:g}{blur}, {views}): top-1 error "
        f"{percent(best.error)}, loss {best.loss:.3f} on training pictures held out to choose it{beside}."
    )
    return best


def settle(recipe: Recipe, base: Base, variant: Variant, size: float = LAST_RATE) -> Recipe:
    """A recipe whose learning rates and epochs say what `tune` means for this network.

    Args:
        size: mean squared norm of what the last layer reads.
    """
    layers = [name for name in LAYER_NAMES if name not in variant.removed]
    lowest = {"head": "fc8", "all": layers[0]}.get(recipe.tune or "", recipe.lowest_layer)
    factors = recipe.lr_factors or rates(variant, base, lowest, size)
    if lowest == "fc8":
        return replace(recipe, tune="head", epochs=1, lr_factors=factors, minutes=None)
    return replace(recipe, lr_factors=factors, minutes=None)


def rates(variant: Variant, base: Base, lowest: str, size: float) -> PerLayer:
    """Factors on the learning rate: 0 below a layer, a tenth for what was loaded, 1 for what was
    drawn, and for the last layer what suits the size of its features.
    """
    last = float(f"{min(1.0, LAST_RATE / size):.2g}")

    def factor(number: int, name: str) -> float:
        if number < LAYER_NAMES.index(lowest) or name in variant.removed:
            return 0.0
        return last if name == "fc8" else LOADED_RATE if name in base.layers else 1.0

    return tuple(factor(number, name) for number, name in enumerate(LAYER_NAMES))  # type: ignore[return-value]


def worth_a_trial(recipe: Recipe, parted: Parted) -> Recipe:
    """The recipe; `auto` becomes the head if too few pictures are held out for a trial, or no epoch
    is left, which is printed.
    """
    held = len(parted.held)
    if recipe.tune != "auto" or (recipe.epochs > 1 and held >= LEAST):
        return recipe
    why = f"{counted(held, 'picture')} held out are too few to tell whether training them helps (at least {LEAST})"
    if recipe.epochs == 1:
        why = "no epoch is left for them"
    say(f"The layers below the last stay as they were loaded: {why}. --tune all, or --tune from conv4, trains them.")
    return replace(recipe, tune="head")


def passes_an_epoch(pictures: int) -> float:
    """Duration of an epoch of all layers and its trial, in passes over the pictures in one view
    each; 0 for too few pictures for a trial.
    """
    tried = min(pictures, MOST)
    held = tried // FOLDS
    return STEP_PASSES * (1 + (tried - held) / pictures) if held >= LEAST else 0.0


def in_minutes(recipe: Recipe, extractor: Extractor, store: Store, spent: float, part: int = 0) -> Recipe:
    """The recipe with as many epochs of steps as its minutes leave time for; fewer than asked for
    are printed.

    Args:
        spent: seconds until now.
        part: pictures of the trial of `auto`, on which all epochs are trained before.
    """
    if recipe.minutes is None or recipe.tune == "head":
        return recipe
    epoch = STEP_PASSES * extractor.seconds_a_pass(store.train)
    if recipe.tune == "auto":
        epoch *= 1 + part / len(store.train)
    left = 60 * recipe.minutes - spent
    epochs = min(recipe.epochs - 1, int(left / epoch))
    if epochs < 1:
        say(
            f"minutes (={recipe.minutes:g}) leaves {max(left, 0):.0f} s after the last layer, but an epoch of all layers "
            f"{'and its trial take' if recipe.tune == 'auto' else 'takes'} about {epoch:.0f} s here: only the last layer is "
            "trained. Pass more --minutes to train the layers below it."
        )
        return replace(recipe, tune="head")
    if epochs < recipe.epochs - 1:
        say(f"minutes (={recipe.minutes:g}) leaves time for {counted(epochs, 'epoch')} of {recipe.epochs - 1}.")
    return replace(recipe, epochs=1 + epochs)
