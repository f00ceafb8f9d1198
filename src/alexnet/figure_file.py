"""Matplotlib figures as files, the same bytes for the same figure."""

import io
from pathlib import Path
from typing import IO, TYPE_CHECKING

from alexnet.errors import OutputError
from alexnet.files import writing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ENDINGS = (".png", ".svg", ".pdf")


def check_ending(option: str, path: Path) -> None:
    """Refuse a file name whose extension is not one of ours.

    Raises:
        OutputError: the name ends otherwise.
    """
    if path.suffix.lower() not in ENDINGS:
        raise OutputError(f"{option} (={path}) must end in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}.")


def save(figure: "Figure", path: Path) -> None:
    """Write a figure in the format that its name ends in: .png, .svg or .pdf. The
    file is whole or not there.

    Raises:
        OutputError: another ending, or no space; a file that was there stays.
    """
    check_ending("path", path)
    with writing(path) as temporary, io.BytesIO() as file:  # a full disk would confuse matplotlib's own writers
        _write(figure, file, path.suffix[1:].lower())
        temporary.write_bytes(file.getvalue())


def png(figure: "Figure") -> bytes:
    """A figure as a PNG file's bytes."""
    with io.BytesIO() as file:
        _write(figure, file, "png")
        return file.getvalue()


def _write(figure: "Figure", where: IO[bytes], format: str) -> None:
    undated = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[format]  # the same figure, the same bytes
    figure.savefig(where, format=format, dpi="figure", metadata=undated)
