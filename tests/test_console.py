"""What a person sees: progress as wide as the terminal, few lines in a log,
foreign names that do no harm.
"""

import os
import re
import subprocess
import sys
from functools import partial

import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.progress import Progress

from alexnet import meter as metering
from alexnet.cli.tables import print_line, print_parts, print_table
from alexnet.console import clean, say
from alexnet.meter import Meter, fitting

#: A name, and what is shown of it.
NAMES = {
    "plain name (2).jpg": "plain name (2).jpg",
    "café 猫 🏴‍☠️ می‌خواهم": "café 猫 🏴‍☠️ می‌خواهم",  # joiners are kept
    "a\x1b[2J\x1b]0;title\x07": r"a\x1b[2J\x1b]0;title\x07",
    "one\ntwo\r\tthree\x7f": r"one\ntwo\r\tthree\x7f",
    "c1 \x9b31m \x85": r"c1 \x9b31m \x85",
    "\u202egpj.exe\u2066": r"\u202egpj.exe\u2066",
    "line\u2028paragraph\u2029": r"line\u2028paragraph\u2029",
    b"caf\xe9\x9b".decode("utf-8", "surrogateescape"): r"caf\xe9\x9b",
    "half \ud83d": r"half \ud83d",
    "C:\\new\\x.jpg": "C:\\new\\x.jpg",  # a path of Windows stays as it is
}


@pytest.mark.parametrize(("name", "shown"), NAMES.items(), ids=[ascii(name) for name in NAMES])
def test_clean(name: str, shown: str) -> None:
    assert clean(name) == shown
    shown.encode()  # can be printed


def test_say_and_tables_are_clean(capsys: pytest.CaptureFixture[str]) -> None:
    say("a\x1b[2J\nb")
    print_table(["class", "images"], [["x\x1b[2Jy\n", 1], ["猫", 1000]])
    said = capsys.readouterr()
    assert said.err == "a\\x1b[2J\\nb\n"
    assert [line.split() for line in said.out.splitlines()[1:]] == [["x\\x1b[2Jy\\n", "1"], ["猫", "1,000"]]


def test_lines_end_between_words(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """On a terminal, where a command stays whole; a log has one line."""
    text = "two  猫猫 words, then `a command that is long`, and the end."
    say(text)
    assert capsys.readouterr().err == f"{text}\n"
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "16")
    say(text)
    assert capsys.readouterr().err.splitlines() == ["two  猫猫 words,", "then", "`a command that is long`,", "and the end."]
    say("Next: alexnet predict run photo.jpg", whole=True)
    assert capsys.readouterr().err == "Next: alexnet predict run photo.jpg\n"
    say("  of a list")
    say("")
    assert capsys.readouterr().err == "  of a list\n\n"


