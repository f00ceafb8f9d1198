"""Image parquet in Hugging Face's layout: columns image and label."""

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from alexnet.data.sources.source import Item, Source, by_split, numbered
from alexnet.errors import SourceError


def parquet(files: Sequence[Path]) -> Source:
    import pyarrow as pa
    import pyarrow.parquet as pq

    classes: tuple[str, ...] = ()
    splits: dict[str, list[Item]] = {}
    for split, members in by_split(files).items():
        for path in members:
            try:
                schema = pq.read_schema(path)
                schema.field("image")
                if not pa.types.is_integer(schema.field("label").type):
                    raise SourceError(f"{path} has labels of type {schema.field('label').type}: expected integers.")
                table = pq.read_table(path, columns=["label"])
            except (pa.ArrowInvalid, OSError, KeyError) as error:
                raise SourceError(f"{path} is no image parquet with columns image and label: {error}") from error
            names = _parquet_names(schema.metadata)
            if classes and names != classes:
                raise SourceError(f"{path} names other classes than the files before it.")
            classes = names
            labels = table["label"].to_pylist()
            if any(label is None or label < 0 for label in labels):
                raise SourceError(f"{path} has rows without a label.")
            splits.setdefault(split, []).extend(
                Item(f"{path.name}[{row}]", label, str(path), "parquet", row) for row, label in enumerate(labels)
            )
    return Source("image parquet", numbered(splits, classes, f"the schema of {files[0]}"), splits)


def _parquet_names(metadata: dict[bytes, bytes] | None) -> tuple[str, ...]:
    """The names of a Hugging Face ClassLabel, from the schema's metadata."""
    info = json.loads((metadata or {}).get(b"huggingface", b"{}"))
    label = info.get("info", {}).get("features", {}).get("label", {})
    return tuple(label.get("names", ()))


@lru_cache(maxsize=1)
def _parquet_file(path: str) -> tuple[Any, list[int]]:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    starts = [0]
    for group in range(file.num_row_groups):
        starts.append(starts[-1] + file.metadata.row_group(group).num_rows)
    return file, starts


@lru_cache(maxsize=1)
def _parquet_group(path: str, group: int) -> Any:
    return _parquet_file(path)[0].read_row_group(group, columns=["image"])["image"]


def parquet_row(path: str, row: int) -> bytes:
    _, starts = _parquet_file(path)
    group = next(g for g in range(len(starts) - 1) if row < starts[g + 1])
    image = _parquet_group(path, group)[row - starts[group]].as_py()
    data = image["bytes"] if isinstance(image, dict) else image
    return bytes(data or b"")
