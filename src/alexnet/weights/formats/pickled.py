"""Read pickles without executing anything.

A pickle is a program for a small stack machine, and loading one may run anything. The machine here
is Python's own, written in Python, with its dangerous instructions replaced: a name that a pickle
mentions becomes a `Named`, never an import; a call is answered by `call`, which each format writes
for the few functions that it knows, and is an error for all others; an object of any class becomes
an `Opaque` that keeps its state.

What a file claims costs nothing: a string is read if the file has as many bytes, instructions are
counted, and a key that is hashed is a plain value.
"""

import pickle
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Literal

from alexnet.errors import CheckpointError

LONGEST_NAME = 200
_MACHINE: Any = pickle._Unpickler  # the one in Python; its parts have no types
_DAMAGE = (
    AttributeError,
    EOFError,
    IndexError,
    KeyError,
    OverflowError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    struct.error,
)


@dataclass(frozen=True)
class Named:
    """A function or class that a pickle names; nothing is imported."""

    text: str


@dataclass
class Opaque:
    """An object of a class that is not looked into: its name and its state, as far
    as the pickle gives them."""

    name: str
    state: Any = None
    items: list[Any] = field(default_factory=list)

    def append(self, item: Any) -> None:
        """As a list's: pickles fill objects by it."""
        self.items.append(item)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items.append((key, value))


class _Budget:
    """A file of which at most `left` bytes are read, and never more than it has."""

    def __init__(self, file: BinaryIO, left: int) -> None:
        self.file, self.left = file, left

    def read(self, length: int) -> bytes:
        if not 0 <= length <= self.left:
            raise CheckpointError(f"it is cut short: {length:,} more bytes expected, {self.left:,} found")
        self.left -= length
        data = self.file.read(length)
        if len(data) != length:
            raise CheckpointError("it shrank while it was being read: try again once it is complete")
        return data

    def readline(self) -> bytes:
        line = self.file.readline(min(LONGEST_NAME, self.left))
        self.left -= len(line)
        if not line.endswith(b"\n"):
            raise CheckpointError("its pickle contains a name that does not end")
        return line


