"""NumPy's files: as np.load reads them, as Python 2 wrote them, as somebody with bad
intentions would write them.
"""

import io
import os
import pickle
import struct
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from alexnet import AlexNet
from alexnet.errors import CheckpointError
from alexnet.variants import LAYER_NAMES, Variant, get_variant
from alexnet.weights.formats import caffe_read, npy

SMALL = get_variant("caffe", kernels=(2, 4, 4, 4, 4), units=(6, 8), num_classes=3, input_size=99)  # pool5 is 2 x 2

TEXT = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }\n"
HEADER = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(TEXT)) + TEXT


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.npy"


def parameters(variant: Variant = SMALL) -> dict[str, Tensor]:
    return AlexNet(variant, torch.Generator().manual_seed(0)).state_dict()


def theirs(tensors: dict[str, Tensor], dtype: str = "<f4") -> dict[str, list[NDArray[Any]]]:
    """The dictionary as caffe-tensorflow makes it, element by element: H, W, I, O and (in, out),
    fc6's rows in H, W, C order.
    """
    out: dict[str, list[NDArray[Any]]] = {}
    for name in LAYER_NAMES:
        weight, bias = tensors[f"{name}.weight"].numpy(), tensors[f"{name}.bias"].numpy()
        if weight.ndim == 4:
            weight = np.einsum("oihw->hwio", weight)
        elif name == "fc6":
            maps = len(tensors["conv5.bias"])
            side = round((weight.shape[1] / maps) ** 0.5)
            rows = [weight[:, (c * side + y) * side + x] for y in range(side) for x in range(side) for c in range(maps)]
            weight = np.stack(rows)
        else:
            weight = weight.T
        out[name] = [weight.astype(dtype), bias.astype(dtype)]
    return out


def dump(path: Path, content: Any, protocol: int = 2) -> None:
    """As np.save, in a protocol of choice."""
    path.write_bytes(HEADER + pickle.dumps(np.array(content, object), protocol))


def same(first: Any, second: Any) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# --- .npy -----------------------------------------------------------------------------------------


def test_round_trip(path: Path) -> None:
    tensors = parameters()
    npy.write(path, SMALL, tensors)
    read = npy.read(path)
    assert same(read.tensors, tensors) and all(tensor.is_contiguous() for tensor in read.tensors.values())
    assert (read.variant, read.ops, read.input_size) == ("caffe", None, None)


@pytest.mark.parametrize("encoding", ["latin1", "bytes", "ASCII"])
def test_numpy_reads_what_we_write(path: Path, encoding: Any) -> None:
    """With the lines that programs of 2016 have, with NumPy's default, and
    names that NumPy 1 knows.
    """
    tensors = parameters()
    npy.write(path, SMALL, tensors)
    loaded = np.load(path, allow_pickle=True, encoding=encoding).item()
    assert all(type(name) is str for name in loaded)
    wanted = theirs(tensors)
    assert set(loaded) == set(wanted)
    for name, pair in wanted.items():
        for found, array in zip(loaded[name], pair, strict=True):
            assert found.dtype == np.float32 and np.array_equal(found, array)
    assert b"numpy.core.multiarray" in path.read_bytes() and b"_core.multiarray" not in path.read_bytes()


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", ">f8"])
def test_what_numpy_writes(path: Path, protocol: int, dtype: str) -> None:
    """Protocol 2 keeps bytes as text and turns it back with _codecs.encode; transposed
    arrays lie in Fortran's order.
    """
    tensors = parameters()
    dump(path, theirs(tensors, dtype), protocol)
    assert same(npy.read(path).tensors, tensors)


def test_np_save(path: Path) -> None:
    tensors = parameters()
    np.save(path, theirs(tensors), allow_pickle=True)  # type: ignore[arg-type]
    assert same(npy.read(path).tensors, tensors)


def test_halves(path: Path) -> None:
    tensors = {name: tensor.half().float() for name, tensor in parameters().items()}
    dump(path, theirs(tensors, "<f2"))
    assert same(npy.read(path).tensors, tensors)


def test_named_weights_and_tuples(path: Path) -> None:
    """Later versions of the converter wrote dictionaries; tuples are as good as lists."""
    tensors = parameters()
    dump(path, {name: {"weights": weight, "biases": bias} for name, (weight, bias) in theirs(tensors).items()})
    assert same(npy.read(path).tensors, tensors)
    dump(path, {name: tuple(pair) for name, pair in theirs(tensors).items()})
    assert same(npy.read(path).tensors, tensors)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_header_versions(path: Path, version: tuple[int, int]) -> None:
    """Version 1 as Python 2 padded it; longer headers in 2 and 3."""
    tensors = parameters()
    text = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }            \n"
    head = b"\x93NUMPY" + bytes(version) + struct.pack("<H" if version == (1, 0) else "<I", len(text)) + text
    path.write_bytes(head + pickle.dumps(np.array(theirs(tensors), object), 2))
    assert same(npy.read(path).tensors, tensors)


