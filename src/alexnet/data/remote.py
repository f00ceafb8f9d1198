"""Read the files of a remote store through fsspec: https, s3 and whatever else it supports.

Servers drop connections, answer slowly, are overloaded for a while or send wrong bytes. The `check`
of the caller compares what was read with a checksum. What cannot be read or does not match is read
again after a pause: `1 + len(PAUSES)` attempts in all. Then an error names the file. No response
takes more memory than the bytes that were requested.
"""

import hashlib
import os
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

from alexnet.address import BUCKETS, beside, has_user, masked, password_place, scheme, shown, without_secrets
from alexnet.console import say
from alexnet.errors import FULL_DISK, RETRIED_CODES, StoreError
from alexnet.files import replacing

T = TypeVar("T")
#: Seconds to wait before each new attempt.
PAUSES = (1.0, 2.0, 4.0, 8.0)
#: Seconds without a byte after which a connection counts as dead, and seconds for a whole response.
READ_TIMEOUT, TOTAL_TIMEOUT = 30.0, 600.0
CHUNK = 1 << 20
#: The most bytes of a manifest, and of another small file. ImageNet's have 0.5 MB and 50 MB.
MOST_MANIFEST, MOST_SMALL = 1 << 28, 1 << 33
IN_ADDRESS = "put USER:PASSWORD@ before the host in the address"
RANGES = "serve the store with nginx, Apache, Caddy or S3 (Python's http.server cannot), or copy it to this machine"
INSTALL = "pip install 'alexnet[remote]'"


class WrongBytes(Exception):
    """A response that is not what was requested; retried."""


class WholeFile(WrongBytes):
    """A whole file in place of a part. A cache on the way may send it until it has filled itself; a
    server that does not say that it has parts (`lasting`) is not asked again.
    """

    def __init__(self, lasting: bool) -> None:
        super().__init__(f"the server sent the whole file instead of a part; if it always does, {RANGES}")
        self.lasting = lasting


class Unread(StoreError):
    """Address, credentials, connection or server are at fault; the store may well be whole."""


