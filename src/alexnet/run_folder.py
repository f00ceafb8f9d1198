"""A run's folder, and a family's of many: the names of their files, and what every part of
the program reads in them.

run/
├── config.json           recipe, store and its fingerprint, whether the plain step is compiled
├── environment.json      versions, processor, threads of the first start
├── log.jsonl             one line every 20 steps and after each epoch
├── tensorboard/          the same for TensorBoard, if it is installed
├── latest.safetensors    weights, velocity and place in the schedule: what --resume starts from
├── best.safetensors      weights with the lowest held-out error so far
├── epoch-0005.safetensors ...  weights after the epochs that --keep names
├── features/             of a run that began with weights: their results for training pictures
├── result.json           of a run that has ended: evaluation, hash of the weights, other proof
└── fit.json, store/      of a run that `alexnet fit` began: what it was asked for, its photos

family/
├── family.json           one row for each finished network
└── seed0/ ...            each a run
"""

import json
import platform
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import alexnet
from alexnet import schema
from alexnet.arguments import as_path, check_here
from alexnet.console import say
from alexnet.errors import CheckpointError, TrainingError
from alexnet.schema import Range

CONFIG, ENVIRONMENT, LOG, RESULT = "config.json", "environment.json", "log.jsonl", "result.json"
LATEST, BEST = "latest.safetensors", "best.safetensors"
KEPT, KEPT_FILES = "epoch-{epoch:04}.safetensors", "epoch-*.safetensors"
TENSORBOARD, REPORT, FEATURES = "tensorboard", "report.html", "features"
FIT, STORE = "fit.json", "store"
EVENTS = "events.out.tfevents.*"  # in TensorBoard's folder
FAMILY = "family.json"
CUT_OFF = "The last line of {path} is cut off, as in a run that was killed: it is left out."
REMEDY = "Restore it from a copy, or train again into a new folder."

Count = Annotated[int, Range(0)]
Share = Annotated[float, Range(0, 1)]
Seconds = Annotated[float, Range(0)]
Environment = dict[str, str | int | None]
Log = list[dict[str, Any]]


def is_run(folder: Path) -> bool:
    """Whether a folder holds a run, finished or not."""
    return (folder / CONFIG).exists()


def is_checkpoint(path: Path) -> bool:
    """Whether a file is one of those that a run keeps its network in, by its name and folder."""
    return is_run(path.parent) and (path.name in (LATEST, BEST) or path.match(KEPT_FILES))


def check_configured(folder: Path) -> None:
    """Refuse a folder in which a run has been, but has lost its configuration.

    Raises:
        TrainingError: it is such a folder.
    """
    left = [name for name in (LATEST, BEST, RESULT) if (folder / name).exists()]
    if left and not is_run(folder):
        raise TrainingError(
            f"{folder} has the {left[0]} of a run, but its {CONFIG}, which says what the run does, is missing: restore it "
            "from a copy, or choose another --out."
        )


def find(path: str | Path, which: str = LATEST) -> Path:
    """The checkpoint of a run's folder, or the file itself.

    Raises:
        CheckpointError: no checkpoint was found, or `path` is not a path.
    """
    path = as_path(path, "path")
    check_here(path, "runs and weights", CheckpointError)
    if path.is_dir():
        path = path / which
        if not path.exists() and (path.parent / FAMILY).exists():
            raise CheckpointError(f"{path.parent} is a family of networks: name one of them, such as {path.parent / 'seed0'}.")
        if not path.exists():
            raise CheckpointError(f"{path.parent} has no {which}: it is not a run, or training has not saved anything yet.")
    if not path.exists():
        raise CheckpointError(f"{path} does not exist: name a run's folder or a .safetensors file.")
    if not path.is_file():
        raise CheckpointError(f"{path} is a pipe, a socket or a device; save its contents to a file and pass that.")
    return path


# --- a family -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Member:
    """A finished network of a family; errors are shares in [0, 1]."""

    seed: Count
    top1_error: Share
    top5_error: Share
    seconds: Seconds
    weights_sha256: Annotated[str, Range(64, 64)]


