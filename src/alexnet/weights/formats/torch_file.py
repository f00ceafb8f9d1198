"""Read the files that `torch.save` writes, without PyTorch's unpickler.

Since 2020 such a file is a zip of a pickle, `data.pkl`, and one record of raw numbers for each
storage, uncompressed. Before, it was five pickles one after the other (a magic number, a version,
the machine's sizes, the object, the storages' keys) and then the numbers. A tensor in the pickle is
a call, `_rebuild_tensor_v2(storage, offset, size, stride, ...)`, and here it becomes a `Stored`:
what it claims, checked against the bytes that back it, to be read when it is needed.

PyTorch's own safe mode refuses a file for any object beside the tensors, such as the
`argparse.Namespace` in which training scripts keep their arguments, and pickles of protocol 4.
`pickled.py` keeps such objects' state and executes nothing, so what matters is read. A call of an
unknown function is refused.
"""

import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from alexnet.errors import CheckpointError
from alexnet.weights.formats import pickled
from alexnet.weights.formats.pickled import Named, Opaque

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001
MAX_DIMENSIONS = 8
STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
}
#: Types that have no storage class of their own are named in the call.
DTYPES = {str(dtype): dtype for dtype in (*STORAGES.values(), torch.float8_e4m3fn, torch.float8_e5m2)}
#: Calls whose result is not looked into: plain values in Python's and NumPy's clothes.
VALUES = frozenset({
    "argparse.Namespace", "copy_reg._reconstructor", "copyreg._reconstructor", "collections.Counter", "collections.deque",
    "collections.defaultdict", "datetime.date", "datetime.datetime", "datetime.timedelta", "torch.device", "torch.Size",
    "torch.serialization._get_layout", "_codecs.encode", "numpy.dtype",
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *(f"{module}.{system}Path" for module in ("pathlib", "pathlib._local")
      for system in ("", "Pure", "Posix", "PurePosix", "Windows", "PureWindows")),
    *(f"{module}.{name}" for module in ("builtins", "__builtin__")
      for name in ("set", "frozenset", "slice", "range", "complex", "bytearray", "object")),
})  # fmt: skip
#: Tensors that are not plain numbers, by the function that builds them.
ODD = {
    "_rebuild_sparse_tensor": "that is sparse",
    "_rebuild_qtensor": "that is quantised",
    "_rebuild_meta_tensor_no_storage": "without numbers (meta)",
    "_rebuild_nested_tensor": "that is nested",
    "_rebuild_wrapper_subclass": "of another class",
    "_rebuild_from_type_v2": "of another class",
    "_rebuild_device_tensor_from_numpy": "of another device",
    "_rebuild_xla_tensor": "of another device",
}


@dataclass(frozen=True)
class StorageRef:
    """Numbers in the file: `key` says which, `count` how many."""

    key: str
    dtype: torch.dtype
    count: int


