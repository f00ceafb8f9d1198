"""Write files so that they are complete or absent: under a temporary name first, then renamed.

Each writer has a temporary file of its own, so of two that write to one path the last one
wins whole, and no reader sees half of either. A writer that is killed leaves its temporary
file behind; nothing reads it, and the first writer to the same path after a day removes it.
Reading has one function: `open_regular`, which never waits. `lock` and `alone` give a folder
to one process at a time.
"""

import errno
import json
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from alexnet.errors import AlexNetError, OutputError

#: The writer of a temporary file that has not grown for so long is gone.
LEFT_BEHIND = 24 * 3600.0
#: Of a name, this many bytes go into the temporary file's: 255 are the most that file systems take.
NAMED = 200
#: In a folder that one process at a time may change. It is empty: who holds it is the system's
#: knowledge, not the file's.
LOCK = ".lock"
POLL_SECONDS = 0.2


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its name when the block ends well, and
    is gone when it does not.

    >>> with replacing(folder / "weights.npy") as temporary:
    ...     temporary.write_bytes(data)

    Raises:
        OSError: no space, or the folder cannot be written, or `path` is a pipe or a device,
            which must not be replaced.
    """
    _check_replaceable(path)
    _remove_left_behind(path)
    temporary = path.parent / f"{_prefix(path)}{secrets.token_hex(6)}.tmp"
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.filename is None and error.errno is not None:  # a full disk, of which Python does not say where
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _check_replaceable(path: Path) -> None:
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError(errno.EINVAL, "a pipe or a device, not a file", str(path))


def is_temporary(name: str) -> bool:
    """Whether a file's name is one that `replacing` gives: a killed writer may have left it
    behind.
    """
    return re.fullmatch(r"\..+\.tmp", name, re.DOTALL) is not None


def _prefix(path: Path) -> str:
    return f".{os.fsdecode(os.fsencode(path.name)[:NAMED])}."


def _remove_left_behind(path: Path) -> None:
    own = re.compile(re.escape(_prefix(path)) + r"[0-9a-f]{12}\.tmp")
    with suppress(OSError):  # nothing depends on it
        for entry in path.parent.iterdir():
            if own.fullmatch(entry.name) and time.time() - entry.stat().st_mtime > LEFT_BEHIND:
                entry.unlink()


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """`replacing`, for a file that the user named.

    Raises:
        OutputError: no space, or the folder cannot be written; a file that was there stays.
    """
    try:
        with replacing(path) as temporary:
            yield temporary
    except (OSError, RuntimeError) as error:  # PyTorch's writer reports a full disk as RuntimeError
        raise OutputError(
            f"{path} could not be written ({error}); an earlier file of that name is unchanged. "
            "Check that the folder exists, is writable and has space, then try again."
        ) from error


def write_json(path: Path, content: Any) -> None:
    """Write a small file, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")


def lock(folder: Path, name: str = LOCK) -> FileLock | None:
    """Keep a folder for this process until `unlock`, or until the process ends, however it ends.

    Args:
        name: of the lock's file in it.

    Returns:
        The lock, which must be kept: without a reference it is released. None if
        another process has the folder.

    Raises:
        OSError: the folder is missing or cannot be written.
    """
    held = FileLock(folder / name, thread_local=False)
    try:
        held.acquire(timeout=0)
    except Timeout:
        return None
    return held


def unlock(held: FileLock) -> None:
    """Remove the lock's file, then let the folder go.

    The other way round, two processes could each hold a file of this name.
    """
    with suppress(OSError):  # on Windows an open file cannot be removed; there filelock does it
        Path(held.lock_file).unlink()
    held.release()


@contextmanager
def alone(folder: Path, waiting: Callable[[], object] = lambda: None, name: str = LOCK) -> Iterator[None]:
    """Keep a folder for this process while the block runs; where another process has it,
    call `waiting` and wait. `name` is that of the lock's file.

    Raises:
        OSError: as `lock`.
    """
    held = lock(folder, name)
    if held is None:
        waiting()
        held = FileLock(folder / name, thread_local=False)
        held.acquire(poll_interval=POLL_SECONDS)
    try:
        yield
    finally:
        unlock(held)


def make_folder(folder: Path, error: type[AlexNetError]) -> None:
    """Make the folder that --out names, if it is not there.

    Raises:
        error: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as cause:
        raise error(f"{folder} cannot be created ({cause.strerror}): choose another --out.") from cause


def make_ready(path: Path) -> None:
    """Make the folder of a file to come, and refuse one that cannot be written:
    before the work, not after it.

    Raises:
        OutputError: it cannot be made or written.
    """
    if path.is_dir():
        raise OutputError(f"{path} cannot be written, as it is a folder: choose another path.")
    try:
        _check_replaceable(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror}): choose another path.") from error


def write_parts(files: Mapping[Path, Iterable[bytes | memoryview]]) -> None:
    """Write files that belong together: all are written before the first is renamed, and
    they are renamed in order.

    Raises:
        OutputError: as `writing`.
    """
    with ExitStack() as stack:
        for path, pieces in reversed(list(files.items())):  # the stack is left from its end
            with open(stack.enter_context(writing(path)), "wb") as file:
                file.writelines(pieces)


def open_regular(path: str | Path) -> BinaryIO:
    """Open a regular file for reading, without ever waiting, as opening a pipe would.

    Raises:
        OSError: it cannot be opened, or is a folder, pipe, socket or device;
            `strerror` is the reason.
    """
    _check_regular(Path(path).stat().st_mode, path)  # some devices act on being opened
    # Between the two looks it may have become a pipe: opened without waiting, and looked at again.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        _check_regular(os.fstat(handle).st_mode, path)
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def _check_regular(mode: int, path: str | Path) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "not a regular file, but a pipe, socket or device", str(path))
