"""Check weights: which layers there are, dead kernels, and whether the weights look trained.

Weights get lost: files with untrained or zeroed layers have been published and cited. Two signs
distinguish a trained network from a fresh one, and neither needs a photo:

* conv1's kernels are smooth. The correlation of horizontally and vertically neighbouring weights,
  each kernel's mean taken out, is 0.51 for the AlexNet trained on ImageNet and within 0.03 of 0 for
  every initialisation of ours at quarter width.
* The logits know pictures apart. Their deviation over 16 built-in patterns, divided by that of an
  untrained net whose layers have the same mean and deviation, is 0.6 to 1.3 for fresh networks of
  every variant and initialisation at quarter width, up to 2.6 at a sixteenth. It was 29 to 97 for
  networks trained on small pictures, whose conv1 is hardly smoother than chance, and 4 for one
  stopped at 82 % error of ten classes.

Either sign suffices.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from alexnet.arithmetic import Conv, Linear
from alexnet.errors import CheckpointError
from alexnet.model import AlexNet
from alexnet.trained import Trained
from alexnet.variants import LAYER_NAMES

SMOOTH = 0.1
SPREAD = 3.0
PATTERNS = 16
PIXEL_DEVIATION = 58.0  # grey levels, ImageNet's


@dataclass(frozen=True)
class Check:
    """The result of a check.

    Attributes:
        layers: (name, shape of the weight, share of its kernels or units
            that are zero or constant).
        smoothness: of conv1's kernels, in [-1, 1].
        spread: of the logits against an untrained net's; None where layers are missing.
    """

    layers: tuple[tuple[str, tuple[int, ...], float], ...]
    smoothness: float
    spread: float | None

    @property
    def looks_trained(self) -> bool:
        """Whether one of the two signs says so."""
        return self.smoothness > SMOOTH or (self.spread or 0) > SPREAD

    @property
    def dead(self) -> tuple[str, ...]:
        """Layers with zero or constant kernels."""
        return tuple(name for name, _, share in self.layers if share)

    def warnings(self) -> list[str]:
        """Warnings for the user."""
        untrained = "the weights do not look trained: check where they come from before you use or cite them."
        dead = f"zero or constant kernels in {', '.join(self.dead)}: the file may be damaged."
        return [untrained] * (not self.looks_trained) + [dead] * bool(self.dead)

    def lines(self) -> list[str]:
        """The result in words."""
        spread = "not measured: layers are missing" if self.spread is None else f"{self.spread:.2f} x an untrained net's"
        verdict = "looks trained" if self.looks_trained else "does NOT look trained"
        shapes = [
            f"{name:6} {' x '.join(map(str, shape)):20} {share:6.1%} zero or constant" for name, shape, share in self.layers
        ]
        return [
            *shapes,
            f"conv1's kernels: smoothness {self.smoothness:.2f} (trained on ImageNet: 0.51; by chance: within 0.03 of 0)",
            f"logits: spread over {PATTERNS} built-in patterns {spread} (fresh: about 1)",
            f"{verdict} (smoothness above {SMOOTH} or spread above {SPREAD})",
        ]


def tensors(state: Mapping[str, Tensor]) -> Check:
    """Check the layers that are there; if some are missing, the logits are not measured.

    Raises:
        CheckpointError: no layer has one of our names, or one has another rank.
    """
    weights = {name: state[f"{name}.weight"] for name in LAYER_NAMES if f"{name}.weight" in state}
    if not weights:
        first = ", ".join(list(state)[:3]) or "none"
        raise CheckpointError(f"it has none of an AlexNet's layers ({', '.join(LAYER_NAMES)}); its first tensors are {first}.")
    for name, weight in weights.items():
        rank = 4 if name.startswith("conv") else 2
        if weight.dim() != rank or not weight.numel():
            raise CheckpointError(f"{name}.weight has shape {tuple(weight.shape)}: expected {rank} dimensions, none of them 0.")
    layers = tuple((name, tuple(weight.shape), _dead_share(weight)) for name, weight in weights.items())
    return Check(layers, smoothness(weights["conv1"]) if "conv1" in weights else 0.0, None)


def network(model: AlexNet) -> Check:
    """Check a whole network."""
    partial = tensors(model.state_dict())
    return Check(partial.layers, partial.smoothness, _spread(model) / max(_untrained_spread(model), 1e-30))


def part(trained: Trained) -> Check:
    """Check a network, or what is there of it."""
    return tensors({**trained.extra, **trained.model.state_dict()}) if trained.missing else network(trained.model)


def smoothness(kernels: Tensor) -> float:
    """Correlation of neighbouring weights, each (height, width) plane's mean taken out:
    (K, C, H, W) to [-1, 1]."""
    planes = kernels.double()
    planes = planes - planes.mean((2, 3), keepdim=True)
    neighbours = (planes[..., 1:] * planes[..., :-1]).sum() + (planes[:, :, 1:] * planes[:, :, :-1]).sum()
    return float(neighbours / (2 * (planes * planes).sum()).clamp_min(1e-30))


def _dead_share(weight: Tensor) -> float:
    flat = weight.flatten(1)
    return float((flat.amax(1) == flat.amin(1)).float().mean())


def patterns(model: AlexNet) -> Tensor:
    """(16, 3, S, S): waves and a square in random colours, on the scale of
    pixels that the variant needs."""
    size, generator = model.variant.input_size, torch.Generator().manual_seed(2012)
    places = torch.linspace(0, 2 * torch.pi, size)
    images = torch.empty(PATTERNS, 3, size, size)
    for image in images:
        down, across = 20 * torch.rand(2, generator=generator)
        phase = 2 * torch.pi * torch.rand(3, 1, 1, generator=generator)
        colours = 200 * torch.rand(2, 3, 1, 1, generator=generator) - 100
        image[:] = colours[0] * torch.sin(down * places[:, None] + across * places + phase)
        top, left = (0.6 * size * torch.rand(2, generator=generator)).int().tolist()
        image[:, top : top + size // 3, left : left + size // 3] = colours[1]
    return images / PIXEL_DEVIATION if model.variant.pixels == "unit" else images


@torch.inference_mode()
def _spread(model: AlexNet) -> float:
    """Deviation of the logits across patterns, averaged over classes."""
    return _deviation(model.eval()(patterns(model)))


@torch.inference_mode()
def _untrained_spread(model: AlexNet) -> float:
    """The same for a network whose tensors are random, with the mean and deviation of the model's.

    Each layer is drawn when it is needed and dropped behind it: 151 MB at
    most beside the model's 244.
    """
    generator = torch.Generator().manual_seed(2012)
    twin = AlexNet.holding(model.variant, model.state_dict()).eval()
    x = patterns(model)
    for op in twin.ops:
        layer = twin.get_submodule(op.name) if isinstance(op, Conv | Linear) else None
        if layer:
            for name, ours in list(layer.named_parameters()):
                mean, deviation = float(ours.mean()), float(ours.std(correction=0))
                drawn = torch.empty_like(ours).normal_(mean, deviation, generator=generator)
                setattr(layer, name, nn.Parameter(drawn, requires_grad=False))
        x = twin.compute(op, x)
        if layer:
            delattr(twin, op.name)
    return _deviation(x)


def _deviation(logits: Tensor) -> float:
    return float(logits.std(0).mean())
