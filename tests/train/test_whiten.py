"""Whitened kernels: on the pictures that they were made of, and against a
singular value decomposition.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from alexnet.data.store import Store
from alexnet.errors import RecipeError
from alexnet.train import recipes, whiten
from alexnet.train.start import Start


def test_answers_are_independent_and_equally_strong() -> None:
    """Correlated numbers in 20 dimensions, whose deviations differ by a factor of 20: 1.2 along
    each kernel, no correlation.

    1e-3 of the largest variance is added to each, which lowers the weakest
    of the six kept by 0.2 %.
    """
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4000, 20)) * np.linspace(1, 20, 20) @ np.linalg.qr(rng.standard_normal((20, 20)))[0]
    kernels = whiten.components(torch.from_numpy(x.T @ x / len(x)), 12).numpy()
    answers = x @ kernels.T
    second = answers[:, :6].T @ answers[:, :6] / len(x)
    np.testing.assert_allclose(second, 1.44 * np.eye(6), atol=0.005 * 1.44)
    np.testing.assert_array_equal(kernels[6:], -kernels[:6])
    directions = np.linalg.svd(x, full_matrices=False)[2][:6]
    cosines = np.abs((kernels[:6] * directions).sum(1)) / np.linalg.norm(kernels[:6], axis=1)
    np.testing.assert_allclose(cosines, 1, rtol=1e-9)


def test_an_odd_number_and_directions_that_do_not_occur() -> None:
    kernels = whiten.components(torch.diag(torch.tensor([4.0, 0.0, 1.0], dtype=torch.float64)), 5)
    assert kernels.shape == (5, 3) and kernels.isfinite().all()
    assert kernels[2].abs().max() == pytest.approx(1.2 / (4 * 1e-3) ** 0.5)


def test_conv1_of_a_run(store: Store) -> None:
    """conv1 answers to the training pictures with a deviation near 1.2 in each kernel; everything
    else starts as without.
    """
    changes = {"width": 1 / 8, "device": "cpu"}
    plain = Start.fresh(recipes.get_recipe("laptop", **changes), store, torch.device("cpu"))
    trained = Start.fresh(recipes.get_recipe("laptop", whiten=True, **changes), store, torch.device("cpu"))
    again = Start.fresh(recipes.get_recipe("laptop", whiten=True, **changes), store, torch.device("cpu"))
    for name, parameter in trained.model.named_parameters():
        assert torch.equal(parameter, again.model.get_parameter(name))
        assert torch.equal(parameter, plain.model.get_parameter(name)) == (name != "conv1.weight")
    records = torch.from_numpy(np.array(store.train.records))
    images = trained.preprocessing.view(records, 4, 4, False)  # the centre: 64 of 72
    answers = F.conv2d(images, trained.model.get_parameter("conv1.weight"), stride=4)
    deviation = answers.square().mean((0, 2, 3)).sqrt()
    assert deviation.max() < 1.201 and deviation.min() > 0.9  # the weakest have 1e-3 of the largest variance added
    assert not torch.equal(trained.model.get_parameter("conv1.weight"), plain.model.get_parameter("conv1.weight"))


def test_too_many_kernels(store: Store) -> None:
    with pytest.raises(RecipeError, match="at most 726 kernels, not 736"):
        Start.fresh(recipes.get_recipe("laptop", whiten=True, kernels=(736 * 2, 32, 32, 32, 32)), store, torch.device("cpu"))
