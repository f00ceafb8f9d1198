"""Run the network in as few passes over memory as possible, on the GPU, for training and testing.

`groups` cuts the variant's sequence of operations into runs that one kernel computes: what follows
a convolution (bias, ReLU, normalisation, pooling), and ReLU with dropout. `Fused` walks these
groups over the parameters of an `AlexNet`, or over copies of them in bfloat16. Nothing is defined
twice: layers, shapes and constants are the variant's, and on a CPU the same walk runs on
`kernels/reference.py` and gives what `AlexNet.forward` gives.

conv1 sees pictures in blocks of 4 x 4 (`kernels/blocks.py`), as `kernels.augment(..., padding=...)`
writes them. A convolution's bias is added in the group's kernel, in float32.

The walk comes in two parts, `convolutions` and `classifier`. Backward, the second comes first and
holds 96 % of the parameters, so training updates these while the first is still at work.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet import kernels
from alexnet.arithmetic import LRN, Conv, Dropout, Linear, MaxPool, Op, ReLU, SpatialNorm
from alexnet.kernels import blocks
from alexnet.kernels.convolutions import LIBRARY, Passes, Shape, convolve, convolve_relu
from alexnet.kernels.planes import together
from alexnet.model import AlexNet
from alexnet.variants import Variant

Group = tuple[Op, ...]
NEUTRAL = LRN(name="none", size=5, coefficient=0.0, beta=0.75, k=1.0)


def unknown(variant: Variant) -> str | None:
    """Why the fused kernels cannot run this variant, or None. Dropout is one kernel with a ReLU."""
    return None if variant.activation == "relu" else f"it does not support activation={variant.activation}"


def groups(ops: Sequence[Op]) -> tuple[Group, ...]:
    """`ops` in order, cut into what one kernel computes."""
    grouped: list[list[Op]] = []
    for op in ops:
        if grouped and _joins(op, grouped[-1]):
            grouped[-1].append(op)
        else:
            grouped.append([op])
    return tuple(map(tuple, grouped))


def _joins(op: Op, group: list[Op]) -> bool:
    match op:
        case ReLU() | LRN() | MaxPool(size=3, stride=2):
            return isinstance(group[0], Conv) and type(op) not in map(type, group)
        case Dropout():
            return [type(one) for one in group] == [ReLU]
    return False


def planes(group: Group, ways: Mapping[str, Passes]) -> int:
    """In how many planes a group reads its input: its convolution's towers if they are apart."""
    if group and isinstance(conv := group[0], Conv) and ways.get(conv.name, LIBRARY).apart:
        return conv.groups
    return 1


def convolution_shapes(variant: Variant, batch: int, dtype: torch.dtype, device: torch.device) -> dict[str, Shape]:
    """Every convolution as `Fused` calls it, by layer: conv1 on pictures in blocks,
    whose gradient nothing needs.
    """
    alone = {group[0].name for group in groups(variant.ops()) if [type(op) for op in group] == [Conv, ReLU]}
    shapes = {}
    for layer in variant.layers():
        if isinstance(op := layer.op, Conv):
            first = op.name == "conv1"
            channels, side = layer.input[:2]
            if first:
                channels, side = blocks.CHANNELS, blocks.blocks_per_side(side, variant.conv1_padding)
            shapes[op.name] = Shape(
                batch=batch,
                channels=channels,
                side=side,
                kernels=op.kernels,
                size=blocks.SPAN if first else op.size,
                padding=0 if first else op.padding[0],
                groups=op.groups,
                dtype=dtype,
                device=device,
                first=first,
                relu=op.name in alone,
            )
    return shapes


