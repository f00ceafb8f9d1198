"""Archives of photos: the good one becomes a folder, and no other one leaves anything behind."""

import errno
import gzip
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from alexnet.errors import DownloadError
from alexnet.published import unpack as unpacking
from alexnet.published.registry import CHUNK
from alexnet.published.unpack import Limits, unpack

PHOTOS = {
    "toys/ball/0.jpg": b"round" * 300,
    "toys/kite/0.jpg": b"flat" * 2000,
    "toys/kite/1.jpg": b"",
    "toys/LICENSE.txt": b"x",
}
AMPLE = Limits(members=100, bytes=10**6)
Member = tuple[str, bytes]


def tar(*members: Member, **fields: object) -> bytes:
    """A .tgz of the photos, and of `members` that have `fields`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as file:
        for name, content in (*PHOTOS.items(), *members):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for field, value in fields.items() if name not in PHOTOS else ():
                setattr(info, field, value)
            file.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "cache" / "toys.tgz"
    path.parent.mkdir()
    path.write_bytes(tar())
    return path


@pytest.fixture
def folder(archive: Path) -> Path:
    return archive.with_name("toys")


def contents(folder: Path) -> dict[str, bytes]:
    """Name from its parent on, and bytes, of every file in a folder."""
    return {str(path.relative_to(folder.parent)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("prefix", ["", "./"])
def test_unpack(archive: Path, folder: Path, prefix: str, capsys: pytest.CaptureFixture[str]) -> None:
    with tarfile.open(archive, "w:gz") as file:
        for name in ("toys", "toys/ball", "toys/kite", *PHOTOS):
            info = tarfile.TarInfo(prefix + name)
            info.mode = 0o7000  # of no use to anybody
            info.type = tarfile.REGTYPE if name in PHOTOS else tarfile.DIRTYPE
            info.size = len(PHOTOS.get(name, b""))
            file.addfile(info, io.BytesIO(PHOTOS.get(name, b"")))
    unpack(archive, "toys", folder, AMPLE)
    assert contents(folder) == PHOTOS
    assert sorted(path.name for path in archive.parent.iterdir()) == ["toys", "toys.tgz"]
    assert "unpacking toys.tgz" in capsys.readouterr().err


def test_what_a_killed_process_left_is_removed(archive: Path, folder: Path) -> None:
    (archive.parent / ".toys.unpacking" / "toys").mkdir(parents=True)
    (archive.parent / ".toys.unpacking" / "toys" / "half.jpg").touch()
    folder.mkdir()  # empty, as a hand may have made it
    unpack(archive, "toys", folder, AMPLE)
    assert contents(folder) == PHOTOS


def test_other_folders_beside_it_are_dropped(archive: Path, folder: Path) -> None:
    archive.write_bytes(tar(("other/x.jpg", b"x"), ("._toys", b"x")))
    unpack(archive, "toys", folder, AMPLE)
    assert contents(folder) == PHOTOS
    assert sorted(path.name for path in archive.parent.iterdir()) == ["toys", "toys.tgz"]


EVIL: dict[str, tuple[bytes, str]] = {
    "absolute": (tar(("/tmp/evil.jpg", b"x")), "'/tmp/evil.jpg' would be outside"),
    "above": (tar(("toys/../../evil.jpg", b"x")), "'toys/../../evil.jpg' would be outside"),
    "above by name": (tar(("..", b""), type=tarfile.DIRTYPE), "'..' would be outside"),
    "backslash": (tar(("toys\\..\\evil.jpg", b"x")), "evil.jpg' would be outside"),
    "disk": (tar(("C:evil.jpg", b"x")), "'C:evil.jpg' would be outside"),
    "symlink": (tar(("toys/a", b""), type=tarfile.SYMTYPE, linkname="/etc"), "'toys/a' is a link to '/etc'"),
    "link within": (tar(("toys/a", b""), type=tarfile.SYMTYPE, linkname="ball"), "'toys/a' is a link to 'ball'"),
    "hard link": (tar(("toys/a", b""), type=tarfile.LNKTYPE, linkname="../x"), "'toys/a' is a link to '../x'"),
    "device": (tar(("toys/a", b""), type=tarfile.CHRTYPE, devmajor=1, devminor=3), "'toys/a' is neither a file nor"),
    "disk device": (tar(("toys/a", b""), type=tarfile.BLKTYPE), "'toys/a' is neither a file nor a folder"),
    "pipe": (tar(("toys/a", b""), type=tarfile.FIFOTYPE), "'toys/a' is neither a file nor a folder"),
    "unknown": (tar(("toys/a", b""), type=b"Z"), "'toys/a' is neither a file nor a folder"),
    "sparse": (tar(("toys/a", b""), type=tarfile.GNUTYPE_SPARSE), "'toys/a' is neither a file nor a folder"),
    "twice": (tar(("toys/./ball/0.jpg", b"x")), "'toys/./ball/0.jpg' is in the place of another one"),
    "below a file": (tar(("toys/ball/0.jpg/x", b"x")), "'toys/ball/0.jpg/x' is in the place of another one"),
    "folder over a file": (tar(("toys/LICENSE.txt/", b""), type=tarfile.DIRTYPE), "'toys/LICENSE.txt' is in the place of"),
    "file over a folder": (tar(("toys/ball", b"x")), "'toys/ball' is in the place of another one"),
    "nothing": (tar(("", b"x")), "'' is in the place of another one"),
    "escape": (tar(("/\x1b[2J", b"x")), r"'/\x1b[2J' would be outside"),
    "not gzip": (b"no tar at all", "Not a gzipped file"),
    "not tar": (gzip.compress(b"no tar at all" * 99), "was not unpacked"),
    "empty": (b"", "was not unpacked"),
    "cut": (tar()[:-30], "ended before the end-of-stream"),
    "checksum": (tar()[:-8] + bytes(8), "CRC check failed"),
    "no end": (gzip.compress(gzip.decompress(tar())[: 512 * 22]), "damaged or cut short at byte"),
    "damaged header": (gzip.compress(gzip.decompress(tar()).replace(b"toys/kite/0", b"toys/kitf/0")), "damaged or cut short"),
}  # fmt: skip


@pytest.mark.parametrize("name", EVIL)
def test_evil(archive: Path, folder: Path, name: str, tmp_path: Path) -> None:
    """The member is named, and no file is left, inside or outside."""
    content, message = EVIL[name]
    archive.write_bytes(content)
    with pytest.raises(DownloadError) as error:
        unpack(archive, "toys", folder, AMPLE)
    assert message in str(error.value) and str(error.value).endswith("Remove it and pull again.")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["cache", "toys.tgz"]


def test_another_folder(archive: Path, folder: Path) -> None:
    with pytest.raises(DownloadError, match="it does not contain the folder flowers"):
        unpack(archive, "flowers", folder, AMPLE)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(members=3, bytes=10**6), "more than 3 members"),
        (Limits(members=100, bytes=5000), "more than 5,000 bytes unpacked"),
    ],
)
def test_limits(archive: Path, folder: Path, limits: Limits, message: str) -> None:
    archive.write_bytes(tar(("toys/big.jpg", bytes(3 * CHUNK))))
    with pytest.raises(DownloadError, match=message):
        unpack(archive, "toys", folder, limits)
    assert os.listdir(archive.parent) == ["toys.tgz"]


def test_as_many_as_allowed(archive: Path, folder: Path) -> None:
    unpack(archive, "toys", folder, Limits(members=4, bytes=len(gzip.decompress(archive.read_bytes()))))
    assert contents(folder) == PHOTOS


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_that_fills_the_memory(archive: Path, folder: Path, kind: bytes) -> None:
    """A header of 1 GB, which takes 1 MB in the archive: nobody reads it."""
    info = tarfile.TarInfo("toys/a")
    info.type, info.size = kind, 10**9
    archive.write_bytes(gzip.compress(info.tobuf() + bytes(10**6)))
    with pytest.raises(DownloadError, match="it has a header of 1,000,0"):
        unpack(archive, "toys", folder, Limits(members=10, bytes=10**12))


def test_no_space(archive: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The archive stays, what was unpacked goes."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(DownloadError, match=r"toys.tgz does not fit unpacked into .*No space left.*archive is kept"):
        unpack(archive, "toys", folder, AMPLE)
    assert os.listdir(archive.parent) == ["toys.tgz"]


def test_a_name_that_the_disk_cannot_have(archive: Path, folder: Path) -> None:
    archive.write_bytes(tar((f"toys/{'x' * 300}.jpg", b"x")))
    with pytest.raises(DownloadError, match="could not be unpacked to .*name too long"):
        unpack(archive, "toys", folder, AMPLE)
    assert os.listdir(archive.parent) == ["toys.tgz"]


def test_memory_and_order(archive: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The archive is read once, from front to back: gzip begins anew for a step back."""
    places: list[int] = []
    read = unpacking._Forward.read

    def watched(self: unpacking._Forward, size: int) -> bytes:
        places.append(self.position)
        return read(self, size)

    monkeypatch.setattr(unpacking._Forward, "read", watched)
    archive.write_bytes(tar(*((f"toys/{number}.jpg", bytes(512 * number)) for number in range(9))))
    unpack(archive, "toys", folder, AMPLE)
    assert places == sorted(places)


SLOW = """
import shutil, sys, time
from pathlib import Path
from alexnet.published.unpack import Limits, unpack
copy = shutil.copyfileobj
def slowly(*words):
    copy(*words)
    print("one", flush=True)
    time.sleep(60 if slowly.count else 0)
    slowly.count += 1
slowly.count = 0
shutil.copyfileobj = slowly
unpack(Path(sys.argv[1]), "toys", Path(sys.argv[2]), Limits(members=100, bytes=10**6))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_killed_in_the_middle(archive: Path, folder: Path) -> None:
    """Nothing that looks whole is left, and the next one makes it whole."""
    process = subprocess.Popen([sys.executable, "-c", SLOW, str(archive), str(folder)], stdout=subprocess.PIPE)
    assert process.stdout
    assert process.stdout.readline() and process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait(20)
    process.stdout.close()
    assert not folder.exists() and (archive.parent / ".toys.unpacking" / "toys" / "ball" / "0.jpg").exists()
    unpack(archive, "toys", folder, AMPLE)
    assert contents(folder) == PHOTOS and not (archive.parent / ".toys.unpacking").exists()
