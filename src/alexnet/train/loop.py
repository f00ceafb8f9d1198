"""Training: `alexnet train RECIPE --data STORE --out RUN`.

`train` is the algorithm, from top to bottom: learning rate, step, log; after each epoch evaluate and checkpoint. What a step is
(batch, forward, backward, update) stands in `plain_step.py`; on NVIDIA's GPUs `fused_step.py` takes the same step in an order
that keeps a GPU busy.

Every random number is a function of (seed, epoch, step), so a run that was killed at any moment and resumed from its last
checkpoint ends with the same bits (same machine, CPU, number of threads), whatever the number of loader workers.

On a GPU the weights at the start, the batches, crops, mirrors, colours and dropout are the seed's as well. The order in which
a kernel adds floats is not: two runs of one seed may drift apart by rounding.
"""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alexnet.console import Meter, say
from alexnet.data.augment import Augmentation, Preprocessing
from alexnet.data.loader import INIT, Loader, stream
from alexnet.data.store import Store
from alexnet.errors import FULL_DISK, CheckpointError, Interrupted, RecipeError, TrainingError
from alexnet.evaluate import Evaluation, evaluate
from alexnet.model import AlexNet
from alexnet.train import steps
from alexnet.train.fused_step import out_of_memory
from alexnet.train.optim import SGD, schedule, warmup
from alexnet.train.plain_step import compile_pays
from alexnet.train.recipes import Recipe
from alexnet.train.result import RESULT, write_result
from alexnet.train.run import Run, open_run
from alexnet.train.steps import Step
from alexnet.train.watch import Watch, too_large
from alexnet.train.whiten import whiten
from alexnet.weights import native
from alexnet.weights.native import BEST, KEPT, LATEST, Trained

LOG_STEPS = 20
#: Stored pictures may have this many times the side of a crop; ImageNet's 256 have 1.14 times the 224.
MOST_ROOM = 1.5
STOPPED = "stopped at epoch {epoch:.2f} and saved. Go on with the same command and --resume."


@dataclass
class Window:
    """Sums since the last line of the log."""

    loss: float = 0.0
    wrong: int = 0
    images: int = 0
    steps: int = 0
    start: float = 0.0  # in seconds of the run

    def count(self, loss: float, wrong: int, steps: int, batch_size: int) -> None:
        """Count `steps` batches by their sums."""
        self.loss += loss
        self.wrong += wrong
        self.images += steps * batch_size
        self.steps += steps

    def texts(self) -> tuple[str, str]:
        """The averages so far, for the display."""
        if not self.steps:
            return "", ""
        return f"loss {self.loss / self.steps:.3f}", f"top-1 error {self.wrong / self.images:.1%}"

    def values(self, lr: float, now: float) -> dict[str, float]:
        """A line for the log."""
        rate = self.images / max(now - self.start, 1e-9)
        return {"loss": self.loss / self.steps, "top1_error": self.wrong / self.images, "lr": lr, "images_per_second": rate}


@dataclass
class Place:
    """Where a run stands: what a checkpoint must hold beside the tensors."""

    epoch: int = 0
    step: int = 0  # within the epoch
    errors: list[float] = field(default_factory=list)  # held-out top-1 error after each epoch
    seconds: float = 0.0  # trained so far, over all starts
    log_length: int = 0
    window: Window = field(default_factory=Window)
    losses: list[float] = field(default_factory=list)  # of the latest lines of the log
    warned: list[str] = field(default_factory=list)  # of what, so that a resumed run does not repeat it
    trained_by: list[str] = field(default_factory=list)  # kinds of step, in order; more than one if a resumed run found another

    @classmethod
    def of(cls, state: dict[str, Any]) -> "Place":
        """From a checkpoint's JSON.

        Raises:
            CheckpointError: it holds weights alone, such as an exported file.
        """
        if "window" not in state:
            raise CheckpointError(
                f"{LATEST} holds no state of the training: it is an exported network. Put the run's own checkpoint back, or "
                "begin anew with another --out."
            )
        return cls(**{**state, "window": Window(**state["window"])})


