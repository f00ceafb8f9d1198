"""A run under way: all that changes while it lasts.

`open_session` opens the run's folder and begins the run (`start.py`); `Session` counts, logs,
warns, saves and stops while `loop.py` trains. What the system refuses, a full disk or memory,
becomes an error that says what is saved and what to do, here and once.
"""

import errno
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from math import isfinite
from pathlib import Path

import torch
from torch import Tensor

from alexnet.console import say
from alexnet.data.store import Store
from alexnet.devices import pick_device, pick_precision, room_for, set_precision
from alexnet.errors import FULL_DISK, AlexNetError, Interrupted, OutputError, RecipeError, TrainingError
from alexnet.evaluate import Evaluation, evaluate
from alexnet.meter import Meter
from alexnet.phrases import counted
from alexnet.run_folder import BEST, KEPT, LATEST, RESULT
from alexnet.train import announce
from alexnet.train.health.causes import Cause, overflow
from alexnet.train.health.watch import PLATEAU_LINES, Watch
from alexnet.train.history import TunedFrom
from alexnet.train.parallel.begin import give, receive
from alexnet.train.parallel.ranks import ALONE, Ranks
from alexnet.train.place import Place, Window
from alexnet.train.recipes import Recipe
from alexnet.train.result import write_result
from alexnet.train.run import FREE_FIELDS, Run, as_settled, begun_by, check_folder, open_run
from alexnet.train.start import Start, fitting
from alexnet.train.steps import choose
from alexnet.train.steps.split import check_lanes
from alexnet.train.steps.step import Step
from alexnet.train.tune.base import Base, open_base
from alexnet.trained import Trained
from alexnet.weights import native

LOG_STEPS = 20
STOPPED = "stopped at epoch {epoch:.2f} and saved. To continue, run the same command with --resume."


