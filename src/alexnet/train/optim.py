"""The paper's stochastic gradient descent, and its learning rate.

    v <- momentum * v - weight_decay * lr * w - lr * gradient
    w <- w + v

The learning rate is part of the velocity (section 5). `torch.optim.SGD` keeps it outside, which is
the same while it is constant and differs at every drop: here an old step keeps the size it was
taken with.

Nesterov's momentum, which the paper does not use, looks one step ahead: the velocity that a second
gradient like this one would give is what moves the weights.

    w <- w + momentum * v - weight_decay * lr * w - lr * gradient

A layer's learning rate may have a factor of its own: 0 leaves the layer unchanged, without a
gradient, and no gradient is computed below the lowest layer that changes.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from alexnet.errors import CheckpointError
from alexnet.train.recipes import Recipe
from alexnet.variants import LAYER_NAMES, PerLayer, Variant


class SGD:
    """Velocity for each parameter, and the update.

    Args:
        model: its parameters are updated in place; weights and biases are distinguished by their
            names.
        momentum, weight_decay: as in the rule above.
        nesterov: whether to look ahead.
        variant: says how biases differ.
        factors: on the learning rate, by layer; 1 if None. Parameters of a layer with 0 are taken
            out of the graph (`requires_grad`).
    """

    def __init__(
        self,
        model: nn.Module,
        momentum: float,
        weight_decay: float,
        variant: Variant,
        nesterov: bool = False,
        factors: PerLayer | None = None,
    ) -> None:
        self.momentum, self.weight_decay, self.variant, self.nesterov = momentum, weight_decay, variant, nesterov
        self.factors = dict(zip(LAYER_NAMES, factors, strict=True)) if factors else {}
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(self._factor(name) > 0)
        self.parameters = {name: one for name, one in model.named_parameters() if one.requires_grad}
        self.velocity = {name: torch.zeros_like(parameter) for name, parameter in self.parameters.items()}

    @torch.no_grad()
    def step(self, lr: float, scale: float = 1.0) -> None:
        """One update from the gradients that the parameters hold, which are then dropped.

        Args:
            lr: the recipe's learning rate.
            scale: the schedule's factor; biases ignore it in variants whose bias rate is never
                lowered.
        """
        (weights, biases), (decay, bias_decay) = self.rates(lr, scale), self.decays
        for factor in dict.fromkeys(map(self._factor, self.parameters)):
            self._update("weight", factor, factor * weights, decay)
            self._update("bias", factor, factor * biases, bias_decay)

    def _factor(self, name: str) -> float:
        """On the learning rate of a parameter."""
        return self.factors.get(name.partition(".")[0], 1.0)

    def rates(self, lr: float, scale: float) -> tuple[float, float]:
        """The learning rate of weights and that of biases, for the arguments of `step`."""
        bias_scale = scale if self.variant.bias_lr_drops else 1.0
        return lr * scale, lr * bias_scale * self.variant.bias_lr

    @property
    def decays(self) -> tuple[float, float]:
        """The weight decay of weights and that of biases."""
        return self.weight_decay, self.weight_decay * self.variant.bias_decay

    def _update(self, kind: str, factor: float, lr: float, decay: float) -> None:
        names = [name for name in self.parameters if name.endswith(kind) and self._factor(name) == factor]
        w: list[Tensor] = [self.parameters[name] for name in names]
        v = [self.velocity[name] for name in names]
        g = [parameter.grad for parameter in w if parameter.grad is not None]
        torch._foreach_mul_(v, self.momentum)
        if decay:
            torch._foreach_add_(v, w, alpha=-decay * lr)
        torch._foreach_add_(v, g, alpha=-lr)
        if self.nesterov:
            torch._foreach_mul_(w, 1 - decay * lr)
            torch._foreach_add_(w, g, alpha=-lr)
        torch._foreach_add_(w, v, alpha=self.momentum if self.nesterov else 1)
        for parameter in w:
            parameter.grad = None

    def state(self) -> dict[str, Tensor]:
        """The velocity, for a checkpoint."""
        return {f"velocity.{name}": tensor for name, tensor in self.velocity.items()}

    def load(self, state: Mapping[str, Tensor], file: Path | str = "the checkpoint") -> None:
        """Put a checkpoint's velocity back.

        Args:
            state: as `state` gave it.
            file: where it was read, for the message.

        Raises:
            CheckpointError: a velocity is missing, of another shape or type, or not finite.
        """
        for name, tensor in self.velocity.items():
            velocity = state.get(f"velocity.{name}")
            if velocity is None:
                problem = "is missing"
            elif (velocity.shape, velocity.dtype) != (tensor.shape, tensor.dtype):
                problem = f"is {_described(velocity)}, but must be {_described(tensor)}"
            elif not bool(velocity.isfinite().all()):
                problem = "is NaN or infinite"
            else:
                tensor.copy_(velocity)
                continue
            raise CheckpointError(
                f"{file} is damaged: the velocity of {name} {problem}. Put the run's own "
                "checkpoint back, or start a new run with another --out."
            )


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"


def learning_rate(recipe: Recipe, epoch: int, step: int, steps: int, errors: Sequence[float]) -> tuple[float, float]:
    """The arguments of `SGD.step` for a step of an epoch of `steps`: the learning rate, and the
    schedule's factor on it.

    Args:
        errors: held-out error after each epoch done.
    """
    now = epoch + step / steps
    return recipe.lr * warmup(recipe, now + 1 / steps), schedule(recipe, now, errors)


def warmup(recipe: Recipe, epoch: float) -> float:
    """The rise of the learning rate at the start, up to 1, for the step that ends at
    `epoch` (with its fraction).
    """
    length = recipe.warmup * recipe.epochs
    return min(1.0, epoch / length) if length else 1.0


def schedule(recipe: Recipe, epoch: float, errors: Sequence[float]) -> float:
    """The schedule's factor on the learning rate after the warm-up, in [0, 1].

    A pure function of what a checkpoint holds, so a resumed run finds its place.

    Args:
        epoch: epochs done, with the fraction of the current one.
        errors: held-out error after each epoch done.
    """
    match recipe.schedule:
        case "linear":
            return min(1.0, (1 - epoch / recipe.epochs) / (1 - recipe.warmup))
        case "step":
            return recipe.lr_factor ** sum(epoch >= drop for drop in recipe.lr_drops)
        case "plateau":
            return recipe.lr_factor ** plateau_drops(errors, recipe.patience)


def plateau_drops(errors: Sequence[float], patience: int) -> int:
    """How often `errors` went `patience` epochs without a new best since the last drop."""
    drops, best, waited = 0, float("inf"), 0
    for error in errors:
        best, waited = (error, 0) if error < best else (best, waited + 1)
        if waited == patience:
            drops, waited = drops + 1, 0
    return drops