def test_as_python_2_pickled(path: Path) -> None:
    """Byte strings for names and numbers, dtypes with integers for flags, lengths as long
    integers.
    """
    tensors = parameters()
    rebuild = b"cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\x00\x85U\x01b\x87R"
    kind = b"cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    whole = (
        b"\x80\x02"
        + rebuild
        + b"(K\x01)cnumpy\ndtype\nU\x02O8K\x00K\x01\x87R(K\x03U\x01|NNN"
        + b"J\xff\xff\xff\xff" * 2
        + b"K?tb\x89]}("
    )
    for name, pair in theirs(tensors).items():
        whole += b"U" + bytes([len(name)]) + name.encode() + b"]("
        for array in pair:
            shape = b"".join(b"\x8a\x04" + struct.pack("<i", size) for size in array.shape)
            data = b"T" + struct.pack("<i", array.nbytes) + array.tobytes()
            whole += rebuild + b"(K\x01(" + shape + b"t" + kind + b"\x89" + data + b"tb"
        whole += b"e"
    path.write_bytes(HEADER + whole + b"uatb.")
    assert np.load(path, allow_pickle=True, encoding="latin1").item()["fc8"][1].shape == (3,)  # a file as NumPy knows it
    assert same(npy.read(path).tensors, tensors)


def test_equal_to_the_caffemodel_it_comes_from(shared: Path, path: Path) -> None:
    tiny = caffe_read.read(shared / "weights" / "tiny" / "alexnet-v1.caffemodel").tensors
    dump(path, theirs(dict(tiny)))
    assert same(npy.read(path).tensors, dict(tiny))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"block1": ("conv", "relu", "pool", "norm")}, "block1"),
        ({"conv1_padding": (2, 2)}, "conv1_padding"),
        ({"lrn_k": 2.0}, "lrn_k"),
        ({"lrn_coefficient": 1e-4}, "lrn_coefficient"),
        ({"lrn_window": "tower"}, "lrn_window"),
        ({"dropout_scaling": "test"}, "dropout_scaling"),
        ({"channel_order": "RGB"}, "channel_order"),
    ],
)
def test_what_the_format_cannot_hold(path: Path, changes: dict[str, Any], reason: str) -> None:
    variant = replace(SMALL, **changes)
    with pytest.raises(CheckpointError, match=reason):
        npy.write(path, variant, parameters(variant))
    assert not path.exists()


def test_one_tower_has_one_window(path: Path) -> None:
    variant = replace(SMALL, towers=1, lrn_window="tower")
    npy.write(path, variant, parameters(variant))
    assert same(npy.read(path).tensors, parameters(variant))


def changed(change: Callable[[Any], Any]) -> Any:
    layers = theirs(parameters())
    return change(layers) or layers


