"""Downloads against a real server on the loopback that fails in every way that real ones do."""

import errno
import hashlib
import io
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from alexnet.errors import DownloadError
from alexnet.published import download, registry
from alexnet.published.download import pull
from alexnet.published.registry import Published, TarMember
from serving import CONTENT, Answer, Server

OTHER = random.Random(2013).randbytes(300_000)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(download, "PAUSES", (0.01, 0.01, 0.01))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path / "cache"))


def published(server: Server, content: bytes = CONTENT, **fields: Any) -> Published:
    return Published(
        name="test",
        file="test.bin",
        url=f"{server.url}/test.bin",
        bytes=len(content),
        licence="none",
        **{"sha256": hashlib.sha256(content).hexdigest(), "sha1": hashlib.sha1(content).hexdigest(), **fields},
    )


def files(folder: Path) -> list[str]:
    """What a cache holds, but for the lock of a killed process."""
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


# A good server


def test_pull(server: Server, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = pull(published(server))
    assert path == cache / "test.bin" and path.read_bytes() == CONTENT
    assert files(cache) == ["test.bin"]
    assert server.ranges == [None]
    assert "pulling test: 300/300 kB" in capsys.readouterr().err


def test_by_name_from_a_mirror(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "REGISTRY", (replace(published(server), url="http://127.0.0.1:9/"),))
    assert pull("test", url=f"{server.url}/mirror", cache=cache / "own").read_bytes() == CONTENT
    assert server.asked[0].path == "/mirror" and files(cache / "own") == ["test.bin"]


def test_cached_is_not_asked_for_again(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor locked: a finished cache may be read-only."""
    pull(published(server))
    assert os.listdir(cache) == ["test.bin"]
    monkeypatch.setattr(download, "alone", None)
    pull(published(server))
    assert len(server.asked) == 1


@pytest.mark.parametrize("damage", [OTHER, CONTENT[:-1], b""], ids=["other", "short", "empty"])
def test_a_damaged_cached_file_is_obtained_anew(
    server: Server, cache: Path, damage: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    cache.mkdir()
    (cache / "test.bin").write_bytes(damage)
    assert pull(published(server)).read_bytes() == CONTENT
    assert "differs from the published file and is downloaded again" in capsys.readouterr().err


def test_a_redirect_is_followed(server: Server) -> None:
    server.next += [Answer(302, b"", location="/elsewhere")]
    assert pull(published(server)).read_bytes() == CONTENT
    assert [request.path for request in server.asked] == ["/test.bin", "/elsewhere"]


def test_no_declared_length(server: Server) -> None:
    server.usual = Answer(length=-1)
    assert pull(published(server)).read_bytes() == CONTENT


# Cut connections


@pytest.mark.parametrize("version", [{"etag": '"v1"'}, {"etag": 'W/"weak"', "modified": "Mon, 01 Jan 2024 00:00:00 GMT"}])
def test_a_cut_connection_goes_on(server: Server, version: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    server.usual = Answer(**version)  # type: ignore[arg-type]
    server.next += [replace(server.usual, cut_after=100_000), replace(server.usual, cut_after=50_000)]
    assert pull(published(server)).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=100000-", "bytes=150000-"]
    assert server.asked[1].if_range == version.get("modified", '"v1"')
    assert "the connection was cut at 0.1 MB; trying again" in capsys.readouterr().err


def test_many_cuts_with_progress_are_borne(server: Server) -> None:
    """Twelve connections for three pauses: the patience is for cuts without progress."""
    server.usual = Answer(cut_after=25_000)
    assert pull(published(server)).read_bytes() == CONTENT
    assert len(server.asked) == 12


def test_a_server_without_ranges_that_cuts_is_given_up(server: Server, cache: Path) -> None:
    server.usual = Answer(ranges=False, cut_after=100_000)
    with pytest.raises(
        DownloadError, match=r"the connection was cut\. 0\.1 of 0\.3 MB are kept.*same command continues.*--url"
    ) as given_up:
        pull(published(server))
    assert f"put test.bin into {cache} yourself and run the same command again." in str(given_up.value)
    assert len(server.asked) == 4  # no progress after the first, and three pauses
    assert files(cache) == ["test.bin.part", "test.bin.part.version"]


def test_a_server_that_ignores_ranges_begins_anew(server: Server) -> None:
    server.next += [Answer(cut_after=100_000)]
    server.usual = Answer(ranges=False)
    assert pull(published(server)).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=100000-"]


def test_no_version_no_resuming(server: Server) -> None:
    """Without ETag and date nothing tells whether the rest belongs to the part."""
    server.usual = Answer(etag=None)
    server.next += [Answer(etag=None, cut_after=100_000)]
    assert pull(published(server)).read_bytes() == CONTENT
    assert server.ranges == [None, None]


@pytest.mark.parametrize("check_version", [True, False])
def test_a_file_that_changed_meanwhile_begins_anew(server: Server, check_version: bool) -> None:
    server.next += [Answer(body=OTHER, etag='"old"', cut_after=100_000)]
    server.usual = Answer(check_version=check_version)
    assert pull(published(server)).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=100000-", None][: 2 if check_version else 3]


@pytest.mark.parametrize("extra", [0, 1, 1000])
def test_a_part_that_is_long_enough(server: Server, cache: Path, extra: int) -> None:
    """Whole: only verified, as after a kill before the renaming. Longer: of another file."""
    cache.mkdir()
    (cache / "test.bin.part").write_bytes(CONTENT + bytes(extra))
    (cache / "test.bin.part.version").write_text('"v1"')
    assert pull(published(server)).read_bytes() == CONTENT
    assert server.ranges == ([None] if extra else [])
    assert files(cache) == ["test.bin"]


def test_416_begins_anew(server: Server, cache: Path) -> None:
    """The server's file is shorter than the part: at first it is another one."""
    cache.mkdir()
    (cache / "test.bin.part").write_bytes(CONTENT[:200_000])
    (cache / "test.bin.part.version").write_text('"v1"')
    server.next += [Answer(body=CONTENT[:150_000])]
    assert pull(published(server)).read_bytes() == CONTENT
    assert server.ranges == ["bytes=200000-", None]


@pytest.mark.parametrize("shift", [-10, 10])
def test_another_range_than_asked_for_begins_anew(server: Server, shift: int) -> None:
    server.next += [Answer(cut_after=100_000), Answer(shift=shift)]
    assert pull(published(server)).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=100000-", None]


def test_a_spoilt_version_file(server: Server, cache: Path) -> None:
    cache.mkdir()
    (cache / "test.bin.part").write_bytes(OTHER[:100])
    for spoilt in (b"\xff\x00", b'"a"\r\nX-Injected: 1', b""):
        (cache / "test.bin.part.version").write_bytes(spoilt)
        server.next += [Answer(cut_after=50)]
        server.asked.clear()
        pull(published(server))
        assert server.ranges[0] is None
        (cache / "test.bin").rename(cache / "test.bin.part")
        (cache / "test.bin.part").write_bytes(OTHER[:100])


def test_500_then_fine(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.next += [Answer(503), Answer(429), Answer(500)]
    assert pull(published(server)).read_bytes() == CONTENT
    assert "the server answered 503" in capsys.readouterr().err


def test_a_stall_times_out_and_goes_on(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(download, "TIMEOUT", 0.3)
    server.next += [Answer(stall_after=100_000)]
    assert pull(published(server)).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=100000-"]
    assert "no data received for" in capsys.readouterr().err


def test_nobody_listens(cache: Path, server: Server) -> None:
    with pytest.raises(DownloadError, match=r"127\.0\.0\.1:9/x could not be downloaded: .*refused"):
        pull(published(server), url="http://127.0.0.1:9/x")
    assert files(cache) == []


def test_https_is_spoken(server: Server) -> None:
    """To a server that does not: the handshake fails, and is not skipped."""
    with pytest.raises(DownloadError, match=r"https://.* could not be downloaded: .*SSL"):
        pull(published(server), url=server.url.replace("http", "https") + "/x")


# Wrong files


def test_wrong_content(server: Server, cache: Path) -> None:
    server.usual = Answer(body=OTHER)
    with pytest.raises(DownloadError) as error:
        pull(published(server))
    for part in (hashlib.sha256(OTHER).hexdigest(), hashlib.sha256(CONTENT).hexdigest(), "was removed", "--url"):
        assert part in str(error.value)
    assert files(cache) == []


@pytest.mark.parametrize("which", ["sha256", "sha1"])
def test_both_hashes_must_hold(server: Server, cache: Path, which: str) -> None:
    with pytest.raises(DownloadError, match="SHA-256" if which == "sha256" else "SHA-1"):
        pull(published(server, **{which: "0" * 64}))
    assert files(cache) == []
    assert pull(published(server, sha1=None)).exists()


def test_wrong_content_replaces_nothing(server: Server, cache: Path) -> None:
    """A part of the wrong file is resumed to the right length: the hash tells, and
    the next pull begins anew.
    """
    cache.mkdir()
    (cache / "test.bin.part").write_bytes(OTHER[:1000])
    (cache / "test.bin.part.version").write_text('"v1"')
    with pytest.raises(DownloadError, match="returned another file"):
        pull(published(server))
    assert pull(published(server)).read_bytes() == CONTENT


@pytest.mark.parametrize("body", [CONTENT[:-1], CONTENT + b"x", b"<html>log in</html>"], ids=["short", "long", "page"])
def test_wrong_length_is_told_before_the_download(server: Server, cache: Path, body: bytes) -> None:
    cache.mkdir()
    (cache / "test.bin.part").write_bytes(CONTENT[:1000])
    (cache / "test.bin.part.version").write_text('"v1"')
    server.usual = Answer(body=body, ranges=False)
    with pytest.raises(DownloadError, match=rf"it has {len(body):,} bytes, but the published one has 300,000"):
        pull(published(server))
    assert (cache / "test.bin.part").read_bytes() == CONTENT[:1000]  # a page in its place does not cost the part


def test_endless_without_a_length(server: Server, cache: Path) -> None:
    """Never more than the published length is written."""
    server.usual = Answer(body=OTHER * 3, length=-1)
    with pytest.raises(DownloadError, match="returned another file"):
        pull(published(server))
    assert files(cache) == []


@pytest.mark.parametrize("status", [404, 403, 401, 410])
def test_refused(server: Server, cache: Path, status: int) -> None:
    server.usual = Answer(status)
    with pytest.raises(DownloadError, match=rf"the server answered {status} .*--url"):
        pull(published(server))
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [204, 202])
def test_an_answer_that_is_no_file(server: Server, cache: Path, status: int) -> None:
    server.next += [Answer(cut_after=1000)]
    server.usual = Answer(status, b"")
    with pytest.raises(DownloadError, match=f"the server answered {status}"):
        pull(published(server))
    assert (cache / "test.bin.part").read_bytes() == CONTENT[:1000]


# Addresses


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://x/y",
        "data:,x",
        "",
        "test.bin",
        "http://",
        "http://x:port/",
        "http://x:99999/",
        "http://x/a b",
        "http://x/\r\nHost: y",
        "http://[x/",
        "http://ä/",
    ],
)
def test_only_http(server: Server, url: str) -> None:
    with pytest.raises(DownloadError, match="is not a valid address"):
        pull(replace(published(server), url="x"), url=url or " ")


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1:9/x", "data:,x"])
def test_redirects_stay_with_http(server: Server, cache: Path, target: str) -> None:
    server.usual = Answer(302, b"", location=target)
    with pytest.raises(DownloadError, match="302"):
        pull(published(server))
    assert files(cache) == []


def test_a_redirect_to_nonsense(server: Server) -> None:
    server.usual = Answer(302, b"", location="http://[x/")
    with pytest.raises(DownloadError, match="could not be downloaded"):
        pull(published(server))


def test_a_circle_of_redirects(server: Server) -> None:
    server.usual = Answer(302, b"", location="/test.bin")
    with pytest.raises(DownloadError, match="302 .*infinite loop.*--url"):
        pull(published(server))


# The disk


def test_too_little_space_is_told_before_the_download(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 200_000))  # type: ignore[attr-defined]
    with pytest.raises(DownloadError, match=r"0\.3 MB more are needed, 0\.2 MB are free, 0\.1 MB are missing.*ALEXNET_CACHE"):
        pull(published(server))
    assert server.asked == []


