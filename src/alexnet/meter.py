"""Progress that a person can watch and a log can keep.

On a terminal: one line that moves, as wide as the terminal allows. Elsewhere: a line after ten
seconds, then ever rarer ones, and the last one. Both go to standard error, so that standard
output holds results alone.
"""

from collections.abc import Sequence
from itertools import accumulate
from types import TracebackType
from typing import Self

from rich.cells import cell_len
from rich.console import Console
from rich.progress import Progress, ProgressColumn, Task
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from alexnet.console import clean, duration, say, silent

#: Between lines in a log: at first, and at most. Between, each wait is a quarter of the time since
#: the start: a run of an hour writes 25 lines, one of a day 160.
LINE_SECONDS, RARER, MOST_LINE_SECONDS = 10.0, 0.25, 600.0
RATE_SECONDS = 30.0
LEAST_BAR, MOST_BAR = 8, 40


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
        still = silent() or not (self._moves and self.total)
        self._progress = Progress(_Bar(console), console=console, disable=still, speed_estimate_period=RATE_SECONDS)
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
        if kind is None and not self._moves and self.total:
            self._say_line()


class _Bar(ProgressColumn):
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
