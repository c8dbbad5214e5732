"""The frames of AMST in Python: what protocol v1 sends, and what the acceptor of a data connection
reads before the C engine gets it.

Bytes in, records out; no I/O, no extension. ``docs/reference/amst-protocol.md`` is the
specification, ``native/src/nc_frame.c`` the twin of this file, with the same checks in the same
order and the same reasons; ``tests/vectors/amst/`` holds both to the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from struct import error as StructError
from typing import ClassVar, Final, TypeAlias
from zlib import crc32

from novacron.dwcp.amst.numbers import AckKind as AckKind
from novacron.dwcp.amst.numbers import ErrorNumber as ErrorNumber
from novacron.dwcp.amst.numbers import FrameType as FrameType
from novacron.errors import DwcpError, LocalProtocolError, RemoteProtocolError
from novacron.record import Record

Data: TypeAlias = bytes | bytearray | memoryview

MAGIC: Final = 0x4E434133
"""``NCA3``."""
VERSION: Final = 3
HEADER_BYTES: Final = 64
CHECKSUM_BYTES: Final = 4
DELTA: Final = 1
"""Bit of a DATA frame's flags: coded against the base that it names."""
DELTA_BYTES: Final = 8
"""Before a delta stream: CRC-32 of the base's chunk, and the stream's size before the codec."""
CODECS: Final = 3
"""Raw, lz4 and zstd."""
TAG_BYTES: Final = 16
MIN_CHUNK_BYTES: Final = 64 * 1024
MAX_CHUNK_BYTES: Final = 4 * 1024 * 1024
MAX_CONTROL_BYTES: Final = 4096
"""Payload of every frame that carries no content."""
LINK_ID_BYTES: Final = 16
HELLO_RANDOM_BYTES: Final = 16
HELLO_PAYLOAD_BYTES: Final = LINK_ID_BYTES + HELLO_RANDOM_BYTES
HELLO_BYTES: Final = HEADER_BYTES + HELLO_PAYLOAD_BYTES + TAG_BYTES
ZERO_PAYLOAD_BYTES: Final = 8
ACK_BYTES: Final = 32
MAX_ACKS: Final = 127
MAX_ERRNO: Final = 4095
EPOCH_FRAMES: Final = 1 << 16
EPOCH_BYTES: Final = 64 << 30
"""A new key after so many frames, or bytes, in one direction of a stream."""

END_OF_FILES: Final = 2**63 - 1
"""No file can be longer: offsets are signed on every system."""

_HEADER = Struct("!IBBBBIIQIIQIII8s")
_ACK = Struct("!B3sII4sQQ")
_U32 = Struct("!I")
_U64 = Struct("!Q")
_NO_RESERVED_8: Final = bytes(8)
_NO_RESERVED_4: Final = bytes(4)
_NO_RESERVED_3: Final = bytes(3)


_HELLOS: Final = frozenset({FrameType.HELLO, FrameType.HELLO_ACK})


class FrameError(DwcpError, RemoteProtocolError):
    """What came is no frame, or one that the protocol forbids. End the connection."""

    code: ClassVar[str] = "dwcp.frame"


class ChecksumError(DwcpError, RemoteProtocolError):
    """Content that came is not what was sent. End the connection and have it sent again."""

    code: ClassVar[str] = "dwcp.checksum"


class FrameMisuseError(DwcpError, LocalProtocolError):
    """The caller wanted to send what the other side would refuse. Nothing was made."""

    code: ClassVar[str] = "dwcp.frame_misuse"


class Frame(Record):
    """A header. Sizes and offsets are bytes."""

    type: int
    stream: int = 0
    epoch: int = 0
    sequence: int = 0
    object: int = 0
    generation: int = 0
    offset: int = 0
    raw_size: int = 0
    """Content before the codec, of DATA and SEGMENT; 0 in all others."""
    wire_size: int = 0
    """What follows the header, the content's checksum included, the tag not."""
    flags: int = 0
    codec: int = 0
    base: int = 0


class Ack(Record):
    kind: int
    object: int
    generation: int = 0
    offset: int = 0
    value: int = 0


# --- Headers ----------------------------------------------------------------------------------


