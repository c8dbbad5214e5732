"""Frames: a fixed header and a bounded msgpack payload.

The header is 16 bytes, big-endian::

    magic 4 | framing version 1 | type 1 | flags 2 | payload length 4 | CRC-32 of the 12 before 4

TLS already protects the bytes. The checksum is there for what TLS cannot see, a peer that lost
count of its own stream: it stops at the first header that is not one, instead of waiting for the
gigabytes that a payload byte taken for a length would announce.
"""

from __future__ import annotations

from binascii import crc32
from struct import Struct
from typing import Any, Final

import msgpack  # type: ignore[import-untyped]

from novacron.protocol.codes import ErrorCode, MisuseError, ViolationError

MAGIC: Final = b"NCPP"
FRAMING_VERSION: Final = 1

_FIELDS = Struct("!4sBBHI")
_CHECKSUM = Struct("!I")
HEADER_BYTES: Final = _FIELDS.size + _CHECKSUM.size

MAX_DEPTH: Final = 8
"""Nesting of arrays and maps. The messages of version 1 need one level."""
MAX_ITEMS: Final = 4096
"""Values in one payload. A one-byte empty map becomes 64 bytes of Python: without this bound a
payload costs up to 64 times its size."""
MAX_TEXT_BYTES: Final = 65536
"""One string. Bytes are bounded by the frame alone, because they are copied and not interpreted."""

ABSOLUTE_MAX_PAYLOAD: Final = 64 * 1024 * 1024
"""No announced limit can be above this."""


class Frame:
    """One frame as it came off the wire; the payload is not yet looked at."""

    __slots__ = ("payload", "type")

    def __init__(self, type: int, payload: bytes) -> None:
        self.type = type
        self.payload = payload


def encode_frame(type: int, payload: bytes, *, max_payload: int = ABSOLUTE_MAX_PAYLOAD) -> bytes:
    """Put a header before *payload*.

    Raises:
      MisuseError: the payload is larger than *max_payload* bytes.
    """
    if len(payload) > max_payload:
        raise MisuseError(
            "cannot send a frame",
            why=f"its payload is {len(payload)} bytes and the peer takes {max_payload}",
        )
    fields = _FIELDS.pack(MAGIC, FRAMING_VERSION, type, 0, len(payload))
    return b"".join((fields, _CHECKSUM.pack(crc32(fields)), payload))


class FrameDecoder:
    """Cuts a byte stream into frames; keeps at most one incomplete frame and the last read.

    ``max_payload`` (bytes) may be changed between frames: a session takes little before it knows
    its peer. A header is judged as soon as its 16 bytes are there, so that nothing of a frame
    over the limit is ever kept.
    """

    __slots__ = ("_buffer", "_needed", "max_payload")

    def __init__(self, max_payload: int) -> None:
        self.max_payload = max_payload
        self._buffer = bytearray()
        self._needed = 0  # payload bytes of the accepted header at the buffer's start; 0: none yet

    @property
    def buffered(self) -> int:
        """Bytes held back."""
        return len(self._buffer)

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        self._buffer += data

    def next_frame(self) -> Frame | None:
        """The next complete frame, or None until more bytes were fed.

        Raises:
          ViolationError: the bytes are no frame, or one over the limit. The decoder is then of no
            more use.
        """
        buffer = self._buffer
        if len(buffer) < HEADER_BYTES:
            # A wrong first byte is told at once: a peer of another protocol may wait for us.
            if buffer and not MAGIC.startswith(bytes(buffer[: len(MAGIC)])):
                raise _not_a_frame()
            return None
        magic, version, kind, flags, length = _FIELDS.unpack_from(buffer)
        if magic != MAGIC:
            raise _not_a_frame()
        (checksum,) = _CHECKSUM.unpack_from(buffer, _FIELDS.size)
        if checksum != crc32(memoryview(buffer)[: _FIELDS.size]):
            raise ViolationError(ErrorCode.FRAMING, "a frame header fails its checksum")
        if version != FRAMING_VERSION:
            raise ViolationError(
                ErrorCode.FRAMING,
                f"a frame has framing version {version}",
                why=f"this node reads version {FRAMING_VERSION}",
            )
        if flags:
            raise ViolationError(ErrorCode.FRAMING, f"a frame has unknown flags {flags:#06x}")
        if length > self.max_payload:
            raise ViolationError(
                ErrorCode.LIMIT,
                f"a frame announces {length} bytes",
                why=f"the limit is {self.max_payload}",
            )
        end = HEADER_BYTES + length
        if len(buffer) < end:
            return None
        payload = bytes(memoryview(buffer)[HEADER_BYTES:end])
        del buffer[:end]
        return Frame(kind, payload)


def _not_a_frame() -> ViolationError:
    return ViolationError(
        ErrorCode.FRAMING,
        "the peer does not speak this protocol",
        why=f"a frame starts with {MAGIC!r}",
        remedy="check that the address is the peer port of a NovaCron node (network.port)",
    )


# --- payloads ---------------------------------------------------------------------------------