@dataclass(frozen=True)
class Stored:
    """A tensor that the pickle describes: a view of a storage, in numbers of `dtype`."""

    storage: StorageRef
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Size of all its numbers."""
        return prod(self.shape) * self.dtype.itemsize

    @property
    def span(self) -> int:
        """Numbers of the storage from the first to the last that it shows."""
        steps = zip(self.shape, self.stride, strict=True)
        return 1 + sum((size - 1) * step for size, step in steps) if prod(self.shape) else 0


@dataclass(frozen=True)
class Odd:
    """A tensor of another kind, in words."""

    kind: str


class TorchFile:
    """An open file.

    Attributes:
        content: what was saved: dictionaries, lists and plain values, with a `Stored` for each
            tensor and an `Opaque` for each object of another class.
        size: bytes of the file.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.size = file, size
        self.big_endian = False
        self.records: dict[str, tuple[int, int]] = {}  # key -> where its bytes begin, how many there are
        self.content = self._zip() if file.read(2) == b"PK" else self._pickles()

    def tensor(self, stored: Stored) -> Tensor:
        """The numbers, in memory of their own.

        Raises:
            CheckpointError: the file does not hold them.
        """
        size = stored.dtype.itemsize
        begin, there = self.records.get(stored.storage.key, (0, 0))
        length = stored.span * size
        if stored.offset * size + length > there:
            raise CheckpointError(f"a tensor of shape {stored.shape} claims more numbers than the file holds")
        flat = torch.empty(length, dtype=torch.uint8)
        self.file.seek(begin + stored.offset * size)
        if self.file.readinto(flat.numpy().data) != length:  # type: ignore[attr-defined]
            raise CheckpointError("it shrank while it was being read: try again once it is complete")
        if self.big_endian and size > 1:
            flat.untyped_storage().byteswap(stored.dtype)
        return flat.view(stored.dtype).as_strided(stored.shape, stored.stride)

    def _zip(self) -> Any:
        with zipfile.ZipFile(self.file) as archive:
            members = {member.filename: member for member in archive.infolist()}
            unpacked = sum(member.file_size for member in members.values())
            if unpacked > self.size:
                raise CheckpointError(
                    f"it is compressed ({self.size:,} bytes unpack to {unpacked:,}), but PyTorch's "
                    "files never are: write it again with torch.save"
                )
            folder = _folder(members)
            if any(name == f"{folder}constants.pkl" or name.startswith(f"{folder}code/") for name in members):
                raise CheckpointError(
                    "it is TorchScript, a program with its weights, and alexnet runs no programs "
                    "from files. If you trust it, run "
                    "torch.save(torch.jit.load(FILE).state_dict(), 'weights.pth') and import that"
                )
            if f"{folder}data.pkl" not in members:
                raise CheckpointError("it is a zip archive without data.pkl: torch.save did not write it")
            order = members.get(f"{folder}byteorder")
            self.big_endian = order is not None and archive.read(order.filename)[:3] == b"big"
            for name, member in members.items():
                if name.startswith(f"{folder}data/"):
                    self.records[name.removeprefix(f"{folder}data/")] = (self._start(member), member.file_size)
            data = members[f"{folder}data.pkl"]
            self.file.seek(self._start(data))
            return _TensorReader(self.file, data.file_size).load()

    def _start(self, member: zipfile.ZipInfo) -> int:
        """Where a member's bytes begin; they are not compressed.

        PyTorch can be asked to leave out checksums, and never compares them; neither do we.
        """
        if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
            raise CheckpointError("it is compressed, but PyTorch's files never are: write it again with torch.save")
        self.file.seek(member.header_offset)
        head = self.file.read(30)
        if len(head) < 30 or not head.startswith(b"PK\x03\x04"):
            raise CheckpointError("its zip archive is damaged")
        name, extra = struct.unpack("<HH", head[26:])
        start = int(member.header_offset + 30 + name + extra)
        if start + member.file_size > self.size:
            raise CheckpointError("it is cut short")
        return start

    def _pickles(self) -> Any:
        """The layout before 2020."""
        self.file.seek(0)
        if self._pickle() != MAGIC:
            raise CheckpointError("it is a pickle, but not one that torch.save wrote (wrong magic number)")
        if self._pickle() != VERSION:
            raise CheckpointError("it has an unknown version of PyTorch's format")
        machine = self._pickle()
        self.big_endian = isinstance(machine, dict) and machine.get("little_endian") is False
        reader = _TensorReader(self.file, self.size - self.file.tell())
        content = reader.load()
        keys = self._pickle()
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise CheckpointError("its list of storages is damaged")
        for key in keys:
            count = self._count()
            start, length = self.file.tell(), count * reader.item_sizes.get(key, 1)
            if not 0 <= length <= self.size - start:
                raise CheckpointError(f"it is cut short: {length:,} more bytes expected, {self.size - start:,} found")
            self.records[key] = (start, length)
            self.file.seek(length, 1)
        return content

    def _pickle(self) -> Any:
        return _TensorReader(self.file, self.size - self.file.tell()).load()

    def _count(self) -> int:
        data = self.file.read(8)
        if len(data) < 8:
            raise CheckpointError("it is cut short")
        return int.from_bytes(data, "big" if self.big_endian else "little", signed=True)


