"""The types `Source` and `Item`."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

TRAIN = "train"
#: The label of a picture whose class is not known.
UNLABELLED = -1
IMAGE_ENDINGS = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff",
    ".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".heic", ".heif", ".hif",
)  # fmt: skip
CLASS_NAMES_FILE = "classnames.txt"


class Item(NamedTuple):
    """One picture: its name for people, its class, and where its bytes are.

    Attributes:
        kind: a file of its own, a span of a tar, a row of a parquet file, or a row of an IDX array.
        place: first byte of a span, or number of a row.
        length: bytes of a span.
    """

    name: str
    label: int
    path: str
    kind: Literal["file", "span", "parquet", "idx"] = "file"
    place: int = 0
    length: int = 0


@dataclass(frozen=True)
class Source:
    """Everything to prepare: the kind in words, class names in label order, items by split."""

    kind: str
    classes: tuple[str, ...]
    splits: dict[str, list[Item]]


def blocks(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Runs of `size` items, the last one shorter: each is one job."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def list_of(paths: Iterable[Path]) -> str:
    """Paths for a message."""
    return ", ".join(str(path) for path in paths)