def write_header(frame: Frame, seed: int, max_chunk: int = MAX_CHUNK_BYTES) -> bytes:
    """The 64 bytes of *frame*; *seed* begins the checksum and belongs to the link.

    Raises:
      FrameMisuseError: the other side would refuse it.
    """
    if fault := _fault(frame, max_chunk):
        raise FrameMisuseError("cannot send a frame", why=fault)
    try:
        fields = _HEADER.pack(
            MAGIC,
            VERSION,
            frame.type,
            frame.flags,
            frame.codec,
            frame.stream,
            frame.epoch,
            frame.sequence,
            frame.object,
            frame.generation,
            frame.offset,
            frame.raw_size,
            frame.wire_size,
            frame.base,
            _NO_RESERVED_8,
        )
        return fields + _U32.pack(crc32(fields, seed))
    except (StructError, OverflowError) as exc:
        raise FrameMisuseError("cannot send a frame", why=str(exc)) from exc


def read_header(data: Data, seed: int, max_chunk: int = MAX_CHUNK_BYTES) -> Frame:
    """The frame of a header, checked as far as that goes without its payload.

    Args:
      data: Exactly 64 bytes.
      seed: What the link's checksums begin with.
      max_chunk: Bytes of content agreed on.

    Raises:
      FrameError: it is none, or not of this link.
    """
    return _read_header(bytes(data), seed, max_chunk)


def _read_header(header: bytes, seed: int | None, max_chunk: int) -> Frame:
    if len(header) != HEADER_BYTES:
        raise _refused(f"a header of {len(header)} bytes")
    (
        magic,
        version,
        kind,
        flags,
        codec,
        stream,
        epoch,
        sequence,
        number,
        generation,
        offset,
        raw_size,
        wire_size,
        base,
        reserved,
    ) = _HEADER.unpack_from(header)
    # Magic and version come before the checksum: another version may keep it elsewhere.
    if magic != MAGIC:
        raise _refused(f"not a frame: it begins with {magic:08x}")
    if version != VERSION:
        raise _refused(f"a frame of version {version}, not {VERSION}")
    if seed is not None:
        (check,) = _U32.unpack_from(header, _HEADER.size)
        if check != crc32(memoryview(header)[: _HEADER.size], seed):
            raise _refused("a header whose checksum does not hold, or of another link")
    if reserved != _NO_RESERVED_8:
        raise _refused("a header whose reserved bytes are in use")
    frame = Frame(
        kind,
        stream,
        epoch,
        sequence,
        number,
        generation,
        offset,
        raw_size,
        wire_size,
        flags,
        codec,
        base,
    )
    if fault := _fault(frame, max_chunk):
        raise _refused(f"{fault} (type {kind}, sizes {raw_size} and {wire_size}, offset {offset})")
    return frame


def _refused(why: str) -> FrameError:
    return FrameError("the peer sent what is no frame of this link", why=why)


def _fault(frame: Frame, max_chunk: int) -> str:
    """What is wrong with *frame*; empty where nothing is."""
    data = frame.type == FrameType.DATA
    if frame.flags & ~DELTA or (frame.flags and not data):
        return "unknown flags"
    if frame.codec >= CODECS or (frame.codec and not data):
        return "an unknown codec"
    if bool(frame.base) != bool(frame.flags & DELTA):
        return "a base without a delta, or a delta without a base"
    match frame.type:
        case FrameType.HELLO | FrameType.HELLO_ACK:
            return _fault_of_hello(frame)
        case FrameType.DATA | FrameType.SEGMENT:
            return _fault_of_content(frame, max_chunk)
        case FrameType.ZERO:
            return _fault_of_mark(frame, ZERO_PAYLOAD_BYTES)
        case FrameType.END:
            return _fault_of_mark(frame, 0)
        case FrameType.ACK:
            return _fault_of_control(frame, range(ACK_BYTES, MAX_ACKS * ACK_BYTES + 1, ACK_BYTES))
        case FrameType.BYE:
            return _fault_of_control(frame, range(1))
    return "an unknown type"


