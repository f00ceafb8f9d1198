"""Named training runs: each is a function that returns a frozen `Recipe`.

`alexnet train laptop --data store --out run --epochs 5` takes the recipe and changes a field; any
field can be changed so. `records/` shows the results of each recipe, with data and hardware.
"""

import shlex
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any, Literal

from alexnet import paper, variants
from alexnet.errors import RecipeError, VariantError, nearest
from alexnet.fields import check_types
from alexnet.variants import LAYER_NAMES, Kernels, OpKind, PerLayer, Sees, Variant

MOST_NUMBERS = 10_000
#: Beyond these a value is a slip. AlexNet has been trained with batches of 64 Ki pictures,
#: not with larger ones.
MOST_EPOCHS, LARGEST_BATCH, MOST_WORKERS, HUGE = 100_000, 2**16, 256, 1e12
#: The variant of a recipe that takes what its weights say.
OF_WEIGHTS = "auto"
#: Fields whose option has another name.
OPTIONS = {"weights": "from"}
WIDEST, LARGEST_INPUT, LARGEST_POOL, MOST_KERNELS, MOST_BLOCKS = 16, 4096, 16, 2**16, 2**20


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All settings of a run."""

    weights: str | None = None
    """Trained weights to begin with: a file in any format that `alexnet weights import` reads, a
    run's folder, or a name from `alexnet weights list`."""
    tune: str | None = None
    """What to train of a network that begins with weights. head: a new last layer. all, or from
    LAYER such as from conv4: after the head, the layers too, loaded ones at a tenth of the learning
    rate. auto: the head, then all layers if that helps on training pictures held out for the test
    and --minutes allows it.
    """
    features: Literal["pool5", "fc6", "fc7"] | None = None
    """The stage that the new last layer reads; by default the one whose head has the lowest loss on
    held-out training photos."""
    head_decay: float | None = None
    """Weight decay of the new last layer when it is fitted; by default the one with the lowest loss
    on held-out training photos."""
    head_blur: float | None = None
    """Blur of pool5's maps in the fit of the new last layer, in sixths of a map; 0 for none. By
    default the one with the lowest loss on held-out training photos."""
    head_views: Literal[1, 2, 10, 16] | None = None
    """Views of each training picture that the new last layer is fitted to: the centre, with its
    mirror image, the ten of a test, or these and six closer ones; by default 16, or the ten where
    pool5's maps are not blurred; fewer with more than 1,000 pictures."""
    minutes: float | None = None
    """Minutes that fine-tuning may take; by default what the epochs need."""

    variant: str = "paper"
    """Which AlexNet: paper, code-2012, caffe, caffenet, owt or torchvision; auto for what the
    weights say."""
    width: float = 1.0
    """Factor for the number of kernels and units in every layer but the last."""
    input_size: int | None = None
    """Side of the crop that the network sees, in pixels; the variant's own by default."""
    init: Literal["gaussian", "he", "torch"] | None = None
    """Initialisation of the weights; the variant's own by default."""
    init_std: PerLayer | None = None
    """Standard deviation of the weights, conv1 ... fc8, if init is gaussian; the variant's own by
    default.
    """
    whiten: bool = False
    """Start conv1's kernels from the patches of the training pictures instead: their principal
    components, with both signs, each scaled to answer equally strongly."""
    pixels: Literal["mean-image", "mean-colour", "unit"] | None = None
    """Scale of the pixels; the variant's own by default."""
    dropout: float | None = None
    """Share of units that dropout zeroes in fc6 and fc7; the variant's own by default."""

    activation: Literal["relu", "tanh"] | None = None
    """Activation after every layer but fc8; the variant's own by default, as for all fields from
    here to `removed`, which `alexnet ablate` sets.
    """
    pool_size: int | None = None
    """Side of the pooling windows, which are 2 pixels apart: 3 overlap, 2 do not."""
    kernels: Kernels | None = None
    """Kernels of conv1 ... conv5, both towers together, at width 1."""
    towers: int | None = None
    """Halves that see each other only in conv3 and the fully connected layers."""
    sees_both_towers: Sees | None = None
    """Which of conv1 ... conv5 read the maps of all towers."""
    block1: tuple[OpKind, ...] | None = None
    """Order of operations around conv1."""
    block2: tuple[OpKind, ...] | None = None
    """Order of operations around conv2."""
    removed: tuple[str, ...] | None = None
    """Layers of conv2 ... fc7 that are left out."""

    epochs: int = paper.EPOCHS
    """Passes over the training pictures."""
    batch_size: int = paper.BATCH_SIZE
    """Pictures per update."""
    lr: float = paper.LEARNING_RATE
    """Learning rate at the start (after warm-up)."""
    lr_factors: PerLayer | None = None
    """Factors on the learning rate of conv1 ... fc8; 0 keeps a layer unchanged. By default 1 for
    every layer, and as tune says for a network that begins with weights.
    """
    momentum: float = paper.MOMENTUM
    """Momentum: the share of the velocity that each step keeps."""
    nesterov: bool = False
    """Use Nesterov's momentum, which moves by the velocity that another gradient like this one
    would give.
    """
    weight_decay: float = paper.WEIGHT_DECAY
    """Weight decay: each step subtracts this share of every weight, times the learning rate."""

    schedule: Literal["plateau", "step", "linear"] = "plateau"
    """plateau: lower the learning rate when the held-out error stops improving (the paper); step:
    after the epochs in lr-drops; linear: to zero at the end."""
    lr_factor: float = paper.LEARNING_RATE_FACTOR
    """Factor at each drop of plateau and step."""
    lr_drops: tuple[float, ...] = ()
    """Epochs after which step lowers the learning rate."""
    patience: int = 3
    """Epochs without improvement that plateau waits for."""
    warmup: float = 0.0
    """Share of the run over which the learning rate rises from zero."""
    label_smoothing: float = 0.0
    """Label smoothing: the share of the target that is spread evenly over all classes, in [0, 1); 0
    for none.
    """
    class_weights: Literal["balanced"] | None = None
    """balanced: pictures of rare classes weigh more in the loss, so that all classes count alike;
    by default all pictures do.
    """

    crop: bool = True
    """Take random crops in training, instead of the centre."""
    mirror: bool = True
    """Mirror half of the pictures."""
    colour_noise: float = paper.COLOUR_NOISE
    """Colour shifts along the principal components, in standard deviations; 0 for none."""

    seed: int = 0
    """Seed of the initial weights, the order of the pictures, the crops and the dropout."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute; auto takes a GPU if there is one."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Compile the network; auto does on a GPU. A CPU needs a C++ compiler for it, and is as fast
    without.
    """
    fused: Literal["auto", "on", "off"] = "auto"
    """Train by the step made for NVIDIA's GPUs from compute capability 8.0 on. auto takes it there,
    once its gradients are checked on the run's own pictures; on takes it on a CPU too."""
    precision: Literal["auto", "bf16", "tf32", "fp32"] = "auto"
    """Number type to compute in; weights, normalisation and logits are always float32. auto takes
    the fastest that a GPU supports and that can tell the pictures apart. On a CPU bf16 needs
    AVX512-BF16 or AMX; auto takes it for a run from scratch if it is at least a quarter faster,
    too.
    """
    shuffle_blocks: int | None = None
    """For a store at an address that is larger than the cache: shuffle the pictures of this many
    blocks of 256 at a time, 32 for example, instead of all at once. It needs a store whose pictures
    `prepare` has shuffled.
    """
    feed: Literal["auto", "resident", "pinned", "disk"] = "auto"
    """Where the fused step keeps its pictures: on the GPU, in the host's memory, or in the store;
    auto takes the first that fits. Changes no result.
    """
    workers: int = 1
    """Threads that read batches ahead. Changes no result."""
    checkpoint_minutes: float = 5.0
    """Minutes between checkpoints within an epoch; each epoch ends with one. Changes no result."""
    keep: str | None = None
    """Epochs after which the weights are kept as epoch-NNNN.safetensors, such as 0,1,2,5 or
    0..3,10; 0 is the random start.
    """

    def __post_init__(self) -> None:
        check_types(self, RecipeError)
        rules = {
            "width": 0 < self.width <= WIDEST,
            "input_size": self.input_size is None or 1 <= self.input_size <= LARGEST_INPUT,
            "pool_size": self.pool_size is None or 1 <= self.pool_size <= LARGEST_POOL,
            "kernels": self.kernels is None or all(1 <= count <= MOST_KERNELS for count in self.kernels),
            "epochs": 1 <= self.epochs <= MOST_EPOCHS,
            "batch_size": 1 <= self.batch_size <= LARGEST_BATCH,
            "lr": 0 < self.lr < HUGE,
            "momentum": 0 <= self.momentum < 1,
            "weight_decay": 0 <= self.weight_decay < HUGE,
            "lr_factor": 0 < self.lr_factor < 1,
            "lr_drops": all(0 < drop < HUGE for drop in self.lr_drops) and list(self.lr_drops) == sorted(self.lr_drops),
            "patience": 1 <= self.patience <= MOST_EPOCHS,
            "warmup": 0 <= self.warmup < 1,
            "label_smoothing": 0 <= self.label_smoothing < 1,
            "colour_noise": 0 <= self.colour_noise < HUGE,
            "seed": 0 <= self.seed < 2**63,
            "shuffle_blocks": self.shuffle_blocks is None or 1 <= self.shuffle_blocks <= MOST_BLOCKS,
            "workers": 1 <= self.workers <= MOST_WORKERS,
            "checkpoint_minutes": 0 <= self.checkpoint_minutes < HUGE,
        }
        rules |= self._rules_of_tuning()
        if self.init_std is not None:
            rules["init_std"] = all(0 < std < HUGE for std in self.init_std)
        for name, holds in rules.items():
            if not holds:
                raise RecipeError(f"{name} (={getattr(self, name)}) {RULES[name]}.")
        if self.kept_epochs and self.kept_epochs[-1] > self.epochs:
            raise RecipeError(f"keep (={self.keep}) names epoch {self.kept_epochs[-1]}, but the run has {self.epochs}.")
        try:
            network = self.network(num_classes=2)
        except VariantError as error:  # an impossible network is refused before any data is read
            raise RecipeError(str(error)) from error
        if self.init_std is not None and network.init != "gaussian":
            raise RecipeError(
                f"init_std (={self.init_std}) has no effect with init (={network.init}): drop it, or set init to gaussian."
            )

    def _rules_of_tuning(self) -> dict[str, bool]:
        return {
            "variant": self.variant != OF_WEIGHTS or self.tune is not None,
            "weights": self.weights is None or self.tune is not None,
            "tune": self.tune is None or self.tune in ("head", "all", "auto") or self.lowest_layer in LAYER_NAMES,
            "head_decay": self.head_decay is None or 0 <= self.head_decay < HUGE,
            "head_blur": self.head_blur is None or 0 <= self.head_blur < HUGE,
            "minutes": self.minutes is None or 0 < self.minutes < HUGE,
            "lr_factors": self.lr_factors is None
            or (all(0 <= factor < HUGE for factor in self.lr_factors) and any(self.lr_factors)),
        }

    @property
    def lowest_layer(self) -> str:
        """The layer that `tune` names."""
        return (self.tune or "").removeprefix("from ")

    @property
    def even_rates(self) -> bool:
        """Whether every layer has the same learning rate."""
        return self.lr_factors is None or set(self.lr_factors) == {1}

    def network(self, num_classes: int) -> Variant:
        """The variant to train."""
        changes: dict[str, Any] = {"width": self.width, "num_classes": num_classes}
        for name in NETWORK_FIELDS:
            if getattr(self, name) is not None:
                changes[name] = getattr(self, name)
        return variants.get_variant(self._base, **changes)

    @property
    def _base(self) -> str:
        return "paper" if self.variant == OF_WEIGHTS else self.variant

    @property
    def crop_size(self) -> int:
        """Side of the crop that the net sees, in pixels."""
        return variants.named()[self._base].input_size if self.input_size is None else self.input_size

    @property
    def stored_size(self) -> int:
        """Side of the stored pictures that this recipe wants, in pixels: a little more than a crop,
        so that crops can differ.

        256 for the variant's own input size, as in 2012; for another one nine eighths of
        it, which is that ratio.
        """
        return paper.STORED_SIZE if self.input_size is None else 2 * round(self.input_size * 9 / 16)

    @property
    def stored_as(self) -> dict[str, Any]:
        """Size and resize rule of the store that this recipe wants:
        `prepare(photos, store, **recipe.stored_as)`.
        """
        return {"size": self.stored_size, "resize": variants.named()[self._base].resize}

    @property
    def kept_epochs(self) -> tuple[int, ...]:
        """`keep` as rising numbers."""
        return () if self.keep is None else numbers("keep", self.keep)


