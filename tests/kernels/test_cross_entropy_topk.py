"""The loss and its counts: the reference against formulas in NumPy, the kernel against the
reference in float64.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from precision import check, poisoned
from torch import Tensor

from alexnet.kernels import reference


def guesses(n: int, classes: int) -> tuple[Tensor, Tensor]:
    """Logits with some right guesses among them, and labels that include the
    first and the last class.
    """
    generator = torch.Generator().manual_seed(n + classes)
    labels = torch.randint(classes, (n,), generator=generator)
    labels[0], labels[-1] = 0, classes - 1
    logits = torch.randn(n, classes, generator=generator) * 3
    logits[torch.arange(n), labels] += torch.linspace(0, 6, n)
    return logits, labels


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_reference_is_the_formula(smoothing: float) -> None:
    logits, labels = guesses(40, 11)
    z = logits.double().numpy()
    logs = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    target = (1 - smoothing) * np.eye(11)[labels] + smoothing / 11
    order = np.argsort(-z, axis=1)
    loss, hits = reference.cross_entropy_topk(logits.double(), labels, smoothing)
    assert float(loss) == pytest.approx(float(-(target * logs).sum(axis=1).mean()), rel=1e-12)
    assert hits.tolist() == [int((order[:, :k] == labels.numpy()[:, None]).sum()) for k in (1, 5)]
    assert 0 < hits[0] < hits[1] < 40


def test_reference_is_what_training_computes() -> None:
    logits, labels = guesses(40, 11)
    loss, hits = reference.cross_entropy_topk(logits, labels)
    assert torch.equal(loss, F.cross_entropy(logits, labels))
    assert int(hits[0]) == int((logits.argmax(1) == labels).sum())
    assert int(hits[1]) == int((logits.topk(5).indices == labels[:, None]).any(1).sum())


def test_gradient_of_the_reference() -> None:
    logits, labels = guesses(3, 7)
    assert torch.autograd.gradcheck(lambda z: reference.cross_entropy_topk(z, labels, 0.1)[0], logits.double().requires_grad_())


def compare(logits: Tensor, labels: Tensor, smoothing: float, device: torch.device) -> None:
    from alexnet.kernels.gpu.cross_entropy_topk import cross_entropy_topk

    logits, labels = logits.to(device).requires_grad_(), labels.to(device)
    exact = logits.detach().double().requires_grad_()
    expected_loss, expected_hits = reference.cross_entropy_topk(exact, labels, smoothing)
    (3 * expected_loss).backward()
    with poisoned():
        loss, hits = cross_entropy_topk(logits, labels, smoothing)
        (3 * loss).backward()
    assert logits.grad is not None and exact.grad is not None
    assert loss.dtype == torch.float32 and not hits.requires_grad
    check(loss, expected_loss)
    check(logits.grad, exact.grad)
    assert hits.tolist() == expected_hits.tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(("n", "classes"), [(13, 11), (3, 1000), (1, 5), (2, 3)])
def test_kernel(n: int, classes: int, smoothing: float, dtype: torch.dtype, device: torch.device) -> None:
    logits, labels = guesses(n, classes)
    compare(logits.to(dtype), labels, smoothing, device)


def test_kernel_at_full_size(gpu: torch.device) -> None:
    compare(*guesses(1024, 1000), 0.1, gpu)


def test_equal_and_broken_logits(device: torch.device) -> None:
    """Of equals the first class leads; a picture whose logits are NaN counts as wrong."""
    from alexnet.kernels.gpu.cross_entropy_topk import cross_entropy_topk

    labels = torch.tensor([0, 1, 5, 3])
    logits = torch.zeros(4, 8)
    logits[3, 3] = torch.nan
    for found in (reference.cross_entropy_topk(logits, labels), cross_entropy_topk(logits.to(device), labels.to(device))):
        assert found[0].isnan() and found[1].tolist() == [1, 2]


def test_large_logits_do_not_overflow(device: torch.device) -> None:
    logits, labels = guesses(5, 11)
    compare(logits * 1000, labels, 0.0, device)


def test_operator_keeps_its_promises(device: torch.device) -> None:
    from alexnet.kernels.gpu.cross_entropy_topk import cross_entropy_rows

    logits, labels = guesses(3, 7)
    torch.library.opcheck(cross_entropy_rows, (logits.to(device).requires_grad_(), labels.to(device), 0.1))