class Remote:
    """The folder of a remote store.

    Attributes:
        address: without its password, to print and record.

    Raises:
        StoreError: fsspec does not support the address, or needs a package that is not installed.
    """

    def __init__(self, address: str) -> None:
        self._own, self.address = address, shown(address)
        self._is_http = scheme(address) in ("http", "https")
        self._files, self._folder = _file_system(address)

    def name(self, file: str) -> str:
        """A file's address, for messages."""
        return f"{self.address}/{file}"

    def read(self, file: str, check: Callable[[bytes], None]) -> bytes:
        """All bytes of a manifest that `check` accepts.

        Args:
            check: raises `WrongBytes` for one that is damaged.

        Raises:
            StoreError: it cannot be read, or has more than `MOST_MANIFEST` bytes, or all attempts
                gave wrong bytes.
        """
        return self._again(self.name(file), lambda: self._whole(file, check))

    def read_range(self, file: str, start: int, length: int, check: Callable[[bytes], None], what: str) -> bytes:
        """The bytes of a part of a file that `check` accepts.

        Args:
            start, length: in bytes.
            check: raises `WrongBytes` for a part that is damaged.
            what: the part in words, for messages.

        Raises:
            StoreError: it cannot be read, or all attempts gave wrong bytes.
        """
        return self._again(f"{self.name(file)}, {what},", lambda: self._range(file, start, length, check))

    def download(self, file: str, path: Path, sha256: str) -> None:
        """Write a file to `path`, complete and verified, or not at all.

        Raises:
            StoreError: it cannot be read, or has another checksum.
            OSError: `path` cannot be written.
        """
        with replacing(path) as temporary:
            self._again(self.name(file), lambda: self._download(file, temporary, sha256))

    def sha256(self, file: str) -> str:
        """A file's checksum as it is at the address now.

        Raises:
            StoreError: it cannot be read.
        """
        return self._again(self.name(file), lambda: _digest(self._stream(file, MOST_SMALL)))

    # --- one attempt ------------------------------------------------------------------------------

    def _whole(self, file: str, check: Callable[[bytes], None]) -> bytes:
        data = b"".join(self._stream(file, MOST_MANIFEST))
        check(data)
        return data

    def _download(self, file: str, path: Path, sha256: str) -> None:
        with open(path, "wb") as out:
            actual = _digest(self._stream(file, MOST_SMALL), out.write)
        if actual != sha256:
            raise WrongBytes(f"its SHA-256 is {actual}, the manifest's {sha256}")

    def _range(self, file: str, start: int, length: int, check: Callable[[bytes], None]) -> bytes:
        data = self._http_range(file, start, length) if self._is_http else self._any_range(file, start, length)
        if len(data) != length:
            more = "more" if len(data) > length else f"{len(data):,}"
            raise WrongBytes(f"the server sent {more} bytes instead of {length:,}")
        check(data)
        return data

    def _any_range(self, file: str, start: int, length: int) -> bytes:
        data: bytes = self._files.cat_file(self._path(file), start=start, end=start + length)
        return data

    def _http_range(self, file: str, start: int, length: int) -> bytes:
        """At most one byte more than asked for is read, whatever the server sends."""
        with closing(self._opened(file, headers={"Range": f"bytes={start}-{start + length - 1}"})) as stream:
            if stream.r.status != 206 and start:  # the whole file, from its beginning
                raise WholeFile(lasting="bytes" not in stream.r.headers.get("Accept-Ranges", ""))
            most = length if stream.r.status == 200 else length + 1
            return b"".join(_chunks(stream.read, most))

    def _stream(self, file: str, most: int) -> Iterator[bytes]:
        opened = self._opened(file) if self._is_http else self._files.open(self._path(file), "rb")
        with closing(opened) as stream:
            size = 0
            for chunk in _chunks(stream.read, most + 1):
                size += len(chunk)
                yield chunk
            if size > most:
                raise WrongBytes(f"it has more than {most:,} bytes")

    def _opened(self, file: str, **request: Any) -> Any:
        """A file over HTTP, as a stream. Given a size, fsspec does not ask the server for it."""
        return self._files.open(self._path(file), "rb", block_size=0, size=1, **request)

    def _path(self, file: str) -> str:
        return beside(self._folder, file)

    # --- retries ----------------------------------------------------------------------------------

    def _again(self, what: str, attempt: Callable[[], T]) -> T:
        """The result of the first attempt that succeeds; a pause follows each that does not."""
        for pause in (*PAUSES, None):
            try:
                return attempt()
            except StoreError:
                raise
            except Exception as error:  # each of fsspec's file systems has errors of its own
                full = isinstance(error, OSError) and error.errno in FULL_DISK
                if full or isinstance(error, RuntimeError):  # a thread pool or event loop that ends with the program
                    raise
                reason = self._reason(what, error)
                if pause is None:
                    raise (Unread if self._is_the_servers(error) else StoreError)(
                        f"{what} could not be read in {1 + len(PAUSES)} attempts: {reason}. Check the address and the server, "
                        "then run the same command again."
                    ) from error
                say(f"{what.rstrip(',')}: {reason}; trying again in {pause:.0f} s.")
                time.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    def _reason(self, what: str, error: Exception) -> str:
        """Why an attempt failed; raises if another one cannot help."""
        status = getattr(error, "status", None)
        if isinstance(error, FileNotFoundError):
            raise StoreError(f"{what} does not exist: check the address of the store, {self.address}.") from error
        self._refuse_setting(what, error)
        if self._is_http and _leads_nowhere(error):
            raise Unread(
                f"{what} is redirected to an address that a store cannot be read from: check the address and the server."
            ) from error
        if status == 416:
            raise StoreError(f"{what} is not there: the file at the address is shorter than the manifest says.") from error
        if isinstance(error, PermissionError) or (status and 400 <= status < 500 and status not in RETRIED_CODES):
            said = f"the server answered {status}" if status else self._text(error)
            raise Unread(
                f"{what} may not be read ({said}): check the address and the credentials. If they are not given yet, "
                f"{password_place(self._own)}{f', or {IN_ADDRESS}' if self._is_http else ''}."
            ) from error
        if status:
            return f"the server answered {status}"
        if isinstance(error, TimeoutError):
            return f"the server sent nothing for {READ_TIMEOUT:.0f} s, or did not finish within {TOTAL_TIMEOUT:.0f} s"
        return self._text(error)

    def _refuse_setting(self, what: str, error: Exception) -> None:
        """Raise if bucket, credentials or server have to be changed."""
        if isinstance(error, WholeFile) and error.lasting:
            raise Unread(
                f"{what} cannot be read, as the server ignores HTTP range requests and sends whole files: {RANGES}."
            ) from error
        if type(error).__name__ == "ParamValidationError":  # botocore's
            raise Unread(f"{self.address} does not name a bucket: name one as in s3://BUCKET/STORE.") from error
        if type(error).__name__ == "NoCredentialsError":
            raise Unread(
                f"{what} cannot be read without credentials: {password_place(self._own)}, or FSSPEC_S3_ANON=true for a public "
                "bucket."
            ) from error

    def _is_the_servers(self, error: Exception) -> bool:
        """Whether an error that is worth another attempt is not one of the store's files."""
        answered = getattr(error, "status", None) is not None or isinstance(error, TimeoutError | WholeFile)
        return answered or (self._is_http and _no_connection(error) is not None)

    def _text(self, error: Exception) -> str:
        if self._is_http and (said := _no_connection(error)):
            return said
        return without_secrets(" ".join(str(error).split()), self._own) or type(error).__name__


