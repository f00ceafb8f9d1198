"""Measure a network's health in numbers, before a run (`doctor.py`) and during one (`watch.py`).

Three numbers for a layer tell most failures apart, and none needs a run of hours:

- spread: the deviation of its values from picture to picture, relative to their mean size. Near 0
  every picture looks the same to the layers above, all they can learn is how frequent each class
  is, and the loss stands still at ln K (6.908 for K = 1000).
- dead: the share of units that fire for no picture. A dead layer passes no gradient down.
- update: the size of a step relative to the weights that it changes. A step as large
  as the weights is a leap.
"""

import numpy as np
import torch
from torch import Tensor, nn

from alexnet.arithmetic import Dropout, ReLU
from alexnet.data.store import Split
from alexnet.model import AlexNet
from alexnet.train.optim import SGD

LOOK_PICTURES = 32  # of a batch, at each look


@torch.no_grad()
def look(model: AlexNet, images: Tensor) -> tuple[dict[str, float], dict[str, float]]:
    """Spread of every stage but dropout, and the dead share of every ReLU, as at test. The
    model stays in its mode.

    Args:
        images: (N, 3, K, K), N at least 2.
    """
    was_training = model.training
    stages = model.eval().stages(images)
    model.train(was_training)
    for op in model.ops:
        if isinstance(op, Dropout):
            del stages[op.name]
    rectified = [op.name for op in model.ops if isinstance(op, ReLU)]
    spreads = _numbers([_spread(value) for value in stages.values()])
    deads = _numbers([_dead(stages[name]) for name in rectified])
    return dict(zip(stages, spreads, strict=True)), dict(zip(rectified, deads, strict=True))


def _spread(value: Tensor) -> Tensor:
    """(N, ...): deviation across the N, averaged over units, relative to the mean magnitude."""
    value = value.float()
    deviation = (value - value.mean(0)).square_().mean(0).sqrt_()  # `std(0)` takes four times as long
    return deviation.mean() / value.abs().mean().clamp_min(1e-30)


def _dead(value: Tensor) -> Tensor:
    """(N, C) or (N, C, H, W) after a ReLU: share of the C that are 0 everywhere in every
    picture.
    """
    return (value.transpose(0, 1).flatten(1).amax(1) <= 0).float().mean()


@torch.no_grad()
def gradient_norms(model: AlexNet) -> dict[str, float]:
    """Norm of the gradient of each layer's weights, between `backward` and the optimiser's step."""
    gradients = {name: weight.grad for name, weight in _weights(model).items() if weight.grad is not None}
    return dict(zip(gradients, _numbers([gradient.norm() for gradient in gradients.values()]), strict=True))


@torch.no_grad()
def update_ratios(model: AlexNet, optimiser: SGD) -> dict[str, float]:
    """Norm of the last step of each layer's weights, relative to the weights' own."""
    weights = _weights(model)
    steps = [optimiser.velocity[f"{name}.weight"].norm() for name in weights]
    sizes = [weight.norm().clamp_min(1e-30) for weight in weights.values()]
    return dict(zip(weights, _numbers([step / size for step, size in zip(steps, sizes, strict=True)]), strict=True))


def _weights(model: AlexNet) -> dict[str, nn.Parameter]:
    """By layer, of those that the variant has and that are trained."""
    weights = {name: model.get_parameter(f"{name}.weight") for name, _ in model.named_children()}
    return {name: weight for name, weight in weights.items() if weight.requires_grad}


def _numbers(values: list[Tensor]) -> list[float]:
    """To the CPU in one transfer."""
    return torch.stack(values).tolist() if values else []  # a net with tanh has no ReLU that could be dead


def frequencies_loss(split: Split, classes: int, label_smoothing: float = 0.0) -> float:
    """Loss of an answer that knows how frequent each class is and does not look at the picture: ln
    K if all are equally so.
    """
    share = np.bincount(split.labels, minlength=classes) / len(split)
    share = (1 - label_smoothing) * share + label_smoothing / classes
    return float(-(share[share > 0] * np.log(share[share > 0])).sum())