class Reader(_MACHINE):
    """The stack machine. Each format has a subclass that lists what it knows.

    Attributes:
        codes: the instructions that its pickles consist of.
        steps: how many of them there may be.
        purpose: what needs no other instruction or name, for people.
    """

    codes: frozenset[int]
    steps: int
    purpose: str

    def __init__(self, file: BinaryIO, left: int, encoding: Literal["bytes", "latin1"]) -> None:
        """`encoding`: what becomes of the strings of Python 2."""
        super().__init__(_Budget(file, left), encoding=encoding)
        self.stack: list[Any]
        self.dispatch = _Dispatch(self.codes, self.steps, self.purpose)

    def load(self) -> Any:
        """The object that the pickle describes.

        Raises:
            CheckpointError: an instruction, a name or a length that the format does not need.
        """
        try:
            return super().load()
        except _DAMAGE as error:
            if isinstance(error, CheckpointError):
                raise
            why = ": it takes more from its stack than it put there" if isinstance(error, IndexError) else ""
            raise CheckpointError(f"its pickle is damaged at instruction {bytes([self.dispatch.code])!r}{why}") from error

    def find_class(self, module: str, name: str) -> Named:
        """A name in place of the class or function that the pickle names."""
        return Named(f"{module}.{name}"[:LONGEST_NAME])

    def call(self, name: str, arguments: tuple[Any, ...]) -> Any:  # noqa: ARG002 - for those that derive
        """What a call gives.

        Raises:
            CheckpointError: the function is unknown. TypeError: the arguments are not its own.
        """
        raise CheckpointError(f"it wants to execute {name}, which {self.purpose} does not need")

    def give(self, target: Any, state: Any) -> None:
        """Give an object its state.

        Raises:
            TypeError: it takes none.
        """
        if not isinstance(target, Opaque):
            raise TypeError
        target.state = state

    def _call(self) -> None:
        arguments, function = self.stack.pop(), self.stack[-1]
        if not isinstance(function, Named) or not isinstance(arguments, tuple):
            raise TypeError
        self.stack[-1] = self.call(function.text, arguments)

    def _new(self) -> None:
        """An object by its class's `__new__`, whose arguments are of no use to us."""
        _, kind = self.stack.pop(), self.stack.pop()
        if not isinstance(kind, Named):
            raise TypeError
        self.append(Opaque(kind.text))

    def _new_with_keywords(self) -> None:
        self.stack.pop()
        self._new()

    def _build(self) -> None:
        state = self.stack.pop()
        self.give(self.stack[-1], state)

    def _skip_frame(self) -> None:
        self.read(8)  # how long a stretch to read at once: of no use here

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key, value])

    def _set_items(self) -> None:
        self._set(self.pop_mark())

    def _set(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict | Opaque) or len(items) % 2:
            raise TypeError
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[self.key(key)] = value

    def key(self, key: Any) -> Any:
        """A dictionary's key: a plain value, as a nest of tuples could take for ever to hash.

        Raises:
            TypeError: it is another.
        """
        if not (key is None or isinstance(key, str | bytes | int | float | Named)):
            raise TypeError
        return key

    def _append(self) -> None:
        item = self.stack.pop()
        self._extend([item])

    def _appends(self) -> None:
        self._extend(self.pop_mark())

    def _extend(self, items: Iterable[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list | Opaque):
            raise TypeError
        for item in items:
            target.append(item)

    def _set_of(self) -> None:
        self.append(Opaque("set"))

    def _frozen_set(self) -> None:
        self.pop_mark()
        self.append(Opaque("frozenset"))


#: Instructions that mean another thing here than in Python's own machine.
_OURS: dict[int, Callable[[Reader], None]] = {
    pickle.FRAME[0]: Reader._skip_frame,
    pickle.REDUCE[0]: Reader._call,
    pickle.NEWOBJ[0]: Reader._new,
    pickle.NEWOBJ_EX[0]: Reader._new_with_keywords,
    pickle.BUILD[0]: Reader._build,
    pickle.SETITEM[0]: Reader._set_item,
    pickle.SETITEMS[0]: Reader._set_items,
    pickle.APPEND[0]: Reader._append,
    pickle.APPENDS[0]: Reader._appends,
    pickle.EMPTY_SET[0]: Reader._set_of,
    pickle.ADDITEMS[0]: Reader._appends,
    pickle.FROZENSET[0]: Reader._frozen_set,
}
_THEIRS: dict[int, Callable[[Reader], None]] = _MACHINE.dispatch

#: What a dictionary of arrays consists of, in protocols 2 to 4.
DATA = frozenset(
    b"".join(
        [
            pickle.PROTO, pickle.FRAME, pickle.STOP, pickle.MARK, pickle.GLOBAL, pickle.STACK_GLOBAL, pickle.REDUCE,
            pickle.BUILD, pickle.BINPUT, pickle.LONG_BINPUT, pickle.MEMOIZE, pickle.BINGET, pickle.LONG_BINGET,
            pickle.EMPTY_DICT, pickle.EMPTY_LIST, pickle.EMPTY_TUPLE, pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE,
            pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3, pickle.APPEND, pickle.APPENDS, pickle.SETITEM,
            pickle.SETITEMS, pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG1, pickle.SHORT_BINSTRING,
            pickle.BINSTRING, pickle.SHORT_BINBYTES, pickle.BINBYTES, pickle.BINBYTES8, pickle.SHORT_BINUNICODE,
            pickle.BINUNICODE, pickle.BINUNICODE8,
        ]
    )
)  # fmt: skip
#: And what else a checkpoint does: objects with their state, sets, recursion, floats, references
#: into the file's other parts.
OBJECTS = DATA | frozenset(
    b"".join(
        [
            pickle.NEWOBJ, pickle.NEWOBJ_EX, pickle.EMPTY_SET, pickle.ADDITEMS, pickle.FROZENSET, pickle.POP, pickle.POP_MARK,
            pickle.DUP, pickle.BINFLOAT, pickle.LONG4, pickle.BINPERSID,
        ]
    )
)  # fmt: skip


class _Dispatch:
    """What an instruction does, by its code; counts them, and remembers the last."""

    def __init__(self, codes: frozenset[int], steps: int, purpose: str) -> None:
        self.codes, self.steps, self.purpose, self.left, self.code = codes, steps, purpose, steps, 0

    def __getitem__(self, code: int) -> Callable[[Reader], None]:
        self.code = code
        self.left -= 1
        if self.left < 0:
            raise CheckpointError(f"its pickle has more than {self.steps:,} instructions, more than {self.purpose} needs")
        if code not in self.codes:
            raise CheckpointError(f"its pickle has the instruction {bytes([code])!r}, which {self.purpose} does not need")
        return _OURS.get(code) or _THEIRS[code]
