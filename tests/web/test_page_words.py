"""The page's own sentences: the same in every language, each of them used, none of them missing."""

import json
import re
from string import Formatter

import pytest

from alexnet.web import export
from alexnet.words import CATALOGUE, ENGLISH, LANGUAGES

OWN = {language: json.loads(export.asset(f"words/{language}.json")) for language in LANGUAGES}
CODE = "\n".join(export.modules().values())
#: Beginnings of keys that the code completes: `layer.story_${kind}`.
COMPLETED = {match for match in re.findall(r"[`\"]((?:[a-z]+\.)?[a-z_0-9]*)\$\{", CODE) if len(match) > 2}


def places(sentence: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(sentence) if name}


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_same_keys_in_the_same_order(language: str) -> None:
    """With the same places; none of them is one of the catalogue's, which the page has too."""
    assert list(OWN[language]) == list(OWN["en"])
    assert not set(OWN[language]) & set(CATALOGUE[language])
    for key, sentence in OWN[language].items():
        assert places(sentence) == places(OWN["en"][key]), key
        assert sentence.strip() == sentence and sentence, key


def test_each_is_used() -> None:
    quoted = set(re.findall(r"[\"'`]([a-z_0-9]+\.[a-z_0-9]+)[\"'`]", CODE))
    unused = [key for key in OWN["en"] if key not in quoted and not any(key.startswith(start) for start in COMPLETED)]
    assert unused == []


def test_none_is_missing() -> None:
    """Every key that the code names whole is there."""
    named = set(re.findall(r"\bt\(\"([a-z_0-9.]+)\"", CODE)) | set(
        re.findall(r"\"((?:tour|quiz|error|upload)\.[a-z_0-9]+)\"", CODE)
    )
    assert len(named) > 100 and named - set(OWN["en"]) - set(ENGLISH) - {"tour.relu", "tour.tanh"} == set()


def test_chinese_is_chinese() -> None:
    """A sentence that is the same in both languages has no words."""
    same = [key for key, sentence in OWN["zh"].items() if sentence == OWN["en"][key]]
    assert [key for key in same if re.search(r"[A-Za-z]{2,}", re.sub(r"\{\w+\}", "", OWN["en"][key]))] == []
