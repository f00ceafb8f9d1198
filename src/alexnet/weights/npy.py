"""NumPy's files: `bvlc_alexnet.npy` of TensorFlow's early days, and plain `.npz` archives.

`bvlc_alexnet.npy` is Caffe's AlexNet as Michael Guerzhoy published it in 2016, converted with ethereon's caffe-tensorflow: an
array of one object, a dictionary {"conv1": [weights, biases], ...}, pickled by Python 2. Convolutions lie as (height, width,
in / groups, out) and fully connected layers as (in, out). TensorFlow's maps have their channels last, so the converter
(`DataReshaper`) also put the rows of fc6 into H, W, C order; we read and write them so. There is no graph in it: the network is
Caffe's, its input BGR.

A pickle is a program for a small stack machine, and loading one may run anything. Here none is loaded: `_Reader` knows the
thirty-odd instructions that a pickled dictionary of arrays consists of and, of the functions that a pickle may name, the four
that rebuild an array, which it does not call either but answers itself. Whatever else a file names, such as os.system, is an
error that says so. Every instruction takes at least a byte of the file, there may be 100,000 (the published file has some 500),
strings are read if the file has as many bytes, and an array must have as many bytes as its shape says.

An `.npz` is a zip of `.npy` members under our names, conv1.weight ... fc8.bias, in our layout; it says nothing of a network.
"""

import pickle
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
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
from alexnet.weights.foreign import Foreign, plain_tensors, reading, same_structure

MAGIC = b"\x93NUMPY"
PARAMETERS = tuple(f"{layer}.{kind}" for layer in LAYER_NAMES for kind in ("weight", "bias"))

_MAX_INSTRUCTIONS = 100_000
#: The largest layer of the largest variant takes 151 MB.
_MAX_MEMBER = 1 << 30
#: Trained float32 weights hardly compress; zeros compress a thousandfold.
_MAX_RATIO, _FREE = 50, 16 << 20
_FLOATS = ("f2", "f4", "f8")


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in Fortran's order, and type: what a .npy claims to hold."""
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


# ---------------------------------------------------------------- the pickle


@dataclass(frozen=True)
class _Name:
    """A function or class that a pickle names; nothing is imported."""

    text: str


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
}  # fmt: skip