#: Fields that are the variant's own where they are None.
NETWORK_FIELDS = (
    "input_size",
    "init",
    "init_std",
    "pixels",
    "dropout",
    "activation",
    "pool_size",
    "kernels",
    "towers",
    "sees_both_towers",
    "block1",
    "block2",
    "removed",
)


RULES = {
    "variant": "must be the name of one, as only finetune begins with weights that say which",
    "weights": "is for finetune, which begins with weights: alexnet train finetune --from WEIGHTS",
    "tune": f"must be head, all, auto, or from LAYER such as from conv4; the layers are {', '.join(LAYER_NAMES)}",
    "head_decay": f"must not be negative, and be below {HUGE:,.0f}",
    "head_blur": f"must not be negative, and be below {HUGE:,.0f}",
    "minutes": f"must be above 0 and below {HUGE:,.0f}",
    "lr_factors": f"must not be negative, be below {HUGE:,.0f}, and not all be 0",
    "width": f"must be above 0 and at most {WIDEST}",
    "input_size": f"must be from 1 to {LARGEST_INPUT:,} pixels",
    "pool_size": f"must be from 1 to {LARGEST_POOL}",
    "kernels": f"must be from 1 to {MOST_KERNELS:,} in every layer",
    "init_std": f"must be above 0 and below {HUGE:,.0f} for every layer",
    "epochs": f"must be from 1 to {MOST_EPOCHS:,}",
    "batch_size": f"must be from 1 to {LARGEST_BATCH:,}",
    "lr": f"must be above 0 and below {HUGE:,.0f}",
    "momentum": "must be in [0, 1)",
    "weight_decay": f"must not be negative, and be below {HUGE:,.0f}",
    "lr_factor": "must be between 0 and 1",
    "lr_drops": f"must be rising epochs above 0 and below {HUGE:,.0f}",
    "patience": f"must be from 1 to {MOST_EPOCHS:,}",
    "warmup": "must be in [0, 1)",
    "label_smoothing": "must be in [0, 1)",
    "colour_noise": f"must not be negative, and be below {HUGE:,.0f}",
    "seed": "must not be negative, and fit into 64 bits",
    "shuffle_blocks": f"must be from 1 to {MOST_BLOCKS:,}",
    "workers": f"must be from 1 to {MOST_WORKERS}",
    "checkpoint_minutes": f"must not be negative, and be below {HUGE:,.0f}",
}


