"""One step of training on a GPU as one unit: augmentation, forward, backward and update, with
nothing for the host to wait for.

`FusedStep._step` is the algorithm, and an ordinary function: on a CPU it runs as it is, on the
kernels' reference. On a GPU it runs so for the first steps; then it is recorded as a CUDA graph,
and each step is one launch instead of about a hundred. All that changes from step to step is
therefore on the device: the table of random choices with its counter (`data/feed.py`), the learning
rates, the sums for the log.

* Weights in float32 are updated; the step computes with copies in bfloat16, which the
  update writes too. Biases of convolutions and fc8 have no copy: the kernels add biases in
  float32, and logits are float32.
* The backward pass comes in two parts. The fully connected layers' gradients come first and
  hold 96 % of the parameters, so their update runs on a second stream under the backward
  pass of the convolutions.
* The host reads the loss when a line of the log is due, and not before: `collect`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from alexnet import kernels
from alexnet.arithmetic import FLOAT_BYTES, Layer
from alexnet.console import say
from alexnet.data.augment import Augmentation
from alexnet.data.feed import (
    ChoiceTable,
    Resident,
    StepChoices,
    Storage,
    Streamed,
    choose_storage,
    host_memory,
    kept,
    open_feed,
)
from alexnet.data.loader import Batch
from alexnet.data.preprocessing import Preprocessing
from alexnet.data.store import Split
from alexnet.devices import room_for
from alexnet.engines import Network, eager, trusted
from alexnet.fused import Fused, convolution_shapes
from alexnet.kernels.convolutions import Passes, fastest
from alexnet.model import AlexNet
from alexnet.train.health.signals import LOOK_PICTURES
from alexnet.train.optim import SGD
from alexnet.train.start import Start
from alexnet.variants import Variant

TYPES = {"bf16": torch.bfloat16, "tf32": torch.float32, "fp32": torch.float32}
EAGER_STEPS = 3  # before recording: kernels are compiled and the library's algorithms chosen in them
UNCOPIED = "fc8"
Look = Callable[[Tensor], None]


def step_bytes(layers: Sequence[Layer], batch: int, dtype: torch.dtype) -> int:
    """GPU memory that a step needs beside the pictures: an estimate, to
    choose the pictures' place by.

    Per parameter 14 bytes (weight, velocity, copy, gradient). Per picture every layer's output, of
    which fused kernels keep less than half, and which their gradients fill up again; twice, as a
    step that is looked into runs beside the recorded one. 3 GiB for libraries and their workspaces.
    """
    parameters = sum(layer.parameters for layer in layers)
    activations = sum(layer.activation_bytes for layer in layers) * dtype.itemsize // FLOAT_BYTES
    return 14 * parameters + 2 * batch * activations + 3 * 2**30


@dataclass(frozen=True)
class Launch:
    """Parameters that one launch updates.

    Attributes:
        leaves: what the step computes with and takes gradients of: the copies,
            or the weights themselves.
        lr: (parameters,) on the device, a part of the step's rates.
    """

    names: list[str]
    weights: list[Tensor]
    velocities: list[Tensor]
    leaves: list[Tensor]
    copies: list[Tensor]
    lr: Tensor
    decays: list[float]

    def update(self, gradients: dict[str, Tensor], momentum: float, nesterov: bool) -> None:
        """The paper's rule, or with Nesterov's momentum."""
        ordered = [_in_order_of(weight, gradients[name]) for name, weight in zip(self.names, self.weights, strict=True)]
        with torch.no_grad():
            kernels.sgd_step(self.weights, self.velocities, ordered, self.copies, self.lr, self.decays, momentum, nesterov)


def _in_order_of(weight: Tensor, gradient: Tensor) -> Tensor:
    """The gradient with its numbers in the weight's order in memory, as the update wants them;
    conv1's comes in another.
    """
    if gradient.stride() == weight.stride():
        return gradient
    return torch.empty_like(weight, dtype=gradient.dtype).copy_(gradient)


class Sample(NamedTuple):
    """Some pictures of a batch, and what they alone give.

    Attributes:
        drawn: records, top, left, mirror and colour, as `kernels.augment` takes them; on the CPU.
        labels: (n,) int64.
        keys: (n, dropout layers) int32.
        values: pool5's maps, the logits, and each parameter's gradient of the mean loss, by name.
    """

    drawn: tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
    labels: Tensor
    keys: Tensor
    values: dict[str, Tensor]


class FusedStep:
    """Training steps, queued one after the other.

    Args:
        model: float32 (or float64), on the device; its parameters are updated in place.
        preprocessing: on the device.
        optimiser: its velocity is updated in place.
        feed, choices: where pictures and random choices come from.
        dtype: to compute in.
        record: whether to record the step as a CUDA graph; on a GPU only.
        smoothing: of the labels.
        ways: how to compute each pass of each convolution; measured if None.
        beside: whether the fully connected layers are updated on a second stream.

    Attributes:
        held_out: the pictures to test on, where they lie on the device.
        at_once: False, as the host would wait for the device.
        lanes: one.
        sums: (3,) float64: losses, pictures right at the first guess, among five, since `collect`.
    """

    at_once, lanes = False, 1

    def __init__(
        self,
        model: AlexNet,
        preprocessing: Preprocessing,
        optimiser: SGD,
        feed: Resident | Streamed,
        choices: ChoiceTable,
        dtype: torch.dtype,
        record: bool = True,
        smoothing: float = 0.0,
        ways: Mapping[str, Passes] | None = None,
        beside: bool = True,
    ) -> None:
        self.model, self.preprocessing, self.optimiser, self.feed, self.choices = model, preprocessing, optimiser, feed, choices
        self.dtype, self.smoothing = dtype, smoothing
        self.batch_size = feed.loader.batch_size
        self._smaller = f"--batch-size {max(1, self.batch_size // 2)}" + (
            " or --feed pinned" if isinstance(feed, Resident) else ""
        )
        device = model.device
        self.ways = choose_ways(model.variant, self.batch_size, dtype, device) if ways is None else ways
        self.net = Fused(model, self.ways)
        self._tested = trusted(Fused(model), eager(model))  # the ways above were chosen for another type and batch
        self._cuda = device.type == "cuda"
        self._before = torch.cuda.current_stream(device) if self._cuda else None
        self._stream = _own_stream(device) if self._cuda else None
        self._second = torch.cuda.Stream(device) if self._cuda and beside else None
        self.sums = torch.zeros(3, dtype=torch.float64, device=device)
        self._counted = self._queued = self._last = 0
        self.held_out: list[Batch] | None = None
        self._rates_set: tuple[float, float] | None = None
        self._record = record and self._cuda
        self._graph: torch.cuda.CUDAGraph | None = None
        self._prepare()

    def _prepare(self) -> None:
        """The launches of the update, in the order in which gradients come: fully connected
        layers, then convolutions.
        """
        parameters = self.optimiser.parameters
        fully = [name for name in parameters if name.startswith("fc")]
        convolved = [name for name in parameters if name not in fully]
        lists = [_split(fully, self._has_copy), _split(convolved, self._has_copy)]
        self.rates = torch.zeros(len(parameters), dtype=self.model.get_parameter("conv1.weight").dtype, device=self.sums.device)
        self._names = [name for part in lists for names in part for name in names]
        self._late, self._early = ([self._launch(names) for names in part if names] for part in lists)
        self.launches = [*self._late, *self._early]
        self.leaves = {name: leaf for one in self.launches for name, leaf in zip(one.names, one.leaves, strict=True)}

    def _has_copy(self, name: str) -> bool:
        weight = self.optimiser.parameters[name]
        bias_of_convolution = name.startswith("conv") and weight.dim() == 1
        return self.dtype != weight.dtype and not bias_of_convolution and not name.startswith(UNCOPIED)

    def _launch(self, names: list[str]) -> Launch:
        weights: list[Tensor] = [self.optimiser.parameters[name] for name in names]
        copies = [weight.detach().to(self.dtype).requires_grad_() for weight in weights] if self._has_copy(names[0]) else []
        start = self._names.index(names[0])
        decay, bias_decay = self.optimiser.decays
        return Launch(
            names,
            weights,
            [self.optimiser.velocity[name] for name in names],
            copies or weights,
            copies,
            self.rates[start : start + len(names)],
            [bias_decay if name.endswith("bias") else decay for name in names],
        )

    # --- the step ---------------------------------------------------------------------------------

    def _step(self, look: Look | None = None) -> None:
        """Everything from records to new weights; `look` is called between gradients and update."""
        row = self.choices.row()
        x = self._blocks(row)
        features = self.net.convolutions(x, self.leaves)  # (N, 256, 6, 6)
        seam = features.detach().requires_grad_()
        logits = self.net.classifier(seam, self.leaves, row.keys)  # (N, classes)
        loss, hits = kernels.cross_entropy_topk(logits, row.labels, self.smoothing)

        late, (g,) = _gradients(loss, None, self._late, seam)
        if look is None:
            with self._beside():
                self._update(self._late, late)
        early, _ = _gradients(features, g, self._early)
        if look is not None:
            self._show(look, {**late, **early})
            self._update(self._late, late)
        self._update(self._early, early)
        self._join()
        self.sums += torch.cat([loss.detach()[None], hits])
        self.choices.counter += 1

    def _blocks(self, row: StepChoices, dtype: torch.dtype | None = None) -> Tensor:
        """(N, 48, B, B), the batch as conv1 sees it, in the step's type if no other is named."""
        x = self.preprocessing.apply(
            self.feed.records, row.top, row.left, row.mirror, row.colour, row.which, self.net.padding, dtype or self.dtype
        )
        return x.contiguous(memory_format=torch.channels_last)

    def _update(self, launches: list[Launch], gradients: dict[str, Tensor]) -> None:
        for launch in launches:
            launch.update(gradients, self.optimiser.momentum, self.optimiser.nesterov)

    @contextmanager
    def _beside(self) -> Iterator[None]:
        """What is queued inside may run beside what is queued after."""
        if self._second is None:
            yield
            return
        self._second.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._second):
            yield

    def _join(self) -> None:
        """Wait, on the device, for what was queued beside. Its gradients were kept until here."""
        if self._second is not None:
            torch.cuda.current_stream().wait_stream(self._second)

    def _show(self, look: Look, gradients: dict[str, Tensor]) -> None:
        """Call `look` while the parameters hold their gradients."""
        for name, parameter in self.optimiser.parameters.items():
            parameter.grad = gradients[name].to(parameter.dtype)
        look(self.pictures(LOOK_PICTURES, before=0))
        for parameter in self.optimiser.parameters.values():
            parameter.grad = None

    # --- what training calls ----------------------------------------------------------------------

    def take(self, epoch: int, step: int, lr: float, scale: float, look: Look | None = None) -> None:
        """Queue one step.

        Args:
            epoch, step: which; steps of an epoch follow one another, from any on.
            lr, scale: as in `SGD.step`.
            look: called with the batch's first pictures between gradients and update, while the
                parameters hold the gradients.
        """
        with room_for(f"batch_size (={self.batch_size})", self.sums.device, self._smaller):
            self._take(epoch, step, lr, scale, look)

    def _take(self, epoch: int, step: int, lr: float, scale: float, look: Look | None) -> None:
        self._set_rates(lr, scale)
        self._last = step
        self.choices.ready(epoch, step)
        self.feed.ready(epoch, step)
        if look is None and self._graph is not None:
            self._graph.replay()
        else:
            self._step(look)
            self._queued += 1
        self.feed.used(step)
        self._counted += 1
        if self._record and self._graph is None and self._queued >= EAGER_STEPS:
            self._graph = self._recorded()

    def _set_rates(self, lr: float, scale: float) -> None:
        weights, biases = self.optimiser.rates(lr, scale)
        if (weights, biases) == self._rates_set:
            return
        self._rates_set = weights, biases
        rates = torch.tensor([biases if name.endswith("bias") else weights for name in self._names], dtype=self.rates.dtype)
        self.rates.copy_(rates.pin_memory() if self._cuda else rates, non_blocking=True)

    def _recorded(self) -> "torch.cuda.CUDAGraph | None":
        """The step as a graph; recording runs nothing. None if it cannot be recorded."""
        graph = torch.cuda.CUDAGraph()
        try:
            # Threads that read ahead allocate page-locked memory meanwhile, which
            # the default mode forbids.
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                self._step()
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self._record = False
            reason = str(error).splitlines()[0]
            say(
                f"The step could not be recorded as a CUDA graph ({reason}): kernels are launched "
                "one by one, which is slow with small batches."
            )
            return None
        return graph

    def collect(self) -> tuple[float, int, int]:
        """Sum of losses, wrong first guesses and steps since the last call. Waits for the
        device.
        """
        loss, right, _ = self.sums.tolist()
        steps, self._counted = self._counted, 0
        self.sums.zero_()
        return loss, steps * self.batch_size - round(right), steps

    def pictures(self, count: int, before: int = 1) -> Tensor:
        """(count, 3, K, K) float32: the first pictures of the last step, made anew;
        `before` = 0 within a step.
        """
        row = self.choices.row(before)
        top, left, mirror, colour, index = (field[:count] for field in (row.top, row.left, row.mirror, row.colour, row.which))
        images = self.preprocessing.apply(self.feed.records, top, left, mirror, colour, index)
        self.feed.used(self._last)  # not to be overwritten before this, too, is done
        return images.contiguous(memory_format=torch.channels_last)

    def sample(self, epoch: int, step: int, count: int, leaves: Mapping[str, Tensor]) -> Sample:
        """A batch's first and last pictures, as training makes and takes them; nothing is updated.

        The whole batch goes through the kernels, as these are chosen by its size; only those
        pictures count in the loss.

        Args:
            count: of both together.
            leaves: what to compute with, as `self.leaves`; the type of conv1's
                weight is that of the maps.
        """
        self.choices.ready(epoch, step)
        self.feed.ready(epoch, step)
        row, size = self.choices.row(), self.batch_size
        rows = torch.arange(size, device=self.sums.device)
        rows = torch.cat([rows[: count // 2], rows[count // 2 :][-count // 2 :]])
        features = self.net.convolutions(self._blocks(row, leaves["conv1.weight"].dtype), leaves)
        logits, labels = self.net.classifier(features, leaves, row.keys)[rows], row.labels[rows]
        loss, _ = kernels.cross_entropy_topk(logits, labels, self.smoothing)
        gradients = torch.autograd.grad(loss, list(leaves.values()))
        drawn = (self.feed.records[row.which[rows]], *(part[rows] for part in (row.top, row.left, row.mirror, row.colour)))
        records, top, left, mirror, colour = (part.cpu() for part in drawn)
        values = {"pool5": features[rows].detach(), "logits": logits.detach(), **dict(zip(leaves, gradients, strict=True))}
        return Sample((records, top, left, mirror, colour), labels, row.keys[rows], values)

    def leaves_of(self, weights: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
        """As `self.leaves`, of other float32 weights: in `dtype` what has a copy in it."""
        device = self.sums.device
        return {
            name: weight.to(device, dtype if self._has_copy(name) else weight.dtype).detach().requires_grad_()
            for name, weight in weights.items()
        }

    def whole(self) -> None:
        """As `Step.whole`: nothing is sharded."""

    def for_testing(self) -> tuple[Network, list[Batch] | None]:
        """On a CPU the plain walk, by which `alexnet verify` counts to the picture."""
        if not self._cuda:
            return eager(self.model), None
        return self._tested, self.held_out

    def data_alone(self) -> Callable[[], None]:
        """A function that makes the table's batches one after the other, as the step does,
        recorded where the step is.
        """

        def make() -> None:
            self._blocks(self.choices.row())
            self.choices.counter.add_(1).remainder_(self.feed.loader.steps_per_epoch)

        self.choices.ready(0, 0)
        self.feed.ready(0, 0)
        if self._graph is None:
            return make
        make()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            make()
        return graph.replay

    def close(self) -> None:
        """End threads and free the stream."""
        self.choices.close()
        if self._before is not None:
            torch.cuda.synchronize()
            torch.cuda.set_stream(self._before)


def open_fused_step(start: Start, held_out: Split, precision: str) -> FusedStep:
    """The fused step of a run, with its pictures where they fit; the held-out ones on the GPU if it
    has room for them too.
    """
    recipe, model, loader = start.recipe, start.model, start.loader
    device = start.device
    free = 0
    place: Storage = "disk" if recipe.feed == "auto" else recipe.feed
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0] - step_bytes(model.variant.layers(), loader.batch_size, TYPES[precision])
        place, sentence = choose_storage(recipe.feed, loader.split.records.nbytes, free, host_memory())
        say(sentence)
    with room_for(f"feed (={recipe.feed})", device, "--feed auto"):
        feed = open_feed(place, loader, device)
    fused = build(feed, model, start.augmentation, start.optimiser, TYPES[precision], recipe.label_smoothing)
    needed = held_out.records.nbytes + (loader.split.records.nbytes if place == "resident" else 0)
    if needed <= free:
        try:
            fused.held_out = kept(held_out, device)
        except BaseException:
            fused.close()
            raise
    return fused


def build(
    feed: Resident | Streamed,
    model: AlexNet,
    augmentation: Augmentation,
    optimiser: SGD,
    dtype: torch.dtype,
    smoothing: float = 0.0,
    ways: Mapping[str, Passes] | None = None,
    beside: bool = True,
) -> FusedStep:
    """The step on a feed's pictures, with a table of choices of its own."""
    choices = ChoiceTable(feed, augmentation, model.dropouts, model.device)
    try:
        return FusedStep(model, augmentation.preprocessing, optimiser, feed, choices, dtype, True, smoothing, ways, beside)
    except BaseException:
        choices.close()
        raise


def _gradients(
    of: Tensor, g: Tensor | None, launches: list[Launch], *others: Tensor
) -> tuple[dict[str, Tensor], tuple[Tensor, ...]]:
    """Gradients of `of`, times g where it is no scalar: by name of the launches'
    leaves, and of `others`.
    """
    names = [name for launch in launches for name in launch.names]
    leaves = [leaf for launch in launches for leaf in launch.leaves]
    gradients = torch.autograd.grad(of, [*leaves, *others], g)
    return dict(zip(names, gradients, strict=False)), gradients[len(leaves) :]


def _split(names: list[str], has_copy: Callable[[str], bool]) -> tuple[list[str], list[str]]:
    """Those with a copy, those without."""
    return [name for name in names if has_copy(name)], [name for name in names if not has_copy(name)]


def _own_stream(device: torch.device) -> "torch.cuda.Stream":
    """A stream of this thread's own, as graphs are recorded on no other; all that follows in the
    thread is queued on it.
    """
    stream = torch.cuda.Stream(device, priority=-1)  # before what runs beside it
    stream.wait_stream(torch.cuda.current_stream(device))
    torch.cuda.set_stream(stream)
    return stream


def choose_ways(variant: Variant, batch: int, dtype: torch.dtype, device: torch.device) -> dict[str, Passes]:
    """How to compute each pass of each convolution: measured on a GPU."""
    if device.type == "cuda":
        say("Choosing the fastest way to compute each convolution. The first time on a GPU, this takes a while.")
    shapes = convolution_shapes(variant, batch, dtype, device)
    return {name: fastest(shape) for name, shape in shapes.items()}
