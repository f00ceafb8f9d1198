"""The data sets that others publish: how they get here, and a word on the command line that names
one.

A data set is a folder in the cache. Files such as Fashion-MNIST's are read where they are. An
archive of photos is unpacked once and then removed: the photos take as much space as it did.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from alexnet.console import say
from alexnet.errors import DownloadError, SourceError, UsageError, nearest
from alexnet.files import replacing
from alexnet.phrases import counted
from alexnet.published import download
from alexnet.published.registry import DATA_SETS, MB, DataSet, Published, cache_folder, size
from alexnet.published.unpack import Limits, unpack

CLASS_NAMES_FILE = "classnames.txt"
HEADERS = 4096  # bytes of a tar for a member, beside its content


def names() -> tuple[str, ...]:
    """The names that `get_data_set` accepts."""
    return tuple(data.name for data in DATA_SETS)


def get_data_set(name: str) -> DataSet:
    """The data set of that name.

    Raises:
        UsageError: an unknown name; the message lists the known ones.
    """
    for data in DATA_SETS:
        if data.name == name:
            return data
    raise UsageError(f"no published data set is called {name!r}: {nearest(name, names())}")


def is_here(data: DataSet) -> bool:
    """Whether the cache has it; `pull` also compares the hashes of files that are not unpacked."""
    folder = cache_folder() / data.name
    if data.unpacks:
        return folder.is_dir() and any(folder.iterdir())
    return all(size(folder / file.file) for file in data.files)


def place_of_files(data: DataSet) -> Path:
    """The folder that its files are downloaded to, and may be put into by hand."""
    return cache_folder() if data.unpacks else cache_folder() / data.name


def rows() -> list[dict[str, Any]]:
    """A row for each data set: name, mb, photos, classes (numbers), error (per cent or None),
    here (whether the cache has it), licence."""
    return [
        {
            "name": data.name,
            "mb": round(data.bytes / MB, 1),
            "photos": data.photos,
            "classes": len(data.classes),
            "error": data.error,
            "here": is_here(data),
            "licence": data.files[0].licence,
        }
        for data in DATA_SETS
    ]


def pull(data: DataSet) -> Path:
    """Obtain a data set. Run again after an interruption, it continues; once it is here, it
    needs no network.

    Returns:
        Its folder in the cache, a source for `alexnet prepare`.

    Raises:
        DownloadError: there was no way to a file; the message says which are missing, and where
            to put them. Or the disk has no room, or an archive holds what it must not.
    """
    folder = cache_folder() / data.name
    try:
        if not data.unpacks:
            _pull_files(data, folder)
            return folder
        if not is_here(data):
            with download.alone_in(folder.parent):
                if not is_here(data):  # another process may have unpacked it meanwhile
                    _pull_archive(data, folder)
        _remove_archive(data, folder)
    except OSError as error:
        raise download.unwritable(folder, error) from error
    return folder


def source_of(path: str | Path) -> Path:
    """A path where photos come from, or the folder of the data set that it names; what is not here
    is downloaded.

    A file or folder of that name comes first, and that is said.

    Raises:
        SourceError: it does not exist, and is not a data set's name either.
        DownloadError: as `pull`.
    """
    path = Path(path)
    if path.exists() or len(path.parts) != 1 or path.suffix:
        if str(path) in names():
            say(f"Using {path.absolute()}, not the published data set of that name.")
        return path
    if str(path) not in names():
        raise SourceError(f"{path} does not exist, and no data set has that name: {nearest(path, names())}")
    return pull(get_data_set(str(path)))


# --- an archive -----------------------------------------------------------------------------------


def _pull_archive(data: DataSet, folder: Path) -> None:
    (file,) = data.files
    archive = folder.with_name(file.file)
    _check_space(file, archive)
    if size(archive) != file.bytes:
        say(f"Downloading {data.name}, {file.bytes / MB:.1f} MB, to {folder}. Licence: {file.licence}.")
    download.fetch(_by_hand(file, [file], folder.parent), archive)
    assert data.unpacks
    members = 2 * sum(data.photos) + 1000  # macOS writes two for a file
    unpack(archive, data.unpacks, folder, Limits(members=members, bytes=2 * file.bytes + HEADERS * members))
    say(f"{folder} has {counted(sum(data.photos), 'photo')} in {counted(len(data.classes), 'class')}.")


def _remove_archive(data: DataSet, folder: Path) -> None:
    """Remove an archive that is unpacked; a process may have been killed before it did so."""
    for file in data.files:
        archive = folder.with_name(file.file)
        with suppress(OSError):  # in a cache that cannot be written
            archive.unlink()
            say(f"Removed {archive}, which is unpacked.")


def _check_space(file: Published, archive: Path) -> None:
    """Refuse a disk without room for the archive and, beside it, the photos: they are compressed
    already, so they take as much again.
    """
    here = max(size(archive), size(archive.with_name(f"{archive.name}.part")))
    needed, free = 2 * file.bytes - min(here, file.bytes), shutil.disk_usage(archive.parent).free
    if needed > free:
        raise DownloadError(
            f"{file.name} does not fit into {archive.parent}: {needed / MB:.1f} MB more are needed, half of them until its "
            f"archive is unpacked and removed, {free / MB:.1f} MB are free. Free some space, or set ALEXNET_CACHE to another "
            "disk's folder, and pull again."
        )


# --- files ----------------------------------------------------------------------------------------


def _pull_files(data: DataSet, folder: Path) -> None:
    """What the cache lacks comes from the system's package if that can be had, else from the
    authors.
    """
    folder.mkdir(parents=True, exist_ok=True)
    listed = "\n".join(data.classes) + "\n"
    if not (folder / CLASS_NAMES_FILE).exists() or (folder / CLASS_NAMES_FILE).read_text(errors="replace") != listed:
        with replacing(folder / CLASS_NAMES_FILE) as temporary:
            temporary.write_text(listed)
    missing = _missing(data, folder)
    if missing and data.package:
        _from_package(data.package, folder, missing)
        missing = _missing(data, folder)
    for number, file in enumerate(missing):
        download.pull(_by_hand(file, missing[number:], folder), cache=folder)


def _by_hand(file: Published, missing: Sequence[Published], folder: Path) -> Published:
    """The entry with advice for a machine without a network."""
    listed = ", ".join(one.file for one in missing)
    return replace(file, elsewhere=f"put {listed} into {folder} yourself and run the same command again.")


def _missing(data: DataSet, folder: Path) -> list[Published]:
    return [file for file in data.files if not download.is_whole(file, folder / file.file)]


def _from_package(package: str, folder: Path, files: list[Published]) -> None:
    """Copy files out of a package, installed or fetched by apt-get, which needs no root;
    none if neither is possible.
    """
    inside = Path("usr/share/datasets") / folder.name
    with suppress(OSError, subprocess.SubprocessError), tempfile.TemporaryDirectory() as temporary:
        root = Path("/")
        if not (root / inside).exists() and shutil.which("apt-get"):
            say(f"Fetching the package {package} ...")
            root = Path(temporary)
            fetch = f"apt-get download {package} && dpkg -x {package}_*.deb ."
            subprocess.run(["sh", "-c", fetch], cwd=root, capture_output=True, timeout=600, check=True)
        for file in files:
            with replacing(folder / file.file) as part:
                shutil.copyfile(root / inside / file.file, part)
