"""A run's folder, read back: what was asked for, where it ran, what happened. Each file
is checked as it is read.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from alexnet import schema
from alexnet.address import is_address
from alexnet.errors import CheckpointError
from alexnet.run_folder import CONFIG, REMEDY, STORE, Environment, Log, Seconds, read_environment, read_log
from alexnet.schema import Range
from alexnet.train.recipes import Recipe

#: Of `config.json`; a file without a number is of format 1.
FORMAT = 1


@dataclass(frozen=True)
class TrainedOn:
    """The store of a run: the folder that it was named by, and the fingerprint of
    the pictures trained on.
    """

    folder: str
    fingerprint: str


def store_of(run: Path, named: str) -> str:
    """A run's store: the folder or address that it names, or, if that folder no longer exists, the
    one inside the run's folder, as in a run of `alexnet fit` that was moved.
    """
    inside = run / STORE
    gone = not is_address(named) and not Path(named).exists()
    return str(inside) if gone and inside.exists() else named


@dataclass(frozen=True)
class TunedFrom:
    """The weights that a run was begun with.

    Attributes:
        file: that they were read from.
        layers: that were there.
        stored_size: of the pictures that they were trained on, in pixels.
    """

    file: str
    layers: tuple[str, ...]
    stored_size: Annotated[int, Range(2)]


@dataclass(frozen=True)
class Extension:
    """A run that was given more epochs: `epochs` were asked for until `at`, which is
    where it was then, in epochs.
    """

    epochs: Annotated[int, Range(1)]
    at: Seconds


@dataclass(frozen=True)
class Config:
    """What a run was asked to do.

    Attributes:
        compiled: whether the plain step is.
        extended: how many epochs were asked for before the recipe's, in order; empty for a run
            that has what it began with.
        tuned: of a run that began with weights, which.
        asked: of such a run, the recipe before what it left open was chosen.
        launch: name of the torchrun launch that began it: restarted processes continue the run of
            their own launch only.
    """

    recipe: Recipe
    store: TrainedOn
    compiled: bool
    extended: tuple[Extension, ...] = ()
    tuned: TunedFrom | None = None
    asked: Recipe | None = None
    launch: str | None = None
    format: Annotated[int, Range(1, FORMAT)] = FORMAT


@dataclass(frozen=True)
class History:
    """What a run's folder tells beside its weights.

    Attributes:
        log: the lines of the log as plain data.
        environment: versions, processor and the like, of the first start.
        extended: as of `Config`.
    """

    recipe: Recipe
    environment: Environment
    log: Log
    extended: tuple[Extension, ...] = ()


def read(folder: Path) -> History:
    """Read a run's configuration, environment and log.

    Raises:
        CheckpointError: one of them is missing or damaged.
    """
    config = read_config(folder)
    return History(config.recipe, read_environment(folder), read_log(folder), config.extended)


def read_config(run: Path) -> Config:
    """A run's configuration, from its folder or from the file itself.

    Raises:
        CheckpointError: it is missing, damaged, of a later version, or of
            something else than a run.
    """
    path = run / CONFIG if run.is_dir() else run
    content = schema.read_json(path, dict[str, Any], CheckpointError, REMEDY)
    version = content.get("format", FORMAT)
    if type(version) is int and version in range(FORMAT + 1, 1000):  # any other is damage
        raise CheckpointError(
            f"{path} is of format {version}, but this version of alexnet reads format {FORMAT}: use the version that wrote it."
        )
    return schema.parse(content, Config, str(path), CheckpointError, REMEDY)