def laptop() -> Recipe:
    """Half width, 64 pixels: Fashion-MNIST in minutes on two cores."""
    return Recipe(
        width=0.5,
        input_size=64,
        init="he",
        pixels="unit",
        dropout=0.0,
        epochs=3,
        batch_size=64,
        lr=0.02,
        schedule="linear",
        warmup=0.05,
        crop=False,
        colour_noise=0.0,
    )


def small_photos() -> Recipe:
    """A few hundred to a few thousand photos of your own, from scratch."""
    return Recipe(
        width=0.5,
        input_size=128,
        init="he",
        pixels="unit",
        epochs=60,
        batch_size=32,
        lr=0.01,
        schedule="linear",
        warmup=0.05,
    )


def paper_text() -> Recipe:
    """The paper as it is written: weights of 0.01 and biases of 1, a start that
    `alexnet doctor` warns of.
    """
    return Recipe()


def paper_2012() -> Recipe:
    """The net and schedule of the code that won ILSVRC-2012: 90 epochs of ImageNet,
    learning rate lowered by hand.
    """
    return Recipe(variant="code-2012", epochs=paper.EPOCHS, schedule="step", lr_drops=(25, 51, 79))


def caffe() -> Recipe:
    """Caffe's bvlc_alexnet with its solver: batches of 256, learning rate lowered every 100,000
    updates, no colour noise.
    """
    return Recipe(
        variant="caffe",
        batch_size=256,
        epochs=paper.EPOCHS,
        schedule="step",
        lr_drops=(19.984, 39.968, 59.952, 79.936),  # 5,004 updates an epoch of ImageNet
        colour_noise=0.0,
    )