class Fused:
    """The grouped walk over one network.

    Args:
        model: its variant is walked; its parameters are the default weights.
        ways: how to compute each pass of a convolution, by layer, as in `kernels/convolutions.py`;
            by the library where not named.
    """

    def __init__(self, model: AlexNet, ways: Mapping[str, Passes] | None = None) -> None:
        assert not unknown(model.variant), model.variant
        self.model = model
        self.ways = ways or {}
        self._convolutions, self._classifier = groups(model.ops[: model.seam]), groups(model.ops[model.seam :])
        self.padding = model.variant.conv1_padding

    def convolutions(self, x: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
        """Everything before the first fully connected layer.

        Args:
            x: (N, 48, B, B), pictures in blocks, in the type to compute in.
            weights: by the names of the `state_dict`; convolutions' in the type of x, their
                biases in float32 at least.

        Returns:
            (N, C, H, W) in the type of x.
        """
        for group, following in zip(self._convolutions, (*self._convolutions[1:], ()), strict=True):
            if isinstance(group[0], Conv):
                x = self._convolve(group, x, weights, planes(following, self.ways))
            else:
                x = self._plain(group[0], x)
        return x

    def classifier(self, x: Tensor, weights: Mapping[str, Tensor], keys: Tensor | None) -> Tensor:
        """The rest.

        Args:
            x: what `convolutions` gave.
            weights: each layer computes in the type of its weight; fc8's float32
                gives logits of float32.
            keys: (N, dropout layers) int32, as `AlexNet.forward` takes them; None at test, when
                nothing is dropped.

        Returns:
            (N, classes) logits.
        """
        of_layers = iter(keys.unbind(1)) if keys is not None else None
        for group in self._classifier:
            match group:
                case (Linear(name=name),):
                    weight = weights[f"{name}.weight"]
                    x = F.linear(x.flatten(1).to(weight.dtype), weight, weights[f"{name}.bias"])
                case (*_, Dropout() as op):
                    x = self._drop(op, x, next(of_layers) if of_layers else None)
                case _:
                    x = F.relu(x)
        return x

    def __call__(self, pictures: Tensor) -> Tensor:
        """Logits at test, with the network's own parameters: (N, 3, K, K) to
        (N, classes). What `evaluate` calls.
        """
        weights = dict(self.model.named_parameters())
        x = kernels.picture_blocks(pictures, self.padding).contiguous(memory_format=torch.channels_last)
        return self.classifier(self.convolutions(x, weights), weights, None)

    def _convolve(self, group: Group, x: Tensor, weights: Mapping[str, Tensor], wanted: int) -> Tensor:
        """A group in as many planes as wanted; one where no kernel writes it."""
        conv, *after = group
        assert isinstance(conv, Conv)
        weight, bias = weights[f"{conv.name}.weight"], weights[f"{conv.name}.bias"]
        padding = conv.padding[0]
        if conv.name == "conv1":
            weight, padding = kernels.weight_blocks(weight).contiguous(memory_format=torch.channels_last), 0
        ways = self.ways.get(conv.name, LIBRARY)
        if [type(op) for op in after] == [ReLU]:
            return convolve_relu(x, weight, bias, ways, padding, conv.groups, wanted)
        x = convolve(x, weight, ways, padding, conv.groups)
        if not after:
            return (together(x, planes(group, self.ways)) + bias[:, None, None]).to(x.dtype)
        norm = next((op for op in after if isinstance(op, LRN)), NEUTRAL)
        steps = tuple(STEPS[type(op)] for op in after)
        return kernels.relu_lrn_pool(x, bias, steps, norm.size, norm.coefficient, norm.beta, norm.k, norm.towers, wanted)

    def _plain(self, op: Op, x: Tensor) -> Tensor:
        """An operation that no group took: the spatial norm of the code of 2012, a pool after it, a
        pool of another size.
        """
        if isinstance(op, SpatialNorm):  # its arithmetic is float32
            wide = x.to(torch.promote_types(x.dtype, torch.float32))
            return kernels.spatial_norm(wide, op.size, op.coefficient, op.beta, op.k).to(x.dtype)
        if isinstance(op, MaxPool):
            return kernels.max_pool(x, op.size, op.stride)
        assert isinstance(op, ReLU), op
        return F.relu(x)

    def _drop(self, op: Dropout, x: Tensor, keys: Tensor | None) -> Tensor:
        """ReLU and dropout; behind pool5, where nothing is negative, dropout alone."""
        if keys is not None:
            return kernels.relu_dropout(x, op.rate, keys, op.inverted)
        return F.relu(x) if op.inverted else F.relu(x) * (1 - op.rate)


STEPS: dict[type[Op], str] = {ReLU: "relu", LRN: "norm", MaxPool: "pool"}
