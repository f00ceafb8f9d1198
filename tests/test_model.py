"""The network: shapes, names, stages, initialisation, gradients."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

from alexnet import AlexNet
from alexnet.data.chance import Chance
from alexnet.errors import VariantError
from alexnet.variants import LAYER_NAMES, Variant, get_variant

NAMES = ("paper", "code-2012", "caffe", "caffenet", "owt", "torchvision")


def small(name: str, **changes: object) -> Variant:
    """An eighth of the width at an input that all variants take: every layer
    there is, in milliseconds.
    """
    return get_variant(name, **{"width": 1 / 8, "input_size": 67, "num_classes": 5, **changes})


@pytest.mark.parametrize("name", NAMES)
def test_full_size_shapes(name: str) -> None:
    """Every stage of every variant has the shape that the arithmetic says."""
    net = AlexNet(name).eval()
    size = net.variant.input_size
    with torch.inference_mode():
        stages = net.stages(torch.zeros(2, 3, size, size))
    assert {stage: tuple(value.shape[1:]) for stage, value in stages.items()} == {
        layer.name: layer.output for layer in net.variant.layers()
    }


@pytest.mark.parametrize("name", NAMES)
def test_one_vocabulary(name: str) -> None:
    net = AlexNet(small(name))
    assert list(net.state_dict()) == [f"{layer}.{kind}" for layer in LAYER_NAMES for kind in ("weight", "bias")]
    counted = {layer.name: layer.parameters for layer in net.variant.layers() if layer.parameters}
    assert {name: sum(p.numel() for p in module.parameters()) for name, module in net.named_children()} == counted


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("training", [False, True])
def test_stages_are_real_and_separate(name: str, training: bool) -> None:
    net = AlexNet(small(name)).train(training)
    x = torch.randn(2, 3, 67, 67) * 50
    stages = net.stages(x)
    kept = {stage: value.clone() for stage, value in stages.items()}
    storages = {value.untyped_storage().data_ptr() for value in stages.values()}
    assert len(storages) == len(stages)
    for stage, value in stages.items():
        with torch.no_grad():
            value.fill_(float("nan"))
        del kept[stage]
        assert all(torch.equal(stages[other], kept[other]) for other in kept)
    assert not x.isnan().any()


@pytest.mark.parametrize("name", NAMES)
def test_forward_is_the_last_stage(name: str) -> None:
    net = AlexNet(small(name)).eval()
    x = torch.randn(2, 3, 67, 67) * 50
    stages = net.stages(x)
    assert torch.equal(net(x), stages["fc8"])
    assert stages["conv1"].min() < 0 <= stages["relu1"].min()  # before and after the ReLU


def test_towers_are_separate() -> None:
    """In a two-tower net a kernel of conv2's first half sees the first half of the maps only."""
    net = AlexNet(small("code-2012")).eval()
    x = torch.randn(1, 3, 67, 67) * 50
    before = net.stages(x)
    with torch.no_grad():
        half = net.conv1.weight.shape[0] // 2
        net.conv1.weight[half:] += 1.0
    after = net.stages(x)
    seam = before["conv2"].shape[1] // 2
    assert torch.equal(before["pool2"][:, :seam], after["pool2"][:, :seam])
    assert not torch.equal(before["conv2"][:, seam:], after["conv2"][:, seam:])
    assert not torch.equal(before["conv3"][:, :1], after["conv3"][:, :1])


def test_memory_format_changes_nothing_but_speed() -> None:
    """fc6 reads pool5 in C, H, W order in both layouts."""
    net = AlexNet(small("paper", input_size=99)).double().eval()
    x = torch.randn(2, 3, 99, 99, dtype=torch.float64) * 50
    plain = net(x)
    net = net.to(memory_format=torch.channels_last)
    packed = net(x.contiguous(memory_format=torch.channels_last))
    assert torch.allclose(plain, packed, rtol=1e-12)


@pytest.mark.parametrize("name", ["paper", "code-2012", "caffe"])
def test_gaussian_start(name: str) -> None:
    variant = get_variant(name)
    net = AlexNet(variant, torch.Generator().manual_seed(1))
    for number, layer in enumerate(LAYER_NAMES):
        weight = net.get_parameter(f"{layer}.weight").detach()
        # The deviation of n draws has a standard error of 1 / sqrt(2 n): 5 sigma.
        error = 5 / (2 * weight.numel()) ** 0.5
        assert float(weight.std()) == pytest.approx(variant.init_std[number], rel=error)
        assert (net.get_parameter(f"{layer}.bias") == variant.init_bias[number]).all()