def test_space_for_the_rest_is_enough(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.mkdir()
    (cache / "test.bin.part").write_bytes(CONTENT[:200_000])
    (cache / "test.bin.part.version").write_text('"v1"')
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 100_000))  # type: ignore[attr-defined]
    assert pull(published(server)).read_bytes() == CONTENT
    assert server.ranges == ["bytes=200000-"]


def test_a_disk_that_fills_up(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real bytes up to 123,456, then what a full disk says; with space again, the same
    command asks for the rest.
    """

    def write(file: io.FileIO, chunk: bytes) -> None:
        file.write(chunk[: 123_456 - file.tell()])
        if file.tell() == 123_456:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as full:
        full.setattr(download, "_write_all", write)
        with pytest.raises(
            DownloadError, match=r"does not fit into .*0\.2 MB more are needed.*the 0\.1 MB already downloaded are kept"
        ):
            pull(published(server))
    assert (cache / "test.bin.part").read_bytes() == CONTENT[:123_456]
    assert len(server.asked) == 1  # a full disk is no cut connection
    assert pull(published(server)).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=123456-"]


def test_a_limit_of_the_system(server: Server, cache: Path) -> None:
    """The kernel itself refuses: a limit on one file's size, which says EFBIG
    in the middle of a write.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_001, hard))
    try:
        with pytest.raises(DownloadError, match=r"0\.2 MB more are needed \(File too large\)"):
            pull(published(server))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (cache / "test.bin.part").read_bytes() == CONTENT[:100_001]
    assert pull(published(server)).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=100001-"]