def modern() -> Recipe:
    """A tenth of the epochs of 2012: whitened first kernels, Nesterov's momentum,
    smoothed labels, no dropout.

    Imagenette at half width and 64 pixels: 34.4 % top-1 error after 3 epochs, where `paper-2012`
    has 37.8 % after 30. In three epochs dropout costs 2 points, and crops and colour noise change
    nothing; longer runs were not tried.
    """
    return Recipe(
        init="he",
        whiten=True,
        pixels="unit",
        dropout=0.0,
        epochs=9,
        batch_size=32,
        lr=0.02,
        nesterov=True,
        schedule="linear",
        warmup=0.05,
        label_smoothing=0.1,
        crop=False,
        colour_noise=0.0,
    )


def finetune() -> Recipe:
    """Your photos on top of trained weights: a new last layer, in a minute or two; --tune trains
    the layers below it, too. Name the weights with --from.

    docs/training.md says what it does, docs/log.md what was tried.
    """
    return Recipe(
        variant=OF_WEIGHTS,
        tune="auto",
        init="he",
        epochs=5,
        batch_size=32,
        lr=0.003,
        schedule="linear",
        colour_noise=0.0,
    )


def numbers(name: str, text: str) -> tuple[int, ...]:
    """Rising whole numbers from "0..3,5,10".

    Raises:
        RecipeError: anything else; repeats and falling numbers are refused, as one of
            the two would be a slip.
    """
    listed: list[int] = []
    for part in text.split(","):
        first, dots, last = part.partition("..")
        ends = (first, last if dots else first)
        if not all(end.strip().isdecimal() and len(end) < 10 for end in ends):
            found = f", not {part!r}" if part != text else ""
            raise RecipeError(f"{name} (={text}) must be whole numbers such as 0..9 or 0,1,2{found}.")
        if int(ends[1]) - int(ends[0]) >= MOST_NUMBERS:
            raise RecipeError(f"{name} (={text}) names more than {MOST_NUMBERS} numbers.")
        listed += range(int(ends[0]), int(ends[1]) + 1) or [int(ends[0]), int(ends[1])]
    for earlier, later in pairwise(listed):
        if later <= earlier:
            rising = f"{later}..{earlier}" if text == f"{earlier}..{later}" else ",".join(map(str, sorted({*listed})))
            raise RecipeError(f"{name} (={text}) must rise, so {later} cannot follow {earlier}: write {rising}.")
    return tuple(listed)


