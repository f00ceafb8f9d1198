"""Data sets of others: obtained by the downloader, from a package or by hand, and never used or
unpacked before their hashes are compared.
"""

import errno
import gzip
import hashlib
import io
import os
import random
import re
import shutil
import sys
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from alexnet.cli import main
from alexnet.data.prepare import prepare
from alexnet.data.sources import find
from alexnet.errors import DownloadError, SourceError, StoreError, UsageError
from alexnet.published import data, download
from alexnet.published.registry import DATA_SETS, FASHION_MNIST, DataSet, Published
from conftest import write_photos
from serving import Answer, Server

CONTENT = {"train-images.gz": b"pictures" * 99, "train-labels.gz": b"labels"}


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def authors(tmp_path: Path) -> Iterator[str]:
    """The address of a server that has the files."""
    (tmp_path / "authors").mkdir()
    for name, content in CONTENT.items():
        (tmp_path / "authors" / name).write_bytes(gzip.compress(content, 9, mtime=0))
    http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "authors")))
    thread = Thread(target=http.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{http.server_port}"
    http.shutdown()
    thread.join()
    http.server_close()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data set's folder. There is no apt-get."""
    monkeypatch.setattr(download, "PAUSES", ())
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "toys"


def data_set(address: str = "http://127.0.0.1:9", package: str | None = None) -> DataSet:
    files = []
    for name, content in CONTENT.items():
        packed = gzip.compress(content, 9, mtime=0)
        sums = [hashlib.sha256(one).hexdigest() for one in (packed, content)]
        files.append(
            Published(
                name=name,
                file=name,
                url=f"{address}/{name}",
                bytes=len(packed),
                sha256=sums[0],
                unpacked_sha256=sums[1],
                licence="none",
            )
        )
    return DataSet(name="toys", files=tuple(files), photos=(2,), classes=("ball", "kite"), package=package)


def holds_all(folder: Path) -> bool:
    return {name: gzip.decompress((folder / name).read_bytes()) for name in CONTENT} == CONTENT


def test_from_the_authors(authors: str, cache: Path) -> None:
    assert data.pull(data_set(authors, "dataset-toys")) == cache and holds_all(cache)
    assert sorted(path.name for path in cache.iterdir()) == ["classnames.txt", *sorted(CONTENT)]
    assert (cache / "classnames.txt").read_text() == "ball\nkite\n"
    assert data.pull(data_set()) == cache  # again: nobody is asked


def test_half_a_list_of_classes_never_has_its_name(authors: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Path.write_text

    def half(path: Path, text: str) -> int:
        whole(path, text[: len(text) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", half)
        with pytest.raises(DownloadError, match="No space left"):
            data.pull(data_set(authors))
    assert list(cache.iterdir()) == []
    assert holds_all(data.pull(data_set(authors)))


def test_what_is_there_stays_and_what_is_damaged_is_obtained_anew(authors: str, cache: Path) -> None:
    """A file counts by what it holds: a package's is compressed in another way."""
    cache.mkdir(parents=True)
    images, labels = CONTENT
    ours = gzip.compress(CONTENT[images], 1)
    (cache / images).write_bytes(ours)
    (cache / labels).write_bytes(gzip.compress(b"other"))
    data.pull(data_set(authors))
    assert (cache / images).read_bytes() == ours and holds_all(cache)


@pytest.mark.parametrize("there", [(), ("train-images.gz",)])
def test_no_way(cache: Path, there: tuple[str, ...]) -> None:
    """The error says what is missing, where to put it and what to do then; done so, it works."""
    cache.mkdir(parents=True)
    packed = {name: gzip.compress(content) for name, content in CONTENT.items()}
    for name in there:
        (cache / name).write_bytes(packed[name])
    missing = [name for name in CONTENT if name not in there]
    advice = f"put {', '.join(missing)} into {cache} yourself and run the same command again."
    with pytest.raises(DownloadError, match=f"{missing[0]} could not be downloaded: .*{re.escape(advice)}"):
        data.pull(data_set(package="dataset-toys"))
    for name in missing:
        (cache / name).write_bytes(packed[name])
    assert holds_all(data.pull(data_set()))


@pytest.mark.skipif(sys.platform == "win32", reason="packages of Debian")
def test_from_a_package(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """apt-get download and dpkg -x as two small programs that do what the
    real ones do to these files.
    """
    archive = tmp_path / "archive"
    archive.mkdir()
    for name, content in CONTENT.items():
        (archive / name).write_bytes(gzip.compress(content, 1))
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "apt-get").write_text('#!/bin/sh\n[ "$1 $2" = "download dataset-toys" ] && : > dataset-toys_1_all.deb\n')
    (tools / "dpkg").write_text(
        '#!/bin/sh\n[ "$1 $2 $3" = "-x dataset-toys_1_all.deb ." ] || exit 1\n'
        f'mkdir -p usr/share/datasets && cp -r "{archive}" usr/share/datasets/toys\n'
    )
    for tool in tools.iterdir():
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    assert holds_all(data.pull(data_set(package="dataset-toys")))
    assert "Fetching the package dataset-toys ..." in capfd.readouterr().err


# Archives of photos

PHOTOS = {"toys/ball/0.jpg": b"round" * 9000, "toys/kite/0.jpg": random.Random(1).randbytes(200_000), "toys/LICENSE.txt": b"x"}


def packed() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as file:
        for name, content in PHOTOS.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


ARCHIVE = packed()


def photos_of(address: str) -> DataSet:
    file = Published(
        name="toys",
        file="toy_photos.tgz",
        url=f"{address}/toy_photos.tgz",
        bytes=len(ARCHIVE),
        sha256=hashlib.sha256(ARCHIVE).hexdigest(),
        licence="none",
    )
    return DataSet(name="toys", files=(file,), unpacks="toys", photos=(2,), classes=("ball", "kite"))


@pytest.fixture
def toys(server: Server) -> DataSet:
    """A data set that the server has."""
    server.usual = Answer(body=ARCHIVE)
    return photos_of(server.url)


def is_unpacked(folder: Path) -> bool:
    """Whether the photos are there, and nothing else is left in the cache."""
    there = {str(path.relative_to(folder.parent)): path.read_bytes() for path in folder.parent.rglob("*") if path.is_file()}
    return there == PHOTOS


def test_an_archive_becomes_a_folder(toys: DataSet, cache: Path, server: Server, capfd: pytest.CaptureFixture[str]) -> None:
    assert not data.is_here(toys)
    assert data.pull(toys) == cache and is_unpacked(cache) and data.is_here(toys)
    said = capfd.readouterr().err
    assert f"Downloading toys, 0.2 MB, to {cache}. Licence: none." in said
    assert f"{cache} has 2 photos in 2 classes." in said and f"Removed {cache.parent / 'toy_photos.tgz'}" in said
    assert data.pull(toys) == cache and len(server.asked) == 1
    assert capfd.readouterr().err == ""


def test_a_finished_cache_may_be_read_only(toys: DataSet, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data.pull(toys)
    monkeypatch.setattr(download, "alone_in", None)  # it is not locked

    def refused(*_: object) -> None:
        raise PermissionError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "unlink", refused)
    assert data.pull(photos_of("http://127.0.0.1:9")) == cache


def test_a_cut_download_goes_on(toys: DataSet, cache: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the same command, and in the next one."""
    monkeypatch.setattr(download, "PAUSES", (0.01,))
    server.next += [Answer(body=ARCHIVE, cut_after=50_000)]
    server.next += [Answer(body=ARCHIVE, cut_after=1000)] + [Answer(503)] * 2
    with pytest.raises(DownloadError, match=r"0\.1 of 0\.2 MB are kept: the same command continues"):
        data.pull(toys)
    assert not data.is_here(toys) and not cache.exists()
    data.pull(toys)
    assert is_unpacked(cache) and server.ranges[-1] == "bytes=51000-"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (Answer(body=ARCHIVE[::-1]), "its SHA-256 is .* It was removed"),
        (Answer(body=ARCHIVE[:-9]), "has .* bytes, but the published one has"),
        (Answer(404), "the server answered 404"),
    ],
    ids=["hash", "length", "404"],
)
def test_wrong_archives_are_not_unpacked(toys: DataSet, cache: Path, server: Server, answer: Answer, message: str) -> None:
    server.usual = answer
    with pytest.raises(DownloadError, match=f"{message}.*put toy_photos.tgz into {cache.parent} yourself") as error:
        data.pull(toys)
    assert "run the same command again" in str(error.value) and not cache.exists()


def test_without_a_network_by_hand(cache: Path) -> None:
    cache.parent.mkdir()
    (cache.parent / "toy_photos.tgz").write_bytes(ARCHIVE)
    data.pull(photos_of("http://127.0.0.1:9"))
    assert is_unpacked(cache)


def test_another_file_put_there_by_hand(toys: DataSet, cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    cache.parent.mkdir()
    (cache.parent / "toy_photos.tgz").write_bytes(ARCHIVE[::-1])
    data.pull(toys)
    assert is_unpacked(cache) and "differs from the published file" in capfd.readouterr().err


def test_killed_between_download_and_unpacking(toys: DataSet, cache: Path, server: Server) -> None:
    """And while unpacking: the archive is there, so nobody is asked. After unpacking: it goes."""
    cache.parent.mkdir()
    archive = cache.parent / "toy_photos.tgz"
    archive.write_bytes(ARCHIVE)
    (cache.parent / ".toys.unpacking" / "toys" / "ball").mkdir(parents=True)
    data.pull(toys)
    archive.write_bytes(ARCHIVE)
    data.pull(toys)
    assert is_unpacked(cache) and server.asked == []


def test_room_for_the_archive_and_the_photos(
    toys: DataSet, cache: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said before the download begins; a whole archive needs room for the photos only."""
    free = len(ARCHIVE) + 1000
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": free}))
    with pytest.raises(DownloadError, match="toys does not fit into .*: 0.4 MB more are needed, .* 0.2 MB are free"):
        data.pull(toys)
    assert server.asked == []
    (cache.parent / "toy_photos.tgz").write_bytes(ARCHIVE)
    data.pull(toys)
    assert is_unpacked(cache)


def test_a_cache_that_cannot_be_made(toys: DataSet, cache: Path) -> None:
    cache.parent.write_text("a file")
    with pytest.raises(DownloadError, match="cannot be written .*set ALEXNET_CACHE"):
        data.pull(toys)


def test_two_at_once(toys: DataSet, cache: Path, server: Server) -> None:
    """One downloads and unpacks, the other waits and finds it done."""
    with ThreadPoolExecutor(3) as threads:
        assert set(threads.map(lambda _: data.pull(toys), range(3))) == {cache}
    assert is_unpacked(cache) and len(server.asked) == 1


# The entries


def test_names() -> None:
    assert data.names() == ("flowers", "imagenette", "imagenette-320", "imagenette-160", "fashion-mnist")
    assert data.get_data_set("flowers").unpacks == "flower_photos"
    with pytest.raises(UsageError, match="no published data set is called 'flower': did you mean 'flowers'?"):
        data.get_data_set("flower")


def test_the_errors_to_expect_are_those_of_records() -> None:
    """To the digits that are given."""
    records = Path(__file__).parents[2] / "records"
    for entry in DATA_SETS:
        assert (entry.error is None) == (entry.record is None)
        if entry.record:
            text = (records / entry.record / "README.md").read_text()
            mean = re.search(r"mean ± deviation.*?\| ([\d.]+) ± ", text)
            assert mean and round(float(mean[1]), 1) == entry.error


def test_entries_are_sound() -> None:
    """Hashes, an address to download from, and names that `prepare` finds in a folder."""
    for entry in DATA_SETS:
        assert len(set(entry.classes)) == len(entry.classes) and entry.bytes == sum(file.bytes for file in entry.files)
        for file in entry.files:
            assert re.fullmatch(r"[0-9a-f]{64}", file.sha256) and file.bytes > 0 and file.licence
            assert file.url.endswith(f"/{file.file}") and download._address(file.url)
    for file in FASHION_MNIST.files:
        assert re.fullmatch(r"[0-9a-f]{64}", file.sha256) and re.fullmatch(r"[0-9a-f]{64}", file.unpacked_sha256 or "")
        assert file.url.endswith(f"/{file.file}") and download._address(file.url)
    assert len({file.sha256 for file in FASHION_MNIST.files}) == 4 and len(set(FASHION_MNIST.classes)) == 10


def test_fashion_mnist_is_a_source(cache: Path) -> None:
    """Tiny files of these names: both parts and the names of the classes are found."""
    cache.mkdir(parents=True)
    for split in ("train", "t10k"):
        for kind, shape in (("images-idx3", (10, 2, 2)), ("labels-idx1", (10,))):
            header = bytes([0, 0, 8, len(shape)]) + b"".join(side.to_bytes(4, "big") for side in shape)
            body = bytes(range(10)) * (4 if len(shape) == 3 else 1)
            (cache / f"{split}-{kind}-ubyte.gz").write_bytes(gzip.compress(header + body))
    files = [
        replace(file, unpacked_sha256=hashlib.sha256(gzip.decompress((cache / file.file).read_bytes())).hexdigest())
        for file in FASHION_MNIST.files
    ]
    source = find([data.pull(replace(FASHION_MNIST, name="toys", files=tuple(files), package=None))])
    assert tuple(source.classes) == FASHION_MNIST.classes and set(source.splits) == {"train", "test"}


# A name where a source is taken


def test_a_name_is_a_source(toys: DataSet, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Downloaded when it is needed, and not again."""
    monkeypatch.setattr(data, "DATA_SETS", (toys,))
    monkeypatch.chdir(tmp_path)
    assert data.source_of("toys") == data.source_of(Path("toys")) == cache and is_unpacked(cache)
    assert data.source_of("photos/toys") == Path("photos/toys")  # a path, which the source refuses


def test_a_folder_of_that_name_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: Any) -> None:
    monkeypatch.chdir(tmp_path)
    Path("flowers").mkdir()
    assert data.source_of("flowers") == Path("flowers")
    assert capfd.readouterr().err == f"Using {tmp_path / 'flowers'}, not the published data set of that name.\n"


def test_neither_a_folder_nor_a_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match=r"flwers does not exist, and no data set has that name: did you mean 'flowers'\?"):
        prepare("flwers", "store")


def test_prepare_by_name(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    """A store that is finished is refused before anything is downloaded."""
    write_photos(tmp_path / "toys", 3)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as file:
        file.add(tmp_path / "toys", "toys")
    content = buffer.getvalue()
    server.usual = Answer(body=content)
    entry = photos_of(server.url)
    archive = replace(entry.files[0], bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(data, "DATA_SETS", (replace(entry, files=(archive,), photos=(9,)),))
    monkeypatch.chdir(tmp_path / "toys")
    store = prepare("toys", tmp_path / "store", size=32)
    assert store.classes == ("blue", "green", "red") and len(server.asked) == 1
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(StoreError, match="already a finished store"):
        prepare(["toys"], tmp_path / "store", size=32)
    assert len(server.asked) == 1


def test_the_verb(toys: DataSet, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(data, "DATA_SETS", (toys, replace(FASHION_MNIST, error=None)))
    main(["data", "list"])
    out, err = capsys.readouterr()
    assert re.search(r"^toys +0\.2 +2 +2 +- +no +none$", out, re.MULTILINE) and err == "Next: alexnet data pull toys\n"
    assert "60,000 + 10,000" in out
    main(["data", "list", "toys"])
    out, err = capsys.readouterr()
    file = toys.files[0]
    for part in (file.url, file.sha256, f"{file.bytes:,} bytes", "ball, kite", f"put it into {cache.parent} and pull"):
        assert part in out
    main(["data", "pull", "toys"])
    out, err = capsys.readouterr()
    assert out == f"{cache}\n" and err.endswith("Next: alexnet prepare toys store\n")
    main(["data", "list", "toys"])
    assert f"here: {cache}" in capsys.readouterr().out
