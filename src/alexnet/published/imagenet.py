"""ImageNet's 1000 classes in the order that Caffe's and torchvision's networks number
them: sorted WordNet ids.

The ILSVRC kit numbers the same classes in another order, the one of the network of 2012:
see `Variant.class_order`.

`imagenet_classes.txt` holds a line a class, "n01440764 tench": the WordNet id and the first of the
synonyms that Caffe's `synset_words.txt` gives. Two first synonyms occur twice there, and the names
are torchvision's, which tells them apart: "crane bird" (class 134) beside the machine "crane"
(517), "maillot tank suit" (639) beside "maillot" (638). "Cardigan" (264) is the Welsh corgi,
"cardigan" (474) the garment.

Sources: ids from timm (`imagenet_synsets.txt`), names from torchvision (`models/_meta.py`); timm's
own names, taken from WordNet (`imagenet_synset_to_lemma.txt`), agree with torchvision's in all
classes but the two above.
"""

from collections.abc import Sequence
from functools import cache
from importlib.resources import files


def classes() -> tuple[str, ...]:
    """The 1000 names, as predictions show them; each occurs once.

    >>> classes()[281], classes()[282], classes()[285]
    ('tabby', 'tiger cat', 'Egyptian cat')
    """
    return tuple(name for _, name in _lines())


def wordnet_ids() -> tuple[str, ...]:
    """The 1000 WordNet ids in the same order, which are the names of ImageNet's folders.

    >>> wordnet_ids()[0]
    'n01440764'
    """
    return tuple(wordnet_id for wordnet_id, _ in _lines())


def readable(names: Sequence[str]) -> tuple[str, ...]:
    """The names, or, where all are WordNet ids of ImageNet's classes, what these are called.

    >>> readable(["n01440764", "n03394916"]), readable(["n01440764", "cat"])
    (('tench', 'French horn'), ('n01440764', 'cat'))
    """
    known = dict(_lines())
    return tuple(known[name] for name in names) if all(name in known for name in names) else tuple(names)


@cache
def _lines() -> tuple[tuple[str, str], ...]:
    text = (files("alexnet.published") / "imagenet_classes.txt").read_text(encoding="utf-8")
    pairs = (line.partition(" ") for line in text.splitlines())
    return tuple((wordnet_id, name) for wordnet_id, _, name in pairs)
