"""Errors and confusion, against counting by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from alexnet import AlexNet
from alexnet.data.augment import Preprocessing
from alexnet.data.store import Split, Store
from alexnet.errors import CheckpointError
from alexnet.evaluate import Evaluation, evaluate, evaluate_checkpoint, probabilities
from alexnet.variants import get
from alexnet.weights.native import Trained

CLASSES = tuple("abcdefg")


class Fixed(nn.Module):
    """Scores that depend on the record's first pixel only: row `pixel` of a table."""

    def __init__(self, scores: torch.Tensor) -> None:
        super().__init__()
        self.scores = nn.Parameter(scores)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scores[x[:, 0, 0, 0].round().long()]


def plain(size: int = 2) -> Preprocessing:
    return Preprocessing(size, size, "short-side", False, torch.zeros(3, 1, 1), torch.ones(3))


def test_against_counting(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    count, k = 300, len(CLASSES)
    scores = rng.normal(size=(256, k))
    labels = rng.integers(0, k, count).astype(np.int32)
    records = np.full((count, 6), 128, np.uint8)
    records[:, :4] = rng.integers(0, 256, (count, 1))  # grey: Y of all four pixels
    result = evaluate(Fixed(torch.from_numpy(scores)), plain(), Split("val", records, labels, tmp_path), CLASSES)
    order = np.argsort(-scores[records[:, 0]], axis=1)
    assert result.images == count
    assert result.top1_error == pytest.approx((order[:, 0] != labels).mean())
    assert result.top5_error == pytest.approx((order[:, :5] != labels[:, None]).all(axis=1).mean())
    for true in range(k):
        for predicted in range(k):
            assert result.confusion[true, predicted] == ((labels == true) & (order[:, 0] == predicted)).sum()
    rows = result.as_json()["per_class"]
    assert sum(row["images"] for row in rows) == count
    assert rows[2]["top1_error"] == pytest.approx((order[labels == 2, 0] != 2).mean())


def test_a_class_without_pictures() -> None:
    result = Evaluation(("a", "b"), 1, np.array([[3, 1], [0, 0]]), np.array([4, 0]))
    assert result.as_json()["per_class"][1] == {"class": "b", "images": 0, "top1_error": None, "top5_error": None}
    assert (result.top1_error, result.top5_error) == (0.25, 0.0)


def test_ten_views_average_probabilities_not_logits(store: Store) -> None:
    variant = get("paper", width=1 / 16, input_size=64, num_classes=3, init="he", pixels="unit")
    model, preprocessing = AlexNet(variant, torch.Generator().manual_seed(0)).eval(), Preprocessing.of(variant, store)
    with torch.no_grad():
        model.fc8.weight.mul_(1000)  # so that the views differ, and averaging logits would give something else
    records = torch.from_numpy(np.array(store.held_out.records[:5]))
    by_view = [model(preprocessing.view(records, *view)).detach() for view in preprocessing.views(10)]
    expected = torch.stack([logits.softmax(1) for logits in by_view]).mean(0)
    torch.testing.assert_close(probabilities(model, preprocessing, records, 10), expected, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(expected, torch.stack(by_view).mean(0).softmax(1), atol=1e-3)


def test_the_model_keeps_its_mode(store: Store) -> None:
    variant = get("paper", width=1 / 16, input_size=64, num_classes=3)
    model = AlexNet(variant).train()
    evaluate(model, Preprocessing.of(variant, store), store.held_out, store.classes)
    assert model.training


def checkpoint(store: Store) -> Trained:
    variant = get("paper", width=1 / 16, input_size=64, num_classes=3)
    return Trained(AlexNet(variant).eval(), store.classes, Preprocessing.of(variant, store), {}, {})


def test_other_classes_are_refused(store: Store) -> None:
    trained = replace(checkpoint(store), classes=("blue", "green", "mauve"))
    with pytest.raises(CheckpointError, match=r"other classes.*differing: red"):
        evaluate_checkpoint(trained, store)
    with pytest.raises(CheckpointError, match="their order"):
        evaluate_checkpoint(replace(trained, classes=("red", "green", "blue")), store)


def test_other_records_are_refused(store: Store) -> None:
    trained = checkpoint(store)
    other = replace(trained, preprocessing=replace(trained.preprocessing, stored_size=96))
    with pytest.raises(CheckpointError, match=r"stored size 72, the network was trained with 96"):
        evaluate_checkpoint(other, store)


def test_named_split(store: Store) -> None:
    assert evaluate_checkpoint(checkpoint(store), store, "train").images == 60
    assert evaluate_checkpoint(checkpoint(store), store).images == 18
