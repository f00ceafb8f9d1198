"""The update: the reference against the optimiser that training uses, the kernel against the
reference in float64.
"""

import pytest
import torch
from precision import check
from torch import Tensor

from alexnet.kernels import reference
from alexnet.model import AlexNet
from alexnet.train.optim import SGD
from alexnet.variants import get_variant


@pytest.mark.parametrize("nesterov", [False, True])
def test_reference_is_what_training_does(nesterov: bool) -> None:
    """Three steps of a small network with the code's biases (twice the rate, no decay, no drop),
    while the rate falls.
    """
    variant = get_variant("code-2012", width=1 / 16, input_size=64, num_classes=7)
    model, ours = (AlexNet(variant, torch.Generator().manual_seed(3)) for _ in range(2))
    optimiser = SGD(model, 0.9, 5e-4, variant, nesterov)
    names, weights = zip(*ours.named_parameters(), strict=True)
    velocities = [torch.zeros_like(w) for w in weights]
    bias = [name.endswith("bias") for name in names]
    for scale in (1.0, 0.5, 0.1):
        gradients = [torch.randn_like(w) for w in weights]
        for parameter, g in zip(model.parameters(), gradients, strict=True):
            parameter.grad = g.clone()
        optimiser.step(0.1, scale)
        lr = torch.tensor([0.1 * 2.0 if is_bias else 0.1 * scale for is_bias in bias])
        decays = [0.0 if is_bias else 5e-4 for is_bias in bias]
        reference.sgd_step(weights, velocities, gradients, [], lr, decays, 0.9, nesterov)
    for name, w in zip(names, weights, strict=True):
        torch.testing.assert_close(w, model.get_parameter(name), rtol=1e-6, atol=1e-6)  # six roundings of numbers up to 1


def parameters(dtype: torch.dtype, device: torch.device) -> dict[str, list[Tensor]]:
    """Weights with their velocities, gradients and copies: a convolution's in channels-last order,
    odd sizes, one of two pieces.
    """
    shapes = [(6, 3, 5, 5), (6,), (1,), (37, 31)]
    generator = torch.Generator().manual_seed(5)

    def draw(kind: torch.dtype) -> list[Tensor]:
        tensors = [torch.randn(shape, generator=generator).to(device, kind) for shape in shapes]
        tensors[0] = tensors[0].contiguous(memory_format=torch.channels_last)
        return tensors

    copies = [torch.full_like(t, torch.nan) for t in draw(torch.bfloat16)]
    return {"weights": draw(torch.float32), "velocities": draw(torch.float32), "gradients": draw(dtype), "copies": copies}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("with_copies", [False, True])
@pytest.mark.parametrize("nesterov", [False, True])
def test_kernel(nesterov: bool, with_copies: bool, dtype: torch.dtype, device: torch.device) -> None:
    from alexnet.kernels.gpu.sgd_step import sgd_step

    found = parameters(dtype, device)
    if not with_copies:
        found["copies"] = []
    exact = {name: [t.double() for t in tensors] for name, tensors in found.items()}
    lr, decays = torch.tensor([0.1, 0.2, 0.01, 0.3], device=device), [5e-2, 0.0, 1e-2, 5e-2]
    sgd_step(**found, lr=lr, decays=decays, momentum=0.9, nesterov=nesterov)
    reference.sgd_step(**exact, lr=lr.double(), decays=decays, momentum=0.9, nesterov=nesterov)
    for name in ("weights", "velocities", "copies"):
        for ours, theirs in zip(found[name], exact[name], strict=True):
            check(ours, theirs)


@pytest.mark.parametrize("programs", [1, 264], ids=["all pieces", "no piece for most"])
def test_a_program_takes_many_pieces(programs: int, device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    from alexnet.kernels.gpu import sgd_step

    monkeypatch.setattr(sgd_step, "PROGRAMS", programs)
    test_kernel(True, True, torch.bfloat16, device)


def test_tensors_in_different_orders(device: torch.device) -> None:
    """A gradient that lies otherwise in memory than its weight is still the right one."""
    from alexnet.kernels.gpu.sgd_step import sgd_step

    found = parameters(torch.float32, device)
    found["gradients"][0] = found["gradients"][0].contiguous()
    exact = {name: [t.double() for t in tensors] for name, tensors in found.items()}
    lr, decays = torch.full((4,), 0.1, device=device), [5e-4] * 4
    sgd_step(**found, lr=lr, decays=decays, momentum=0.9)
    reference.sgd_step(**exact, lr=lr.double(), decays=decays, momentum=0.9)
    for ours, theirs in zip(found["weights"], exact["weights"], strict=True):
        check(ours, theirs)


def test_kernel_at_full_size(gpu: torch.device) -> None:
    from alexnet.kernels.gpu.sgd_step import sgd_step

    weights = [p.detach() for p in AlexNet("paper", torch.Generator().manual_seed(3)).to(gpu).parameters()]
    others = {name: [torch.randn_like(w) for w in weights] for name in ("velocities", "gradients")}
    found = {"weights": weights, **others, "copies": [torch.full_like(w, torch.nan, dtype=torch.bfloat16) for w in weights]}
    exact = {name: [t.double() for t in tensors] for name, tensors in found.items()}
    lr, decays = torch.rand(16, device=gpu), [5e-4, 0.0] * 8
    sgd_step(**found, lr=lr, decays=decays, momentum=0.9)
    reference.sgd_step(**exact, lr=lr.double(), decays=decays, momentum=0.9)
    for name in ("weights", "velocities", "copies"):
        for ours, theirs in zip(found[name], exact[name], strict=True):
            check(ours, theirs)
