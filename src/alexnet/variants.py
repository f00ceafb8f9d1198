"""The networks known as AlexNet, and every point in which they differ.

A `Variant` is one network as data. Its fields are the points on which the paper's text, the code
that won in 2012, Caffe and torchvision disagree; `ops()` turns them into the sequence of operations
that `arithmetic.py` measures and `model.py` runs.

>>> get_variant("paper").parameters
60965224
>>> get_variant("paper", width=0.5, input_size=64, num_classes=10).layers()[-1].output
(10,)

Sources: the paper; the source of 2012 that the Computer History Museum released in 2025
(`layers-145.cfg`); cuda-convnet2; BVLC Caffe's `bvlc_alexnet` and `bvlc_reference_caffenet`;
torchvision's `alexnet`.
"""

from dataclasses import dataclass, replace
from functools import cache
from math import isfinite
from typing import Any, Literal

from alexnet import arithmetic, paper
from alexnet.arithmetic import LRN, Conv, Dropout, Layer, Linear, MaxPool, Op, ReLU, SpatialNorm, Tanh
from alexnet.errors import VariantError, nearest
from alexnet.fields import check_types

#: More are taken for a slip: they are 4 TB of weights.
MOST_PARAMETERS = 1e12
LAYER_NAMES = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
POOL_NAMES = {1: "pool1", 2: "pool2", 5: "pool5"}
REMOVABLE = LAYER_NAMES[1:-1]  # conv1 brings the picture down to 55 x 55, fc8 is the answer

OpKind = Literal["conv", "relu", "norm", "spatial", "pool"]
PerLayer = tuple[float, float, float, float, float, float, float, float]  # one number a layer, conv1 ... fc8
Kernels = tuple[int, int, int, int, int]  # conv1 ... conv5
Sees = tuple[bool, bool, bool, bool, bool]  # conv1 ... conv5


def _per_layer(default: float, **others: float) -> PerLayer:
    return tuple(others.get(name, default) for name in LAYER_NAMES)  # type: ignore[return-value]


