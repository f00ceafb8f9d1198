"""The 1000 classes: their order, and that real pictures named by others
carry the same ids and names.
"""

import re
from pathlib import Path

import pytest

from alexnet.published.imagenet import classes, wordnet_ids

IMAGENETTE = {
    "n01440764": "tench",
    "n02102040": "English springer",
    "n02979186": "cassette player",
    "n03000684": "chain saw",
    "n03028079": "church",
    "n03394916": "French horn",
    "n03417042": "garbage truck",
    "n03425413": "gas pump",
    "n03445777": "golf ball",
    "n03888257": "parachute",
}


def test_a_thousand_each_once_in_order() -> None:
    assert len(classes()) == len(wordnet_ids()) == 1000
    assert len(set(classes())) == len(set(wordnet_ids())) == 1000
    assert list(wordnet_ids()) == sorted(wordnet_ids())
    assert all(re.fullmatch(r"n\d{8}", wordnet_id) for wordnet_id in wordnet_ids())
    assert all(name and name == name.strip() and "," not in name for name in classes())


@pytest.mark.parametrize(
    ("number", "wordnet_id", "name"),
    [
        (0, "n01440764", "tench"),
        (134, "n02012849", "crane bird"),
        (151, "n02085620", "Chihuahua"),
        (264, "n02113186", "Cardigan"),
        (281, "n02123045", "tabby"),
        (282, "n02123159", "tiger cat"),
        (285, "n02124075", "Egyptian cat"),
        (386, "n02504458", "African elephant"),
        (474, "n02963159", "cardigan"),
        (517, "n03126707", "crane"),
        (620, "n03642806", "laptop"),
        (638, "n03710637", "maillot"),
        (639, "n03710721", "maillot tank suit"),
        (954, "n07753592", "banana"),
        (999, "n15075141", "toilet tissue"),
    ],
)
def test_known_classes(number: int, wordnet_id: str, name: str) -> None:
    assert (wordnet_ids()[number], classes()[number]) == (wordnet_id, name)


def test_imagenette(shared: Path) -> None:
    """Its ten folders are WordNet ids of ImageNet; what they show is told by its authors."""
    folders = sorted(folder.name for folder in (shared / "data" / "imagenette-mini" / "train").iterdir())
    assert folders == sorted(IMAGENETTE)
    assert {name: classes()[wordnet_ids().index(name)] for name in folders} == IMAGENETTE


def test_named_originals(shared: Path) -> None:
    """96 pictures out of ImageNet, named n01537544_indigo_bunting.JPEG by others."""
    stems = [path.stem for path in (shared / "data" / "imagenet-originals").glob("n*_*.JPEG")]
    assert len(stems) == 96
    names = dict(zip(wordnet_ids(), classes(), strict=True))
    for stem in stems:
        wordnet_id, _, name = stem.partition("_")
        assert names[wordnet_id] == name.replace("_", " ")