def train(recipe: Recipe, store: Store, folder: Path, resume: bool = False) -> Trained:
    """Train, or go on training, until the recipe's last epoch.

    Args:
        recipe: what to do.
        store: its `train` split is trained on, the other one tells how well.
        folder: the run's folder.
        resume: go on from the folder's last checkpoint.

    Returns:
        The network after the last epoch, as it stands in `latest.safetensors`.

    Raises:
        RecipeError: recipe and store do not fit.
        TrainingError: the folder is in the way, the disk or the GPU's memory is full, or the loss is no longer finite.
        CheckpointError: a checkpoint could not be written or read.
        Interrupted: the user stopped it; it was saved.
    """
    check_size(recipe, store, resume)
    device = steps.pick_device(recipe.device)
    loader = Loader(store.train, recipe.batch_size, recipe.seed, recipe.workers)
    fused = steps.wanted(recipe, recipe.network(len(store.classes)), device)
    precision = steps.pick_precision(recipe.precision, device, fused)
    steps.set_precision(precision, device)
    run = open_run(folder, recipe, store, resume, compile_pays(recipe, store, loader, device))
    trained, place, optimiser = _begin(recipe, store, run, device)
    model = trained.model
    if place.epoch >= recipe.epochs and (folder / RESULT).exists():
        model.eval()
        return replace(trained, extra={})
    augmentation = Augmentation.of(trained.preprocessing, store, recipe.crop, recipe.mirror, recipe.colour_noise)
    watch = Watch(recipe, model.variant, store.train, recipe.epochs * loader.steps_per_epoch, place.losses, place.warned)
    run.open_log(place.log_length, place.epoch * loader.steps_per_epoch + place.step)
    step: Step | None = None
    try:
        step, kind = steps.open_step(
            recipe, fused=fused, precision=precision, compiled=run.compiled, store=store, loader=loader, model=model,
            augmentation=augmentation, optimiser=optimiser, at=(place.epoch, place.step),
        )  # fmt: skip
        _announce(recipe, store, loader, model, f"{device.type} ({kind})", run, place)
        images_per_epoch = loader.steps_per_epoch * loader.batch_size
        result: Evaluation | None = None
        clock = time.monotonic() - place.seconds
        saved = time.monotonic()
        with Meter("training", recipe.epochs * images_per_epoch, "images") as meter, _stop_on_signal() as stopping:
            if place.epoch == place.step == 0:
                _keep(recipe, folder, trained, place)
            meter.skip(place.epoch * images_per_epoch + place.step * loader.batch_size)
            while place.epoch < recipe.epochs:
                _note_step(place, f"{kind} on {device.type}")
                model.train()
                while place.step < loader.steps_per_epoch:
                    now = place.epoch + place.step / loader.steps_per_epoch
                    number = place.epoch * loader.steps_per_epoch + place.step
                    lr = recipe.lr * warmup(recipe, now + 1 / loader.steps_per_epoch)
                    lr_scale = schedule(recipe, now, place.errors)
                    look = partial(watch.look, number, model, optimiser=optimiser, run=run) if watch.due(number) else None
                    step.take(place.epoch, place.step, lr, lr_scale, look)

                    place.step += 1
                    place.seconds = time.monotonic() - clock
                    line_due = place.step % LOG_STEPS == 0 or place.step == loader.steps_per_epoch
                    asked = bool(stopping)  # once, as a signal may come at any time
                    save_due = asked or time.monotonic() - saved > 60 * recipe.checkpoint_minutes
                    if step.at_once or line_due or save_due:
                        place.window.count(*step.collect(), loader.batch_size)
                        if not isfinite(place.window.loss):
                            images = step.pictures(loader.batch_size)
                            raise TrainingError(_what_broke(model, images, now, place.window.loss, recipe.lr, folder))
                    loss, error = place.window.texts()
                    meter.add(
                        loader.batch_size, loss, f"epoch {place.epoch + 1}/{recipe.epochs}", error, f"lr {lr * lr_scale:.2g}"
                    )
                    if line_due:
                        values = place.window.values(lr * lr_scale, place.seconds)
                        run.log("train", number + 1, values)
                        watch.plateau(number + 1, values["loss"], model, step.pictures, run)
                        place.window = Window(start=place.seconds)
                    if save_due:
                        _save(folder, trained, optimiser, place, run)
                        saved = time.monotonic()
                    if asked:
                        raise Interrupted(STOPPED.format(epoch=now))

                model.eval()
                network, batches = step.for_testing()
                result = evaluate(network, trained.preprocessing, store.held_out, store.classes, batches=batches)
                place.epoch, place.step = place.epoch + 1, 0
                place.errors.append(result.top1_error)
                place.seconds = time.monotonic() - clock
                run.log(
                    store.held_out.name, place.epoch * loader.steps_per_epoch,
                    {"epoch": place.epoch, "top1_error": result.top1_error, "top5_error": result.top5_error},
                )  # fmt: skip
                say(f"epoch {place.epoch}: {store.held_out.name} top-1 error {result.top1_error:.2%}")
                _keep(recipe, folder, trained, place)
                _save(folder, trained, optimiser, place, run)
                saved = time.monotonic()
                if stopping and place.epoch < recipe.epochs:
                    raise Interrupted(STOPPED.format(epoch=place.epoch))
        trained = replace(trained, extra={}, state=asdict(place))
        if not (folder / RESULT).exists():
            write_result(folder, trained, store, result)
    except torch.cuda.OutOfMemoryError as error:
        raise out_of_memory(
            f"batch_size (={loader.batch_size})", device, f"--batch-size {max(1, loader.batch_size // 2)}"
        ) from error
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        raise TrainingError(
            f"{folder}: {error.strerror}. {_what_is_saved(folder)}: free some space and go on with --resume."
        ) from error
    finally:
        run.close()
        if step:
            step.close()
    model.eval()
    return trained