INIT_STD = _per_layer(paper.INIT_STD)
INIT_BIAS = _per_layer(0.0, **dict.fromkeys(paper.INIT_BIAS_ONE, 1.0))


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One AlexNet. The defaults are the paper's text, read as the study notes and
    the code of 2012 read it.
    """

    name: str
    """Name of the variant that it is or is based on."""
    input_size: int = paper.INPUT_SIZE
    """Height and width of the picture the net sees, in pixels."""
    num_classes: int = paper.CLASSES
    """Outputs of fc8."""
    width: float = 1.0
    """Factor for the number of kernels and units in every layer but fc8."""

    conv1_padding: tuple[int, int] = (1, 2)
    """Rows and columns of zeros added left and above, and right and below the picture."""
    kernels: Kernels = paper.KERNELS
    """Kernels of conv1 ... conv5, both towers together, at width 1."""
    units: tuple[int, int] = paper.UNITS
    """Units of fc6 and fc7 at width 1."""
    towers: int = paper.TOWERS
    """Halves that see each other only in `sees_both_towers` and the fully connected layers;
    1 for a single-tower net.
    """
    sees_both_towers: Sees = paper.SEES_BOTH_TOWERS
    """Which of conv1 ... conv5 read the maps of all towers; conv1 reads the picture."""
    removed: tuple[str, ...] = ()
    """Layers of conv2 ... fc7 that are left out, with the activation, normalisation and dropout
    that belong to them. Pooling stays, so the layers that follow keep their height and width."""

    activation: Literal["relu", "tanh"] = "relu"
    """Activation used where the blocks say relu, and after fc6 and fc7."""
    pool_size: int = paper.POOL_SIZE
    """Side of the pooling windows, which are 2 pixels apart: 3 overlap (the paper), 2 do not."""

    block1: tuple[OpKind, ...] = ("conv", "relu", "norm", "pool")
    """Order of operations around conv1."""
    block2: tuple[OpKind, ...] = ("conv", "relu", "norm", "pool")
    """Order of operations around conv2."""
    block5: tuple[OpKind, ...] = ("conv", "relu", "pool")
    """Order of operations around conv5."""

    lrn_coefficient: float = paper.LRN_ALPHA / paper.LRN_N
    """Factor on the sum of squares: alpha / n = 2e-5 in every program, alpha =
    1e-4 by the paper's formula.
    """
    lrn_k: float = paper.LRN_K
    """Constant added to that sum."""
    lrn_window: Literal["all", "tower"] = "all"
    """Whether the five neighbouring channels may belong to both towers."""

    init: Literal["gaussian", "he", "torch"] = "gaussian"
    """Weights at the start: Gaussian with `init_std` and `init_bias`; He et al. (2015) with biases
    0; PyTorch's default.
    """
    init_std: PerLayer = INIT_STD
    """Standard deviation of the weights, conv1 ... fc8, when `init` is gaussian."""
    init_bias: PerLayer = INIT_BIAS
    """Biases at the start, conv1 ... fc8, when `init` is gaussian."""

    pixels: Literal["mean-image", "mean-colour", "unit"] = "mean-image"
    """0-255 minus the mean image, 0-255 minus the mean colour, or mean 0 and
    deviation 1 in each channel.
    """
    channel_order: Literal["RGB", "BGR"] = "RGB"
    """Order of the input channels."""

    dropout: float = paper.DROPOUT
    """Share of units that dropout zeroes."""
    dropout_position: Literal["after", "before"] = "after"
    """Dropout after fc6 and fc7 (the paper), or before them (torchvision)."""
    dropout_scaling: Literal["test", "train"] = "test"
    """Halve the outputs at test (the paper), or double them in training ("inverted")."""

    bias_lr: float = 1.0
    """Factor on the learning rate of biases."""
    bias_decay: float = 1.0
    """Factor on the weight decay of biases."""
    bias_lr_drops: bool = True
    """Whether the learning rate of biases follows the schedule; the code of 2012 never lowered
    it.
    """

    resize: Literal["short-side", "squash"] = "short-side"
    """Pictures are scaled by the short side and cropped to the centre square,
    or squashed to a square.
    """
    class_order: Literal["devkit", "wordnet", "own"] = "own"
    """What class 0 is: the ILSVRC kit's first id, the first WordNet id in sorted
    order, or up to the data.
    """

    def __post_init__(self) -> None:
        check_types(self, VariantError)
        self._check_widths()
        if self.num_classes < 1:
            raise VariantError(f"num_classes (={self.num_classes}) must be at least 1.")
        if not 0 <= self.dropout < 1:
            raise VariantError(f"dropout (={self.dropout}) must be in [0, 1).")
        self._check_layers()
        if min(self.conv1_padding) < 0:
            raise VariantError(f"conv1_padding (={self.conv1_padding}) must not be negative.")
        for number, block in ((1, self.block1), (2, self.block2), (5, self.block5)):
            if block[:1] != ("conv",) or len(set(block)) != len(block):
                raise VariantError(f"block{number} (={block}) must start with 'conv' and name each step once.")
        if not self._fits(self.input_size):
            smallest = next((size for size in range(1, 1000) if self._fits(size)), None)
            if smallest is None:
                raise VariantError(f"pool_size (={self.pool_size}) is too large: no input below 1,000 pixels fits five layers.")
            raise VariantError(
                f"input_size (={self.input_size}) is too small for five layers of {self.name!r}: "
                f"the smallest that works is {smallest}."
            )
        if self.parameters > MOST_PARAMETERS:
            raise VariantError(
                f"width (={self.width:g}), input_size (={self.input_size}) and num_classes (={self.num_classes}) make "
                f"{self.parameters:.1e} parameters, more than {MOST_PARAMETERS:.0e}: lower one of them."
            )

    def _check_widths(self) -> None:
        if self.towers < 1:
            raise VariantError(f"towers (={self.towers}) must be at least 1.")
        for name, base in zip(LAYER_NAMES, (*self.kernels, *self.units), strict=False):
            count = base * self.width
            if not isfinite(count) or count < 1 or count != int(count):
                raise VariantError(
                    f"width (={self.width:g}) gives {name} {count:g} kernels or units instead of a whole number "
                    f"(={base} x width): multiples of 1/16 work for every layer."
                )
            if int(count) % self.towers:
                raise VariantError(
                    f"{name}'s {count:g} kernels or units (={base} x width {self.width:g}) must be divisible by "
                    f"towers (={self.towers}): its grouped neighbours split them evenly."
                )

    def _check_layers(self) -> None:
        if unknown := [name for name in self.removed if name not in REMOVABLE]:
            raise VariantError(f"removed (={', '.join(unknown)}): what can be left out is {', '.join(REMOVABLE)}.")
        if len(self.sees_both_towers) != len(self.kernels) or not self.sees_both_towers[0]:
            raise VariantError(
                f"sees_both_towers (={self.sees_both_towers}) must be five truth values, the first of them True, as conv1 "
                "reads the picture."
            )
        if self.pool_size < 1:
            raise VariantError(f"pool_size (={self.pool_size}) must be at least 1.")

    def _fits(self, size: int) -> bool:
        try:
            arithmetic.trace(self.ops(), (paper.INPUT_CHANNELS, size, size))
        except VariantError:
            return False
        return True

    def ops(self) -> tuple[Op, ...]:
        """The network as a sequence of operations, conv1 to fc8."""
        plain: tuple[OpKind, ...] = ("conv", "relu")
        blocks = (self.block1, self.block2, plain, plain, self.block5)
        convolutions = [self._op(step, number) for number, block in enumerate(blocks, 1) for step in self._kept(number, block)]
        return (*convolutions, *self._fully_connected())

    def _kept(self, number: int, block: tuple[OpKind, ...]) -> tuple[OpKind, ...]:
        return tuple(step for step in block if step == "pool") if f"conv{number}" in self.removed else block

    def _op(self, kind: OpKind, number: int) -> Op:
        index = number - 1
        match kind:
            case "conv":
                return Conv(
                    name=f"conv{number}",
                    kernels=int(self.kernels[index] * self.width),
                    size=paper.KERNEL_SIZES[index],
                    stride=paper.STRIDES[index],
                    padding=self.conv1_padding if number == 1 else (paper.KERNEL_SIZES[index] // 2,) * 2,
                    groups=1 if self.sees_both_towers[index] else self.towers,
                )
            case "relu":
                return self._activation(number)
            case "norm":
                return LRN(
                    name=f"norm{number}",
                    size=paper.LRN_N,
                    coefficient=self.lrn_coefficient,
                    beta=paper.LRN_BETA,
                    k=self.lrn_k,
                    towers=self.towers if self.lrn_window == "tower" else 1,
                )
            case "spatial":
                return SpatialNorm(name=f"rnorm{number}", size=5, coefficient=1e-3 / 25, beta=paper.LRN_BETA, k=1.0)
            case "pool":
                return MaxPool(name=POOL_NAMES[number], size=self.pool_size, stride=paper.POOL_STRIDE)

    def _activation(self, number: int) -> Op:
        return ReLU(name=f"relu{number}") if self.activation == "relu" else Tanh(name=f"tanh{number}")

    def _fully_connected(self) -> list[Op]:
        inverted = self.dropout_scaling == "train"
        ops: list[Op] = []
        for number, units in zip((6, 7), self.units, strict=True):
            if f"fc{number}" in self.removed:
                continue
            # A dropout layer carries the number of the layer whose output it thins: drop5 comes
            # between pool5 and fc6.
            thin = number if self.dropout_position == "after" else number - 1
            drop = Dropout(name=f"drop{thin}", rate=self.dropout, inverted=inverted)
            layer = [Linear(name=f"fc{number}", units=int(units * self.width)), self._activation(number)]
            ops += [*layer, drop] if self.dropout_position == "after" else [drop, *layer]
        return [*ops, Linear(name="fc8", units=self.num_classes)]

    def layers(self) -> tuple[Layer, ...]:
        """Every layer with its shapes and counts."""
        return arithmetic.trace(self.ops(), (paper.INPUT_CHANNELS, self.input_size, self.input_size))

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each parameter by name, conv1.weight to fc8.bias."""
        return arithmetic.parameter_shapes(self.layers())

    @property
    def label(self) -> str:
        """Its name and width in words: "paper", "paper at half width"."""
        if self.width == 1:
            return self.name
        return f"{self.name} at {'half width' if self.width == 0.5 else f'{self.width:g} times its width'}"

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        return sum(layer.parameters for layer in self.layers())

    @property
    def largest_activation_bytes(self) -> int:
        """Bytes of the largest output of a layer for one picture, in float32."""
        return max(layer.activation_bytes for layer in self.layers())

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of one forward pass on one picture."""
        return sum(layer.multiply_adds for layer in self.layers())


def _code_2012(text: Variant) -> Variant:
    """The program that won ILSVRC-2012."""
    return replace(
        text,
        name="code-2012",
        conv1_padding=(0, 3),
        block1=("conv", "norm", "pool", "relu"),
        block2=("conv", "relu", "norm", "spatial", "pool"),
        block5=("conv", "pool", "relu"),
        lrn_window="tower",
        init_std=_per_layer(paper.INIT_STD, conv3=0.03, conv4=0.03, conv5=0.03),
        bias_lr=2.0,
        bias_decay=0.0,
        bias_lr_drops=False,
        class_order="devkit",
    )


def _caffe(text: Variant) -> Variant:
    """BVLC AlexNet."""
    return replace(
        text,
        name="caffe",
        input_size=227,
        conv1_padding=(0, 0),
        lrn_k=1.0,
        init_std=_per_layer(paper.INIT_STD, fc6=0.005, fc7=0.005),
        init_bias=_per_layer(0.0, **dict.fromkeys(paper.INIT_BIAS_ONE, 0.1)),
        channel_order="BGR",
        dropout_scaling="train",
        bias_lr=2.0,
        bias_decay=0.0,
        resize="squash",
        class_order="wordnet",
    )


def _caffenet(caffe: Variant) -> Variant:
    """Caffe's reference network: pooling before normalisation."""
    pool_first: tuple[OpKind, ...] = ("conv", "relu", "pool", "norm")
    init_bias = _per_layer(0.0, **dict.fromkeys(paper.INIT_BIAS_ONE, 1.0))
    return replace(caffe, name="caffenet", block1=pool_first, block2=pool_first, init_bias=init_bias)


