"""Equal to the reference programs: the real Caffe's and torchvision's outputs on seeded inputs.

The files and `inputs.py` that makes the inputs lie in ../shared/golden. A float64 evaluation
differs from Caffe's float32 by 2e-7 to 6e-7 in relative L2; 2e-6 leaves as much again for our own
rounding. Gradients are taken in float64: in float32 two values of a pooling window can come out in
another order than in Caffe, and the gradient then takes another way.
"""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from alexnet import AlexNet
from alexnet.train.optim import SGD
from alexnet.variants import LAYER_NAMES, get_variant

BOUND = 2e-6
CAFFE = {"caffe-alexnet": ("caffe", 227), "caffe-caffenet": ("caffenet", 227), "caffe-paper-k2-pad12": ("paper", 224)}
TORCHVISION = dict(
    zip(
        ("features.0", "features.3", "features.6", "features.8", "features.10", "classifier.1", "classifier.4", "classifier.6"),
        LAYER_NAMES,
        strict=True,
    )
)


def caffe_net(inputs: ModuleType, variant: str, seed: int) -> AlexNet:
    """The goldens were made without dropout."""
    net = AlexNet(get_variant(variant, dropout=0.0))
    state = {
        f"{name}.{kind}": torch.from_numpy(array)
        for name, pair in inputs.weights(seed).items()
        for kind, array in zip(("weight", "bias"), pair, strict=True)
    }
    net.load_state_dict(state)
    return net


def distance(found: NDArray[np.floating], golden: NDArray[np.floating]) -> float:
    """Relative L2."""
    return float(np.linalg.norm(found - golden) / np.linalg.norm(golden))


@pytest.mark.parametrize("file", CAFFE)
def test_caffe_stages(shared: Path, inputs: ModuleType, file: str) -> None:
    golden = np.load(shared / "golden" / f"{file}.npz")
    variant, size = CAFFE[file]
    seed, n = int(golden["seed"]), int(golden["n"])
    net = caffe_net(inputs, variant, seed).eval()
    with torch.inference_mode():
        stages = net.stages(torch.from_numpy(inputs.blobs(seed, n, size)))
        loss = F.cross_entropy(stages["fc8"], torch.from_numpy(inputs.labels(seed, n)))
    compared = [name for name in stages if f"blob.{name}" in golden]
    assert len(compared) == 20  # all but the two dropouts
    for name in compared:
        assert distance(inputs.sample(stages[name].numpy()), golden[f"blob.{name}"]) < BOUND, name
        assert float(stages[name].double().norm()) == pytest.approx(float(golden[f"norm.{name}"]), rel=BOUND), name
    assert float(loss) == pytest.approx(float(golden["loss"]), rel=BOUND)


@pytest.mark.parametrize("file", CAFFE)
def test_caffe_gradients(shared: Path, inputs: ModuleType, file: str) -> None:
    golden = np.load(shared / "golden" / f"{file}.npz")
    variant, size = CAFFE[file]
    seed, n = int(golden["seed"]), int(golden["n"])
    net = caffe_net(inputs, variant, seed).double()
    x = torch.from_numpy(inputs.blobs(seed, n, size)).double()
    F.cross_entropy(net(x), torch.from_numpy(inputs.labels(seed, n))).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None
        assert distance(inputs.sample(parameter.grad.numpy()), golden[f"grad.{name}"]) < BOUND, name
        assert float(parameter.grad.norm()) == pytest.approx(float(golden[f"gradnorm.{name}"]), rel=BOUND), name


