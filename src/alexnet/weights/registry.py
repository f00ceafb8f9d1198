"""The trained AlexNets that others publish: where each file lies, what it must be to the bit, and how to obtain it.

| name | file | top-1 / top-5 accuracy on ILSVRC2012's validation pictures, centre crop |
| --- | --- | --- |
| caffe | bvlc_alexnet.caffemodel | 57.1 / 80.2 |
| caffenet | bvlc_reference_caffenet.caffemodel | 57.4 / 80.4 |
| torchvision | alexnet-owt-7be5be79.pth | 56.522 / 79.066 |
| torchvision-2016 | alexnet-owt-4df8aa71.pth | 56.55 / 79.09 |
| caffe-mean | imagenet_mean.binaryproto | the mean picture that both of Caffe's networks need |

`pull` downloads into the user's cache. The bytes gather in `FILE.part`, beside it `FILE.part.version` with what the server
calls this version of the file, so that an interrupted download goes on with HTTP's Range where it stopped, and begins anew if
the file has changed meanwhile. Length and hashes are compared before the file gets its name and before anything reads it; a
file that is another one is removed. One process at a time works in a cache; others wait for it.

Where the facts come from (each is repeated at its entry): Caffe's `readme.md` of each model gives address, licence, SHA-1 and
accuracy; torchvision's `AlexNet_Weights` gives the address and accuracy of its file. Neither states a SHA-256 or a length in
bytes: these are from those who had downloaded the files and pinned them.
"""

import errno
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
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from alexnet import lock
from alexnet.console import Meter, say
from alexnet.errors import FULL_DISK, CheckpointError, nearest

MB, KB = 1_000_000, 1_000
CHUNK = 1 << 20
#: Seconds without a byte, or without an answer, after which a connection counts as dead.
TIMEOUT = 30.0
#: Seconds to wait before going on after a cut; counted from the beginning again whenever the file has grown.
PAUSES = (1.0, 2.0, 4.0, 8.0)
#: HTTP's codes that may pass: too slow, too many, and all of the server's own errors from 500 on.
PASSING = (408, 429)
LOCK = ".lock"


@dataclass(frozen=True, kw_only=True)
class Member:
    """The one file that is wanted out of a published tar.

    Attributes:
        file: its name in the tar, and the name it gets.
        most: bytes that it may have; a larger one is not unpacked.
        sha1: as others state it; the tar's own hash is what vouches for it.
    """

    file: str
    most: int
    sha1: str


@dataclass(frozen=True, kw_only=True)
class Published:
    """One published file.

    Attributes:
        name: what `pull` takes.
        file: its name in the cache.
        bytes: exact length.
        sha256, sha1: hexadecimal; both must hold. `sha1` is None where the publisher gives none.
        licence: in the publisher's words.
        variant: name of the network in `alexnet.variants`; None for a file that is no network.
        top1, top5: accuracy in percent as published, on ILSVRC2012's 50,000 validation pictures; None for no network.
        protocol: how that was measured.
        companion: name of another entry without which this one cannot be used.
        member: the file that is wanted if this one is a tar.
    """

    name: str
    file: str
    url: str
    bytes: int
    sha256: str
    sha1: str | None = None
    licence: str
    variant: str | None = None
    top1: float | None = None
    top5: float | None = None
    protocol: str = ""
    companion: str | None = None
    member: Member | None = None


CAFFE_PROTOCOL = "one view: the picture squashed to 256 × 256, centre 227 × 227"
TORCHVISION_PROTOCOL = "one view: short side 256, centre 224 × 224"
#: torchvision's licence covers its code; its readme says of the weights only that the data they saw may bind the user.
TORCHVISION_LICENCE = "BSD-3-Clause (torchvision's; none is stated for the weights alone)"

