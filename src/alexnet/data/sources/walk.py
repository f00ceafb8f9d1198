"""Walk all files below a folder safely: in order, each once, counting what is left out.

Folders of photos hold more than photos: thumbnails that a NAS keeps, links that lead back up,
pipes. `walk` opens nothing and follows no link that leads to a folder it takes anyway, so it always
ends. `prepare` and `predict` both walk with it.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from alexnet.data.sources.source import IMAGE_ENDINGS

#: Folders that file servers and systems fill by themselves, in lower case; their pictures are
#: thumbnails or deleted ones.
SYSTEM_FOLDERS = {
    "@eadir",
    "#recycle",
    "@recycle",
    "#snapshot",
    "@recently-snapshot",
    "__macosx",
    "$recycle.bin",
    "recycler",
    "lost+found",
    "system volume information",
    "network trash folder",
    "temporary items",
}
SYSTEM_FILES = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"}


@dataclass
class LeftOut:
    """What was left out, counted by reason.

    Attributes:
        counts: how many, by reason. A reason has the form "hidden folder{s}", where {s} is
            the ending of the plural.
        examples: the first of each reason.
        notes: whole sentences about what was guessed or left out.
        listed: folders that `folders_in` has listed: what is listed again is not counted again.
    """

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    listed: set[str] = field(default_factory=set)

    def add(self, reason: str, example: str, count: int = 1) -> None:
        """Count `count` more for one reason."""
        self.counts[reason] = self.counts.get(reason, 0) + count
        self.examples.setdefault(reason, example)

    def note(self, sentence: str) -> None:
        """Add another sentence that the user should know."""
        self.notes.append(sentence)

    def lines(self) -> list[str]:
        """One line for each reason, and the notes."""
        return [self._line(reason, count) for reason, count in self.counts.items()] + self.notes

    def _line(self, reason: str, count: int) -> str:
        what = reason.replace("{s}", "" if count == 1 else "s")
        return f"Left out: {count:,} {what}{': ' if count == 1 else ', such as '}{self.examples[reason]}"


def passed_over(name: str) -> bool:
    """Whether a file or folder of this name is hidden or a system's own."""
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS | SYSTEM_FILES


def folders_in(folder: str | Path, left_out: LeftOut, source: Iterable[str | Path] = ()) -> list[Path]:
    """The folders directly in `folder`, sorted by name; links to the source's own folders
    are left out as in `walk`."""
    if str(folder) in left_out.listed:
        left_out = LeftOut()
    left_out.listed.add(str(folder))
    walker = _Walker.of(folder, left_out, source)
    return [Path(entry.path) for entry in _entries(str(folder), left_out) if walker.enters(entry)]


def files_in(folder: str | Path) -> list[Path]:
    """The regular files directly in `folder`, sorted by name, without hidden
    ones and a system's own."""
    return [Path(entry.path) for entry in _entries(str(folder), LeftOut()) if not _is_folder(entry) and _is_regular(entry)]


def walk(folder: str | Path, left_out: LeftOut, *, source: Iterable[str | Path] = ()) -> Iterator[str]:
    """Every file below a folder, as `folder` joined with its place in it.

    A folder's entries come sorted by name, files and folders mixed, so a file's place is the same
    on every machine. A link to a file is yielded unless its target is below `folder` too. A link to
    a folder is followed unless it leads to a folder that is taken anyway, or above one. A link that
    leads nowhere is yielded: reading it then reports why that fails.

    Args:
        folder: where to start.
        left_out: counts what is passed over: thumbnails, links, pipes, sockets, devices,
            folders that cannot be opened.
        source: all folders of the source that `folder` belongs to; links
            into them are not followed.
    """
    walker = _Walker.of(folder, left_out, source)
    waiting = [iter(_entries(str(folder), left_out))]
    while waiting:  # not recursion: folders may be nested deeper than Python's stack
        entry = next(waiting[-1], None)
        if entry is None:
            waiting.pop()
        elif _is_folder(entry):
            if walker.enters(entry):
                waiting.append(iter(_entries(entry.path, left_out)))
        elif walker.takes(entry):
            yield entry.path


@dataclass
class _Walker:
    """What one walk takes.

    Attributes:
        walked: real paths of the folders that this walk takes whole.
        source: real paths of all folders that the source takes whole.
        seen: the folders entered so far, by device and number.
        targets: real paths of the files that links have led to.
    """

    walked: list[str]
    source: list[str]
    left_out: LeftOut
    seen: set[tuple[int, int]] = field(default_factory=set)
    targets: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, folder: str | Path, left_out: LeftOut, source: Iterable[str | Path]) -> "_Walker":
        root = os.path.realpath(folder)
        return cls([root], list(map(os.path.realpath, source)), left_out, {_identity(root)})

    def enters(self, entry: "os.DirEntry[str]") -> bool:
        """Whether an entry is a folder to walk."""
        if not _is_folder(entry):
            return False
        target = os.path.realpath(entry.path) if entry.is_symlink() else None
        identity = _identity(entry.path)
        # A mounted folder can lead back up without being a link.
        if identity in self.seen or (target and self._taken_anyway(target)):
            self.left_out.add("link{s} to folders that are already included", entry.path)
            return False
        self.seen.add(identity)
        if target:
            self.walked.append(target)
        return True

    def takes(self, entry: "os.DirEntry[str]") -> bool:
        """Whether an entry that is not a folder is a file to yield."""
        if entry.is_symlink() and not os.path.exists(entry.path):
            return True
        if not _is_regular(entry):
            self.left_out.add("pipe{s}, socket{s} or device{s}", entry.path)
            return False
        if not entry.is_symlink():
            return True
        target = os.path.realpath(entry.path)
        if target in self.targets or any(_reaches(folder, target) for folder in self.walked):
            self.left_out.add("link{s} to files that are already included", entry.path)
            return False
        self.targets.add(target)
        return True

    def _taken_anyway(self, target: str) -> bool:
        """Whether a folder is one of the source's own, or holds one."""
        return any(_below(folder, target) or _reaches(folder, target) for folder in (*self.walked, *self.source))


def _reaches(folder: str, target: str) -> bool:
    """Whether a walk from `folder` gets to `target`: no part between them is
    hidden or a system's own."""
    return _below(target, folder) and not any(map(passed_over, Path(target).relative_to(folder).parts))


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_regular(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False


def _below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _identity(path: str) -> tuple[int, int]:
    try:
        status = Path(path).stat()
    except OSError:  # gone since it was listed
        return 0, 0
    return status.st_dev, status.st_ino


def _entries(folder: str, left_out: LeftOut) -> list["os.DirEntry[str]"]:
    """A folder's entries in order, without what is hidden or a system's own."""
    try:
        with os.scandir(folder) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
    except OSError as error:
        left_out.add(f"folder{{s}} that cannot be opened ({error.strerror})", folder)
        return []
    for entry in entries:
        if passed_over(entry.name):
            _count_passed_over(entry, left_out)
    return [entry for entry in entries if not passed_over(entry.name)]


def _count_passed_over(entry: "os.DirEntry[str]", left_out: LeftOut) -> None:
    """Report what may look like photos; a .DS_Store is not worth mentioning."""
    if _is_folder(entry):
        system = entry.name.lower() in SYSTEM_FOLDERS
        left_out.add(
            "folder{s} of thumbnails or deleted files that a system made" if system else "hidden folder{s}", entry.path
        )
    elif entry.name.lower().endswith(IMAGE_ENDINGS):
        left_out.add("hidden file{s}", entry.path)
