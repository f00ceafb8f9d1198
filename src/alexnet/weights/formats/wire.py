"""Walk the wire format of protocol buffers without reading the values.

A message is a list of fields: a tag (the field's number and how it is encoded), for bytes a length,
then the value. Caffe's and ONNX's files are such messages. `fields` finds where each is, so that
244 MB of parameters go from the file straight into their tensors. A length is a claim, and must lie
inside its parent.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from alexnet.errors import CheckpointError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types
#: The published AlexNet has 24 layers of at most 20 fields; this keeps a hostile
#: file from costing time.
MAX_FIELDS = 1024


@dataclass(frozen=True)
class Field:
    """A field's place in the file: tag at `start`, value from `value` to `end`."""

    number: int
    wire: int
    start: int
    value: int
    end: int


def _varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise CheckpointError("it ends in the middle of a field")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise CheckpointError("a number of it is longer than ten bytes")


def next_field(file: BinaryIO, start: int) -> Field:
    """The field whose tag is at `start`; its end is what it claims and may be past the file's."""
    file.seek(start)
    tag = _varint(file)
    number, wire = tag >> 3, tag & 7
    if wire == VARINT:
        value = file.tell()
        _varint(file)
        return Field(number, wire, start, value, file.tell())
    if wire == BYTES:
        length = _varint(file)
        return Field(number, wire, start, file.tell(), file.tell() + length)
    if wire in (FIXED32, FIXED64):
        return Field(number, wire, start, file.tell(), file.tell() + (4 if wire == FIXED32 else 8))
    raise CheckpointError(f"byte {start:,} does not begin a field of a protocol buffer")


def fields(file: BinaryIO, start: int, end: int) -> Iterator[Field]:
    """The fields of a message between `start` and `end`, each read when needed."""
    for _ in range(MAX_FIELDS):
        if start == end:
            return
        field = next_field(file, start)
        if field.end > end:
            raise CheckpointError(
                f"it is cut short or damaged: field {field.number} at byte {field.start:,} would "
                f"end at byte {field.end:,}, beyond the end at {end:,}"
            )
        yield field
        start = field.end
    raise CheckpointError(f"a part of it has more than {MAX_FIELDS:,} fields, but an AlexNet's have dozens")


def size(file: BinaryIO) -> int:
    """Bytes in a file."""
    return file.seek(0, os.SEEK_END)


def tag(number: int, length: int) -> bytes:
    """The tag and length that precede `length` bytes of a field."""
    out = bytearray()
    for value in (number << 3 | BYTES, length):
        while value > 0x7F:
            out.append(value & 0x7F | 0x80)
            value >>= 7
        out.append(value)
    return bytes(out)
