"""Files that are whole or not there: written beside their place, then renamed."""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile

from alexnet.errors import CheckpointError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its name when the block ends well, and is gone when it does not.

    >>> with replacing(folder / "weights.npy") as temporary:
    ...     temporary.write_bytes(data)
    """
    temporary = path.parent / f".{path.name}.tmp"
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def writing_weights(path: Path) -> Iterator[Path]:
    """`replacing`, for weights.

    Raises:
        CheckpointError: no space, or the folder cannot be written; a file that was there stays.
    """
    try:
        with replacing(path) as temporary:
            yield temporary
    except (OSError, RuntimeError) as error:  # PyTorch's writer reports a full disk as RuntimeError
        raise CheckpointError(
            f"{path} could not be written ({error}); what stood there before is untouched. The folder must exist, be "
            "writable and have space; then try again."
        ) from error


def make_ready(path: Path) -> None:
    """Make the folder of a file to come, and refuse one that cannot be written: before the work, not after it.

    Raises:
        CheckpointError: it cannot be made or written.
    """
    if path.is_dir():
        raise CheckpointError(f"{path} cannot be written, as it is a folder: name another place.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise CheckpointError(f"{path} cannot be written ({error.strerror}): name another place.") from error


def write_parts(files: Mapping[Path, Iterable[bytes | memoryview]]) -> None:
    """Write files that belong together: all are written before the first is renamed, and they are renamed in order.

    Raises:
        CheckpointError: as `writing_weights`.
    """
    with ExitStack() as stack:
        for path, pieces in reversed(list(files.items())):  # the stack is left from its end
            with open(stack.enter_context(writing_weights(path)), "wb") as file:
                file.writelines(pieces)
