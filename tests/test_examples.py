"""Mistakes by kind, and what the network makes of held-out pictures."""

import numpy as np
import pytest

from alexnet import AlexNet, engines, examples
from alexnet.data.preprocessing import Preprocessing
from alexnet.data.store import Store
from alexnet.evaluate import evaluate_classifier
from alexnet.examples import Example, Mistakes
from alexnet.trained import Trained
from alexnet.variants import get_variant


def example(name: str, shares: list[float], true: int) -> Example:
    order = np.argsort(shares)[::-1][:5].tolist()
    return Example(name, np.zeros((8, 8, 3), np.uint8), true, tuple((number, shares[number]) for number in order), shares[true])


def test_kinds() -> None:
    """Each mistake is of one kind; those that matter most come first."""
    made = [
        example("right", [0.9, 0.1, 0.0], 0),
        example("certain", [0.91, 0.09, 0.0], 1),
        example("more certain", [0.99, 0.01, 0.0], 2),
        example("close", [0.50, 0.35, 0.15], 1),
        example("closer", [0.41, 0.40, 0.19], 1),
        example("plain", [0.7, 0.2, 0.1], 1),
        example("plainer", [0.8, 0.1, 0.1], 2),
    ]
    kinds = Mistakes.of(made)
    assert [[one.file for one in kind] for kind in kinds] == [
        ["more certain", "certain"],
        ["closer", "close"],
        ["plainer", "plain"],
    ]


def test_the_true_class_need_not_be_among_the_best() -> None:
    seven = example("seventh", [0.4, 0.2, 0.15, 0.1, 0.08, 0.06, 0.01], 6)
    assert seven.margin == pytest.approx(0.39) and 6 not in dict(seven.top)


def test_drawn_pictures_are_classified(store: Store) -> None:
    """All held-out pictures of a small store, with the verdicts of the evaluation."""
    variant = get_variant("paper", width=1 / 16, input_size=64, num_classes=len(store.classes))
    trained = Trained(AlexNet(variant).eval(), store.classes, Preprocessing.of(variant, store), {}, {})
    classifier = engines.of(trained)
    drawn = examples.draw(classifier, store)
    assert sorted(one.file for one in drawn) == sorted(store.held_out.files)
    assert sum(one.wrong for one in drawn) == evaluate_classifier(classifier, store).wrong
    assert all(one.share <= one.certainty for one in drawn)