def check_size(recipe: Recipe, store: Store, resume: bool = False) -> None:
    """Refuse a store of pictures smaller than the crop, or so large that a crop is a small part; before a folder is made.

    Args:
        resume: a run that was begun may go on with large ones.
    """
    size = recipe.network(len(store.classes)).input_size
    if store.size > MOST_ROOM * size and not resume:
        raise RecipeError(
            f"input_size (={size}) is small for the pictures of {store.folder} (={store.size}): the net would see "
            f"{(size / store.size) ** 2:.0%} of each. Prepare a store with --size {2 * round(size * 9 / 16)}, or pass a larger "
            "--input-size."
        )
    if size > store.size:
        raise RecipeError(
            f"input_size (={size}) is larger than the pictures of {store.folder} (={store.size}): prepare a store with "
            f"--size {size + size % 2} or more, or pass --input-size {store.size}."
        )


def _begin(recipe: Recipe, store: Store, run: Run, device: torch.device) -> tuple[Trained, Place, SGD]:
    """The network, its place in the schedule and its velocity: new, or from the last checkpoint."""
    if run.resumed:
        trained = native.load(run.folder / LATEST, device)
        place = Place.of(trained.state)
        if place.epoch >= recipe.epochs:
            say(f"{run.folder} is finished: {place.epoch} epochs.")
    else:
        trained, place = fresh(recipe, store, device), Place()
    optimiser = SGD(trained.model, recipe.momentum, recipe.weight_decay, trained.model.variant, recipe.nesterov)
    if run.resumed:
        optimiser.load(trained.extra)
    return trained, place, optimiser


def fresh(recipe: Recipe, store: Store, device: torch.device) -> Trained:
    """The network as a run of this recipe begins."""
    variant = recipe.network(len(store.classes))
    seed = int(stream(recipe.seed, INIT).integers(2**62))
    model, preprocessing = AlexNet(variant, torch.Generator().manual_seed(seed)), Preprocessing.of(variant, store)
    if recipe.whiten:
        whiten(model, preprocessing, store.train)
    model = model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Trained(model, store.classes, preprocessing.to(device), {}, {})


