"""NumPy's files: `bvlc_alexnet.npy` of TensorFlow's early days, and plain `.npz` archives.

`bvlc_alexnet.npy` is Caffe's AlexNet as Michael Guerzhoy published it in 2016, converted with
ethereon's caffe-tensorflow: an array of one object, a dictionary {"conv1": [weights, biases], ...},
pickled by Python 2. Convolutions are kept as (height, width, in / groups, out) and fully connected
layers as (in, out). TensorFlow's maps have their channels last, so the converter (`DataReshaper`)
also put the rows of fc6 into H, W, C order; we read and write them so. The file has no graph: the
network is Caffe's, its input BGR.

Its pickle is read by `pickled.py`, which executes nothing: of the functions that a pickle may name,
`_ArrayReader` knows the four that rebuild an array, and computes their results itself instead of
calling them. Whatever else a file names, such as os.system, is an error that says so. An array must
have as many bytes as its shape says.

An `.npz` is a zip of `.npy` members under our names, conv1.weight ... fc8.bias, in our layout; it
says nothing of a network.
"""

import pickle
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isqrt, prod
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
import torch
from numpy.lib import format as npy_format
from numpy.typing import NDArray
from torch import Tensor

from alexnet.errors import CheckpointError, nearest
from alexnet.files import write_parts
from alexnet.variants import LAYER_NAMES, Variant
from alexnet.weights.formats import pickled
from alexnet.weights.match import PARAMETERS, Foreign, plain_tensors, reading, same_structure

MAGIC = b"\x93NUMPY"