REGISTRY = (
    # Address, licence, SHA-1, accuracy: Caffe's models/bvlc_alexnet/readme.md. Length and SHA-256: OpenVINO's
    # open_model_zoo, models/public/alexnet/model.yml, for the same address.
    Published(
        name="caffe",
        file="bvlc_alexnet.caffemodel",
        url="http://dl.caffe.berkeleyvision.org/bvlc_alexnet.caffemodel",
        bytes=243_862_414,
        sha256="4bff209a9837298157915ef50a4831a59636a6ca1a6b8ebacd990c3a5f3053e0",
        sha1="9116a64c0fbe4459d18f4bb6b56d647b63920377",
        licence="unrestricted",
        variant="caffe",
        top1=57.1,
        top5=80.2,
        protocol=CAFFE_PROTOCOL,
        companion="caffe-mean",
    ),
    # The same readme in models/bvlc_reference_caffenet; open_model_zoo's models/public/caffenet/model.yml. Homebrew's and
    # Nixpkgs' recipes for Caffe pin the same SHA-256.
    Published(
        name="caffenet",
        file="bvlc_reference_caffenet.caffemodel",
        url="http://dl.caffe.berkeleyvision.org/bvlc_reference_caffenet.caffemodel",
        bytes=243_862_418,
        sha256="472d4a06035497b180636d8a82667129960371375bd10fcb6df5c6c7631f25e0",
        sha1="4c8d77deb20ea792f84eb5e6d0a11ca0a8660a46",
        licence="unrestricted",
        variant="caffenet",
        top1=57.4,
        top5=80.4,
        protocol=CAFFE_PROTOCOL,
        companion="caffe-mean",
    ),
    # Address and length: tensorpack's dataflow/dataset/ilsvrc.py. SHA-256: a Yocto recipe for Caffe (one source; its SHA-256 of
    # CaffeNet is that of the others). SHA-1 of the mean that Caffe's networks use: MXNet's tools/caffe_converter/model_zoo.py.
    # No source states a licence. 3 × 256 × 256 float32 take 786,432 bytes and protobuf's few around them.
    Published(
        name="caffe-mean",
        file="caffe_ilsvrc12.tar.gz",
        url="http://dl.caffe.berkeleyvision.org/caffe_ilsvrc12.tar.gz",
        bytes=17_858_008,
        sha256="e35c0c1994a21f7d8ed49d01881ce17ab766743d3b0372cdc0183ff4d0dfc491",
        licence="none stated",
        member=Member(file="imagenet_mean.binaryproto", most=MB, sha1="63e4652e656abc1e87b7a8339a7e02fca63a2c0c"),
    ),
    # Address, accuracy, 233.087 MiB: torchvision's models/alexnet.py. Length and SHA-256: a dozen projects that pin LPIPS's
    # backbone agree on them; the file's name has the first eight digits, and the length is 233.087 MiB.
    Published(
        name="torchvision",
        file="alexnet-owt-7be5be79.pth",
        url="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
        bytes=244_408_911,
        sha256="7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
        licence=TORCHVISION_LICENCE,
        variant="torchvision",
        top1=56.522,
        top5=79.066,
        protocol=TORCHVISION_PROTOCOL,
    ),
    # Address: torchvision's models/alexnet.py in earlier releases. SHA-256: a Yocto recipe (one source; the file's name has its
    # first eight digits). Length: four logs of downloads agree. Accuracy: 100 minus the errors 43.45 and 20.91 of torchvision's
    # table of that time; that table names no file.
    Published(
        name="torchvision-2016",
        file="alexnet-owt-4df8aa71.pth",
        url="https://download.pytorch.org/models/alexnet-owt-4df8aa71.pth",
        bytes=244_418_560,
        sha256="4df8aa717fd11ab2d34e9483c5984ef7cdbefd732366a836076020db08909c9a",
        licence=TORCHVISION_LICENCE,
        variant="torchvision",
        top1=56.55,
        top5=79.09,
        protocol=TORCHVISION_PROTOCOL,
    ),
)


@dataclass(frozen=True)
class Verified:
    """What a local file turned out to be.

    Attributes:
        bytes: its length.
        entry: the published file that it is, to the bit; None if it is none of ours.
    """

    path: Path
    bytes: int
    sha256: str
    sha1: str
    entry: Published | None


def names() -> tuple[str, ...]:
    """What `get` and `pull` know."""
    return tuple(entry.name for entry in REGISTRY)


def get(name: str) -> Published:
    """The entry of that name.

    Raises:
        CheckpointError: there is none; the message says which there are.
    """
    for entry in REGISTRY:
        if entry.name == name:
            return entry
    raise CheckpointError(f"no published weights are called {name!r}: {nearest(name, names())}")