def _save(folder: Path, trained: Trained, optimiser: SGD, place: Place, run: Run) -> None:
    """Write the latest checkpoint and, if an epoch just ended with the lowest error so far, the best one.

    The best comes first: a run that is killed between the two repeats the end of the epoch and writes both.
    """
    place.log_length = run.log_length
    parts = trained.model, trained.classes, trained.preprocessing
    if place.step == 0 and place.errors and place.errors[-1] == min(place.errors):
        native.save(folder / BEST, Trained(*parts, {}, asdict(place)))
    native.save(folder / LATEST, Trained(*parts, optimiser.state(), asdict(place)))


def _keep(recipe: Recipe, folder: Path, trained: Trained, place: Place) -> None:
    """Write the weights, without the velocity, if this epoch is one to keep; before `_save`, for the reason given there."""
    if place.epoch in recipe.kept_epochs:
        native.save(folder / KEPT.format(epoch=place.epoch), replace(trained, extra={}, state=asdict(place)))


# --- for the person ---------------------------------------------------------------------------------------------------------


def _note_step(place: Place, kind: str) -> None:
    """Keep what trains; say so if it is another than before."""
    if place.trained_by[-1:] != [kind]:
        if place.trained_by:
            say(f"Until here {place.trained_by[-1]} trained the run, from here on {kind}: its numbers are not one step's.")
        place.trained_by.append(kind)


def _announce(recipe: Recipe, store: Store, loader: Loader, model: AlexNet, where: str, run: Run, place: Place) -> None:
    if loader.batch_size < recipe.batch_size:
        say(f"The store has {len(store.train)} pictures to train on: batches hold {loader.batch_size} instead of "
            f"{recipe.batch_size}.")  # fmt: skip
    if store.manifest["resize"] != model.variant.resize:
        say(f"{model.variant.name} was trained on {model.variant.resize} pictures, this store holds "
            f"{store.manifest['resize']} ones (see `alexnet prepare --resize`).")  # fmt: skip
    say(
        f"{model.variant.name} x {model.variant.width:g}, {model.variant.input_size} pixels, "
        f"{model.variant.parameters:,} parameters; {len(store.train):,} pictures of {len(store.classes)} classes; "
        f"{recipe.epochs} epochs of {loader.steps_per_epoch} steps on {where}"
        f"{f'; resumed at epoch {place.epoch}, step {place.step}' if run.resumed else ''}."
        f"{' The first step takes up to a minute.' if 'compiled' in where else ''}"
    )


@contextmanager
def _stop_on_signal() -> Iterator[list[int]]:
    """A list that fills when the user asks to stop, so that a step is never cut in half. A second Ctrl-C stops at once."""
    stopping: list[int] = []

    def note(number: int, _: object) -> None:
        if stopping:
            raise KeyboardInterrupt
        stopping.append(number)
        say("Stopping after this step ...")

    try:
        earlier = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread, where signals do not arrive
        earlier = {}
    try:
        yield stopping
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


@torch.no_grad()
def _what_broke(model: AlexNet, images: Tensor, epoch: float, loss: float, lr: float, folder: Path) -> str:
    """Where the first value that is not finite stands, why, and what to do.

    If weights are broken already, the gradients of the step before were, and those flow from fc8 down: the last layer broke
    first. If not, the first stage to overflow did.
    """
    layers = dict(model.named_children())
    broken = [name for name in layers if not all(p.isfinite().all() for p in layers[name].parameters())]
    if broken:
        where = f"the weights of {broken[-1]} went first, by the gradient of the step before"
    else:
        stages = model.stages(images)
        first = next((name for name, value in stages.items() if not value.isfinite().all()), None)
        where = f"the output of {first} went first" if first else "every activation is finite, the logits are too large"
    cause = too_large(model.variant, float(images.std()), lr, lr / 10, f"the loss is {loss} at epoch {epoch:.3f}: {where}")
    return f"{cause.evidence}. {_what_is_saved(folder)}. {cause.remedy}."


def _what_is_saved(folder: Path) -> str:
    return f"The last good checkpoint is in {folder}" if (folder / LATEST).exists() else "No checkpoint had been saved yet"
