"""All files below a folder."""

from collections.abc import Iterator
from pathlib import Path

from alexnet.data.sources.source import visible


def walk(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """All files below a folder; a link that leads back up is not followed."""
    above = (*above, folder.resolve())
    for entry in visible(folder):
        if not entry.is_dir():
            yield entry
        elif entry.resolve() not in above:
            yield from walk(entry, above)
