"""torchvision's files, and what pretends to be one."""

import argparse
import pickle
import subprocess
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

from alexnet import AlexNet
from alexnet.errors import CheckpointError
from alexnet.variants import get_variant
from alexnet.weights.formats import torchvision
from alexnet.weights.importer import import_weights
from alexnet.weights.match import fit


def theirs(width: int = 16, classes: int = 10) -> nn.Module:
    """torchvision's module by its published structure, narrower."""
    k = [64 // width, 192 // width, 384 // width, 256 // width, 256 // width, 4096 // width]
    net = nn.Module()
    net.features = nn.Sequential(
        nn.Conv2d(3, k[0], 11, 4, 2),
        nn.ReLU(True),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(k[0], k[1], 5, padding=2),
        nn.ReLU(True),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(k[1], k[2], 3, padding=1),
        nn.ReLU(True),
        nn.Conv2d(k[2], k[3], 3, padding=1),
        nn.ReLU(True),
        nn.Conv2d(k[3], k[4], 3, padding=1),
        nn.ReLU(True),
        nn.MaxPool2d(3, 2),
    )
    net.classifier = nn.Sequential(
        nn.Dropout(),
        nn.Linear(k[4] * 36, k[5]),
        nn.ReLU(True),
        nn.Dropout(),
        nn.Linear(k[5], k[5]),
        nn.ReLU(True),
        nn.Linear(k[5], classes),
    )
    return net


def answers(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return net.classifier(net.features(x).flatten(1))


def prefixed(prefix: str, state: dict[str, Any]) -> dict[str, Any]:
    return {f"{prefix}{name}": value for name, value in state.items()}


def averaged(net: nn.Module) -> dict[str, Any]:
    average = AveragedModel(net)
    average.update_parameters(net)
    return dict(average.state_dict())


class Settings(dict):  # type: ignore[type-arg]
    """A class that only the writer has, as Lightning's AttributeDict."""


ARGUMENTS = argparse.Namespace(lr=0.1, data=Path("/photos"), best=np.float64(0.5), names={"a"}, when=datetime.now())
#: How people save a network: from the module and its state_dict.
WRAPPINGS: dict[str, Callable[[nn.Module, dict[str, Any]], Any]] = {
    "plain": lambda _, state: state,
    "ordered": lambda net, _: net.state_dict(),
    "parallel": lambda _, state: prefixed("module.", state),
    "compiled": lambda _, state: prefixed("_orig_mod.", state),
    # PyTorch's own ImageNet example; best_acc1 is a tensor.
    "features parallel": lambda _, state: {
        "epoch": 90,
        "arch": "alexnet",
        "best_acc1": torch.tensor(56.5),
        "optimizer": {"state": {0: {"m": torch.ones(3)}}},
        "state_dict": {name.replace("features.", "features.module."): value for name, value in state.items()},
        "scheduler": {"milestones": Counter({30: 1}), "base_lrs": [0.1]},
    },
    # torchvision's references and timm
    "arguments": lambda _, state: {"model": state, "args": ARGUMENTS, "lr_scheduler": {}},
    "ema beside it": lambda _, state: {"state_dict_ema": dict(state), "state_dict": state, "args": ARGUMENTS, "version": 2},
    "lightning": lambda _, state: {
        "state_dict": {**prefixed("model.", state), "criterion.weight": torch.ones(10)},
        "hyper_parameters": Settings(lr=0.1),
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.1)}},
    },
    "net.": lambda _, state: prefixed("net.", state),
    "backbone.": lambda _, state: prefixed("backbone.", state),
    "any.prefix.": lambda _, state: prefixed("any.prefix.", state),
    "average": lambda net, _: averaged(net),
    "weights": lambda _, state: {"weights": state},
    "params": lambda _, state: {"params": state, "step": 7},
    "model_state": lambda _, state: {"model_state": state},
    "deep": lambda _, state: {"checkpoint": {"network": prefixed("module.model.", state)}},
    "parameters": lambda net, _: dict(net.named_parameters()),
    "whole module": lambda net, _: net,
    "shared storage": lambda _, state: {name: torch.stack([value, value])[1] for name, value in state.items()},
}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("how", WRAPPINGS)
def test_what_people_save(tmp_path: Path, how: str, protocol: int, legacy: bool) -> None:
    net, path = theirs().eval(), tmp_path / "weights"
    content = WRAPPINGS[how](net, dict(net.state_dict()))
    torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=not legacy)
    found = torchvision.read(path)
    wanted = {
        f"{layer}.{kind}": net.state_dict()[f"{place}.{kind}"]
        for place, layer in torchvision.TO_OURS.items()
        for kind in ("weight", "bias")
    }
    assert found.tensors.keys() == wanted.keys()
    assert all(torch.equal(found.tensors[name], value) for name, value in wanted.items())
    assert fit(found).name == "torchvision"


