"""The store: every picture of a data set as a record of one size, so that record i lies at byte i * size.

    store/
    ├── manifest.json     sizes, class names, statistics, checksums; written last, so a store that has one is complete
    ├── mean.npy          (3, S, S) float32 mean image of the training pictures, RGB in [0, 255]
    ├── train.records     N records of S * S * 3 / 2 bytes (YUV 4:2:0, see image.py)
    ├── train.labels      N int32, little-endian
    ├── train.files       N lines: where each picture came from
    ├── val.records ...   the same for the other splits
    └── skipped.jsonl     files that were no usable pictures, with the reason

Records are memory-mapped: opening costs nothing, memory does not grow with the number of pictures, and a store that fits into
the page cache is read at the speed of memory. Damage is looked for on demand (`alexnet verify store`).
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet.data.image import record_bytes
from alexnet.data.sources import TRAIN
from alexnet.errors import StoreError

FORMAT = 1
MANIFEST, MEAN, PROGRESS = "manifest.json", "mean.npy", "progress.jsonl"
BLOCK = 256  # pictures under one checksum
LABEL = np.dtype("<i4")


@dataclass(frozen=True)
class Split:
    """One split of a store.

    Attributes:
        records: (N, S * S * 3 / 2) uint8, memory-mapped.
        labels: (N,) int32, memory-mapped.
    """

    name: str
    records: NDArray[np.uint8]
    labels: NDArray[np.int32]
    folder: Path

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def files(self) -> list[str]:
        """Where each picture came from. Read whole: for looking at pictures, not for training."""
        text = (self.folder / f"{self.name}.files").read_bytes().decode("utf-8", "surrogateescape")
        return text.split("\n")[:-1]  # splitlines would also split at characters that a name may hold


@dataclass(frozen=True)
class Statistics:
    """The training pictures in numbers; RGB in [0, 255].

    Attributes:
        mean_colour: (3,) mean.
        deviation: (3,) standard deviation of each channel.
        axes: (3, 3), one column for each principal component of the pixels' colours.
        axis_deviations: (3,) standard deviation along each column.
    """

    mean_colour: NDArray[np.float64]
    deviation: NDArray[np.float64]
    axes: NDArray[np.float64]
    axis_deviations: NDArray[np.float64]


class Store:
    """A finished store, opened for reading.

    Raises:
        StoreError: missing, unfinished, of another format, or with files of the wrong length.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.manifest = _read_manifest(self.folder)
        self.size: int = self.manifest["size"]
        self.classes: tuple[str, ...] = tuple(self.manifest["classes"])
        self.splits = {name: self._open(name, split["count"]) for name, split in self.manifest["splits"].items()}

    def _open(self, name: str, count: int) -> Split:
        length = record_bytes(self.size)
        for ending, expected in (("records", count * length), ("labels", count * LABEL.itemsize)):
            path = self.folder / f"{name}.{ending}"
            actual = path.stat().st_size if path.exists() else 0
            if actual != expected:
                raise StoreError(f"{path} has {actual:,} bytes instead of {expected:,}: prepare the store again.")
        records = np.memmap(self.folder / f"{name}.records", np.uint8, "r", shape=(count, length))
        labels = np.memmap(self.folder / f"{name}.labels", LABEL, "r", shape=(count,))
        return Split(name, records, labels, self.folder)

    @property
    def train(self) -> Split:
        return self.splits[TRAIN]

    @property
    def held_out(self) -> Split:
        """The split to evaluate on: val, or test where there is no val."""
        return self.split(next(name for name in ("val", "test") if name in self.splits))

    def split(self, name: str) -> Split:
        """A split by name."""
        if name not in self.splits:
            raise StoreError(f"{self.folder} has no split {name!r}: it has {', '.join(self.splits)}.")
        return self.splits[name]

    @property
    def mean_image(self) -> NDArray[np.float32]:
        """(3, S, S) float32, RGB in [0, 255]."""
        mean: NDArray[np.float32] = np.load(self.folder / MEAN)
        return mean

    @property
    def statistics(self) -> Statistics:
        return Statistics(**{name: np.array(value) for name, value in self.manifest["statistics"].items()})

    @property
    def fingerprint(self) -> str:
        """Equal for stores of equal content: it covers every checksum, the classes and the sizes."""
        return hashlib.sha256(json.dumps(self.manifest, sort_keys=True).encode()).hexdigest()[:16]

    def verify(self, progress: Callable[[int], None] = lambda _: None) -> list[str]:
        """Read everything and compare it with the checksums; the damage found, in words. Empty: the store is whole."""
        damage: list[str] = []
        for name, expected in self.manifest["files"].items():
            path = self.folder / name
            if not path.exists() or sha256(path.read_bytes()) != expected:
                damage.append(f"{path} is missing or differs from the manifest")
        for name, split in self.splits.items():
            start = 0
            for count, expected in self.manifest["splits"][name]["blocks"]:
                if sha256(split.records[start : start + count]) != expected:
                    damage.append(f"{self.folder / name}.records: records {start} to {start + count - 1} are damaged")
                start += count
                progress(count)
        return damage


def sha256(data: bytes | NDArray[Any]) -> str:
    """Checksum in hexadecimal."""
    return hashlib.sha256(data).hexdigest()  # type: ignore[arg-type]  # arrays are buffers


def _read_manifest(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise StoreError(f"{folder} is no store: there is no such folder. Make one with `alexnet prepare PHOTOS {folder}`.")
    path = folder / MANIFEST
    if not path.exists():
        begun = (folder / PROGRESS).exists()
        step = "Run the same `alexnet prepare` again; it resumes." if begun else f"Prepare it: alexnet prepare {folder} STORE"
        raise StoreError(f"{folder} is no finished store: it has no {MANIFEST}. {step}")
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
        version = manifest["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} is damaged ({error}): prepare the store again.") from error
    if version != FORMAT:
        raise StoreError(f"{folder} is a store of format {version}; this version reads format {FORMAT}: prepare it again.")
    keys = ("size", "resize", "classes", "splits", "statistics", "files")
    if missing := [key for key in keys if key not in manifest]:
        raise StoreError(f"{path} is damaged (it lacks {', '.join(missing)}): prepare the store again.")
    return manifest
