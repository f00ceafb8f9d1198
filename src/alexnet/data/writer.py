"""Write a store so that it can be resumed: what `progress.jsonl` lists is done; the rest is cut off
on the next start.
"""

import hashlib
import io
import json
import os
import shlex
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Self

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from alexnet import schema
from alexnet.address import as_typed, was_address
from alexnet.console import say
from alexnet.data.image import MAX_PIXELS, Resize, record_bytes
from alexnet.data.sources import TRAIN, Item, Source
from alexnet.data.statistics import Sums
from alexnet.data.store import FORMAT, LABEL, MANIFEST, MEAN, PROGRESS, SKIPPED, Hash, Whole, seal, sha256
from alexnet.errors import SourceError, StoreError
from alexnet.files import LOCK, lock, replacing, unlock
from alexnet.phrases import counted, quoted
from alexnet.schema import Range

#: The format of an unfinished store; one of another version is not resumed.
PROGRESS_FORMAT = f"{FORMAT}, clipped"


@dataclass(frozen=True)
class Encoded:
    """A block after decoding: only the pictures that could be read."""

    records: NDArray[np.uint8]  # (n, record bytes)
    labels: list[int]
    names: list[str]
    skipped: list[tuple[str, str]]  # (name, reason)
    checksum: str
    sums: Sums | None  # of training pictures


@dataclass(frozen=True)
class Done:
    """A line of `progress.jsonl`: a block, and how long the files are after it.

    Attributes:
        records, skipped: pictures of the block that were written, and that were not.
        sha256: of the records.
        ends: bytes of the split's records, labels and files.
        skipped_end: bytes of the list of skipped files.
    """

    split: str
    records: Whole
    skipped: Whole
    sha256: Hash
    ends: Annotated[list[Whole], Range(3, 3)]
    skipped_end: Whole


def check_free(folder: Path) -> None:
    """Refuse a folder where a store cannot be started or resumed, before the source is read.

    Raises:
        StoreError: it is an address, a finished store, a file, or a folder of other things.
    """
    if was_address(folder):
        raise StoreError(
            f"{as_typed(folder)} is an address, but a store is written to a folder: name a folder, then copy it to the address."
        )
    if (folder / MANIFEST).exists():
        named = shlex.quote(str(folder))
        raise StoreError(
            f"{folder} is already a finished store. To use it, run `alexnet train small-photos --data {named} --out run`. "
            "To prepare other photos, name another folder; to prepare these again, delete that one and repeat the command."
        )
    if (folder / PROGRESS).exists() or not folder.exists():
        return
    if not folder.is_dir() or any(entry.name != LOCK for entry in folder.iterdir()):
        raise StoreError(f"{folder} exists and is not a store: name a new or empty folder.")