@pytest.mark.parametrize(
    ("how", "note"),
    [
        (
            "ema beside it",
            "the network was taken from 'state_dict'; left out: state_dict_ema, args, version; there is a network too in 'state_dict_ema'",
        ),
        (
            "lightning",
            "the network was taken from 'state_dict'; left out: hyper_parameters, callbacks; the prefix 'model.' was removed from its names; left out, as their names lack the prefix "
            "'model.': criterion.weight",
        ),
        ("average", "it is an average of 1 models (n_averaged)"),
        ("deep", "the network was taken from 'checkpoint.network'; the prefix 'model.' was removed from its names"),
        (
            "whole module",
            "it is a whole module (torch.nn.modules.module.Module), whose code is ignored: only its tensors were read",
        ),
        ("plain", ""),
    ],
)
def test_what_was_guessed_is_said(tmp_path: Path, how: str, note: str) -> None:
    net = theirs()
    torch.save(WRAPPINGS[how](net, dict(net.state_dict())), tmp_path / "x.pth")
    assert "; ".join(torchvision.read(tmp_path / "x.pth").notes) == note


@pytest.mark.parametrize(
    ("dtype", "legacy"),
    [*product([torch.float16, torch.bfloat16, torch.float64], [False, True]), (torch.float8_e4m3fn, False)],
)  # PyTorch itself writes no eight bits in the old layout
def test_types_and_layouts(tmp_path: Path, dtype: torch.dtype, legacy: bool) -> None:
    """As `torch.load` gives them: every float, views, other strides, parameters."""
    state = {
        "conv1.weight": torch.randn(4, 3, 11, 11).to(memory_format=torch.channels_last).to(dtype),
        "conv1.bias": nn.Parameter(torch.randn(4).to(dtype), requires_grad=False),
        "fc6.weight": torch.randn(5, 6).to(dtype).t(),
        "fc7.weight": torch.randn(9, 9).to(dtype)[2:7:2, 3:],
        "fc8.bias": torch.tensor(1.0).to(dtype),
        "empty": torch.zeros(0, 3, dtype=dtype),
    }
    torch.save(state, tmp_path / "x.pth", _use_new_zipfile_serialization=not legacy)
    found, expected = torchvision.read(tmp_path / "x.pth").tensors, torch.load(tmp_path / "x.pth")
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype and torch.equal(found[name].float(), value.float()), name


