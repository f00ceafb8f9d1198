"""Our own convolution against the library's in float64: output and both
gradients, in towers and without.
"""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from precision import check, poisoned
from torch import Tensor

from alexnet import kernels
from alexnet.fused import Fused, convolution_shapes
from alexnet.kernels import convolutions as towers
from alexnet.kernels.convolutions import LIBRARY, Passes, Shape
from alexnet.kernels.planes import apart, together
from alexnet.model import AlexNet
from alexnet.variants import get_variant

OWN = Passes("own", "own", "own")
RELU_WAYS = Passes(towers.RELU, "own", "own")


@pytest.fixture(autouse=True)
def _they_run(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In the interpreter too; and tf32 is allowed, or float32 is left to the library."""
    monkeypatch.setattr(kernels, "on_kernels", lambda x: x.dtype != torch.float64)
    before, torch.backends.cudnn.conv.fp32_precision = torch.backends.cudnn.conv.fp32_precision, "tf32"
    yield
    torch.backends.cudnn.conv.fp32_precision = before


@pytest.fixture
def first_tile(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """Where no tile is chosen by measurement: that compiles a dozen kernels for each shape."""
    from alexnet.kernels.gpu import convolve

    monkeypatch.setattr(convolve._convolve, "configs", convolve.TILES[:1])
    monkeypatch.setattr(convolve._weight_gradient, "configs", convolve.WEIGHT_TILES[:1])
    return device


def small(channels: int, kernels: int, size: int, padding: int, groups: int, dtype: torch.dtype, device: torch.device) -> Shape:
    """Maps of 11 x 11; 363 positions at padding 1 are three stretches of the weight's
    gradient, the last one not full.
    """
    return Shape(
        batch=3,
        channels=channels,
        side=11,
        kernels=kernels,
        size=size,
        padding=padding,
        groups=groups,
        dtype=dtype,
        device=device,
    )


def near(found: Tensor, expected: Tensor) -> None:
    """`check`; but a GPU's tensor cores cut sums of tf32 off where float32's limit supposes
    rounding, 216 times for conv4.
    """
    if found.dtype == torch.float32 and found.is_cuda:
        assert (found - expected).norm() < 1e-4 * expected.norm()
    else:
        check(found, expected)


def compare(shape: Shape) -> None:
    """All numbers are bfloat16's: their products are exact in tf32 as well."""
    x, weight, g = (t.bfloat16().to(shape.dtype) for t in shape.draw())
    planes, ways = shape.groups if shape.apart else 1, OWN._replace(apart=shape.apart)
    exact = [t.double().requires_grad_() for t in (x, weight)]
    expected = apart(F.conv2d(together(exact[0], planes), exact[1], padding=shape.padding, groups=shape.groups), planes)
    x, weight = x.requires_grad_(not shape.first), weight.requires_grad_()
    with poisoned():
        y = towers.convolve(x, weight, ways, shape.padding, shape.groups)
        y.backward(g)
    near(y, expected)
    expected.backward(g.double())
    for ours, theirs in zip((x, weight)[shape.first :], exact[shape.first :], strict=True):
        assert ours.grad is not None and ours.grad.dtype == shape.dtype and ours.grad.stride() == ours.stride()
        near(ours.grad, theirs.grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("channels", "kernels", "size", "padding", "groups"),
    [
        (10, 35, 3, 1, 1),
        (10, 6, 3, 1, 2),
        (6, 34, 5, 2, 2),
        (12, 9, 3, 0, 3),
        (16, 12, 5, 1, 1),
        (10, 6, 3, 3, 2),
        (9, 5, 1, 0, 1),
    ],
)
def test_kernels(
    channels: int, kernels: int, size: int, padding: int, groups: int, dtype: torch.dtype, first_tile: torch.device
) -> None:
    compare(small(channels, kernels, size, padding, groups, dtype, first_tile))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("channels", "kernels", "size", "padding", "groups"), [(10, 6, 3, 1, 2), (6, 34, 5, 2, 2), (12, 9, 3, 0, 3)]
)
def test_towers_apart(
    channels: int, kernels: int, size: int, padding: int, groups: int, dtype: torch.dtype, first_tile: torch.device
) -> None:
    compare(replace(small(channels, kernels, size, padding, groups, dtype, first_tile), apart=True))


