"""What `alexnet fit` trains, and how long that takes here: on trained weights where there are any,
else from scratch.

Weights are taken as they are named, or else from what `alexnet weights pull` has brought here.
They decide the network, the size of the pictures and the resize rule; from scratch the recipe does.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet.console import say
from alexnet.data.image import Resize
from alexnet.data.loader import in_order
from alexnet.data.store import Split
from alexnet.errors import RecipeError
from alexnet.forecast import Times, about, fastest_device, picture_seconds, step_seconds
from alexnet.meter import Meter
from alexnet.phrases import counted
from alexnet.published import registry
from alexnet.train import recipes
from alexnet.train.recipes import Recipe
from alexnet.train.tune.base import Base, open_base
from alexnet.train.tune.begin import passes_an_epoch, with_layers
from alexnet.train.tune.features import Extractor, views_for
from alexnet.trained import Trained

FROM_SCRATCH, ON_WEIGHTS = "small-photos", "finetune"
SUGGESTED = "torchvision"  # one file, the smallest
BATCH_SIZE = 64
ClassWeights = Literal["balanced"] | None
OTHER_SECONDS = 10.0  # starting, testing, the page


@dataclass(frozen=True)
class Work:
    """What is to be done: photos in all, classes, and whether they are to be prepared first."""

    photos: int
    classes: int
    preparing: float = 0.0  # seconds


@dataclass(frozen=True)
class Plan:
    """A recipe, and the weights that it begins with, if they have been read."""

    recipe: Recipe
    base: Base | None = None

    @property
    def stored_as(self) -> tuple[int, Resize]:
        """Size and resize rule of the store that the network wants."""
        if self.base:
            return self.base.preprocessing.stored_size, self.base.preprocessing.resize
        return self.recipe.stored_size, self.recipe.stored_as["resize"]

    @cached_property
    def convolutions(self) -> Callable[[Tensor], Tensor]:
        """The weights' convolutions, on the fastest engine: from (N, 3, K, K) pictures on the
        fastest device to what pool5 gives, (N, D).
        """
        assert self.base
        model = with_layers(self.base, self.base.network("pool5", self.recipe, 2), self.recipe.seed).to(fastest_device())
        network = Extractor(Trained(model, ("", ""), self.base.preprocessing, {}, {}), ("pool5",), 1).network()
        return lambda x: network(x)["pool5"]

    @torch.inference_mode()
    def pool5(self, split: Split) -> Tensor:
        """What the weights' convolutions give for each picture, averaged to 2 x 2: (N, C, 2, 2)."""
        assert self.base
        device, channels = fastest_device(), len(self.base.parameters["conv5.weight"])
        preprocessing = self.base.preprocessing.to(device)
        view = preprocessing.views(1)[0]
        with Meter(f"looking for near-duplicates in {split.name}", len(split), "images") as meter:
            features = []
            for records, _ in in_order(split, BATCH_SIZE):
                maps = self.convolutions(preprocessing.view(records.to(device), *view)).view(len(records), channels, -1)
                side = round(maps.shape[2] ** 0.5)
                features.append(F.adaptive_avg_pool2d(maps.unflatten(2, (side, side)), 2).cpu())
                meter.add(len(records))
        return torch.cat(features)

    @classmethod
    def of(cls, weights: str | None, variant: str | None = None, class_weights: ClassWeights = None) -> "Plan":
        """The plan for weights, or from scratch without.

        Args:
            variant: of weights that do not say which they are.
            class_weights: as the recipe's field.
        """
        if weights is None:
            return cls(recipes.get_recipe(FROM_SCRATCH, class_weights=class_weights))
        known = {} if variant is None else {"variant": variant}
        recipe = recipes.get_recipe(ON_WEIGHTS, weights=weights, class_weights=class_weights, **known)
        return cls(recipe, open_base(recipe))

    def within(self, minutes: float | None, work: Work) -> "Plan":
        """The plan that the minutes allow, with a line on what comes and how long it takes.

        Raises:
            RecipeError: they do not allow one pass over the photos.
        """
        once, passes = self._pass(work)
        other = work.preparing + OTHER_SECONDS
        if minutes is not None and 60 * minutes < other + once.usual:
            least = int((other + once.usual) / 60 + 1.5)
            raise RecipeError(
                f"minutes (={minutes:g}) is too little for one pass over {counted(work.photos, 'photo')}, which takes "
                f"{about(other + once.usual)} here: allow {least} or more."
            )
        plan, how, more = self, f"on the weights {self.recipe.weights}", ""
        if self.base is None:
            if minutes is not None:
                passes = min(int((60 * minutes - other) / once.usual), passes)
                plan = replace(self, recipe=replace(self.recipe, epochs=passes))
            how = f"from scratch ({counted(passes, 'epoch')} of {FROM_SCRATCH})"
        elif an_epoch := passes_an_epoch(work.photos):
            epoch, epochs = once.each(an_epoch / (views_for(work.photos) + 1)), self.recipe.epochs - 1
            if minutes is not None:
                epochs = min(int((60 * minutes - other - once.usual) / epoch.usual), epochs)
                plan = replace(self, recipe=replace(self.recipe, epochs=1 + epochs))
            more = f", and {about(epoch.each(epochs))} more if training all layers helps" if epochs else ""
        say(
            f"{counted(work.photos, 'photo')} of {counted(work.classes, 'class')}: preparing, training {how} and testing take "
            f"{about(once.each(passes, other))} on this machine as it is now{more}. Ctrl-C stops it, and the same command "
            "continues."
        )
        return plan._noting(once, work)

    def _pass(self, work: Work) -> tuple[Times, int]:
        """The least that makes a network, one pass over the photos, and how many of them the recipe
        takes. On weights it is one, in as many views as the last layer is fitted to.
        """
        if self.base is None:
            steps = max(1, work.photos // self.recipe.batch_size)
            return step_seconds(self.recipe, work.classes).each(steps), self.recipe.epochs
        views = views_for(work.photos)
        picture = picture_seconds(self.convolutions, self.base.preprocessing.input_size, fastest_device())
        return picture.each((views + 1) * work.photos), 1

    def _noting(self, once: Times, work: Work) -> "Plan":
        """The plan, whose weights know how long one view of a picture was forecast to take."""
        if self.base is None:
            return self
        view = once.each(1 / ((views_for(work.photos) + 1) * work.photos))
        return replace(self, base=replace(self.base, view_seconds=(view.least, view.most)))


def weights_here(named: str | None) -> str | None:
    """The weights to begin with: those named, else published ones that are on this machine, which
    is said; None where there are none.
    """
    if named is not None:
        return named
    for entry in registry.downloaded():
        say(f"Training begins with the published weights {entry.name}, which are on this machine.")
        return entry.name
    say(
        "Training is from scratch, as no trained weights are on this machine. With some, few photos give a much lower error: "
        f"`alexnet weights pull {SUGGESTED}` downloads them ({registry.get_published(SUGGESTED).bytes / 1e6:,.0f} MB), or name "
        "a file with --from."
    )
    return None
