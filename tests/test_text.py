"""Text files of any encoding, and lists of names in which a name is there twice."""

import os
from pathlib import Path

import pytest

from alexnet.errors import CheckpointError, SourceError
from alexnet.text import read_names, read_text, unique_names

TEXT = "café\nHündchen\nœuf\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252"])
def test_encodings(tmp_path: Path, encoding: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "classnames.txt"
    path.write_bytes(TEXT.encode(encoding))
    assert read_text(path, SourceError) == TEXT
    guessed = "is not UTF-8: read as Windows-1252" in capsys.readouterr().err
    assert guessed == (encoding == "cp1252"), "a guess is said, and nothing else is"


def test_big_endian_utf16(tmp_path: Path) -> None:
    (tmp_path / "names").write_bytes(b"\xfe\xff" + TEXT.encode("utf-16-be"))
    assert read_text(tmp_path / "names", SourceError) == TEXT


def test_bytes_that_windows_1252_leaves_undefined(tmp_path: Path) -> None:
    (tmp_path / "names").write_bytes(b"caf\xe9\n\x81\n")
    assert read_text(tmp_path / "names", SourceError) == "café\n\x81\n"


def test_line_ends(tmp_path: Path) -> None:
    (tmp_path / "names").write_bytes(b"cat\r\ndog\rbird\n")
    assert read_names(tmp_path / "names", SourceError) == ("cat", "dog", "bird")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\xff\xfeca\x00\xd8a", "is not valid UTF-16-LE"),
        (b"\xef\xbb\xbfcaf\xe9", "is not valid UTF-8"),
        (b"PK\0\0", "is not a text file"),
    ],
)
def test_what_is_not_text(tmp_path: Path, data: bytes, reason: str) -> None:
    (tmp_path / "names").write_bytes(data)
    with pytest.raises(SourceError, match=reason):
        read_text(tmp_path / "names", SourceError)


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    """The error is the caller's; a pipe is not waited for."""
    with pytest.raises(CheckpointError, match="nowhere cannot be read: No such file"):
        read_text(tmp_path / "nowhere", CheckpointError)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CheckpointError, match="not a regular file"):
        read_text(tmp_path / "pipe", CheckpointError)


@pytest.mark.parametrize(
    ("text", "reason"), [("", "is empty"), ("\n \n", "is empty"), ("cat\n\ndog\n", "line 2 of .* is empty")]
)
def test_lists_without_a_clear_number_for_each_name(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "names").write_text(text)
    with pytest.raises(SourceError, match=reason):
        read_names(tmp_path / "names", SourceError)


def test_names_that_a_separator_divides_stay_whole(tmp_path: Path) -> None:
    """str.splitlines divides at U+2028 and U+0085, which no editor shows as a new line."""
    (tmp_path / "names").write_text("a\u2028b\nc\x85d\n", encoding="utf-8")
    assert len(read_names(tmp_path / "names", SourceError)) == 2


@pytest.mark.parametrize(
    ("names", "unique"),
    [
        (["crane", "cat", "crane"], ("crane", "cat", "crane (2)")),
        (["a", "a", "a"], ("a", "a (2)", "a (3)")),
        (["a", "a", "a (2)"], ("a", "a (3)", "a (2)")),
        (["caf\u00e9", "cafe\u0301"], ("caf\u00e9", "caf\u00e9 (2)")),
        (["a", "b"], ("a", "b")),
    ],
)
def test_unique_names(names: list[str], unique: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """A class is its number: two of one name stay two, and it is said where they come from."""
    assert unique_names(names, [f"line {number}" for number in range(len(names))]) == unique
    said = capsys.readouterr().err.splitlines()
    assert len(said) == sum(new.endswith(")") and new not in names for new in unique)
    assert all("Two classes have the name" in line and "line 0" in line for line in said)


def test_many_equal_names_are_not_as_many_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """And take no time that grows with their square."""
    names = unique_names(["x"] * 50_000 + ["x (3)"], [""] * 50_001)
    assert len(set(names)) == 50_001
    assert names[:3] == ("x", "x (2)", "x (4)") and names[-1] == "x (3)"
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 6
    assert said[-1].startswith("In total, 49,999 classes")