def test_parts_of_a_result_stay_whole(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    parts = ("cat\x1b.jpg", "French horn 12.5%", "猫 7.5%", "dog 1.0%")
    print_line("a result  in many words, for one terminal ")
    assert capsys.readouterr().out == "a result  in many words, for one terminal \n"
    print_parts(*parts)
    assert capsys.readouterr().out == "cat\\x1b.jpg  French horn 12.5%  猫 7.5%  dog 1.0%\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "35")
    print_line("a result in many words, for one terminal")
    assert capsys.readouterr().out.splitlines() == ["a result in many words, for one", "terminal"]
    print_parts(*parts)
    assert capsys.readouterr().out.splitlines() == ["cat\\x1b.jpg  French horn 12.5%", "    猫 7.5%  dog 1.0%"]


def test_a_moving_bar_is_clean(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(metering, "Console", lambda stderr: Console(stderr=stderr, force_terminal=True, width=120))
    with Meter("[b]run\x1b]0;x\x07", 2, "images") as meter:
        meter.add(1, "\x1b[2J")
        meter.add(1, "\x9b31m")
    said = capsys.readouterr().err
    assert "[b]run\\x1b]0;x\\x07" in said
    assert "\x1b]0;" not in said and "\x1b[2J" not in said and "\x9b" not in said


def test_wide_names_align(capsys: pytest.CaptureFixture[str]) -> None:
    """A Chinese character takes two cells of a terminal, a combining accent none."""
    print_table(["class", "images"], [["猫咪", 1], ["e\u0301te\u0301", 22], ["plain", 3]])
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["class  images", "猫咪        1", "e\u0301te\u0301        22", "plain       3"]


def test_words_are_left_aligned_and_fit_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [["a name of 猫猫猫 that is long", 1, "word", "50.0%"], ["b", 1000, "", "7.5%"]]
    print_table(["name", "images", "licence", "error"], rows)
    assert capsys.readouterr().out.splitlines() == [
        "name                           images  licence  error",
        "a name of 猫猫猫 that is long       1  word     50.0%",
        "b                               1,000            7.5%",
    ]
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    print_table(["name", "images", "licence", "error"], rows)
    assert capsys.readouterr().out.splitlines() == [
        "name              images  licence  error",
        "a name of 猫猫…        1  word     50.0%",
        "b                  1,000            7.5%",
    ]
    monkeypatch.setenv("COLUMNS", "10")
    print_table(["name", "images", "licence", "error"], rows)
    assert capsys.readouterr().out.splitlines()[1] == "a name of…         1  word     50.0%"


def test_fitting() -> None:
    """Two cells before each; from the first that does not fit on, none, however short."""
    assert fitting(["45%", "12/99 images", "7/s"], 22) == ["45%", "12/99 images", "7/s"][:2]
    assert fitting(["45%", "12/99 images", "7/s"], 24) == ["45%", "12/99 images", "7/s"]
    assert fitting(["45%", "x" * 20, "7/s"], 12) == ["45%"]
    assert fitting(["", "猫猫", ""], 5) == [""] and fitting(["", "猫猫", ""], 6) == ["", "猫猫", ""]


#: What the line of a run has at each width, in the order of importance: bar, percent, images,
#: rate, time left, loss.
TRAINING = {
    50: r"[━╺╸]{8,40} 42%   76,800/179,904 images  [\d,]+/s",
    60: r"[━╺╸]{8,40} 42%   76,800/179,904 images  [\d,]+/s  \d:\d\d left",
    80: r"(training )?[━╺╸]{8,40} 42%   76,800/179,904 images  [\d,]+/s  \d:\d\d left  loss 0.453",
    120: r"training [━╺╸]{8,40} 42%   76,800/179,904 images  [\d,]+/s  \d:\d\d left  loss 0.453  epoch 1/3  lr 0.016",
}


@pytest.mark.parametrize("columns", TRAINING)
def test_a_line_that_moves(columns: int) -> None:
    """In a pseudo-terminal: one line, never wider than that."""
    pty, termios = pytest.importorskip("pty"), pytest.importorskip("termios")
    code = """
import time
from alexnet.console import say
from alexnet.meter import Meter
with Meter("training", 179_904, "images") as meter:
    meter.skip(36_000)
    for _ in range(60):
        meter.add(680, "loss 0.453", "epoch 1/3", "lr 0.016")
        time.sleep(0.002)
    say("epoch 1: val")
"""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(ours, (24, columns))
    environment = {**os.environ, "TERM": "xterm-256color", "PYTHONUTF8": "1"}
    for name in ("COLUMNS", "LINES", "NO_COLOR", "TTY_COMPATIBLE"):
        environment.pop(name, None)
    with subprocess.Popen([sys.executable, "-c", code], stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        raw = b""
        while piece := _read(ours):
            raw += piece
    os.close(ours)
    assert process.returncode == 0, raw
    lines = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", raw.decode()))
    assert max(map(cell_len, lines)) <= columns
    assert "epoch 1: val" in [line.strip() for line in lines]
    last = [line for line in lines if "%" in line][-1]
    assert re.fullmatch(TRAINING[columns], last.strip()), last


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux: the other side is closed
        return b""


def test_few_lines_in_a_log(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a run of ten hours 80, the first after ten seconds; the rate is today's,
    of the last half minute.
    """
    now = 0.0
    monkeypatch.setattr(metering, "Progress", partial(Progress, get_time=lambda: now))
    seconds = []
    with Meter("training", 1_000_000, "images") as meter:
        meter.skip(640_000)
        for _ in range(36_000):
            now += 1
            meter.add(10, "loss 2.30", "epoch 1/3")
            if capsys.readouterr().err:
                seconds.append(int(now))
    last = capsys.readouterr().err
    assert seconds[:6] == [10, 20, 30, 40, 50, 63] and len(seconds) == 78 and seconds[-1] - seconds[-2] == 600
    assert last == "training: 1,000,000/1,000,000 images, 10/s, in 10:00:00  loss 2.30  epoch 1/3\n"


def test_no_line_about_no_work(capsys: pytest.CaptureFixture[str]) -> None:
    with Meter("training", 0, "images"):
        pass
    assert capsys.readouterr().err == ""


def test_a_line_of_a_log(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What was done before, and the wait for the first step, which may be a compiler's, do
    not count into the rate.
    """
    now = 0.0
    monkeypatch.setattr(metering, "Progress", partial(Progress, get_time=lambda: now))
    with pytest.raises(KeyError), Meter("training", 1_000, "images") as meter:
        meter.skip(500)
        for wait in (9.5, 1.0, 1.0):
            now += wait
            meter.add(50)
        assert capsys.readouterr().err == "training: 600/1,000 images, 50/s, 0:08 left\n"
        raise KeyError  # what went wrong is said by others
    assert not capsys.readouterr().err