def test_seeded_start() -> None:
    first, second, third = (AlexNet(small("paper"), torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert torch.equal(first.conv1.weight, second.conv1.weight)
    assert not torch.equal(first.conv1.weight, third.conv1.weight)


def test_dropout_of_2012_and_inverted() -> None:
    """Both leave the expected value as it is; only one does nothing at test."""
    ones = torch.ones(1, 200_000)
    for name, at_test in (("code-2012", 0.5), ("caffe", 1.0)):
        net = AlexNet(small(name))
        drop = next(op for op in net.ops if op.name == "drop6")
        assert float(net.eval().compute(drop, ones).mean()) == at_test
        values = net.train().compute(drop, ones)
        assert set(values.unique().tolist()) == {0.0, 2 * at_test}
        assert float((values == 0).float().mean()) == pytest.approx(0.5, abs=0.01)


def in_training(name: str, count: int = 5) -> tuple[AlexNet, Tensor, Tensor, Tensor]:
    """A network in float64 with dropout on, pictures, labels and keys."""
    net = AlexNet(small(name, init="he"), torch.Generator().manual_seed(1)).double().train()
    x = torch.randn(count, 3, 67, 67, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) * 50
    keys = torch.from_numpy(Chance(3, 4).dropout_keys(np.arange(count), net.dropouts))
    return net, x, torch.arange(count) % 5, keys


@pytest.mark.parametrize("name", NAMES)
def test_dropout_by_keys(name: str) -> None:
    """A picture loses the same units in any batch: its logits are the same in another order and
    alone, to the rounding of float64; other keys drop others, and at test none are dropped.
    """
    net, x, _, keys = in_training(name)
    with torch.no_grad():
        whole = net(x, keys)
        order = torch.tensor([3, 0, 4, 2, 1])
        torch.testing.assert_close(net(x[order], keys[order]), whole[order], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(net(x[1:2], keys[1:2]), whole[1:2], rtol=1e-12, atol=1e-12)
        assert not torch.allclose(net(x, keys.flip(0)), whole)
        assert torch.equal(net.eval()(x, keys), net(x))


@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_a_batch_in_two_parts(name: str) -> None:
    """With dropout on, the parts' mean losses weighted by their pictures: every gradient to 1e-12
    of its size.
    """
    net, x, labels, keys = in_training(name)
    parameters = dict(net.named_parameters())
    whole = torch.autograd.grad(F.cross_entropy(net(x, keys), labels), list(parameters.values()))
    parts = [
        F.cross_entropy(net(x[part], keys[part]), labels[part]) * share
        for part, share in ((slice(2), 2 / 5), (slice(2, 5), 3 / 5))
    ]
    found = torch.autograd.grad(torch.stack(parts).sum(), list(parameters.values()))
    for parameter, one, other in zip(parameters, found, whole, strict=True):
        assert float((one - other).norm()) < 1e-12 * float(other.norm()), parameter


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # of the compiler itself
def test_keys_are_compiled_once() -> None:
    """They are an argument: other keys of as many pictures are no new program."""
    from torch._dynamo import reset
    from torch._dynamo.testing import CompileCounter

    net, x, _, keys = in_training("paper")
    counter = CompileCounter()
    compiled = torch.compile(net, backend=counter, dynamic=False)
    try:
        for now in (keys, keys.flip(0), keys + 1):
            assert torch.equal(compiled(x, now), net(x, now))
    finally:
        reset()
    assert counter.frame_count == 1


def test_wrong_input() -> None:
    with pytest.raises(VariantError, match=r"\(1, 3, 227, 227\) does not fit 'paper'.*\(N, 3, 224, 224\)"):
        AlexNet("paper")(torch.zeros(1, 3, 227, 227))


@pytest.mark.parametrize("name", NAMES)
def test_whole_net_gradient(name: str) -> None:
    """Gradients of every parameter and the input against central differences in float64.

    One random direction for each tensor, as long as the tensor; a step of 1e-6 of that length
    leaves an error of rounding: the loss is good to 1e-12 where logits reach thousands, so the
    quotient to 1e-6. (Smaller steps measured worse in proportion.)
    """
    torch.manual_seed(5)
    net = AlexNet(small(name)).double().eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(3.0)  # so that logits and LRN sums matter
    x = (torch.randn(2, 3, 67, 67, dtype=torch.float64) * 50).requires_grad_()
    y = torch.tensor([1, 3])
    F.cross_entropy(net(x), y).backward()

    def loss() -> float:
        with torch.no_grad():
            return float(F.cross_entropy(net(x), y))

    tensors: dict[str, Tensor] = {"input": x, **dict(net.named_parameters())}
    for tensor_name, tensor in tensors.items():
        assert tensor.grad is not None
        direction = torch.randn_like(tensor)
        direction /= direction.norm() / tensor.detach().norm().clamp_min(1e-3)
        analytic = float((tensor.grad * direction).sum())
        h = 1e-6
        with torch.no_grad():
            tensor += h * direction
            up = loss()
            tensor -= 2 * h * direction
            down = loss()
            tensor += h * direction
        assert (up - down) / (2 * h) == pytest.approx(analytic, rel=1e-5, abs=1e-6), tensor_name


def test_wrong_precision() -> None:
    """A float64 input of a float32 net is an error of PyTorch's, not a silent conversion."""
    with pytest.raises(RuntimeError):
        AlexNet(small("paper"))(torch.from_numpy(np.zeros((1, 3, 67, 67))))


def pytorchs_lrn(x: Tensor, size: int, coefficient: float, beta: float, k: float, towers: int = 1) -> Tensor:
    return torch.cat([F.local_response_norm(part, size, coefficient * size, beta, k) for part in x.chunk(towers, 1)], 1)


@pytest.mark.parametrize("name", ["paper", "code-2012", "caffe"])
def test_derivatives_of_derivatives(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gradient penalty and `torch.func`, on the whole network, against one around PyTorch's own
    normalisation, in float64.
    """
    net = AlexNet(small(name, width=1 / 16, num_classes=3)).double().eval()
    x, t = torch.randn(2, 1, 3, 67, 67, dtype=torch.float64) * 50

    def found() -> list[Tensor]:
        leaf = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(net(leaf).square().sum(), leaf, create_graph=True)
        penalty = torch.autograd.grad(slope.square().sum(), [leaf, *net.parameters()])
        per_picture = torch.func.vmap(torch.func.grad(lambda x: net(x[None]).square().sum()))(torch.cat([x, t]))
        jacobian = torch.func.jacrev(net)(x)
        tangent = torch.func.jvp(net, (x,), (t,))[1]
        curvature = torch.func.jvp(torch.func.grad(lambda x: net(x).square().sum()), (x,), (t,))[1]
        along = torch.func.jvp(lambda x: torch.func.jvp(net, (x,), (t,))[1], (x,), (t,))[1]
        batched = torch.autograd.functional.jacobian(net, x, vectorize=True)
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(x.clone().requires_grad_(), t)
            mixed = forward_ad.unpack_dual(torch.autograd.grad(net(dual).square().sum(), dual)[0]).tangent
        assert mixed is not None
        results = [
            *penalty,
            per_picture,
            jacobian,
            tangent,
            curvature,
            along,
            batched,
            mixed,
            *torch.func.vmap(net.stages)(x[None]).values(),
        ]
        return [result.detach() for result in results]

    ours = found()
    monkeypatch.setattr("alexnet.kernels.lrn", pytorchs_lrn)
    for result, expected in zip(ours, found(), strict=True):
        torch.testing.assert_close(result, expected, rtol=1e-8, atol=1e-10 * float(expected.abs().max()))
    assert ours[0].abs().max() > 0


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # of the compiler itself
def test_compiled_networks_refuse_second_derivatives() -> None:
    """The compiler differentiates once; it says so."""
    from torch._dynamo import reset

    net = torch.compile(AlexNet(small("caffe", width=1 / 16)), backend="aot_eager")
    x = torch.randn(1, 3, 67, 67, requires_grad=True)
    try:
        (slope,) = torch.autograd.grad(net(x).square().sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match="double backward"):
            slope.square().sum().backward()
    finally:
        reset()
