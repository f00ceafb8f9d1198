"""Read a picture file's metadata without trusting it.

Orientation and colour profile decide how a picture looks. The rest of the metadata does not matter
here, and any of it may be damaged, huge when unpacked, or hold a second picture. So a file is cut
in two before it is decoded: the decoder gets the pixels and what they need, and this module reads
the orientation and the profile. Both come back empty if they are damaged: that never costs a
picture. Nothing is unpacked beyond `MAX_METADATA` bytes.
"""

import re
import struct
import zlib
from dataclasses import dataclass

from alexnet.data.limits import MAX_METADATA

ORIENTATION_TAG = 0x0112
UPRIGHT = 1

_EXIF_PREFIX = b"Exif\0\0"
_XMP_PREFIX = b"http://ns.adobe.com/xap/1.0/\0"
_ICC_PREFIX = b"ICC_PROFILE\0"
_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')
_PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)
_START_OF_SCAN, _APP0, _APP14, _APP15, _COMMENT = 0xDA, 0xE0, 0xEE, 0xEF, 0xFE
#: JPEG markers without a length: a stuffed byte, TEM, restarts, the start of the file.
_BARE = (0x00, 0x01, *range(0xD0, 0xD9))
#: PNG chunks that decoding needs and that are not marked as critical.
_PNG_PIXELS = (b"tRNS",)
#: An item of an AVIF or HEIC file that is not a picture or a part of one: `infe`, version, flags,
#: number, protection, then its type.
_NO_PICTURE = re.compile(
    rb"(infe(?:\x02.{3}.{2}|\x03.{3}.{4}).{2})(?!av01|hvc1|hev1|lhv1|avc1|jpeg|j2k1|vvc1|unci|mski|grid|iden|iovl|tmap).{4}",
    re.DOTALL,
)


@dataclass(frozen=True)
class Parts:
    """A file, cut in two.

    Attributes:
        pixels: the file for the decoder.
        exif: a TIFF block, with or without the prefix `Exif`.
        xmp: an XML text.
        profile: an ICC profile.
        multiscan: a JPEG in several scans (progressive, or one for each component). Its decoder
            keeps all coefficients in memory: 2 bytes for each sample of the whole picture.
    """

    pixels: bytes
    exif: bytes = b""
    xmp: bytes = b""
    profile: bytes = b""
    multiscan: bool = False


def orientation(exif: bytes, xmp: bytes = b"") -> int:
    """EXIF orientation 1-8, how the stored picture has to be turned; 1 (upright) if neither block
    has it.
    """
    value = _exif_orientation(exif)
    if value is None and (match := _XMP_ORIENTATION.search(xmp)):
        value = int(match[1])
    return value if value is not None and 1 <= value <= 8 else UPRIGHT


def _exif_orientation(exif: bytes) -> int | None:
    block = exif.removeprefix(_EXIF_PREFIX).removeprefix(_EXIF_PREFIX)
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None or block[2:4] not in (b"*\0", b"\0*"):
        return None
    try:
        (start,) = struct.unpack_from(order + "I", block, 4)
        (entries,) = struct.unpack_from(order + "H", block, start)
        for entry in range(start + 2, start + 2 + 12 * entries, 12):
            tag, kind, count = struct.unpack_from(order + "HHI", block, entry)
            if tag == ORIENTATION_TAG:
                form = {1: "B", 3: "H", 4: "I"}.get(kind)
                return struct.unpack_from(order + form, block, entry + 8)[0] if form and count == 1 else UPRIGHT
    except struct.error:  # it ends too early
        pass
    return None


# --- JPEG -----------------------------------------------------------------------------------------


def jpeg(data: bytes) -> Parts:
    """Take application data and comments out of a JPEG.

    JFIF's and Adobe's stay, which say what the colours are. A second picture (MPO), a thumbnail and
    damaged blocks never reach the decoder. A header that cannot be followed to its end stays as it
    is, for the decoder to refuse.
    """
    view, kept, dropped = memoryview(data), [memoryview(data)[:2]], False
    blocks: dict[bytes, list[bytes]] = {_EXIF_PREFIX: [], _XMP_PREFIX: [], _ICC_PREFIX: []}
    progressive, components, position = False, 0, 2
    while (position := data.find(b"\xff", position)) >= 0:
        marker = data[position + 1] if position + 1 < len(data) else -1
        if marker == 0xFF or marker in _BARE:
            position += 1 if marker == 0xFF else 2
            continue
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4])
        if end < position + 4 or end > len(data):
            break
        if marker == _START_OF_SCAN:
            scanned = data[position + 4] if end > position + 4 else 0
            pixels = b"".join([*kept, view[position:]]) if dropped else data
            exif = _EXIF_PREFIX + b"".join(blocks[_EXIF_PREFIX])
            xmp, profile = b"".join(blocks[_XMP_PREFIX][-1:]), _joined_profile(blocks[_ICC_PREFIX])
            return Parts(pixels, exif, xmp, profile, progressive or scanned < components)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a frame's header
            progressive, components = marker in _PROGRESSIVE, data[position + 9] if end > position + 9 else 0
        if _is_metadata(marker, view[position + 4 : end]):
            dropped = True
            for prefix, contents in blocks.items():
                if data.startswith(prefix, position + 4, end):
                    contents.append(data[position + 4 + len(prefix) : end])
        else:
            kept.append(view[position:end])
        position = end
    return Parts(data)