def encode_payload(value: Any) -> bytes:
    """Pack *value* (None, bool, int, float, str, bytes, list, dict with str keys).

    Raises:
      MisuseError: something in it cannot be packed, or would be refused by the other side.
    """
    try:
        payload: bytes = msgpack.packb(value, use_bin_type=True)
        _survey(payload)
    except (TypeError, ValueError, OverflowError, RecursionError, ViolationError) as exc:
        raise MisuseError("cannot encode a payload", why=str(exc)) from exc
    return payload


def decode_payload(payload: bytes) -> Any:
    """Unpack one strict msgpack value.

    Strict: exactly one value, nothing after it; no extension types; map keys are strings and
    differ; strings are UTF-8; depth, number of values and string sizes are bounded, and checked
    on the bytes before anything is built from them.

    Raises:
      ViolationError: it is not that.
    """
    _survey(payload)
    try:
        return msgpack.unpackb(
            payload,
            raw=False,
            strict_map_key=True,
            object_pairs_hook=_distinct,
            max_ext_len=0,
            max_str_len=MAX_TEXT_BYTES,
            max_array_len=MAX_ITEMS,
            max_map_len=MAX_ITEMS,
        )
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as exc:
        raise ViolationError(
            ErrorCode.ENCODING, "a payload is not valid msgpack", why=_reason(exc)
        ) from exc


def _reason(exc: Exception) -> str:
    # UnicodeDecodeError's own text would repeat the peer's bytes into our log.
    return "a string is not UTF-8" if isinstance(exc, UnicodeDecodeError) else str(exc)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a map has the same key twice")
    return result


# First byte to (bytes of a big-endian size field, fixed bytes that follow, category).
_SCALAR, _TEXT, _BINARY, _ARRAY, _MAP, _FORBIDDEN = range(6)
_SHAPES: list[tuple[int, int, int]] = [(0, 0, _FORBIDDEN)] * 256
_SHAPES[0x00:0x80] = [(0, 0, _SCALAR)] * 128
_SHAPES[0x80:0x90] = [(0, count, _MAP) for count in range(16)]
_SHAPES[0x90:0xA0] = [(0, count, _ARRAY) for count in range(16)]
_SHAPES[0xA0:0xC0] = [(0, size, _TEXT) for size in range(32)]
_SHAPES[0xC0] = _SHAPES[0xC2] = _SHAPES[0xC3] = (0, 0, _SCALAR)
_SHAPES[0xC4:0xC7] = [(1, 0, _BINARY), (2, 0, _BINARY), (4, 0, _BINARY)]
_SHAPES[0xCA:0xD4] = [(0, size, _SCALAR) for size in (4, 8, 1, 2, 4, 8, 1, 2, 4, 8)]
_SHAPES[0xD9:0xDC] = [(1, 0, _TEXT), (2, 0, _TEXT), (4, 0, _TEXT)]
_SHAPES[0xDC:0xDE] = [(2, 0, _ARRAY), (4, 0, _ARRAY)]
_SHAPES[0xDE:0xE0] = [(2, 0, _MAP), (4, 0, _MAP)]
_SHAPES[0xE0:0x100] = [(0, 0, _SCALAR)] * 32


def _survey(payload: bytes) -> None:
    """Walk the encoding once without building anything, and hold it to the limits.

    msgpack's own limits hold for each container alone, not for all of a payload together, and it
    nests to 1,024; so the walk is done here. A string or byte string costs one step however long.
    """
    position = 0
    items = 0
    end = len(payload)
    # Values still to come in each open container; for a map, keys stand at even counts.
    remaining: list[int] = [1]
    is_map: list[bool] = [False]
    while remaining:
        left = remaining[-1]
        if not left:
            remaining.pop()
            is_map.pop()
            continue
        remaining[-1] = left - 1
        items += 1
        if items > MAX_ITEMS:
            raise ViolationError(ErrorCode.LIMIT, f"a payload holds more than {MAX_ITEMS} values")
        if position >= end:
            raise _cut_short()
        size_bytes, size, category = _SHAPES[payload[position]]
        position += 1
        if category == _FORBIDDEN:
            raise ViolationError(
                ErrorCode.ENCODING, "a payload holds an extension type or an unused code"
            )
        if size_bytes:
            if position + size_bytes > end:
                raise _cut_short()
            size = int.from_bytes(payload[position : position + size_bytes], "big")
            position += size_bytes
        if is_map[-1] and not left % 2 and category != _TEXT:
            raise ViolationError(ErrorCode.ENCODING, "a map key is not a string")
        if category in (_ARRAY, _MAP):
            if len(remaining) > MAX_DEPTH:
                raise ViolationError(
                    ErrorCode.LIMIT, f"a payload nests deeper than {MAX_DEPTH} levels"
                )
            remaining.append(size * 2 if category == _MAP else size)
            is_map.append(category == _MAP)
            continue
        if category == _TEXT and size > MAX_TEXT_BYTES:
            raise ViolationError(ErrorCode.LIMIT, f"a string is longer than {MAX_TEXT_BYTES} bytes")
        position += size
        if position > end:
            raise _cut_short()
    if position != end:
        raise ViolationError(ErrorCode.ENCODING, "bytes follow the value of a payload")


def _cut_short() -> ViolationError:
    return ViolationError(ErrorCode.ENCODING, "a payload ends inside a value")