#: The largest layer of the largest variant takes 151 MB.
_MAX_MEMBER = 1 << 30
#: Trained float32 weights hardly compress; zeros compress a thousandfold.
_MAX_RATIO, _FREE = 50, 16 << 20
_FLOATS = ("f2", "f4", "f8")


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """The shape, Fortran order and type in the header of a .npy."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a header from Python 2 is read with one
            version = npy_format.read_magic(file)
            reader = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
            shape, fortran, dtype = reader(file)
    except Exception as error:  # NumPy parses it as Python's text, up to 10,000 bytes of it, which can fail in any way
        raise CheckpointError(f"its header is damaged ({str(error)[:100]})") from error
    if min(shape, default=0) < 0:
        raise CheckpointError(f"its header claims a shape of {shape}")
    return shape, fortran, dtype


# --- the pickle -----------------------------------------------------------------------------------


@dataclass
class _Type:
    """numpy.dtype as a pickle builds it: a code, then its state with the byte order."""

    code: str
    order: str = "<"


@dataclass
class _Array:
    """numpy.ndarray as a pickle builds it: nothing, then its state."""

    value: Any = None


#: What an array is rebuilt with, under NumPy's old and new module names.
_KNOWN = {
    **{f"numpy.{core}.multiarray._reconstruct": "reconstruct" for core in ("core", "_core")},
    "numpy.ndarray": "ndarray",
    "numpy.dtype": "dtype",
    "_codecs.encode": "encode",
}


class _ArrayReader(pickled.Reader):
    """Reads a pickled dictionary of arrays, and nothing else."""

    codes = pickled.DATA
    steps = 100_000  # the published file has some 500
    purpose = "a dictionary of arrays"

    def __init__(self, file: BinaryIO, left: int) -> None:
        super().__init__(file, left, "bytes")
        self.text = (
            left  # bytes that may still be made of text: protocol 2 keeps bytes as text, and could do so again and again
        )

    def find_class(self, module: str, name: str) -> pickled.Named:
        named = super().find_class(module, name)
        if named.text not in _KNOWN:
            self.call(named.text, ())
        return named

    def key(self, key: Any) -> str:
        return _word(key)

    def call(self, name: str, arguments: tuple[Any, ...]) -> Any:
        """Answers a known function; its arguments are checked and otherwise not used."""
        match _KNOWN.get(name), arguments:
            case "reconstruct", (pickled.Named("numpy.ndarray"), (0,), b"b" | "b"):
                return _Array()
            case "dtype", (bytes() | str() as code, bool() | int(), bool() | int()):
                return _Type(_word(code))
            case "encode", (str() as text, "latin1" | b"latin1"):
                self.text -= len(text)
                if self.text < 0:
                    raise CheckpointError("its pickle turns more text into bytes than the file has")
                return text.encode("latin1")
            case None, _:
                return super().call(name, arguments)
        raise TypeError

    def give(self, target: Any, state: Any) -> None:
        match target, state:
            case _Type(), (_, bytes() | str() as order, None, None, None, -1, -1, _):
                target.order = _word(order)
            case _Array(value=None), (_, tuple() as shape, _Type() as kind, bool() | 0 | 1 as fortran, data):
                target.value = _rebuild(shape, kind, bool(fortran), data)
            case _:
                raise TypeError


def _word(value: Any) -> str:
    """A name, which Python 2 pickled as bytes."""
    if isinstance(value, bytes):
        value = value.decode("latin1")
    if not isinstance(value, str) or len(value) > 200:
        raise TypeError
    return value


def _rebuild(shape: tuple[Any, ...], kind: _Type, fortran: bool, data: Any) -> Any:
    """An array over its pickled bytes, or the dictionary itself if it is wrapped in an array of one
    object.
    """
    if kind.code in ("O", "O4", "O8"):
        if shape or not isinstance(data, list) or len(data) != 1:
            raise CheckpointError("its pickle holds an array of objects, but a dictionary of arrays was expected")
        return data[0]
    if kind.code not in _FLOATS or kind.order not in "<>=":
        raise CheckpointError(f"its pickle holds an array of type {kind.order}{kind.code}, but weights are floats")
    dtype = np.dtype(kind.order + kind.code)
    if len(shape) > 8 or not all(isinstance(size, int) and size > 0 for size in shape):
        raise CheckpointError(f"its pickle holds an array of shape {shape[:8]}")
    if not isinstance(data, bytes) or len(data) != prod(shape) * dtype.itemsize:
        size = f"{len(data):,} bytes" if isinstance(data, bytes) else "something else"
        raise CheckpointError(f"its pickle claims an array of {' x '.join(map(str, shape))} numbers but holds {size}")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


# --- bvlc_alexnet.npy -----------------------------------------------------------------------------


def read(path: Path) -> Foreign:
    """`bvlc_alexnet.npy`, or a file like it.

    Returns:
        float32 tensors in our layout; the network is Caffe's, groups and widths as the shapes say.

    Raises:
        CheckpointError: missing, damaged, of other layers, or a pickle that wants to do
            anything but build arrays.
    """
    with reading(path, "a .npy of weights") as file:
        layers = _dictionary(file, path.stat().st_size)
        if set(layers) != set(LAYER_NAMES):
            raise CheckpointError(
                f"it has the layers {', '.join(sorted(layers))[:300] or 'none'}; needed: {', '.join(LAYER_NAMES)}"
            )
        tensors = _ours(layers)
    return Foreign(format="TensorFlow-era .npy", tensors=tensors, variant="caffe")


def beginning(path: Path) -> Foreign:
    """The layers of such a file that an AlexNet has; all but conv1 may be missing.

    Raises:
        CheckpointError: as `read`, or conv1 is missing.
    """
    with reading(path, "a .npy of weights") as file:
        layers = _dictionary(file, path.stat().st_size)
        if "conv1" not in layers:
            raise CheckpointError("it has no layer conv1")
        tensors = _ours({name: layers[name] for name in LAYER_NAMES if name in layers})
    return Foreign(format="TensorFlow-era .npy", tensors=tensors, variant="caffe")


def _dictionary(file: BinaryIO, size: int) -> dict[str, list[NDArray[Any]]]:
    """Layer -> weights and biases, in the file's layout."""
    shape, _, dtype = _header(file)
    if dtype != np.dtype(object) or shape:
        raise CheckpointError(f"it holds one array of {dtype} {shape}, but a dictionary of layers was expected")
    left = size - file.tell()
    value = _ArrayReader(file, left).load()
    content = value.value if isinstance(value, _Array) else value
    if not isinstance(content, dict):
        raise CheckpointError("it does not hold a dictionary of layers")
    layers = {name: _pair(name, entry) for name, entry in content.items()}
    if sum(array.nbytes for pair in layers.values() for array in pair) > size:
        raise CheckpointError("its layers share their numbers, which does not happen in a trained network")
    return layers


