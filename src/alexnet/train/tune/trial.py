"""Whether training the layers below the last helps, too, tested on held-out training pictures.

    last layer, fitted to the other training pictures              head.py
    then every layer by SGD on them, as the run itself would do
    the held-out pictures' loss and error before and after

The last layer's weight decay was chosen on the same pictures, which if anything favours the last
layer. The test pictures are not looked at. Everything is a function of the recipe, so a run that
is killed meanwhile repeats the trial and gets the same result.
"""

from dataclasses import dataclass, replace
from math import isfinite

import torch
from torch import Tensor

from alexnet.data.augment import Augmentation
from alexnet.data.loader import Loader
from alexnet.data.store import Split, Store
from alexnet.errors import CheckpointError
from alexnet.intervals import percent
from alexnet.memory import keep_freed
from alexnet.meter import Meter
from alexnet.phrases import counted
from alexnet.train.optim import SGD, schedule, warmup
from alexnet.train.recipes import Recipe
from alexnet.train.steps.plain import PlainStep, loss_function
from alexnet.train.tune.features import Extractor
from alexnet.train.tune.head import Head, Parted, Tested
from alexnet.trained import Trained

#: Standard errors that the mean gain must exceed; less may be chance (95 %).
MARGIN = 2.0
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
    recipe: Recipe,
    trained: Trained,
    head: Head,
    store: Store,
    parted: Parted,
    features: Tensor,
    weights: Tensor | None = None,
) -> Verdict:
    """Train every layer on a part of the training pictures, and compare on the rest.

    Args:
        recipe: how to train; its rates are for every layer, and its first epoch is the fit.
        trained: with `head` as its last layer; it is trained in place, on its device.
        head: fitted to the part.
        parted: which pictures are trained on, and which are held out.
        features: (N, V, D) of the stage that the last layer reads, for every training picture.
        weights: (K,) of each class, as in `head.fit`.
    """
    _train(recipe, trained, store, part(store.train, parted.used), weights)
    stage, views = recipe.features or "pool5", features.shape[1]
    others, labels = part(store.train, parted.held), parted.labels_of_held
    last = trained.model.fc8
    now = Head(last.weight.detach().cpu(), last.bias.detach().cpu())
    before = head.on_pictures(features[parted.held], labels)
    try:
        seen = Extractor(trained, (stage,), views).computed(others, "testing what was trained")[stage]
        after = now.on_pictures(seen, labels)
    except CheckpointError:  # it has diverged
        after = Tested(torch.full_like(before.losses, torch.nan), torch.ones_like(before.wrong))
    each = torch.ones(len(labels)) if weights is None else weights[labels]
    gains = each * (before.losses - after.losses)
    margin = MARGIN * float(gains.std()) / len(labels) ** 0.5
    return Verdict(len(labels), recipe.epochs - 1, before.means(each), after.means(each), float(gains.mean()), margin)


def _train(recipe: Recipe, trained: Trained, store: Store, split: Split, weights: Tensor | None) -> None:
    """The recipe's epochs of SGD, in place."""
    model, device = trained.model, trained.preprocessing.mean.device
    loader = Loader(split, recipe.batch_size, recipe.seed, recipe.workers)
    augmentation = Augmentation.of(trained.preprocessing, store, recipe.crop, recipe.mirror, recipe.colour_noise)
    optimiser = SGD(model, recipe.momentum, recipe.weight_decay, model.variant, recipe.nesterov, recipe.lr_factors)
    loss = loss_function(model, False, recipe.label_smoothing, None if weights is None else weights.to(device))
    if device.type == "cpu":
        keep_freed(loader.batch_size * max(layer.activation_bytes for layer in model.variant.layers()))
    step, steps = PlainStep(model, loss, optimiser, loader, augmentation), loader.steps_per_epoch
    epochs = range(1, recipe.epochs)
    with Meter("trying to train all layers", len(epochs) * steps * loader.batch_size, "images") as meter:
        model.train()
        for epoch in epochs:
            for number in range(steps):
                now = epoch + number / steps
                step.take(epoch, number, recipe.lr * warmup(recipe, now + 1 / steps), schedule(recipe, now, ()))
                meter.add(loader.batch_size)
        model.eval()
    step.close()


def part(split: Split, which: Tensor) -> Split:
    """Some pictures of a split, in memory."""
    numbers = which.numpy()
    return replace(split, records=split.take(numbers), labels=split.labels[numbers], length=0, blocks=())
