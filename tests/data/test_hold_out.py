"""Which pictures are held out: by content, evenly, and without moving when others come."""

from collections import Counter
from collections.abc import Sequence
from hashlib import sha256
from math import sqrt
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet.data import sources
from alexnet.data.hold_out import split_off
from alexnet.data.prepare import prepare
from alexnet.data.sources import Item, Source
from alexnet.errors import SourceError

#: By class, the content of its pictures; one that begins with "bad" cannot be decoded.
Classes = Sequence[Sequence[str]]
READ = sources.read


def source_of(classes: Classes) -> Source:
    items = [
        Item(f"{label}/{number}", label, content)
        for label, contents in enumerate(classes)
        for number, content in enumerate(contents)
    ]
    return Source("folder", tuple(f"class {label}" for label in range(len(classes))), {"train": items})


def readable(item: Item) -> bool:
    return not item.path.startswith("bad")


@pytest.fixture(autouse=True, scope="module")
def _contents() -> object:
    """An item's path is its content: hundreds of sources need no files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("alexnet.data.sources.read", lambda item: item.path.encode())
        yield


def held(classes: Classes, share: float = 0.1, seed: int = 0) -> set[tuple[int, str]]:
    """(class, content) of what is held out."""
    return {(item.label, item.path) for item in split_off(source_of(classes), share, seed, readable).splits.get("val", [])}


def below(content: str, share: float, seed: int = 0) -> bool:
    """Whether the share alone holds it out, computed here once more."""
    key = sha256(f"{seed}/".encode() + sha256(content.encode()).digest()).digest()
    return int.from_bytes(key, "big") / 2**256 < share


def numbered(count: int, name: str = "") -> list[str]:
    return [f"{name}{number}" for number in range(count)]


# --- the draw -------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5])
def test_about_the_share_of_each_class(share: float) -> None:
    """Four standard deviations of a binomial draw, which one class in 16,000 exceeds."""
    sizes = [5000, 2000, 1000]
    counts = Counter(label for label, _ in held([numbered(size, f"{size}/") for size in sizes], share))
    for label, size in enumerate(sizes):
        assert abs(counts[label] - share * size) < 4 * sqrt(size * share * (1 - share))


def test_partitions_in_order() -> None:
    source = source_of([numbered(30), numbered(40, "b")])
    split = split_off(source, 0.25, 3, readable)
    assert len(split.splits["train"]) + len(split.splits["val"]) == 70
    chosen = set(split.splits["val"])
    assert split.splits["train"] == [item for item in source.splits["train"] if item not in chosen]
    assert split.splits["val"] == [item for item in source.splits["train"] if item in chosen]


def test_the_draw_depends_on_content_and_seed_alone() -> None:
    classes = [numbered(50), numbered(50, "b")]
    assert held(classes, seed=1) == held(classes, seed=1) == held([contents[::-1] for contents in classes], seed=1)
    assert held(classes, seed=1) != held(classes, seed=2)


def test_the_draw_of_a_seed_is_the_same_for_ever() -> None:
    """A store that is prepared again in a year has the same pictures held out."""
    assert held([numbered(20), numbered(20, "b")]) == {(0, "10"), (1, "b9")}


def test_few_pictures(capsys: pytest.CaptureFixture[str]) -> None:
    """One of few is held out and one trains; a class's only picture trains; each is said."""
    chosen = held([["a"], ["b", "c"], numbered(5, "d"), ["b"] * 3], 0.001)
    assert Counter(label for label, _ in chosen) == {1: 1, 2: 1}
    said = capsys.readouterr().err
    assert "Nothing is held out of 2 classes ('class 0', 'class 3'), with one picture only." in said
    assert (
        "In 2 classes ('class 1', 'class 2') the random draw left training or testing without a picture, so one was moved"
        in said
    )
    assert Counter(label for label, _ in held([numbered(3), numbered(4, "e")], 0.9999)) == {0: 2, 1: 3}


def test_what_cannot_be_decoded_does_not_count() -> None:
    """Whichever the draw would take first: every class has a picture on each side, and
    none needs the bad ones.
    """
    for seed in range(30):
        split = split_off(
            source_of([["bad 1", "a", "bad 2", "b", ""], ["bad 3", "bad 4", "c", "d"]]), 0.3, seed, readable
        ).splits
        for items in split.values():
            assert {item.label for item in items if readable(item) and item.path} == {0, 1}