@dataclass
class Session:
    """A run under way.

    Attributes:
        fused, precision, lanes: how it computes; without a number of lanes, one is chosen.
        ranks: the processes that train it; each has a session, the first has the folder.
        compared: as in `loop.train`.
        watch: knows the failures; what it has seen and said is in `place`.
        step: takes the steps; opened by `under_way`, as is all that follows.
        kind: a few words on the step and the device.
        stopping: signals that asked the run to stop.
        clock: the moment at which `place.seconds` was zero.
        saved: when the latest checkpoint was written.
        result: the last evaluation.
    """

    store: Store
    run: Run
    start: Start
    fused: bool
    precision: str
    lanes: int | None = None
    ranks: Ranks = ALONE
    compared: bool = False
    place: Place = field(init=False)
    watch: Watch = field(init=False)
    step: Step = field(init=False)
    kind: str = ""
    meter: Meter = field(init=False)
    stopping: list[int] = field(default_factory=list)
    clock: float = 0.0
    saved: float = 0.0
    result: Evaluation | None = None

    def __post_init__(self) -> None:
        self.place = self.start.place
        steps = self.recipe.epochs * self.start.loader.steps_per_epoch
        self.watch = Watch(self.recipe, self.start.variant, self.start.loader.split, steps)
        if self.run.resumed and self.place.epoch >= self.recipe.epochs:
            say(f"{self.run.folder} is finished: it trained for {counted(self.place.epoch, 'epoch')}.")

    @property
    def recipe(self) -> Recipe:
        """What the run does."""
        return self.start.recipe

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.ranks.agree(self.place.epoch >= self.recipe.epochs and (self.run.folder / RESULT).exists())

    @property
    def fitted_head(self) -> bool:
        """Whether this epoch is the one in which a last layer was fitted to weights: it has no
        steps.
        """
        return self.recipe.tune is not None and self.place.epoch == 0

    @property
    def steps_done(self) -> int:
        """Since the run's first."""
        epochs = self.place.epoch - (self.recipe.tune is not None and self.place.epoch > 0)
        return epochs * self.start.loader.steps_per_epoch + self.place.step

    # --- begin and end --------------------------------------------------------------------------

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """The step, the log and the display are open inside it, and Ctrl-C stops after a step."""
        place, loader, device = self.place, self.start.loader, self.start.device
        if self.recipe.epochs > self.run.config.recipe.epochs:
            announce.extend(self.recipe, self.run, place, loader.steps_per_epoch)
        self.run.start_log(place.log_length, self.steps_done)
        self.step, kind = choose.open_step(
            self.start,
            self.store.held_out,
            fused=self.fused,
            precision=self.precision,
            compiled=self.run.config.compiled,
            lanes=self.lanes,
            ranks=self.ranks,
            compared=self.compared,
        )
        with ExitStack() as stack:
            stack.callback(self.step.close)
            where = f"{device.type} ({kind}){f', {self.ranks}' if self.ranks.several else ''}"
            announce.announce(self.start, self.store, where, self.run.resumed)
            self.kind = f"{kind} on {device.type}"
            self.saved = time.monotonic()
            self.clock = self.saved - place.seconds
            epochs = self.recipe.epochs - (self.recipe.tune is not None)
            images = epochs * loader.steps_per_epoch * loader.batch_size
            self.meter = stack.enter_context(Meter("training", images, "images"))
            stack.enter_context(_stop_on_signal(self.stopping, self.ranks.several))
            if self.steps_done == 0:
                self._keep()
            self.meter.skip(self.steps_done * loader.batch_size)
            yield
            self.step.whole()

    def end(self) -> Trained:
        """The network after the last epoch; its record is written if there is none."""
        self.start.model.eval()
        trained = replace(self.start.trained, state=asdict(self.place))
        if self.ranks.first and not (self.run.folder / RESULT).exists():
            write_result(self.run.folder, trained, self.store, self.result)
        return trained

    # --- a step ---------------------------------------------------------------------------------

    def look(self) -> Callable[[Tensor], None] | None:
        """What the coming step calls between gradients and update; None unless a look is due."""
        return self._look if self.watch.due(self.steps_done) else None

    def _look(self, images: Tensor) -> None:
        """Log every layer's signals, and warn of what they show."""
        if len(images) < 2:
            return
        values, causes = self.watch.look(self.start.model, images, self.start.optimiser)
        self.run.log("signals", self.steps_done, values)
        for cause in causes:
            self._warn(cause)

    def count_step(self, now: float, lr: float) -> None:
        """Count the step just taken, and log a line where one is due.

        That is every `LOG_STEPS` steps and at the end of the epoch.

        Args:
            now: where the step began, in epochs.
            lr: of the weights.
        """
        place, loader = self.place, self.start.loader
        place.step += 1
        place.seconds = time.monotonic() - self.clock
        line_due = place.step % LOG_STEPS == 0 or place.step == loader.steps_per_epoch
        if self.step.at_once or line_due:
            self._collect(now)
        loss, error = place.window.texts()
        self.meter.add(loader.batch_size, loss, f"epoch {place.epoch + 1}/{self.recipe.epochs}", error, f"lr {lr:.2g}")
        if line_due:
            self._log_line(lr)

    def _collect(self, now: float) -> None:
        """Count what the steps gave, and stop if the loss is no longer finite."""
        window, batch = self.place.window, self.start.loader.batch_size
        window.count(*self.step.collect(), batch)
        if not isfinite(window.loss):
            self.step.whole()
            seen = f"the loss is {window.loss} at epoch {now:.3f}"
            if not self.ranks.first:
                raise TrainingError(seen)  # rank 0 says why
            cause = overflow(self.start.model, self.step.pictures(batch), self.recipe.lr, seen)
            raise TrainingError(f"{cause.evidence}. {_what_is_saved(self.run.folder)}. {cause.remedy}.")

    def _log_line(self, lr: float) -> None:
        place = self.place
        values = place.window.values(lr, place.seconds)
        self.run.log("train", self.steps_done, values)
        place.losses = [*place.losses, values["loss"]][-PLATEAU_LINES:]
        if "plateau" not in place.warned and self.watch.flat(self.steps_done, place.losses):
            self._explain_plateau()
        place.window = Window(start=place.seconds)

    def _explain_plateau(self) -> None:
        """Warn of it once; rank 0 has the pictures that were looked at, and says why."""
        self.step.whole()
        cause = None
        if self.ranks.first:
            cause = self.watch.plateau(self.steps_done, self.place.losses, self.start.model, self.step.pictures)
        if cause := self.ranks.broadcast_object(cause):
            self._warn(cause)
            self.place.warned.append("plateau")

    def _warn(self, cause: Cause) -> None:
        """Print the warning, unless it was printed before."""
        if cause.name in self.place.warned:
            return
        self.place.warned.append(cause.name)
        self.run.log("warning", self.steps_done, {cause.name: 1.0})
        say(f"Warning: {cause}")

    def save_if_due(self, now: float) -> None:
        """A checkpoint within the epoch, every `checkpoint_minutes` and before the run stops.

        Raises:
            Interrupted: the user asked for it.
        """
        asked = bool(self.stopping)  # once, as a signal may come at any time
        due = asked or time.monotonic() - self.saved > 60 * self.recipe.checkpoint_minutes
        if not self.ranks.agree(due):
            return
        self._collect(now)
        self._save()
        if self.ranks.agree(asked):
            raise Interrupted(STOPPED.format(epoch=now))

    # --- an epoch -------------------------------------------------------------------------------

    def begin_epoch(self) -> None:
        """Note what trains from here on, and where."""
        announce.note_step(self.place, self.kind)
        announce.note_environment(self.place, self.run, self.step.lanes, self.ranks)
        announce.note_draws(self.place)
        self.start.model.train()

    def evaluate(self) -> Evaluation:
        """On the held-out pictures, one view; each rank tests its share of them."""
        self.start.model.eval()
        network, batches = self.step.for_testing()
        here = evaluate(network, self.start.preprocessing, self.store.held_out, self.store.classes, batches=batches)
        first, *others = self.ranks.all_gather_object(here)
        return sum(others, first)

    def end_epoch(self, result: Evaluation) -> None:
        """Log and save.

        Raises:
            Interrupted: the user asked for it.
        """
        place, split = self.place, self.store.held_out.name
        if place.window.steps:  # of a last layer that was fitted
            self._log_line(0.0)
        place.epoch, place.step = place.epoch + 1, 0
        place.errors.append(result.top1_error)
        place.seconds = time.monotonic() - self.clock
        errors = {"top1_error": result.top1_error, "top5_error": result.top5_error}
        self.run.log(split, self.steps_done, {"epoch": place.epoch, **errors})
        say(f"epoch {place.epoch}: {split} top-1 error {result.top1_error:.2%}")
        self.result = result
        self._keep()
        self._save()
        if self.ranks.agree(bool(self.stopping)) and place.epoch < self.recipe.epochs:
            raise Interrupted(STOPPED.format(epoch=place.epoch))

    # --- checkpoints ----------------------------------------------------------------------------

    def _save(self) -> None:
        """Write the latest checkpoint, and the best one if the epoch that
        ended has the lowest error.

        The best comes first: a run that is killed between the two repeats the end of the epoch and
        writes both.
        """
        self.step.whole()
        if not self.ranks.first:
            return
        place, folder = self.place, self.run.folder
        place.log_length = self.run.log_length
        network = replace(self.start.trained, state=asdict(place))
        if place.step == 0 and place.errors and place.errors[-1] == min(place.errors):
            native.save(folder / BEST, network)
        native.save(folder / LATEST, replace(network, extra=self.start.optimiser.state()))
        self.saved = time.monotonic()

    def _keep(self) -> None:
        """Write the weights, without the velocity, if this epoch is one to keep.

        Before `_save`, for the reason given there.
        """
        epoch = self.place.epoch
        if epoch not in self.recipe.kept_epochs:
            return
        self.step.whole()
        if self.ranks.first:
            native.save(self.run.folder / KEPT.format(epoch=epoch), replace(self.start.trained, state=asdict(self.place)))


