"""The store: every picture of a data set as a record of one size, so that record i starts at byte i
* size.

    store/
    ├── manifest.json     sizes, class names, statistics, checksums; written last, it completes all
    ├── mean.npy          (3, S, S) float32 mean image of the training pictures, RGB in [0, 255]
    ├── train.records     N records of S * S * 3 / 2 bytes (YUV 4:2:0, see image.py)
    ├── train.labels      N int32, little-endian
    ├── train.files       N lines: where each picture came from
    ├── val.records ...   the same for the other splits
    └── skipped.jsonl files that could not be used, with the reason

Records are memory-mapped: opening costs nothing, memory grows by four bytes a picture, its label,
and a store that fits into the page cache is read at the speed of memory. A mapped file that shrinks
kills the process that reads it, so its length is checked before each batch. Other damage is looked
for on demand (`alexnet verify store`).

A store may also be remote: `Store("https://host/store")`. Then the small files are copied to the
cache and verified, and the records are fetched block by block (`remote_records.py`).
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from alexnet import schema
from alexnet.address import as_typed, is_address, shown, was_address
from alexnet.data.block_cache import GB, BlockCache, limit_in_gb
from alexnet.data.image import Resize, record_bytes
from alexnet.data.remote import Remote, Unread, WrongBytes
from alexnet.data.remote_records import RemoteRecords
from alexnet.data.sources import TRAIN
from alexnet.data.statistics import MOST, Sums
from alexnet.errors import StoreError
from alexnet.files import replacing
from alexnet.published.registry import cache_folder
from alexnet.run_folder import FIT, STORE
from alexnet.schema import Range

FORMAT = 1
MANIFEST, MEAN, PROGRESS, SKIPPED = "manifest.json", "mean.npy", "progress.jsonl", "skipped.jsonl"
HELD_OUT = ("val", "test")  # the first that is there is evaluated on
BLOCK = 256  # pictures under one checksum
#: Folders of the cache: small files of remote stores, and blocks of their records.
STORES, BLOCKS = "stores", "blocks"
LABEL = np.dtype("<i4")
AGAIN = "Prepare the store again."
#: How far statistics may be from those of the records, in grey levels: they are sums of
#: integers, divided in float64.
CLOSE = 1e-3

Whole = Annotated[int, Range(0)]
Hash = Annotated[str, Range(64, 64)]
Finite = Annotated[float, Range(-1024, 1024)]  # a colour or its deviation
Records = NDArray[np.uint8] | RemoteRecords
Colour = tuple[Finite, Finite, Finite]


# --- the manifest ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class SplitEntry:
    """A split in the manifest.

    Attributes:
        count: pictures.
        per_class: of each class.
        blocks: records and SHA-256 of each run of records.
    """

    count: Annotated[int, Range(1)]
    per_class: tuple[Whole, ...]
    blocks: tuple[tuple[Annotated[int, Range(0, MOST)], Hash], ...]

    def __post_init__(self) -> None:
        for name, total in (("per_class", sum(self.per_class)), ("blocks", sum(count for count, _ in self.blocks))):
            if total != self.count:
                raise ValueError(f"{name} adds up to {total} pictures, but count is {self.count}")


@dataclass(frozen=True)
class StatisticsEntry:
    """`Statistics` in the manifest."""

    mean_colour: Colour
    deviation: Colour
    axes: tuple[Colour, Colour, Colour]
    axis_deviations: Colour


@dataclass(frozen=True)
class Manifest:
    """What `manifest.json` holds.

    Attributes:
        source: the kind of source, in words.
        clipped: whether mean and statistics are of clipped pixels; they are not in
            stores of earlier versions.
        skipped: files that could not be used.
        files: SHA-256 of each file without one in a block.
        seal: SHA-256 of all the rest; stores of earlier versions have none.
    """

    format: Literal[1]
    size: Annotated[int, Range(2, 2**15)]
    resize: Resize
    source: str
    classes: Annotated[tuple[str, ...], Range(1)]
    splits: Annotated[dict[str, SplitEntry], Range(1)]
    statistics: StatisticsEntry
    skipped: Whole
    files: dict[str, Hash]
    clipped: bool = False
    seal: Hash | None = None

    def __post_init__(self) -> None:
        if self.size % 2:
            raise ValueError(f"size is {self.size}, but must be even")
        if unknown := set(self.splits) - {TRAIN, *HELD_OUT}:
            raise ValueError(f"splits has the unknown name {min(unknown)!r}; known are {', '.join((TRAIN, *HELD_OUT))}")
        if TRAIN not in self.splits:
            raise ValueError(f"splits has no {TRAIN}")
        for name, split in self.splits.items():
            if len(split.per_class) != len(self.classes):
                raise ValueError(f"splits.{name}.per_class has {len(split.per_class)} numbers for {len(self.classes)} classes")

    @property
    def small_files(self) -> list[str]:
        """Files that must have a checksum."""
        skipped = [] if self.seal is None else [SKIPPED]
        return [MEAN, *skipped, *(f"{split}.{ending}" for split in self.splits for ending in ("labels", "files"))]


def seal(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest with a checksum of itself."""
    return {**manifest, "seal": _seal(manifest)}