@given(
    st.lists(st.lists(st.sampled_from(["bad", *"abcdefghij"]), min_size=1, max_size=8), min_size=1, max_size=4),
    st.sampled_from([0.05, 0.3, 0.9]),
    st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_whatever_the_classes(classes: list[list[str]], share: float, seed: int) -> None:
    """One content is on one side; every class that has a picture trains on one; it has one held out
    if it has one that is in no other class, and another."""
    try:
        split = split_off(source_of(classes), share, seed, readable).splits
    except SourceError:
        assert all(
            len({content for content in contents if content != "bad"}) < 2 or not alone(classes, label)
            for label, contents in enumerate(classes)
        )
        return
    sides = {name: {item.path for item in items} for name, items in split.items()}
    assert not sides["train"] & sides["val"]
    for label, contents in enumerate(classes):
        pictures = {content for content in contents if content != "bad"}
        assert not pictures or pictures & sides["train"]
        if len(pictures) > 1 and alone(classes, label):
            assert pictures & sides["val"]


def alone(classes: list[list[str]], label: int) -> set[str]:
    """Pictures of a class that are in no other."""
    others = {content for other, contents in enumerate(classes) if other != label for content in contents}
    return set(classes[label]) - others - {"bad"}


def natural(contents: Sequence[str], share: float, seed: int) -> bool:
    """Whether the share alone gives the class a picture on each side."""
    sides = {below(content, share, seed) for content in contents if not content.startswith("bad")}
    return sides == {True, False}


@given(
    st.lists(st.sets(st.integers(0, 10**6).map(str), min_size=2, max_size=30), min_size=1, max_size=3),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 10**6).map(str) | st.just("bad")), max_size=20),
    st.sampled_from([0.1, 0.3]),
    st.integers(0, 100),
)
@settings(max_examples=100, deadline=None)
def test_a_picture_that_is_added_moves_no_other(
    classes: list[set[str]], added: list[tuple[int, str]], share: float, seed: int
) -> None:
    """Wherever the share gave the class something on each side; only forced choices may change."""
    before = [sorted(contents) for contents in classes]
    after = [[*contents, *(content for label, content in added if label == number)] for number, contents in enumerate(before)]
    fixed = {label for label, contents in enumerate(before) if natural(contents, share, seed)}
    if len(fixed) < len(before):
        return
    first, second = held(before, share, seed), held(after, share, seed)
    for label in fixed:
        for content in before[label]:
            assert ((label, content) in first) == ((label, content) in second) == below(content, share, seed)


def test_copies_are_on_one_side_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    """Within a class, and in two classes."""
    chosen = held([[*numbered(30), *numbered(30)], [*numbered(40)]], 0.3)
    both = {content for _, content in chosen if int(content) < 30}
    assert chosen == {(label, content) for label in (0, 1) for content in both} | {
        (1, c) for c in numbered(40) if below(c, 0.3)
    }
    assert "60 pictures are exact copies of another one" in capsys.readouterr().err


def test_classes_that_share_all_their_pictures(capsys: pytest.CaptureFixture[str]) -> None:
    """Of three pictures in three pairs, no two sides give every class one of each: training goes
    first, and it is said.
    """
    split = split_off(source_of([["a", "b"], ["b", "c"], ["c", "a"]]), 1e-9, 0, readable).splits
    assert {item.label for item in split["train"]} == {0, 1, 2}
    assert "other classes have all the same files" in capsys.readouterr().err


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5, float("nan"), "0.1", None, True])
def test_impossible_share(share: float) -> None:
    with pytest.raises(SourceError, match=r"hold_out \(=.*\) must be above 0 and below 1"):
        split_off(source_of([numbered(10)]), share, 0, readable)


def test_nothing_to_hold_out() -> None:
    with pytest.raises(SourceError, match="no class has two different readable pictures"):
        held([["a"], ["b"], ["c", "c", "bad"]])


# --- on files -------------------------------------------------------------------------------------


def test_few_are_decoded() -> None:
    """Two of each class, not all of them."""
    asked: list[str] = []

    def counting(item: Item) -> bool:
        asked.append(item.path)
        return True

    split_off(source_of([numbered(500, f"{label}/") for label in range(4)]), 0.1, 0, counting)
    assert len(asked) == 8


def test_windows_own_files_are_never_what_is_held_out(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """desktop.ini in each class."""
    monkeypatch.setattr("alexnet.data.sources.read", READ)
    for seed in range(4):
        store = prepare(shared / "cases" / "09-hold-out", tmp_path / f"store{seed}", size=8, seed=seed)
        assert set(store.held_out.labels.tolist()) == set(store.train.labels.tolist()) == {0, 1}
