"""Progress that a person can watch and a log can keep.

On a terminal: one line that moves, as wide as the terminal allows. Elsewhere: a line after ten
seconds, then ever rarer ones, and the last one. Both go to standard error, so that standard
output holds results alone.
"""

import re
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import accumulate
from types import TracebackType
from typing import Self

from rich.cells import cell_len
from rich.console import Console
from rich.progress import Progress, ProgressColumn, Task
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

#: Between lines in a log: at first, and at most. Between, each wait is a quarter of the time since
#: the start: a run of an hour writes 25 lines, one of a day 160.
LINE_SECONDS, RARER, MOST_LINE_SECONDS = 10.0, 0.25, 600.0
RATE_SECONDS = 30.0
LEAST_BAR, MOST_BAR = 8, 40

#: Unicode's categories of characters that steer a terminal, break a line, hide, or
#: are half a character.
CONTROLS = ("Cc", "Cf", "Cs", "Zl", "Zp")
JOINERS = "\u200c\u200d"  # of the kind, but words of Persian and Hindi and most emoji need them


#: A word of a message, with the space before it. A command between backquotes is one, so
#: that it is copied whole.
WORD = re.compile(r"\s*(?:\S*`[^`]*`\S*|\S+)")


def say(text: str, *, whole: bool = False) -> None:
    """One line for the person, on standard error. A full disk under it stops no work.

    On a terminal, lines break between words; in a log, the text stays one line.

    Args:
        text: what to say.
        whole: break it nowhere, as for a command to copy.
    """
    try:
        if sys.stderr is not None:  # as in a program without a terminal
            shown = clean(text)
            if sys.stderr.isatty() and not whole:
                shown = wrapped(WORD.findall(shown), Console(stderr=True).width)
            print(shown, file=sys.stderr, flush=True)
    except BrokenPipeError:  # `alexnet train ... 2>&1 | head` ends with its reader
        raise
    except OSError:
        pass  # there is nowhere left to say it


def wrapped(words: Iterable[str], width: int, indent: str = "") -> str:
    """Words in lines of at most `width` cells; one that is longer gets a line of its own.

    Args:
        words: each with the space before it, which goes where a line begins.
        width: in cells of a terminal.
        indent: what lines after the first begin with.

    >>> wrapped(["a", " 猫", " cat"], 4)
    'a 猫\\ncat'
    """
    lines = [""]
    for word in words:
        if not lines[-1] or cell_len(lines[-1] + word) <= width:
            lines[-1] += word
        else:
            lines.append(indent + word.lstrip())
    return "\n".join(lines)


def clean(text: str) -> str:
    """The text with every character visible that could steer a terminal, so that
    foreign names can be shown.

    Escape sequences, line breaks and marks that turn the direction of writing become `\\x1b`,
    `\\n`, `\\u202e`; a byte of a file's name that is not UTF-8 becomes `\\xe9`. All else is kept:
    accents, Chinese, emoji.

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
    """Counts to `total`, shows how far, how fast and how long yet, and whatever
    text is given beside it.

    >>> with Meter("preparing train", 100, "images") as meter:
    ...     meter.add(10, "loss 2.30")
    """

    def __init__(self, label: str, total: int, unit: str) -> None:
        self.label, self.total, self.unit, self.done = clean(label), total, unit, 0
        self._last_line = 0.0  # in seconds since the start

    def __enter__(self) -> Self:
        console = Console(stderr=True)
        self._moves = console.is_terminal and not console.is_dumb_terminal
        self._progress = Progress(_Line(console), console=console, disable=not self._moves, speed_estimate_period=RATE_SECONDS)
        number = self._progress.add_task(self.label, total=self.total, unit=self.unit, begun=0, texts=())
        self._task = next(task for task in self._progress.tasks if task.id == number)
        self._progress.start()
        return self

    def skip(self, count: int) -> None:
        """Count work that an earlier start has done: it says nothing about today's speed."""
        self.done += count
        self._progress.reset(self._task.id, completed=self.done, **{**self._task.fields, "begun": self.done})

    def add(self, count: int, *texts: str) -> None:
        """Count `count` more; `texts` replace what is shown behind, as many as
        fit on a terminal's line.
        """
        self.done += count
        self._progress.update(self._task.id, completed=self.done, texts=tuple(map(clean, texts)))
        elapsed = self._task.elapsed or 0.0
        due = self._last_line + min(max(LINE_SECONDS, self._last_line * RARER), MOST_LINE_SECONDS)
        if not self._moves and elapsed >= due and not self._task.finished:
            self._last_line = elapsed
            self._say_line()

    def _say_line(self) -> None:
        counts, rate, left = _counts(self._task), _rate(self._task), _left(self._task)
        say(
            "  ".join(
                [f"{self.label}: {', '.join(filter(None, (counts, rate, left)))}", *filter(None, self._task.fields["texts"])]
            )
        )

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()
        if kind is None and not self._moves:
            self._say_line()


class _Line(ProgressColumn):
    """The moving line: label, bar, percent, counts, rate, time left, texts. What
    does not fit is left out.
    """

    def __init__(self, console: Console) -> None:
        super().__init__(Column(no_wrap=True))
        self.console = console

    def render(self, task: Task) -> Table:
        first, *others = task.fields["texts"] or ("",)
        counts = _counts(task).rjust(len(f"{task.total:,.0f}/{task.total:,.0f} {task.fields['unit']}"))  # so that it stays put
        parts = [f"{int(task.percentage):2}%", counts, _rate(task), _left(task), first]
        shown = fitting([*parts, task.description, *others], self.console.width - LEAST_BAR)
        label = [task.description] if len(shown) > len(parts) else []
        behind = "  ".join(filter(None, [*shown[: len(parts)], *shown[len(parts) + 1 :]]))
        room = self.console.width - sum(cell_len(text) + 1 for text in (*label, behind))
        bar = ProgressBar(task.total, task.completed, width=min(room, MOST_BAR), finished_style="bar.complete")
        line = Table.grid(padding=(0, 1, 0, 0))
        line.add_row(*map(Text, label), bar, Text(behind))
        return line


def fitting(texts: Sequence[str], width: int) -> list[str]:
    """As many texts, from the first on, as fit into `width` cells with two cells before each."""
    ends = accumulate(cell_len(text) + 2 if text else 0 for text in texts)
    return [text for text, end in zip(texts, ends, strict=True) if end <= width]


def _counts(task: Task) -> str:
    return f"{task.completed:,.0f}/{task.total or 0:,.0f} {task.fields['unit']}"


def _rate(task: Task) -> str:
    """Over the last `RATE_SECONDS`, and when finished over all."""
    seconds = task.finished_time
    speed = (task.completed - task.fields["begun"]) / max(seconds, 1e-9) if seconds is not None else task.speed
    return f"{speed:,.0f}/s" if speed else ""


def _left(task: Task) -> str:
    if task.finished_time is not None:
        return f"in {task.finished_time:.1f} s" if task.finished_time < 60 else f"in {duration(task.finished_time)}"
    return f"{duration(task.time_remaining)} left" if task.time_remaining is not None and task.speed else ""
