"""Photos in one folder, and a table that says the class of each: `--labels labels.csv`.

A table is text with a row for each photo: the file, its class and perhaps its split, between
commas, semicolons or tabs, below a header or not. Which column holds the files is seen from the
photos: it is the one that names most of them, see `lookup`. What was recognised, guessed or left
out is said; two photos that fit one row, or two classes for one photo, are an error.
"""

import csv
import io
import re
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from alexnet.data.sources.lookup import Photos
from alexnet.data.sources.source import IMAGE_ENDINGS, TRAIN, Item, Source
from alexnet.data.sources.splits import WORDS
from alexnet.data.sources.walk import LeftOut
from alexnet.errors import SourceError
from alexnet.phrases import counted, quoted
from alexnet.text import read_text

DELIMITERS = {"\t": "tab", ";": "semicolon", ",": "comma"}
#: Rows that are looked at to recognise a table's form.
LOOKED_AT = 1000
#: What columns are called, the clearest words first.
CLASS_WORDS = ("class", "classname", "label", "labels", "labelname", "category", "breed", "species", "target", "y")
#: Columns of true and false, and the split that true means.
FLAGS = {"isvalid": "val", "istest": "test"}
SPLIT_WORDS = ("split", "set", "subset", "partition", *FLAGS)


class Row(NamedTuple):
    """A row of a table, and the number of the line that ends it."""

    line: int
    cells: tuple[str, ...]

    def cell(self, column: int | None) -> str:
        """The text of a column; empty where the row is too short."""
        return self.cells[column] if column is not None and column < len(self.cells) else ""


class Columns(NamedTuple):
    """Which column holds what."""

    file: int
    label: int
    split: int | None


class Entry(NamedTuple):
    """What a table says of a photo."""

    line: int
    label: str
    split: str


def labelled(folder: Path, table: Path, left_out: LeftOut) -> Source:
    """The source of the photos that a table names.

    Args:
        folder: holds the photos, in folders of its own or not.
        table: the text file.
        left_out: takes what is left out and what was guessed.

    Raises:
        SourceError: it is not a table, names no photo, one of two, or a photo twice with different
            classes.
    """
    rows, photos = read_table(table), Photos(folder, left_out)
    header = _header(rows[0], photos)
    body = rows[1:] if header else rows
    columns = _columns(table, header, body, photos)
    photos.settle(row.cell(columns.file) for row in body)
    _describe(table, header, body, columns, left_out)
    entries = _entries(table, header, body, columns, photos, left_out)
    classes = sorted({entry.label for entry in entries.values()}, key=_order)
    numbers = {name: number for number, name in enumerate(classes)}
    splits: dict[str, list[Item]] = {}
    for photo, entry in sorted(entries.items()):
        items = splits.setdefault(entry.split, [])
        items.append(Item(photos.names[photo], numbers[entry.label], photos.paths[photo]))
    alike: dict[str, list[str]] = {}
    for name in classes:
        alike.setdefault(name.casefold(), []).append(name)
    for names in alike.values():
        if len(names) > 1:
            left_out.note(f"The classes {quoted(names)} differ in capitals only: they are different classes.")
    return Source(f"table {table.name}", tuple(classes), splits)


def read_table(path: Path) -> list[Row]:
    """The rows of a text file that have any text, without space around the cells.

    Raises:
        SourceError: it cannot be read, or is not a table.
    """
    text = read_text(path, SourceError)
    delimiter = _delimiter(text, path)
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True, skipinitialspace=True)
    rows: list[Row] = []
    try:
        for cells in reader:
            texts = [unicodedata.normalize("NFC", cell.strip()) for cell in cells]
            if any(texts):
                rows.append(Row(reader.line_num, tuple(texts)))
    except csv.Error as error:
        raise SourceError(
            f"{path}, line {reader.line_num}, is not a row of a table ({error}): check its quotation marks."
        ) from error
    for row in rows:
        if any(row.cells[len(rows[0].cells) :]):
            raise SourceError(
                f"{path}, line {row.line}, has {len(row.cells)} cells, but the first line has {len(rows[0].cells)}: put a text "
                f"that contains a {DELIMITERS[delimiter]} between quotation marks."
            )
    return rows


