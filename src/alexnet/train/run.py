"""A run's folder: its settings, environment, log and weights.

`run_folder.py` lists its files; `history.py` reads them back.
"""

import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from filelock import FileLock

from alexnet.address import as_typed, was_address
from alexnet.console import say
from alexnet.data.resample import origin
from alexnet.data.store import Store
from alexnet.devices import meant
from alexnet.errors import TrainingError
from alexnet.files import LOCK, is_temporary, lock, make_folder, unlock, write_json
from alexnet.run_folder import (
    BEST,
    CUT_OFF,
    EVENTS,
    FEATURES,
    FIT,
    LATEST,
    STORE,
    TENSORBOARD,
    check_configured,
    cut_off,
    environment,
    is_run,
)
from alexnet.run_folder import CONFIG as CONFIG
from alexnet.run_folder import ENVIRONMENT as ENVIRONMENT
from alexnet.run_folder import LOG as LOG
from alexnet.run_folder import RESULT as RESULT
from alexnet.train.history import Config, Extension, TrainedOn, TunedFrom, read_config
from alexnet.train.parallel.launch import Launch
from alexnet.train.recipes import Recipe, differences, flag

if TYPE_CHECKING:
    from alexnet.train.board import Board

#: Fields that may differ when a run is resumed, since they change no result.
FREE_FIELDS = ("feed", "workers", "checkpoint_minutes")
#: Of a single run the device, too: what goes on elsewhere says so (`announce.note_step`).
SINGLE_FREE_FIELDS = (*FREE_FIELDS, "device")
#: Names of what a run writes beside its configuration and TensorBoard's folder, and of
#: such files half written.
_OWN = "|".join(map(re.escape, (ENVIRONMENT, LOG, RESULT, LATEST, BEST, LOCK))) + r"|epoch-\d{4,}\.safetensors"
OWN = re.compile(rf"{_OWN}|\.({_OWN}|{re.escape(CONFIG)})\.([0-9a-f]+\.)?tmp")

# --- writing --------------------------------------------------------------------------------------


@dataclass
class Run:
    """An open run folder, locked for this process.

    Attributes:
        resumed: whether it goes on from a checkpoint.
    """

    folder: Path
    resumed: bool
    config: Config
    _log: IO[str]
    _lock: FileLock
    _board: "Board | None" = None

    def start_log(self, length: int, step: int) -> None:
        """Start logging at `step`; what an interrupted start logged after
        the checkpoint is cut off.
        """
        if cut_off((self.folder / LOG).read_bytes()[length:]):
            say(f"{CUT_OFF.format(path=self.folder / LOG)} The run continues from its checkpoint.")
        self._log.seek(0, os.SEEK_END)
        self._log.truncate(min(length, self._log.tell()))
        self._log.seek(0, os.SEEK_END)
        self._board = _board(self.folder / TENSORBOARD, step)

    def log(self, kind: str, step: int, values: dict[str, float]) -> None:
        """One line and one point on each TensorBoard curve; `kind` is train or the split's name."""
        self._log.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
        self._log.flush()
        if not self._board:
            return
        for name, value in values.items():
            self._board.add(f"{kind}/{name}", value, step)

    @property
    def log_length(self) -> int:
        """Bytes of the log so far."""
        return self._log.tell()

    def extend(self, recipe: Recipe, at: float) -> None:
        """Record that the run goes on with this recipe, of more epochs. Its
        result is no longer one.
        """
        (self.folder / RESULT).unlink(missing_ok=True)  # first: a run killed in between has ended with its old epochs
        earlier = Extension(self.config.recipe.epochs, at)
        self.config = replace(self.config, recipe=recipe, extended=(*self.config.extended, earlier))
        write_json(self.folder / CONFIG, _plain(self.config))

    def settle(self, recipe: Recipe) -> None:
        """Record the recipe with everything that was chosen for this run."""
        asked = None if recipe == self.config.recipe else self.config.asked or self.config.recipe
        self.config = replace(self.config, recipe=recipe, asked=asked)
        write_json(self.folder / CONFIG, _plain(self.config))

    def close(self) -> None:
        """Let the folder go. Lines were flushed as they came: what a full disk would raise here,
        `log` has raised already.
        """
        with suppress(OSError):
            self._log.close()
        if self._board:
            with suppress(OSError):
                self._board.close()
        unlock(self._lock)


