"""The update rule and the schedules, by hand."""

import pytest
import torch
from torch import nn

from alexnet.train.optim import SGD, plateau_drops, schedule, warmup
from alexnet.train.recipes import get_recipe
from alexnet.variants import get_variant

CURVATURE = torch.tensor([1.0, 4.0, 0.25], dtype=torch.float64)


class Quadratic(nn.Module):
    """Loss = sum of curvature * p^2 / 2 over a weight and a bias, so the gradient is curvature *
    p.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Module()
        self.layer.weight = nn.Parameter(torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64))
        self.layer.bias = nn.Parameter(torch.tensor([0.5, 1.5, -1.0], dtype=torch.float64))

    def forward(self) -> torch.Tensor:
        return sum((CURVATURE * p**2).sum() / 2 for p in self.parameters())  # type: ignore[return-value]


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("name", ["paper", "caffe", "code-2012"])
def test_trajectory_across_a_drop(name: str, nesterov: bool) -> None:
    """Twelve steps in plain Python floats, the learning rate divided by 10 after five and ten."""
    variant = get_variant(name)
    model = Quadratic()
    optimiser = SGD(model, momentum=0.9, weight_decay=5e-4, variant=variant, nesterov=nesterov)
    values = {"weight": [1.0, -2.0, 3.0], "bias": [0.5, 1.5, -1.0]}
    speeds = {"weight": [0.0] * 3, "bias": [0.0] * 3}
    for step in range(12):
        scale = 0.1 ** ((step >= 5) + (step >= 10))
        model().backward()
        optimiser.step(0.05, scale)
        for kind in values:
            lr, decay = 0.05 * scale, 5e-4
            if kind == "bias":
                lr = 0.05 * variant.bias_lr * (scale if variant.bias_lr_drops else 1.0)
                decay *= variant.bias_decay
            for i in range(3):
                w, gradient = values[kind][i], float(CURVATURE[i]) * values[kind][i]
                speeds[kind][i] = 0.9 * speeds[kind][i] - decay * lr * w - lr * gradient
                ahead = 0.9 * speeds[kind][i] - decay * lr * w - lr * gradient
                values[kind][i] = w + (ahead if nesterov else speeds[kind][i])
        assert model.layer.weight.tolist() == pytest.approx(values["weight"], rel=1e-13)
        assert model.layer.bias.tolist() == pytest.approx(values["bias"], rel=1e-13)
    assert all(p.grad is None for p in model.parameters())


def test_differs_from_torch_sgd_at_a_drop_only() -> None:
    ours, theirs = Quadratic(), Quadratic()
    optimiser = SGD(ours, 0.9, 5e-4, get_variant("paper"))
    reference = torch.optim.SGD(theirs.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    for step in range(8):
        if step == 5:
            torch.testing.assert_close(ours.layer.weight, theirs.layer.weight, rtol=1e-12, atol=0)
            reference.param_groups[0]["lr"] = 0.005
        for model in (ours, theirs):
            model().backward()
        optimiser.step(0.05, 0.1 if step >= 5 else 1.0)
        reference.step()
        reference.zero_grad()
    assert (ours.layer.weight - theirs.layer.weight).abs().max() > 0.01


def test_nesterov_is_torch_s_at_a_constant_rate() -> None:
    ours, theirs = Quadratic(), Quadratic()
    optimiser = SGD(ours, 0.9, 5e-4, get_variant("paper"), nesterov=True)
    reference = torch.optim.SGD(theirs.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4, nesterov=True)
    for _ in range(8):
        for model in (ours, theirs):
            model().backward()
        optimiser.step(0.05)
        reference.step()
        reference.zero_grad()
    torch.testing.assert_close(ours.layer.weight, theirs.layer.weight, rtol=1e-12, atol=0)


def test_state_goes_round() -> None:
    first, second = Quadratic(), Quadratic()
    one, two = (SGD(model, 0.9, 0.0, get_variant("paper")) for model in (first, second))
    first().backward()
    one.step(0.1)
    two.load(one.state())
    assert all(torch.equal(one.velocity[name], two.velocity[name]) for name in one.velocity)


def test_warmup() -> None:
    r = get_recipe("laptop", epochs=10, warmup=0.2)
    assert [warmup(r, epoch) for epoch in (0, 1, 2, 5)] == [0, 0.5, 1, 1]
    assert warmup(get_recipe("paper-2012"), 0) == 1


def test_linear() -> None:
    r = get_recipe("laptop", epochs=10, warmup=0.2, schedule="linear")
    assert [schedule(r, epoch, ()) for epoch in (0, 2, 6, 10)] == pytest.approx([1, 1, 0.5, 0])


def test_step() -> None:
    r = get_recipe("laptop", epochs=10, schedule="step", lr_drops=(2.5, 7.0))
    assert [schedule(r, epoch, ()) for epoch in (0, 2.4, 2.5, 6.9, 7, 9)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


@pytest.mark.parametrize(
    ("errors", "drops"),
    [
        ([], 0),
        ([0.5, 0.4, 0.3], 0),
        ([0.5, 0.5, 0.5], 1),  # equal is no improvement
        ([0.5, 0.4, 0.41, 0.39, 0.40], 0),
        ([0.5, 0.4, 0.41, 0.42], 1),
        ([0.5, 0.4, 0.41, 0.42, 0.41, 0.43], 2),
        ([0.5, 0.4, 0.41, 0.42, 0.39, 0.38], 1),
        ([0.5, float("nan"), float("nan")], 1),
    ],
)
def test_plateau(errors: list[float], drops: int) -> None:
    assert plateau_drops(errors, patience=2) == drops
    r = get_recipe("laptop", schedule="plateau", patience=2)
    assert schedule(r, len(errors), errors) == pytest.approx(0.1**drops)