def _delimiter(text: str, path: Path) -> str:
    """What is between the cells: with it, most rows have as many as the first, and two at least."""
    lines = list(islice((line for line in io.StringIO(text) if line.strip()), LOOKED_AT))
    fits = {delimiter: _fitting(lines, delimiter) for delimiter in DELIMITERS}
    best = max(fits, key=lambda delimiter: fits[delimiter])
    if not fits[best]:
        raise SourceError(
            f"{path} is not a table of labels: its first line has no {', '.join(DELIMITERS.values())}. Expected a row for each "
            "photo, as in cat/1.jpg,cat."
        )
    return best


def _fitting(lines: Sequence[str], delimiter: str) -> int:
    """How many rows have as many cells as the first, if that has two at least."""
    lengths: list[int] = []
    with suppress(csv.Error):
        for cells in csv.reader(lines, delimiter=delimiter, skipinitialspace=True):
            lengths.append(len(cells))
    return sum(length == lengths[0] for length in lengths) if lengths and lengths[0] > 1 else 0


# --- columns --------------------------------------------------------------------------------------


def _header(first: Row, photos: Photos) -> Row | None:
    """The first row, if it names no photo and no file that could be one."""
    is_file = any(photos.find(cell) or cell.lower().endswith(IMAGE_ENDINGS) for cell in first.cells)
    return None if is_file else first


def _columns(table: Path, header: Row | None, rows: Sequence[Row], photos: Photos) -> Columns:
    looked_at = rows[:LOOKED_AT]
    width = max((len(row.cells) for row in looked_at), default=0)
    named = [{found for row in looked_at for found in photos.find(row.cell(column))[:1]} for column in range(width)]
    file = max(range(width), key=lambda column: len(named[column]), default=0)
    if not width or not named[file]:
        example = next((cell for row in rows for cell in row.cells if cell.lower().endswith(IMAGE_ENDINGS)), None)
        example = example or (rows[0].cells[0] if rows else None)
        there = quoted(photos.pictures(), 1) or "no pictures"
        raise SourceError(
            f"{table} names no file in {photos.folder}, which has {there}"
            + (f"; the table has {example!r}" if example else "")
            + ": name the folder that holds the photos, and the table that belongs to it."
        )
    others = [column for column in range(width) if column != file]
    words = [_word(header.cell(column)) if header else "" for column in range(width)]
    titled = [column for word in SPLIT_WORDS for column in others if words[column] == word]
    if not header and len(others) == 2 and all(_split_of(row.cell(others[1]), "") for row in rows):
        titled = [others[1]]
    split = next((column for column in titled if any(_split_of(row.cell(column), words[column]) for row in rows)), None)
    others = [column for column in others if column != split]
    if not others:
        raise SourceError(f"{table} has no column with the classes: expected the file and its class in each row.")
    titled = [column for word in CLASS_WORDS for column in others if words[column] == word]
    # A column in which no text occurs twice numbers the rows.
    repeats = [column for column in others if len({row.cell(column) for row in looked_at}) < len(looked_at)]
    return Columns(file, [*titled, *repeats, *others][0], split)


def _word(title: str) -> str:
    return re.sub(r"[^a-z]", "", title.lower())


def _describe(table: Path, header: Row | None, rows: Sequence[Row], columns: Columns, left_out: LeftOut) -> None:
    """Say what was recognised where a table has more than a file and a class."""
    width = max(len(row.cells) for row in (*rows, *([header] if header else [])))
    titles = [header.cell(column) if header and header.cell(column) else f"column {column + 1}" for column in range(width)]
    if header:
        shown = ", ".join(cell for cell in header.cells if cell)
        left_out.note(f"The first line of {table.name} ({shown}) is taken for its header.")
    if columns.split is not None:
        left_out.note(f"{titles[columns.split]!r} of {table.name} says which split a photo belongs to.")
    used = {column for row in rows for column, cell in enumerate(row.cells) if cell}
    if ignored := [title for column, title in enumerate(titles) if column not in columns and column in used]:
        left_out.note(
            f"Of {table.name}, {titles[columns.file]!r} is the file and {titles[columns.label]!r} the class; "
            f"left out: {quoted(ignored)}."
        )