def test_big_endian(tmp_path: Path) -> None:
    """As a mainframe writes it: the numbers' bytes the other way round, which
    the record byteorder says.
    """
    path, swapped = tmp_path / "x.pth", tmp_path / "big.pth"
    torch.save({"conv1.bias": torch.tensor([1.0, 2.5])}, path)
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(swapped, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            content = (
                b"big"
                if name.endswith("byteorder")
                else np.frombuffer(content, ">f4").astype("<f4").tobytes()
                if "/data/" in name
                else content
            )
            target.writestr(name, content)
    assert torchvision.read(swapped).tensors["conv1.bias"].tolist() == [1.0, 2.5]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (
            lambda path: torch.jit.save(torch.jit.script(nn.Conv2d(1, 1, 1)), path),
            r"it is TorchScript, .*torch\.jit\.load\(FILE\)\.state_dict\(\)",
        ),
        (lambda path: path.write_bytes(pickle.dumps({"a": 1}, 2)), "a pickle, but not one that torch.save wrote"),
        (
            lambda path: torch.save(
                {"a": prefixed("student.", theirs().state_dict()) | prefixed("teacher.", theirs().state_dict())}, path
            ),
            "it holds 2 networks, under 'student.' and 'teacher.'",
        ),
        (
            lambda path: torch.save({"features.0.weight": ARGUMENTS, "x": torch.ones(1)}, path),
            "is an object of argparse.Namespace, but a tensor",
        ),
        (lambda path: torch.save(ARGUMENTS, path), "it holds an object of argparse.Namespace without parameters"),
        (lambda path: torch.save({"x": torch.zeros(3, dtype=torch.complex64)}, path), "type torch.ComplexFloatStorage"),
        (lambda path: torch.save({(((1,),),): torch.zeros(3)}, path), "damaged at instruction"),
    ],
)
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_refused_with_the_reason(tmp_path: Path, make: Callable[[Path], None], reason: str) -> None:
    path = tmp_path / "x.pth"
    make(path)
    with pytest.raises(CheckpointError, match=reason) as caught:
        torchvision.read(path)
    assert str(caught.value).startswith(str(path)) and str(caught.value).endswith(".")


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (
            ["conv1.weight", "bn1.weight", "bn1.running_mean", "bn1.num_batches_tracked", "layer1.0.conv1.weight", "fc.weight"],
            r"residual blocks \(layer1\.0\.conv1\.weight\), as a ResNet",
        ),
        (
            ["features.0.weight", "features.1.running_mean", "features.1.num_batches_tracked"],
            r"batch normalisation \(features\.1\.",
        ),
        (
            [f"features.{number}.weight" for number in range(13)],
            "it has 13 convolutions and 0 fully connected layers, but an AlexNet has 5 and 3",
        ),
    ],
)
def test_other_networks(tmp_path: Path, names: list[str], reason: str) -> None:
    tensors = {name: torch.tensor(3) if name.endswith("tracked") else torch.ones(2, 2, 1, 1) for name in names}
    torch.save(tensors, tmp_path / "x.pth")
    save_file(tensors, tmp_path / "x.safetensors")
    for file in ("x.pth", "x.safetensors"):
        with pytest.raises(CheckpointError, match=rf"{file}: the .* file holds another network: .*{reason}"):
            import_weights(tmp_path / file)


def test_adaptive_pooling_elsewhere(tmp_path: Path) -> None:
    torch.save(theirs().state_dict(), tmp_path / "x.pth")
    with pytest.raises(
        CheckpointError,
        match=r"fc6 reads 576 inputs, which fits pictures of 224 x 224 pixels\. At 96 pixels it would need .* adaptive pooling, .* drop --input",
    ):
        import_weights(tmp_path / "x.pth", input_size=96)


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
    with pytest.raises(CheckpointError, match=r"differ only in module or _orig_mod"):
        torchvision.read(tmp_path / "x.pth")


def test_round_trip_to_the_bit(tmp_path: Path) -> None:
    net, path = AlexNet(get_variant("torchvision", width=1 / 16, num_classes=7)), tmp_path / "out.pth"
    torchvision.write(path, net.variant, net.state_dict())
    their_keys = theirs(16, 7)
    their_keys.load_state_dict(torch.load(path, weights_only=True))  # strict: their names and shapes exactly
    back = torchvision.read(path)
    assert fit(back) == net.variant
    assert all(torch.equal(back.tensors[name], value) for name, value in net.state_dict().items())


@pytest.mark.parametrize(("variant", "field"), [("caffe", "towers"), ("owt", "conv1_padding"), ("paper", "towers")])
def test_what_the_layout_cannot_hold_is_refused(tmp_path: Path, variant: str, field: str) -> None:
    net = AlexNet(get_variant(variant, width=1 / 16, num_classes=7))
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
    with pytest.raises(CheckpointError, match=r"bytes unpack to 100,0"):
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


STORAGE = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x02tQ"
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n(" + STORAGE + b"K\x00K\x02\x85K\x01\x85\x89}tR"