def _folder(members: dict[str, zipfile.ZipInfo]) -> str:
    """The folder in the archive in which everything is; it is named after the file."""
    pickles = [name.removesuffix("data.pkl") for name in members if name.endswith("data.pkl") and name.count("/") <= 1]
    return pickles[0] if len(pickles) == 1 else next(iter(members), "").partition("/")[0] + "/"


class _TensorReader(pickled.Reader):
    """Reads what was saved, with tensors as `Stored`.

    Attributes:
        item_sizes: bytes of a number, by the key of the storage.
    """

    codes = pickled.OBJECTS
    steps = 200_000
    purpose = "a file of weights"

    def __init__(self, file: BinaryIO, left: int) -> None:
        super().__init__(file, left, "latin1")
        self.item_sizes: dict[str, int] = {}

    def persistent_load(self, reference: Any) -> StorageRef | Named:
        """("storage", its class, key, device, count), before 2020 with a view of another
        storage as a sixth; and, before 2020, ("module", its class, and the class's source
        code), which is not looked at."""
        match reference:
            case ("module", Named() as module, *_):
                return module
            case ("storage", Named(text=name), str() | int() as key, _, int() as count, *rest) if rest in ([], [None]):
                kind = name.rpartition(".")[2]
                if not name.startswith("torch.") or kind not in STORAGES:
                    raise CheckpointError(f"it holds numbers of type {name}, but weights are floats")
                dtype = STORAGES[kind]
                self.item_sizes[str(key)] = dtype.itemsize
                return StorageRef(str(key), dtype, count)
        raise CheckpointError("its pickle refers to a part of the file in a way that torch.save does not")

    def call(self, name: str, arguments: tuple[Any, ...]) -> Any:
        function = name.rpartition(".")[2]
        if name.startswith(("torch._utils.", "torch._tensor.")) and function in ODD:
            return Odd(ODD[function])
        match name, arguments:
            case "collections.OrderedDict", ():
                return {}
            case "collections.OrderedDict", (list() as pairs,):  # as Python 2 wrote it
                return {self.key(key): value for key, value in pairs}
            case "torch._utils._rebuild_tensor" | "torch._utils._rebuild_tensor_v2", (
                StorageRef() as storage,
                offset,
                shape,
                stride,
                *_,
            ):
                return _stored(storage, storage.dtype, offset, shape, stride)
            case "torch._utils._rebuild_tensor_v3", (StorageRef() as numbers, at, shape, stride, _, _, Named(text=kind), *_):
                return _stored(numbers, DTYPES[kind], at, shape, stride)
            case "torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state", (data, *_):
                return data
        if name.startswith("torch._utils._rebuild_") or name == "collections.OrderedDict":
            raise TypeError
        if name in VALUES:
            return Opaque(name, arguments)
        raise CheckpointError(
            f"it wants to execute {name}. Save only the state_dict, torch.save(model.state_dict(), FILE), and import that"
        )

    def give(self, target: Any, state: Any) -> None:
        if not isinstance(target, dict):  # an OrderedDict's attributes, PyTorch's `_metadata`
            super().give(target, state)


def _stored(storage: StorageRef, dtype: torch.dtype, offset: Any, shape: Any, stride: Any) -> Stored:
    shape, stride = (size.state[0] if isinstance(size, Opaque) else size for size in (shape, stride))  # of torch.Size
    whole = (offset, *shape, *stride)
    if len(shape) != len(stride) or len(shape) > MAX_DIMENSIONS or not all(type(n) is int and 0 <= n < 2**62 for n in whole):
        raise TypeError
    return Stored(storage, dtype, offset, tuple(shape), tuple(stride))


@contextmanager
def opened(path: Path) -> Iterator[TorchFile]:
    """Open the file at `path`; anything wrong with it raises one error that begins with the path.

    Raises:
        CheckpointError: missing, damaged, TorchScript, or wants to execute something.
    """
    try:
        with open(path, "rb") as file:
            yield TorchFile(file, path.stat().st_size)
    except CheckpointError as error:
        if str(error).startswith(str(path)):
            raise
        raise CheckpointError(f"{path} is refused: {error}.") from error
    except (OSError, EOFError, RuntimeError, ValueError, NotImplementedError, struct.error, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path} is damaged: {str(error)[:200] or type(error).__name__}.") from error
