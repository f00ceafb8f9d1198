"""A run's folder: what was asked, where it ran, what happened, and the weights.

run/
├── config.json           the recipe, the store's fingerprint, whether the plain step is compiled
├── environment.json      versions, processor, threads
├── log.jsonl             one line every `LOG_STEPS` steps and after each epoch
├── tensorboard/          the same for TensorBoard
├── latest.safetensors    weights, velocity and place in the schedule: what --resume starts from
├── best.safetensors      weights with the lowest held-out error so far
├── epoch-0005.safetensors ...  weights after the epochs that --keep names
└── result.json           when the run has ended: evaluation, hash of the weights, and what else proves it (result.py)
"""

import json
import os
import platform
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter

import alexnet
from alexnet import lock
from alexnet.data.store import Store
from alexnet.errors import TrainingError
from alexnet.files import is_temporary, replacing
from alexnet.train.recipes import Recipe
from alexnet.weights.native import LATEST

CONFIG, ENVIRONMENT, LOG, TENSORBOARD = "config.json", "environment.json", "log.jsonl", "tensorboard"
#: Fields that may differ when a run is resumed, since they change no result.
FREE_FIELDS = ("feed", "workers", "checkpoint_minutes")


@dataclass
class Run:
    """An open run folder."""

    folder: Path
    resumed: bool
    compiled: bool

    def open_log(self, length: int, step: int) -> None:
        """Start logging at `step`; what an interrupted start logged after the checkpoint is cut off.

        Raises:
            TrainingError: another process is training in this folder; the open log is the lock.
        """
        self._log = open(self.folder / LOG, "a", encoding="utf-8")  # noqa: SIM115 - closed in `close`
        if not lock.acquire(self._log):
            self._log.close()
            raise TrainingError(f"another process is training in {self.folder}: wait for it, or name another folder.")
        self._log.truncate(min(length, self._log.tell()))
        self._log.seek(0, os.SEEK_END)
        self._board = SummaryWriter(str(self.folder / TENSORBOARD), purge_step=step)

    def log(self, kind: str, step: int, values: dict[str, float]) -> None:
        """One line and one point on each TensorBoard curve; `kind` is train or the split's name."""
        self._log.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
        self._log.flush()
        for name, value in values.items():
            self._board.add_scalar(f"{kind}/{name}", value, step)

    @property
    def log_length(self) -> int:
        return self._log.tell()

    def close(self) -> None:
        """Close both. Lines were flushed as they came: on a full disk, `log` has raised already what would be raised here."""
        for file in (self._log, self._board):
            with suppress(OSError):
                file.close()


def open_run(folder: Path, recipe: Recipe, store: Store, resume: bool, compiled: bool) -> Run:
    """Make a run's folder, or find one to go on with.

    Args:
        compiled: whether a new run shall compile the plain step; a resumed one does what it began with, to the bit.

    Raises:
        TrainingError: the folder is in the way, or is a run of another recipe or store.
    """
    config = {
        "recipe": json.loads(json.dumps(asdict(recipe))),
        "store": {"folder": str(store.folder.absolute()), "fingerprint": store.fingerprint},
        "compiled": compiled,
    }
    path = folder / CONFIG
    if resume and path.exists():
        try:
            earlier = json.loads(path.read_text())
        except ValueError as error:
            raise TrainingError(f"{path} is damaged ({error}): begin a new run.") from error
        _check_same(folder, earlier, config)
        return Run(folder, (folder / LATEST).exists(), earlier["compiled"])
    if resume and not folder.exists():
        raise TrainingError(f"{folder} does not exist: nothing to resume. Leave out --resume to begin.")
    # A start that was killed before it wrote its configuration has left nothing that counts.
    if folder.exists() and (not folder.is_dir() or any(not _begun(entry.name) for entry in folder.iterdir())):
        if not folder.is_dir():
            raise TrainingError(f"{folder} is a file, and a run needs a folder: name another.")
        if not path.exists():
            raise TrainingError(f"{folder} is not empty and no run: name another folder.")
        raise TrainingError(f"{folder} holds a run already: go on with --resume, or name another folder.")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / ENVIRONMENT, environment())
    write_json(path, config)
    return Run(folder, False, compiled)


def _begun(name: str) -> bool:
    """Whether a run's first moments write a file of this name."""
    return name == ENVIRONMENT or is_temporary(name)


def _check_same(folder: Path, earlier: dict[str, Any], config: dict[str, Any]) -> None:
    if earlier["store"]["fingerprint"] != config["store"]["fingerprint"]:
        raise TrainingError(
            f"{folder} was trained on another store ({earlier['store']['folder']}): resume with that one, or begin a new run."
        )
    old, new = earlier["recipe"], config["recipe"]
    changed = [name for name in new if new[name] != old.get(name) and name not in FREE_FIELDS]
    if changed:
        listed = ", ".join(f"{name} {old.get(name)}, now {new[name]}" for name in changed)
        flags = " ".join(f"--{name.replace('_', '-')} {old.get(name)}" for name in changed)
        raise TrainingError(
            f"{folder} was begun with other settings ({listed}): resume with the same ({flags}), or begin a new run."
        )


def environment() -> dict[str, Any]:
    """Where a run computed, for its record."""
    return {
        "alexnet": alexnet.__version__, "python": platform.python_version(), "torch": torch.__version__,
        "numpy": np.__version__, "platform": f"{platform.system()} {platform.machine()}", "processor": _processor(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(), "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "triton": version("triton") if torch.cuda.is_available() and find_spec("triton") else None,
    }  # fmt: skip


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def write_json(path: Path, content: Any) -> None:
    """Write a small file, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")