@dataclass
class _Reader:
    """The stack machine that reads a pickled dictionary of arrays, and nothing else.

    Attributes:
        left: bytes of the file that have not been read.
        text: bytes that may still be made of text; a pickle of protocol 2 keeps bytes as text, and could do so again and again.
    """

    file: BinaryIO
    left: int
    text: int
    stack: list[Any] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def run(self) -> Any:
        """The object that the pickle stands for.

        Raises:
            CheckpointError: an instruction, a name or a length that no dictionary of arrays needs.
        """
        for _ in range(_MAX_INSTRUCTIONS):
            code = self.take(1)
            if code == pickle.STOP:
                return self.pop()
            if code not in _INSTRUCTIONS:
                raise CheckpointError(f"its pickle has the instruction {code!r}, which no dictionary of arrays needs")
            try:
                _INSTRUCTIONS[code](self)
            except (IndexError, KeyError, TypeError, ValueError, OverflowError, struct.error) as error:
                if isinstance(error, CheckpointError):
                    raise
                raise CheckpointError(f"its pickle is damaged at instruction {code!r}") from error
        raise CheckpointError(f"its pickle has more than {_MAX_INSTRUCTIONS:,} instructions, where an AlexNet takes hundreds")

    def take(self, length: int) -> bytes:
        if not 0 <= length <= self.left:
            raise CheckpointError(f"it is cut short: {length:,} bytes should follow, and there are {self.left:,}")
        self.left -= length
        data = self.file.read(length)
        if len(data) != length:
            raise CheckpointError("it became shorter while it was read")
        return data

    def unpack(self, form: str) -> int:
        return int(struct.unpack(form, self.take(struct.calcsize(form)))[0])

    def protocol(self) -> None:
        version = self.unpack("<B")
        if version > 4:
            raise CheckpointError(f"its pickle is of protocol {version}; np.save writes 2 to 4")

    def line(self) -> str:
        line = self.file.readline(200)
        self.left -= len(line)
        if not line.endswith(b"\n"):
            raise CheckpointError("its pickle names something without an end")
        return line[:-1].decode("ascii", "replace")

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        """The top of the stack, above the last mark."""
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise CheckpointError("its pickle takes more from its stack than it put there")
        return self.stack.pop()

    def pop_mark(self) -> list[Any]:
        start = self.marks.pop()
        items, self.stack[start:] = self.stack[start:], []
        return items

    def pop_tuple(self, length: int) -> None:
        self.push(tuple(reversed([self.pop() for _ in range(length)])))

    def name(self, module: Any, name: Any) -> None:
        text = f"{module}.{name}"
        if text not in _KNOWN:
            raise CheckpointError(
                f"its pickle wants to execute {text[:100]}, which no dictionary of arrays needs: it is refused"
            )
        self.push(_Name(_KNOWN[text]))

    def global_two(self) -> None:
        name, module = self.pop(), self.pop()
        self.name(_word(module), _word(name))

    def memoize(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def append(self, items: Iterable[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise TypeError
        target.extend(items)

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise TypeError
        target.update((_word(key), value) for key, value in zip(items[::2], items[1::2], strict=True))

    def reduce(self) -> None:
        """Answer the call of a known function; its arguments are checked and otherwise not used."""
        arguments, function = self.pop(), self.pop()
        match function, arguments:
            case _Name("reconstruct"), (_Name("ndarray"), (0,), b"b" | "b"):
                self.push(_Array())
            case _Name("dtype"), (bytes() | str() as code, bool() | int(), bool() | int()):
                self.push(_Type(_word(code)))
            case _Name("encode"), (str() as text, "latin1" | b"latin1"):
                self.text -= len(text)
                if self.text < 0:
                    raise CheckpointError("its pickle makes more text into bytes than it has")
                self.push(text.encode("latin1"))
            case _:
                raise TypeError

    def build(self) -> None:
        """Give the array or the type on the stack its state."""
        state, target = self.pop(), self.stack[-1]
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
    """An array over the bytes it was pickled with; the dictionary itself, if it is the array of one object around it."""
    if kind.code in ("O", "O4", "O8"):
        if shape or not isinstance(data, list) or len(data) != 1:
            raise CheckpointError("its pickle holds an array of objects, where a dictionary of arrays was expected")
        return data[0]
    if kind.code not in _FLOATS or kind.order not in "<>=":
        raise CheckpointError(f"its pickle holds an array of type {kind.order}{kind.code}, where weights are floats")
    dtype = np.dtype(kind.order + kind.code)
    if len(shape) > 8 or not all(isinstance(size, int) and size > 0 for size in shape):
        raise CheckpointError(f"its pickle holds an array of shape {shape[:8]}")
    if not isinstance(data, bytes) or len(data) != prod(shape) * dtype.itemsize:
        size = f"{len(data):,} bytes" if isinstance(data, bytes) else "something else"
        raise CheckpointError(f"its pickle claims an array of {' x '.join(map(str, shape))} numbers and holds {size}")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


def _string(form: str, text: bool = False) -> Callable[[_Reader], object]:
    def instruction(reader: _Reader) -> None:
        data = reader.take(reader.unpack(form))
        reader.push(data.decode("utf-8") if text else data)

    return instruction


def _constant(make: Callable[[], Any]) -> Callable[[_Reader], object]:
    return lambda reader: reader.push(make())


_INSTRUCTIONS: dict[bytes, Callable[[_Reader], object]] = {
    pickle.PROTO: _Reader.protocol,
    pickle.FRAME: lambda reader: reader.take(8),  # how long a stretch to read at once: of no use here
    pickle.MARK: lambda reader: reader.marks.append(len(reader.stack)),
    pickle.GLOBAL: lambda reader: reader.name(reader.line(), reader.line()),
    pickle.STACK_GLOBAL: _Reader.global_two,
    pickle.REDUCE: _Reader.reduce,
    pickle.BUILD: _Reader.build,
    pickle.BINPUT: lambda reader: reader.memoize(reader.unpack("<B")),
    pickle.LONG_BINPUT: lambda reader: reader.memoize(reader.unpack("<I")),
    pickle.MEMOIZE: lambda reader: reader.memoize(len(reader.memo)),
    pickle.BINGET: lambda reader: reader.push(reader.memo[reader.unpack("<B")]),
    pickle.LONG_BINGET: lambda reader: reader.push(reader.memo[reader.unpack("<I")]),
    pickle.EMPTY_DICT: _constant(dict),
    pickle.EMPTY_LIST: _constant(list),
    pickle.EMPTY_TUPLE: _constant(tuple),
    pickle.NONE: _constant(lambda: None),
    pickle.NEWTRUE: _constant(lambda: True),
    pickle.NEWFALSE: _constant(lambda: False),
    pickle.TUPLE: lambda reader: reader.push(tuple(reader.pop_mark())),
    pickle.TUPLE1: lambda reader: reader.pop_tuple(1),
    pickle.TUPLE2: lambda reader: reader.pop_tuple(2),
    pickle.TUPLE3: lambda reader: reader.pop_tuple(3),
    pickle.APPEND: lambda reader: reader.append([reader.pop()]),
    pickle.APPENDS: lambda reader: reader.append(reader.pop_mark()),
    pickle.SETITEM: lambda reader: reader.set_items([reader.pop(), reader.pop()][::-1]),
    pickle.SETITEMS: lambda reader: reader.set_items(reader.pop_mark()),
    pickle.BININT: lambda reader: reader.push(reader.unpack("<i")),
    pickle.BININT1: lambda reader: reader.push(reader.unpack("<B")),
    pickle.BININT2: lambda reader: reader.push(reader.unpack("<H")),
    pickle.LONG1: lambda reader: reader.push(int.from_bytes(reader.take(reader.unpack("<B")), "little", signed=True)),
    pickle.SHORT_BINSTRING: _string("<B"),
    pickle.BINSTRING: _string("<i"),
    pickle.SHORT_BINBYTES: _string("<B"),
    pickle.BINBYTES: _string("<I"),
    pickle.BINBYTES8: _string("<Q"),
    pickle.SHORT_BINUNICODE: _string("<B", text=True),
    pickle.BINUNICODE: _string("<I", text=True),
    pickle.BINUNICODE8: _string("<Q", text=True),
}


# ---------------------------------------------------------------- bvlc_alexnet.npy


def read(path: Path) -> Foreign:
    """`bvlc_alexnet.npy`, or a file like it.

    Returns:
        float32 tensors in our layout; the network is Caffe's, groups and widths as the shapes say.

    Raises:
        CheckpointError: missing, damaged, of other layers, or a pickle that wants to do anything but build arrays.
    """
    with reading(path, "a .npy of weights") as file:
        layers = _dictionary(file, path.stat().st_size)
        tensors = _ours(layers)
    return Foreign(format="TensorFlow-era .npy", tensors=tensors, variant="caffe")


def _dictionary(file: BinaryIO, size: int) -> dict[str, list[NDArray[Any]]]:
    """Layer -> weights and biases, as they lie in the file."""
    shape, _, dtype = _header(file)
    if dtype != np.dtype(object) or shape:
        raise CheckpointError(f"it holds one array of {dtype} {shape}, where a dictionary of layers was expected")
    left = size - file.tell()
    value = _Reader(file, left, text=left).run()
    content = value.value if isinstance(value, _Array) else value
    if not isinstance(content, dict):
        raise CheckpointError("it holds no dictionary of layers")
    layers = {name: _pair(name, entry) for name, entry in content.items()}
    if set(layers) != set(LAYER_NAMES):
        raise CheckpointError(
            f"it has the layers {', '.join(sorted(layers))[:300] or 'none'}; needed: {', '.join(LAYER_NAMES)}"
        )
    if sum(array.nbytes for pair in layers.values() for array in pair) > size:
        raise CheckpointError("its layers share their numbers, which no trained network's do")
    return layers


def _pair(name: str, entry: Any) -> list[NDArray[Any]]:
    """Weights and biases; later versions of the converter named them."""
    if isinstance(entry, dict):
        entry = [entry.get("weights"), entry.get("biases")]
    arrays = [part.value if isinstance(part, _Array) else part for part in entry] if isinstance(entry, list | tuple) else []
    if len(arrays) != 2 or not all(isinstance(array, np.ndarray) for array in arrays):
        raise CheckpointError(f"layer {name[:60]!r} is no pair of arrays, weights and biases")
    return arrays


def _ours(layers: dict[str, list[NDArray[Any]]]) -> dict[str, Tensor]:
    """Under our names and in our layout. What has been turned round is dropped: the peak is one layer above the file's size."""
    tensors: dict[str, Tensor] = {}
    maps = layers["conv5"][0].shape[-1]
    for name in LAYER_NAMES:
        weight, bias = layers.pop(name)
        rank = 4 if name.startswith("conv") else 2
        if weight.ndim != rank or bias.shape != weight.shape[-1:]:
            raise CheckpointError(
                f"{name} has weights of shape {weight.shape} and biases of {bias.shape}: it needs {rank} dimensions, the last "
                "of them as long as the biases"
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
        raise CheckpointError(f"fc6 has {len(weight)} inputs, which are no square maps of conv5's {maps} channels")
    return weight.reshape(side, side, maps, -1)


def write(path: Path, variant: Variant, tensors: Mapping[str, Tensor]) -> None:
    """Write a file like `bvlc_alexnet.npy`, atomically: `np.load(path, allow_pickle=True, encoding="latin1").item()` reads it,
    in Python 2 and 3 and with every version of NumPy.

    Raises:
        CheckpointError: a network that is not built as Caffe's, tensors of another network, or a file that cannot be written.
    """
    same_structure(variant, "caffe", ("kernels", "units", "width", "towers", *_unseen(variant)), "A .npy for TensorFlow")
    if variant.channel_order != "BGR":
        raise CheckpointError("A .npy for TensorFlow is read as Caffe's network: channel_order must be 'BGR', not 'RGB'.")
    write_parts({path: _parts(plain_tensors(variant, tensors))})


def _unseen(variant: Variant) -> tuple[str, ...]:
    return ("lrn_window",) if variant.towers == 1 else ()


def _parts(tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    """The file, piece by piece: protocol 2 with Python 2's strings, so that the programs of 2016 read it."""
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }"
    header = header.ljust(-(-(len(MAGIC) + 5 + len(header)) // 64) * 64 - len(MAGIC) - 5) + b"\n"
    yield MAGIC + b"\x01\x00" + struct.pack("<H", len(header)) + header
    yield pickle.PROTO + b"\x02" + _EMPTY_ARRAY + pickle.MARK
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
    pickle.GLOBAL + b"numpy.core.multiarray\n_reconstruct\n" + pickle.GLOBAL + b"numpy\nndarray\n"
    + pickle.BININT1 + b"\0" + pickle.TUPLE1 + pickle.SHORT_BINSTRING + b"\1b" + pickle.TUPLE3 + pickle.REDUCE
)  # fmt: skip


def _array_parts(array: NDArray[np.float32]) -> Iterator[bytes | memoryview]:
    if array.nbytes > 0x7FFFFFFF:
        raise CheckpointError(f"an array of {array.nbytes:,} bytes is too large for this format: its strings end at 2 GiB.")
    yield _EMPTY_ARRAY + pickle.MARK + _number(1) + pickle.MARK + b"".join(map(_number, array.shape)) + pickle.TUPLE
    yield _dtype("f4", "<", 0) + pickle.NEWFALSE + pickle.BINSTRING + struct.pack("<i", array.nbytes)
    yield array.astype("<f4", copy=False).reshape(-1).data
    yield pickle.TUPLE + pickle.BUILD


def _dtype(code: str, order: str, flags: int) -> bytes:
    made = pickle.GLOBAL + b"numpy\ndtype\n" + _short(code) + pickle.NEWFALSE + pickle.NEWTRUE + pickle.TUPLE3 + pickle.REDUCE
    state = _number(3) + _short(order) + pickle.NONE * 3 + _number(-1) * 2 + _number(flags)
    return made + pickle.MARK + state + pickle.TUPLE + pickle.BUILD


def _number(value: int) -> bytes:
    return pickle.BININT + struct.pack("<i", value)


def _short(text: str) -> bytes:
    return pickle.SHORT_BINSTRING + bytes([len(text)]) + text.encode("ascii")


# ---------------------------------------------------------------- .npz


def read_npz(path: Path) -> Foreign:
    """An `.npz` of arrays under our names, all of them or some.

    Raises:
        CheckpointError: missing, damaged, other names, or members that claim far more than the file can hold.
    """
    with reading(path, "a .npz of weights") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                members = _members(archive, path.stat().st_size)
                tensors = {name: _member(archive, members[name]) for name in PARAMETERS if name in members}
        # zipfile's own errors; of a damaged member's decompression; of an encrypted one; of a method that it lacks
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, struct.error, UnicodeError, ValueError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(f"it is damaged or no zip archive ({str(error)[:100]})") from error
    return Foreign(format="NumPy .npz", tensors=tensors)


def _members(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """Parameter -> member, if together they can be what the file holds."""
    members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    for name in members:
        if name not in PARAMETERS:
            raise CheckpointError(
                f"it holds {name[:60]!r}, which is no parameter of an AlexNet: {nearest(name[:60], PARAMETERS)}"
            )
    if not members:
        raise CheckpointError("it holds nothing")
    if any(info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for info in members.values()):
        raise CheckpointError("it is compressed in a way that NumPy never uses")
    claimed = sum(info.file_size for info in members.values())
    if max(info.file_size for info in members.values()) > _MAX_MEMBER or claimed > max(_FREE, _MAX_RATIO * size):
        raise CheckpointError(f"it claims {claimed:,} bytes of weights in {size:,}: trained weights hardly compress")
    return members


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Tensor:
    with archive.open(info) as file:
        shape, fortran, dtype = _header(file)
        if dtype.kind != "f" or dtype.itemsize > 8:
            raise CheckpointError(f"{info.filename} is of type {dtype}, where weights are floats")
        length = prod(shape) * dtype.itemsize
        if not length or file.tell() + length != info.file_size:
            raise CheckpointError(f"{info.filename} claims {' x '.join(map(str, shape))} numbers in {info.file_size:,} bytes")
        data = file.read(length)
    if len(data) != length:
        raise CheckpointError(f"{info.filename} is cut short")
    return _tensor(np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C"))
