"""Split a batch over lanes of cores: each lane takes its pictures through the convolutions, and the
fully connected layers see them all.

Cores that share every operation of one batch wait for each other at each of them, some hundred
times a step. A lane is a thread with cores of its own and a part of the batch, and waits once
forward and once backward. The seam is pool5: before it is most of the arithmetic and 4 % of the
parameters, behind it 96 % of them, whose gradients would have to be summed over lanes. So the
classifier takes the whole batch, with all cores, and only the convolutions' gradients are summed,
in the order of the lanes: the same lanes give the same bits, and other lanes other roundings of the
same sums. This is Krizhevsky's "one weird trick for parallelizing convolutional neural networks",
on the cores of one processor.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from alexnet.model import AlexNet

T = TypeVar("T")


class Lanes:
    """A network whose convolutions run in lanes; called as the network itself.

    Args:
        model: on the CPU; its parameters may change in place.
        count: lanes.
        threads: of each lane.
        dtype: what to compute in, also that of the pictures; by default the parameters' own.
    """

    def __init__(self, model: AlexNet, count: int, threads: int = 1, dtype: torch.dtype | None = None) -> None:
        self.model, self.count, self.threads = model, count, threads
        self._weights = {name: weight.detach() for name, weight in model.named_parameters() if name.startswith("conv")}
        self._seen = {
            name: weight.to(dtype) for name, weight in self._weights.items()
        }  # shared by all lanes; rounded once a step
        self._networks = [AlexNet.beginning(model.variant, self._seen) for _ in range(count)]
        self._names = [*self._weights]
        self._pool = _pool(count, threads)

    def __call__(self, x: Tensor, keys: Tensor | None = None) -> Tensor:
        """Class scores, as `AlexNet.forward`."""
        return self.model.classifier(self.convolutions(x), keys)

    def convolutions(self, x: Tensor) -> Tensor:
        """The maps of pool5, as `AlexNet.convolutions`; the convolutions' parameters get their
        gradients, x gets none.
        """
        features: Tensor = _InLanes.apply(self, x, *(self.model.get_parameter(name) for name in self._names))
        return features

    def run(self, function: Callable[..., T], *arguments: Sequence[Any]) -> list[T]:
        """`function` of each lane's arguments, in the lanes at once."""
        futures = [self._pool.submit(function, *lane) for lane in zip(*arguments, strict=True)]
        return [future.result() for future in futures]

    def split(self, x: Tensor) -> tuple[Tensor, ...]:
        """A batch in the lanes' parts; where it does not divide, the first ones have one picture
        more.
        """
        return x.tensor_split(self.count)

    def forward(self, x: Tensor, wanted: Sequence[bool]) -> list[Tensor]:
        """pool5's maps of each lane.

        Args:
            wanted: which of the convolutions' parameters need a gradient.
        """

        def lane(network: AlexNet, x: Tensor) -> Tensor:
            for name, needed in zip(self._names, wanted, strict=True):
                network.get_parameter(name).requires_grad_(needed)
            with torch.set_grad_enabled(any(wanted)):
                return network(x)

        for name, seen in self._seen.items():
            if seen is not self._weights[name]:
                seen.copy_(self._weights[name])
        return self.run(lane, self._networks, self.split(x))

    def backward(self, features: Sequence[Tensor], gradient: Tensor) -> list[Tensor | None]:
        """The gradients of the convolutions' parameters, None for those that need none.

        Args:
            features: what `forward` gave.
            gradient: of all of them.
        """

        def lane(network: AlexNet, features: Tensor, gradient: Tensor) -> list[Tensor]:
            parameters = [network.get_parameter(name) for name in self._names]
            wanted = [parameter for parameter in parameters if parameter.requires_grad]
            gradients = torch.autograd.grad(features, wanted, gradient)
            return [one.to(self.model.conv1.weight.dtype) for one in gradients]  # summed in float32

        total, *others = self.run(lane, self._networks, features, self.split(gradient))
        for gradients in others:
            torch._foreach_add_(total, gradients)
        found = iter(total)
        return [next(found) if self._networks[0].get_parameter(name).requires_grad else None for name in self._names]

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()


class _InLanes(torch.autograd.Function):
    """The lanes as one operation of autograd."""

    @staticmethod
    def forward(ctx: Any, lanes: Lanes, x: Tensor, *_: Tensor) -> Tensor:
        ctx.lanes, ctx.features = lanes, lanes.forward(x, ctx.needs_input_grad[2:])
        return torch.cat([part.detach() for part in ctx.features])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        features, ctx.features = ctx.features, None
        return None, None, *ctx.lanes.backward(features, gradient)


def _pool(count: int, threads: int) -> ThreadPoolExecutor:
    """`count` threads, each with so many of PyTorch's; this thread keeps its own number."""
    all_here, own = Barrier(count + 1), torch.get_num_threads()

    def begin() -> None:
        torch.get_num_threads()  # at the first question, a thread takes the number that was set last, by any thread
        torch.set_num_threads(threads)
        all_here.wait()

    pool = ThreadPoolExecutor(count, thread_name_prefix="lane", initializer=begin)
    for _ in range(count):
        pool.submit(int)
    all_here.wait()
    torch.set_num_threads(own)  # which is also what threads that begin later take
    return pool
