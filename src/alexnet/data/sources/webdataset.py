"""WebDataset shards: tars of KEY.jpg and KEY.cls, where the class is a number."""

import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from alexnet.data.sources.numbered import class_names, numbered
from alexnet.data.sources.source import IMAGE_ENDINGS, TRAIN, UNLABELLED, Item, Source
from alexnet.data.sources.walk import LeftOut
from alexnet.errors import SourceError
from alexnet.files import open_regular
from alexnet.text import decode_text

Members = list[tarfile.TarInfo]
#: A class number and its line end, with a byte order mark or not.
CLS_BYTES = 100


def webdataset(
    splits: Mapping[str, Sequence[Path]], contents: Mapping[Path, Members], image: str | None, left_out: LeftOut
) -> Source:
    """The source of shards.

    Args:
        splits: the shards of each split.
        contents: the members of each shard.
        image: ending of the picture to take where a key has several; the JPEG if None.
        left_out: counts what is passed over.

    Raises:
        SourceError: a tar is not a shard, or it is unclear which picture has which class.
    """
    choice = _Choice(image and image.lower().removeprefix("."))
    items = {
        split: [item for shard in shards for item in _items(shard, contents[shard], choice, left_out)]
        for split, shards in splits.items()
    }
    choice.note(left_out)
    train = items.get(TRAIN, ())
    if train and all(item.label == UNLABELLED for item in train):
        raise SourceError(f"{train[0].path} is not a WebDataset shard: {train[0].name} has no .cls file with its class.")
    folders = {folder: None for shards in splits.values() for shard in shards for folder in (shard.parent, shard.parent.parent)}
    return numbered("WebDataset shards", items, class_names(*folders), left_out)


@dataclass
class _Choice:
    """Which picture of a key is taken, and a count of the choices made.

    Attributes:
        wanted: the ending that the user chose, without its dot.
        made: how often which endings were there to choose from.
    """

    wanted: str | None
    made: Counter[tuple[str, ...]] = field(default_factory=Counter)

    def of(self, endings: Sequence[str], name: str) -> str:
        """The ending to take."""
        if self.wanted in endings:
            return self.wanted  # type: ignore[return-value]  # it is among texts
        if self.wanted:
            raise SourceError(f"{name} has no picture .{self.wanted}: --image can be {' or '.join(sorted(endings))}.")
        if len(endings) > 1:
            self.made[tuple(sorted(endings, key=_rank))] += 1
        return min(endings, key=_rank)

    def note(self, left_out: LeftOut) -> None:
        for (taken, *others), count in self.made.items():
            left_out.note(
                f"{count:,} keys have several pictures: using .{taken}, leaving out "
                f".{' and .'.join(others)}. To use .{others[0]}, add --image {others[0]}."
            )


def _rank(ending: str) -> tuple[int, int, str]:
    """JPEG first, then the order of `IMAGE_ENDINGS`; `seg.png` after all plain ones."""
    last = ending.rpartition(".")[2]
    return "." in ending, IMAGE_ENDINGS.index(f".{last}"), ending


def _items(shard: Path, members: Members, choice: _Choice, left_out: LeftOut) -> Iterator[Item]:
    labels = _labels(shard, members)
    samples = _pictures(members, labels)
    if not samples:
        raise SourceError(f"{shard} is not a WebDataset shard: it holds no pictures.")
    restarted = 0
    for key, by_ending in samples.items():
        taken = by_ending[choice.of(list(by_ending), f"{shard}: {key!r}")]
        values = labels.get(key, [UNLABELLED])
        if len(values) != len(taken):
            raise SourceError(
                f"{shard}: the key {key!r} occurs {len(taken)} times as a picture and "
                f"{len(values)} times as .cls, so it is unclear which belong together."
            )
        restarted += len(taken) > 1
        for number, (member, label) in enumerate(zip(taken, values, strict=True), 1):
            again = f" ({number})" if number > 1 else ""
            yield Item(f"{shard.name}/{member.name}{again}", label, str(shard), "span", member.offset_data, member.size)
    if restarted:
        left_out.note(f"{shard}: {restarted:,} keys occur more than once; each occurrence is treated as a separate picture.")


def _pictures(members: Members, labels: Mapping[str, object]) -> dict[str, dict[str, Members]]:
    """The pictures of each key by their ending, in order.

    A key ends at the last dot; where no class has that key, at the first one:
    0.seg.png belongs to 0.cls.
    """
    samples: dict[str, dict[str, Members]] = {}
    for member in members:
        key, _, ending = member.name.rpartition(".")
        if f".{ending.lower()}" not in IMAGE_ENDINGS:
            continue
        folder, _, name = member.name.rpartition("/")
        first = f"{folder}/{name.partition('.')[0]}" if folder else name.partition(".")[0]
        if key not in labels and first in labels:
            key = first
        samples.setdefault(key, {}).setdefault(member.name[len(key) + 1 :].lower(), []).append(member)
    return samples


def _labels(shard: Path, members: Members) -> dict[str, list[int]]:
    """The class numbers of each key, in order; `UNLABELLED` for negative ones."""
    labels: dict[str, list[int]] = {}
    with open_regular(shard) as file:
        for member in members:
            key, _, ending = member.name.rpartition(".")
            if ending.lower() != "cls":
                continue
            file.seek(member.offset_data)
            labels.setdefault(key, []).append(_number(file.read(min(member.size, CLS_BYTES)), f"{shard}: {member.name}"))
    return labels


def _number(data: bytes, what: str) -> int:
    try:
        text = decode_text(data)[0].strip()
    except UnicodeDecodeError:
        text = repr(data)
    if not re.fullmatch(r"-?[0-9]{1,20}", text):
        raise SourceError(f"{what} holds {text[:20]!r} instead of a class number.")
    return max(int(text), UNLABELLED)