def words(recipe: Recipe) -> str:
    """A command line's part that gives this recipe: the named one that differs least,
    and what differs from it.
    """
    name = closest(recipe)
    return " ".join([name, *(flag(field, new) for field, (_, new) in differences(RECIPES[name](), recipe).items())])


def closest(recipe: Recipe) -> str:
    """The name of the recipe that differs from this one in the fewest fields."""
    return min(RECIPES, key=lambda name: len(differences(RECIPES[name](), recipe)))


def differences(first: Recipe, second: Recipe) -> dict[str, tuple[Any, Any]]:
    """Fields in which two recipes differ, with both values."""
    pairs = {field.name: (getattr(first, field.name), getattr(second, field.name)) for field in fields(Recipe)}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def flag(field: str, value: Any) -> str:
    """A field as an option of the command line."""
    name = OPTIONS.get(field, field).replace("_", "-")
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no-{name}"
    return f"--{name} {' '.join(map(str, value)) if isinstance(value, tuple) else shlex.quote(str(value))}"


RECIPES = {
    "laptop": laptop,
    "small-photos": small_photos,
    "paper-text": paper_text,
    "paper-2012": paper_2012,
    "caffe": caffe,
    "modern": modern,
    "finetune": finetune,
}


def get_recipe(name: str, **changes: Any) -> Recipe:
    """A recipe by name, with fields changed on request.

    Raises:
        RecipeError: an unknown name or field, or a value out of range.
    """
    if not isinstance(name, str) or name not in RECIPES:
        raise RecipeError(f"unknown recipe {name!r}: {nearest(name, RECIPES)}")
    known = {field.name for field in fields(Recipe)}
    for field in changes:
        if field not in known:
            raise RecipeError(f"unknown field {field!r} of a recipe: {nearest(field, known)}")
    return replace(RECIPES[name](), **changes)