def _fault_of_hello(frame: Frame) -> str:
    if frame.wire_size != HELLO_PAYLOAD_BYTES or frame.raw_size:
        return "a hello of another size"
    if frame.epoch or frame.sequence:
        return "a hello that is not the first frame"
    if frame.object or frame.generation or frame.offset:
        return "a hello that names an object"
    return ""


def _fault_of_content(frame: Frame, max_chunk: int) -> str:
    if not 0 < frame.raw_size <= min(max_chunk, MAX_CHUNK_BYTES):
        return "content of no bytes, or of more than was agreed"
    most = frame.raw_size + CHECKSUM_BYTES
    if not frame.codec and not frame.flags & DELTA:
        if frame.wire_size != most:
            return "a payload that is not the content and its checksum"
    elif frame.wire_size <= CHECKSUM_BYTES + (DELTA_BYTES if frame.flags & DELTA else 0):
        return "coded content of no bytes"
    elif frame.wire_size > most:
        return "coded content that is larger than the content"
    if not frame.object:
        return "content of no object"
    if frame.offset > END_OF_FILES - frame.raw_size:
        return "content beyond the end of any file"
    return ""


def _fault_of_mark(frame: Frame, wire_size: int) -> str:
    if frame.wire_size != wire_size or frame.raw_size:
        return "a payload of another size than its type has"
    if not frame.object:
        return "a mark in no object"
    if frame.offset > END_OF_FILES:
        return "a mark beyond the end of any file"
    return ""


def _fault_of_control(frame: Frame, wire_sizes: range) -> str:
    if frame.wire_size not in wire_sizes or frame.raw_size:
        return "a payload of another size than its type has"
    if frame.object or frame.generation or frame.offset:
        return "a control frame that names an object"
    return ""


# --- Payloads ---------------------------------------------------------------------------------


def content_checksum(content: Data) -> bytes:
    """The four bytes that follow the content of a DATA or SEGMENT frame."""
    return _U32.pack(crc32(content))


def check_content(payload: Data) -> memoryview:
    """The content of a DATA or SEGMENT frame's payload, without a copy.

    Raises:
      FrameError: it is too short to hold a checksum.
      ChecksumError: the checksum does not hold.
    """
    view = memoryview(payload).cast("B")
    if len(view) <= CHECKSUM_BYTES:
        raise _refused(f"a payload of {len(view)} bytes cannot hold content")
    content = view[:-CHECKSUM_BYTES]
    (expected,) = _U32.unpack_from(view, len(content))
    found = crc32(content)
    if found != expected:
        raise ChecksumError(
            "content was damaged on the way",
            why=f"the checksum of {len(content)} bytes is {found:08x}, not {expected:08x}",
        )
    return content


def write_zero_run(size: int) -> bytes:
    """The payload of a ZERO frame for *size* bytes.

    Raises:
      FrameMisuseError: no file can hold that many, or there are none.
    """
    if not 0 < size <= END_OF_FILES:
        raise FrameMisuseError("cannot send a zero run", why=f"it has {size} bytes")
    return _U64.pack(size)


def read_zero_run(frame: Frame, payload: Data) -> int:
    """The number of zero bytes at the offset of a ZERO frame.

    Raises:
      FrameError: none, or more than a file can hold.
    """
    data = bytes(payload)
    if len(data) != ZERO_PAYLOAD_BYTES:
        raise _refused(f"a zero run of {len(data)} bytes of payload")
    (size,) = _U64.unpack(data)
    if not 0 < size <= END_OF_FILES - frame.offset:
        raise _refused(f"a zero run of {size} bytes at {frame.offset}")
    return int(size)


def write_acks(acks: Sequence[Ack]) -> bytes:
    """The payload of an ACK frame.

    Raises:
      FrameMisuseError: there are none or more than 127, or the other side would refuse one.
    """
    if not 1 <= len(acks) <= MAX_ACKS:
        raise FrameMisuseError("cannot send acknowledgements", why=f"there are {len(acks)}")
    parts = []
    for ack in acks:
        if fault := _fault_of_ack(ack):
            raise FrameMisuseError("cannot send an acknowledgement", why=fault)
        try:
            parts.append(
                _ACK.pack(
                    ack.kind,
                    _NO_RESERVED_3,
                    ack.object,
                    ack.generation,
                    _NO_RESERVED_4,
                    ack.offset,
                    ack.value,
                )
            )
        except StructError as exc:
            raise FrameMisuseError("cannot send an acknowledgement", why=str(exc)) from exc
    return b"".join(parts)


