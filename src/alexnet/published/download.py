"""Download a published file: once, resumed after an interruption, and verified before anything
reads it.

`pull` downloads into the user's cache. The bytes gather in `FILE.part`, beside it
`FILE.part.version` with what the server calls this version of the file, so that an
interrupted download goes on with HTTP's Range where it stopped, and begins anew if the file
has changed meanwhile. Length and hashes are compared before the file gets its name and before
anything reads it; a file that is another one is removed. One process at a time works in a
cache; others wait for it.
"""

import errno
import gzip
import hashlib
import http.client
import os
import re
import shutil
import tarfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from alexnet.console import say
from alexnet.errors import FULL_DISK, RETRIED_CODES, DownloadError
from alexnet.files import alone, replacing
from alexnet.meter import Meter
from alexnet.published.registry import CHUNK, MB, Published, TarMember, cache_folder, digests, get_published, size

KB = 1_000
#: Seconds without a byte, or without an answer, after which a connection counts as dead.
TIMEOUT = 30.0
#: Seconds to wait before each retry after a cut; the list starts again whenever the file has grown.
PAUSES = (1.0, 2.0, 4.0, 8.0)


def pull(what: str | Published, *, url: str | None = None, cache: Path | None = None) -> Path:
    """Obtain a published file: from the cache if it is there and whole, else from its
    server. Run again after an interruption, it continues.

    Args:
        what: one of `names()`, or an entry.
        url: of a mirror, in place of the publisher's; http or https. The file
            must be the same to the bit.
        cache: folder in place of `cache_folder()`.

    Returns:
        The file; for a tar, its one member that we use, beside it.

    Raises:
        UsageError: an unknown name.
        DownloadError: a server that cannot be reached, another file than the
            published one, or a full disk. What was downloaded of the right file is kept.
    """
    entry = get_published(what) if isinstance(what, str) else what
    url = _address(url or entry.url)
    path = (cache or cache_folder()) / entry.file
    if not is_whole(entry, path):  # checked without the lock first: a finished cache may be read-only
        with alone_in(path.parent):
            fetch(entry, path, url)
    return _unpacked(entry.member, path) if entry.member else path


def fetch(entry: Published, path: Path, url: str | None = None) -> None:
    """`pull` to `path` for a caller who has the cache to itself, see `alone_in`."""
    if not is_whole(entry, path):
        by_hand = (
            f"use another server with --url, or put {path.name} into {path.parent} yourself and run the same command again."
        )
        _download(replace(entry, elsewhere=entry.elsewhere or by_hand), url or entry.url, path)


