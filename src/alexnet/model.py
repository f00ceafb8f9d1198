"""The network: `AlexNet(variant)` in PyTorch.

The variant's sequence of operations is the program: `forward` walks it, and only convolutions and
fully connected layers own parameters. So every variant has the same `state_dict` keys, conv1.weight
... fc8.bias, less those of layers taken out, and the two towers of 2012 are grouped convolutions on
one device (kernels 0-47 of conv1 are the first GPU's).
"""

from collections.abc import Mapping
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import skip_init

from alexnet import kernels
from alexnet.arithmetic import LRN, Conv, Dropout, Linear, MaxPool, Op, ReLU, SpatialNorm, Tanh
from alexnet.errors import VariantError
from alexnet.variants import LAYER_NAMES, Variant, get_variant


class AlexNet(nn.Module):
    """One of the AlexNets of `variants.py`, freshly initialised as that variant says.

    Args:
        variant: a `Variant`, or the name of one.
        generator: source of the initial weights; PyTorch's default generator if None.
        changes: fields of the variant to change, such as num_classes, width and input_size.

    Raises:
        VariantError: an unknown name or field, or a network that cannot exist.

    >>> AlexNet("paper", num_classes=10, width=0.5)(torch.zeros(2, 3, 224, 224)).shape
    torch.Size([2, 10])
    """

    if TYPE_CHECKING:  # what the layers are, which `_build` adds by their names
        conv1: nn.Conv2d
        conv2: nn.Conv2d
        conv3: nn.Conv2d
        conv4: nn.Conv2d
        conv5: nn.Conv2d
        fc6: nn.Linear
        fc7: nn.Linear
        fc8: nn.Linear

        def __call__(self, x: Tensor, keys: Tensor | None = None) -> Tensor:
            """Class scores, see `forward`."""
            ...

    def __init__(self, variant: Variant | str, generator: torch.Generator | None = None, **changes: Any) -> None:
        super().__init__()
        self._build(get_variant(variant, **changes))
        self.initialise(generator)

    @classmethod
    def holding(cls, variant: Variant | str, parameters: Mapping[str, Tensor]) -> Self:
        """The network around existing parameters: none is drawn, none copied.

        Args:
            parameters: a `state_dict`, conv1.weight ... fc8.bias.

        Raises:
            RuntimeError: names or shapes are others than the variant's.
        """
        net = cls.__new__(cls)
        nn.Module.__init__(net)
        with torch.device("meta"):
            net._build(get_variant(variant))
        net.load_state_dict(dict(parameters), assign=True)
        return net

    @classmethod
    def beginning(cls, variant: Variant | str, parameters: Mapping[str, Tensor]) -> Self:
        """The network up to the first layer that is not there; its result is the last stage before
        it, pool5 where the convolutions are all there is.

        Args:
            parameters: as for `holding`; those of layers behind the first that is missing are
                not used.
        """
        variant = get_variant(variant)
        ops = list(takewhile(lambda op: not isinstance(op, Conv | Linear) or f"{op.name}.weight" in parameters, variant.ops()))
        while ops and isinstance(ops[-1], Dropout):
            ops.pop()
        net = cls.__new__(cls)
        nn.Module.__init__(net)
        with torch.device("meta"):
            net._build(variant, tuple(ops))
        net.load_state_dict({name: parameters[name] for name in net.state_dict()}, assign=True)
        return net

    def _build(self, variant: Variant, ops: tuple[Op, ...] | None = None) -> None:
        self.variant = variant
        self.ops = variant.ops() if ops is None else ops
        ahead = takewhile(lambda op: not isinstance(op, Linear | Dropout), self.ops)
        self.seam = len([*ahead])  # of the operations before the fully connected layers and their dropout
        device = torch.get_default_device()  # skip_init itself would take memory on the CPU within "meta" too
        for layer in self.variant.layers()[: len(self.ops)]:
            match layer.op:
                case Conv(name=name, kernels=out, size=size, stride=stride, padding=padding, groups=groups):
                    symmetric = padding[0] if padding[0] == padding[1] else 0  # the rest is padded in `_run`
                    conv = skip_init(nn.Conv2d, layer.input[0], out, size, stride, symmetric, groups=groups, device=device)
                    self.add_module(name, conv)
                case Linear(name=name, units=units):
                    fan_in = layer.parameters // units - 1
                    self.add_module(name, skip_init(nn.Linear, fan_in, units, device=device))

    @torch.no_grad()
    def initialise(self, generator: torch.Generator | None = None) -> None:
        """Draw all weights and set all biases anew, layer by layer from conv1 to fc8."""
        for number, name in enumerate(LAYER_NAMES):
            if name in self.variant.removed:
                continue
            weight, bias = self.get_parameter(f"{name}.weight"), self.get_parameter(f"{name}.bias")
            fan_in = weight[0].numel()
            match self.variant.init:
                case "gaussian":
                    weight.normal_(0, self.variant.init_std[number], generator=generator)
                case "he":
                    weight.normal_(0, (2 / fan_in) ** 0.5 if name != "fc8" else 0.01, generator=generator)
                    bias.zero_()
                    continue
                case "torch":
                    for parameter in (weight, bias):
                        parameter.uniform_(-(fan_in**-0.5), fan_in**-0.5, generator=generator)
                    continue
            bias.fill_(self.variant.init_bias[number])

    @property
    def device(self) -> torch.device:
        """Where the parameters are; all are in one place."""
        return self.get_parameter("conv1.weight").device

    @property
    def dropouts(self) -> int:
        """Layers of dropout."""
        return sum(isinstance(op, Dropout) for op in self.ops)

    def forward(self, x: Tensor, keys: Tensor | None = None) -> Tensor:
        """Class scores before the softmax.

        Args:
            x: (N, 3, input_size, input_size) float, normalised and in the channel
                order that the variant says. The network computes in its type. With bfloat16,
                float32 parameters are rounded when they are used, and normalisation and fc8 are
                computed in float32.
            keys: (N, dropouts) int32, from which `kernels.dropout` decides in training what each
                picture loses, layer by layer; None to leave that to PyTorch's generator.

        Returns:
            (N, num_classes) logits.
        """
        self._check(x)
        return self.classifier(self.convolutions(x), keys)

    def convolutions(self, x: Tensor) -> Tensor:
        """The first part of `forward`, up to pool5: pictures to (N, C, H, W)."""
        for op in self.ops[: self.seam]:
            x = self.compute(op, x)
        return x

    def classifier(self, x: Tensor, keys: Tensor | None = None) -> Tensor:
        """The rest of `forward`, from pool5 on: (N, C, H, W) to (N, num_classes)."""
        of_layers = iter(keys.unbind(1)) if keys is not None and self.training else None
        for op in self.ops[self.seam :]:
            x = self.drop(op, x, next(of_layers)) if of_layers and isinstance(op, Dropout) else self.compute(op, x)
        return x

    def drop(self, op: Dropout, x: Tensor, keys: Tensor) -> Tensor:
        """Dropout in training; (N,) int32 keys, one for each picture."""
        return kernels.dropout(x, op.rate, keys, op.inverted)

    def stages(self, x: Tensor) -> dict[str, Tensor]:
        """Every intermediate result by layer name, in order: conv1, relu1, norm1, pool1, ..., fc8.

        Each is a tensor of its own: conv1 is before its ReLU, and changing one changes no other.
        Shapes are those of `alexnet summary` with N in front.
        """
        self._check(x)
        out: dict[str, Tensor] = {}
        for op in self.ops:
            previous, x = x, self.compute(op, x)
            # Dropout at test is the identity in some variants.
            out[op.name] = x = x.clone() if x is previous else x
        return out

    def _check(self, x: Tensor) -> None:
        size = self.variant.input_size
        if tuple(x.shape[1:]) != (3, size, size):
            raise VariantError(
                f"input of shape {tuple(x.shape)} does not fit {self.variant.name!r}: it takes (N, 3, {size}, {size})."
            )

    def compute(self, op: Op, x: Tensor) -> Tensor:
        """One operation of `ops`. A subclass that computes one in another way overrides this."""
        match op:
            case Conv(name=name, padding=(before, after)):
                if before != after:
                    x = F.pad(x, (before, after, before, after))
                conv = self.get_submodule(name)
                assert isinstance(conv, nn.Conv2d)
                if x.dtype != torch.bfloat16:
                    return conv(x)
                return F.conv2d(x, *self._parameters_of(name, x), conv.stride, conv.padding, groups=conv.groups)
            case Linear(name=name):
                x = x.flatten(1)  # C, H, W order, whatever the memory format
                if name == LAYER_NAMES[-1] and x.dtype == torch.bfloat16:
                    x = x.to(self.get_parameter(f"{name}.weight").dtype)  # logits are not rounded
                return kernels.linear(x, *self._parameters_of(name, x))
            case ReLU():
                return F.relu(x)
            case Tanh():
                return torch.tanh(x)
            case LRN():
                return kernels.lrn(x, op.size, op.coefficient, op.beta, op.k, op.towers)
            case SpatialNorm():
                return kernels.spatial_norm(x, op.size, op.coefficient, op.beta, op.k)
            case MaxPool():
                return kernels.max_pool(x, op.size, op.stride)
            case Dropout(rate=rate, inverted=True):
                return F.dropout(x, rate, self.training)
            case Dropout(rate=rate):
                # The paper's: no scaling in training, outputs times the share kept at test.
                return F.dropout(x, rate) * (1 - rate) if self.training else x * (1 - rate)
        raise AssertionError(op)

    def _parameters_of(self, name: str, x: Tensor) -> tuple[Tensor, Tensor]:
        """Weight and bias of a layer, rounded if its input is bfloat16."""
        weight, bias = self.get_parameter(f"{name}.weight"), self.get_parameter(f"{name}.bias")
        return (weight.to(x.dtype), bias.to(x.dtype)) if x.dtype == torch.bfloat16 else (weight, bias)