def _seal(manifest: dict[str, Any]) -> str:
    content = {key: value for key, value in manifest.items() if key != "seal"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


# --- the store ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Split:
    """One split of a store.

    Attributes:
        records: (N, S * S * 3 / 2) uint8, memory-mapped, or fetched if the store is remote.
        labels: (N,) int32, read-only.
        length: bytes of the mapped file; 0 without a file.
        blocks: number of records under each checksum; empty without a file.
    """

    name: str
    records: Records
    labels: NDArray[np.int32]
    folder: Path
    length: int = 0
    blocks: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def check(self) -> None:
        """Check that the mapped file is as long as it was. Call it before each pass or batch; it
        takes microseconds.

        Raises:
            StoreError: it is gone or has shrunk; reading on would kill the
                process with a bus error.
        """
        if not self.length:
            return
        path = self.folder / f"{self.name}.records"
        try:
            actual = path.stat().st_size
        except OSError as error:
            raise StoreError(
                f"{path} is gone ({error.strerror}): put the store back, then run the command again (train with --resume)."
            ) from error
        if actual < self.length:
            raise StoreError(f"{path} has shrunk from {self.length:,} to {actual:,} bytes while it was in use. {AGAIN}")

    def take(self, which: slice | NDArray[np.int64]) -> NDArray[np.uint8]:
        """Copies of some records, (n, bytes) uint8.

        Args:
            which: a run of records, or their numbers.

        Raises:
            StoreError: as `check`, which is done first, and as `RemoteRecords`.
        """
        self.check()
        taken = self.records[which]
        mapped = isinstance(which, slice) and not isinstance(self.records, RemoteRecords)
        return np.array(taken) if mapped else np.asarray(taken)  # the others are copies already

    def at_the_source(self, start: int, count: int) -> NDArray[np.uint8]:
        """(count, bytes) records of a block as they are in the store, whatever the cache holds.

        Raises:
            StoreError: those of a remote store cannot be fetched, or are damaged.
        """
        records = self.records
        return records.fresh(start, count) if isinstance(records, RemoteRecords) else records[start : start + count]

    @cached_property
    def files(self) -> list[str]:
        """Where each picture came from. Read whole: for looking at pictures, not for training.

        Raises:
            StoreError: the list is missing, or has more or fewer lines than there are pictures.
        """
        path = self.folder / f"{self.name}.files"
        try:
            text = path.read_bytes().decode("utf-8", "surrogateescape")
        except OSError as error:
            raise StoreError(f"{path} cannot be read: {error.strerror}. {AGAIN}") from error
        names = text.split("\n")[:-1]  # splitlines would also split at characters that a name may hold
        if len(names) != len(self):
            raise StoreError(f"{path} is damaged: it lists {len(names):,} files for {len(self):,} pictures. {AGAIN}")
        return names


@dataclass(frozen=True)
class Skipped:
    """A file that could not be used, and the reason."""

    file: str
    reason: str


@dataclass(frozen=True)
class Statistics:
    """Statistics of the training pictures; RGB in [0, 255].

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

    @property
    def covariance(self) -> NDArray[np.float64]:
        """(3, 3)."""
        covariance: NDArray[np.float64] = self.axes @ np.diag(self.axis_deviations**2) @ self.axes.T
        return covariance


class Store:
    """A finished store, opened for reading.

    >>> Store("store")
    >>> Store("https://host/store", cache_gb=200)

    Args:
        folder: its folder, or as text an address that fsspec supports (https, s3 ...).
        cache_gb: the most that the records of all remote stores may take in the cache, in GB; by
            default $ALEXNET_CACHE_GB, else 50.

    Attributes:
        folder: the store's; of a remote store, that of its small files in the cache.
        address: to print and record: the path as given, or the address without its password.
        given: `folder` as given, to open the store again; it may contain a password.
        manifest: `manifest.json`, as it was read.

    Raises:
        StoreError: missing, unfinished, of another format, damaged, or unreachable.
    """

    def __init__(self, folder: str | PathLike[str], cache_gb: float | None = None) -> None:
        if not isinstance(folder, str | PathLike):
            raise StoreError(f"folder (={folder!r}) must be the path of a store, or its address.")
        self.given, self.address, self._remote = folder, shown(folder), None
        if is_address(folder):
            self._remote, limit = Remote(str(folder)), limit_in_gb(cache_gb)
            self.folder = _copy_of_small_files(self._remote)
            self._cache = BlockCache(cache_folder() / BLOCKS, int(limit * GB))
        else:
            self.folder = Path(folder)
        self.manifest, self._manifest = _read_manifest(self.folder)
        self.size = self._manifest.size
        self.classes = self._manifest.classes
        self.splits = {name: self._open(name, split.count) for name, split in self._manifest.splits.items()}

    def _open(self, name: str, count: int) -> Split:
        length = record_bytes(self.size)
        mapped, read = self.folder / f"{name}.records", self.folder / f"{name}.labels"
        lengths = {read: count * LABEL.itemsize} if self._remote else {mapped: count * length, read: count * LABEL.itemsize}
        for path, expected in lengths.items():
            actual = path.stat().st_size if path.is_file() else 0
            if actual != expected:
                raise StoreError(f"{path} has {actual:,} bytes instead of {expected:,}: prepare the store again.")
        labels = np.fromfile(read, LABEL)
        labels.flags.writeable = False
        if not 0 <= labels.min() <= labels.max() < len(self.classes):
            wrong = int(np.flatnonzero((labels < 0) | (labels >= len(self.classes)))[0])
            raise StoreError(
                f"{self.folder / name}.labels is damaged: record {wrong} has class {labels[wrong]}, but must have one in "
                f"[0, {len(self.classes) - 1}]. {AGAIN}"
            )
        blocks = self._manifest.splits[name].blocks
        counts = tuple(count for count, _ in blocks)
        if self._remote:
            remote = RemoteRecords(self._remote, mapped.name, blocks, length, self._cache)
            return Split(name, remote, labels, self.folder, blocks=counts)
        records = np.memmap(mapped, np.uint8, "r", shape=(count, length))
        return Split(name, records, labels, self.folder, count * length, counts)

    @property
    def train(self) -> Split:
        """The split that is trained on."""
        return self.splits[TRAIN]

    @property
    def held_out(self) -> Split:
        """The split to evaluate on: val, or test in a store without val."""
        return self.split(next((name for name in HELD_OUT if name in self.splits), HELD_OUT[0]))

    def split(self, name: str) -> Split:
        """A split by name."""
        if not isinstance(name, str) or name not in self.splits:
            raise StoreError(f"{self.address} has no split {name!r}: it has {', '.join(self.splits)}.")
        return self.splits[name]

    @property
    def mean_image(self) -> NDArray[np.float32]:
        """(3, S, S) float32, RGB in [0, 255]."""
        path, shape = self.folder / MEAN, (3, self.size, self.size)
        try:
            mapped = np.load(path, mmap_mode="r")  # so that a wrong shape takes no memory
            if mapped.shape != shape or mapped.dtype != np.float32:
                raise ValueError(f"it is {mapped.dtype} {mapped.shape}, but must be float32 {shape}")
            mean = np.array(mapped)
            if not np.abs(mean).max() <= 512:  # earlier versions did not clip; NaN is refused too
                raise ValueError("some of its values are not in [0, 255]")
        except Exception as error:  # a header is Python source to NumPy: ValueError, SyntaxError, TokenError, MemoryError ...
            reason = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise StoreError(f"{path} is damaged: {reason}. {AGAIN}") from error
        return mean

    @property
    def statistics(self) -> Statistics:
        """Colour statistics of the training pictures."""
        return Statistics(**{name: np.array(value) for name, value in vars(self._manifest.statistics).items()})

    @property
    def skipped(self) -> list[Skipped]:
        """The files that could not be used.

        Raises:
            StoreError: the list is missing or damaged.
        """
        path = self.folder / SKIPPED
        try:
            lines = path.read_bytes().splitlines()
        except OSError as error:
            raise StoreError(f"{path} cannot be read: {error.strerror}. {AGAIN}") from error
        return [schema.parse_json(line, Skipped, f"{path}, line {n},", StoreError, AGAIN) for n, line in enumerate(lines, 1)]

    @property
    def fingerprint(self) -> str:
        """A hash that is equal for stores of equal content: it covers every checksum, the classes
        and the sizes.
        """
        return hashlib.sha256(json.dumps(self.manifest, sort_keys=True).encode()).hexdigest()[:16]

    # --- damage -----------------------------------------------------------------------------------

    def verify(self, progress: Callable[[int], None] = lambda _: None) -> list[str]:
        """Read everything, compare it with the manifest, and describe the damage found; empty if
        there is none.

        Checksums are compared, and what the manifest counts and averages is
        counted and averaged again.

        Raises:
            StoreError: a remote store cannot be read for a reason that is not in its files, as with
                a server that cannot be reached.
        """
        manifest = self.folder / MANIFEST
        damage = list(self._wrong_files())
        mean_is_whole = not any(line.startswith(str(self.folder / MEAN)) for line in damage)
        if self._manifest.seal not in (None, _seal(self.manifest)):
            damage.append(f"{manifest} has changed since it was written")
        for name, split in self.splits.items():
            counted = np.bincount(split.labels, minlength=len(self.classes)).tolist()
            if tuple(counted) != self._manifest.splits[name].per_class:
                damage.append(f"{manifest}: splits.{name}.per_class differs from the labels")
        sums = Sums.none(self.size)
        blocks = {name: list(self._wrong_blocks(name, sums, progress)) for name in self.splits}
        damage += [line for lines in blocks.values() for line in lines]
        if not blocks[TRAIN]:  # else they differ for a reason that has been said
            damage += self._wrong_statistics(sums)
            damage += self._wrong_mean(sums) if mean_is_whole else []
        return damage

    def _wrong_files(self) -> Iterator[str]:
        listed = self._manifest.files
        for name in self._manifest.small_files:
            if name not in listed:
                yield f"{self.folder / MANIFEST} has no checksum of {name}"
        for name, expected in listed.items():
            path = self.folder / name
            if name not in self._manifest.small_files:
                yield f"{self.folder / MANIFEST} has a checksum of {name!r}, which is not a file of a store"
            elif not path.is_file() or sha256(path.read_bytes()) != expected:
                yield f"{path} is missing or differs from the manifest"
            elif self._remote and self._remote.sha256(name) != expected:  # it was right when it was copied
                yield f"{self._remote.name(name)} differs from the manifest"
        skipped = self.folder / SKIPPED
        if skipped.is_file() and (count := skipped.read_bytes().count(b"\n")) != self._manifest.skipped:
            yield f"{skipped} lists {count:,} files, but the manifest counts {self._manifest.skipped:,}"
        for name, split in self.splits.items():
            path = self.folder / f"{name}.files"
            if path.is_file() and (count := path.read_bytes().count(b"\n")) != len(split):
                yield f"{path} lists {count:,} files for {len(split):,} pictures"

    def _wrong_blocks(self, name: str, sums: Sums, progress: Callable[[int], None]) -> Iterator[str]:
        """Damaged blocks of a split; those of the training pictures are added to `sums`."""
        split, start = self.splits[name], 0
        for count, expected in self._manifest.splits[name].blocks:
            split.check()
            try:
                records = split.at_the_source(start, count)
            except Unread:
                raise
            except StoreError as error:
                yield str(error)
            else:
                if sha256(records) != expected:
                    yield f"{self.folder / name}.records: records {start} to {start + count - 1} are damaged"
                if name == TRAIN:
                    sums.add(Sums.of(records))
            start += count
            progress(count)

    def _wrong_statistics(self, sums: Sums) -> Iterator[str]:
        clipped, given = self._manifest.clipped, self.statistics
        manifest = self.folder / MANIFEST
        scale = max(1.0, float(np.abs(given.axis_deviations).max()))  # a covariance is a square
        pairs = {
            "mean_colour": (given.mean_colour, sums.mean_colour(clipped), 1.0),
            "deviation": (given.deviation**2, np.diag(sums.covariance(clipped)), scale),
            "axes and axis_deviations": (given.covariance, sums.covariance(clipped), scale),
        }
        for name, (recorded, expected, size) in pairs.items():
            if np.abs(recorded - expected).max() > CLOSE * size:
                yield f"{manifest}: statistics: {name} differs from the records"

    def _wrong_mean(self, sums: Sums) -> Iterator[str]:
        try:
            if np.abs(self.mean_image - sums.mean_image(self._manifest.clipped)).max() > CLOSE:
                yield f"{self.folder / MEAN} is not the mean of the records"
        except StoreError as error:
            yield str(error)


def sha256(data: bytes | NDArray[Any]) -> str:
    """Checksum in hexadecimal."""
    return hashlib.sha256(data).hexdigest()  # type: ignore[arg-type]  # arrays are buffers


def _read_manifest(folder: Path) -> tuple[dict[str, Any], Manifest]:
    """Read and check the manifest."""
    if was_address(folder):
        raise StoreError(f"{as_typed(folder)} is not a folder: pass an address as text, as a Path loses one of its slashes.")
    if not folder.is_dir():
        make = f"make one with `alexnet prepare PHOTOS {folder}`."
        if folder.name == STORE and (folder.parent / FIT).exists():  # which holds out photos in a way of its own
            make = "put back the one that `alexnet fit` made, or run that command again with another --out."
        raise StoreError(f"{folder} is not a store, as no such folder exists: {make}")
    path = folder / MANIFEST
    if not path.exists():
        begun = (folder / PROGRESS).exists()
        step = "If `alexnet prepare` was interrupted, run it again." if begun else f"Prepare it: alexnet prepare {folder} STORE"
        raise StoreError(f"{folder} is not a finished store: it has no {MANIFEST}. {step}")
    content = schema.read_json(path, dict[str, Any], StoreError, AGAIN)
    return content, _checked_manifest(content, str(folder), str(path))


def _checked_manifest(content: dict[str, Any], store: str, path: str) -> Manifest:
    version = content.get("format")
    if type(version) is int and version != FORMAT:
        raise StoreError(
            f"{store} is a store of format {version}, but this version of alexnet reads format {FORMAT}: prepare it again."
        )
    return schema.parse(content, Manifest, path, StoreError, AGAIN)


# --- remote stores --------------------------------------------------------------------------------


def _check_seal(text: bytes) -> None:
    try:
        content = schema.parse_json(text, dict[str, Any], "it", StoreError, "")
    except StoreError as error:
        raise WrongBytes(str(error).rstrip(" .")) from error
    if content.get("seal") not in (None, _seal(content)):
        raise WrongBytes("it has changed since it was written: copy all of the store's files there again")


def _copy_of_small_files(remote: Remote) -> Path:
    """The folder in the cache with a store's manifest, labels, names and mean, all verified; what
    is missing is fetched. The manifest's checksum names it: another manifest is another store.
    """
    text, name = remote.read(MANIFEST, _check_seal), remote.name(MANIFEST)
    manifest = _checked_manifest(json.loads(text), remote.address, name)
    folder = cache_folder() / STORES / sha256(text)[:16]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file in manifest.small_files:
            if file not in manifest.files:
                raise StoreError(f"{name} has no checksum of {file}. {AGAIN}")
            path, expected = folder / file, manifest.files[file]
            if not path.is_file() or sha256(path.read_bytes()) != expected:
                remote.download(file, path, expected)
        if not (folder / MANIFEST).exists() or (folder / MANIFEST).read_bytes() != text:
            with replacing(folder / MANIFEST) as temporary:
                temporary.write_bytes(text)
    except OSError as error:
        raise StoreError(
            f"{folder} cannot be written ({error.strerror or error}): free space there, or set ALEXNET_CACHE to another folder."
        ) from error
    return folder