@pytest.mark.parametrize("file", CAFFE)
def test_caffe_input_gradient(shared: Path, inputs: ModuleType, file: str) -> None:
    """The gradient at the picture, wherever it is defined.

    The inputs have flat areas, where neighbouring values of a pooling window are equal and
    rounding decides which one the gradient follows (a twelfth of pool1's windows are tied to
    1e-6). Pixels below such a window are left out; so is the padding, which is part of
    Caffe's input and not of ours.
    """
    golden = np.load(shared / "golden" / f"{file}.npz")
    variant, size = CAFFE[file]
    seed, n = int(golden["seed"]), int(golden["n"])
    net = caffe_net(inputs, variant, seed).double()
    x = torch.from_numpy(inputs.blobs(seed, n, size)).double().requires_grad_()
    stages = net.stages(x)
    F.cross_entropy(stages["fc8"], torch.from_numpy(inputs.labels(seed, n))).backward()

    pooled = stages["relu1" if variant == "caffenet" else "norm1"].detach()  # (n, 96, 55, 55)
    windows = F.unfold(pooled.view(-1, 1, 55, 55), 3, stride=2)  # (n * 96, 9, 27 * 27)
    first, second = windows.topk(2, dim=1).values.unbind(1)
    tied = ((first - second <= 1e-6 * first) & (first > 0)).view(n, 96, 27, 27).any(1)
    defined = torch.zeros(n, 227, 227, dtype=torch.bool)
    before = net.variant.conv1_padding[0]
    defined[:, before : before + size, before : before + size] = True
    for image, row, column in tied.nonzero().tolist():
        defined[image, 8 * row : 8 * row + 19, 8 * column : 8 * column + 19] = False

    assert x.grad is not None
    after = net.variant.conv1_padding[1]
    gradient = F.pad(x.grad, (before, after, before, after)).numpy()
    kept = inputs.sample(defined[:, None].expand(n, 3, 227, 227).numpy()) > 0
    assert kept.mean() > 0.6
    assert distance(inputs.sample(gradient)[kept], golden["grad.data"][kept]) < BOUND


def test_caffe_solver(shared: Path, inputs: ModuleType) -> None:
    """Twelve steps of Caffe's SGDSolver across two drops of the learning rate: the losses to
    1e-5.
    """
    golden = np.load(shared / "golden" / "caffe-solver.npz")
    seed, n, rate = int(golden["seed"]), int(golden["n"]), float(golden["base_lr"])
    net = caffe_net(inputs, "caffe", seed)
    optimiser = SGD(net, float(golden["momentum"]), float(golden["weight_decay"]), net.variant)
    losses = []
    for step in range(len(golden["losses"])):
        x = torch.from_numpy(inputs.blobs(seed + step % 3, n))
        loss = F.cross_entropy(net(x), torch.from_numpy(inputs.labels(seed + step % 3, n)))
        loss.backward()
        optimiser.step(rate, float(golden["gamma"]) ** (step // int(golden["stepsize"])))
        losses.append(float(loss.detach()))
    assert losses == pytest.approx(golden["losses"].tolist(), rel=1e-5)


def test_torchvision_stages(shared: Path, inputs: ModuleType) -> None:
    golden = np.load(shared / "golden" / "torchvision.npz")
    seed = int(golden["seed"])
    net = AlexNet("torchvision").eval()
    net.load_state_dict(
        {
            f"{TORCHVISION[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}": torch.from_numpy(array)
            for key, array in inputs.torchvision_weights(seed).items()
        }
    )
    x = torch.from_numpy(inputs.torchvision_input(seed, len(golden["logits"])))
    with torch.inference_mode():
        stages = net.stages(x)
    pools = {"features.2": "pool1", "features.5": "pool2", "features.12": "pool5"}
    for theirs, ours in {**TORCHVISION, **pools}.items():
        found = stages[ours].numpy()
        assert min(distance(inputs.sample(array), golden[f"blob.{theirs}"]) for array in (found, found.clip(0))) < BOUND, (
            theirs
        )  # torchvision's ReLU works in place: a hook on a convolution sees its result
    assert distance(stages["fc8"].numpy(), golden["logits"]) < BOUND


def test_real_filters(shared: Path) -> None:
    """conv1-5 trained on ImageNet fit our vocabulary."""
    weights = np.load(shared / "weights" / "imagenet-conv1-5.npz")
    state = AlexNet("caffe").state_dict()
    assert {name: tuple(array.shape) for name, array in weights.items()} == {
        name: tuple(value.shape) for name, value in state.items() if name.startswith("conv")
    }
