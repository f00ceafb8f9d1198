"""ILSVRC2012 as downloaded: a tar of tars to train on, a tar to validate, and its ground truth."""

import io
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from alexnet.data.sources.source import CLASS_NAMES_FILE, TRAIN, Item, Source, list_of
from alexnet.data.sources.splits import split_of
from alexnet.data.sources.tars import members_of
from alexnet.data.sources.walk import LeftOut, files_in, folders_in, walk
from alexnet.errors import SourceError
from alexnet.files import open_regular
from alexnet.text import decode_text, read_text

#: The kit's lists and tables have less than a megabyte.
MAX_KIT_BYTES = 2**26


def ilsvrc(contents: dict[Path, list[tarfile.TarInfo]], paths: Sequence[Path], left_out: LeftOut) -> Source:
    """ILSVRC2012: a training tar of one tar a class, and a validation tar whose labels
    are in a list beside it."""
    nested = [path for path, members in contents.items() if members[0].name.endswith(".tar")]
    if len(nested) > 1:
        raise SourceError(f"{list_of(nested)}: found more than one training tar (a tar of tars); name one of them.")
    classes = tuple(sorted(Path(member.name).stem for member in contents[nested[0]]))
    labels = {name: label for label, name in enumerate(classes)}
    train = [
        Item(picture.name, labels[Path(member.name).stem], str(nested[0]), "span", picture.offset_data, picture.size)
        for member in sorted(contents[nested[0]], key=lambda member: member.name)
        for picture in members_of(nested[0], left_out, member.offset_data, member.size)
    ]
    splits = {TRAIN: train}
    for path in contents:
        if path not in nested and split_of(path.stem) != "test":  # the test tar's labels were never published
            pictures = sorted(contents[path], key=lambda member: member.name)
            truth = _ground_truth(path, paths, labels, [Path(picture.name).name for picture in pictures])
            if len(truth) != len(pictures):
                raise SourceError(
                    f"{path} holds {len(pictures)} pictures, but its ground truth has {len(truth)} labels: download both again."
                )
            splits["val"] = [
                Item(picture.name, label, str(path), "span", picture.offset_data, picture.size)
                for picture, label in zip(pictures, truth, strict=True)
            ]
    return Source("ILSVRC2012 tars", classes, splits)


def _ground_truth(tar: Path, paths: Sequence[Path], labels: dict[str, int], pictures: Sequence[str]) -> list[int]:
    """Labels of the validation pictures in the order of their names.

    Three lists are in use: the kit's (one devkit id a line, which needs the kit's table of ids),
    Caffe's `val.txt` ("NAME index" with indices of sorted WordNet ids) and "NAME wordnet-id".
    """
    folders = {path if path.is_dir() else path.parent: None for path in (*paths, tar)}
    beside = [entry for folder in folders for entry in (*files_in(folder), *folders_in(folder, LeftOut()))]
    kits = [entry for entry in beside if "devkit" in entry.name]
    texts = [entry for entry in beside if entry.suffix == ".txt" and entry.name != CLASS_NAMES_FILE]
    truth = [text for text in texts if "ground_truth" in text.name or split_of(text.stem) == "val"]
    if truth:
        lines = read_text(truth[0], SourceError).split("\n")
    elif kits:
        lines = decode_text(_from_kit(kits[0], "ILSVRC2012_validation_ground_truth.txt"))[0].split("\n")
    else:
        raise SourceError(
            f"{tar} holds pictures without labels: put ILSVRC2012_devkit_t12.tar.gz, or a val.txt "
            "with a line 'NAME label' for each picture, next to it."
        )
    words = [line.split() for line in lines if line.strip()]
    if words and all(len(line) == 2 for line in words):
        by_name = {Path(name).name: label for name, label in words}
        missing = [name for name in pictures if name not in by_name]
        if len(by_name) == len(pictures) and missing:
            raise SourceError(f"{truth[0]} has no label for {missing[0]}: it lists other files, such as {words[0][0]}.")
        values = [label for _, label in sorted(by_name.items())]
        if not all(value.isascii() and value.isdigit() and len(value) < 10 for value in values):
            return [labels[_known(value, labels, tar)] for value in values]
        if beyond := [value for value in values if int(value) >= len(labels)]:
            raise SourceError(f"{truth[0]} has a label {beyond[0]}: {len(labels)} classes are counted from 0.")
        return [int(value) for value in values]
    if not kits:
        raise SourceError(
            f"{truth[0]} numbers classes by the kit's ids: put ILSVRC2012_devkit_t12.tar.gz, which "
            "has the table of ids, next to it."
        )
    synsets = _kit_synsets(kits[0])
    return [labels[_known(synsets.get(line[0], line[0]), labels, tar)] for line in words]


def _known(name: str, labels: dict[str, int], tar: Path) -> str:
    if name not in labels:
        raise SourceError(f"{tar}: class {name!r} of the ground truth is not among the training tar's classes.")
    return name


def _from_kit(kit: Path, name: str) -> bytes:
    """A file of the development kit, which is a folder or a tar."""
    content = _from_folder(kit, name) if kit.is_dir() else _from_tar(kit, name)
    if content is None:
        raise SourceError(f"{kit} holds no {name}: expected the development kit of ILSVRC2012, tasks 1 and 2.")
    return content


def _from_folder(kit: Path, name: str) -> bytes | None:
    for file in walk(kit, LeftOut()):
        if Path(file).name == name:
            with open_regular(file) as opened:
                return opened.read(MAX_KIT_BYTES)
    return None


def _from_tar(kit: Path, name: str) -> bytes | None:
    try:
        with tarfile.open(kit, "r:*") as tar:
            for member in tar:
                if Path(member.name).name == name and (file := tar.extractfile(member)):
                    return file.read(MAX_KIT_BYTES)
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise SourceError(f"{kit} cannot be read ({error}): download it again.") from error
    return None


def _kit_synsets(kit: Path) -> dict[str, str]:
    """Devkit id -> WordNet id, from the kit's meta.mat."""
    try:
        from scipy.io import loadmat
    except ImportError:
        raise SourceError("reading the kit's meta.mat needs SciPy: pip install 'alexnet[ilsvrc]'.") from None
    table = loadmat(io.BytesIO(_from_kit(kit, "meta.mat")), squeeze_me=True)["synsets"]
    return {str(int(row["ILSVRC2012_ID"])): str(row["WNID"]) for row in table}
