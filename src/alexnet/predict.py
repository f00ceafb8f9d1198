"""What is in these pictures? Load once, predict many, keep nothing.

Files are decoded by threads a few batches ahead of the network, exactly as `prepare` does, so a prediction equals the one that
`evaluate` makes from a store. Memory does not grow with the number of files.
"""

import glob
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from alexnet.data.augment import Views
from alexnet.data.image import Unreadable, encode
from alexnet.data.sources import IMAGE_ENDINGS
from alexnet.evaluate import probabilities
from alexnet.weights.native import Trained

BATCH_SIZE = 32


@dataclass(frozen=True)
class Prediction:
    """One file's result.

    Attributes:
        path: as given.
        top: (class name, probability) from the most likely on; empty if the file could not be read.
        error: why not, or None.
        record: (bytes,) uint8, what the network saw before cropping; None if unreadable.
        true: the class whose folder the file lies in, if the network knows such a class.
    """

    path: str
    top: tuple[tuple[str, float], ...] = ()
    error: str | None = None
    record: NDArray[np.uint8] | None = None
    true: str | None = None

    def as_json(self, top: int) -> dict[str, Any]:
        """Plain data, with the `top` most likely classes."""
        if self.error:
            return {"file": self.path, "error": self.error}
        return {"file": self.path, "top": [{"class": name, "probability": share} for name, share in self.top[:top]]}


def expand(arguments: Iterable[str]) -> Iterator[str]:
    """Files from files, folders (all pictures in them), globs, and `-` for a list on standard input."""
    for argument in arguments:
        if argument == "-":
            yield from (line.rstrip("\n") for line in sys.stdin if line.strip())
        elif os.path.isdir(argument):
            yield from _pictures(argument)
        elif not os.path.exists(argument) and glob.has_magic(argument):
            found = glob.iglob(argument, recursive=True)
            if "**" in argument:  # names what lies in the folders it finds too
                found = (path for path in found if not os.path.isdir(path))
            first = next(found, None)
            yield from [argument] if first is None else expand(chain([first], found))
        else:
            yield argument


def _pictures(folder: str) -> Iterator[str]:
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.lower().endswith(IMAGE_ENDINGS) and not name.startswith("."):
                yield os.path.join(parent, name)


def predict(trained: Trained, files: Iterable[str], *, top: int = 5, views: Views = 1) -> Iterator[Prediction]:
    """Predict each file, in order; one that cannot be read gives a `Prediction` with `error`, and the rest go on.

    Args:
        trained: network, classes and preprocessing.
        files: paths; taken one by one, so an endless iterator will do.
        top: how many classes to name.
        views: 1 (centre) or 10.
    """
    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        iterator = iter(files)
        waiting: deque[list[Future[Prediction]]] = deque()
        while True:
            batch = [pool.submit(_read, trained, path) for path in islice(iterator, BATCH_SIZE)]
            if batch:
                waiting.append(batch)
            if not waiting:
                return
            if len(waiting) > 2 or not batch:
                yield from classify_records(trained, [future.result() for future in waiting.popleft()], top, views)


def _read(trained: Trained, path: str) -> Prediction:
    preprocessing = trained.preprocessing
    try:
        record = encode(Path(path).read_bytes(), preprocessing.stored_size, preprocessing.resize)
    except Unreadable as reason:
        return Prediction(path, error=str(reason))
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        return Prediction(path, error=getattr(error, "strerror", None) or str(error))
    folder = Path(path).absolute().parent.name
    return Prediction(path, record=record, true=folder if folder in trained.classes else None)


def classify_records(trained: Trained, batch: list[Prediction], top: int = 5, views: Views = 1) -> list[Prediction]:
    """Fill in the classes of predictions that have a record; one batch of the network."""
    readable = [prediction.record for prediction in batch if prediction.record is not None]
    if not readable:
        return batch
    device = next(trained.model.parameters()).device
    records = torch.from_numpy(np.stack(readable)).to(device)
    found = probabilities(trained.model, trained.preprocessing, records, views).topk(min(top, len(trained.classes)))
    results = iter(zip(found.indices.tolist(), found.values.tolist(), strict=True))
    return [prediction if prediction.error else _named(prediction, *next(results), trained.classes) for prediction in batch]


def _named(prediction: Prediction, labels: list[int], shares: list[float], classes: tuple[str, ...]) -> Prediction:
    top = tuple((classes[label], share) for label, share in zip(labels, shares, strict=True))
    return Prediction(prediction.path, top, None, prediction.record, prediction.true)
