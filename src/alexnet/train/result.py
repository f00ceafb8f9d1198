"""A finished run's result, with the hashes that prove it: `result.json` in the run's folder.

It holds the evaluation, a hash of the weights, the store's fingerprint, hashes of the configuration
and the log, and where it was computed. `alexnet verify RUN` reads all of it again, evaluates again,
and names whatever differs.

On a CPU, in the environment that is recorded, the evaluation is repeated to the picture. In
another one (other processor, PyTorch, thread count) or on a GPU float32 sums are taken in another
order, and a picture whose two best classes are nearly equal may change sides: there one picture
in a thousand may differ.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, Literal

import torch

from alexnet import engines, schema
from alexnet.data.resample import origin, resampled
from alexnet.data.store import Hash, Store, sha256
from alexnet.errors import CheckpointError
from alexnet.evaluate import Evaluation, evaluate_classifier
from alexnet.files import write_json
from alexnet.run_folder import (
    BEST,
    CONFIG,
    ENVIRONMENT,
    KEPT_FILES,
    LATEST,
    LOG,
    RESULT,
    Count,
    Environment,
    Seconds,
    Share,
    environment,
)
from alexnet.schema import Range
from alexnet.train.history import TrainedOn, store_of
from alexnet.trained import Trained
from alexnet.weights import native
from alexnet.weights.native import weights_hash as weights_hash

SEALED = (CONFIG, ENVIRONMENT, LOG)
ELSEWHERE = 1000  # one picture in so many may change sides in another environment


@dataclass(frozen=True)
class Weights:
    """Which parameters a result is of."""

    file: str
    sha256: Hash


@dataclass(frozen=True)
class Evaluated:
    """The evaluation on a split, with so many views."""

    split: str
    images: Annotated[int, Range(1)]
    views: Literal[1, 10]
    top1_wrong: Count
    top5_wrong: Count
    top1_error: Share
    top5_error: Share

    def __post_init__(self) -> None:
        if max(self.top1_wrong, self.top5_wrong) > self.images:
            raise ValueError(f"{max(self.top1_wrong, self.top5_wrong)} of {self.images} pictures are wrong.")


@dataclass(frozen=True)
class Result:
    """What `result.json` holds.

    Attributes:
        files: SHA-256 of each file that proves the run.
        environment: where it was evaluated.
        trained_by: kinds of step, in order.
        environments: where it was trained, in order; earlier versions do not say.
        drawn_by: as `Place`'s.
    """

    weights: Weights
    store: TrainedOn
    files: dict[str, Hash]
    environment: Environment
    device: str
    epochs: Annotated[int, Range(1)]
    seconds: Seconds
    evaluation: Evaluated
    trained_by: tuple[str, ...] = ()
    environments: tuple[Environment, ...] = ()
    drawn_by: tuple[Literal["step", "picture"], ...] = ()


def write_result(folder: Path, trained: Trained, store: Store, evaluation: Evaluation | None = None) -> None:
    """Write a finished run's `result.json`.

    Args:
        folder: the run's folder, with its log complete.
        trained: the network, and in its state the epochs and seconds that it took.
        evaluation: on the held-out pictures with one view; made here if not given.
    """
    evaluation = evaluation or _evaluate(trained, store)
    content = {
        "weights": {"file": LATEST, "sha256": weights_hash(trained.model.state_dict())},
        "store": {"folder": origin(store), "fingerprint": store.fingerprint},
        "files": {name: sha256((folder / name).read_bytes()) for name in (*SEALED, *_other_weights(folder))},
        "environment": environment(),
        "device": _device(trained),
        "epochs": trained.state["epoch"],
        "seconds": trained.state["seconds"],
        "trained_by": trained.state["trained_by"],
        "environments": trained.state["environments"],
        "drawn_by": trained.state["drawn_by"],
        "evaluation": _summary(evaluation, store.held_out.name),
    }
    write_json(folder / RESULT, content)


def _other_weights(folder: Path) -> list[str]:
    """Checkpoints beside the latest one, whose parameters have a hash of their own."""
    return sorted(path.name for path in (folder / BEST, *folder.glob(KEPT_FILES)) if path.exists())


def read_result(folder: Path) -> dict[str, Any]:
    """A run's `result.json`.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    path = folder / RESULT
    if not path.exists():
        raise CheckpointError(
            f"{folder} has no {RESULT}: the run is not finished. To continue it, run the same command with --resume."
        )
    remedy = "Without it, the run's result cannot be verified: restore the file from a backup, or train again."
    schema.read_json(path, Result, CheckpointError, remedy)
    content: dict[str, Any] = json.loads(path.read_bytes())
    return content