def _leads_nowhere(error: Exception) -> bool:
    """Whether an HTTP server redirects in a circle, or to what is not an HTTP address."""
    import aiohttp

    return isinstance(error, aiohttp.TooManyRedirects | aiohttp.InvalidURL | aiohttp.NonHttpUrlClientError)


def _no_connection(error: Exception) -> str | None:
    """Why an HTTP server cannot be connected to, as the system says it; None for another error."""
    import aiohttp

    if not isinstance(error, aiohttp.ClientConnectorError) or error.os_error.errno is None:
        return None
    number, own = error.os_error.errno, error.os_error.strerror
    foreign = number <= 0 or isinstance(error.os_error, ssl.SSLError)  # name servers and OpenSSL have numbers of their own
    return f"no connection to {error.host}:{error.port} ({own if foreign else os.strerror(number)})"


def _chunks(read: Callable[[int], bytes], most: int) -> Iterator[bytes]:
    """What `read` returns, at most `most` bytes."""
    while most and (chunk := read(min(CHUNK, most))):
        yield chunk
        most -= len(chunk)


def _digest(chunks: Iterator[bytes], also: Callable[[bytes], object] = lambda _: None) -> str:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
        also(chunk)
    return digest.hexdigest()


# --- file systems ---------------------------------------------------------------------------------


def _file_system(address: str) -> tuple[Any, str]:
    """fsspec's file system for an address, and its path of the folder."""
    from fsspec.core import url_to_fs

    kind = scheme(address)
    if kind in BUCKETS and has_user(address):
        raise Unread(
            f"{masked(address)} was given with a user or a password, which an address {kind}://BUCKET/STORE has no place for: "
            f"leave them out, and {password_place(address)}."
        )
    options = {"http": _http_options, "https": _http_options, "s3": _s3_options, "s3a": _s3_options}.get(kind, dict)
    try:
        files, folder = url_to_fs(address, skip_instance_cache=True, **options())
    except ImportError as error:
        remedy = INSTALL if options is not dict else str(error)
        raise StoreError(f"{shown(address)} needs a package that is not installed: {remedy}") from error
    except Exception as error:  # an unknown scheme is a ValueError; file systems have errors of their own
        said = without_secrets(str(error), address)
        raise StoreError(
            f"{shown(address)} cannot be opened ({said}): give a folder, or an address such as https://HOST/STORE or "
            "s3://BUCKET/STORE."
        ) from error
    if kind in ("s3", "s3a"):
        files.retries = 1  # not several times within each of our attempts
    return files, folder


def _http_options() -> dict[str, Any]:
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=TOTAL_TIMEOUT, sock_connect=READ_TIMEOUT, sock_read=READ_TIMEOUT)
    headers = {"Accept-Encoding": "identity", "User-Agent": "alexnet"}
    return {"client_kwargs": {"timeout": timeout, "headers": headers, "trust_env": True, "read_bufsize": CHUNK}}


def _s3_options() -> dict[str, Any]:
    patience = {"connect_timeout": READ_TIMEOUT, "read_timeout": READ_TIMEOUT, "retries": {"max_attempts": 0}}
    return {"config_kwargs": patience}
