"""Data sets of others: obtained by the downloader, from a package or by hand, and never used before
their hashes are compared.
"""

import gzip
import hashlib
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from alexnet.data.sources import find
from alexnet.errors import DownloadError
from alexnet.published import data, download
from alexnet.published.data import FASHION_MNIST, DataSet
from alexnet.published.registry import Published

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
    return DataSet(name="toys", files=tuple(files), classes=("ball", "kite"), package=package)


def holds_all(folder: Path) -> bool:
    return {name: gzip.decompress((folder / name).read_bytes()) for name in CONTENT} == CONTENT


def test_from_the_authors(authors: str, cache: Path) -> None:
    assert data.pull(data_set(authors, "dataset-toys")) == cache and holds_all(cache)
    assert sorted(path.name for path in cache.iterdir()) == ["classnames.txt", *sorted(CONTENT)]
    assert (cache / "classnames.txt").read_text() == "ball\nkite\n"
    assert data.pull(data_set()) == cache  # again: nobody is asked


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


def test_entries_are_sound() -> None:
    """Two hashes each, an address to download from, and names that `prepare` finds in a folder."""
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