@dataclass(frozen=True)
class Family:
    """What `family.json` holds; the deviation of one network alone is None."""

    members: Annotated[tuple[Member, ...], Range(1)]
    n: Annotated[int, Range(1)]
    mean_top1_error: Share
    deviation_top1_error: Share | None
    seconds_per_model: Seconds
    at_once: Annotated[int, Range(1)] = 1

    def __post_init__(self) -> None:
        if self.n != len(self.members):
            raise ValueError(f"n is {self.n} for {len(self.members)} members.")


def member(folder: Path, seed: int) -> Path:
    """The folder of a seed's run."""
    return folder / f"seed{seed}"


def members(folder: Path) -> list[Path]:
    """The runs of a family's folder that have ended, by seed; empty for any other folder."""
    if not (folder / FAMILY).exists():
        return []
    family = schema.read_json(
        folder / FAMILY, Family, TrainingError, "Run the same train command with --resume to write it again."
    )
    return [member(folder, row.seed) for row in family.members]


# --- where a run computed -------------------------------------------------------------------------

#: What an environment means that does not say: one lane, as once all runs had, and one process.
ALONE: Environment = {"lanes": 1, "ranks": 1, "parallel": "none"}


def environment() -> Environment:
    """Where a run computed, for its record."""
    import numpy as np  # here, as the command line reads folders without them
    import torch

    return {
        "alexnet": alexnet.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "triton": version("triton") if torch.cuda.is_available() and find_spec("triton") else None,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def read_environment(folder: Path) -> Environment:
    """Where a run's first start computed.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    return schema.read_json(folder / ENVIRONMENT, Environment, CheckpointError, REMEDY)


def changes(earlier: Environment, later: Environment) -> str:
    """In what two environments differ: "threads 2, now 4"; empty if in nothing."""
    one, other = ALONE | earlier, ALONE | later
    names = [name for name in earlier | later if one.get(name) != other.get(name)]
    return ", ".join(f"{name} {one.get(name)}, now {other.get(name)}" for name in names)


# --- the log --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _TrainLine:
    """A line about the steps since the one before."""

    kind: Literal["train"]
    step: Count
    loss: Annotated[float, Range(0)]
    top1_error: Share
    lr: Annotated[float, Range(0)]
    images_per_second: Annotated[float, Range(0)]


@dataclass(frozen=True)
class _TestLine:
    """A line about the test after an epoch; `kind` is the split's name."""

    kind: str
    step: Count
    epoch: Annotated[int, Range(1)]
    top1_error: Share
    top5_error: Share


@dataclass(frozen=True)
class _OtherLine:
    """What every line has; the rest of it are numbers by name."""

    kind: Literal["signals", "warning"]
    step: Count


def read_log(folder: Path) -> Log:
    """A run's log, line by line. A run that was killed may have written half of a last line: it
    is left out, with a word.

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
        say(CUT_OFF.format(path=path))
    return [_line(text, f"line {number} of {path}") for number, text in enumerate(lines, 1)]


def cut_off(lines: bytes) -> bool:
    """Whether the last line of a part of a log is not whole: it was being written as the run was
    killed, or is damaged.
    """
    try:
        json.loads(lines.strip().rpartition(b"\n")[2] or b"{}")
    except ValueError:
        return True
    return not lines.endswith(b"\n") and lines != b""


def _line(text: bytes, what: str) -> dict[str, Any]:
    line = schema.parse_json(text, dict[str, str | int | float], what, CheckpointError, REMEDY)
    if line.get("kind") in ("signals", "warning"):
        schema.parse({name: line[name] for name in ("kind", "step") if name in line}, _OtherLine, what, CheckpointError, REMEDY)
        numbers = {name: value for name, value in line.items() if name != "kind"}
        schema.parse(numbers, dict[str, float], what, CheckpointError, REMEDY)
    else:
        schema.parse(line, _TrainLine if line.get("kind") == "train" else _TestLine, what, CheckpointError, REMEDY)
    return line
