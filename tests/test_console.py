"""What a person sees: foreign names do no harm to a terminal."""

import pytest
from rich.console import Console

from alexnet import console
from alexnet.cli.tables import print_table
from alexnet.console import Meter, clean, say

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


def test_a_moving_bar_is_clean(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(console, "Console", lambda stderr: Console(stderr=stderr, force_terminal=True, width=120))
    with Meter("[b]run\x1b]0;x\x07", 2, "images") as meter:
        meter.add(1, "\x1b[2J")
        meter.add(1, "\x9b31m")
    said = capsys.readouterr().err
    assert "[b]run\\x1b]0;x\\x07" in said
    assert "\x1b]0;" not in said and "\x1b[2J" not in said and "\x9b" not in said


def test_wide_names_align(capsys: pytest.CaptureFixture[str]) -> None:
    """A Chinese character takes two cells of a terminal, a combining accent none."""
    print_table(["class", "images"], [["猫咪", 1], ["e\u0301te\u0301", 22], ["plain", "三"]])
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["class  images", "猫咪        1", "e\u0301te\u0301        22", "plain      三"]
