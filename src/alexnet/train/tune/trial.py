"""Whether training the layers below the last helps, too, tested on held-out training pictures.

    last layer, fitted to the other training pictures              head.py
    then every layer by SGD on them, as the run itself would do
    the held-out pictures' loss and error before and after

The last layer's weight decay was chosen on the same pictures, which if anything favours the last
layer. The test pictures are not looked at. Everything is a function of the recipe, so a run that
is killed meanwhile repeats the trial and gets the same result.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import isfinite
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from alexnet.data.store import Split, Store
from alexnet.errors import CheckpointError
from alexnet.intervals import percent
from alexnet.memory import keep_freed
from alexnet.meter import Meter
from alexnet.phrases import counted
from alexnet.train.optim import learning_rate
from alexnet.train.recipes import Recipe
from alexnet.train.steps.plain import PlainStep, loss_function
from alexnet.train.tune.features import Extractor
from alexnet.train.tune.head import Head, Parted, Tested
from alexnet.trained import Trained

if TYPE_CHECKING:
    from alexnet.train.start import Start  # which begins runs with this module

#: Standard errors that the mean gain must exceed; less may be chance (95 %).
MARGIN = 2.0
OnPart = Callable[[Recipe, Trained, Store, Split], "Start"]

#: Pictures held out: with fewer the result would be mostly chance.
LEAST = 100


@dataclass(frozen=True)
class Verdict:
    """The result of both networks on held-out pictures.

    Attributes:
        pictures: held out.
        epochs: of SGD.
        head, tuned: loss and top-1 error of the last layer alone, and of all layers.
        gain, margin: the mean reduction of a picture's loss, and what it must exceed.
    """

    pictures: int
    epochs: int
    head: tuple[float, float]
    tuned: tuple[float, float]
    gain: float
    margin: float

    @property
    def helps(self) -> bool:
        """Whether training all layers lowers the loss beyond chance, at no more errors."""
        return self.gain > self.margin and self.tuned[1] <= self.head[1]

    def __str__(self) -> str:
        head, tuned = (f"{percent(error)} error, loss {loss:.3f}" for loss, error in (self.head, self.tuned))
        if self.helps:
            then = "All layers are trained."
        elif not isfinite(self.gain):
            then = "Only the last layer is trained: for all layers the learning rate is too high."
        else:
            then = (
                f"Only the last layer is trained: all layers {'are worse' if self.gain < 0 else 'bring no gain beyond chance'}."
            )
        return (
            f"On {counted(self.pictures, 'training picture')} held out for this test: the last layer alone {head}; all layers "
            f"after {counted(self.epochs, 'epoch')} {tuned}. {then}"
        )


def ask(
    start: "Start",
    head: Head,
    others: Split,
    parted: Parted,
    features: Tensor,
    weights: Tensor | None = None,
) -> Verdict:
    """Train every layer on a part of the training pictures, and compare on the rest.

    Args:
        start: of the part, with `head` as the network's last layer; its recipe's rates are for
            every layer, and its first epoch is the fit.
        head: fitted to the part.
        others: the rest.
        parted: the numbers of both.
        features: (N, V, D) of the stage that the last layer reads, for every training picture.
        weights: (K,) of each class, as in `head.fit`.
    """
    recipe, labels = start.recipe, parted.labels_of_held
    _train(start, weights)
    stage, views = recipe.features or "pool5", features.shape[1]
    last = start.model.fc8
    now = Head(last.weight.detach().cpu(), last.bias.detach().cpu())
    before = head.on_pictures(features[parted.held], labels)
    try:
        seen = Extractor(start.trained, (stage,), views).computed(others, "testing what was trained")[stage]
        after = now.on_pictures(seen, labels)
    except CheckpointError:  # it has diverged
        after = Tested(torch.full_like(before.losses, torch.nan), torch.ones_like(before.wrong))
    each = torch.ones(len(labels)) if weights is None else weights[labels]
    gains = each * (before.losses - after.losses)
    margin = MARGIN * float(gains.std()) / len(labels) ** 0.5
    return Verdict(len(labels), recipe.epochs - 1, before.means(each), after.means(each), float(gains.mean()), margin)


def _train(start: "Start", weights: Tensor | None) -> None:
    """The recipe's epochs of SGD, in place."""
    recipe, model, loader = start.recipe, start.model, start.loader
    loss = loss_function(model, False, recipe.label_smoothing, None if weights is None else weights.to(start.device))
    if start.device.type == "cpu":
        keep_freed(loader.batch_size * start.variant.largest_activation_bytes)
    step, steps = PlainStep(model, loss, start.optimiser, loader, start.augmentation), loader.steps_per_epoch
    epochs = range(1, recipe.epochs)
    with Meter("trying to train all layers", len(epochs) * steps * loader.batch_size, "images") as meter:
        model.train()
        for epoch in epochs:
            for number in range(steps):
                step.take(epoch, number, *learning_rate(recipe, epoch, number, steps, ()))
                meter.add(loader.batch_size)
        model.eval()
    step.close()


def some(split: Split, which: Tensor) -> Split:
    """Some pictures of a split, in memory."""
    numbers = which.numpy()
    return replace(split, records=split.take(numbers), labels=split.labels[numbers], length=0, blocks=())