def _owt(code_2012: Variant) -> Variant:
    """Krizhevsky's "one weird trick" (2014), as in cuda-convnet2."""
    return replace(
        code_2012,
        name="owt",
        kernels=(64, 192, 384, 256, 256),
        towers=1,
        lrn_window="all",
        block2=("conv", "relu", "norm", "pool"),
    )


def _torchvision(text: Variant) -> Variant:
    """torchvision's `alexnet`: the widths of `owt`, no normalisation."""
    return replace(
        text,
        name="torchvision",
        conv1_padding=(2, 2),
        kernels=(64, 192, 384, 256, 256),
        towers=1,
        block1=("conv", "relu", "pool"),
        block2=("conv", "relu", "pool"),
        init="torch",
        pixels="unit",
        dropout_position="before",
        dropout_scaling="train",
        class_order="wordnet",
    )


@cache
def named() -> dict[str, Variant]:
    """The known variants by name."""
    text = Variant(name="paper")
    code_2012, caffe = _code_2012(text), _caffe(text)
    known = (text, code_2012, caffe, _caffenet(caffe), _owt(code_2012), _torchvision(text))
    return {variant.name: variant for variant in known}


def get_variant(variant: "str | Variant", **changes: Any) -> Variant:
    """A variant by name, with fields changed on request: `get_variant("caffe", width=0.5)`.

    Raises:
        VariantError: an unknown name or field, or a combination that cannot exist.
    """
    if isinstance(variant, str):
        if variant not in named():
            raise VariantError(f"unknown variant {variant!r}: {nearest(variant, named())}")
        variant = named()[variant]
    if not isinstance(variant, Variant):
        raise VariantError(f"variant (={variant!r}) must be a name or a Variant: {nearest('', named())}")
    for field in changes:
        if field not in Variant.__dataclass_fields__:
            raise VariantError(f"unknown field {field!r} of a variant: {nearest(field, Variant.__dataclass_fields__)}")
    return replace(variant, **changes)
