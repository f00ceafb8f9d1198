"""How a run begins: a recipe's network and all that trains it on a store.

Nothing else in the project builds these for a run: `alexnet train`, families, ablations, the doctor
and the benchmarks all begin with one of the constructors of `Start`.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from alexnet.data.augment import Augmentation
from alexnet.data.loader import INIT, Loader, stream
from alexnet.data.preprocessing import Preprocessing
from alexnet.data.resample import resampled
from alexnet.data.store import Split, Store
from alexnet.errors import CheckpointError, RecipeError
from alexnet.model import AlexNet
from alexnet.run_folder import is_run
from alexnet.train.history import read_config
from alexnet.train.optim import SGD
from alexnet.train.place import REMEDY, Place, Window
from alexnet.train.recipes import Recipe
from alexnet.train.tune.base import Base, open_base, pictures_for
from alexnet.train.tune.begin import begin, loaded
from alexnet.train.whiten import whiten
from alexnet.trained import Trained
from alexnet.variants import Variant
from alexnet.weights import native

#: Stored pictures may have this many times the side of a crop; ImageNet's 256
#: have 1.14 times the 224.
MOST_ROOM = 1.5


@dataclass(frozen=True)
class Start:
    """What a run begins with, on its device.

    Attributes:
        trained: the network, its classes and its preprocessing.
        augmentation: what training does to the pictures.
        loader: the batches of the training split.
        optimiser: of the network's parameters, with its velocity.
        place: how far the run is; it moves on as the run does.
    """

    recipe: Recipe
    trained: Trained
    augmentation: Augmentation
    loader: Loader
    optimiser: SGD
    place: Place

    @property
    def variant(self) -> Variant:
        """The network that is trained."""
        return self.trained.model.variant

    @property
    def model(self) -> AlexNet:
        """The network's weights."""
        return self.trained.model

    @property
    def preprocessing(self) -> Preprocessing:
        """From a record to the network's input."""
        return self.trained.preprocessing

    @property
    def device(self) -> torch.device:
        """Where all of it computes."""
        return self.preprocessing.mean.device

    @classmethod
    def fresh(cls, recipe: Recipe, store: Store, device: torch.device, variant: Variant | None = None) -> "Start":
        """With the weights that the recipe's seed gives.

        Args:
            variant: the recipe's network for this store, where it is known already.

        Raises:
            RecipeError: the recipe does not fit the store.
        """
        variant = variant or recipe.network(len(store.classes))
        preprocessing = Preprocessing.of(variant, store)
        model = _seeded(variant, recipe.seed)
        if recipe.whiten:
            whiten(model, preprocessing, store.train)
        trained = Trained(_placed(model, device), store.classes, preprocessing.to(device), {}, {})
        return cls._around(trained, recipe, store, Place())

    @classmethod
    def tuned(cls, recipe: Recipe, store: Store, device: torch.device, base: Base, folder: Path) -> "Start":
        """With weights that somebody trained, and a last layer for this store's classes.

        Args:
            base: the weights; the store is in the size that they want.
            folder: of the run, which keeps features.

        Returns:
            A start whose recipe says what was chosen, and whose place has the head's loss.

        Raises:
            RecipeError: recipe, weights and store do not fit.
            TrainingError: the recipe's minutes are too few.
        """
        begun = begin(recipe, base, store, device, folder, cls.on_part)
        preprocessing = begun.trained.preprocessing.to(device)
        trained = replace(begun.trained, model=_placed(begun.trained.model, device), preprocessing=preprocessing)
        window = Window(begun.loss, round(begun.error * len(store.train)), len(store.train), 1)
        return cls._around(trained, begun.recipe, store, Place(seconds=begun.seconds, window=window))

    @classmethod
    def on_part(cls, recipe: Recipe, trained: Trained, store: Store, split: Split) -> "Start":
        """With a network that is there, on some of a store's training pictures."""
        return cls._around(trained, recipe, store, Place(), split)

    @classmethod
    def before_head(cls, recipe: Recipe, store: Store, device: torch.device, base: Base) -> "Start":
        """As `tuned`, with a last layer that is drawn: nothing is fitted, nothing chosen."""
        recipe, trained = loaded(recipe, base, store)
        preprocessing = trained.preprocessing.to(device)
        trained = replace(trained, model=_placed(trained.model, device), preprocessing=preprocessing)
        return cls._around(trained, recipe, store, Place())

    @classmethod
    def resumed(cls, recipe: Recipe, store: Store, device: torch.device, file: Path, variant: Variant | None = None) -> "Start":
        """Where a run of this recipe on this store wrote its checkpoint.

        Raises:
            CheckpointError: the checkpoint is damaged, or that of another run.
        """
        trained = native.load(file, device)
        start = cls._around(trained, recipe, store, Place.of(trained.state, file))
        classes = len(store.classes)
        wanted = replace(start.variant, num_classes=classes) if recipe.tune else variant or recipe.network(classes)
        _check(start, wanted, store, file)
        start.optimiser.load(trained.extra, file)
        return replace(start, trained=replace(trained, extra={}))

    @classmethod
    def of_another(
        cls, recipe: Recipe, store: Store, device: torch.device, variant: Variant, preprocessing: Preprocessing, place: Place
    ) -> "Start":
        """For what another process began: weights and velocity are 0, to be filled with its own."""
        model = AlexNet.holding(variant, {name: torch.zeros(shape) for name, shape in variant.parameter_shapes().items()})
        trained = Trained(_placed(model, device), store.classes, preprocessing.to(device), {}, {})
        return cls._around(trained, recipe, store, place)

    @classmethod
    def on_records(cls, recipe: Recipe, variant: Variant, split: Split, augmentation: Augmentation) -> "Start":
        """On records that are no store's, such as the noise of a benchmark.

        Args:
            recipe: says how to train; the network is `variant`.
            augmentation: with its preprocessing, on the device.
        """
        device = augmentation.preprocessing.mean.device
        model = _placed(_seeded(variant, recipe.seed), device)
        trained = Trained(model, (), augmentation.preprocessing, {}, {})
        return cls._of(trained, recipe, split, augmentation, Place())

    @classmethod
    def _around(cls, trained: Trained, recipe: Recipe, store: Store, place: Place, split: Split | None = None) -> "Start":
        """All that trains a network on a store, or on a part of its training pictures."""
        augmentation = Augmentation.of(trained.preprocessing, store, recipe.crop, recipe.mirror, recipe.colour_noise)
        return cls._of(trained, recipe, split or store.train, augmentation, place)

    @classmethod
    def _of(cls, trained: Trained, recipe: Recipe, split: Split, augmentation: Augmentation, place: Place) -> "Start":
        loader = Loader(split, recipe.batch_size, recipe.seed, recipe.workers, shuffle_blocks=recipe.shuffle_blocks)
        return cls(recipe, trained, augmentation, loader, _optimiser(recipe, trained.model), place)

    def in_batches_of(self, size: int) -> "Start":
        """The same with batches of another size."""
        return replace(self, loader=self.loader.like(batch_size=size))

    def optimising(self, part: AlexNet) -> SGD:
        """What updates a part of the network as this run updates the whole."""
        return _optimiser(self.recipe, part)

    def of_share(self, number: int, parts: int) -> "Start":
        """The same with one of the parts of each batch, see `Loader`."""
        return replace(self, loader=self.loader.like(share=(number, parts)))


