"""Test pictures to look at, with what a network makes of them.

Mistakes come in three kinds, each with a question of its own. Where the network is certain of
another class, the label may be the mistake. Where the true class is nearly as likely as the one
named, a little more training, or a few more photos like it, may be enough. The rest are mistakes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from alexnet.data.image import decode
from alexnet.data.store import Split, Store
from alexnet.engines import Classifier
from alexnet.evaluate import outputs_of, probabilities

SAMPLE = 512  # test pictures among which mistakes are looked for
BATCH_SIZE = 64
CERTAIN = 0.9  # probability of a wrong class from which the label is in doubt
NEARLY = 0.2  # by how much less likely the true class may be


@dataclass(frozen=True)
class Example:
    """A test picture and the network's predictions for it.

    Attributes:
        file: where it came from.
        picture: (S, S, 3) uint8, RGB.
        true: number of its class among the network's outputs.
        top: (output, probability), from the most likely on.
        share: probability of its class.
    """

    file: str
    picture: NDArray[np.uint8]
    true: int
    top: tuple[tuple[int, float], ...]
    share: float

    @property
    def wrong(self) -> bool:
        """Whether the most likely class is not the true one."""
        return self.top[0][0] != self.true

    @property
    def certainty(self) -> float:
        """Probability of the most likely class."""
        return self.top[0][1]

    @property
    def margin(self) -> float:
        """By how much the true class is less likely than the most likely one."""
        return self.certainty - self.share


class Mistakes(NamedTuple):
    """Mistakes by kind, each in the order to look at them."""

    mislabelled: list[Example]
    nearly: list[Example]
    others: list[Example]

    @classmethod
    def of(cls, examples: Sequence[Example]) -> "Mistakes":
        """The mistakes among examples; each is of one kind."""
        wrong = sorted((one for one in examples if one.wrong), key=lambda one: -one.certainty)
        mislabelled = [one for one in wrong if one.certainty >= CERTAIN]
        nearly = sorted((one for one in wrong if one.margin <= NEARLY), key=lambda one: one.margin)
        return cls(mislabelled, nearly, [one for one in wrong if one.certainty < CERTAIN and one.margin > NEARLY])


def draw(classifier: Classifier, store: Store) -> list[Example]:
    """Held-out pictures drawn with a fixed seed, in random order, classified."""
    split = store.held_out
    order = np.random.default_rng(0).permutation(len(split))[:SAMPLE].tolist()
    batches = [order[start : start + BATCH_SIZE] for start in range(0, len(order), BATCH_SIZE)]
    classified = partial(_classified, classifier, split, outputs_of(classifier.classes, store))
    return [one for numbers in batches for one in classified(numbers)]


def _classified(classifier: Classifier, split: Split, outputs: torch.Tensor, numbers: Sequence[int]) -> Iterator[Example]:
    records = split.take(np.array(numbers))
    there = torch.from_numpy(records).to(classifier.preprocessing.mean.device)
    shares = probabilities(classifier.network, classifier.preprocessing, there, 1).cpu()
    best = shares.topk(min(5, len(classifier.classes)))
    rows = zip(numbers, records, shares, best.indices.tolist(), best.values.tolist(), strict=True)
    for number, record, share, labels, likely in rows:
        true = int(outputs[int(split.labels[number])])
        yield Example(split.files[number], decode(record), true, tuple(zip(labels, likely, strict=True)), float(share[true]))
