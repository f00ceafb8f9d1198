"""Before a run on a GPU: kernels that compute something else are not trained with, and
healthy ones are not accused.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from alexnet import fused, kernels
from alexnet.data.store import Store
from alexnet.errors import RecipeError, TrainingError
from alexnet.kernels import reference
from alexnet.train import recipes
from alexnet.train.loop import train
from alexnet.train.start import Start
from alexnet.train.steps import check as self_check
from alexnet.train.steps import choose as steps
from alexnet.train.steps.check import disagreement
from alexnet.train.steps.fused import FusedStep, open_fused_step

CPU = torch.device("cpu")


def step_of(store: Store, precision: str = "bf16", recipe: str = "paper-2012", **changes: Any) -> FusedStep:
    """A fused step on the CPU, where its kernels are the reference."""
    chosen = recipes.get_recipe(recipe, **{"width": 1 / 8, "input_size": 67, "batch_size": 10, **changes})
    return open_fused_step(Start.fresh(chosen, store, CPU), store.held_out, precision)


@pytest.fixture
def step(store: Store) -> Iterator[FusedStep]:
    made = step_of(store)
    yield made
    made.close()


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("recipe", [*recipes.RECIPES])
def test_healthy_steps_pass(store: Store, recipe: str, precision: str) -> None:
    made = step_of(store, precision, recipe)
    before = {name: parameter.detach().clone() for name, parameter in made.model.named_parameters()}
    assert disagreement(made, 1, 2) is None
    assert all(torch.equal(before[name], parameter) for name, parameter in made.model.named_parameters())
    made.close()


@pytest.mark.parametrize("recipe", ["paper-2012", "modern"])
def test_networks_that_have_learned_pass(store: Store, recipe: str) -> None:
    """A run may be resumed at any moment: what is checked are the kernels, not its
    weights, whose loss may be tiny.
    """
    made = step_of(store, recipe=recipe, init="he", pixels="unit", dropout=0.0, lr=0.005)
    for number in range(60):
        made.take(*divmod(number, 6), 0.005, 1.0)
    assert all(disagreement(made, *divmod(number, 6)) is None for number in range(4))
    made.close()


def of_the_output(change: Callable[[Tensor], Tensor]) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Makes a function that gives what another gives, changed."""
    return lambda function: lambda *arguments, **named: change(function(*arguments, **named))