BAD: dict[str, tuple[Callable[[Any], Any], str]] = {
    "missing": (lambda d: d.pop("fc7") and None, "has the layers conv1, .*fc6, fc8; needed: conv1"),
    "strange": (lambda d: d.update(fc9=d["fc8"]), "has the layers .*fc9"),
    "one array": (lambda d: d.update(fc8=[d["fc8"][0]]), "'fc8' is not a pair"),
    "a number": (lambda d: d.update(fc8=3), "'fc8' is not a pair"),
    "a list": (lambda d: [d], "array of objects, but a dictionary"),
    "biases": (lambda d: d.update(fc8=[d["fc8"][0], d["fc7"][1]]), r"fc8 has weights of shape \(8, 3\) and biases of \(8,\)"),
    "rank": (lambda d: d.update(conv1=[d["fc8"][0], d["fc8"][1]]), "conv1 has weights of shape.*4 dimensions"),
    "fc6": (
        lambda d: d.update(fc6=[d["fc6"][0][:-1], d["fc6"][1]]),
        "fc6 has 15 inputs, which do not form square maps of conv5's 4",
    ),
    "integers": (lambda d: d.update(fc8=[d["fc8"][0].astype("i4"), d["fc8"][1]]), "type <i4, but weights are floats"),
    "objects": (lambda d: d.update(fc8=[np.array([None, 1], object), d["fc8"][1]]), "array of objects"),
    "empty": (lambda d: d.update(fc8=[d["fc8"][0][:0], d["fc8"][1]]), r"array of shape \(0, 3\)"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_contents(path: Path, case: str) -> None:
    change, reason = BAD[case]
    dump(path, changed(change), 4)
    with pytest.raises(CheckpointError, match=reason) as caught:
        npy.read(path)
    assert str(caught.value).startswith(f"{path} cannot be read as a .npy of weights: ")


def test_other_kinds_of_file(path: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="No such file"):
        npy.read(path)
    np.save(path, np.zeros((3, 3), np.float32))
    with pytest.raises(CheckpointError, match=r"holds one array of float32 \(3, 3\)"):
        npy.read(path)
    path.write_bytes(b"PK\x03\x04")
    with pytest.raises(CheckpointError, match="its header is damaged"):
        npy.read(path)


def test_cut_short_anywhere(path: Path) -> None:
    npy.write(path, SMALL, parameters())
    whole = path.read_bytes()
    for cut in range(0, len(whole), 11):
        path.write_bytes(whole[:cut])
        with pytest.raises(CheckpointError):
            npy.read(path)


# --- pickles that want to run something -----------------------------------------------------------


class Runs:
    """What `pickle.dumps` turns into a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("where", ["alone", "in an array", "as weights"])
def test_nothing_is_executed(path: Path, protocol: int, where: str) -> None:
    proof = path.with_name("ran")
    for function, argument in (
        (os.mkdir, str(proof)),
        (eval, f"open({str(proof)!r}, 'w')"),
        (np.load, str(path)),
        (os.system, f"touch {proof}"),
    ):
        bomb: Any = Runs(function, argument)
        if where == "alone":
            path.write_bytes(HEADER + pickle.dumps(bomb, protocol))
        else:
            dump(path, bomb if where == "in an array" else {**theirs(parameters()), "fc8": [bomb, bomb]}, protocol)
        with pytest.raises(CheckpointError, match="wants to execute|which a dictionary of arrays does not need|protocol 5"):
            npy.read(path)
        assert not proof.exists()
    # The file does what it says when somebody else loads it.
    path.write_bytes(HEADER + pickle.dumps(Runs(os.mkdir, str(proof)), protocol))
    if where == "alone":
        np.load(path, allow_pickle=True)
        assert proof.exists()


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (b"\x80\x02cos\nsystem\nU\x04trueq\x01\x85R.", "wants to execute os.system"),
        (b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R.", "wants to execute builtins.eval"),
        (b"\x80\x02c__builtin__\neval\nU\x011\x85R.", "wants to execute __builtin__.eval"),
        (b"(S'true'\nios\nsystem\n.", "b'S'"),
        (b"(ios\nsystem\n.", "instruction b'i'"),
        (b"\x80\x02cnumpy\nload\nU\x01x\x85R.", "wants to execute numpy.load"),
        (b"\x80\x02cnumpy.core.multiarray\nscalar\n.", "wants to execute numpy.core.multiarray.scalar"),
        (b"\x80\x02cnumpy\nndarray.__reduce__\n.", "wants to execute"),
        (b"\x80\x02cnumpy\nndarray\n(J\xff\xff\xff\x7ft\x81.", r"instruction b'\\x81'"),  # NEWOBJ
        (b"\x80\x02cnumpy\nndarray\n)R.", "damaged at instruction b'R'"),
        (b"\x80\x02cnumpy\ndtype\nU\x02f4}\x85R.", "damaged at instruction b'R'"),
        (b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x04\x00\x00\x00utf8\x86R.", "damaged at instruction b'R'"),
        (
            b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nJ\xff\xff\xff\x7f\x85U\x01b\x87R.",
            "damaged at instruction b'R'",
        ),
        (b"\x80\x02}}b.", "damaged at instruction b'b'"),
        (b"\x80\x02P1\n.", "instruction b'P'"),
        (b"\x80\x02\x82\x01.", r"instruction b'\\x82'"),  # the extension registry
        (b"\x80\x02Na.", "more from its stack|damaged"),
        (b"\x80\x02(0.", "instruction b'0'"),
        (b"\x80\x02h\x05.", "damaged at instruction b'h'"),
        (b"\x80\x02t.", "damaged at instruction b't'"),
        (b"\x80\x02(a.", "more from its stack"),
        (b"\x80\x02", "cut short"),
        (b"\x80\x02cos" + b"x" * 300, "contains a name that does not end"),
        (b"\x80\x02].", "not hold a dictionary"),
    ],
)
def test_programs(path: Path, program: bytes, reason: str) -> None:
    path.write_bytes(HEADER + program)
    with pytest.raises(CheckpointError, match=reason):
        npy.read(path)


RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
F4 = b"cnumpy\ndtype\nU\x02f4\x89\x88\x87R"


@pytest.mark.parametrize(
    "program",
    [
        b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60),  # a string of 2^60 bytes
        b"\x80\x04T" + struct.pack("<i", -1),
        b"\x80\x02Nr" + struct.pack("<I", (1 << 32) - 1) * 3,  # a memo of 2^32 entries
        b"\x80\x02"
        + RECONSTRUCT
        + b"(K\x01("
        + b"J\xff\xff\xff\x7f" * 3
        + b"t"
        + F4
        + b"\x89U\x01xtb.",  # an array of 2^93 numbers
        b"\x80\x02" + b"]" * 20_000_000,  # lists without end
        b"\x80\x02]" + b"q\x01h\x01a" * 5_000_000,  # a list of itself
        b"\x80\x02X"
        + struct.pack("<I", 1 << 20)
        + b"a" * (1 << 20)
        + b"q\x010" * 0
        + b"q\x01"
        + b"c_codecs\nencode\nh\x01U\x06latin1\x86R" * 10_000,  # a megabyte of text, ten thousand times
        b"\x80\x02\x8a\xff" + b"\x7f" * 255 + b"I" + b"9" * 1_000_000 + b"\n.",
    ],
)
def test_claims_cost_nothing(path: Path, program: bytes) -> None:
    path.write_bytes(HEADER + program)
    start = time.perf_counter()
    tracemalloc.start()
    with pytest.raises(CheckpointError):
        npy.read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32 << 20 and time.perf_counter() - start < 8


def test_an_array_that_claims_more_than_it_holds(path: Path) -> None:
    path.write_bytes(HEADER + b"\x80\x02" + RECONSTRUCT + b"(K\x01K\x03\x85" + F4 + b"\x89U\x08" + b"x" * 8 + b"tb.")
    with pytest.raises(CheckpointError, match="claims an array of 3 numbers but holds 8 bytes"):
        npy.read(path)


def test_layers_that_share_their_numbers(path: Path) -> None:
    """One megabyte in the file that stands for sixteen."""
    array = (
        RECONSTRUCT
        + b"(K\x01(J\x00\x04\x00\x00M\x00\x01t"
        + F4
        + b"\x89T"
        + struct.pack("<i", 1 << 20)
        + b"\0" * (1 << 20)
        + b"tbq\x07"
    )
    pairs = b"".join(b"U" + bytes([len(name)]) + name.encode() + b"](h\x07h\x07e" for name in LAYER_NAMES)
    path.write_bytes(HEADER + b"\x80\x02" + array + b"}(" + pairs + b"u.")
    with pytest.raises(CheckpointError, match="share their numbers"):
        npy.read(path)


# --- .npz -----------------------------------------------------------------------------------------


def test_npz_of_real_weights(shared: Path) -> None:
    file = shared / "weights" / "imagenet-conv1-5.npz"
    read = npy.read_npz(file)
    assert list(read.tensors) == [f"conv{number}.{kind}" for number in range(1, 6) for kind in ("weight", "bias")]
    with np.load(file) as arrays:
        assert all(np.array_equal(arrays[name], tensor.numpy()) for name, tensor in read.tensors.items())
    assert (read.variant, read.ops) == (None, None)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_round_trip(tmp_path: Path, save: Callable[..., None]) -> None:
    tensors = parameters()
    tensors["fc7.bias"] = torch.zeros(8)
    save(tmp_path / "x.npz", **{name: np.asfortranarray(tensor.numpy()) for name, tensor in tensors.items()})
    assert same(npy.read_npz(tmp_path / "x.npz").tensors, tensors)


def zipped(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def array_bytes(array: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


ZEROS = array_bytes(np.zeros(4, np.float32))


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({}, "is empty"),
        ({"conv1.wieght.npy": ZEROS}, "holds 'conv1.wieght', which is not a parameter.*did you mean 'conv1.weight'"),
        ({"conv1.bias.npy": array_bytes(np.zeros(4, np.int32))}, "of type int32"),
        ({"conv1.bias.npy": array_bytes(np.zeros(4, np.longdouble))}, "of type"),
        ({"conv1.bias.npy": array_bytes(np.array([Runs(os.mkdir, "ran")], object), allow_pickle=True)}, "of type object"),
        ({"conv1.bias.npy": b"text"}, "header is damaged"),
        ({"conv1.bias.npy": ZEROS[:-1]}, "claims 4 numbers in 143 bytes"),
        ({"conv1.bias.npy": ZEROS + b"x"}, "claims 4 numbers in 145 bytes"),
        ({"conv1.bias.npy": ZEROS.replace(b"(4,)", b"(4,-1)")}, "damaged|claims"),
        ({"conv1.bias.npy": array_bytes(np.zeros((0, 9), np.float32))}, "claims 0 x 9 numbers"),
        ({"conv1.bias.npy": array_bytes(np.zeros(30_000_000, np.float32))}, "claims 120,000,128 bytes of weights"),
    ],
)
def test_npz_refused(tmp_path: Path, members: dict[str, bytes], reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason):
        npy.read_npz(zipped(tmp_path / "x.npz", **members))


def test_npz_that_is_none(tmp_path: Path) -> None:
    file = tmp_path / "x.npz"
    with pytest.raises(CheckpointError, match="No such file"):
        npy.read_npz(file)
    file.write_bytes(b"PK nothing")
    with pytest.raises(CheckpointError, match="damaged or not a zip"):
        npy.read_npz(file)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("conv1.bias.npy", ZEROS)
    with pytest.raises(CheckpointError, match="NumPy never uses"):
        npy.read_npz(file)


def test_npz_that_lies_about_its_size(tmp_path: Path) -> None:
    """The directory says 144 bytes, the stream goes on for 100 MB: no more than 144 are read."""
    file = zipped(tmp_path / "x.npz", **{"conv1.bias.npy": ZEROS + b"\0" * 100_000_000})
    content = file.read_bytes()
    file.write_bytes(content.replace(struct.pack("<I", 100_000_144), struct.pack("<I", 144)))
    tracemalloc.start()
    with pytest.raises(CheckpointError, match="CRC"):
        npy.read_npz(file)
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


# --- fuzzing --------------------------------------------------------------------------------------

FUZZ = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def small_npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, theirs(parameters()), allow_pickle=True)  # type: ignore[arg-type]
    return buffer.getvalue()


def small_npz() -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{name: tensor.numpy() for name, tensor in list(parameters().items())[:3]})
    return buffer.getvalue()


NPY, NPZ = small_npy(), small_npz()
#: Where the numbers are not: changes there are what a parser sees.
TALK = [
    index
    for index in range(len(NPY))
    if index < 900 or any(NPY[near : near + 3] in (b"tb\x94", b"\x86\x94h") for near in range(index - 40, index))
]


def read_or_refuse(path: Path) -> None:
    for read in (npy.read, npy.read_npz):
        try:
            read(path)
        except CheckpointError as error:
            assert len(str(error)) < 2000


@FUZZ
@given(st.binary(max_size=300))
def test_any_pickle(path: Path, content: bytes) -> None:
    path.write_bytes(HEADER + content)
    read_or_refuse(path)


@FUZZ
@given(
    st.lists(
        st.sampled_from(
            [bytes([code]) for code in range(256)]
            + [RECONSTRUCT, F4, b"U\x01b", b"K\x00", b"q\x01", b"h\x01", b"c_codecs\nencode\n"]
        ),
        max_size=40,
    )
)
def test_any_program(path: Path, parts: list[bytes]) -> None:
    path.write_bytes(HEADER + b"\x80\x02" + b"".join(parts) + b".")
    read_or_refuse(path)


@FUZZ
@given(st.binary(max_size=200))
def test_any_header(path: Path, content: bytes) -> None:
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(content)) + content)
    read_or_refuse(path)


@FUZZ
@given(st.lists(st.tuples(st.sampled_from(TALK), st.integers(0, 255)), min_size=1, max_size=5), st.integers(0, 40))
def test_npy_with_a_few_bytes_changed(path: Path, changes: list[tuple[int, int]], cut: int) -> None:
    content = bytearray(NPY)
    for position, value in changes:
        content[position] = value
    path.write_bytes(content[: len(content) - cut])
    read_or_refuse(path)


@FUZZ
@given(st.lists(st.tuples(st.integers(0, len(NPZ) - 1), st.integers(0, 255)), min_size=1, max_size=5), st.integers(0, 40))
def test_npz_with_a_few_bytes_changed(path: Path, changes: list[tuple[int, int]], cut: int) -> None:
    content = bytearray(NPZ)
    for position, value in changes:
        content[position] = value
    path.write_bytes(content[: len(content) - cut])
    read_or_refuse(path)