def read_acks(payload: Data) -> list[Ack]:
    """The acknowledgements of an ACK frame's payload.

    Raises:
      FrameError: one of them, or their number, is not what the protocol allows.
    """
    data = bytes(payload)
    if len(data) % ACK_BYTES or not 1 <= len(data) // ACK_BYTES <= MAX_ACKS:
        raise _refused(f"acknowledgements of {len(data)} bytes")
    acks = []
    for kind, reserved, number, generation, reserved_too, offset, value in _ACK.iter_unpack(data):
        if not AckKind.CHUNK <= kind <= AckKind.BASE:
            raise _refused(f"an acknowledgement of kind {kind}")
        if reserved != _NO_RESERVED_3 or reserved_too != _NO_RESERVED_4:
            raise _refused("an acknowledgement whose reserved bytes are in use")
        ack = Ack(kind, number, generation, offset, value)
        if fault := _fault_of_ack(ack):
            raise _refused(fault)
        acks.append(ack)
    return acks


def _fault_of_ack(ack: Ack) -> str:
    match ack.kind:
        case AckKind.CHUNK | AckKind.BASE:
            possible = 1 <= ack.value <= MAX_CHUNK_BYTES
        case AckKind.SEGMENT:
            possible = 0 <= ack.value <= MAX_CHUNK_BYTES
        case AckKind.ZERO:
            possible = 1 <= ack.value <= END_OF_FILES
        case AckKind.READ:
            possible = ack.value == 0
        case AckKind.REFUSED:
            possible = 1 <= ack.value <= 0xFFFF and ack.offset <= MAX_ERRNO
        case _:
            return f"an acknowledgement of kind {ack.kind}"
    if not ack.object:
        return "an acknowledgement of no object"
    size = 0 if ack.kind == AckKind.REFUSED else ack.value
    if not possible or ack.offset > END_OF_FILES - size:
        return f"an acknowledgement of kind {ack.kind} at {ack.offset} with {ack.value}"
    return ""


# --- Hello ------------------------------------------------------------------------------------


def write_hello(kind: FrameType, stream: int, link_id: bytes, random: bytes, seed: int) -> bytes:
    """Header and payload of a HELLO or HELLO_ACK: the 96 bytes that its tag covers, without it.

    Raises:
      FrameMisuseError: *link_id* or *random* has not 16 bytes.
    """
    if kind not in _HELLOS or (len(link_id), len(random)) != (LINK_ID_BYTES, HELLO_RANDOM_BYTES):
        raise FrameMisuseError("cannot send a hello", why="it has 16 bytes of id, 16 of random")
    header = write_header(Frame(kind, stream, wire_size=HELLO_PAYLOAD_BYTES), seed)
    return header + link_id + random


def link_id_of_hello(hello: Data) -> bytes:
    """The 16 bytes that name the link a new connection asks for.

    The tag and the header's checksum are not checked: what they are checked with belongs to the
    link. Whoever has found the link by this id does that before it believes the rest.

    Args:
      hello: A HELLO from its first byte on, at least the 96 bytes before its tag.

    Raises:
      FrameError: it is no HELLO.
    """
    data = bytes(hello)
    if len(data) < HEADER_BYTES + HELLO_PAYLOAD_BYTES:
        raise _refused(f"a hello of {len(data)} bytes")
    frame = _read_header(data[:HEADER_BYTES], None, MAX_CHUNK_BYTES)
    if frame.type != FrameType.HELLO:
        raise _refused(f"a connection that begins with a frame of type {frame.type}")
    return data[HEADER_BYTES : HEADER_BYTES + LINK_ID_BYTES]


def stream_id_of_hello(hello: Data) -> int:
    """The stream that a new connection is, as far as that can be told before the link proves it.
    Raises FrameError: it is no header."""
    return _read_header(bytes(hello)[:HEADER_BYTES], None, MAX_CHUNK_BYTES).stream