def _address(url: str) -> str:
    """The URL, if it is a valid http or https address."""
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:  # a port that is not a number, a bracket without its partner
        sound = False
    if not sound or not url.isascii() or not url.isprintable() or " " in url:
        raise DownloadError(f"{url!r} is not a valid address: give one such as https://HOST/FILE")
    return url


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Lock the cache; wait for the process that holds the lock.

    Raises:
        DownloadError: the folder cannot be made or written.
    """
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(alone(folder, lambda: say(f"Another process is downloading to {folder}; waiting for it.")))
        except OSError as error:
            raise unwritable(folder, error) from error
        yield


def is_whole(entry: Published, path: Path) -> bool:
    """Whether `path` is the published file; two hashes of 244 MB take 0.7 s."""
    try:
        fits = path.stat().st_size == entry.bytes or (entry.unpacked_sha256 is not None and path.is_file())
        return fits and _difference(entry, path) is None
    except FileNotFoundError:
        return False
    except OSError as error:
        raise DownloadError(f"{path} cannot be read ({error.strerror}): remove it or set ALEXNET_CACHE.") from error


def _difference(entry: Published, path: Path) -> str | None:
    """A description of how the hashes differ from the published ones, or None."""
    if entry.unpacked_sha256 and entry.unpacked_sha256 == _unpacked_sha256(path):
        return None  # the same content, compressed by another program
    sha256, sha1 = digests(path)
    for algorithm, actual, expected in (("SHA-256", sha256, entry.sha256), ("SHA-1", sha1, entry.sha1)):
        if expected is not None and actual != expected:
            return f"its {algorithm} is {actual}, the published one is {expected}"
    return None


def _unpacked_sha256(path: Path) -> str | None:
    try:
        with gzip.open(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, EOFError, zlib.error):
        return None


# The download


def _download(entry: Published, url: str, path: Path) -> None:
    """Download `path` in parts and verify it."""
    part = path.with_name(f"{path.name}.part")
    if path.exists():
        say(f"{path} differs from the published file and is downloaded again.")
    if size(part) > entry.bytes:
        _discard(part)
    free = shutil.disk_usage(part.parent).free
    if entry.bytes - size(part) > free:
        raise _no_space(entry, part, free)
    _fetch(entry, url, part)
    if difference := _difference(entry, part):
        _discard(part)
        raise DownloadError(
            f"{url} returned another file than {entry.name}: {difference}. It was removed. Run the same command again; "
            f"if that does not help, {entry.elsewhere}"
        )
    with _writing(entry, part):
        with open(part, "rb") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
        _version_file(part).unlink(missing_ok=True)


def _fetch(entry: Published, url: str, part: Path) -> None:
    """Download the rest of the part, over as many connections as that takes."""
    with Meter(f"pulling {entry.name}", entry.bytes // KB, "kB") as meter:
        furthest, pauses = size(part), iter(PAUSES)
        while (cut := _attempt(entry, url, part, meter)) is not None:
            if size(part) > furthest:
                furthest, pauses = size(part), iter(PAUSES)
            pause = next(pauses, None)
            if pause is None:
                raise DownloadError(
                    f"{url} could not be downloaded: {cut}. {size(part) / MB:.1f} of {entry.bytes / MB:.1f} MB are kept: "
                    f"the same command continues from there. Or {entry.elsewhere}"
                )
            say(f"{entry.file}: {cut} at {size(part) / MB:.1f} MB; trying again in {pause:.0f} s.")
            time.sleep(pause)


def _attempt(entry: Published, url: str, part: Path, meter: Meter) -> str | None:
    """Download over one connection; returns None when the part is complete, or the reason why it is
    not.
    """
    if size(part) == entry.bytes:
        return None
    request = _request(url, part)
    try:
        with _OPENER.open(request, timeout=TIMEOUT) as answer:
            _receive(answer, entry, part, meter, requested=request.has_header("Range"))
    except urllib.error.HTTPError as error:
        with error:
            return _refused(error, entry, url, part)
    except TimeoutError:
        return f"no data received for {TIMEOUT:.0f} s"
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: a header that makes no sense
        return str(getattr(error, "reason", None) or error) or type(error).__name__
    return None if size(part) == entry.bytes else "the connection was cut"


def _request(url: str, part: Path) -> urllib.request.Request:
    """A request for the whole file, or for its rest if the server can check that it still has the
    version that the part is from.
    """
    headers = {"User-Agent": "alexnet", "Accept-Encoding": "identity"}
    have, version = size(part), _version_of_part(part)
    if have and version:
        headers |= {"Range": f"bytes={have}-", "If-Range": version}
    return urllib.request.Request(url, headers=headers)


def _refused(error: urllib.error.HTTPError, entry: Published, url: str, part: Path) -> str:
    """The reason to retry after an HTTP error; raises if retrying cannot help."""
    said = f"the server answered {error.code} {' '.join(str(error.reason).split())}"
    if error.code == 416:  # it has no bytes at that offset: the part is from another file
        _discard(part)
    elif error.code not in RETRIED_CODES and error.code < 500:
        raise DownloadError(f"{url} could not be downloaded: {said}. Instead, {entry.elsewhere}")
    return said


def _receive(answer: http.client.HTTPResponse, entry: Published, part: Path, meter: Meter, requested: bool) -> None:
    """Append a response's bytes to the part; a response that starts at the file's beginning
    replaces it.
    """
    start, length = _extent(answer)
    version = _version(answer.headers.get("ETag"), answer.headers.get("Last-Modified"))
    if length not in (None, entry.bytes):
        raise DownloadError(
            f"{answer.url} is another file than {entry.name}: it has {length:,} bytes, but the published one has "
            f"{entry.bytes:,}. Instead, {entry.elsewhere}"
        )
    if start and (not requested or start != size(part) or version not in (None, _version_of_part(part))):
        _discard(part)  # other bytes than requested, or of another file: the next attempt requests all
        return
    with _opened(part, "ab" if start else "wb") as file:
        if not start:
            _remember(entry, part, version)
        meter.skip(start // KB - meter.done)
        while (left := entry.bytes - file.tell()) and (chunk := answer.read1(min(CHUNK, left))):
            with _writing(entry, part):
                _write_all(file, chunk)
            meter.add(file.tell() // KB - meter.done)


def _extent(answer: http.client.HTTPResponse) -> tuple[int, int | None]:
    """The offset of a response's bytes in the file, and the file's length if the response has
    it.
    """
    if answer.status not in (200, 206):
        raise http.client.HTTPException(f"the server answered {answer.status} {answer.reason}")
    if answer.status == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", "").strip())
        if not match:
            raise http.client.HTTPException("the server sent a part of the file without its position")
        return int(match[1]), None if match[2] == "*" else int(match[2])
    length = answer.headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() else None


def _write_all(file: IO[bytes], chunk: bytes) -> None:
    """Write all of it. Without a buffer, a part on a full disk keeps what could be written of the
    chunk, and no error comes later.
    """
    rest = memoryview(chunk)
    while rest:
        rest = rest[file.write(rest) :]


def _opened(path: Path, mode: str) -> IO[bytes]:
    try:
        return open(path, mode, buffering=0)
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError) -> DownloadError:
    """The error for a cache that cannot be written."""
    return DownloadError(f"{path} cannot be written ({error.strerror}): set ALEXNET_CACHE to a writable folder.")


@contextmanager
def _writing(entry: Published, part: Path) -> Iterator[None]:
    """Turn disk errors into our own errors, which are not retried."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL_DISK:
            raise _no_space(entry, part, shutil.disk_usage(part.parent).free, error) from error
        raise unwritable(part, error) from error