@contextmanager
def open_session(
    recipe: Recipe,
    store: Store,
    folder: Path,
    resume: bool = False,
    overwrite: bool = False,
    lanes: int | None = None,
    ranks: Ranks = ALONE,
    compared: bool = False,
    base: Base | None = None,
) -> Iterator[Session]:
    """Open a run's folder and begin the run; arguments and errors as those of `loop.train`.

    Args:
        base: the recipe's weights, if they have been read already.
    """
    folder = _checked_arguments(recipe, store, folder, resume, overwrite)
    check_lanes(lanes)
    ranks.check_alike(_alike(recipe, store), "give all ranks the same command and the same store")
    if not ranks.first:
        with _joined(recipe, store, folder, lanes, ranks) as session:
            yield session
        return
    if not resume and begun_by(folder, ranks.launch):
        say(f"torchrun started its processes again: continuing the run in {folder}.")
        resume, overwrite = True, False
    check_folder(folder, recipe, resume, overwrite)
    recipe = as_settled(folder, recipe) if resume else recipe
    base = base or open_base(recipe) if recipe.tune and not (resume and (folder / LATEST).exists()) else None
    variant = base.variant if base else recipe.network(len(store.classes))
    ranks = ranks.settled(variant, min(recipe.batch_size, len(store.train)))
    device = pick_device(recipe.device)
    fused = choose.wants_fused(recipe, variant, device, ranks)
    precision = pick_precision(recipe.precision, device, fused)
    store = fitting(recipe, store, folder if resume else None, base)  # may write a copy: after all that can be refused
    set_precision(precision, device)
    # Uncompiled, a CPU is as fast (docs/log.md).
    compiled = device.type == "cuda" if recipe.compile == "auto" else recipe.compile == "on"
    tuned = TunedFrom(str(base.file), base.layers, base.preprocessing.stored_size) if base else None
    # The best one, the latest with its velocity and the one that replaces it, and those to keep.
    space = 4 * variant.parameters * (1 + 2 + 2 + len(recipe.kept_epochs))
    with _in_words(folder, min(recipe.batch_size, len(store.train)), device, space), ExitStack() as stack:
        run = open_run(folder, recipe, store, resume, compiled, overwrite, tuned, ranks.launch)
        stack.callback(run.close)
        if run.resumed:
            start = Start.resumed(recipe, store, device, folder / LATEST, variant)
        elif base:
            start = Start.tuned(recipe, store, device, base, folder)
            run.settle(start.recipe)
        else:
            start = Start.fresh(recipe, store, device, variant)
        give(ranks, run, start)
        yield Session(store, run, start, fused, precision, lanes, ranks, compared)


