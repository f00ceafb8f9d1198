"""The plain training step: batch, forward, backward, update. It runs everywhere, and is what
defines the training; `fused.py` is the same step in an order that keeps a GPU busy.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet.console import say
from alexnet.data.augment import Augmentation
from alexnet.data.chance import Chance, Pictures
from alexnet.data.loader import Batch, Loader
from alexnet.engines import Network, eager
from alexnet.lanes import Lanes
from alexnet.model import AlexNet
from alexnet.train.optim import SGD

Scores = Callable[[Tensor, Tensor | None], Tensor]
LossFunction = Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]


class PlainStep:
    """Training steps, taken one after the other.

    Args:
        model: on the device; its parameters are updated in place.
        loss_function: the loss and logits of a batch, from pictures, labels and dropout's keys.
        split: the lanes that `loss_function` runs in, if it does; closed with the step.

    Attributes:
        at_once: True, as the loss is known when the step is.
    """

    at_once = True

    def __init__(
        self,
        model: AlexNet,
        loss_function: LossFunction,
        optimiser: SGD,
        loader: Loader,
        augmentation: Augmentation,
        split: Lanes | None = None,
    ) -> None:
        self.model, self.loss_function, self.optimiser = model, loss_function, optimiser
        self.loader, self.augmentation, self._split = loader, augmentation, split
        self.lanes = split.count if split else 1
        self.device = model.device
        self._batches: Iterator[Batch] = iter(())
        self._next: tuple[int, int] | None = None
        self._images = torch.empty(0)
        self._sums = 0.0, 0, 0

    def take(self, epoch: int, step: int, lr: float, scale: float, look: Callable[[Tensor], None] | None = None) -> None:
        """As `Step.take`. A loss that is not finite is counted, and moves no weight."""
        records, labels = self._batch(epoch, step)
        chance = self.chance(epoch)

        images = self._augmented(records, self.loader.indices(epoch, step), chance)  # (N, 3, K, K)
        pictures, labels = self._judged(epoch, step, labels)
        labels = labels.to(self.device)
        keys = torch.from_numpy(chance.dropout_keys(pictures, self.model.dropouts)).to(self.device)
        loss, logits = self.loss_function(images, labels, keys)
        total, wrong = self._of_batch(loss.detach(), (logits.detach().argmax(1) != labels).sum())
        if total.isfinite():
            self._backward(loss)
            if look:
                self._show(look, images)
            self.optimiser.step(lr, scale)
        self._images = images
        self._count(float(total), int(wrong))

    def _judged(self, epoch: int, step: int, labels: Tensor) -> tuple[Pictures, Tensor]:
        """The pictures whose loss is computed, and their labels, given the labels of the images."""
        return self.loader.indices(epoch, step), labels

    def _of_batch(self, loss: Tensor, wrong: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and number of wrong guesses of the whole batch, which one process has."""
        return loss, wrong

    def _backward(self, loss: Tensor) -> None:
        """Fill the parameters' gradients with those of the batch."""
        loss.backward()

    def _show(self, look: Callable[[Tensor], None], images: Tensor) -> None:
        look(images)

    def _augmented(self, records: Tensor, pictures: Pictures, chance: Chance) -> Tensor:
        def part(records: Tensor, pictures: Pictures) -> Tensor:
            images = self.augmentation(records.to(self.device), pictures, chance)
            return images.contiguous(memory_format=torch.channels_last)

        if not self._split:
            return part(records, pictures)
        lanes = self._split.count
        return torch.cat(self._split.run(part, records.tensor_split(lanes), np.array_split(pictures, lanes)))

    def chance(self, epoch: int) -> Chance:
        """What the epoch's crops, mirrors, colours and dropout come from."""
        return Chance(self.loader.seed, epoch)

    def _batch(self, epoch: int, step: int) -> Batch:
        if self._next != (epoch, step):
            self._batches = self.loader.batches(epoch, step)
        self._next = epoch, step + 1
        return next(self._batches)

    def _count(self, loss: float, wrong: int) -> None:
        losses, wrongs, steps = self._sums
        self._sums = losses + loss, wrongs + wrong, steps + 1

    def collect(self) -> tuple[float, int, int]:
        """As `Step.collect`."""
        sums, self._sums = self._sums, (0.0, 0, 0)
        return sums

    def pictures(self, count: int) -> Tensor:
        """As `Step.pictures`."""
        return self._images[:count]

    def whole(self) -> None:
        """As `Step.whole`: nothing is sharded."""

    def for_testing(self) -> tuple[Network, Iterable[Batch] | None]:
        """As `Step.for_testing`."""
        return eager(self.model), None

    def close(self) -> None:
        """End the lanes' threads; the loader's end with its batches."""
        self._batches = iter(())
        if self._split:
            self._split.close()


def computing_in(dtype: torch.dtype, network: Scores) -> Scores:
    """A network that computes in `dtype`, as its pictures are converted to it; float32 logits."""
    if dtype == torch.float32:
        return network
    return lambda images, keys: network(images.to(dtype), keys)


def loss_function(
    network: Scores,
    compiled: bool,
    label_smoothing: float = 0.0,
    weights: Tensor | None = None,
    batch_size: int | None = None,
) -> LossFunction:
    """The loss and logits of a batch, whose dropout is by keys where they are given; compiled into
    fused loops if asked, and if the compiler works.

    Args:
        label_smoothing: s; the target is 1 - s for the right class, and s / K more
            for each of the K classes.
        weights: (K,) of each class; a picture's loss is multiplied by that of its class.
        batch_size: of the whole batch, if pictures and labels are a share of it: the losses of
            all shares then add up to the batch's.
    """

    def forward(images: Tensor, labels: Tensor, keys: Tensor | None) -> tuple[Tensor, Tensor]:
        logits = network(images, keys)
        if weights is None and batch_size is None:
            return F.cross_entropy(logits, labels, label_smoothing=label_smoothing), logits
        losses = F.cross_entropy(logits, labels, label_smoothing=label_smoothing, reduction="none")
        losses = losses if weights is None else weights[labels] * losses
        return (losses.mean() if batch_size is None else losses.sum() / batch_size), logits

    if not compiled:
        return forward
    fast = torch.compile(forward, dynamic=False)
    compiles = True

    def first_try(images: Tensor, labels: Tensor, keys: Tensor | None) -> tuple[Tensor, Tensor]:
        nonlocal compiles
        if not compiles:
            return forward(images, labels, keys)
        try:
            return fast(images, labels, keys)
        except Exception as error:
            if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise
            say(f"The network could not be compiled ({type(error).__name__}) and runs uncompiled.")
            compiles = False
            return forward(images, labels, keys)

    return first_try
