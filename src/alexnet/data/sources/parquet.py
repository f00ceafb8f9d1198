"""Image parquet in Hugging Face's layout: columns image and label."""

import errno
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any
from weakref import finalize

from alexnet.data.sources.numbered import numbered
from alexnet.data.sources.source import TRAIN, UNLABELLED, Item, Source
from alexnet.data.sources.walk import LeftOut
from alexnet.errors import SourceError
from alexnet.files import open_regular
from alexnet.text import unique_names

#: Hugging Face writes groups of 100 or 1,000 pictures.
MAX_GROUP_BYTES = 2**32


def parquet(splits: Mapping[str, Sequence[Path]], left_out: LeftOut) -> Source:
    """The source of parquet files.

    Args:
        splits: the files of each split.
        left_out: counts what is passed over.

    Raises:
        SourceError: a file is not an image parquet, files disagree about the
            classes, or pyarrow is missing.
    """
    _check_installed(next(file for files in splits.values() for file in files))
    _file.cache_clear()  # files may have changed since they were read for another source
    _group.cache_clear()
    names: tuple[str, ...] | None = None
    first: Path | None = None
    items: dict[str, list[Item]] = {}
    for split, files in splits.items():
        for path in files:
            own, labels = _look(path, split)
            if own is not None and names is not None and own != names:
                raise SourceError(f"{path} has other class names than {first}: put the files of one data set together.")
            if own is not None:
                names, first = own, first or path
            items.setdefault(split, []).extend(
                Item(f"{path.name}[{row}]", label, str(path), "parquet", row) for row, label in enumerate(labels)
            )
    where = f"the schema of {first}"
    names = unique_names(names or (), [f"label {label} of {where}" for label in range(len(names or ()))])
    return numbered("image parquet", items, names, left_out, where)


def _check_installed(path: Path) -> None:
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise SourceError(f"{path} is a parquet file, which needs pyarrow: pip install 'alexnet[parquet]'.") from error


def _look(path: Path, split: str) -> tuple[tuple[str, ...] | None, list[int]]:
    """The class names (None if no row has a label) and the label of each row."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open_regular(path) as file:
            opened = pq.ParquetFile(file)
            schema, rows = opened.schema_arrow, opened.metadata.num_rows
            if rows > path.stat().st_size:  # a run of equal labels takes a few bytes, however long it claims to be
                raise SourceError(f"{path} is damaged: {rows:,} rows in {path.stat().st_size:,} bytes. Download it again.")
            if not _holds_bytes(schema.field("image").type):
                kind = schema.field("image").type
                raise SourceError(f"{path} has an image column of type {kind}: expected the bytes of one file in each row.")
            _check_groups(opened.metadata, path)
            if split != TRAIN and "label" not in schema.names:
                return None, [UNLABELLED] * rows
            if not pa.types.is_integer(schema.field("label").type):
                raise SourceError(f"{path} has labels of type {schema.field('label').type}: expected integers.")
            labels = opened.read(columns=["label"])["label"].to_pylist()
    except (pa.ArrowException, OSError, KeyError) as error:
        reason = str(error).split("\n")[0]
        raise SourceError(f"{path} is not an image parquet file with columns image and label: {reason}") from error
    labels = [UNLABELLED if label is None or label < 0 else label for label in labels]
    return _names(schema.metadata, path) if max(labels, default=UNLABELLED) >= 0 else None, labels


def _check_groups(footer: Any, path: Path) -> None:
    """Refuse groups of rows, each of which is unpacked whole, that would take too much memory."""
    for group in map(footer.row_group, range(footer.num_row_groups)):
        unpacked = sum(group.column(index).total_uncompressed_size for index in range(group.num_columns))
        if unpacked > MAX_GROUP_BYTES:
            raise SourceError(
                f"{path} has a row group of {unpacked:,} bytes, more than the limit of "
                f"{MAX_GROUP_BYTES:,}: write it with smaller row groups."
            )


def _holds_bytes(kind: Any) -> bool:
    """Whether a column's type is bytes, or Hugging Face's {bytes, path}."""
    import pyarrow as pa

    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _holds_bytes(kind.field(index).type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _names(metadata: Mapping[bytes, bytes] | None, path: Path) -> tuple[str, ...]:
    """The names of a Hugging Face ClassLabel, from the schema's metadata; empty if there are
    none."""
    try:
        value: Any = json.loads((metadata or {}).get(b"huggingface", b"{}"))
        for key in ("info", "features", "label", "names"):
            value = value.get(key) or {}
    except (ValueError, AttributeError, RecursionError) as error:
        raise SourceError(f"{path} has a damaged description of its columns ({error}): write it again.") from error
    if not all(isinstance(name, str) for name in value):
        raise SourceError(f"{path} has class names that are not text: write it again.")
    return tuple(value)


@dataclass(frozen=True)
class _Open:
    """A file that pictures are read from: its reader, the column of their bytes, and the
    first row of each group."""

    reader: Any
    column: str
    starts: list[int]


@lru_cache(maxsize=1)
def _file(path: str) -> _Open:
    import pyarrow.parquet as pq

    opened = open_regular(path)
    footer = pq.ParquetFile(opened).metadata
    column = "image.bytes" if "image.bytes" in [footer.schema.column(i).path for i in range(footer.num_columns)] else "image"
    # Equal pictures may be stored once: as a dictionary they take no more
    # memory than they have bytes.
    reader = pq.ParquetFile(opened, metadata=footer, read_dictionary=[column])
    finalize(reader, opened.close)
    rows = (footer.row_group(group).num_rows for group in range(footer.num_row_groups))
    return _Open(reader, column, list(accumulate(rows, initial=0)))


@lru_cache(maxsize=1)
def _group(path: str, group: int) -> Any:
    file = _file(path)
    return file.reader.read_row_group(group, columns=[file.column])["image"]


def parquet_row(path: str, row: int) -> bytes:
    """The bytes of the picture in a row; empty if it has none.

    Raises:
        OSError: the file is damaged, or not what it was.
    """
    import pyarrow as pa

    try:
        starts = _file(path).starts
        group = next(g for g in range(len(starts) - 1) if row < starts[g + 1])
        image = _group(path, group)[row - starts[group]].as_py()
    except (pa.ArrowException, KeyError, IndexError, StopIteration) as error:
        reason = str(error).split("\n")[0]
        raise OSError(errno.EIO, f"damaged, or changed since it was found ({reason})", path) from error
    data = image["bytes"] if isinstance(image, dict) else image
    return bytes(data or b"")
