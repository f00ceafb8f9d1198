"""A run's folder, read back: what was asked for, where it ran, what happened. Each file is checked as it is read."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from alexnet import schema
from alexnet.errors import CheckpointError
from alexnet.schema import Range
from alexnet.train.recipes import Recipe
from alexnet.train.run import CONFIG, ENVIRONMENT, LOG

Log = list[dict[str, Any]]
REMEDY = "Restore it from a copy, or train again into a new folder."


@dataclass(frozen=True)
class _Training:
    """What must be in a log's line about training."""

    kind: Literal["train"]
    step: Annotated[int, Range(0)]
    loss: float
    top1_error: Annotated[float, Range(0, 1)]
    lr: float


@dataclass(frozen=True)
class _Test:
    """What must be in a log's line about a test after an epoch."""

    kind: str
    step: Annotated[int, Range(1)]
    epoch: Annotated[int, Range(1)]
    top1_error: Annotated[float, Range(0, 1)]


@dataclass(frozen=True)
class History:
    """What a run's folder tells beside its weights.

    Attributes:
        log: the lines of the log as plain data.
        environment: versions, processor and the like.
    """

    recipe: Recipe
    environment: dict[str, Any]
    log: Log


def read(folder: Path) -> History:
    """Read a run's configuration, environment and log.

    Raises:
        CheckpointError: one of them is missing or damaged.
    """
    config = schema.read_json(folder / CONFIG, dict[str, Any], CheckpointError, REMEDY)
    recipe = schema.parse(config.get("recipe"), Recipe, f"the recipe in {folder / CONFIG}", CheckpointError, REMEDY)
    environment = schema.read_json(folder / ENVIRONMENT, dict[str, Any], CheckpointError, REMEDY)
    return History(recipe, environment, read_log(folder))


def read_log(folder: Path) -> Log:
    """A run's log, line by line. A run that was killed may have written half of a last line: it is left out.

    Raises:
        CheckpointError: the log is missing, or another line is damaged.
    """
    path = folder / LOG
    try:
        *lines, last = path.read_bytes().split(b"\n")
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}. {REMEDY}") from error
    del last  # empty, or without its end
    return [_line(text, f"line {number} of {path}") for number, text in enumerate(lines, 1)]


def _line(text: bytes, what: str) -> dict[str, Any]:
    line = schema.parse_json(text, dict[str, Any], what, CheckpointError, REMEDY)
    kind = _Training if line.get("kind") == "train" else _Test if "epoch" in line else None
    if kind:
        needed = {field.name: line[field.name] for field in fields(kind) if field.name in line}
        schema.parse(needed, kind, what, CheckpointError, REMEDY)
    elif not isinstance(line.get("kind"), str):
        raise CheckpointError(f"{what} is damaged: it says no kind. {REMEDY}")
    return line