def cache_folder() -> Path:
    """Where downloads are kept: $ALEXNET_CACHE, else $XDG_CACHE_HOME/alexnet, else ~/.cache/alexnet."""
    if own := os.environ.get("ALEXNET_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "alexnet"


def cached(entry: Published, cache: Path | None = None) -> Path | None:
    """Where `entry` lies in the cache if a file of its name and length is there; its hashes are `pull`'s business."""
    path = (cache or cache_folder()) / entry.file
    return path if _size(path) == entry.bytes else None


def rows(cache: Path | None = None) -> list[dict[str, Any]]:
    """A row for each published file: name, variant, mb, licence, top1, top5 (percent), protocol, cached (a path or None)."""
    return [
        {
            "name": entry.name,
            "variant": entry.variant,
            "mb": round(entry.bytes / MB, 1),
            "licence": entry.licence,
            "top1": entry.top1,
            "top5": entry.top5,
            "protocol": entry.protocol,
            "cached": str(path) if (path := cached(entry, cache)) else None,
        }
        for entry in REGISTRY
    ]


def verify(path: str | Path) -> Verified:
    """Which published file a local one is, whatever its name.

    Raises:
        CheckpointError: it cannot be read.
    """
    path = Path(path)
    try:
        size, (sha256, sha1) = path.stat().st_size, _digests(path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}): name a file.") from error
    found = (entry for entry in REGISTRY if (entry.bytes, entry.sha256) == (size, sha256) or _member_sha1(entry) == sha1)
    return Verified(path, size, sha256, sha1, next(found, None))


def pull(what: str | Published, *, url: str | None = None, cache: Path | None = None) -> Path:
    """Obtain a published file: from the cache if it is there and whole, else from its server. Run again, it goes on.

    Args:
        what: a name out of `names()`, or an entry.
        url: of a mirror, in place of the publisher's; http or https. The file must be the same to the bit.
        cache: folder in place of `cache_folder()`.

    Returns:
        The file; for a tar, the one member that is wanted, beside it.

    Raises:
        CheckpointError: unknown name, no way to the server, another file than the published one, no space. What was downloaded
            of the right file stays for the next time.
    """
    entry = get(what) if isinstance(what, str) else what
    url = _address(url or entry.url)
    path = (cache or cache_folder()) / entry.file
    if not _is_whole(entry, path):  # looked at without the lock first: a finished cache may be read-only
        with _alone(path.parent):
            if not _is_whole(entry, path):
                _download(entry, url, path)
    return _unpacked(entry.member, path) if entry.member else path


def _address(url: str) -> str:
    """The URL if it is one that may be asked."""
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:  # a port that is no number, a bracket without its partner
        sound = False
    if not sound or not url.isascii() or not url.isprintable() or " " in url:
        raise CheckpointError(f"{url!r} is no address to download from: name a host and a file, http://... or https://...")
    return url


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the cache's lock; wait for the process that has it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error
    with _opened(folder / LOCK, "ab") as file:
        if not lock.acquire(file):
            say(f"Another process is downloading into {folder}; waiting for it.")
            while not lock.acquire(file):
                time.sleep(0.2)
        yield


# What a file is


