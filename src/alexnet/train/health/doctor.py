"""Before training: `alexnet doctor RECIPE --data STORE` says in half a minute whether a run can
work, and if not, why not.

Most AlexNets that learn nothing fail at the first step, in one of a few ways, and each leaves its
mark on a few pictures: on the pictures themselves (no contrast, mean not subtracted), the labels
(one class only, or no relation to the pictures), the start (every picture looks the same to the
last layers) or the step (too large). So the doctor takes 32 pictures through the recipe's
augmentation and its untrained network, does `TRIAL_STEPS` real steps at the recipe's learning rate,
and asks a small regression whether thumbnails tell anything about the labels. Each rule below names
one cause, with the signal that gives it away, its threshold, and where that was measured.

What it cannot see: a learning rate that is merely too low, labels of which a part is wrong, a
network that is too small.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet.data.chance import Chance
from alexnet.data.store import Split, Store
from alexnet.devices import pick_device
from alexnet.model import AlexNet
from alexnet.train.health.causes import ALIKE, DEAD, SMALL_PIXELS, Cause, pictures_alike, too_large
from alexnet.train.health.probe import RELATED, Labels, ask
from alexnet.train.health.signals import LOOK_PICTURES, frequencies_loss, gradient_norms, look, update_ratios
from alexnet.train.recipes import Recipe
from alexnet.train.start import Start, fitting
from alexnet.train.tune.base import open_base
from alexnet.variants import Variant

#: A step of 16 pictures takes 0.6 s at full size on a core.
TRIAL_PICTURES, TRIAL_STEPS = 16, 8
#: Highest loss in the trial, in nats: up to 28 in recipes that learn (the code of 2012 and
#: CaffeNet, at 1 and 3 times their own learning rates); above 70 within 8 steps at 30 times those
#: rates, and with He initialisation on 0-255 pixels.
EXPLODED = 50.0

#: For the verdicts on single layers: spread above pool5 (0.005 in Caffe's net at half width, which
#: learns); first steps relative to the weights (0.14 at most in recipes that learn, 0.3 and more
#: where the trial explodes), and what to aim at.
ALIKE_ABOVE, LEAP, STILL, CALM = 0.002, 0.5, 1e-5, 0.1


@dataclass(frozen=True)
class StageHealth:
    """What was seen of one stage of the network, before the first step.

    Attributes:
        name: conv1, relu1, norm1, pool1, ... fc8.
        spread: deviation from picture to picture relative to the mean magnitude.
        dead: share of units that fire for no picture; of ReLUs only.
        gradient: norm of the first gradient of its weights; None without weights.
        update: norm of the first step of its weights, relative to theirs.
        verdict: in words.
    """

    name: str
    spread: float
    dead: float | None
    gradient: float | None
    update: float | None
    verdict: str


@dataclass(frozen=True)
class InputStatistics:
    """Statistics of the network's input.

    Attributes:
        mean, deviation: over the pictures, pixels and channels of the network's input.
        difference: mean deviation of a stored byte from picture to picture, in levels of 255.
    """

    mean: float
    deviation: float
    difference: float


@dataclass(frozen=True)
class Diagnosis:
    """The result of an examination.

    Attributes:
        layers: every stage, conv1 to fc8.
        expected_loss: of a network that only knows how frequent each class is: ln
            K if all are equally so.
        first_loss: of the untrained network on the first pictures.
        trial: loss at each step of the trial; shorter than `TRIAL_STEPS` if
            it was no longer finite.
        causes: the failures that were recognised; empty for a healthy recipe.
        seconds: what it took.
    """

    layers: tuple[StageHealth, ...]
    pictures: InputStatistics
    labels: Labels
    expected_loss: float
    first_loss: float
    trial: tuple[float, ...]
    causes: tuple[Cause, ...]
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """Plain data; null for what is no longer finite."""
        return json.loads(json.dumps(asdict(self)), parse_constant=lambda _: None)


@dataclass(frozen=True)
class Findings:
    """The findings that the rules use."""

    recipe: Recipe
    variant: Variant
    pictures: InputStatistics
    labels: Labels
    layers: tuple[StageHealth, ...]
    trial: tuple[float, ...]

    def layer(self, name: str) -> StageHealth:
        """The layer of this name."""
        return next(layer for layer in self.layers if layer.name == name)


def examine(recipe: Recipe, store: Store) -> Diagnosis:
    """Look at a recipe on real pictures, without training it.

    Raises:
        RecipeError: recipe and store do not fit, or the device is not there.
    """
    start = time.monotonic()
    device = pick_device(recipe.device)
    base = open_base(recipe) if recipe.tune else None
    store = fitting(recipe, store, base=base)
    begun = Start.before_head(recipe, store, device, base) if base else Start.fresh(recipe, store, device)
    recipe, variant = begun.recipe, begun.variant
    images, labels, _ = batch(begun.in_batches_of(LOOK_PICTURES), 0)
    spread, dead = look(begun.model, images)
    pictures = InputStatistics(float(images.mean()), float(images.std()), _difference(store.train))
    first_loss = _first_loss(begun.model, images, labels)
    trial, gradient, update = _trial(begun.in_batches_of(TRIAL_PICTURES))
    layers = tuple(
        StageHealth(name, value, dead.get(name), gradient.get(name), update.get(name), _verdict(name, spread, dead, update))
        for name, value in spread.items()
    )
    findings = Findings(recipe, variant, pictures, ask(store), layers, trial)
    expected = frequencies_loss(store.train, variant.num_classes)
    seconds = time.monotonic() - start
    return Diagnosis(layers, pictures, findings.labels, expected, first_loss, trial, _causes(findings), seconds)


# --- measuring ------------------------------------------------------------------------------------


def batch(start: Start, step: int) -> tuple[Tensor, Tensor, Tensor]:
    """Batch `step` of a run: (N, 3, K, K) augmented pictures, (N,) labels and (N, dropouts) keys of
    dropout; N is smaller where the store is.
    """
    epoch, place = divmod(step, start.loader.steps_per_epoch)
    records, labels = start.loader.batch(epoch, place)
    pictures, chance = start.loader.indices(epoch, place), Chance(start.recipe.seed, epoch)
    images = start.augmentation(records.to(start.device), pictures, chance)
    keys = torch.from_numpy(chance.dropout_keys(pictures, start.model.dropouts))
    return images.contiguous(memory_format=torch.channels_last), labels.to(start.device), keys.to(start.device)


@torch.no_grad()
def _first_loss(model: AlexNet, images: Tensor, labels: Tensor) -> float:
    return float(F.cross_entropy(model.eval()(images), labels))


def _trial(start: Start) -> tuple[tuple[float, ...], dict[str, float], dict[str, float]]:
    """Real steps at the full learning rate, without warm-up: losses, and the first
    step's gradients and updates.

    The network is left as the steps made it.
    """
    recipe, model = start.recipe, start.model.train()
    losses: list[float] = []
    gradient: dict[str, float] = {}
    update: dict[str, float] = {}
    for step in range(TRIAL_STEPS):
        images, labels, keys = batch(start, step)
        loss = F.cross_entropy(model(images, keys), labels, label_smoothing=recipe.label_smoothing)
        losses.append(float(loss.detach()))
        if not isfinite(losses[-1]):
            break
        loss.backward()
        gradient = gradient or gradient_norms(model)
        start.optimiser.step(recipe.lr)
        update = update or update_ratios(model, start.optimiser)
    return tuple(losses), gradient, update


def _difference(split: Split) -> float:
    """Mean deviation of a stored byte from picture to picture."""
    chosen = np.linspace(0, len(split) - 1, min(len(split), LOOK_PICTURES)).astype(int)
    return float(split.take(chosen).astype(np.float32).std(axis=0).mean())


def _verdict(name: str, spread: dict[str, float], dead: dict[str, float], update: dict[str, float]) -> str:
    """One stage in words."""
    if not isfinite(spread[name]):
        return "overflows"
    if dead.get(name, 0.0) >= DEAD:
        return "dead: no unit fires"
    stages = list(spread)
    if spread[name] < (ALIKE if stages.index(name) <= stages.index("pool5") else ALIKE_ABOVE):
        return "all pictures look alike"
    if name in update and update[name] > LEAP:
        return f"one step changes it by {update[name]:.0%}"
    if name in update and update[name] < STILL:
        return "hardly learns"
    return "healthy"


# --- the causes -----------------------------------------------------------------------------------


def _causes(findings: Findings) -> tuple[Cause, ...]:
    """The first rule of each group that applies; pictures that are no
    pictures spoil every other sign.
    """
    groups = (PICTURE_RULES, START_RULES, STEP_RULES, LABEL_RULES)
    pictures, *network, labels = (next(filter(None, (rule(findings) for rule in group)), None) for group in groups)
    return tuple(cause for cause in ([pictures] if pictures else network) + [labels] if cause)


def equal_pictures(findings: Findings) -> Cause | None:
    """Every stored picture is the same: the bytes differ by less than a level (43 in
    photos, 60 in Fashion-MNIST).
    """
    if findings.pictures.difference >= 1:
        return None
    return Cause(
        "equal-pictures",
        f"the stored pictures are all the same (they differ by {findings.pictures.difference:.2g} of 255 levels)",
        "data",
        "Look at the photos, and prepare the store again",
    )


def small_scale(findings: Findings) -> Cause | None:
    """Pictures that hold 0-1 where 0-255 is meant: photos have a deviation of 72,
    or of 1 if scaled to that.
    """
    least = 0.6 if findings.variant.pixels == "unit" else SMALL_PIXELS
    if findings.pictures.deviation >= least:
        return None
    return Cause(
        "no-contrast",
        f"the pictures have no contrast (deviation {findings.pictures.deviation:.2g} at the network's input), as if their "
        "pixels were on the scale 0-1 before they were stored",
        "data",
        "Prepare the store from pictures with pixels of 0-255",
    )


def mean_not_subtracted(findings: Findings) -> Cause | None:
    """The input's mean is far from 0: 1.6 deviations if 0-255 photos come as they are, 0.1
    at most in 32 photos else.
    """
    pictures = findings.pictures
    if abs(pictures.mean) < 0.5 * pictures.deviation:
        return None
    return Cause(
        "mean-not-subtracted",
        f"the network's input has mean {pictures.mean:.3g} at a deviation of "
        f"{pictures.deviation:.3g}: the mean in the store is not the mean of its pictures",
        "data",
        "Check the store with `alexnet verify`, and prepare it again",
    )


def small_start(findings: Findings) -> Cause | None:
    """The spread of pool5 is below `ALIKE`; see `pictures_alike` for the patterns."""
    return pictures_alike(findings.variant, findings.layer("pool5").spread, findings.pictures.deviation)


def small_steps(findings: Findings) -> Cause | None:
    """The first step changes no layer by `STILL` of its weights."""
    updates = [layer.update for layer in findings.layers if layer.update is not None]
    if not updates or not all(update < STILL for update in updates):
        return None
    return Cause(
        "small-steps",
        f"the first step changes no layer by more than {max(updates):.1g} of its weights ({STILL:g} would already be little)",
        "lr",
        f"Pass a higher --lr than {findings.recipe.lr:g}; the recipes have 0.01 and 0.02",
    )


def exploding(findings: Findings) -> Cause | None:
    """The loss passes `EXPLODED`, or is no longer finite, within the trial's steps."""
    worst = max(findings.trial) if all(map(isfinite, findings.trial)) else float("inf")
    if worst < EXPLODED:
        return None
    name, update = max(((layer.name, layer.update or 0.0) for layer in findings.layers), key=lambda pair: pair[1])
    grown = f"{worst:.3g}" if isfinite(worst) else "no longer finite"
    first = f", the first of which changed {name} by {update:.0%}" if update else ""
    evidence = f"within {len(findings.trial)} trial steps{first}, the loss is {grown}"
    lr = findings.recipe.lr
    return too_large(findings.variant, findings.pictures.deviation, lr, lr * CALM / max(update, CALM), evidence)


def one_class(findings: Findings) -> Cause | None:
    """One class is all there is: the loss falls to 0 and nothing is learned."""
    if findings.labels.present > 1:
        return None
    return Cause(
        "one-class",
        "all training pictures have the same label",
        "data",
        "Prepare the store from a folder that holds a folder for each class",
    )


def shuffled(findings: Findings) -> Cause | None:
    """Thumbnails tell labels no better than chance."""
    score = findings.labels.score
    if score is None or score >= RELATED or findings.pictures.difference < 1:
        return None
    return Cause(
        "shuffled-labels",
        f"thumbnails of {findings.labels.pictures} pictures predict the labels no better than "
        f"chance ({score:+.1f} standard deviations): the labels may be shuffled",
        "data",
        "Look at some pictures of each class in the source and prepare the store again; if they are right, continue",
    )


Rule = Callable[[Findings], Cause | None]
PICTURE_RULES: tuple[Rule, ...] = (small_scale, equal_pictures, mean_not_subtracted)
START_RULES: tuple[Rule, ...] = (small_start, small_steps)
STEP_RULES: tuple[Rule, ...] = (exploding,)
LABEL_RULES: tuple[Rule, ...] = (one_class, shuffled)