class SilentRun(Run):
    """A run on the ranks that do not have its folder: it writes nothing."""

    def __init__(self, folder: Path, resumed: bool, config: Config) -> None:
        self.folder, self.resumed, self.config = folder, resumed, config

    def start_log(self, length: int, step: int) -> None:
        """Nothing."""

    def log(self, kind: str, step: int, values: dict[str, float]) -> None:
        """Nothing."""

    @property
    def log_length(self) -> int:
        """There is no log."""
        return 0

    def extend(self, recipe: Recipe, at: float) -> None:
        """Nothing."""

    def settle(self, recipe: Recipe) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def _board(folder: Path, step: int) -> "Board | None":
    """None where TensorBoard is not installed."""
    try:
        from alexnet.train.board import Board
    except ImportError:
        _without_board()
        return None
    return Board(folder, step)


@cache
def _without_board() -> None:
    """Once, however many runs a process trains."""
    say(f"No curves for TensorBoard, which is not installed (pip install 'alexnet[tensorboard]'); {LOG} has the same numbers.")


def open_run(
    folder: Path,
    recipe: Recipe,
    store: Store,
    resume: bool,
    compiled: bool,
    overwrite: bool = False,
    tuned: TunedFrom | None = None,
    launch: Launch | None = None,
) -> Run:
    """Make a run's folder, or find one to go on with, and lock it.

    Args:
        compiled: whether a new run shall compile the plain step; a resumed one does what
            it began with, to the bit.
        overwrite: delete the run that the folder holds, and nothing else that is in it.
        tuned: the weights that a new run begins with.
        launch: of the processes, if torchrun started them.

    Raises:
        TrainingError: the folder is in the way, is a run of another recipe or store, or
            another process trains in it.
    """
    check_folder(folder, recipe, resume, overwrite)
    if resume and is_run(folder):
        config = check_same(folder, recipe, store, single=True)
        held = _locked(folder)
        return Run(folder, (folder / LATEST).exists(), config, _log(folder, "a"), held)
    if is_run(folder):
        _say_what_goes(folder, overwrite)
    make_folder(folder, TrainingError)
    held = _locked(folder)
    try:
        _clear(folder)
        trained_on = TrainedOn(origin(store), store.fingerprint)
        config = Config(recipe, trained_on, compiled, tuned=tuned, launch=launch.name if launch else None)
        write_json(folder / ENVIRONMENT, environment())
        write_json(folder / CONFIG, _plain(config))
    except BaseException:
        unlock(held)
        raise
    return Run(folder, False, config, _log(folder, "w"), held)


def begun_by(folder: Path, launch: Launch | None) -> bool:
    """Whether the folder holds a run that this launch began before torchrun restarted its
    processes: then they continue it, although the repeated command has no --resume.
    """
    return launch is not None and launch.restart and is_run(folder) and read_config(folder).launch == launch.name


def check_folder(folder: Path, recipe: Recipe, resume: bool, overwrite: bool) -> None:
    """Refuse a folder that `open_run` would refuse, before any work is done for the run.

    Whether a run that is resumed is of this store is seen only once the store is resampled.

    Raises:
        TrainingError: as `open_run`.
    """
    check_is_path(folder)
    if not resume:
        _check_free(folder, overwrite)
    elif is_run(folder):
        _check_whole(folder)
        check_settings(folder, recipe, single=True)
    elif not folder.exists():
        raise TrainingError(f"{folder} does not exist, so there is nothing to resume: drop --resume to start.")
    else:
        _check_free(folder, overwrite)


def check_is_path(folder: Path) -> None:
    """Refuse an address as the folder of a run.

    Raises:
        TrainingError: it is one.
    """
    if was_address(folder):
        raise TrainingError(f"{as_typed(folder)} is an address, but a run is written to a folder: name a folder with --out.")


def _check_whole(folder: Path) -> None:
    """Refuse to continue a run that has ended and lost its network: it would begin anew."""
    if (folder / RESULT).exists() and not (folder / LATEST).exists():
        raise TrainingError(
            f"{folder} has ended, but its {LATEST}, which holds the network, is missing: restore it from a copy, or train "
            "it again with --overwrite in place of --resume."
        )