def _no_space(entry: Published, part: Path, free: int, error: OSError | None = None) -> DownloadError:
    """The error for a full disk, a quota or a limit on one file; what was downloaded is kept."""
    left = entry.bytes - size(part)
    kept = f"; the {size(part) / MB:.1f} MB already downloaded are kept" if size(part) else ""
    if error is not None and error.errno != errno.ENOSPC:  # a quota's rest is not the disk's
        lack = f"{left / MB:.1f} MB more are needed ({error.strerror})"
    else:
        lack = f"{left / MB:.1f} MB more are needed, {free / MB:.1f} MB are free, {max(left - free, 0) / MB:.1f} MB are missing"
    return DownloadError(
        f"{entry.file} does not fit into {part.parent}: {lack}{kept}. Free some space, or set ALEXNET_CACHE to another disk's "
        f"folder, and pull again."
    )


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _version_file(part).unlink(missing_ok=True)


# Which version of a file a part is from


def _version_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.version")


def _version(etag: str | None, modified: str | None) -> str | None:
    """A value for If-Range: a strong ETag, else the time of the last change, else None."""
    for value in (etag, modified):
        if value and not value.startswith("W/") and value.isascii() and value.isprintable():
            return value
    return None


def _version_of_part(part: Path) -> str | None:
    try:
        return _version(_version_file(part).read_text(encoding="ascii", errors="replace"), None)
    except OSError:
        return None


def _remember(entry: Published, part: Path, version: str | None) -> None:
    """Record the version while the part is still empty, so that a part with bytes never has another
    file's version beside it.
    """
    with _writing(entry, part):
        if version:
            _version_file(part).write_text(version, encoding="ascii")
        else:
            _version_file(part).unlink(missing_ok=True)


# The connection


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http and https only; urllib's own would also follow to ftp."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if urlsplit(newurl).scheme not in ("http", "https"):
            raise urllib.error.HTTPError(newurl, code, f"and redirects to {newurl}, which is not an http address", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """An opener for http and https only, with the system's proxies: no file:, no ftp:, no data:."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        _Redirects,
        urllib.request.HTTPErrorProcessor,
        urllib.request.HTTPDefaultErrorHandler,
    ):
        opener.add_handler(handler())
    return opener


_OPENER = _opener()


# The member of a tar


def _unpacked(member: TarMember, archive: Path) -> Path:
    """Extract the wanted file next to its verified archive; nothing else is extracted."""
    content = _content(member, archive)
    path = archive.with_name(member.file)
    try:
        if not path.exists() or path.read_bytes() != content:
            with alone_in(path.parent), replacing(path) as temporary:
                temporary.write_bytes(content)
    except OSError as error:
        raise unwritable(path, error) from error
    return path


def _content(member: TarMember, archive: Path) -> bytes:
    """The member's bytes, at most `member.most` whatever the archive declares."""
    try:
        with tarfile.open(archive, "r:*") as tar:
            of_that_name = (info for info in tar if info.name.removeprefix("./") == member.file and info.isreg())
            if (info := next(of_that_name, None)) and info.size <= member.most and (file := tar.extractfile(info)):
                return file.read(member.most)
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise DownloadError(f"{archive} cannot be read as a tar ({error}): it is not the published one.") from error
    raise DownloadError(
        f"{archive} does not contain a file {member.file} of at most {member.most:,} bytes: it is not the published one."
    )