def _size(path: Path) -> int:
    """Bytes; 0 if there is no such file."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _digests(path: Path) -> tuple[str, str]:
    """SHA-256 and SHA-1, hexadecimal."""
    sha256, sha1 = hashlib.sha256(), hashlib.sha1(usedforsecurity=False)
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            sha256.update(chunk)
            sha1.update(chunk)
    return sha256.hexdigest(), sha1.hexdigest()


def _member_sha1(entry: Published) -> str | None:
    return entry.member.sha1 if entry.member else None


def _is_whole(entry: Published, path: Path) -> bool:
    """Whether `path` is the published file; hashing 244 MB twice over takes 0.7 s."""
    try:
        return path.stat().st_size == entry.bytes and _difference(entry, path) is None
    except FileNotFoundError:
        return False
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}): remove it or set ALEXNET_CACHE.") from error


def _difference(entry: Published, path: Path) -> str | None:
    """In words, how the hashes differ from the published ones; None if they do not."""
    sha256, sha1 = _digests(path)
    for algorithm, found, expected in (("SHA-256", sha256, entry.sha256), ("SHA-1", sha1, entry.sha1)):
        if expected is not None and found != expected:
            return f"its {algorithm} is {found}, the published one is {expected}"
    return None


# The download


def _download(entry: Published, url: str, path: Path) -> None:
    """`path`, whole and verified, by way of its part."""
    part = path.with_name(f"{path.name}.part")
    if path.exists():
        say(f"{path} is not what was published and is obtained anew.")
    if _size(part) > entry.bytes:
        _discard(part)
    free = shutil.disk_usage(part.parent).free
    if entry.bytes - _size(part) > free:
        raise _no_space(entry, part, free)
    _fetch(entry, url, part)
    if difference := _difference(entry, part):
        _discard(part)
        raise CheckpointError(
            f"{url} gave another file than {entry.name}: {difference}. It was removed. Pull again; if that does not help, "
            f"name another server with --url."
        )
    with _writing(entry, part):
        with open(part, "rb") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
        _version_file(part).unlink(missing_ok=True)


def _fetch(entry: Published, url: str, part: Path) -> None:
    """Bring the part to its full length, over as many connections as that takes."""
    with Meter(f"pulling {entry.name}", entry.bytes // KB, "kB") as meter:
        furthest, pauses = _size(part), iter(PAUSES)
        while (cut := _attempt(entry, url, part, meter)) is not None:
            if _size(part) > furthest:
                furthest, pauses = _size(part), iter(PAUSES)
            pause = next(pauses, None)
            if pause is None:
                raise CheckpointError(
                    f"{url} could not be downloaded: {cut}. {_size(part) / MB:.1f} of {entry.bytes / MB:.1f} MB are kept, and "
                    f"the same command goes on from there; another server can be named with --url."
                )
            say(f"{entry.file}: {cut} at {_size(part) / MB:.1f} MB; trying again in {pause:.0f} s.")
            time.sleep(pause)


def _attempt(entry: Published, url: str, part: Path, meter: Meter) -> str | None:
    """One connection: None if the part is complete after it, else why it ended before."""
    if _size(part) == entry.bytes:
        return None
    request = _request(url, part)
    try:
        with _OPENER.open(request, timeout=TIMEOUT) as answer:
            _receive(answer, entry, part, meter, asked=request.has_header("Range"))
    except urllib.error.HTTPError as error:
        with error:
            return _refused(error, url, part)
    except TimeoutError:
        return f"no byte came for {TIMEOUT:.0f} s"
    except CheckpointError:  # ours, which is a ValueError too
        raise
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: a header that makes no sense
        return str(getattr(error, "reason", None) or error) or type(error).__name__
    return None if _size(part) == entry.bytes else "the connection was cut"


def _request(url: str, part: Path) -> urllib.request.Request:
    """The whole file, or its rest if the server can tell that the file is still the one that the part is from."""
    headers = {"User-Agent": "alexnet", "Accept-Encoding": "identity"}
    have, version = _size(part), _version_of_part(part)
    if have and version:
        headers |= {"Range": f"bytes={have}-", "If-Range": version}
    return urllib.request.Request(url, headers=headers)


def _refused(error: urllib.error.HTTPError, url: str, part: Path) -> str:
    """Why to try again after an answer that is no file; raises if there is no point in it."""
    said = f"the server answered {error.code} {' '.join(str(error.reason).split())}"
    if error.code == 416:  # it has no bytes from there on: the part is not from this file
        _discard(part)
    elif error.code not in PASSING and error.code < 500:
        raise CheckpointError(f"{url} could not be downloaded: {said}. Name another server with --url.")
    return said


def _receive(answer: http.client.HTTPResponse, entry: Published, part: Path, meter: Meter, asked: bool) -> None:
    """Append an answer's bytes to the part; one that holds the file from its beginning replaces it."""
    start, length = _extent(answer)
    version = _version(answer.headers.get("ETag"), answer.headers.get("Last-Modified"))
    if length not in (None, entry.bytes):
        raise CheckpointError(
            f"{answer.url} is another file than {entry.name}: it has {length:,} bytes, the published one {entry.bytes:,}. "
            f"Name another server with --url."
        )
    if start and (not asked or start != _size(part) or version not in (None, _version_of_part(part))):
        _discard(part)  # other bytes than asked for, or of another file: the next attempt asks for all
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
    """Where in the file an answer's bytes begin, and the file's length if the answer tells."""
    if answer.status not in (200, 206):
        raise http.client.HTTPException(f"the server answered {answer.status} {answer.reason}")
    if answer.status == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", "").strip())
        if not match:
            raise http.client.HTTPException("the server sent a part of the file without saying which")
        return int(match[1]), None if match[2] == "*" else int(match[2])
    length = answer.headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() else None