def test_a_write_that_takes_less_than_it_was_given() -> None:
    """As the system may: the rest is written by further calls."""

    class Narrow(io.BytesIO):
        def write(self, data: Any) -> int:
            return super().write(data[:7])

    file = Narrow()
    download._write_all(file, CONTENT[:100])
    assert file.getvalue() == CONTENT[:100]


def test_a_cache_that_cannot_be(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for cache in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(DownloadError, match="cannot be"):
            pull(published(server), cache=cache)
    (tmp_path / "test.bin").mkdir()
    with pytest.raises(DownloadError, match="ALEXNET_CACHE"):
        pull(published(server), cache=tmp_path)


# Other processes


def test_two_at_once(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """The second waits for the first and finds its file."""
    server.next += [Answer(stall_after=100_000)]
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(pull, published(server)) for _ in range(2)]
        said = ""
        while "waiting for it" not in said:
            assert not any(one.done() for one in both), [one.exception() for one in both]
            time.sleep(0.02)
            said += capsys.readouterr().err
        server.released.set()
        assert {one.result().read_bytes() for one in both} == {CONTENT}
    assert server.ranges == [None, "bytes=100000-"]


PULL = """
import sys
from alexnet.published.download import pull
from alexnet.published.registry import Published
url, size, sha256 = sys.argv[1:]
pull(Published(name="test", file="test.bin", url=url, bytes=int(size), sha256=sha256, licence="none"))
"""


def test_a_killed_process_is_gone_on_from(server: Server, cache: Path) -> None:
    server.next += [Answer(stall_after=100_000)]
    entry = published(server)
    process = subprocess.Popen(
        [sys.executable, "-c", PULL, entry.url, str(entry.bytes), entry.sha256], stderr=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: registry.size(cache / "test.bin.part") == 100_000, process)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert files(cache) == ["test.bin.part", "test.bin.part.version"]
    assert pull(entry).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=100000-"]
    assert files(cache) == ["test.bin"]


def wait_for(true: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert process.poll() is None and time.monotonic() < deadline, process.returncode
        time.sleep(0.02)


# The tar


def tar(*members: tuple[str, bytes], kind: bytes = tarfile.REGTYPE) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as file:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size, info.type, info.linkname = len(content), kind, "/etc/passwd"
            file.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def archived(server: Server, content: bytes) -> Published:
    server.usual = Answer(body=content)
    return published(
        server, content, member=TarMember(file="mean.binaryproto", most=1000, sha1=hashlib.sha1(b"mean").hexdigest())
    )


@pytest.mark.parametrize("name", ["mean.binaryproto", "./mean.binaryproto"])
def test_one_member_alone_is_unpacked(server: Server, cache: Path, name: str) -> None:
    entry = archived(server, tar(("../../outside", b"x"), ("val.txt", b"y" * 5000), (name, b"mean"), ("/etc/outside", b"z")))
    path = pull(entry)
    assert path == cache / "mean.binaryproto" and path.read_bytes() == b"mean"
    assert files(cache) == ["mean.binaryproto", "test.bin"]
    path.write_bytes(b"spoilt")
    assert pull(entry).read_bytes() == b"mean" and len(server.asked) == 1


@pytest.mark.parametrize(
    "content",
    [
        tar(("other", b"x")),
        tar(("sub/mean.binaryproto", b"x")),
        tar(("mean.binaryproto", b"x" * 1001)),
        tar(("mean.binaryproto", b""), kind=tarfile.SYMTYPE),
        tar(("mean.binaryproto", b""), kind=tarfile.DIRTYPE),
        tar(("mean.binaryproto", CONTENT[:900]))[:500],
        b"no tar at all",
    ],
    ids=["missing", "elsewhere", "too large", "link", "folder", "cut", "no tar"],
)
def test_a_tar_without_the_member(server: Server, cache: Path, content: bytes) -> None:
    with pytest.raises(DownloadError, match="it is not the published one"):
        pull(archived(server, content))
    assert files(cache) == ["test.bin"]
