"""What a network says of itself while it learns, and which known failure it is.

Three numbers for a layer tell most failures apart, and none needs a run of hours:

- spread: the deviation of its values from picture to picture, relative to their mean size. Near 0 every picture looks the same
  to the layers above, all they can learn is how frequent each class is, and the loss stands still at ln K (6.908 for K = 1000).
- dead: the share of units that fire for no picture. A dead layer passes no gradient down.
- update: the size of a step relative to the weights that it changes. A step as large as the weights is a leap.

`doctor.py` reads them before a run. Here `Watch` reads them during one, every `LOOK_STEPS` steps, into `log.jsonl` and
TensorBoard, and says once what is wrong. It draws no random number and changes no tensor: a watched run ends with the bits of
an unwatched one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite

import numpy as np
import torch
from torch import Tensor, nn

from alexnet.arithmetic import Dropout, ReLU
from alexnet.console import say
from alexnet.data.store import Split
from alexnet.model import AlexNet
from alexnet.train.optim import SGD
from alexnet.train.recipes import Recipe
from alexnet.train.run import Run
from alexnet.variants import Variant

Pictures = Callable[[int], Tensor]

#: A look costs 0.05 % of 200 steps of the full net on batches of 128, up to 0.4 % of those of the smallest (one core, eager).
LOOK_STEPS, FIRST_LOOK, LOOK_PICTURES = 200, 20, 32

#: Spread of pool5 at the start, on 32 photos, below which the loss is likely to stay flat. On ImageNet, Caffe's AlexNet with
#: biases of 1 (0.08) "gave flat loss" (its readme), and CaffeNet (0.08) learned; the paper's text has 0.03, Caffe's AlexNet as
#: it is and the code of 2012 have 0.24 and more. On ten classes, 500 or 600 steps of 64, flat: the paper's text (0.007) and
#: scaled pixels (0.003) at half width, Caffe's AlexNet at quarter width (0.04); learned: all of 0.1 and more, but also the
#: paper's text at full width and 128 pixels (0.03) and the code of 2012 at quarter width (0.04). Near 0.05 it is a risk only.
ALIKE = 0.05
#: Share of a layer's units that fire for none of 32 pictures: up to 0.47 in nets that learn (fc6 of torchvision's, 96 pixels).
DEAD = 0.99
#: Deviation of the network's input: 72 for photos on the 0-255 scale, 1 for pixels scaled to unit deviation.
SMALL_PIXELS, LARGE_PIXELS = 3.0, 10.0

#: A plateau: the mean over the last lines of the log, relative to the loss of a net that knows the classes' frequencies alone.
PLATEAU_LINES, PLATEAU = 5, (0.98, 1.05)
#: Steps before it is called one: a tenth of the run, but within these. Caffe's net at half width leaves it after 300 to 400.
PLATEAU_FROM = (400, 3000)


@dataclass(frozen=True)
class Cause:
    """A known failure that was recognised.

    Attributes:
        name: short and stable, for programs.
        evidence: what was seen, with its numbers.
        field: what to change: a field of the recipe, or `data`.
        remedy: how.
    """

    name: str
    evidence: str
    field: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.evidence}. {self.remedy}."


# --- signals ----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def look(model: AlexNet, images: Tensor) -> tuple[dict[str, float], dict[str, float]]:
    """Spread of every stage but dropout, and the dead share of every ReLU, as at test. The model stays in its mode.

    Args:
        images: (N, 3, K, K), N at least 2.
    """
    was_training = model.training
    stages = model.eval().stages(images)
    model.train(was_training)
    for op in model.ops:
        if isinstance(op, Dropout):
            del stages[op.name]
    rectified = [op.name for op in model.ops if isinstance(op, ReLU)]
    spreads = _numbers([_spread(value) for value in stages.values()])
    deads = _numbers([_dead(stages[name]) for name in rectified])
    return dict(zip(stages, spreads, strict=True)), dict(zip(rectified, deads, strict=True))


def _spread(value: Tensor) -> Tensor:
    """(N, ...): deviation across the N, averaged over units, relative to the mean magnitude."""
    value = value.float()
    deviation = (value - value.mean(0)).square_().mean(0).sqrt_()  # `std(0)` takes four times as long
    return deviation.mean() / value.abs().mean().clamp_min(1e-30)


def _dead(value: Tensor) -> Tensor:
    """(N, C) or (N, C, H, W) after a ReLU: share of the C that are 0 everywhere in every picture."""
    return (value.transpose(0, 1).flatten(1).amax(1) <= 0).float().mean()


@torch.no_grad()
def gradient_norms(model: AlexNet) -> dict[str, float]:
    """Norm of the gradient of each layer's weights, between `backward` and the optimiser's step."""
    weights = _weights(model)
    return dict(zip(weights, _numbers([w.grad.norm() for w in weights.values() if w.grad is not None]), strict=True))


@torch.no_grad()
def update_ratios(model: AlexNet, optimiser: SGD) -> dict[str, float]:
    """Norm of the last step of each layer's weights, relative to the weights' own."""
    weights = _weights(model)
    steps = [optimiser.velocity[f"{name}.weight"].norm() for name in weights]
    sizes = [weight.norm().clamp_min(1e-30) for weight in weights.values()]
    return dict(zip(weights, _numbers([step / size for step, size in zip(steps, sizes, strict=True)]), strict=True))


def _weights(model: AlexNet) -> dict[str, nn.Parameter]:
    """By layer, of those that the variant has."""
    return {name: model.get_parameter(f"{name}.weight") for name, _ in model.named_children()}


def _numbers(values: list[Tensor]) -> list[float]:
    """To the CPU in one transfer."""
    return torch.stack(values).tolist() if values else []  # a net with tanh has no ReLU that could be dead


def frequencies_loss(split: Split, classes: int, label_smoothing: float = 0.0) -> float:
    """Loss of an answer that knows how frequent each class is and does not look at the picture: ln K if all are equally so."""
    share = np.bincount(split.labels, minlength=classes) / len(split)
    share = (1 - label_smoothing) * share + label_smoothing / classes
    return float(-(share[share > 0] * np.log(share[share > 0])).sum())


# --- known failures of a network ----------------------------------------------------------------------------------------


def pictures_alike(variant: Variant, spread: float, deviation: float) -> Cause | None:
    """The pictures' differences fade away below pool5, and why.

    Args:
        spread: of pool5; below `ALIKE` is a failure.
        deviation: of the network's input.
    """
    if spread >= ALIKE:
        return None
    seen = f"all pictures look alike from pool5 on (spread {spread:.4f}; a safe start has {ALIKE} and more)"
    if variant.init == "gaussian" and deviation < SMALL_PIXELS:
        return Cause(
            "small-pixels", f"{seen}: weights of 0.01 expect pixels of 0-255, these have a deviation of {deviation:.2g}",
            "pixels", "Pass --pixels mean-image, or --init he, which expects pixels of about this deviation",
        )  # fmt: skip
    if variant.init == "gaussian" and variant.init_bias[3] >= 1 and variant.init_std[3] <= 0.01:
        return Cause(
            "bias-one", f"{seen}: biases of 1 in conv2, conv4 and conv5 drown what weights of 0.01 make of the pictures",
            "variant",
            "Pass --variant code-2012 (weights of 0.03 there), --variant caffe (biases of 0.1), or --init he --pixels unit",
        )  # fmt: skip
    if variant.init == "gaussian" and variant.width < 1:
        return Cause(
            "narrow", f"{seen}: initial weights of a fixed size sum up to less in layers of width {variant.width:g}",
            "init", "Pass --init he --pixels unit, or --width 1",
        )  # fmt: skip
    return Cause(
        "fading", f"{seen}: the initial weights are too small, or a step was too large", "init",
        "Pass --init he --pixels unit, or lower --lr if it had begun to learn",
    )  # fmt: skip


def layer_died(dead: dict[str, float], lr: float) -> Cause | None:
    """A layer of which no unit fires for any picture: nothing above it learns, and nothing below it ever gets a gradient.

    Args:
        dead: by ReLU; `DEAD` and more is a failure.
        lr: the recipe's.
    """
    name = next((name for name, share in dead.items() if share >= DEAD), None)
    if name is None:
        return None
    return Cause(
        "dead-layer",
        f"{name} has gone dead: {dead[name]:.0%} of its units are 0 for every picture, mostly after a step too large",
        "lr", f"Begin again with --lr {lr / 10:g}, or raise --warmup",
    )  # fmt: skip


def too_large(variant: Variant, deviation: float, lr: float, lower: float, evidence: str) -> Cause:
    """Values grow from step to step: because of pixels that the initialisation does not expect, or of the learning rate.

    He initialisation keeps the size of the input to the last layer: pixels of deviation 72 make logits 72 times too large. At
    lr 0.01 the loss passes 1e10 within four steps; at half width and 96 pixels it passes 300 and the layers die.

    Args:
        deviation: of the network's input.
        lr, lower: the learning rate, and one to try.
        evidence: how it was noticed.
    """
    if variant.init == "he" and deviation > LARGE_PIXELS:
        return Cause(
            "he-large-pixels",
            f"{evidence}: He initialisation expects pixels of deviation 1, these have {deviation:.3g}, "
            f"which is too much for lr {lr:g}",
            "pixels", "Pass --pixels unit, or a much lower --lr",
        )  # fmt: skip
    return Cause(
        "large-steps", f"{evidence}: lr {lr:g} is too high", "lr", f"Pass a lower --lr, such as {lower:.1g}, or raise --warmup"
    )


# --- during training ----------------------------------------------------------------------------------------------------


class Watch:
    """Looks at a network in training and warns, once for each failure.

    Args:
        recipe: says what is known of the start.
        split: trained on; the frequencies of its classes say what the loss of a net that learns nothing is.
        steps: of the whole run.
        losses, warned: the averages of the latest log lines and the warnings given, kept in the run's checkpoint; changed here.
    """

    def __init__(
        self, recipe: Recipe, variant: Variant, split: Split, steps: int, losses: list[float], warned: list[str]
    ) -> None:
        self.recipe, self.variant = recipe, variant
        self.blind = frequencies_loss(split, variant.num_classes, recipe.label_smoothing)
        self.plateau_from = min(max(steps // 10, PLATEAU_FROM[0]), PLATEAU_FROM[1])
        self.losses, self.warned = losses, warned

    def due(self, step: int) -> bool:
        """Whether `look` will look."""
        return step % LOOK_STEPS == FIRST_LOOK

    def look(self, step: int, model: AlexNet, images: Tensor, optimiser: SGD, run: Run) -> None:
        """Every `LOOK_STEPS`: log every layer's signals. Call it between `backward` and the update of step `step`."""
        if not self.due(step) or len(images) < 2:
            return
        spread, dead = look(model, images[:LOOK_PICTURES])
        parts = {"spread": spread, "dead": dead, "gradient": gradient_norms(model), "update": update_ratios(model, optimiser)}
        values = {f"{part}/{name}": value for part, signals in parts.items() for name, value in signals.items()}
        run.log("signals", step, {name: value for name, value in values.items() if isfinite(value)})
        broken = next((name for name, value in parts["gradient"].items() if not isfinite(value)), None)
        if broken:
            evidence = f"the gradient of {broken} is no longer finite, though the loss still is"
            self._warn(too_large(self.variant, float(images.std()), self.recipe.lr, self.recipe.lr / 10, evidence), step, run)
        self._warn(layer_died(dead, self.recipe.lr), step, run)

    def plateau(self, step: int, loss: float, model: AlexNet, pictures: Pictures, run: Run) -> None:
        """After a line of the log with this loss: has the network learned nothing but how frequent the classes are?

        Args:
            pictures: gives as many of the last step's as it is asked for.
        """
        self.losses[:] = [*self.losses, loss][-PLATEAU_LINES:]
        mean = sum(self.losses) / len(self.losses)
        full = len(self.losses) == PLATEAU_LINES and step >= self.plateau_from
        low, high = PLATEAU[0] * self.blind, PLATEAU[1] * self.blind
        if not full or not low <= mean <= high or "plateau" in self.warned:
            return
        images = pictures(LOOK_PICTURES)
        if len(images) < 2:
            return
        self._warn(self._why_flat(mean, step, model, images), step, run)
        self.warned.append("plateau")

    def _why_flat(self, mean: float, step: int, model: AlexNet, images: Tensor) -> Cause:
        spread, dead = look(model, images)
        flat = (
            f"the loss stands at {mean:.3f} after {step} steps, as that of a net that only knows how frequent the "
            f"{self.variant.num_classes} classes are ({self.blind:.3f})"
        )
        known = layer_died(dead, self.recipe.lr) or pictures_alike(self.variant, spread["pool5"], float(images.std()))
        if known:
            return Cause(known.name, f"{flat}: {known.evidence}", known.field, known.remedy)
        return Cause(
            "plateau", f"{flat}, and the layers look healthy", "data",
            "See with `alexnet doctor` whether the labels fit the pictures; if they do, try a higher and a lower --lr",
        )  # fmt: skip

    def _warn(self, cause: Cause | None, step: int, run: Run) -> None:
        """Say it, unless it was said before."""
        if cause is None or cause.name in self.warned:
            return
        self.warned.append(cause.name)
        run.log("warning", step, {cause.name: 1.0})
        say(f"Warning: {cause}")
