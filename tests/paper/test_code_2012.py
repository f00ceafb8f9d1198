"""The PyTorch network of `code-2012` equals its specification in NumPy, `code_2012.py`, in every
stage and every gradient.

Both run in float64 and differ only in the order of their sums: at most 1e-14 in relative L2 was
seen, and 1e-10 is allowed. A comparison is worth what its inputs are worth, so these are checked
as well: LRN and the spatial norm change their inputs much, the seam between the towers shows,
every ReLU passes some and blocks some, and neither a maximum nor a sign is so close a call that
rounding could decide it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

import code_2012 as spec
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from code_2012 import Array, Kept, Labels
from torch import Tensor

from alexnet import AlexNet
from alexnet.variants import LAYER_NAMES, get_variant

BOUND = 1e-10
PARAMETERS = [f"{layer}.{kind}" for layer in LAYER_NAMES for kind in ("weight", "bias")]


@dataclass(frozen=True, kw_only=True)
class Case:
    """Conv1 sees all three of its zeros at 64 and 224 pixels, and stops short of them at 67 and
    99.
    """

    input_size: int
    width: float = 1 / 8
    num_classes: int = 5
    pictures: int = 2
    training: bool = False


CASES = {
    "67": Case(input_size=67),
    "99": Case(input_size=99, pictures=3),
    "64": Case(input_size=64),
    "64 in training": Case(input_size=64, training=True),
    "full size": Case(input_size=224, width=1, num_classes=1000, pictures=1),
}

# Weights are uniform in +-gain * sqrt(3 / fan-in), a deviation of gain / sqrt(fan-in); biases are
# uniform between two numbers. So conv1 answers with a deviation of about 200: 2e-5 * 5 * 200^2 = 4,
# twice LRN's k. Conv1's biases push whole windows below zero and give its ReLU, which comes after
# the pool, something to block; conv2's keep every window of its pool above zero.
GAINS = dict(zip(LAYER_NAMES, (3, 4, 2, 2, 2, 1, 1, 0.1), strict=True))
BIASES = {"conv1": (-400, 400), "conv2": (100, 250), "fc8": (-1, 1)}


def draw_parameters(net: AlexNet, rng: np.random.Generator) -> dict[str, Array]:
    p: dict[str, Array] = {}
    for name, parameter in net.named_parameters():
        layer, shape = name.split(".")[0], tuple(parameter.shape)
        if name.endswith("bias"):
            p[name] = rng.uniform(*BIASES.get(layer, (-20, 20)), shape)
        else:
            limit = GAINS[layer] * (3 / prod(shape[1:])) ** 0.5
            p[name] = rng.uniform(-limit, limit, shape)
    # Maps are positive after a ReLU, and a kernel with a mean would be above or
    # below zero everywhere.
    p["conv2.weight"] -= p["conv2.weight"].mean((2, 3), keepdims=True)
    return p


def draw_pictures(case: Case, rng: np.random.Generator) -> tuple[Array, Labels]:
    """0-255 minus a mean image, and labels."""
    side = case.input_size
    pixels = rng.integers(0, 256, (case.pictures, 3, side, side)) - rng.uniform(100, 140, (3, side, side))
    return pixels, rng.integers(0, case.num_classes, case.pictures)


@dataclass(frozen=True)
class Run:
    """One case as both see it: the specification in NumPy, and what the network found."""

    case: Case
    picture: Array
    labels: Labels
    parameters: dict[str, Array]
    kept: Mapping[str, Kept]
    stages: dict[str, Array]
    gradients: dict[str, Array]
    found_stages: dict[str, Array]
    found_loss: float
    found_gradients: dict[str, Array]


def run_both(case: Case) -> Run:
    rng = np.random.default_rng(2012)
    net = AlexNet(get_variant("code-2012", input_size=case.input_size, width=case.width, num_classes=case.num_classes)).double()
    p = draw_parameters(net, rng)
    net.load_state_dict({name: torch.from_numpy(array) for name, array in p.items()})
    net.train(case.training)
    picture, labels = draw_pictures(case, rng)

    x = torch.from_numpy(picture).requires_grad_()
    with torch.no_grad():
        torch.manual_seed(2012)
        found = {name: stage.numpy() for name, stage in net.stages(x).items()}
    torch.manual_seed(2012)  # dropout keeps the same units again
    loss = F.cross_entropy(net(x), torch.from_numpy(labels))
    loss.backward()

    kept = read_masks(found) if case.training else spec.AT_TEST
    y = spec.forward(picture, p, kept)
    return Run(
        case=case,
        picture=picture,
        labels=labels,
        parameters=p,
        kept=kept,
        stages=y,
        gradients=spec.backward(picture, p, y, labels, kept),
        found_stages=found,
        found_loss=float(loss.detach()),
        found_gradients={name: as_array(parameter.grad) for name, parameter in [*net.named_parameters(), ("picture", x)]},
    )


def as_array(gradient: Tensor | None) -> Array:
    assert gradient is not None
    return gradient.numpy()


def read_masks(stages: Mapping[str, Array]) -> dict[str, Kept]:
    """Which units PyTorch's dropout kept. One that was zero before counts as dropped: no value and
    no gradient can tell.
    """
    return {name: stages[name] != 0 for name in ("drop6", "drop7")}


def distance(found: Array, expected: Array) -> float:
    """Relative L2."""
    assert found.shape == expected.shape
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.fixture(scope="module", params=CASES)
def run(request: pytest.FixtureRequest) -> Run:
    return run_both(CASES[request.param])


def test_stages(run: Run) -> None:
    assert list(run.found_stages) == list(run.stages)
    for name, expected in run.stages.items():
        assert distance(run.found_stages[name], expected) < BOUND, name


def test_logits_and_loss(run: Run) -> None:
    assert run.found_loss == pytest.approx(spec.cross_entropy(run.stages["fc8"], run.labels), rel=BOUND, abs=0)


def test_gradients(run: Run) -> None:
    assert set(run.found_gradients) == set(run.gradients) == {*PARAMETERS, "picture"}
    for name, expected in run.gradients.items():
        assert distance(run.found_gradients[name], expected) < BOUND, name


def test_the_inputs_matter(run: Run) -> None:
    """Leaving a normalisation out, or letting LRN look across the seam, would move its result by
    far more than the bound.
    """
    y = run.stages
    assert y["conv1"].std((2, 3)).mean() > 100  # the picture's part of it, apart from the biases
    assert distance(y["conv1"] * spec.LRN_K**-spec.LRN_POWER, y["norm1"]) > 0.3
    assert distance(y["relu2"] * spec.LRN_K**-spec.LRN_POWER, y["norm2"]) > 0.3
    assert distance(y["norm2"], y["rnorm2"]) > 0.3
    for name in ("conv1", "relu2"):
        seam = y[name].shape[1] // 2
        assert distance(spec.lrn(y[name])[:, seam - 2 : seam + 2], lrn_across_the_seam(y[name])) > 0.05
    for name in ("pool1", "conv2", "conv3", "conv4", "pool5", "fc6", "fc7"):
        assert 0.01 < (y[name] < 0).mean() < 0.9, name  # the ReLU after it blocks some and passes some


def lrn_across_the_seam(x: Array) -> Array:
    """The four maps around the seam, normalised as if the towers were one."""
    seam = x.shape[1] // 2
    around = [(x[:, c - 2 : c + 3] ** 2).sum(1) for c in range(seam - 2, seam + 2)]
    return x[:, seam - 2 : seam + 2] * (spec.LRN_K + spec.LRN_COEFFICIENT * np.stack(around, 1)) ** -spec.LRN_POWER


def test_nothing_is_a_close_call(run: Run) -> None:
    """No window of a pool has two largest values that rounding could confuse, and no input of a
    ReLU is so close to zero.
    """
    y = run.stages
    for name in ("norm1", "rnorm2", "conv5"):
        seen = spec.windows(y[name], spec.POOL_SIZE, spec.POOL_STRIDE)
        second, first = np.moveaxis(np.sort(seen.reshape(*seen.shape[:4], -1)), -1, 0)[-2:]
        assert (first - second).min() > 1e-9 * first.max(), name
    for name in ("pool1", "conv2", "conv3", "conv4", "pool5", "fc6", "fc7"):
        assert abs(y[name]).min() > 1e-9 * abs(y[name]).max(), name
    belief = np.exp(spec.log_softmax(y["fc8"]))[np.arange(len(run.labels)), run.labels]
    assert (belief < 0.99).all()  # a picture that is classified with certainty has no gradient


def test_dropout_halves(run: Run) -> None:
    """Training keeps half of the units that are not zero anyway, others in each layer and
    picture; at test all stay.
    """
    kept = {}
    for number in (6, 7):
        active = run.found_stages[f"relu{number}"] > 0
        kept[number] = run.found_stages[f"drop{number}"] != 0
        assert abs(kept[number][active].mean() - 0.5) < 0.1 if run.case.training else kept[number][active].all()
    if run.case.training:
        assert (kept[6][0] != kept[6][1]).mean() > 0.1
        assert (kept[6] != kept[7]).mean() > 0.1


# (C, H, W) by section 3.5 and figure 2 of the paper, which the code of 2012 shares.
SHAPES = {
    "conv1": (96, 55, 55),
    "norm1": (96, 55, 55),
    "pool1": (96, 27, 27),
    "relu1": (96, 27, 27),
    "conv2": (256, 27, 27),
    "relu2": (256, 27, 27),
    "norm2": (256, 27, 27),
    "rnorm2": (256, 27, 27),
    "pool2": (256, 13, 13),
    "conv3": (384, 13, 13),
    "relu3": (384, 13, 13),
    "conv4": (384, 13, 13),
    "relu4": (384, 13, 13),
    "conv5": (256, 13, 13),
    "pool5": (256, 6, 6),
    "relu5": (256, 6, 6),
    "fc6": (4096,),
    "relu6": (4096,),
    "drop6": (4096,),
    "fc7": (4096,),
    "relu7": (4096,),
    "drop7": (4096,),
    "fc8": (1000,),
}


@pytest.mark.parametrize("run", ["full size"], indirect=True)
def test_full_size(run: Run) -> None:
    assert {name: stage.shape[1:] for name, stage in run.stages.items()} == SHAPES
    assert sum(run.gradients[name].size for name in PARAMETERS) == 60_965_224


def directions(gradient: Array, rng: np.random.Generator) -> Iterator[Array]:
    """Of length 1: along the gradient, where its length shows, and at random, where
    its other components do.
    """
    for direction in (gradient, rng.standard_normal(gradient.shape)):
        yield direction / np.linalg.norm(direction)


@pytest.mark.parametrize("case", ["67", "64 in training"])
def test_the_backward_itself(case: str) -> None:
    """The specification's gradients against central differences of its own loss.

    Steps of 1e-7 of the array's length cross no kink of a ReLU or a pool; rounding then
    leaves errors of up to 3e-8.
    """
    run, rng = run_both(CASES[case]), np.random.default_rng(0)
    everything = {**run.parameters, "picture": run.picture}

    def loss(name: str, value: Array) -> float:
        changed = {**everything, name: value}
        return spec.cross_entropy(spec.forward(changed["picture"], changed, run.kept)["fc8"], run.labels)

    for name, gradient in run.gradients.items():
        value = everything[name]
        step = 1e-7 * float(np.linalg.norm(value))
        for direction in directions(gradient, rng):
            slope = (loss(name, value + step * direction) - loss(name, value - step * direction)) / (2 * step)
            assert abs(slope - (gradient * direction).sum()) < 1e-6 * np.linalg.norm(gradient), name