def compare_relu(shape: Shape, planes: int) -> None:
    """With bias and ReLU, in so many planes: one rounding from float64, as the convolution is."""
    x, weight, g = (t.bfloat16().to(shape.dtype) for t in shape.draw())
    bias, ways = shape.draw_bias(), RELU_WAYS._replace(apart=shape.apart)
    exact = [t.double().requires_grad_() for t in (x, weight, bias)]
    alone = F.conv2d(together(exact[0], shape.planes), exact[1], exact[2], padding=shape.padding, groups=shape.groups)
    expected, g = apart(F.relu(alone), planes), apart(together(g, shape.planes), planes)
    leaves = [t.requires_grad_() for t in (x, weight, bias)]
    with poisoned():
        y = towers.convolve_relu(*leaves, ways, shape.padding, shape.groups, planes)
        y.backward(g)
    near(y, expected)
    assert 0.3 < (y == 0).float().mean() < 0.7
    expected.backward(g.double())
    for ours, theirs in zip(leaves, exact, strict=True):
        assert ours.grad is not None and ours.grad.dtype == ours.dtype and ours.grad.stride() == ours.stride()
        near(ours.grad, theirs.grad)


@pytest.mark.parametrize("tile", [0, 6])  # one part, two parts
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("groups", "apart", "planes"), [(1, False, 1), (1, False, 2), (2, False, 1), (2, False, 2), (2, True, 2), (2, True, 1)]
)
def test_bias_and_relu_in_the_last_lines(
    groups: int,
    apart: bool,
    planes: int,
    dtype: torch.dtype,
    tile: int,
    first_tile: torch.device,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from alexnet.kernels.gpu import bias_relu, convolve

    monkeypatch.setattr(bias_relu, "bias_relu_forward", None)  # nothing else computes it
    monkeypatch.setattr(convolve._convolve, "configs", [convolve.TILES[tile]])
    compare_relu(replace(small(10, 35 * groups + groups % 2, 3, 1, groups, dtype, first_tile), apart=apart), planes)


def test_a_step_takes_bias_and_relu_with_the_convolution(first_tile: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the walk, where the way says so; by the pass of its own elsewhere."""
    from alexnet.kernels.gpu import convolve

    seen = []
    right = convolve.forward_relu
    monkeypatch.setattr(convolve, "forward_relu", lambda *arguments: seen.append(len(arguments[2])) or right(*arguments))
    x, weight, _ = small(10, 6, 3, 1, 2, torch.float32, first_tile).draw()
    bias = torch.ones(6, device=first_tile)
    for ways in (OWN, LIBRARY, RELU_WAYS):
        near(
            towers.convolve_relu(x, weight, bias, ways, 1, 2),
            F.relu(F.conv2d(x.double(), weight.double(), bias.double(), padding=1, groups=2)),
        )
        assert seen == [6] * (ways == RELU_WAYS)
    torch.backends.cudnn.conv.fp32_precision = "ieee"
    towers.convolve_relu(x, weight, bias, RELU_WAYS, 1, 2)
    towers.convolve_relu(x.double(), weight.double(), bias.double(), RELU_WAYS, 1, 2)
    assert seen == [6]


def test_nan_stays(first_tile: torch.device) -> None:
    """Of the map at the nine positions that see it, of a bias in its channel."""
    x, weight, _ = small(10, 6, 3, 1, 1, torch.float32, first_tile).draw()
    x[0, 3, 5, 5] = bias_nan = torch.nan
    bias = torch.zeros(6, device=first_tile)
    assert towers.convolve_relu(x, weight, bias, RELU_WAYS, 1, 1).isnan().sum() == 9 * 6
    bias[2] = bias_nan
    assert towers.convolve_relu(x, weight, bias, RELU_WAYS, 1, 1).isnan()[:, 2].all()


def test_maps_need_not_be_square(first_tile: torch.device) -> None:
    x, weight = (torch.randn(shape, device=first_tile).bfloat16().float() for shape in ((2, 10, 7, 9), (12, 5, 3, 3)))
    near(towers.convolve(x, weight, OWN, 1, 2), F.conv2d(x.double(), weight.double(), padding=1, groups=2))


@pytest.mark.parametrize("tile", range(9))
def test_every_tile(tile: int, device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of one and a half times a power of two on a tower whose kernels take two, the second
    nearly empty, and whose channels take a part of the half.
    """
    from alexnet.kernels.gpu import convolve

    chosen, of_weight = convolve.TILES[tile], convolve.WEIGHT_TILES[max(tile - 2, 0)]
    monkeypatch.setattr(convolve._convolve, "configs", [chosen])
    monkeypatch.setattr(convolve._weight_gradient, "configs", [of_weight])
    each, kernels = (chosen.kwargs["K"] + 3, convolve.width(chosen) + 5) if chosen.kwargs["MORE"] else (8, 12)
    compare(small(2 * each, 2 * kernels, 3, 1, 2, torch.bfloat16, device))


@pytest.mark.parametrize(
    ("kernels", "widths", "of_weight"),
    [
        (6, {32, 64}, {32, 64}),
        (48, {32, 64, 48}, {32, 64}),
        (96, {32, 64, 128, 96}, {32, 64, 128, 96}),
        (128, {32, 64, 128}, {32, 64, 128}),
        (192, {32, 64, 128, 256, 192}, {32, 64, 128, 192}),
        (256, {32, 64, 128, 256}, {32, 64, 128}),
        (384, {32, 64, 128, 256, 192}, {32, 64, 128, 192}),
    ],
)
def test_tiles_that_can_help(kernels: int, widths: set[int], of_weight: set[int], device: torch.device) -> None:
    """At AlexNet's numbers of kernels a tower, forward and in x's gradient."""
    from alexnet.kernels.gpu import convolve

    for tiles, expected in ((convolve.TILES, widths), (convolve.WEIGHT_TILES, of_weight)):
        assert set(map(convolve.width, convolve.useful(tiles, {}, KERNELS=kernels))) == expected


def test_the_weights_gradient_is_the_same_every_time(first_tile: torch.device) -> None:
    """To the bit: stretches are added in a fixed order."""
    x, weight, g = small(10, 6, 3, 1, 2, torch.float32, first_tile).draw()
    once, again = (towers.WAYS["own"].weight(g, x, weight, 1, 2) for _ in range(2))
    assert torch.equal(once, again)


def test_the_weights_gradient_is_one_wave(device: torch.device) -> None:
    """At all of AlexNet's sizes; and no third of a GPU is left empty."""
    from alexnet.kernels.gpu import convolve

    for shape in convolution_shapes(get_variant("paper"), 128, torch.bfloat16, device).values():
        out = shape.side + 2 * shape.padding - shape.size + 1
        positions, kernels = shape.batch * out**2, shape.kernels // shape.groups
        terms = shape.size**2 * shape.channels // shape.groups
        length = convolve.stretch(positions, kernels, terms, shape.groups)
        programs = -(-positions // length) * -(-kernels // 128) * -(-terms // 128) * shape.groups
        assert length % convolve.STRETCH == 0 and convolve.PROGRAMS * 0.7 < programs <= convolve.PROGRAMS, shape
        for tile in convolve.useful(convolve.WEIGHT_TILES[-3:], {}, KERNELS=kernels):  # the large ones, of fewer programs
            tiles = -(-kernels // convolve.width(tile)) * -(-terms // tile.kwargs["T"])
            assert -(-positions // length) * tiles * shape.groups <= programs, shape


def test_what_is_left_to_the_library(first_tile: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """float64, and float32 that must not be tf32, as nothing but a fallback could compute them."""
    from alexnet.kernels.gpu import convolve

    monkeypatch.setattr(convolve, "_launch", None)
    x, weight, _ = small(10, 6, 3, 1, 2, torch.float32, first_tile).draw()
    found = towers.convolve(x.double(), weight.double(), OWN, 1, 2)
    assert torch.equal(found, F.conv2d(x.double(), weight.double(), padding=1, groups=2))
    torch.backends.cudnn.conv.fp32_precision = "ieee"
    assert torch.equal(towers.convolve(x, weight, OWN, 1, 2), F.conv2d(x, weight, padding=1, groups=2))


def test_the_whole_network_on_them(first_tile: torch.device) -> None:
    """conv1 in blocks, towers and not: features and every gradient are those with
    the library's convolutions.
    """
    model = AlexNet(get_variant("paper", width=1 / 16, input_size=67, init="he"), torch.Generator().manual_seed(1)).to(
        first_tile
    )
    weights = {name: p for name, p in model.named_parameters() if name.startswith("conv")}
    x = torch.randn(1, 3, 67, 67, generator=torch.Generator().manual_seed(2)).to(first_tile) * 60
    x = kernels.picture_blocks(x, model.variant.conv1_padding)
    results = []
    for way, relu in ((LIBRARY, LIBRARY), (OWN, RELU_WAYS), (OWN._replace(apart=True), RELU_WAYS._replace(apart=True))):
        fused = Fused(model, {f"conv{n}": relu if n in (3, 4) else way for n in range(1, 6)})
        features = fused.convolutions(x, weights)
        results.append([features, *torch.autograd.grad(features.square().sum(), list(weights.values()))])
    for grouped, own in [pair for found in results[1:] for pair in zip(results[0], found, strict=True)]:
        assert (grouped - own).norm() < (1e-2 if x.is_cuda else 1e-5) * grouped.norm()  # tf32 on a GPU


@pytest.mark.parametrize("name", ["conv2", "conv4"])
def test_at_an_eighth_of_the_width(name: str, first_tile: torch.device) -> None:
    compare(convolution_shapes(get_variant("paper", width=1 / 8), 1, torch.bfloat16, first_tile)[name])


@pytest.mark.parametrize("name", ["conv1", "conv2", "conv3", "conv4", "conv5"])
def test_at_alexnets_sizes(name: str, gpu: torch.device) -> None:
    """Tiles are chosen here, and found on disk by whatever runs afterwards."""
    shape = convolution_shapes(get_variant("paper"), 128, torch.bfloat16, gpu)[name]
    compare(shape)
    if shape.groups > 1:
        compare(replace(shape, apart=True))
    if shape.relu:
        compare_relu(shape, 1)
        compare_relu(replace(shape, apart=shape.groups > 1), 2)


@pytest.mark.parametrize(("batch", "dtype"), [(7, torch.bfloat16), (1, torch.bfloat16), (32, torch.float32)])
def test_other_batches_and_tf32(batch: int, dtype: torch.dtype, first_tile: torch.device, gpu: torch.device) -> None:
    compare(convolution_shapes(get_variant("paper"), batch, dtype, gpu)["conv4"])


@pytest.mark.parametrize("name", ["conv1", "conv2", "conv3"])
def test_every_way_is_right_and_timed(name: str, gpu: torch.device, capsys: pytest.CaptureFixture[str]) -> None:
    """None is left out, and one of them is the fastest."""
    shape = convolution_shapes(get_variant("paper"), 128, torch.bfloat16, gpu)[name]
    assert set(towers.fastest(shape)[:3]) <= {*towers.WAYS, towers.RELU}
    assert "left out" not in capsys.readouterr().err