def _check_free(folder: Path, overwrite: bool) -> None:
    """Refuse a folder that a new run would spoil."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise TrainingError(f"{folder} is a file, but a run needs a folder: choose another --out.")
    check_configured(folder)
    if not is_run(folder):
        if any(not _begun(entry) for entry in folder.iterdir()):
            raise TrainingError(f"{folder} is not empty and is not a run: choose another folder.")
        return
    read_config(folder)  # other programs have a file of this name too
    if not overwrite and (folder / BEST).exists() and not any((folder / name).exists() for name in (LATEST, RESULT)):
        raise TrainingError(
            f"{folder} holds a run without a checkpoint to continue from, only its {BEST}: start again with --overwrite, or "
            "choose another folder."
        )
    if not overwrite and any((folder / name).exists() for name in (LATEST, BEST, RESULT)):
        raise TrainingError(
            f"{folder} already holds a run: continue it with --resume, replace it with --overwrite, or choose another folder."
        )


def _say_what_goes(folder: Path, overwrite: bool) -> None:
    """Say that a run is deleted, and what of the folder is kept."""
    if not overwrite:
        say(f"{folder} holds a run that stopped before its first checkpoint: starting it again.")
        return
    own = set(own_files(folder))
    others = [entry.name for entry in folder.iterdir() if entry not in own]
    say(f"Deleting the run in {folder}.{f' Left as they are: {_listed(others)}.' if others else ''}")


def _begun(entry: Path) -> bool:
    """Whether a start that was killed before it wrote its configuration may have left this, or
    `alexnet fit`, which trains beside its store; it is nothing that counts.
    """
    if entry.name in (FIT, STORE):
        return (entry.parent / FIT).exists()
    return entry.name in (ENVIRONMENT, LOCK) or is_temporary(entry.name) or (entry.name == LOG and entry.stat().st_size == 0)


def _listed(names: list[str]) -> str:
    return f"{', '.join(sorted(names)[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}"


def own_files(folder: Path) -> Iterator[Path]:
    """What a run wrote into its folder, its configuration last: what is left when a deletion is cut
    short is still a run's.
    """
    yield from (entry for entry in folder.iterdir() if OWN.fullmatch(entry.name))
    board = folder / TENSORBOARD
    if board.is_dir() and not board.is_symlink():
        yield from board.glob(EVENTS)
        yield board
    features = folder / FEATURES
    if features.is_dir() and not features.is_symlink():
        for kept in features.iterdir():
            yield from kept.glob("*.safetensors")
            yield kept
        yield features
    yield from folder.glob(CONFIG)


def _clear(folder: Path) -> None:
    """Delete what an earlier run left, but for the lock that is held."""
    for path in list(own_files(folder)):
        if path.is_dir():
            with suppress(OSError):  # there is something in it that is not the run's
                path.rmdir()
        elif path.name != LOCK:
            path.unlink(missing_ok=True)


def _locked(folder: Path) -> FileLock:
    held = lock(folder)
    if held is None:
        raise TrainingError(f"another process is training in {folder}: wait for it to finish, or choose another folder.")
    return held


def _log(folder: Path, mode: str) -> IO[str]:
    return open(folder / LOG, mode, encoding="utf-8")  # closed in `Run.close`


def check_same(folder: Path, recipe: Recipe, store: Store, single: bool = False) -> Config:
    """A run's configuration, if it is of this recipe and store.

    Args:
        single: whether the run is by itself: then it may go on for more epochs than it was begun
            with, and on another device. Runs that are compared may not.

    Raises:
        TrainingError: it is not.
    """
    config = read_config(folder)
    if config.store.fingerprint != store.fingerprint:
        raise TrainingError(
            f"{folder} was trained on another store ({config.store.folder}): resume with that one, or choose another --out."
        )
    check_settings(folder, recipe, single)
    return config


def as_settled(folder: Path, recipe: Recipe) -> Recipe:
    """A run's own recipe, with all that was chosen for it, if this is what was asked for."""
    config = read_config(folder) if is_run(folder) else None
    if config is None or config.asked is None or differences(config.asked, recipe).keys() - {*SINGLE_FREE_FIELDS}:
        return recipe
    return replace(config.recipe, **{name: getattr(recipe, name) for name in SINGLE_FREE_FIELDS})


def check_settings(folder: Path, recipe: Recipe, single: bool = False) -> None:
    """As `check_same`, without a look at the store."""
    config = read_config(folder)
    here = meant(config.recipe.device) == meant(recipe.device)  # auto and cpu are one device without a GPU
    free = SINGLE_FREE_FIELDS if single or here else FREE_FIELDS
    if config.asked and not differences(config.asked, recipe).keys() - set(free):
        return
    changed = {name: pair for name, pair in differences(config.recipe, recipe).items() if name not in free}
    more = recipe.epochs > config.recipe.epochs
    if single and more:
        changed.pop("epochs")
    if changed:
        listed = ", ".join(f"{name} {old}, now {new}" for name, (old, new) in changed.items())
        flags = " ".join(flag(name, old) for name, (old, _) in changed.items())
        only = " Only a single run can be given more epochs." if more and not single else ""
        raise TrainingError(
            f"{folder} was begun with other settings ({listed}): resume with the same ({flags}), or choose another --out.{only}"
        )


def _plain(config: Config) -> dict[str, Any]:
    """For JSON; what does not concern a run, such as more epochs, is left out."""
    content = asdict(config)
    return {name: value for name, value in content.items() if value or name not in ("extended", "tuned", "asked", "launch")}
