"""A run's folder, read back: what was asked for, where it ran, what happened. Each file is checked as it is read."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from alexnet import schema
from alexnet.console import say
from alexnet.errors import CheckpointError
from alexnet.schema import Range
from alexnet.train.place import Count, Environment, Seconds, Share
from alexnet.train.recipes import Recipe

CONFIG, ENVIRONMENT, LOG, RESULT = "config.json", "environment.json", "log.jsonl", "result.json"
REMEDY = "Restore it from a copy, or train again into a new folder."

Log = list[dict[str, Any]]


@dataclass(frozen=True)
class TrainedOn:
    """The store of a run: the folder that it was named by, and the fingerprint of the pictures trained on."""

    folder: str
    fingerprint: str


@dataclass(frozen=True)
class Extension:
    """A run that was given more epochs: `epochs` were asked for until `at`, which is where it was then, in epochs."""

    epochs: Annotated[int, Range(1)]
    at: Seconds


@dataclass(frozen=True)
class Config:
    """What a run was asked to do.

    Attributes:
        compiled: whether the plain step is.
        extended: how many epochs were asked for before the recipe's, in order; empty for a run that has what it began with.
    """

    recipe: Recipe
    store: TrainedOn
    compiled: bool
    extended: tuple[Extension, ...] = ()


@dataclass(frozen=True)
class History:
    """What a run's folder tells beside its weights.

    Attributes:
        log: the lines of the log as plain data.
        environment: versions, processor and the like, of the first start.
    """

    recipe: Recipe
    environment: Environment
    log: Log


def read(folder: Path) -> History:
    """Read a run's configuration, environment and log.

    Raises:
        CheckpointError: one of them is missing or damaged.
    """
    return History(read_config(folder).recipe, read_environment(folder), read_log(folder))


def read_config(run: Path) -> Config:
    """A run's configuration, from its folder or from the file itself.

    Raises:
        CheckpointError: it is missing, damaged, or of something else than a run.
    """
    return schema.read_json(run / CONFIG if run.is_dir() else run, Config, CheckpointError, REMEDY)


def read_environment(folder: Path) -> Environment:
    """Where a run's first start computed.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    return schema.read_json(folder / ENVIRONMENT, Environment, CheckpointError, REMEDY)


# --- the log ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Training:
    """A line about the steps since the one before."""

    kind: Literal["train"]
    step: Count
    loss: Annotated[float, Range(0)]
    top1_error: Share
    lr: Annotated[float, Range(0)]
    images_per_second: Annotated[float, Range(0)]


@dataclass(frozen=True)
class _Test:
    """A line about the test after an epoch; `kind` is the split's name."""

    kind: str
    step: Count
    epoch: Annotated[int, Range(1)]
    top1_error: Share
    top5_error: Share


@dataclass(frozen=True)
class _Other:
    """What every line has; the rest of it are numbers by name."""

    kind: Literal["signals", "warning"]
    step: Count


def read_log(folder: Path) -> Log:
    """A run's log, line by line. A run that was killed may have written half of a last line: it is left out, with a word.

    Returns:
        Objects with `kind` and `step`; numbers are finite, errors are shares in [0, 1].

    Raises:
        CheckpointError: the log is missing, or another line is damaged.
    """
    path = folder / LOG
    try:
        *lines, last = path.read_bytes().split(b"\n")
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}. {REMEDY}") from error
    if last:
        say(f"The last line of {path} is cut off, as in a run that was killed: it is left out.")
    return [_line(text, f"line {number} of {path}") for number, text in enumerate(lines, 1)]


def _line(text: bytes, what: str) -> dict[str, Any]:
    line = schema.parse_json(text, dict[str, str | int | float], what, CheckpointError, REMEDY)
    if line.get("kind") in ("signals", "warning"):
        schema.parse({name: line[name] for name in ("kind", "step") if name in line}, _Other, what, CheckpointError, REMEDY)
        numbers = {name: value for name, value in line.items() if name != "kind"}
        schema.parse(numbers, dict[str, float], what, CheckpointError, REMEDY)
    else:
        schema.parse(line, _Training if line.get("kind") == "train" else _Test, what, CheckpointError, REMEDY)
    return line