def no_bias(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda x, bias, *arguments: function(x, 0.5 * bias, *arguments)


def no_sum(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A normalisation whose coefficient got lost."""
    return lambda x, bias, steps, size, coefficient, *rest: function(x, bias, steps, size, 0.5 * coefficient, *rest)


def in_bfloat16(change: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Right in float32."""
    return lambda y: change(y) if y.dtype == torch.bfloat16 else y


def larger_sum_in_bfloat16(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def broken(x: Tensor, bias: Tensor, steps: tuple[str, ...], size: int, coefficient: float, *rest: Any) -> Tensor:
        return function(x, bias, steps, size, coefficient * (100 if x.dtype == torch.bfloat16 else 1), *rest)

    return broken


BREAKS: dict[str, tuple[str, Callable[..., Any]]] = {
    "a lost bias": ("bias_relu", no_bias),
    "a lost sum": ("relu_lrn_pool", no_sum),
    "another scale": ("relu_dropout", of_the_output(lambda y: 1.02 * y)),
    "a larger share dropped": ("relu_dropout", lambda function: lambda x, rate, *rest: function(x, rate + 0.01, *rest)),
    "other units dropped": ("relu_dropout", lambda function: lambda x, rate, keys, *rest: function(x, rate, keys + 1, *rest)),
    "NaN": ("bias_relu", of_the_output(lambda y: y * torch.nan)),
    "taps in another order": ("weight_blocks", of_the_output(lambda w: w.flip(2))),
    "the last pictures": ("bias_relu", of_the_output(lambda y: torch.cat([y[:-2], 0 * y[-2:]]))),
    "bfloat16's last pictures": ("bias_relu", of_the_output(in_bfloat16(lambda y: torch.cat([y[:-2], 0 * y[-2:]])))),
    "bfloat16's scale": ("bias_relu", of_the_output(in_bfloat16(lambda y: 1.1 * y))),
    "bfloat16 with a larger sum": ("relu_lrn_pool", larger_sum_in_bfloat16),
}


@pytest.mark.parametrize("name", BREAKS)
def test_broken_kernels_are_named(name: str, step: FusedStep, monkeypatch: pytest.MonkeyPatch) -> None:
    function, change = BREAKS[name]
    monkeypatch.setattr(fused.kernels, function, change(getattr(kernels, function)))
    found = disagreement(step, 0, 0)
    assert (
        found
        and f" in {'bfloat16' if 'bfloat16' in name else 'float32'}: " in found
        and "relative error against float64" in found
    )


def test_bfloat16_has_a_second_batch(
    step: FusedStep, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where roundings are large, one batch may be unlucky: the person is
    told, and a second decides.
    """
    check = self_check._wrong_value
    monkeypatch.setattr(
        self_check,
        "_wrong_value",
        lambda step, weights, kind, *at: (
            "it was unlucky" if (kind, at[0]) == ("bfloat16", 0) else check(step, weights, kind, *at)
        ),
    )
    assert disagreement(step, 0, 0) is None
    assert "On a first batch, it was unlucky; on a second batch all was right." in capsys.readouterr().err


def test_pictures_are_checked_too(step: FusedStep, monkeypatch: pytest.MonkeyPatch) -> None:
    """Augmentation that crops one pixel further; the check's own pictures come from the
    reference.
    """

    def shifted(records: Tensor, top: Tensor, left: Tensor, *arguments: Any) -> Tensor:
        blocks = arguments[-2] is not None
        return reference.augment(records, top, (left - 1).clamp(min=0) if blocks else left, *arguments)

    monkeypatch.setattr("alexnet.data.preprocessing.kernels.augment", shifted)
    assert "relative error against float64" in str(disagreement(step, 0, 0))


def test_the_update_is_checked(step: FusedStep, monkeypatch: pytest.MonkeyPatch) -> None:
    update = kernels.sgd_step

    def too_fast(weights: list[Tensor], *arguments: Any) -> None:
        update(weights, *arguments)
        if weights[0].dtype == torch.float32:
            weights[-1].mul_(1.001)

    monkeypatch.setattr("alexnet.train.steps.fused.kernels.sgd_step", too_fast)
    assert str(disagreement(step, 0, 0)).startswith("the update gives wrong weights of ")


def test_a_gpu_that_no_longer_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """After an illegal access nothing can be computed in the process; the GPU
    is the test's invention.
    """
    error = RuntimeError("CUDA error: an illegal memory access was encountered")

    def broken(*arguments: Any) -> None:
        raise error

    kernels.check_alive(CPU, error, "end it")
    monkeypatch.setattr(torch.cuda, "synchronize", broken)
    with pytest.raises(TrainingError, match=r"access to the GPU \(RuntimeError: CUDA error.*: end it, and"):
        kernels.check_alive(torch.device("cuda"), error, "end it")


def test_a_kernel_that_does_not_compile(step: FusedStep, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any) -> Tensor:
        raise RuntimeError("ptxas: out of registers\nand more")

    monkeypatch.setattr(fused.kernels, "relu_lrn_pool", broken)
    assert disagreement(step, 0, 0) == "RuntimeError: ptxas: out of registers"


def test_what_a_run_does_then(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """auto trains by the plain step, and says so; on refuses. The GPU is the test's invention: the
    check runs on the CPU.
    """
    monkeypatch.setattr(steps, "must_be_checked", lambda device: True)
    monkeypatch.setattr(steps, "wants_fused", lambda recipe, variant, device, ranks: recipe.fused != "off")
    monkeypatch.setattr(fused.kernels, "bias_relu", no_bias(kernels.bias_relu))
    small: dict[str, Any] = {"width": 1 / 8, "epochs": 1, "batch_size": 10, "compile": "off", "device": "cpu"}
    fallen_back = train(recipes.get_recipe("laptop", fused="auto", **small), store, tmp_path / "auto")
    told = capsys.readouterr().err
    assert "The fused step is not used, as it gives wrong results here: " in told and " in float32: relative error" in told
    assert "on cpu (fp32)" in told and fallen_back.state["trained_by"] == ["fp32 on cpu"]
    plain = train(recipes.get_recipe("laptop", fused="off", **small), store, tmp_path / "off")
    assert all(map(torch.equal, fallen_back.model.parameters(), plain.model.parameters()))
    for name, asked in (("fused", "on"), ("precision", "bf16")):
        with pytest.raises(
            RecipeError, match=rf"{name} \(={asked}\) needs the fused step, which gives wrong results here: .* in float32: "
        ):
            train(recipes.get_recipe("laptop", **small, **{name: asked}), store, tmp_path / name)
