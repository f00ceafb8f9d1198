"""Training: `alexnet train RECIPE --data STORE --out RUN`.

`train` is the algorithm, from top to bottom: learning rate, step, log; after each epoch evaluate and checkpoint. What a step is
(batch, forward, backward, update) stands in `plain_step.py`; on NVIDIA's GPUs `fused_step.py` takes the same step in an order
that keeps a GPU busy.

Every random number is a function of (seed, epoch, step), so a run that was killed at any moment and resumed from its last
checkpoint ends with the same bits (same machine, CPU, number of threads), whatever the number of loader workers.

On a GPU the weights at the start, the batches, crops, mirrors, colours and dropout are the seed's as well. The order in which
a kernel adds floats is not: two runs of one seed may drift apart by rounding.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from math import isfinite
from pathlib import Path

import torch
from torch import Tensor

from alexnet.console import say
from alexnet.data.augment import Augmentation
from alexnet.data.loader import INIT, Loader, stream
from alexnet.data.preprocessing import Preprocessing
from alexnet.data.resample import resampled
from alexnet.data.store import Store
from alexnet.devices import pick_device, pick_precision, room_for, set_precision
from alexnet.errors import FULL_DISK, AlexNetError, CheckpointError, Interrupted, RecipeError, TrainingError
from alexnet.evaluate import Evaluation, evaluate
from alexnet.meter import Meter
from alexnet.model import AlexNet
from alexnet.run_folder import BEST, KEPT, LATEST, RESULT, changes, environment, is_run, read_environment
from alexnet.train.health.causes import too_large
from alexnet.train.health.watch import Watch
from alexnet.train.history import read_config
from alexnet.train.optim import SGD, schedule, warmup
from alexnet.train.place import REMEDY, Place, Window
from alexnet.train.recipes import Recipe
from alexnet.train.result import write_result
from alexnet.train.run import Run, open_run
from alexnet.train.steps import choose as steps
from alexnet.train.steps.plain import compile_pays
from alexnet.train.steps.step import Step
from alexnet.train.whiten import whiten
from alexnet.trained import Trained
from alexnet.weights import native
from alexnet.weights.match import shapes

LOG_STEPS = 20
#: Stored pictures may have this many times the side of a crop; ImageNet's 256 have 1.14 times the 224.
MOST_ROOM = 1.5
STOPPED = "stopped at epoch {epoch:.2f} and saved. Go on with the same command and --resume."


@dataclass
class Session:
    """A run under way.

    Attributes:
        kind: a few words on the step and the device.
        clock: the moment at which `place.seconds` was zero.
        saved: when the latest checkpoint was written.
        result: the last evaluation.
    """

    recipe: Recipe
    store: Store
    loader: Loader
    run: Run
    trained: Trained
    place: Place
    optimiser: SGD
    watch: Watch
    step: Step
    kind: str
    clock: float
    saved: float
    result: Evaluation | None = None

    def begin_epoch(self) -> None:
        """Note what trains from here on, and where."""
        _note_step(self.place, self.kind)
        _note_environment(self.place, self.run)
        self.trained.model.train()

    def take_step(self, meter: Meter, stopping: list[int]) -> None:
        """Learning rate, step, log; a checkpoint where one is due."""
        recipe, place, loader, model = self.recipe, self.place, self.loader, self.trained.model
        now = place.epoch + place.step / loader.steps_per_epoch
        number = place.epoch * loader.steps_per_epoch + place.step
        lr = recipe.lr * warmup(recipe, now + 1 / loader.steps_per_epoch)
        lr_scale = schedule(recipe, now, place.errors)
        due = self.watch.due(number)
        look = partial(self.watch.look, number, model, optimiser=self.optimiser, run=self.run) if due else None
        self.step.take(place.epoch, place.step, lr, lr_scale, look)

        place.step += 1
        place.seconds = time.monotonic() - self.clock
        line_due = place.step % LOG_STEPS == 0 or place.step == loader.steps_per_epoch
        asked = bool(stopping)  # once, as a signal may come at any time
        save_due = asked or time.monotonic() - self.saved > 60 * recipe.checkpoint_minutes
        if self.step.at_once or line_due or save_due:
            self._collect(now)
        loss, error = place.window.texts()
        meter.add(loader.batch_size, loss, f"epoch {place.epoch + 1}/{recipe.epochs}", error, f"lr {lr * lr_scale:.2g}")
        if line_due:
            self._log_line(number + 1, lr * lr_scale)
        if save_due:
            self.save()
        if asked:
            raise Interrupted(STOPPED.format(epoch=now))

    def _collect(self, now: float) -> None:
        """Count what the steps gave, and stop if the loss is no longer finite."""
        window, model = self.place.window, self.trained.model
        window.count(*self.step.collect(), self.loader.batch_size)
        if not isfinite(window.loss):
            images = self.step.pictures(self.loader.batch_size)
            raise TrainingError(_what_broke(model, images, now, window.loss, self.recipe.lr, self.run.folder))

    def _log_line(self, number: int, lr: float) -> None:
        values = self.place.window.values(lr, self.place.seconds)
        self.run.log("train", number, values)
        self.watch.plateau(number, values["loss"], self.trained.model, self.step.pictures, self.run)
        self.place.window = Window(start=self.place.seconds)

    def end_epoch(self) -> None:
        """Evaluate, log, checkpoint."""
        place, split = self.place, self.store.held_out
        self.trained.model.eval()
        network, batches = self.step.for_testing()
        result = evaluate(network, self.trained.preprocessing, split, self.store.classes, batches=batches)
        place.epoch, place.step = place.epoch + 1, 0
        place.errors.append(result.top1_error)
        place.seconds = time.monotonic() - self.clock
        self.run.log(
            split.name, place.epoch * self.loader.steps_per_epoch,
            {"epoch": place.epoch, "top1_error": result.top1_error, "top5_error": result.top5_error},
        )  # fmt: skip
        say(f"epoch {place.epoch}: {split.name} top-1 error {result.top1_error:.2%}")
        self.result = result
        self.keep()
        self.save()

    def save(self) -> None:
        """Write the latest checkpoint and, if an epoch just ended with the lowest error so far, the best one.

        The best comes first: a run that is killed between the two repeats the end of the epoch and writes both.
        """
        place, folder = self.place, self.run.folder
        place.log_length = self.run.log_length
        parts = self.trained.model, self.trained.classes, self.trained.preprocessing
        if place.step == 0 and place.errors and place.errors[-1] == min(place.errors):
            native.save(folder / BEST, Trained(*parts, {}, asdict(place)))
        native.save(folder / LATEST, Trained(*parts, self.optimiser.state(), asdict(place)))
        self.saved = time.monotonic()

    def keep(self) -> None:
        """Write the weights, without the velocity, if this epoch is one to keep; before `save`, for the reason given there."""
        epoch = self.place.epoch
        if epoch in self.recipe.kept_epochs:
            native.save(self.run.folder / KEPT.format(epoch=epoch), replace(self.trained, extra={}, state=asdict(self.place)))


def train(recipe: Recipe, store: Store, folder: Path, resume: bool = False, overwrite: bool = False) -> Trained:
    """Train, or go on training, until the recipe's last epoch.

    Args:
        recipe: what to do. A resumed run may be given more epochs than it was begun with: from where it is, its learning rate
            follows the schedule of that many epochs.
        store: its `train` split is trained on, the other one tells how well. Pictures much larger than the recipe wants are
            resampled (`fitting`).
        folder: the run's folder.
        resume: go on from the folder's last checkpoint.
        overwrite: delete the run that the folder holds, and begin anew.

    Returns:
        The network after the last epoch, as it stands in `latest.safetensors`.

    Raises:
        RecipeError: recipe and store do not fit.
        StoreError: the store is damaged, or its pictures cannot be resampled.
        TrainingError: the folder is in the way or gone, the disk or the GPU's memory is full, or the loss is no longer finite.
        CheckpointError: a checkpoint could not be written or read.
        Interrupted: the user stopped it; it was saved.
    """
    folder = _checked_arguments(recipe, store, folder, resume, overwrite)
    store = fitting(recipe, store, folder if resume else None)
    device = pick_device(recipe.device)
    loader = Loader(store.train, recipe.batch_size, recipe.seed, recipe.workers)
    fused = steps.wanted(recipe, recipe.network(len(store.classes)), device)
    precision = pick_precision(recipe.precision, device, fused)
    set_precision(precision, device)
    with ExitStack() as stack:
        stack.enter_context(_in_words(folder, loader, device))
        run = open_run(folder, recipe, store, resume, compile_pays(recipe, store, loader, device), overwrite)
        stack.callback(run.close)
        trained, place, optimiser = _begin(recipe, store, loader, run, device)
        model = trained.model
        if place.epoch >= recipe.epochs and (folder / RESULT).exists():
            model.eval()
            return replace(trained, extra={})
        if recipe.epochs > run.config.recipe.epochs:
            _extend(recipe, run, place, loader)
        augmentation = Augmentation.of(trained.preprocessing, store, recipe.crop, recipe.mirror, recipe.colour_noise)
        watch = Watch(recipe, model.variant, store.train, recipe.epochs * loader.steps_per_epoch, place.losses, place.warned)
        run.start_log(place.log_length, place.epoch * loader.steps_per_epoch + place.step)
        step, kind = steps.open_step(
            recipe, fused=fused, precision=precision, compiled=run.config.compiled, store=store, loader=loader, model=model,
            augmentation=augmentation, optimiser=optimiser, at=(place.epoch, place.step),
        )  # fmt: skip
        stack.callback(step.close)
        _announce(recipe, store, loader, model, f"{device.type} ({kind})", run, place)
        images_per_epoch = loader.steps_per_epoch * loader.batch_size
        now = time.monotonic()
        session = Session(
            recipe, store, loader, run, trained, place, optimiser, watch, step, f"{kind} on {device.type}", now - place.seconds,
            now,
        )  # fmt: skip
        with Meter("training", recipe.epochs * images_per_epoch, "images") as meter, _stop_on_signal() as stopping:
            if place.epoch == place.step == 0:
                session.keep()
            meter.skip(place.epoch * images_per_epoch + place.step * loader.batch_size)
            while place.epoch < recipe.epochs:
                session.begin_epoch()
                while place.step < loader.steps_per_epoch:
                    session.take_step(meter, stopping)
                session.end_epoch()
                if stopping and place.epoch < recipe.epochs:
                    raise Interrupted(STOPPED.format(epoch=place.epoch))
        trained = replace(trained, extra={}, state=asdict(place))
        if not (folder / RESULT).exists():
            write_result(folder, trained, store, session.result)
    model.eval()
    return trained


def _checked_arguments(recipe: object, store: object, folder: object, resume: bool, overwrite: bool) -> Path:
    """Refuse arguments of other types, which would fail far from here; the folder as a path."""
    if not isinstance(recipe, Recipe):
        raise RecipeError(f"recipe (={recipe!r}) must be a Recipe, such as alexnet.train.recipes.get('small-photos').")
    if not isinstance(store, Store):
        raise RecipeError(f"store (={store!r}) must be a Store, such as alexnet.data.store.Store('store').")
    if not isinstance(folder, str | Path):
        raise RecipeError(f"folder (={folder!r}) must be a path.")
    if resume and overwrite:
        raise RecipeError("resume goes on with a run and overwrite deletes it: choose one of the two.")
    return Path(folder)


def fitting(recipe: Recipe, store: Store, run: Path | None = None) -> Store:
    """The store in pictures of a size that fits the recipe.

    Where they are more than `MOST_ROOM` times the side of a crop, the net would see a small part of each, in training and at
    test. Then they are resampled to `Recipe.stored_size`, once (`data/resample.py`).

    Args:
        run: of a run that is resumed, the folder; the store that it was begun with is taken as it is.

    Raises:
        RecipeError: the pictures are smaller than the crop.
        StoreError: they cannot be resampled.
    """
    size = recipe.network(len(store.classes)).input_size
    if size > store.size:
        raise RecipeError(
            f"input_size (={size}) is larger than the pictures of {store.folder} (={store.size}): prepare a store with "
            f"--size {size + size % 2} or more, or pass --input-size {store.size}."
        )
    if run and is_run(run) and read_config(run).store.fingerprint == store.fingerprint:
        return store
    return resampled(store, recipe.stored_size) if store.size > MOST_ROOM * size else store


def _begin(recipe: Recipe, store: Store, loader: Loader, run: Run, device: torch.device) -> tuple[Trained, Place, SGD]:
    """The network, its place in the schedule and its velocity: new, or from the last checkpoint."""
    if run.resumed:
        trained = native.load(run.folder / LATEST, device)
        place = _checked(trained, recipe, store, loader, run.folder / LATEST)
        if place.epoch >= recipe.epochs:
            say(f"{run.folder} is finished: {place.epoch} epochs.")
    else:
        trained, place = fresh(recipe, store, device), Place()
    optimiser = SGD(trained.model, recipe.momentum, recipe.weight_decay, trained.model.variant, recipe.nesterov)
    if run.resumed:
        optimiser.load(trained.extra, run.folder / LATEST)
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


def _checked(trained: Trained, recipe: Recipe, store: Store, loader: Loader, file: Path) -> Place:
    """A checkpoint's place in the schedule.

    Raises:
        CheckpointError: the checkpoint is damaged, or that of another run.
    """
    place, pictures = Place.of(trained.state, file), trained.preprocessing
    wanted, has = recipe.network(len(store.classes)), trained.model.variant
    problem = None
    if shapes(wanted) != shapes(has) or (wanted.input_size, store.size) != (pictures.input_size, pictures.stored_size):
        problem = "it holds another network than config.json asks for"
    elif place.step > loader.steps_per_epoch:  # equal: stopped before the evaluation
        problem = f"it is at step {place.step} of an epoch, which has {loader.steps_per_epoch}"
    if problem:
        raise CheckpointError(f"{file} is damaged: {problem}. {REMEDY}")
    return place


def _extend(recipe: Recipe, run: Run, place: Place, loader: Loader) -> None:
    """Record that a run gets more epochs, and say what its learning rate does."""
    now, earlier = place.epoch + place.step / loader.steps_per_epoch, run.config.recipe.epochs
    before, after = (recipe.lr * min(warmup(one, now), schedule(one, now, place.errors)) for one in (run.config.recipe, recipe))
    rate = f"the learning rate goes on at {after:.2g}"
    if abs(after - before) > 1e-9:
        rate = (
            f"the learning rate goes from {before:.2g} to {after:.2g}, where a run of {recipe.epochs} epochs has it by now, "
            "and follows that schedule; the result is not that of a run begun so"
        )
    say(f"{run.folder}: {recipe.epochs} epochs instead of {earlier}. From epoch {now:g} on, {rate}.")
    run.extend(recipe, now)


@contextmanager
def _in_words(folder: Path, loader: Loader, device: torch.device) -> Iterator[None]:
    """What the system refuses (memory, disk, files) as an error of ours."""
    smaller = f"--batch-size {max(1, loader.batch_size // 2)}"
    try:
        with room_for(f"batch_size (={loader.batch_size})", device, smaller):
            yield
    except CheckpointError as error:
        if isinstance(error.__cause__, OSError) and not folder.exists():
            raise TrainingError(_refused(folder, error.__cause__)) from error
        raise
    except AlexNetError:
        raise
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate memory" not in str(error):
            raise
        raise TrainingError(
            f"batch_size (={loader.batch_size}) and the network do not fit into this machine's memory. "
            f"{_what_is_saved(folder)}: pass {smaller} or a smaller --width."
        ) from error
    except OSError as error:
        raise TrainingError(_refused(folder, error)) from error


def _refused(folder: Path, error: OSError) -> str:
    if error.errno in FULL_DISK:
        return f"{folder}: {error.strerror}. {_what_is_saved(folder)}: free some space and go on with --resume."
    if not folder.exists():
        return (
            f"{folder} is gone: it was deleted or moved while a run was using it. Put it back and go on with --resume, or "
            "begin anew."
        )
    where = error.filename or folder
    return f"{where if isinstance(where, Path) else os.fsdecode(where)}: {error.strerror or error}. {_what_is_saved(folder)}."


# --- for the person ---------------------------------------------------------------------------------------------------------


def _note_step(place: Place, kind: str) -> None:
    """Keep what trains; say so if it is another than before."""
    if place.trained_by[-1:] != [kind]:
        if place.trained_by:
            say(f"This run used {place.trained_by[-1]} until now and continues with {kind}: its results mix the two.")
        place.trained_by.append(kind)


def _note_environment(place: Place, run: Run) -> None:
    """Keep where it computes; say so if a resumed run computes elsewhere: the same sums in another order have other bits."""
    if not place.environments and run.resumed:  # by a version that kept the first one only
        place.environments.append(read_environment(run.folder))
    here, earlier = environment(), place.environments[-1] if place.environments else {}
    if here == earlier:
        return
    if earlier:
        say(
            f"This run continues in another environment ({changes(earlier, here)}): its weights will not be, to the bit, those "
            "of a run that was never stopped."
        )
    place.environments.append(here)


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
        f"{recipe.epochs} epoch{'s' * (recipe.epochs != 1)} of {loader.steps_per_epoch} steps on {where}"
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