def _write_all(file: IO[bytes], chunk: bytes) -> None:
    """Unbuffered, so that on a full disk the part holds all that could be written of the chunk, and no error comes later."""
    rest = memoryview(chunk)
    while rest:
        rest = rest[file.write(rest) :]


def _opened(path: Path, mode: str) -> IO[bytes]:
    try:
        return open(path, mode, buffering=0)
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> CheckpointError:
    return CheckpointError(f"{path} cannot be written ({error.strerror}): set ALEXNET_CACHE to a folder that can.")


@contextmanager
def _writing(entry: Published, part: Path) -> Iterator[None]:
    """Turn what the disk may refuse into one of our errors, which no retry catches."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL_DISK:
            raise _no_space(entry, part, shutil.disk_usage(part.parent).free, error) from error
        raise _unwritable(part, error) from error


def _no_space(entry: Published, part: Path, free: int, error: OSError | None = None) -> CheckpointError:
    """The error for a disk, a quota or a limit on one file that is too small; what was downloaded stays."""
    left = entry.bytes - _size(part)
    kept = f"; the {_size(part) / MB:.1f} MB already there are kept" if _size(part) else ""
    if error is not None and error.errno != errno.ENOSPC:  # a quota's rest is not the disk's
        lack = f"{left / MB:.1f} MB more are needed ({error.strerror})"
    else:
        lack = f"{left / MB:.1f} MB more are needed, {free / MB:.1f} MB are free, {max(left - free, 0) / MB:.1f} MB are missing"
    return CheckpointError(
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
    """What If-Range takes: a strong ETag, else the time of the last change; None if there is neither."""
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
    """Note the version while the part is still empty: a part with bytes is never beside another's version."""
    with _writing(entry, part):
        if version:
            _version_file(part).write_text(version, encoding="ascii")
        else:
            _version_file(part).unlink(missing_ok=True)


# The connection


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows to http and https alone; urllib's own would follow to ftp as well."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if urlsplit(newurl).scheme not in ("http", "https"):
            raise urllib.error.HTTPError(newurl, code, f"and sends us to {newurl}, which is no http address", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """One that knows http and https alone, with the system's proxies: no file:, no ftp:, no data:."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler, urllib.request.HTTPHandler, urllib.request.HTTPSHandler, _Redirects,
        urllib.request.HTTPErrorProcessor, urllib.request.HTTPDefaultErrorHandler,
    ):  # fmt: skip
        opener.add_handler(handler())
    return opener


_OPENER = _opener()


# The member of a tar


def _unpacked(member: Member, archive: Path) -> Path:
    """The wanted file beside its verified archive; nothing else of the archive reaches the disk."""
    content = _content(member, archive)
    path = archive.with_name(member.file)
    try:
        if path.exists() and path.read_bytes() == content:
            return path
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(path, error) from error
    return path


def _content(member: Member, archive: Path) -> bytes:
    """The member's bytes, at most `member.most` whatever the archive declares."""
    try:
        with tarfile.open(archive, "r:*") as tar:
            wanted = (info for info in tar if info.name.removeprefix("./") == member.file and info.isreg())
            if (info := next(wanted, None)) and info.size <= member.most and (file := tar.extractfile(info)):
                return file.read(member.most)
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise CheckpointError(f"{archive} is no tar that can be read ({error}): it is not the published one.") from error
    raise CheckpointError(
        f"{archive} holds no file {member.file} of at most {member.most:,} bytes: it is not the published one."
    )
