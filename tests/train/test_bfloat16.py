"""Training in bfloat16 on a CPU: float32 weights, gradients within the bound that a GPU has, and a
run that is a run.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from runs import log, recipe, same_weights

from alexnet import AlexNet, devices
from alexnet.data.chance import Chance
from alexnet.data.store import Store
from alexnet.devices import lacks_bf16, pick_precision
from alexnet.errors import Interrupted, RecipeError
from alexnet.lanes import Lanes
from alexnet.train.loop import train
from alexnet.train.optim import SGD
from alexnet.train.result import read_result, verify_run
from alexnet.train.steps.check import BACKWARD, FACTOR, FORWARD, relative, values
from alexnet.train.steps.fused import Sample
from alexnet.train.steps.plain import computing_in, loss_function
from alexnet.variants import named
from alexnet.weights import native
from stopping import stop_after

CPU, PICTURES = torch.device("cpu"), 8


@pytest.fixture
def _any_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """One without products of bfloat16 computes them too, slowly."""
    monkeypatch.setattr(devices, "lacks_bf16", lambda: None)


@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize("variant", named())
def test_gradients_are_float64s_within_the_bound(variant: str, lanes: int) -> None:
    """As near to float64 as PyTorch's own layers in bfloat16 are, and the room that a GPU has."""
    chance = torch.Generator().manual_seed(0)
    model = AlexNet(variant, chance, num_classes=6, width=0.25, input_size=67).to(memory_format=torch.channels_last)
    images = (torch.randn(PICTURES, 3, 67, 67, generator=chance) * 50).contiguous(memory_format=torch.channels_last)
    labels, keys = torch.arange(PICTURES) % 6, torch.from_numpy(Chance(0, 0).dropout_keys(np.arange(PICTURES), model.dropouts))
    sample = Sample((images, labels, labels, labels, images), labels, keys, {})
    weights = dict(model.named_parameters())
    exact, theirs = (
        values(model, {name: weight.to(dtype) for name, weight in weights.items()}, images, sample)
        for dtype in (torch.float64, torch.bfloat16)
    )
    network = Lanes(model, lanes, 1, torch.bfloat16) if lanes > 1 else model
    loss, logits = loss_function(computing_in(torch.bfloat16, network), compiled=False)(images, labels, keys)
    loss.backward()
    if isinstance(network, Lanes):
        network.close()
    found = {"logits": logits} | {name: weight.grad for name, weight in weights.items()}
    for name, actual in found.items():
        assert actual is not None and actual.dtype == torch.float32, name
        room = (FORWARD if name == "logits" else BACKWARD)["bfloat16"]
        assert relative(actual, exact[name]) <= FACTOR * relative(theirs[name], exact[name]) + room, name
    assert any(relative(actual, exact[name]) > 1e-3 for name, actual in found.items() if actual is not None), "is it bfloat16?"


@pytest.mark.usefixtures("_any_processor")
@pytest.mark.parametrize("lanes", [1, 2])
def test_a_run_in_bfloat16(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lanes: int) -> None:
    """Stopped and resumed it has the same bits; its record says what it computed in, and holds."""
    monkeypatch.setattr("alexnet.train.steps.split.threads", lambda: 2)
    whole, again, plain = tmp_path / "whole", tmp_path / "again", tmp_path / "plain"
    asked = recipe(precision="bf16")
    trained = train(asked, store, whole, lanes=lanes)
    train(recipe(), store, plain, lanes=lanes)
    with monkeypatch.context() as patch:
        stop_after(patch, SGD, "step", 8)
        with pytest.raises(Interrupted):
            train(asked, store, again, lanes=lanes)
    train(asked, store, again, resume=True, lanes=lanes)
    assert same_weights(whole, again) and log(whole) == log(again)
    assert read_result(whole)["trained_by"] == ["bf16 on cpu"] and read_result(plain)["trained_by"] == ["fp32 on cpu"]
    assert verify_run(whole) == []
    kept = {**trained.model.state_dict(), **native.load(whole).extra}
    assert {tensor.dtype for tensor in kept.values()} == {torch.float32}
    rounded = [tensor.equal(tensor.bfloat16().float()) for tensor in kept.values()]
    assert not any(rounded), "weights and velocity that bfloat16 holds"
    assert not same_weights(whole, plain)


def test_a_processor_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    with pytest.raises(
        RecipeError, match=r"=bf16\) needs a processor with AVX512-BF16 or AMX, and this one has neither: use fp32"
    ):
        pick_precision("bf16", CPU, fused=False)
    assert pick_precision("bf16", CPU, fused=True) == "bf16"  # the step's reference, which any processor computes
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.delenv(name, raising=False)
    assert lacks_bf16() is None and pick_precision("bf16", CPU, fused=False) == "bf16"
    assert pick_precision("auto", CPU, fused=False) == "fp32"


def test_a_processor_held_to_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the variables that PyTorch and its library read."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    for value, refused in (("avx2", True), ("AVX512_CORE_VNNI", True), ("AVX512_CORE_BF16", False), ("all", False)):
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", value)
        assert lacks_bf16() == (f"ONEDNN_MAX_CPU_ISA (={value}) disables that" if refused else None)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    assert lacks_bf16() == "ATEN_CPU_CAPABILITY (=avx2) disables that"
    monkeypatch.delenv("ATEN_CPU_CAPABILITY")
    assert lacks_bf16() == "this PyTorch uses neither"
