"""Classes of unequal size weigh alike where that is asked for."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from runs import recipe, same_weights

from alexnet.data.store import Split, Store
from alexnet.errors import RecipeError
from alexnet.train.balance import class_weights
from alexnet.train.health.watch import Watch
from alexnet.train.loop import train
from alexnet.train.start import Start
from alexnet.train.steps import choose
from alexnet.train.steps.plain import loss_function
from alexnet.train.tune import head

CPU = torch.device("cpu")


def split(*labels: int) -> Split:
    return Split("train", np.zeros((len(labels), 6), np.uint8), np.array(labels, np.int32), Path())


def test_weights() -> None:
    """Each class weighs N / K in all, and a class without pictures does not divide by zero."""
    weights = class_weights(recipe(class_weights="balanced"), split(0, 0, 0, 0, 0, 0, 1, 1, 3), 4)
    assert weights is not None
    assert weights[[0, 1, 3]].tolist() == pytest.approx([9 / (3 * 6), 9 / (3 * 2), 9 / (3 * 1)])
    assert float(weights[[0, 0, 0, 0, 0, 0, 1, 1, 3]].mean()) == pytest.approx(1)
    assert class_weights(recipe(), split(0, 1), 2) is None


def test_the_loss(store: Store) -> None:
    """Against its formula, with smoothing too; equal weights change nothing."""
    model = Start.fresh(recipe(), store, CPU).model.eval()
    images, labels, weights = torch.randn(4, 3, 64, 64), torch.tensor([0, 2, 1, 1]), torch.tensor([0.5, 2.0, 1.0])
    with torch.no_grad():
        loss, logits = loss_function(model, compiled=False, label_smoothing=0.1, weights=weights)(images, labels, None)
        same, _ = loss_function(model, compiled=False, weights=torch.ones(3))(images, labels, None)
        plain, _ = loss_function(model, compiled=False)(images, labels, None)
    each = [
        weights[label] * F.cross_entropy(row, label, label_smoothing=0.1) for row, label in zip(logits, labels, strict=True)
    ]
    assert float(loss) == pytest.approx(float(sum(each)) / 4, rel=1e-6)
    assert float(same) == pytest.approx(float(plain), rel=1e-6)


def test_a_run(store: Store, tmp_path: Path) -> None:
    """On classes of equal size the weights are 1, and a run ends where it would without them; the
    fused step has no such loss, and says so.
    """
    weighted = recipe(class_weights="balanced", epochs=1)
    counts = np.bincount(store.train.labels)
    given = class_weights(weighted, store.train, 3)
    assert given is not None and given.tolist() == pytest.approx((counts.sum() / (3 * counts)).tolist())
    train(weighted, store, tmp_path / "weighted")
    train(recipe(epochs=1), store, tmp_path / "plain")
    assert same_weights(tmp_path / "weighted", tmp_path / "plain") == (len(set(counts)) == 1)
    with pytest.raises(
        RecipeError, match=r"fused \(=on\) cannot train this here \(its loss knows no class-weights\): use auto"
    ):
        choose.wants_fused(recipe(class_weights="balanced", fused="on"), weighted.network(3), CPU)


def test_what_a_blind_network_reaches(store: Store) -> None:
    """With weights it says the same of each class: ln 3."""
    weighted = recipe(class_weights="balanced")
    assert Watch(weighted, weighted.network(3), store.train, 100).blind == pytest.approx(np.log(3))


def test_a_last_layer() -> None:
    """A class that weighs twice as much is one whose pictures are there twice."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 3
    z = torch.randn(60, 8, generator=generator) + labels[:, None]
    twice = labels == 1
    more, share = torch.cat([z, z[twice]]), 60 / (60 + int(twice.sum()))

    def solved(rows: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        weight, bias = torch.zeros(3, 8), torch.zeros(3)
        head._minimise(weight, bias, rows, targets, None, 0.1, weights)
        return weight

    weighted = solved(z, labels, share * torch.tensor([1.0, 2.0, 1.0]))
    assert torch.allclose(weighted, solved(more, torch.cat([labels, labels[twice]]), None), atol=1e-3)
    assert not torch.allclose(weighted, solved(z, labels, None), atol=1e-2)
