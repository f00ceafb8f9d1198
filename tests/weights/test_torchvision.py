"""torchvision's files, and what pretends to be one."""

import pickle
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from alexnet import AlexNet
from alexnet.errors import CheckpointError
from alexnet.variants import get
from alexnet.weights import torchvision
from alexnet.weights.foreign import fit


def theirs(width: int = 16, classes: int = 10) -> nn.Module:
    """torchvision's module by its published structure, narrower."""
    k = [64 // width, 192 // width, 384 // width, 256 // width, 256 // width, 4096 // width]
    net = nn.Module()
    net.features = nn.Sequential(
        nn.Conv2d(3, k[0], 11, 4, 2), nn.ReLU(True), nn.MaxPool2d(3, 2), nn.Conv2d(k[0], k[1], 5, padding=2), nn.ReLU(True),
        nn.MaxPool2d(3, 2), nn.Conv2d(k[1], k[2], 3, padding=1), nn.ReLU(True), nn.Conv2d(k[2], k[3], 3, padding=1),
        nn.ReLU(True), nn.Conv2d(k[3], k[4], 3, padding=1), nn.ReLU(True), nn.MaxPool2d(3, 2),
    )  # fmt: skip
    net.classifier = nn.Sequential(
        nn.Dropout(), nn.Linear(k[4] * 36, k[5]), nn.ReLU(True), nn.Dropout(), nn.Linear(k[5], k[5]), nn.ReLU(True),
        nn.Linear(k[5], classes),
    )  # fmt: skip
    return net


def answers(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return net.classifier(net.features(x).flatten(1))


@pytest.mark.parametrize("how", ["zip", "legacy", "parallel", "features parallel", "compiled", "nested", "safetensors"])
def test_computes_what_theirs_computes(tmp_path: Path, how: str) -> None:
    torch.manual_seed(0)
    net, path = theirs().eval(), tmp_path / "weights"
    state: dict[str, Any] = dict(net.state_dict())
    if how == "parallel":
        state = {f"module.{name}": value for name, value in state.items()}
    if how == "compiled":
        state = {f"_orig_mod.{name}": value for name, value in state.items()}
    if how == "features parallel":  # PyTorch's own ImageNet example
        state = {name.replace("features.", "features.module."): value for name, value in state.items()}
    if how == "nested":
        state = {"epoch": 90, "arch": "alexnet", "state_dict": state, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}}
    if how == "safetensors":
        save_file(state, path)
        foreign = torchvision.read_safetensors(path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=how != "legacy")
        foreign = torchvision.read(path)
    variant = fit(foreign)
    assert (variant.name, variant.width, variant.num_classes, variant.towers) == ("torchvision", 1 / 16, 10, 1)
    ours = AlexNet(variant).eval()
    ours.load_state_dict(dict(foreign.tensors))
    x = torch.randn(2, 3, 224, 224)
    torch.testing.assert_close(ours(x), answers(net, x), rtol=1e-5, atol=1e-6)


def test_two_weights_of_one_name(tmp_path: Path) -> None:
    torch.save({"module.features.0.weight": torch.ones(2), "features.0.weight": torch.zeros(2)}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"differ in module or _orig_mod alone"):
        torchvision.read(tmp_path / "x.pth")


def test_round_trip_to_the_bit(tmp_path: Path) -> None:
    net, path = AlexNet(get("torchvision", width=1 / 16, num_classes=7)), tmp_path / "out.pth"
    torchvision.write(path, net.variant, net.state_dict())
    their_keys = theirs(16, 7)
    their_keys.load_state_dict(torch.load(path, weights_only=True))  # strict: their names and shapes exactly
    back = torchvision.read(path)
    assert fit(back) == net.variant
    assert all(torch.equal(back.tensors[name], value) for name, value in net.state_dict().items())


@pytest.mark.parametrize(("variant", "field"), [("caffe", "towers"), ("owt", "conv1_padding"), ("paper", "towers")])
def test_what_the_layout_cannot_hold_is_refused(tmp_path: Path, variant: str, field: str) -> None:
    net = AlexNet(get(variant, width=1 / 16, num_classes=7))
    with pytest.raises(CheckpointError, match=rf"torchvision's alexnet has {field} = .*safetensors or onnx"):
        torchvision.write(tmp_path / "out.pth", net.variant, net.state_dict())
    assert not list(tmp_path.iterdir())


class Malice:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return subprocess.call, (["touch", str(self.path)],)


@pytest.mark.parametrize("legacy", [False, True])
def test_nothing_is_executed(tmp_path: Path, legacy: bool) -> None:
    path, proof = tmp_path / "evil.pth", tmp_path / "executed"
    torch.save({"features.0.weight": Malice(proof)}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(CheckpointError, match=r"refused: it wants to execute (subprocess|commands)\.call"):
        torchvision.read(path)
    plain = tmp_path / "evil.pkl"
    plain.write_bytes(pickle.dumps(Malice(proof), protocol=2))
    with pytest.raises(CheckpointError, match="evil.pkl"):
        torchvision.read(plain)
    assert not proof.exists()


def test_a_claimed_size_is_not_allocated(tmp_path: Path) -> None:
    """One value with a stride of 0 claims to be 10^12 of them."""
    path = tmp_path / "claim.pth"
    torch.save({"features.0.weight": torch.zeros(1).expand(10**6, 10**6)}, path)
    with pytest.raises(CheckpointError, match=r"features\.0\.weight claims shape \(1000000, 1000000\)"):
        torchvision.read(path)


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pth"
    torch.save({"features.0.weight": torch.zeros(10)}, path)
    with zipfile.ZipFile(path) as source:
        members = {name: source.read(name) for name in source.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb:
        for name, content in members.items():
            bomb.writestr(name, content)
        bomb.writestr("archive/data/9", bytes(10**8))
    with pytest.raises(CheckpointError, match=r"would unpack to 100,0"):
        torchvision.read(path)


@pytest.mark.parametrize("content", [[1, 2], torch.zeros(3), "text", {"a": {"b": 1}}])
def test_other_contents(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "other.pth"
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"expected a state_dict|lacks conv1\.bias"):
        fit(torchvision.read(path), "torchvision")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Small valid files of each kind."""
    folder = tmp_path_factory.mktemp("small")
    state = {f"{place}.{kind}": torch.ones(2) for place in torchvision.PLACES for kind in ("weight", "bias")}
    torch.save(state, folder / "zip")
    torch.save(state, folder / "legacy", _use_new_zipfile_serialization=False)
    save_file(state, folder / "safetensors")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["zip", "legacy", "safetensors"]),
    cut=st.integers(0, 6000),
    at=st.integers(0, 6000),
    byte=st.binary(max_size=8),
)
def test_damaged_files_give_our_errors_only(
    small: dict[str, bytes], tmp_path: Path, kind: str, cut: int, at: int, byte: bytes
) -> None:
    data = small[kind][: max(cut, 1)]
    path = tmp_path / "damaged"
    path.write_bytes(data[:at] + byte + data[at + len(byte) :])
    try:
        (torchvision.read_safetensors if kind == "safetensors" else torchvision.read)(path)
    except CheckpointError as error:
        assert str(path) in str(error)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("kind", ["meta", "nested", "sparse"])
def test_tensors_without_plain_numbers(tmp_path: Path, kind: str) -> None:
    tensors = {
        "meta": lambda: torch.empty(10**6, 10**6, device="meta"),
        "nested": lambda: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]),
        "sparse": lambda: torch.zeros(3, 3).to_sparse(),
    }
    torch.save({"features.0.weight": tensors[kind]()}, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match=r"odd\.pth: features\.0\.weight is no plain tensor"):
        torchvision.read(tmp_path / "odd.pth")
