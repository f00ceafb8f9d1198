"""Where photos come from: folders, tars, parquet, IDX.

`find` looks at what it is given and returns a `Source`: class names, and for each split a list of `Item`s. An item says where
its bytes are (a file, a span of a tar, a row of a parquet file, a row of an IDX array), so that any process can read any item
without the others: `prepare` decodes on all cores and resumes in the middle.

| source | recognised by | splits | classes |
|---|---|---|---|
| a folder per class | folders of files | `train` and `val` (`validation`, `test`) folders, or none | folder names, sorted |
| ILSVRC2012 as downloaded | a tar of tars | the tars | WordNet ids, sorted |
| WebDataset shards | tars of `KEY.jpg`, `KEY.cls` | `train`, `val` in the names | numbers, or `classnames.txt` |
| image parquet (Hugging Face) | `.parquet` | `train`, `validation` in the names | the schema's names |
| IDX (the MNIST family) | `*-images-idx3-ubyte[.gz]` | `train-`, `t10k-` | numbers, or `classnames.txt` |
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from alexnet.data.sources.folders import folders
from alexnet.data.sources.idx import idx
from alexnet.data.sources.ilsvrc import ilsvrc
from alexnet.data.sources.parquet import parquet
from alexnet.data.sources.source import TRAIN, Source, list_of, nothing_found, visible, whole_split_name
from alexnet.data.sources.tars import members_of, webdataset
from alexnet.errors import SourceError


def find(paths: Sequence[Path]) -> Source:
    """Recognise what `paths` hold.

    Raises:
        SourceError: nothing there, nothing known, or several kinds at once.
    """
    for path in paths:
        if not path.exists():
            raise SourceError(f"{path} does not exist.")
    files = [entry for path in paths for entry in (visible(path) if path.is_dir() else [path])]
    kinds = {
        "parquet": [f for f in files if f.suffix == ".parquet" and f.is_file()],
        "tar": [f for f in files if f.name.endswith((".tar", ".tar.gz", ".tgz")) and "devkit" not in f.name],
        "idx": [f for f in files if re.search(r"images[-.]idx3-ubyte(\.gz)?$", f.name)],
        "folder": [f for f in files if f.is_dir() and "devkit" not in f.name] if all(path.is_dir() for path in paths) else [],
    }
    if not any(kinds["parquet"] + kinds["tar"] + kinds["idx"]) and kinds["folder"]:
        kinds |= _shards_in_splits(kinds["folder"])
    found = [kind for kind in kinds if kinds[kind]]
    if not found:
        raise SourceError(nothing_found(paths, files))
    if len(found) > 1:
        raise SourceError(f"{list_of(paths)} holds {' and '.join(found)} sources at once: name the files of one of them.")
    match found[0]:
        case "parquet":
            source = parquet(kinds["parquet"])
        case "tar":
            source = _tars(kinds["tar"], paths)
        case "idx":
            source = idx(kinds["idx"])
        case _:
            source = folders(paths)
    return _check(source)


def _tars(tars: Sequence[Path], paths: Sequence[Path]) -> Source:
    contents = {path: members_of(path) for path in tars}
    empty = [path for path, members in contents.items() if not members]
    if empty:
        raise SourceError(f"{list_of(empty)} holds no files.")
    if any(members[0].name.endswith(".tar") for members in contents.values()):
        return ilsvrc(contents, paths)
    return webdataset(contents)


def _shards_in_splits(folders: Sequence[Path]) -> dict[str, list[Path]]:
    """Tars and parquet files that lie in folders `train`, `val` ... instead of side by side."""
    inside = [file for folder in folders if whole_split_name(folder.name) for file in visible(folder)]
    tars = [file for file in inside if file.suffix == ".tar"]
    parquet = [file for file in inside if file.suffix == ".parquet"]
    # A folder train/ of class tars is no shard list: their members are pictures without labels, told apart in `_tars`.
    return {"tar": tars, "parquet": parquet, "folder": []} if tars or parquet else {}


def _check(source: Source) -> Source:
    """Refuse what cannot be trained on: no train split, one class, a class without a picture."""
    splits = {name: items for name, items in source.splits.items() if items}
    if not splits:
        raise SourceError(f"the {source.kind} holds no pictures.")
    if TRAIN not in splits:
        raise SourceError(f"the {source.kind} has a split {', '.join(splits)} but no {TRAIN}: name the training part too.")
    if len(source.classes) < 2:
        raise SourceError(
            f"the {source.kind} has one class only ({', '.join(source.classes)}): a classifier needs at least two."
        )
    present = {item.label for item in splits[TRAIN]}
    missing = [name for label, name in enumerate(source.classes) if label not in present]
    if missing:
        raise SourceError(
            f"no picture to train on in {len(missing)} of {len(source.classes)} classes: "
            f"{', '.join(map(repr, missing[:5]))}{' ...' if len(missing) > 5 else ''}. Add pictures or remove the class."
        )
    return replace(source, splits=splits)
