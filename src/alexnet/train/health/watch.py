"""The signals of a network while it trains, and warnings of the known failures among them.

`Watch` reads the signals (`signals.py`) every `LOOK_STEPS` steps and knows what they mean
(`causes.py`); the session logs them, for `log.jsonl` and TensorBoard, and says once what
is wrong. It draws no random number and changes no tensor: a watched run ends with the
bits of an unwatched one.
"""

from collections.abc import Callable, Sequence
from math import isfinite, log

from torch import Tensor

from alexnet.data.store import Split
from alexnet.model import AlexNet
from alexnet.train.health.causes import Cause, layer_died, pictures_alike, too_large
from alexnet.train.health.signals import LOOK_PICTURES, frequencies_loss, gradient_norms, look, update_ratios
from alexnet.train.optim import SGD
from alexnet.train.recipes import Recipe
from alexnet.variants import Variant

PictureSource = Callable[[int], Tensor]

#: A look costs 0.05 % of 200 steps of the full net on batches of 128, up to 0.4 % of those of the
#: smallest (one core, eager).
LOOK_STEPS, FIRST_LOOK = 200, 20

#: A plateau: the mean over the last lines of the log, relative to the loss of a net that knows the
#: classes' frequencies alone.
PLATEAU_LINES, PLATEAU = 5, (0.98, 1.05)
#: Steps before it is called one: a tenth of the run, but within these. Caffe's net at half width
#: leaves it after 300 to 400.
PLATEAU_FROM = (400, 3000)


class Watch:
    """Looks at a network in training and names what is wrong with it.

    Args:
        recipe: says what is known of the start.
        split: trained on; the frequencies of its classes say what the loss of a
            net that learns nothing is.
        steps: of the whole run.
    """

    def __init__(self, recipe: Recipe, variant: Variant, split: Split, steps: int) -> None:
        self.recipe, self.variant = recipe, variant
        self.blind = frequencies_loss(split, variant.num_classes, recipe.label_smoothing)
        if recipe.class_weights:  # a net that learns nothing gives all classes the same probability
            self.blind = log(variant.num_classes)
        self.plateau_from = min(max(steps // 10, PLATEAU_FROM[0]), PLATEAU_FROM[1])

    def due(self, step: int) -> bool:
        """Whether to look at this step."""
        return step % LOOK_STEPS == FIRST_LOOK

    def look(self, model: AlexNet, images: Tensor, optimiser: SGD) -> tuple[dict[str, float], list[Cause]]:
        """Every layer's finite signals, for the log, and the failures that they show.

        Args:
            model: between `backward` and the update.
            images: (N, 3, K, K), of the step; N at least 2.
        """
        spread, dead = look(model, images[:LOOK_PICTURES])
        parts = {"spread": spread, "dead": dead, "gradient": gradient_norms(model), "update": update_ratios(model, optimiser)}
        values = {f"{part}/{name}": value for part, signals in parts.items() for name, value in signals.items()}
        causes = [layer_died(dead, self.recipe.lr)]
        broken = next((name for name, value in parts["gradient"].items() if not isfinite(value)), None)
        if broken:
            evidence = f"the gradient of {broken} is no longer finite, though the loss still is"
            causes.insert(0, too_large(self.variant, float(images.std()), self.recipe.lr, self.recipe.lr / 10, evidence))
        return {name: value for name, value in values.items() if isfinite(value)}, list(filter(None, causes))

    def plateau(self, step: int, losses: Sequence[float], model: AlexNet, pictures: PictureSource) -> Cause | None:
        """After a line of the log: has the network learned nothing but how
        frequent the classes are?

        Args:
            losses: of the latest lines, `PLATEAU_LINES` at most.
            pictures: gives as many of the last step's as it is asked for.
        """
        if not self.flat(step, losses):
            return None
        images = pictures(LOOK_PICTURES)
        return self._why_flat(sum(losses) / len(losses), step, model, images) if len(images) >= 2 else None

    def flat(self, step: int, losses: Sequence[float]) -> bool:
        """Whether the losses are on a plateau; arguments as those of `plateau`."""
        full = len(losses) == PLATEAU_LINES and step >= self.plateau_from
        low, high = PLATEAU[0] * self.blind, PLATEAU[1] * self.blind
        return full and low <= sum(losses) / len(losses) <= high

    def _why_flat(self, mean: float, step: int, model: AlexNet, images: Tensor) -> Cause:
        spread, dead = look(model, images)
        flat = (
            f"the loss is still {mean:.3f} after {step} steps, which is what a network gets that "
            f"only knows how frequent the {self.variant.num_classes} classes are ({self.blind:.3f})"
        )
        known = layer_died(dead, self.recipe.lr) or pictures_alike(self.variant, spread["pool5"], float(images.std()))
        if known:
            return Cause(known.name, f"{flat}: {known.evidence}", known.field, known.remedy)
        return Cause(
            "plateau",
            f"{flat}, and the layers look healthy",
            "data",
            "Check with `alexnet doctor` whether the labels fit the pictures; if they do, try a higher and a lower --lr",
        )