def _pair(name: str, entry: Any) -> list[NDArray[Any]]:
    """Weights and biases; later versions of the converter named them."""
    if isinstance(entry, dict):
        entry = [entry.get("weights"), entry.get("biases")]
    arrays = [part.value if isinstance(part, _Array) else part for part in entry] if isinstance(entry, list | tuple) else []
    if len(arrays) != 2 or not all(isinstance(array, np.ndarray) for array in arrays):
        raise CheckpointError(f"layer {name[:60]!r} is not a pair of arrays (weights and biases)")
    return arrays


def _ours(layers: dict[str, list[NDArray[Any]]]) -> dict[str, Tensor]:
    """Under our names and in our layout. What has been turned round is dropped: the peak is one
    layer above the file's size."""
    tensors: dict[str, Tensor] = {}
    maps = layers["conv5"][0].shape[-1] if "conv5" in layers else 0
    for name in [name for name in LAYER_NAMES if name in layers]:
        weight, bias = layers.pop(name)
        rank = 4 if name.startswith("conv") else 2
        if weight.ndim != rank or bias.shape != weight.shape[-1:]:
            raise CheckpointError(
                f"{name} has weights of shape {weight.shape} and biases of {bias.shape}: expected "
                f"{rank} dimensions, the last as long as the biases"
            )
        if name == "fc6":
            weight = _maps(weight, maps)
        shape = (len(bias), -1) if rank == 2 else (len(bias), weight.shape[2], *weight.shape[:2])
        tensors[f"{name}.weight"] = _tensor(weight.transpose(3, 2, 0, 1) if weight.ndim == 4 else weight.T).reshape(shape)
        tensors[f"{name}.bias"] = _tensor(bias)
    return tensors


