"""Progress that a person can watch and a log can keep.

On a terminal: one bar that moves. Elsewhere: a line every ten seconds, and the last one. Both go to standard error, so that
standard output holds results alone.
"""

import sys
import time
import unicodedata
from collections import deque
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LINE_SECONDS = 10.0
RATE_SECONDS = 30.0
FEW_ADDS = 5


#: Unicode's categories of characters that steer a terminal, break a line, hide, or are half a character.
CONTROLS = ("Cc", "Cf", "Cs", "Zl", "Zp")
JOINERS = "\u200c\u200d"  # of the kind, but words of Persian and Hindi and most emoji need them


def say(text: str) -> None:
    """One line for the person, on standard error. A full disk under it stops no work."""
    try:
        if sys.stderr is not None:  # as in a program without a terminal
            print(clean(text), file=sys.stderr, flush=True)
    except BrokenPipeError:  # `alexnet train ... 2>&1 | head` ends with its reader
        raise
    except OSError:
        pass  # there is nowhere left to say it


def clean(text: str) -> str:
    """The text with every character visible that could steer a terminal, so that foreign names can be shown.

    Escape sequences, line breaks and marks that turn the direction of writing become `\\x1b`, `\\n`, `\\u202e`; a
    byte of a file's name that is not UTF-8 becomes `\\xe9`. All else is kept: accents, Chinese, emoji.

    >>> clean("cat\\x1b[2J 猫")
    'cat\\\\x1b[2J 猫'
    """
    return text if text.isascii() and text.isprintable() else "".join(map(_visible, text))


def _visible(character: str) -> str:
    if unicodedata.category(character) not in CONTROLS or character in JOINERS:
        return character
    if "\udc80" <= character <= "\udcff":  # Python's stand-in for a byte that is not UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def duration(seconds: float) -> str:
    """1:02:03, or 2:03."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Meter:
    """Counts to `total`, shows how far and how fast, and whatever text is given beside it.

    >>> with Meter("preparing train", 100, "images") as meter:
    ...     meter.add(10, "loss 2.30")
    """

    def __init__(self, label: str, total: int, unit: str) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.done, self.adds, self.last_line, self.text = 0, 0, 0.0, ""
        self._recent: deque[tuple[float, int]] = deque()
        self._bar: Progress | None = None

    def __enter__(self) -> Self:
        self.last_line = time.monotonic()
        self._recent.append((self.last_line, self.done))
        console = Console(stderr=True)
        if console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(self.unit),
                TextColumn("{task.fields[text]}"), TimeRemainingColumn(), console=console,
            )  # fmt: skip
            self._bar.start()
            self._task = self._bar.add_task(escape(clean(self.label)), total=self.total, text="")
        return self

    def skip(self, count: int) -> None:
        """Count work that an earlier start has done: it is no measure of today's speed."""
        self.done += count
        self._recent = deque([(time.monotonic(), self.done)])
        if self._bar:
            self._bar.update(self._task, completed=self.done)

    def add(self, count: int, text: str = "") -> None:
        """Count `count` more; `text` replaces what stands beside the bar."""
        self.done += count
        self.adds += 1
        self.text = text
        if self._bar:
            rate = f"{self.rate:,.0f} {self.unit}/s"
            self._bar.update(self._task, completed=self.done, text=escape(clean(f"{rate}  {text}")))
        elif time.monotonic() - self.last_line >= LINE_SECONDS:
            self._line()

    @property
    def rate(self) -> float:
        """Units a second over the last `RATE_SECONDS`: the first step may have waited for a compiler."""
        now = time.monotonic()
        if now - self._recent[-1][0] > RATE_SECONDS / 30:
            self._recent.append((now, self.done))
            while len(self._recent) > 2 and now - self._recent[1][0] > RATE_SECONDS:
                self._recent.popleft()
        then, done = self._recent[0]
        return (self.done - done) / max(now - then, 1e-9)

    def _line(self) -> None:
        self.last_line = time.monotonic()
        known = self.rate > 0 and self.adds > FEW_ADDS  # the first ones may have waited for a compiler
        left = f", {duration((self.total - self.done) / self.rate)} left" if known else ""
        text = f"  {self.text}" if self.text else ""
        say(f"{self.label}: {self.done:,}/{self.total:,} {self.unit}, {self.rate:,.0f}/s{left}{text}")

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar:
            self._bar.stop()
        elif kind is None:
            self._line()
