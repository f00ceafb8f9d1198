"""Classify many pictures with one network.

Files are decoded by threads a few batches ahead of the network, exactly as `prepare` does,
so a prediction equals the one that `evaluate` makes from a store. Memory does not grow
with the number of files.
"""

import codecs
import glob
import os
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from fnmatch import fnmatch
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from alexnet.arguments import check_count, check_views
from alexnet.console import say
from alexnet.data.image import MAX_PIXELS, Unreadable, encode
from alexnet.data.preprocessing import Views
from alexnet.data.sources import IMAGE_ENDINGS, LeftOut, class_name, read_picture, walk
from alexnet.data.sources.read import HEAD_BYTES, starts_like_a_picture
from alexnet.devices import cores
from alexnet.engines import Classifier
from alexnet.errors import SourceError
from alexnet.evaluate import probabilities
from alexnet.files import open_regular
from alexnet.phrases import counted

BATCH_SIZE = 32
#: Share of the processor that the network should have.
ENOUGH = 0.85
RECURSIVE = "**"  # of a pattern


@dataclass(frozen=True)
class Prediction:
    """One file's result.

    Attributes:
        path: as given.
        top: (class name, probability) from the most likely on; empty if the file could not be read.
        error: why not, or None.
        record: (bytes,) uint8, what the network saw before cropping; None if unreadable.
        true: the class whose folder the file is in, if the network has one class of that name.
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


@dataclass
class Pace:
    """Measures where `predict` spends its time.

    Attributes:
        images: pictures answered.
        decoding: seconds of processor time that decoding took, all threads together.
        waited: seconds in which the network stood still for lack of pictures.
    """

    images: int = 0
    decoding: float = 0.0
    waited: float = 0.0
    started: float = field(default_factory=time.monotonic)
    processor: float = field(default_factory=time.process_time)

    def line(self) -> str:
        """The rate, and which side limits it."""
        seconds, used = time.monotonic() - self.started, time.process_time() - self.processor
        share = 1 - self.decoding / max(used, 1e-9)
        limit = "decoding" if self.waited > (1 - ENOUGH) * seconds or share < ENOUGH else "the network"
        return (
            f"{counted(self.images, 'picture')} in {seconds:.1f} s, {self.images / seconds:,.0f} per "
            f"second. The limit is {limit}: the network used {share:.0%} of the processor time and "
            f"waited {self.waited:.1f} s for pictures."
        )


def expand(arguments: Iterable[str | bytes | os.PathLike[str]]) -> Iterator[str]:
    """Files from files, folders, globs, and `-` for a list on standard input.

    Of a folder, and of a pattern with `**`, what holds a picture is taken: recognised by content,
    or by the ending of its name, so that a damaged one is reported. The rest is counted in a line
    on standard error. A file that is named, also by a plain pattern or a list, is always taken.

    Raises:
        SourceError: the arguments are not a list of paths, or standard input cannot be read.
    """
    return chain.from_iterable(_expanded(path) for path in _paths(arguments, "expand"))


def _paths(arguments: Any, function: str) -> Iterator[str]:
    """The arguments one by one, as text; whatever else a program may hand over is refused."""
    if isinstance(arguments, (str, bytes, os.PathLike)) or not isinstance(arguments, Iterable):
        raise SourceError(f"{function} takes a list of paths, such as ['cat.jpg'], not {arguments!r}.")
    return (_path(argument, function) for argument in arguments)


def _path(argument: Any, function: str) -> str:
    if isinstance(argument, (str, bytes, os.PathLike)):
        return os.fsdecode(argument)
    raise SourceError(f"{function} takes paths, which are text or pathlib's, not {argument!r}.")


def _expanded(argument: str) -> Iterator[str]:
    if argument == "-":
        yield from _listed()
    elif os.path.isdir(argument):
        yield from _pictures(argument)
    elif os.path.exists(argument) or not glob.has_magic(argument):
        yield argument
    else:
        files = _matching(argument)
        first = next(files, None)
        yield from [argument] if first is None else chain([first], files)


def _matching(pattern: str) -> Iterator[str]:
    """The files that a pattern names, and the pictures in the folders that it names. `**`
    is any number of folders.

    Python's own `**` would follow links in circles.
    """
    parts = Path(pattern).parts
    if RECURSIVE not in parts:
        for path in sorted(glob.iglob(pattern)):
            yield from _pictures(path) if os.path.isdir(path) else [path]
        return
    above, below = parts[: parts.index(RECURSIVE)], parts[parts.index(RECURSIVE) :]
    for folder in sorted(glob.iglob(os.path.join(*above))) if above else [os.curdir]:
        yield from (path.removeprefix(os.path.join(os.curdir, "")) for path in _pictures(folder, below))


def _matches(names: tuple[str, ...], patterns: tuple[str, ...]) -> bool:
    if not patterns:
        return not names
    if patterns[0] == RECURSIVE:
        return any(_matches(names[skipped:], patterns[1:]) for skipped in range(len(names) + 1))
    return bool(names) and fnmatch(names[0], patterns[0]) and _matches(names[1:], patterns[1:])


def _listed() -> Iterator[str]:
    """The names on standard input, one a line, as the bytes that they are. A file that Windows
    wrote is read as well.
    """
    if sys.stdin is None:
        raise SourceError("standard input is closed, but `-` reads a list of files from it, one per line.")
    binary = getattr(sys.stdin, "buffer", None)  # a stream of text in its place has none
    lines = (os.fsencode(line) for line in sys.stdin) if binary is None else binary
    try:
        for number, line in enumerate(lines):
            if number == 0 and line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                raise SourceError("the list on standard input is UTF-16: save it as UTF-8.")
            name = line.removeprefix(codecs.BOM_UTF8 if number == 0 else b"").rstrip(b"\r\n")
            if name.strip():
                yield os.fsdecode(name)
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"the list on standard input cannot be read: {error}.") from error


def _pictures(folder: str, pattern: tuple[str, ...] = (RECURSIVE,)) -> Iterator[str]:
    """The pictures below a folder whose place in it matches; then says what was left out."""
    left_out = LeftOut()
    for path in walk(folder, left_out):
        if not _matches(Path(path).relative_to(folder).parts, pattern):
            continue
        if path.lower().endswith(IMAGE_ENDINGS) or _begins_like_a_picture(path):
            yield path
        else:
            left_out.add("file{s} without a picture in a known format", path)
    for line in left_out.lines():
        say(line)


def _begins_like_a_picture(path: str) -> bool:
    try:
        with open_regular(path) as file:
            return starts_like_a_picture(file.read(HEAD_BYTES))
    except OSError:
        return True  # reading it reports why that fails


def predict(
    classifier: Classifier,
    files: Iterable[str | bytes | os.PathLike[str]],
    *,
    top: int = 5,
    views: Views = 1,
    pace: Pace | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[Prediction]:
    """Predict each file, in order; one that cannot be read gives a `Prediction` with
    `error`, and the rest go on.

    Args:
        classifier: network, classes and preprocessing.
        files: paths; taken one by one, so an endless iterator will do.
        top: how many classes to name; all of them if there are fewer.
        views: 1 (centre) or 10.
        pace: counts where the time goes.
        max_pixels: a picture that takes more pixels of memory is not read, see `image.encode`.

    Raises:
        SourceError: `files` is not a list of paths.
        UsageError: `top` or `max_pixels` is not a whole number of at least 1, or `views` is
            neither 1 nor 10.
    """
    check_count("top", top)
    check_views(views)
    check_count("max_pixels", max_pixels)
    return _predictions(classifier, _paths(files, "predict"), top, views, pace or Pace(), max_pixels)


def _predictions(
    classifier: Classifier, files: Iterator[str], top: int, views: Views, pace: Pace, max_pixels: int
) -> Iterator[Prediction]:
    failed: list[Exception] = []
    files = _until_it_fails(files, failed)
    with ThreadPoolExecutor(cores()) as pool:
        waiting: deque[list[Future[tuple[Prediction, float]]]] = deque()
        while True:
            batch = [pool.submit(_timed_read, classifier, path, max_pixels) for path in islice(files, BATCH_SIZE)]
            if batch:
                waiting.append(batch)
            if not waiting:
                break
            if len(waiting) > 2 or not batch:
                begun = time.monotonic()
                read, seconds = zip(*(future.result() for future in waiting.popleft()), strict=True)
                pace.waited += time.monotonic() - begun
                pace.images += len(read)
                pace.decoding += sum(seconds)
                yield from classify_records(classifier, list(read), top, views)
    if failed:
        raise failed[0]


def _until_it_fails(files: Iterator[str], failed: list[Exception]) -> Iterator[str]:
    """The files up to an error of whatever names them, which is kept: what was named before is
    predicted first.
    """
    try:
        yield from files
    except Exception as error:
        failed.append(error)


def _timed_read(classifier: Classifier, path: str, max_pixels: int) -> tuple[Prediction, float]:
    """A record, and the seconds of processor time that it took."""
    begun = time.thread_time()
    return _read(classifier, path, max_pixels), time.thread_time() - begun


def _read(classifier: Classifier, path: str, max_pixels: int) -> Prediction:
    preprocessing = classifier.preprocessing
    try:
        record = encode(read_picture(path), preprocessing.stored_size, preprocessing.resize, max_pixels)
    except Unreadable as reason:
        return Prediction(path, error=str(reason))
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        if isinstance(error, FileNotFoundError) and glob.has_magic(path):
            return Prediction(path, error="no file matches this pattern")
        return Prediction(path, error=getattr(error, "strerror", None) or str(error))
    folder = class_name(Path(path).absolute().parent.name)
    return Prediction(path, record=record, true=folder if classifier.classes.count(folder) == 1 else None)


def classify_records(classifier: Classifier, batch: list[Prediction], top: int = 5, views: Views = 1) -> list[Prediction]:
    """Fill in the classes of predictions that have a record; one batch of the network."""
    readable = [prediction.record for prediction in batch if prediction.record is not None]
    if not readable:
        return batch
    device = classifier.preprocessing.mean.device
    records = torch.from_numpy(np.stack(readable)).to(device)
    best = probabilities(classifier.network, classifier.preprocessing, records, views).topk(min(top, len(classifier.classes)))
    results = iter(zip(best.indices.tolist(), best.values.tolist(), strict=True))
    return [prediction if prediction.error else _named(prediction, *next(results), classifier.classes) for prediction in batch]


def _named(prediction: Prediction, labels: list[int], shares: list[float], classes: tuple[str, ...]) -> Prediction:
    top = tuple((classes[label], share) for label, share in zip(labels, shares, strict=True))
    return Prediction(prediction.path, top, None, prediction.record, prediction.true)