def fitting(recipe: Recipe, store: Store, run: Path | None = None, base: Base | None = None) -> Store:
    """The store in pictures of a size that fits the recipe.

    Where they are more than `MOST_ROOM` times the side of a crop, the net would see a small part of
    each, in training and at test. Then they are resampled to `Recipe.stored_size`, once
    (`data/resample.py`).

    Args:
        run: of a run that is resumed, the folder; the store that it was
            begun with is taken as it is.
        base: the weights that a run begins with, which then decide the size; read here if not
            given.

    Raises:
        RecipeError: the pictures are smaller than the crop.
        StoreError: they cannot be resampled.
    """
    config = read_config(run) if run and is_run(run) else None
    if config and config.store.fingerprint == store.fingerprint:
        return store
    if recipe.tune:
        if config and config.tuned:
            return resampled(store, config.tuned.stored_size)
        return pictures_for(base or open_base(recipe), store)
    size = recipe.crop_size
    if size > store.size:
        raise RecipeError(
            f"input_size (={size}) is larger than the pictures of {store.address} (={store.size}): prepare a store with "
            f"--size {size + size % 2} or more, or pass --input-size {store.size}."
        )
    return resampled(store, recipe.stored_size) if store.size > MOST_ROOM * size else store


def _optimiser(recipe: Recipe, model: AlexNet) -> SGD:
    return SGD(model, recipe.momentum, recipe.weight_decay, model.variant, recipe.nesterov, recipe.lr_factors)


def _seeded(variant: Variant, seed: int) -> AlexNet:
    """The weights of a seed, on the CPU."""
    return AlexNet(variant, torch.Generator().manual_seed(int(stream(seed, INIT).integers(2**62))))


def _placed(model: AlexNet, device: torch.device) -> AlexNet:
    """On the device, in the layout that its convolutions want."""
    return model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _check(start: Start, wanted: Variant, store: Store, file: Path) -> None:
    """Refuse a checkpoint of another network, or at a step that the epoch does not have."""
    pictures, steps, problem = start.preprocessing, start.loader.steps_per_epoch, None
    sizes = (pictures.input_size, pictures.stored_size)
    if wanted.parameter_shapes() != start.variant.parameter_shapes() or (wanted.input_size, store.size) != sizes:
        problem = "it holds another network than config.json asks for"
    elif start.place.step > steps:  # equal: stopped before the evaluation
        problem = f"it is at step {start.place.step} of an epoch, which has {steps}"
    if problem:
        raise CheckpointError(f"{file} is damaged: {problem}. {REMEDY}")
