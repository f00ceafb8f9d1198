"""What we read back from JSON is checked once, and the first misfit is named."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from alexnet.errors import StoreError
from alexnet.schema import Range, parse, parse_json, read_json


@dataclass(frozen=True)
class Part:
    count: Annotated[int, Range(0, 100)]
    blocks: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True)
class Whole:
    name: Annotated[str, Range(1)]
    kind: Literal["a", "b", 1]
    parts: dict[str, Part]
    scale: float = 1.0
    note: str | None = None
    digest: Annotated[str | None, Range(4, 4)] = None
    flag: bool = False
    rest: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.name == "wrong":
            raise ValueError("name (=wrong) is not right.")


GOOD: dict[str, Any] = {"name": "x", "kind": "a", "parts": {"train": {"count": 3, "blocks": [[3, "ab"]]}}}


def read(value: object) -> Whole:
    return parse(value, Whole, "store/manifest.json", StoreError, "Prepare the store again.")


def test_good_data_becomes_the_dataclass() -> None:
    assert read(GOOD) == Whole("x", "a", {"train": Part(3, ((3, "ab"),))})
    whole = read({**GOOD, "scale": 2, "note": "n", "flag": True, "rest": [{}, None], "kind": 1})
    assert (whole.scale, type(whole.scale), whole.note, whole.flag, whole.rest) == (2.0, float, "n", True, [{}, None])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": 3}, "name is 3, but must be a text"),
        ({"name": ""}, "name is 0 long, but must be at least 1"),
        ({"name": "wrong"}, "does not hold together: name (=wrong) is not right."),
        ({"kind": True}, "kind is true, but must be 'a' or 'b' or 1"),
        ({"kind": "c" * 90}, "kind is 'ccc"),
        ({"parts": []}, "parts is a list of 0, but must be an object"),
        ({"parts": {"train": {}}}, "parts.train.count is missing"),
        ({"parts": {"train": {"count": -3}}}, "parts.train.count is -3, but must be from 0 to 100"),
        ({"parts": {"train": {"count": 101}}}, "parts.train.count is 101"),
        ({"parts": {"train": {"count": True}}}, "parts.train.count is true, but must be a whole number"),
        ({"parts": {"train": {"count": 1.0}}}, "parts.train.count is 1.0, but must be a whole number"),
        ({"parts": {"train": {"count": 10**30}}}, "parts.train.count is a whole number of more than 30 digits"),
        ({"parts": {"train": {"count": 1, "blocks": [[1]]}}}, "parts.train.blocks[0] has 1 entries, but must have 2"),
        ({"parts": {"train": {"count": 1, "blocks": [[1, 2]]}}}, "parts.train.blocks[0][1] is 2, but must be a text"),
        ({"parts": {"train": {"count": 1, "colour": 1}}}, "parts.train.colour is not a known field"),
        ({"scale": "1"}, "scale is '1', but must be a number"),
        ({"scale": float("nan")}, "scale is nan, but must be finite"),
        ({"scale": float("inf")}, "scale is inf, but must be finite"),
        ({"scale": 10**400}, "scale is a whole number of more than 30 digits, but must be finite"),
        ({"scale": None}, "scale is null, but must be a number"),
        ({"note": 1}, "note is 1, but must be a text"),
        ({"digest": "abc"}, "digest is 3 long, but must be exactly 4"),
        ({"flag": 1}, "flag is 1, but must be true or false"),
    ],
)
def test_a_misfit_is_named_with_the_rule_and_the_next_step(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(StoreError) as raised:
        read({**GOOD, **changes})
    assert str(raised.value).startswith("store/manifest.json is damaged: ")
    assert said in str(raised.value)
    assert str(raised.value).endswith(" Prepare the store again.")


@pytest.mark.parametrize("value", [None, 3, "text", [], True])
def test_anything_but_an_object_is_refused(value: object) -> None:
    with pytest.raises(StoreError, match="the content is .*, but must be an object"):
        read(value)


@pytest.mark.parametrize("text", ["", "{", '{"name": "x"', b"\xff\xfe{}", "[" * 100_000, f'{{"name": {"9" * 5000}}}'])
def test_what_is_not_json_is_refused(text: str | bytes) -> None:
    with pytest.raises(StoreError, match=r"^the log is damaged: "):
        parse_json(text, Whole, "the log", StoreError, "Begin again.")


def test_files_are_read_and_their_names_said(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(StoreError, match="a.json cannot be read: No such file or directory. Begin again."):
        read_json(path, Whole, StoreError, "Begin again.")
    path.write_text(json.dumps(GOOD))
    assert read_json(path, Whole, StoreError, "Begin again.").name == "x"
