"""Recognise a source of photos: folders, tars, parquet, IDX.

`find` examines the paths it is given and returns a `Source`: class names, and for each split a list
of `Item`s. An item says where its bytes are (a file, a span of a tar, a row of a parquet file, a
row of an IDX array), so that any process can read any item without the others: `prepare` decodes on
all cores and resumes in the middle.

| source | recognised by | splits | classes |
|---|---|---|---|
| a folder per class | folders of files | `train` and `val` or `test`, or none | folder names |
| a table of labels | `labels=` | a third column, or none | its texts |
| ILSVRC2012 as downloaded | a tar of tars | the tars | what WordNet ids mean |
| WebDataset shards | tars of `KEY.jpg`, `KEY.cls` | `train`, `val` in names | numbers, or names |
| parquet (Hugging Face) | `.parquet` | `train`, `validation` in names | the schema's names |
| IDX (MNIST) | `*-images-idx3-ubyte[.gz]` | `train-`, `t10k-` | numbers, or names |

Classes are sorted; names of numbered ones come from `classnames.txt`. Where all are WordNet ids of
ImageNet's classes, the names are the words that these mean.

Splits have other names too (`splits.WORDS`: Training, seg_test, holdout ...); `train=` and `test=`
name them whatever they are called. Whatever is left out or guessed is reported, one line per
reason.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from alexnet.address import DOWNLOAD, not_here, was_address
from alexnet.console import say
from alexnet.data.sources.folders import folders, nothing_found
from alexnet.data.sources.idx import IMAGES, check_one_set, idx, without_copies
from alexnet.data.sources.ilsvrc import ilsvrc
from alexnet.data.sources.parquet import parquet
from alexnet.data.sources.source import TRAIN, Source, list_of
from alexnet.data.sources.splits import by_split, folder_split, has_pictures, holds_picture, split_folders
from alexnet.data.sources.table import labelled
from alexnet.data.sources.tars import members_of
from alexnet.data.sources.walk import LeftOut, files_in, folders_in
from alexnet.data.sources.webdataset import webdataset
from alexnet.errors import SourceError
from alexnet.phrases import quoted
from alexnet.published import imagenet

#: Folders that repositories keep their data in.
WRAPPERS = {"data", "dataset", "images"}
Kinds = dict[str, list[Path]]


def find(
    paths: Sequence[Path] = (),
    *,
    train: Path | None = None,
    test: Path | None = None,
    labels: Path | None = None,
    image: str | None = None,
) -> Source:
    """Recognise what `paths` hold, or what `train` and `test` hold.

    Args:
        paths: a folder, or files.
        train: instead of `paths`: the training part, whatever its name. Folders in it are classes.
        test: the part to test with.
        labels: a table that says the class of each photo in the one folder of `paths`.
        image: ending of the picture to take where a key of a WebDataset shard
            has several, such as "png".

    Raises:
        SourceError: nothing there, nothing known, several kinds at once, or it is
            unclear which part is which.
    """
    left_out = LeftOut()
    if labels:
        source = _find_labelled(paths, [part for part in (train, test) if part], labels, left_out)
    elif train or test:
        source = _find_parts(paths, train, test, image, left_out)
    else:
        source = _recognise(_different(paths), image, left_out)
    if image and source.kind != "WebDataset shards":
        raise SourceError(f"--image applies to WebDataset shards only, and this source is {source.kind}: drop --image.")
    for line in left_out.lines():
        say(line)
    named = list_of(paths or [part for part in (train, test) if part])
    return _check(source, f"the {source.kind}" if labels else f"the {source.kind} {named}")


def _find_labelled(paths: Sequence[Path], parts: Sequence[Path], labels: Path, left_out: LeftOut) -> Source:
    """The source of photos whose classes are in a table."""
    if parts:
        raise SourceError(
            f"--labels {labels} is for one folder of photos, not for splits: drop --train and --test. A third column of the "
            "table may hold the split: train, val or test."
        )
    if len(paths) != 1 or not paths[0].is_dir():
        raise SourceError(f"--labels {labels} needs one folder of photos, but the source is {list_of(paths)}: name the folder.")
    return labelled(paths[0], labels, left_out)


def _find_parts(paths: Sequence[Path], train: Path | None, test: Path | None, image: str | None, left_out: LeftOut) -> Source:
    """The source whose splits are named one by one."""
    if paths:
        raise SourceError(f"name either the source ({list_of(paths)}) or its splits with --train and --test, not both.")
    if not train:
        raise SourceError(f"--test {test} names the test split only: name the training split too, with --train.")
    parts = {TRAIN: train} | ({"test": test} if test else {})
    if test and os.path.realpath(train) == os.path.realpath(test):
        raise SourceError(f"--train and --test are both {train}: a network must be tested on pictures that it has not seen.")
    kinds = {split: _one_kind([path], left_out) for split, path in parts.items()}
    if len({kind for kind, _ in kinds.values()}) > 1:
        raise SourceError(
            " and ".join(f"{parts[split]} holds {kind}" for split, (kind, _) in kinds.items())
            + ": both splits must be of the same kind."
        )
    kind = kinds[TRAIN][0]
    if kind == "folder":
        return folders(parts, None, left_out)
    for split, (_, files) in kinds.items():
        if len(mixed := by_split(files)) > 1:
            raise SourceError(
                f"{parts[split]} holds files of several splits ({', '.join(mixed)}): name a file, or another folder."
            )
    return _of_files(kind, {split: files for split, (_, files) in kinds.items()}, list(parts.values()), image, left_out)


def _recognise(paths: Sequence[Path], image: str | None, left_out: LeftOut) -> Source:
    """The source in `paths`."""
    kind, entries = _one_kind(paths, left_out)
    if kind != "folder":
        return _of_files(kind, by_split(entries), paths, image, left_out)
    if len(paths) > 1:
        raise SourceError(f"{list_of(paths)}: name a single folder; it may hold train/ and val/.")
    root = paths[0]
    if inner := _wrapped(entries):
        others = [folder.name for folder in entries if folder != inner]
        left_out.note(f"Using {inner}{', leaving out ' + ', '.join(others) + ' next to it' if others else ''}.")
        return _recognise([inner], image, left_out)
    splits = split_folders(root, entries, left_out)
    return folders({split: _unnested(folder, split) for split, folder in splits.items()}, root, left_out)


def _of_files(kind: str, splits: dict[str, list[Path]], paths: Sequence[Path], image: str | None, left_out: LeftOut) -> Source:
    """The source of files whose splits are known."""
    if kind == "parquet":
        return parquet(splits, left_out)
    if kind == "idx":
        return idx(splits, left_out)
    contents = {path: members_of(path, left_out) for files in splits.values() for path in files}
    if empty := [path for path, members in contents.items() if not members]:
        raise SourceError(f"{list_of(empty)} holds no files: name a folder of photos.")
    if any(members[0].name.endswith(".tar") for members in contents.values()):
        return ilsvrc(contents, paths, left_out)
    return webdataset(splits, contents, image, left_out)


# --- which kind -----------------------------------------------------------------------------------


def _one_kind(paths: Sequence[Path], left_out: LeftOut) -> tuple[str, list[Path]]:
    """The kind of source, and its files or class folders."""
    for path in paths:
        if was_address(path) or not path.exists():
            remedy = f"{DOWNLOAD}, or prepare them into a store, whose address --data takes"
            raise SourceError(not_here(path, "photos", remedy))
    kinds = _kinds(paths, left_out)
    if set(kinds) == {"folder"}:
        kinds = _shards_in_splits(kinds["folder"]) or kinds
    elif "folder" in kinds and not any(map(holds_picture, kinds["folder"])):
        del kinds["folder"]  # a repository's other folders
    if not kinds:
        raise SourceError(nothing_found(paths[0]) if paths[0].is_dir() else _unknown(paths))
    if len(kinds) > 1:
        raise SourceError(
            f"{list_of(paths)} holds several kinds of sources, {' and '.join(kinds)}: name the files of one of them."
        )
    ((kind, entries),) = kinds.items()
    if kind == "idx":
        entries = without_copies(entries, left_out)
        check_one_set(entries)
    return kind, entries


def _kinds(paths: Sequence[Path], left_out: LeftOut) -> Kinds:
    """The files directly in the folders of `paths`, and those named by `paths`, by kind."""
    files = [file for path in paths for file in (files_in(path) if path.is_dir() else [path])]
    folders = [folder for path in paths if path.is_dir() for folder in folders_in(path, left_out, paths)]
    kinds = {
        "parquet": [file for file in files if file.suffix == ".parquet"],
        "tar": [file for file in files if file.name.endswith((".tar", ".tar.gz", ".tgz")) and "devkit" not in file.name],
        "idx": [file for file in files if IMAGES.search(file.name)],
        "folder": [folder for folder in folders if "devkit" not in folder.name] if all(map(Path.is_dir, paths)) else [],
    }
    return {kind: entries for kind, entries in kinds.items() if entries}


def _shards_in_splits(folders: Sequence[Path]) -> Kinds:
    """Tars and parquet files in folders `train`, `val` ... instead of side by side."""
    inside = _kinds([folder for folder in folders if folder_split(folder.name)], LeftOut())
    # A folder train/ of class tars does not hold shards: their members are pictures without labels,
    # which `_of_files` recognises.
    return {kind: entries for kind, entries in inside.items() if kind in ("tar", "parquet")}


def _wrapped(folders: Sequence[Path]) -> Path | None:
    """The one of `folders` that is the source, inside a repository or an archive's outermost
    folder.
    """
    named = [folder for folder in folders if folder.name.lower() in WRAPPERS]
    if len(named) == 1 and not any(holds_picture(folder) for folder in folders if folder not in named):
        (inner,) = named
        return inner if _kinds([inner], LeftOut()) and not has_pictures(inner) else None
    if len(folders) == 1:
        (inner,) = folders
        kinds = _kinds([inner], LeftOut())
        splits = {folder_split(folder.name) for folder in kinds.pop("folder", [])}
        return inner if kinds or (TRAIN in splits and not folder_split(inner.name)) else None
    return None


def _unnested(folder: Path, split: str) -> Path:
    """seg_train/seg_train, as some archives unpack: the inner one."""
    inside = folders_in(folder, LeftOut())
    alone = len(inside) == 1 and folder_split(inside[0].name) == split and not has_pictures(folder)
    return inside[0] if alone else folder


def _different(paths: Sequence[Path]) -> list[Path]:
    """Each path once."""
    return list({os.path.realpath(path): path for path in reversed(paths)}.values())[::-1]


def _unknown(paths: Sequence[Path]) -> str:
    return f"{list_of(paths)} holds no tar, parquet or IDX files: name a folder that holds one folder per class."


def _check(source: Source, where: str) -> Source:
    """Refuse what cannot be trained on: no train split, one class, a class without a picture.

    Args:
        where: the source in words, for messages.
    """
    splits = {name: items for name, items in source.splits.items() if items}
    if not splits:
        inside = (
            "expected JPEG, PNG, WebP, AVIF, HEIC, GIF, BMP, TIFF or PNM files, those of each class in a folder of their own. "
            "Put photos there, or name another folder."
        )
        raise SourceError(f"found no pictures in {where}: {inside if source.kind == 'folder' else 'name another source.'}")
    if TRAIN not in splits:
        raise SourceError(
            f"found the split {', '.join(splits)} in {where} but no {TRAIN}: name the training split too (--train PATH)."
        )
    if len(source.classes) < 2:
        inside = " If the folders inside it are the classes, name that folder as the source." * (source.kind == "folder")
        raise SourceError(
            f"found only one class in {where} ({quoted(source.classes)}): a classifier needs at least two. "
            f"Add {'a folder with photos' if source.kind == 'folder' else 'photos'} of another class.{inside}"
        )
    present = {item.label for item in splits[TRAIN]}
    missing = [name for label, name in enumerate(source.classes) if label not in present]
    if missing:
        raise SourceError(
            f"no training picture in {len(missing)} of {len(source.classes)} classes: "
            f"{quoted(missing)}. Add pictures or remove the class."
        )
    return _with_readable_names(replace(source, splits=splits))


def _with_readable_names(source: Source) -> Source:
    """The source with words for classes in place of ImageNet's WordNet ids; their order stays."""
    names = imagenet.readable(source.classes)
    if names == source.classes:
        return source
    say(f"The classes are named by WordNet ids, which mean {quoted(names, 3)}: these names are used, in the order of the ids.")
    return replace(source, classes=names)