def _is_metadata(marker: int, body: memoryview) -> bool:
    """Whether the decoder does without this segment; libjpeg's own rule for JFIF's and Adobe's."""
    if marker == _APP0:
        return len(body) < 14 or body[:5] != b"JFIF\0"
    if marker == _APP14:
        return len(body) < 12 or body[:5] != b"Adobe"
    return _APP0 < marker <= _APP15 or marker == _COMMENT


def _joined_profile(blocks: list[bytes]) -> bytes:
    """A profile of its numbered parts (number, count, content), or nothing where one is missing."""
    blocks = sorted(block for block in blocks if len(block) > 2)
    if [block[0] for block in blocks] != list(range(1, len(blocks) + 1)) or any(block[1] != len(blocks) for block in blocks):
        return b""
    return b"".join(block[2:] for block in blocks)


# --- PNG ------------------------------------------------------------------------------------------


def png(data: bytes) -> Parts:
    """Take all ancillary chunks but transparency out of a PNG.

    Texts (which unpack to a thousand times their size), their wrong checksums and an animation's
    further pictures never reach the decoder. Of a block that is there several times the last one
    counts. A chunk that is cut off stays, for the decoder to refuse.
    """
    view, kept, position = memoryview(data), [memoryview(data)[:8]], 8
    blocks: dict[str, bytes] = {}
    while position + 12 <= len(data):
        kind = data[position + 4 : position + 8]
        end = position + 12 + int.from_bytes(data[position : position + 4])
        if end > len(data) or not kind.isalpha():
            break
        if kind[0:1].isupper() or kind in _PNG_PIXELS:
            kept.append(view[position:end])
        elif zlib.crc32(view[position + 4 : end - 4]) == int.from_bytes(data[end - 4 : end]):
            name, content = _png_block(kind, data[position + 8 : end - 4])
            blocks |= {name: content} if name else {}
        position = end
    pixels = b"".join([*kept, view[position:]])
    exif = blocks.get("exif") or blocks.get("raw exif", b"")
    return Parts(pixels if len(pixels) < len(data) else data, exif, blocks.get("xmp", b""), blocks.get("profile", b""))


def _png_block(kind: bytes, body: bytes) -> tuple[str, bytes]:
    """The name that we know an ancillary chunk by, and its content; an empty
    name if it does not matter."""
    keyword, _, rest = body.partition(b"\0")
    if kind == b"eXIf":
        return "exif", body
    if kind == b"iCCP":
        return "profile", _unpacked(rest[1:])
    if kind in (b"tEXt", b"zTXt") and keyword == b"Raw profile type exif":  # ImageMagick's: three lines, then hexadecimal
        text = rest if kind == b"tEXt" else _unpacked(rest[1:])
        try:
            return "raw exif", bytes.fromhex(b"".join(text.split(b"\n")[3:]).decode("ascii"))
        except ValueError:
            return "raw exif", b""
    if kind == b"iTXt" and keyword == b"XML:com.adobe.xmp":
        text = rest[2:].split(b"\0", 2)[-1]  # after the language and the translated keyword
        return "xmp", _unpacked(text) if rest[:1] == b"\1" else text
    return "", b""


def _unpacked(data: bytes) -> bytes:
    """Deflated bytes, or nothing where they are damaged or more than `MAX_METADATA`."""
    machine = zlib.decompressobj()
    try:
        content = machine.decompress(data, MAX_METADATA)
    except zlib.error:
        return b""
    return b"" if machine.unconsumed_tail or not machine.eof else content


# --- AVIF and HEIC --------------------------------------------------------------------------------


def without_items(data: bytes) -> bytes:
    """An AVIF or HEIC file without EXIF, XMP and items of unknown types: their type becomes "free".

    The orientation of such a file is the container's. EXIF says the same once more, and a damaged
    block costs the picture: in AVIF by an error, in HEIC, if a type is not ASCII, by a crash of the
    decoder (seen with pi-heif 1.4).
    """
    return _NO_PICTURE.sub(rb"\1free", data)