@contextmanager
def _joined(recipe: Recipe, store: Store, folder: Path, lanes: int | None, ranks: Ranks) -> Iterator[Session]:
    """The session of a rank other than 0, which begins as rank 0 does."""
    device = pick_device(recipe.device)
    precision = pick_precision(recipe.precision, device, False)
    set_precision(precision, device)
    with _in_words(folder, min(recipe.batch_size, len(store.train)), device):
        run, start, store = receive(ranks, folder, store, device)
        ranks = ranks.settled(start.variant, start.loader.batch_size)
        yield Session(store, run, start, False, precision, lanes, ranks)


def _checked_arguments(recipe: object, store: object, folder: object, resume: bool, overwrite: bool) -> Path:
    """Refuse arguments of other types, which would fail far from here; the folder as a path."""
    if not isinstance(recipe, Recipe):
        raise RecipeError(f"recipe (={recipe!r}) must be a Recipe, such as alexnet.train.recipes.get_recipe('small-photos').")
    if not isinstance(store, Store):
        raise RecipeError(f"store (={store!r}) must be a Store, such as alexnet.data.store.Store('store').")
    if not isinstance(folder, str | Path):
        raise RecipeError(f"folder (={folder!r}) must be a path.")
    if resume and overwrite:
        raise RecipeError("resume continues a run and overwrite deletes it: choose one of them.")
    return Path(folder)


def _alike(recipe: Recipe, store: Store) -> dict[str, str]:
    """What ranks must be given alike."""
    settings = {name: str(value) for name, value in asdict(recipe).items() if name not in FREE_FIELDS}
    return {"the store": store.fingerprint, **settings}


# --- what the system refuses --------------------------------------------------------------------


@contextmanager
def _in_words(folder: Path, batch_size: int, device: torch.device, space: int = 0) -> Iterator[None]:
    """What the system refuses (memory, disk, files) as an error of ours.

    Args:
        space: bytes that the run's checkpoints take at most, or 0 if this process writes none.
    """
    smaller = f"--batch-size {max(1, batch_size // 2)}"
    try:
        with room_for(f"batch_size (={batch_size})", device, smaller):
            yield
    except OutputError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and (cause.errno in FULL_DISK or not folder.exists()):
            raise TrainingError(_refused(folder, cause, space)) from error
        raise
    except AlexNetError:
        raise
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate memory" not in str(error):
            raise
        raise TrainingError(
            f"batch_size (={batch_size}) and the network do not fit into this machine's memory. "
            f"{_what_is_saved(folder)}: pass {smaller} or a smaller --width."
        ) from error
    except OSError as error:
        raise TrainingError(_refused(folder, error, space)) from error


def _refused(folder: Path, error: OSError, space: int) -> str:
    if error.errno in FULL_DISK:
        room = ""
        if space and error.errno == errno.ENOSPC:
            free = shutil.disk_usage(folder if folder.exists() else Path()).free
            room = f" The checkpoints of this run take up to {space / 1e6:,.0f} MB in all; {free / 1e6:,.0f} MB are free."
        then = "continue with --resume" if (folder / LATEST).exists() else "start again with --overwrite"
        return f"{folder}: {error.strerror}.{room} {_what_is_saved(folder)}: free some space and {then}."
    if not folder.exists():
        return (
            f"{folder} is gone: it was deleted or moved while a run was using it. Put it back and "
            "continue with --resume, or start a new run."
        )
    where = error.filename or folder
    return f"{where if isinstance(where, Path) else os.fsdecode(where)}: {error.strerror or error}. {_what_is_saved(folder)}."


def _what_is_saved(folder: Path) -> str:
    return f"The last good checkpoint is in {folder}" if (folder / LATEST).exists() else "No checkpoint was saved yet"


@contextmanager
def _stop_on_signal(stopping: list[int], several: bool) -> Iterator[None]:
    """Fill a list when the user asks to stop, so that a step is never cut in half.

    A second Ctrl-C stops at once.

    Args:
        several: torchrun sends SIGTERM to all ranks when one of them has ended, too.
    """

    def note(number: int, _: object) -> None:
        if stopping:
            raise KeyboardInterrupt
        stopping.append(number)
        if number == signal.SIGINT or not several:
            say("Stopping after this step ...")

    try:
        earlier = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread, where signals do not arrive
        earlier = {}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