def _tensor(array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(array.astype(np.float32, order="C"))


def _maps(weight: NDArray[Any], maps: int) -> NDArray[Any]:
    """fc6's weights as if they were a convolution's: (H * W * C, out) to (H, W, C, out)."""
    side = isqrt(len(weight) // maps)
    if side * side * maps != len(weight):
        raise CheckpointError(f"fc6 has {len(weight)} inputs, which do not form square maps of conv5's {maps} channels")
    return weight.reshape(side, side, maps, -1)


def write(path: Path, variant: Variant, tensors: Mapping[str, Tensor]) -> None:
    """Write a file like `bvlc_alexnet.npy`, atomically: `np.load(path, allow_pickle=True).item()`
    reads it with any `encoding` that a program names, and with every version of NumPy. The layers'
    names are `str` in each.

    Raises:
        CheckpointError: a network that is not built as Caffe's, tensors of another network, or a
            file that cannot be written.
    """
    same_structure(variant, "caffe", ("kernels", "units", "width", "towers", *_unseen(variant)), "A .npy for TensorFlow")
    if variant.channel_order != "BGR":
        raise CheckpointError("A .npy for TensorFlow is read as Caffe's network: channel_order must be 'BGR', not 'RGB'.")
    write_parts({path: _parts(plain_tensors(variant, tensors))})


def _unseen(variant: Variant) -> tuple[str, ...]:
    return ("lrn_window",) if variant.towers == 1 else ()


def _parts(tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    """The file, piece by piece. Protocol 3 is the first to distinguish bytes from text: in protocol
    2 the names were bytes for programs that load with `encoding="bytes"`, and those that
    name no encoding failed."""
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }"
    header = header.ljust(-(-(len(MAGIC) + 5 + len(header)) // 64) * 64 - len(MAGIC) - 5) + b"\n"
    yield MAGIC + b"\x01\x00" + struct.pack("<H", len(header)) + header
    yield pickle.PROTO + b"\x03" + _EMPTY_ARRAY + pickle.MARK
    yield _number(1) + pickle.EMPTY_TUPLE + _dtype("O8", "|", 63) + pickle.NEWFALSE + pickle.EMPTY_LIST
    yield pickle.EMPTY_DICT + pickle.MARK
    for name in LAYER_NAMES:
        yield _short(name) + pickle.EMPTY_LIST + pickle.MARK
        yield from _array_parts(_theirs(name, tensors))
        yield from _array_parts(tensors[f"{name}.bias"].numpy())
        yield pickle.APPENDS
    yield pickle.SETITEMS + pickle.APPEND + pickle.TUPLE + pickle.BUILD + pickle.STOP


def _theirs(name: str, tensors: Mapping[str, Tensor]) -> NDArray[np.float32]:
    """A layer's weights in the file's layout."""
    weight = tensors[f"{name}.weight"]
    if name == "fc6":
        maps = len(tensors["conv5.weight"])
        side = isqrt(weight.shape[1] // maps)
        weight = weight.reshape(-1, maps, side, side).permute(2, 3, 1, 0).reshape(-1, len(weight))
    elif weight.dim() == 4:
        weight = weight.permute(2, 3, 1, 0)
    else:
        weight = weight.T
    return weight.contiguous().numpy()


_EMPTY_ARRAY = (
    pickle.GLOBAL
    + b"numpy.core.multiarray\n_reconstruct\n"
    + pickle.GLOBAL
    + b"numpy\nndarray\n"
    + pickle.BININT1
    + b"\0"
    + pickle.TUPLE1
    + pickle.SHORT_BINBYTES
    + b"\1b"
    + pickle.TUPLE3
    + pickle.REDUCE
)


def _array_parts(array: NDArray[np.float32]) -> Iterator[bytes | memoryview]:
    if array.nbytes > 0xFFFFFFFF:
        raise CheckpointError(f"an array of {array.nbytes:,} bytes is too large for this format: its arrays end at 4 GiB.")
    yield _EMPTY_ARRAY + pickle.MARK + _number(1) + pickle.MARK + b"".join(map(_number, array.shape)) + pickle.TUPLE
    yield _dtype("f4", "<", 0) + pickle.NEWFALSE + pickle.BINBYTES + struct.pack("<I", array.nbytes)
    yield array.astype("<f4", copy=False).reshape(-1).data
    yield pickle.TUPLE + pickle.BUILD


def _dtype(code: str, order: str, flags: int) -> bytes:
    made = pickle.GLOBAL + b"numpy\ndtype\n" + _short(code) + pickle.NEWFALSE + pickle.NEWTRUE + pickle.TUPLE3 + pickle.REDUCE
    state = _number(3) + _short(order) + pickle.NONE * 3 + _number(-1) * 2 + _number(flags)
    return made + pickle.MARK + state + pickle.TUPLE + pickle.BUILD


def _number(value: int) -> bytes:
    return pickle.BININT + struct.pack("<i", value)


def _short(text: str) -> bytes:
    return pickle.BINUNICODE + struct.pack("<I", len(text)) + text.encode("ascii")


# --- .npz -----------------------------------------------------------------------------------------


def read_npz(path: Path) -> Foreign:
    """An `.npz` of arrays under our names, all of them or some.

    Raises:
        CheckpointError: missing, damaged, other names, or members that claim far
            more than the file can hold.
    """
    with reading(path, "a .npz of weights") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                members = _members(archive, path.stat().st_size)
                tensors = {name: _member(archive, members[name]) for name in PARAMETERS if name in members}
        # zipfile's own errors; of a damaged member's decompression; of an encrypted one; of
        # a method that it lacks
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, struct.error, UnicodeError, ValueError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(f"it is damaged or not a zip archive ({str(error)[:100]})") from error
    return Foreign(format="NumPy .npz", tensors=tensors)


def _members(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """Parameter -> member, if the file is large enough for all of them."""
    members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    for name in members:
        if name not in PARAMETERS:
            raise CheckpointError(
                f"it holds {name[:60]!r}, which is not a parameter of an AlexNet: {nearest(name[:60], PARAMETERS)}"
            )
    if not members:
        raise CheckpointError("it is empty")
    if any(info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for info in members.values()):
        raise CheckpointError("it is compressed in a way that NumPy never uses")
    claimed = sum(info.file_size for info in members.values())
    if max(info.file_size for info in members.values()) > _MAX_MEMBER or claimed > max(_FREE, _MAX_RATIO * size):
        raise CheckpointError(f"it claims {claimed:,} bytes of weights in a file of {size:,}: trained weights hardly compress")
    return members


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Tensor:
    with archive.open(info) as file:
        shape, fortran, dtype = _header(file)
        if dtype.kind != "f" or dtype.itemsize > 8:
            raise CheckpointError(f"{info.filename} is of type {dtype}, but weights are floats")
        length = prod(shape) * dtype.itemsize
        if not length or file.tell() + length != info.file_size:
            raise CheckpointError(f"{info.filename} claims {' x '.join(map(str, shape))} numbers in {info.file_size:,} bytes")
        data = file.read(length)
    if len(data) != length:
        raise CheckpointError(f"{info.filename} is cut short")
    return _tensor(np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C"))