@dataclass
class Writer:
    """Writes one store, block by block.

    Args:
        blocks: split and items of every block, in order.
    """

    folder: Path
    source: Source
    size: int
    resize: Resize
    max_pixels: int
    blocks: Sequence[tuple[str, Sequence[Item]]]
    skipped: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    written: dict[str, list[tuple[int, str]]] = field(default_factory=dict)  # records and checksum of each block
    lock: FileLock | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        """Release the lock and close the files."""
        if self.lock:
            unlock(self.lock)

    def open(self) -> int:
        """Start or resume; returns the number of finished blocks."""
        settings = {"format": PROGRESS_FORMAT, "size": self.size, "resize": self.resize, "source": self._source_fingerprint()}
        if self.max_pixels != MAX_PIXELS:  # stores of earlier versions lack it
            settings["max_pixels"] = self.max_pixels
        length, done = self._earlier(settings)
        if not length:
            self._check_space()
            self.folder.mkdir(parents=True, exist_ok=True)
        self._lock()
        check_free(self.folder)  # another process may have finished it until now
        if not length:
            (self.folder / PROGRESS).write_text(json.dumps(settings) + "\n")
        for line in done:
            self._count(line)
        self._cut(length, done)
        self.sums = Sums.none(self.size)
        if done:
            self.sums = Sums.load(self._sums(len(done)), self.size, self.counts[TRAIN])
            say(f"Resuming {self.folder} after {counted(sum(self.counts.values()), 'picture')}.")
        return len(done)

    def _lock(self) -> None:
        """Keep the folder for this process: two that wrote one store would mix their pictures."""
        self.lock = lock(self.folder)
        if self.lock is None:
            raise StoreError(f"another process is preparing {self.folder}: wait for it to finish, or name another folder.")

    def _source_fingerprint(self) -> str:
        digest = hashlib.sha256(json.dumps([self.source.kind, self.source.classes]).encode())
        for split, items in self.source.splits.items():
            for item in items:  # one by one: the text of a million pictures need not be in memory
                digest.update(json.dumps([split, *item]).encode())
        return digest.hexdigest()

    def _earlier(self, settings: dict[str, Any]) -> tuple[int, list[Done]]:
        """Bytes of an unfinished store's progress, without half a line at its end, and its blocks;
        nothing if there is none."""
        check_free(self.folder)
        progress = self.folder / PROGRESS
        if not progress.exists():
            return 0, []
        text = progress.read_bytes()
        text = text[: text.rfind(b"\n") + 1]
        if not text:
            return 0, []
        first, *lines = text.splitlines()
        remedy = f"Delete {self.folder} and prepare again."
        begun = schema.parse_json(first, dict[str, Any], f"{progress}, line 1,", StoreError, remedy)
        if begun.get("format") != settings["format"]:
            raise StoreError(f"{self.folder} is an unfinished store of another version of alexnet. {remedy}")
        if changed := [key for key in sorted({*settings, *begun}) if begun.get(key) != settings.get(key)]:
            raise StoreError(
                f"{self.folder} is an unfinished store made with another {' and '.join(changed)}: "
                "run the command that started it, or delete the folder."
            )
        done = [
            schema.parse_json(line, Done, f"{progress}, line {number},", StoreError, remedy)
            for number, line in enumerate(lines, 2)
        ]
        self._check_order(done, remedy)
        return len(text), done

    def _check_order(self, done: list[Done], remedy: str) -> None:
        """Check that every line belongs to its block and that file lengths grow by what it
        wrote.
        """
        problem = f"has {len(done)} blocks, but the source has {len(self.blocks)}" if len(done) > len(self.blocks) else ""
        counts: Counter[str] = Counter()
        names: dict[str, int] = {}
        for number, (line, (split, block)) in enumerate(zip(done, self.blocks, strict=False), 2):
            counts[split] += line.records
            expected = counts[split] * record_bytes(self.size), counts[split] * LABEL.itemsize
            if line.split != split or line.records + line.skipped != len(block):
                problem = problem or f"has another block in line {number} than the source"
            elif tuple(line.ends[:2]) != expected or line.ends[2] < names.get(split, 0):
                problem = problem or f"has wrong lengths in line {number}"
            names[split] = line.ends[2]
        if problem:
            raise StoreError(f"{self.folder / PROGRESS} is damaged: it {problem}. {remedy}")

    def _check_space(self) -> None:
        count = sum(len(items) for items in self.source.splits.values())
        need = count * record_bytes(self.size)
        parent = next(folder for folder in (self.folder, *self.folder.absolute().parents) if folder.exists())
        free = shutil.disk_usage(parent).free
        if need > free:
            raise StoreError(
                f"{count:,} pictures of {self.size} x {self.size} need {need / 1e6:,.1f} MB, but "
                f"{parent} has {free / 1e6:,.1f} MB free: free some there, or choose another disk (`alexnet fit`: another "
                "--out). `alexnet prepare` can also make smaller pictures (--size)."
            )

    def _paths(self, split: str) -> tuple[Path, Path, Path]:
        return tuple(self.folder / f"{split}.{ending}" for ending in ("records", "labels", "files"))  # type: ignore[return-value]

    def _sums(self, blocks: int) -> Path:
        return self.folder / f"sums.{blocks}.npz"

    def _cut(self, length: int, done: list[Done]) -> None:
        """Cut every file back to its length in the last line of the progress file."""
        for split in self.source.splits:
            ends = next((line.ends for line in reversed(done) if line.split == split), [0, 0, 0])
            for path, end in zip(self._paths(split), ends, strict=True):
                _truncate(path, end)
        _truncate(self.folder / SKIPPED, done[-1].skipped_end if done else 0)
        if length:
            _truncate(self.folder / PROGRESS, length)

    def append(self, split: str, block: Encoded) -> None:
        """Write a block, then the line that makes it count."""
        records, labels, files = self._paths(split)
        ends = [
            _append(records, block.records),
            _append(labels, np.array(block.labels, LABEL)),
            _append(files, "".join(f"{_one_line(name)}\n" for name in block.names).encode("utf-8", "surrogateescape")),
        ]
        listed = [json.dumps({"file": name, "reason": reason}) + "\n" for name, reason in block.skipped]
        skipped_end = _append(self.folder / SKIPPED, "".join(listed).encode())
        number = sum(map(len, self.written.values())) + 1
        if block.sums:
            self.sums.add(block.sums)
        self.sums.save(self._sums(number))
        line = Done(split, len(block.labels), len(block.skipped), block.checksum, ends, skipped_end)
        _append(self.folder / PROGRESS, (json.dumps(vars(line)) + "\n").encode())
        self._sums(number - 1).unlink(missing_ok=True)
        self._count(line)

    def _count(self, line: Done) -> None:
        self.counts[line.split] += line.records
        self.skipped += line.skipped
        self.written.setdefault(line.split, []).append((line.records, line.sha256))

    def finish(self) -> None:
        """Check that every class has a picture, write the statistics and the
        manifest, remove the progress."""
        per_class = {split: self._per_class(split) for split in self.source.splits}
        empty = [name for name, count in zip(self.source.classes, per_class[TRAIN], strict=True) if not count]
        empty += [split for split in self.source.splits if not self.counts[split]]
        if empty:
            raise SourceError(
                "a class needs a readable picture in each split, but "
                f"{quoted(empty)} has none left ({counted(self.skipped, 'file')} skipped, "
                f"see {self.folder / SKIPPED}): repair or add files, or remove the class; then "
                f"delete {self.folder} and prepare again."
            )
        mean = io.BytesIO()
        np.save(mean, self.sums.mean_image())
        with replacing(self.folder / MEAN) as temporary:
            temporary.write_bytes(mean.getvalue())
        small = [MEAN, SKIPPED, *(path.name for split in self.source.splits for path in self._paths(split)[1:])]
        manifest = {
            "format": FORMAT,
            "size": self.size,
            "resize": self.resize,
            "source": self.source.kind,
            "classes": self.source.classes,
            "splits": {
                split: {"count": self.counts[split], "per_class": per_class[split], "blocks": self.written[split]}
                for split in self.source.splits
            },
            "statistics": self.sums.statistics(),
            "clipped": True,
            "skipped": self.skipped,
            "files": {name: sha256((self.folder / name).read_bytes()) for name in small},
        }
        with replacing(self.folder / MANIFEST) as temporary:
            temporary.write_text(json.dumps(seal(manifest), indent=1))
        for leftover in (*self.folder.glob("sums.*.npz"), self.folder / PROGRESS):
            leftover.unlink(missing_ok=True)

    def _per_class(self, split: str) -> list[int]:
        labels = np.fromfile(self._paths(split)[1], LABEL)
        return np.bincount(labels, minlength=len(self.source.classes)).tolist()


def _one_line(name: str) -> str:
    return name.replace("\n", "\\n")


def _append(path: Path, data: bytes | NDArray[Any]) -> int:
    """Append and return the file's new length."""
    with open(path, "ab") as file:
        file.write(data)  # type: ignore[arg-type]  # arrays are buffers
        return file.tell()


def _truncate(path: Path, length: int) -> None:
    if path.exists() or length:
        if not path.exists() or path.stat().st_size < length:
            raise StoreError(f"{path} has shrunk to {length:,} bytes: delete the folder and prepare again.")
        os.truncate(path, length)