# --- rows -----------------------------------------------------------------------------------------


def _entries(
    table: Path, header: Row | None, rows: Sequence[Row], columns: Columns, photos: Photos, left_out: LeftOut
) -> dict[int, Entry]:
    """What the table says of each photo, by the photo's number."""
    entries: dict[int, Entry] = {}
    missing: list[str] = []
    unlabelled: set[int] = set()
    repeated = 0
    title = _word(header.cell(columns.split)) if header and columns.split is not None else ""
    for row in rows:
        name, label = row.cell(columns.file), row.cell(columns.label)
        found = photos.find(name)
        if len(found) > 1:
            raise SourceError(
                f"{table}, line {row.line}: {name!r} can be {' or '.join(repr(photos.names[one]) for one in found[:2])}: "
                "write which, with its folder and its ending."
            )
        if not found:
            missing.append(name)
        elif not label:
            unlabelled.add(found[0])
        else:
            entry = Entry(row.line, label, _split(table, row, columns, title))
            earlier = entries.setdefault(found[0], entry)
            _check_same(table, photos.names[found[0]], earlier, entry)
            repeated += earlier is not entry
            photos.count(found[0], name)
    _note_rows(table, missing, [photos.names[one] for one in sorted(unlabelled - entries.keys())], repeated, left_out)
    if unnamed := photos.pictures(besides=entries.keys() | unlabelled):
        left_out.note(f"Left out: {counted(len(unnamed), 'picture')} without a row in {table.name}: {quoted(unnamed)}.")
    photos.note(left_out)
    return entries


def _split(table: Path, row: Row, columns: Columns, title: str) -> str:
    """The split that a row names."""
    if columns.split is None:
        return TRAIN
    given = row.cell(columns.split)
    if split := _split_of(given, title):
        return split
    rule = "true or false" if title in FLAGS else "train, val or test"
    raise SourceError(
        f"{table}, line {row.line}: the split is {given!r}, but must be {rule}. Correct it, or give the column another title "
        "to leave it out."
    )


def _split_of(given: str, title: str) -> str | None:
    """The split that a cell names by a word or, below fast.ai's `is_valid`, by true and false."""
    if title in FLAGS:
        return {"true": FLAGS[title], "1": FLAGS[title], "false": TRAIN, "0": TRAIN}.get(given.lower())
    return WORDS.get(given.lower())


def _check_same(table: Path, name: str, earlier: Entry, entry: Entry) -> None:
    for what, first, second in (("class", earlier.label, entry.label), ("split", earlier.split, entry.split)):
        if first != second:
            raise SourceError(
                f"{table} names {name!r} twice, with the {what} {first!r} in line {earlier.line} and {second!r} in line "
                f"{entry.line}: a photo has one {what}. Remove one of the lines."
            )


def _note_rows(table: Path, missing: Sequence[str], unlabelled: Sequence[str], repeated: int, left_out: LeftOut) -> None:
    if missing:
        left_out.note(f"Left out: {counted(len(missing), 'row')} of {table.name} whose file is not there: {quoted(missing)}.")
    if unlabelled:
        left_out.note(f"Left out: {counted(len(unlabelled), 'picture')} without a class in {table.name}: {quoted(unlabelled)}.")
    if repeated:
        left_out.note(f"Left out: {counted(repeated, 'row')} of {table.name} that an earlier one says already.")


def _order(name: str) -> tuple[int, int, str]:
    """Numbers by their size, then words."""
    return (0, int(name), name) if re.fullmatch(r"[0-9]{1,18}", name) else (1, 0, name)
