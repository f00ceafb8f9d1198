"""Averages of networks, against averaging by hand in float64; fitted coefficients,
against a general optimiser.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import optimize

from alexnet import AlexNet, engines
from alexnet.data.preprocessing import Preprocessing
from alexnet.data.store import Store
from alexnet.engines import Classifier
from alexnet.ensemble import evaluate_average, fit_coefficients
from alexnet.errors import CheckpointError
from alexnet.evaluate import evaluate_classifier
from alexnet.trained import Trained
from alexnet.variants import get_variant


def network(store: Store, seed: int, name: str = "paper", size: int = 64, sharp: float = 1.0) -> Classifier:
    """An untrained network whose answers differ from picture to picture."""
    variant = get_variant(name, width=1 / 16, input_size=size, num_classes=3, init="he", pixels="unit")
    model = AlexNet(variant, torch.Generator().manual_seed(seed)).eval()
    with torch.no_grad():
        model.fc8.weight.mul_(100 * sharp)
    return engines.of(Trained(model, store.classes, Preprocessing.of(variant, store), {}, {}))


@pytest.fixture(scope="module")
def networks(store: Store) -> list[Classifier]:
    """Three of different kinds and input sizes, which see the same store."""
    return [network(store, 0), network(store, 1, "caffe", 67, 2.0), network(store, 2, "torchvision", 64)]


def asked(networks: list[Classifier], store: Store, views: int) -> NDArray[np.float64]:
    """(M, N, K) probabilities, by hand."""
    records = torch.from_numpy(np.array(store.held_out.records))
    with torch.no_grad():
        return np.stack(
            [
                np.mean(
                    [
                        one.network(one.preprocessing.view(records, *view)).double().softmax(1).numpy()
                        for view in one.preprocessing.views(views)
                    ],
                    axis=0,
                )  # type: ignore[arg-type]
                for one in networks
            ]
        )


@pytest.mark.parametrize("views", [1, 10])
def test_against_averaging_by_hand(networks: list[Classifier], store: Store, views: int) -> None:
    result = evaluate_average(networks, store, views=views)  # type: ignore[arg-type]
    parts, labels = asked(networks, store, views), store.held_out.labels
    assert result.plain.top1_error == pytest.approx((parts.mean(0).argmax(1) != labels).mean())
    assert result.plain.images == len(labels) and result.plain.views == views
    for one, part in zip(result.alone, parts, strict=True):
        assert one.top1_error == pytest.approx((part.argmax(1) != labels).mean())
    assert result.coefficients is None and result.fitted is None


def test_one_twice_is_that_one(networks: list[Classifier], store: Store) -> None:
    alone = evaluate_classifier(networks[0], store)
    together = evaluate_average([networks[0], networks[0]], store).plain
    assert (together.confusion == alone.confusion).all() and (together.in_top5 == alone.in_top5).all()


def objective(weights: NDArray[np.float64], likelihoods: NDArray[np.float64]) -> float:
    return -float(np.log(likelihoods @ weights).mean())


@pytest.mark.parametrize("m", [2, 5])
def test_coefficients_against_a_general_optimiser(m: int) -> None:
    """SLSQP on the simplex: the objective within 1e-6 of its, the weights within 1e-3."""
    likelihoods = np.random.default_rng(m).beta(2, 2 + 0.1 * np.arange(m), (400, m))  # the best mixture has all of them
    found = fit_coefficients(likelihoods)
    best = optimize.minimize(
        objective,
        np.full(m, 1 / m),
        (likelihoods,),
        "SLSQP",
        bounds=[(0, 1)] * m,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        options={"ftol": 1e-12},
    )
    assert (best.x > 0.01).all()
    assert found.sum() == pytest.approx(1) and (found >= 0).all()
    assert objective(found, likelihoods) <= objective(best.x, likelihoods) + 1e-6
    np.testing.assert_allclose(found, best.x, atol=1e-3)


def test_a_network_that_gives_nothing_away() -> None:
    """Probability 0 for the true class everywhere is no reason for nan."""
    found = fit_coefficients(np.array([[0.0, 0.5], [0.0, 0.9]]))
    assert found == pytest.approx([0, 1], abs=1e-6)
    assert np.isfinite(fit_coefficients(np.zeros((3, 2)))).all()


def test_fitted_on_every_second_picture_tested_on_the_others(networks: list[Classifier], store: Store) -> None:
    result = evaluate_average(networks, store, fit=True)
    parts, labels = asked(networks, store, 1), store.held_out.labels
    expected = fit_coefficients(parts[:, np.arange(0, len(labels), 2), labels[::2]].T)
    assert result.coefficients == pytest.approx(expected, abs=1e-4)
    assert result.fitted is not None
    mixed = np.einsum("m,mnk->nk", expected, parts[:, 1::2])
    assert result.fitted.top1_error == pytest.approx((mixed.argmax(1) != labels[1::2]).mean())
    assert result.plain.top1_error == pytest.approx((parts[:, 1::2].mean(0).argmax(1) != labels[1::2]).mean())
    assert {one.images for one in (*result.alone, result.plain, result.fitted)} == {9}
    written = result.as_json()
    assert written["networks"] == 3 and written["fitted"]["top1_error"] == result.fitted.top1_error


def test_refused(networks: list[Classifier], store: Store) -> None:
    with pytest.raises(CheckpointError, match="needs at least two networks, but got 1"):
        evaluate_average(networks[:1], store)
    mauve = replace(networks[1], classes=("blue", "green", "mauve"))
    with pytest.raises(CheckpointError, match="have different classes"):
        evaluate_average([networks[0], mauve], store)
    with pytest.raises(CheckpointError, match=r"other classes.*differing: 'red'"):
        evaluate_average([mauve, mauve], store)