def zipped(path: Path, program: bytes) -> Path:
    """A file around a pickle, with one storage of two numbers."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", program)
        archive.writestr("x/data/0", bytes(8))
        archive.writestr("x/version", b"3\n")
    return path


def test_a_file_by_hand(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.pth", b"\x80\x02}X\x01\x00\x00\x00a" + TENSOR + b"s.")
    assert torchvision.read(path).tensors["a"].tolist() == torch.load(path)["a"].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (b"\x80\x02cposix\nsystem\nX\x04\x00\x00\x00true\x85R.", "wants to execute posix.system"),
        (b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R.", "wants to execute builtins.eval"),
        (b"\x80\x02cargparse\nNamespace\n)\x81}X\x01\x00\x00\x00acposix\nsystem\n)Rsb.", "wants to execute posix.system"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.", "damaged at instruction b'R'"),
        (b"\x80\x02" + TENSOR.replace(b"K\x02\x85", b"K\x03\x85") + b".", "tensors"),
        (
            b"\x80\x02}X\x01\x00\x00\x00a" + TENSOR.replace(b"K\x02\x85", b"K\x03\x85") + b"s.",
            "claims more numbers than the file",
        ),
        (
            b"\x80\x02}X\x01\x00\x00\x00a" + TENSOR.replace(b"K\x01\x85", b"K\x7f\x85") + b"s.",
            "claims more numbers than the file",
        ),
        (b"\x80\x02}X\x01\x00\x00\x00a" + TENSOR.replace(b"K\x00", b"K\x09", 1) + b"s.", "claims more numbers than the file"),
        (b"\x80\x02}X\x01\x00\x00\x00a" + TENSOR.replace(b"\x000X", b"\x001X") + b"s.", "claims more numbers than the file"),
        (b"\x80\x02}(((((tttttK\x01u.", "damaged at instruction b'u'"),
        (b"\x80\x02N(Q.", "damaged at instruction b'Q'|refers to a part"),
        (b"\x80\x02\x82\x01.", "instruction"),
        (b"\x80\x05\x96" + (1 << 50).to_bytes(8, "little") + b".", "instruction"),
        (b"\x80\x02B" + b"\xff" * 4 + b".", "cut short"),
        (b"\x80\x02" + b"]" * 300_000, "more than 200,000 instructions"),
    ],
)
def test_programs(tmp_path: Path, program: bytes, reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason):
        torchvision.read(zipped(tmp_path / "x.pth", program))


MODULE = (
    b"ctorch.nn\nModule\n)\x81q\x07}X\x08\x00\x00\x00_modules}q\x08("
    + b"".join(b"X\x01\x00\x00\x00%ch\x07" % code for code in b"abcdefgh")
    + b"usb"
)


@pytest.mark.parametrize(
    "program",
    [
        b"}q\x01(X\x01\x00\x00\x00a" + TENSOR + b"".join(b"X\x02\x00\x00\x00%02dh\x01" % i for i in range(99)) + b"u.",
        b"}(X\x01\x00\x00\x00a" + TENSOR + b"X\x01\x00\x00\x00m" + MODULE + b"u.",
    ],
    ids=["dictionary", "module"],
)
def test_what_holds_itself_is_walked_once(tmp_path: Path, program: bytes) -> None:
    """A hundred ways from a dictionary to itself would be a hundred million walks four levels
    deep.
    """
    start = time.perf_counter()
    assert list(torchvision.read(zipped(tmp_path / "x.pth", b"\x80\x02" + program)).tensors) == ["a"]
    assert time.perf_counter() - start < 2


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.sampled_from(
            [bytes([code]) for code in range(256)]
            + [STORAGE, TENSOR, b"K\x00", b"q\x01", b"h\x01", b"X\x01\x00\x00\x00a", b"cargparse\nNamespace\n", b")\x81", b"}"]
        ),
        max_size=40,
    )
)
def test_any_program(tmp_path: Path, parts: list[bytes]) -> None:
    path = zipped(tmp_path / "x.pth", b"\x80\x02" + b"".join(parts) + b".")
    try:
        torchvision.read(path)
    except CheckpointError as error:
        assert str(error).startswith(str(path)) and len(str(error)) < 2000


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("kind", ["meta", "nested", "sparse"])
def test_tensors_without_plain_numbers(tmp_path: Path, kind: str) -> None:
    tensors = {
        "meta": lambda: torch.empty(10**6, 10**6, device="meta"),
        "nested": lambda: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]),
        "sparse": lambda: torch.zeros(3, 3).to_sparse(),
    }
    torch.save({"features.0.weight": tensors[kind]()}, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match=r"odd\.pth: features\.0\.weight must be a plain tensor"):
        torchvision.read(tmp_path / "odd.pth")