def verify_run(folder: Path, data: str | PathLike[str] | None = None) -> list[str]:
    """Compare a finished run with its record, evaluating it again.

    Args:
        folder: the run's folder.
        data: the store; where it was in training, or in the run's folder, if not given.

    Returns:
        What differs, in words; empty if nothing does.

    Raises:
        CheckpointError: the run has not ended, or its files cannot be read.
        StoreError: the store cannot be read.
    """
    recorded = read_result(folder)
    problems = [f"{name} is missing or has changed since the run ended" for name in _changed(folder, recorded["files"])]
    on_gpu = recorded["device"] == "cuda" and torch.cuda.is_available()
    trained = native.load(folder, "cuda" if on_gpu else "cpu")
    actual = weights_hash(trained.model.state_dict())
    if actual != recorded["weights"]["sha256"]:
        problems.append(f"{LATEST} holds other weights: SHA-256 {actual}, recorded {recorded['weights']['sha256']}")
    store = resampled(Store(data or store_of(folder, recorded["store"]["folder"])), trained.preprocessing.stored_size)
    if store.fingerprint != recorded["store"]["fingerprint"]:
        wanted = recorded["store"]
        return [
            *problems,
            f"{store.address} is another data set (fingerprint {store.fingerprint}) than the run was trained on "
            f"({wanted['fingerprint']}, {wanted['folder']}): name that one with --data",
        ]
    return problems + _compare(recorded, _summary(_evaluate(trained, store), store.held_out.name), _device(trained))


def _changed(folder: Path, files: Mapping[str, str]) -> list[str]:
    names = [*SEALED, *(name for name in files if name not in SEALED)]
    return [name for name in names if not (folder / name).exists() or sha256((folder / name).read_bytes()) != files.get(name)]


def _compare(recorded: dict[str, Any], actual: dict[str, Any], device: str) -> list[str]:
    """What differs between two evaluations, beyond what another environment may do."""
    wanted = recorded["evaluation"]
    same_place = device == recorded["device"] == "cpu" and recorded["environment"] == environment()
    allowed = 0 if same_place else max(1, actual["images"] // ELSEWHERE)
    differing = [
        f"evaluation: {name} is {actual[name]}, recorded {wanted[name]}"
        for name in ("split", "images", "views")
        if actual[name] != wanted[name]
    ]
    for name in ("top1_wrong", "top5_wrong"):
        if abs(actual[name] - wanted[name]) > allowed:
            differing.append(
                f"evaluation: {name} is {actual[name]} of {actual['images']} pictures, recorded {wanted[name]} "
                f"({allowed} may differ {'in the same' if same_place else 'in another'} environment)"
            )
    contradictions = [
        f"evaluation: {kind}_error is recorded as {wanted[f'{kind}_error']}, which is not {wanted[f'{kind}_wrong']} pictures"
        for kind in ("top1", "top5")
        if abs(wanted[f"{kind}_error"] - wanted[f"{kind}_wrong"] / max(1, wanted["images"])) > 1e-9
    ]
    return differing + contradictions


def _evaluate(trained: Trained, store: Store) -> Evaluation:
    return evaluate_classifier(engines.of(trained), store)


def _summary(evaluation: Evaluation, split: str) -> dict[str, Any]:
    return {
        "split": split,
        "images": evaluation.images,
        "views": evaluation.views,
        "top1_wrong": evaluation.images - int(evaluation.confusion.trace()),
        "top5_wrong": evaluation.images - int(evaluation.in_top5.sum()),
        "top1_error": evaluation.top1_error,
        "top5_error": evaluation.top5_error,
    }


def _device(trained: Trained) -> str:
    return next(trained.model.parameters()).device.type
