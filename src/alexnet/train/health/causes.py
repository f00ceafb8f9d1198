"""Known failures of a network, each with the signal that gives it away, its threshold, and
where that was measured.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from alexnet.model import AlexNet
from alexnet.variants import Variant

#: Spread of pool5 at the start, on 32 photos, below which the loss is likely to stay flat. On
#: ImageNet, Caffe's AlexNet with biases of 1 (0.08) "gave flat loss" (its readme), and CaffeNet
#: (0.08) learned; the paper's text has 0.03, Caffe's AlexNet as it is and the code of 2012 have
#: 0.24 and more. On ten classes, 500 or 600 steps of 64, flat: the paper's text (0.007) and scaled
#: pixels (0.003) at half width, Caffe's AlexNet at quarter width (0.04); learned: all of 0.1 and
#: more, but also the paper's text at full width and 128 pixels (0.03) and the code of 2012 at
#: quarter width (0.04). Near 0.05 it is a risk only.
ALIKE = 0.05
#: Share of a layer's units that fire for none of 32 pictures: up to 0.47 in nets that learn (fc6 of
#: torchvision's, 96 pixels).
DEAD = 0.99
#: Deviation of the network's input: 72 for photos on the 0-255 scale, 1 for pixels
#: scaled to unit deviation.
SMALL_PIXELS, LARGE_PIXELS = 3.0, 10.0


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


def pictures_alike(variant: Variant, spread: float, deviation: float) -> Cause | None:
    """The pictures' differences fade away below pool5, and why.

    Args:
        spread: of pool5; below `ALIKE` is a failure.
        deviation: of the network's input.
    """
    if spread >= ALIKE:
        return None
    seen = f"all pictures look alike from pool5 on (spread {spread:.4f}; a safe start has at least {ALIKE})"
    if variant.init == "gaussian" and deviation < SMALL_PIXELS:
        return Cause(
            "small-pixels",
            f"{seen}: weights of 0.01 expect pixels of 0-255, but these have a deviation of {deviation:.2g}",
            "pixels",
            "Pass --pixels mean-image, or --init he, which expects pixels of about this deviation",
        )
    if variant.init == "gaussian" and variant.init_bias[3] >= 1 and variant.init_std[3] <= 0.01:
        return Cause(
            "bias-one",
            f"{seen}: biases of 1 in conv2, conv4 and conv5 are much larger than the responses "
            "of weights of 0.01 to the pictures",
            "variant",
            "Pass --variant code-2012 (weights of 0.03 there), --variant caffe (biases of 0.1), or --init he --pixels unit",
        )
    if variant.init == "gaussian" and variant.width < 1:
        return Cause(
            "narrow",
            f"{seen}: initial weights of a fixed size give smaller sums in layers of width {variant.width:g}",
            "init",
            "Pass --init he --pixels unit, or --width 1",
        )
    return Cause(
        "fading",
        f"{seen}: the initial weights are too small, or a training step was too large",
        "init",
        "Pass --init he --pixels unit, or lower --lr if it had begun to learn",
    )


def layer_died(dead: dict[str, float], lr: float) -> Cause | None:
    """A layer of which no unit fires for any picture: nothing above it learns, and nothing below
    it ever gets a gradient.

    Args:
        dead: by ReLU; `DEAD` and more is a failure.
        lr: the recipe's.
    """
    name = next((name for name, share in dead.items() if share >= DEAD), None)
    if name is None:
        return None
    return Cause(
        "dead-layer",
        f"{name} is dead: {dead[name]:.0%} of its units are 0 for every picture, usually because a step was too large",
        "lr",
        f"Start again with --lr {lr / 10:g}, or raise --warmup",
    )


def too_large(variant: Variant, deviation: float, lr: float, lower: float, evidence: str) -> Cause:
    """Values grow from step to step: because of pixels that the initialisation does not expect,
    or of the learning rate.

    He initialisation keeps the size of the input to the last layer: pixels of deviation 72 make
    logits 72 times too large. At lr 0.01 the loss passes 1e10 within four steps; at half width and
    96 pixels it passes 300 and the layers die.

    Args:
        deviation: of the network's input.
        lr, lower: the learning rate, and one to try.
        evidence: how it was noticed.
    """
    if variant.init == "he" and deviation > LARGE_PIXELS:
        return Cause(
            "he-large-pixels",
            f"{evidence}: He initialisation expects pixels of deviation 1, but these have "
            f"{deviation:.3g}, which is too much for lr {lr:g}",
            "pixels",
            "Pass --pixels unit, or a much lower --lr",
        )
    return Cause(
        "large-steps", f"{evidence}: lr {lr:g} is too high", "lr", f"Pass a lower --lr, such as {lower:.1g}, or raise --warmup"
    )


@torch.no_grad()
def overflow(model: AlexNet, images: Tensor, lr: float, seen: str) -> Cause:
    """Where the first value that is not finite is, and why.

    If weights are broken already, the gradients of the step before were, and those flow from fc8
    down: the last layer broke first. If not, the first stage to overflow did.

    Args:
        images: (N, 3, K, K), of the step that broke.
        lr: the recipe's.
        seen: how it was noticed.
    """
    layers = dict(model.named_children())
    broken = [name for name in layers if not all(p.isfinite().all() for p in layers[name].parameters())]
    if broken:
        where = f"the weights of {broken[-1]} became non-finite first, through the gradient of the step before"
    else:
        stages = model.stages(images)
        first = next((name for name, value in stages.items() if not value.isfinite().all()), None)
        where = (
            f"the output of {first} became non-finite first"
            if first
            else "every activation is finite, but the logits are too large"
        )
    return too_large(model.variant, float(images.std()), lr, lr / 10, f"{seen}: {where}")
