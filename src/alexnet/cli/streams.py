"""Standard input, output and error in any state: closed, full, a pipe without a reader, not UTF-8.

Python leaves three traps here. Output is written when the interpreter ends, too late to change our
exit status. A character that the stream's encoding lacks ends the program. And the number of a
closed stream goes to the next file that is opened, which then receives what is printed.
"""

import codecs
import errno
import io
import os
import select
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from alexnet.console import clean

CLOSED = "closed; redirect it to /dev/null if you do not need it"
#: ASCII replacements for the characters that we print, for streams that cannot show them.
ASCII = {"±": "+/-", "×": "x", "→": "->", "–": "-", "−": "-", "…": "...", "•": "*"}


class Output(io.FileIO):
    """A standard stream that names itself in an error, and waits where a full pipe would not."""

    def __init__(self, descriptor: int, title: str) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.title = title

    def write(self, data: Any, /) -> int:
        """Write as much as fits now; OSErrors have the stream's name where files have theirs."""
        try:
            while (written := super().write(data)) is None:  # a pipe that is full and set not to block
                select.select([], [self], [])
        except OSError as error:
            error.filename = self.title
            if error.errno == errno.EBADF:
                error.strerror = CLOSED
            raise
        return written


@contextmanager
def guarded() -> Iterator[None]:
    """Within the block, a failing standard output or error cannot end the program unexpectedly."""
    earlier = sys.stdout, sys.stderr
    for number, stream in enumerate((sys.stdin, sys.stdout, sys.stderr)):
        if stream is None:
            _occupy(number)
    sys.stdout = _guarded(sys.stdout, 1, "standard output")
    sys.stderr = _guarded(sys.stderr, 2, "standard error")
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            _abandon(stream)
        sys.stdout, sys.stderr = earlier


def _abandon(stream: Any) -> None:
    """Discard what could not be written: Python would try again when it ends, and fail again."""
    try:
        stream.flush()
    except OSError:
        with suppress(OSError):  # a stream of another program's making, without a number
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _occupy(number: int) -> None:
    """Give a closed stream's number to the null device, opened so that writing
    to it is still an error."""
    try:
        os.fstat(number)
    except OSError:
        descriptor = os.open(os.devnull, os.O_RDONLY)
        os.dup2(descriptor, number)  # does nothing where it has this number already
        os.set_inheritable(number, True)
        if descriptor != number:
            os.close(descriptor)


def _guarded(stream: Any, number: int, title: str) -> Any:
    """The guarded stream; one that another program put in its place is left alone."""
    if stream is None:
        return io.TextIOWrapper(io.BufferedWriter(Output(number, title)), "utf-8", line_buffering=True)
    errors = "alexnet.terminal" if stream.isatty() else "alexnet.file"
    buffer = getattr(stream, "buffer", None)
    raw = getattr(buffer, "raw", buffer)  # without a buffer where PYTHONUNBUFFERED is set
    if type(raw) is io.FileIO:  # not a terminal of Windows, nor one that is guarded already
        stream.flush()
        lines = stream.line_buffering or stream.write_through
        output = io.BufferedWriter(Output(raw.fileno(), title))
        return io.TextIOWrapper(output, stream.encoding, errors, line_buffering=lines)
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors=errors)
    return stream


def _substitute(keep_bytes: bool) -> Callable[[UnicodeError], tuple[str | bytes, int]]:
    """The replacement for a character that the encoding lacks: a similar one, or its number.

    Args:
        keep_bytes: a byte of a file's name that is not UTF-8 is written unchanged, except to a
            terminal.
    """

    def substitute(error: UnicodeError) -> tuple[str | bytes, int]:
        if not isinstance(error, UnicodeEncodeError):
            raise error
        character = error.object[error.start]
        if keep_bytes and "\udc80" <= character <= "\udcff":
            return bytes([ord(character) - 0xDC00]), error.start + 1
        visible = clean(character)
        return ASCII.get(character) or visible.encode("ascii", "backslashreplace").decode(), error.start + 1

    return substitute


codecs.register_error("alexnet.terminal", _substitute(keep_bytes=False))
codecs.register_error("alexnet.file", _substitute(keep_bytes=True))
