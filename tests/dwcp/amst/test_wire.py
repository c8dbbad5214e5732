from __future__ import annotations

import contextlib
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.dwcp.amst import wire
from novacron.dwcp.amst.wire import (
    Ack,
    AckKind,
    ChecksumError,
    ErrorNumber,
    Frame,
    FrameError,
    FrameMisuseError,
    FrameType,
)
from novacron.errors import DwcpError, LocalProtocolError, RemoteProtocolError
from tests.dwcp.amst import reference, strategies
from tests.dwcp.amst.vectors import DATA, GOOD, SEED, ZERO

ZEROS = Frame(**ZERO)


@given(strategies.headers(SEED), strategies.MAX_CHUNK)
def test_a_header_is_refused_or_taken_within_every_limit_and_written_back(
    data: bytes, max_chunk: int
) -> None:
    try:
        frame = wire.read_header(data, SEED, max_chunk)
    except FrameError:
        return
    assert wire.write_header(frame, SEED, max_chunk) == data
    assert FrameType(frame.type)
    assert bool(frame.base) == bool(frame.flags)
    assert frame.type == FrameType.DATA or frame.flags == frame.codec == 0
    assert frame.flags <= wire.DELTA
    assert frame.codec < wire.CODECS
    assert frame.raw_size <= min(max_chunk, wire.MAX_CHUNK_BYTES)
    assert frame.offset + frame.raw_size <= wire.END_OF_FILES
    if frame.flags or frame.codec:
        assert wire.CHECKSUM_BYTES < frame.wire_size <= frame.raw_size + wire.CHECKSUM_BYTES
    elif frame.raw_size:
        assert frame.wire_size == frame.raw_size + wire.CHECKSUM_BYTES
    else:
        assert frame.wire_size <= wire.MAX_CONTROL_BYTES


@given(st.binary(max_size=200))
def test_whatever_bytes_come_only_the_documented_error_does(data: bytes) -> None:
    def hear(call: Any, *arguments: Any) -> None:
        with contextlib.suppress(FrameError, ChecksumError):
            call(*arguments)

    hear(wire.read_header, data, SEED)
    hear(wire.read_acks, data)
    hear(wire.check_content, data)
    hear(wire.read_zero_run, ZEROS, data)
    hear(wire.link_id_of_hello, data)
    hear(wire.link_id_of_hello, data.ljust(112, b"\0"))


@given(st.lists(strategies.ACK_BYTES, max_size=5))
def test_acknowledgements_are_refused_or_written_back(parts: list[bytes]) -> None:
    data = b"".join(parts)
    try:
        acks = wire.read_acks(data)
    except FrameError:
        return
    assert wire.write_acks(acks) == data
    for ack in acks:
        assert AckKind(ack.kind)
        assert ack.object
        assert ack.offset <= wire.END_OF_FILES


@pytest.mark.parametrize("kind", [FrameError, ChecksumError])
def test_what_the_peer_did_is_told_from_what_we_did(kind: type[DwcpError]) -> None:
    assert issubclass(kind, DwcpError)
    assert issubclass(kind, RemoteProtocolError)
    assert not issubclass(kind, LocalProtocolError)


def test_every_bit_of_a_header_counts() -> None:
    data = reference.header(DATA, SEED)
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FrameError):
            wire.read_header(changed, SEED)


@pytest.mark.parametrize("view", [bytes, bytearray, memoryview])
def test_any_kind_of_bytes_is_read(view: Any) -> None:
    assert wire.read_header(view(reference.header(DATA, SEED)), SEED) == Frame(**DATA)


@pytest.mark.parametrize("size", [0, 63, 65])
def test_a_header_has_64_bytes(size: int) -> None:
    with pytest.raises(FrameError, match=f"a header of {size} bytes"):
        wire.read_header(bytes(size), SEED)


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("stream", 2**32),
        ("stream", -1),
        ("epoch", 2**32),
        ("sequence", 2**64),
        ("offset", -1),
        ("offset", 2**63),
        ("wire_size", 2**32),
        ("flags", 256),
        ("type", 9),
    ],
)
def test_what_the_peer_would_refuse_is_not_written(name: str, field: str, value: int) -> None:
    frame = Frame(**(GOOD[name] | {field: value}))
    with pytest.raises(FrameMisuseError) as caught:
        wire.write_header(frame, SEED)
    assert isinstance(caught.value, LocalProtocolError)


def test_a_chunk_over_what_was_agreed_is_not_written() -> None:
    frame = Frame(**DATA)
    assert wire.write_header(frame, SEED, frame.raw_size)
    with pytest.raises(FrameMisuseError, match="more than was agreed"):
        wire.write_header(frame, SEED, frame.raw_size - 1)


def test_content_is_checked_without_a_copy() -> None:
    content = bytes(range(256)) * 5
    payload = bytearray(content + wire.content_checksum(content))
    assert payload == reference.payload(content)
    view = wire.check_content(payload)
    assert view == content
    assert view.obj is payload
    payload[700] ^= 1
    with pytest.raises(ChecksumError, match="checksum of 1280 bytes"):
        wire.check_content(payload)


@pytest.mark.parametrize("size", [0, 3, 4])
def test_a_payload_without_content_is_refused(size: int) -> None:
    with pytest.raises(FrameError, match=f"{size} bytes cannot hold"):
        wire.check_content(bytes(size))


def test_content_may_be_memory_of_any_shape() -> None:
    words = memoryview(bytearray(64)).cast("Q")
    words[3] = 2**40
    assert wire.content_checksum(words) == zlib.crc32(words).to_bytes(4, "big")
    payload = bytearray(bytes(words) + wire.content_checksum(words))
    assert wire.check_content(memoryview(payload).cast("I")).nbytes == 64


def test_a_zero_run_ends_where_files_can() -> None:
    room = wire.END_OF_FILES - ZEROS.offset
    assert wire.read_zero_run(ZEROS, wire.write_zero_run(room)) == room
    for size in (0, room + 1, 2**64 - 1):
        with pytest.raises(FrameError, match="a zero run of"):
            wire.read_zero_run(ZEROS, size.to_bytes(8, "big"))
    for length in (0, 7, 9):
        with pytest.raises(FrameError, match=f"{length} bytes of payload"):
            wire.read_zero_run(ZEROS, bytes(length))


@pytest.mark.parametrize("size", [-1, 0, 2**63])
def test_a_zero_run_that_cannot_be_is_not_written(size: int) -> None:
    with pytest.raises(FrameMisuseError):
        wire.write_zero_run(size)


def test_one_to_127_acknowledgements_make_a_payload() -> None:
    ack = Ack(AckKind.READ, 1)
    assert wire.read_acks(wire.write_acks([ack] * 127)) == [ack] * 127
    for count in (0, 128):
        with pytest.raises(FrameMisuseError, match=f"there are {count}"):
            wire.write_acks([ack] * count)
    for size in (0, 31, 33, 128 * 32):
        with pytest.raises(FrameError, match=f"of {size} bytes"):
            wire.read_acks(bytes(size))


@pytest.mark.parametrize(
    "ack",
    [
        Ack(0, 1),
        Ack(AckKind.CHUNK, 0, value=1),
        Ack(AckKind.CHUNK, 2**32, value=1),
        Ack(AckKind.CHUNK, 1, -1, value=1),
        Ack(AckKind.READ, 1, offset=-1),
        Ack(AckKind.REFUSED, 1),
    ],
)
def test_an_acknowledgement_that_would_be_refused_is_not_written(ack: Ack) -> None:
    with pytest.raises(FrameMisuseError):
        wire.write_acks([ack])


def test_an_error_number_that_is_not_known_is_read_as_a_failed_system_call() -> None:
    assert ErrorNumber(6) is ErrorNumber.NOT_FOUND
    assert ErrorNumber(60000) is ErrorNumber.SYSTEM


def test_a_connection_that_begins_with_something_else_names_no_link() -> None:
    with pytest.raises(FrameError, match="a hello of 95 bytes"):
        wire.link_id_of_hello(bytes(95))
    with pytest.raises(FrameError, match="begins with 47455420"):
        wire.link_id_of_hello(b"GET / HTTP/1.1".ljust(112))
    with pytest.raises(FrameError, match="a frame of type 3"):
        wire.link_id_of_hello(reference.header(DATA, SEED) + bytes(48))
    with pytest.raises(FrameError, match="a hello of another size"):
        wire.link_id_of_hello(reference.header(GOOD["HELLO"] | {"wire_size": 33}, SEED) + bytes(48))


@pytest.mark.parametrize(
    ("kind", "link_id", "random"),
    [
        (FrameType.DATA, bytes(16), bytes(16)),
        (FrameType.HELLO, bytes(15), bytes(16)),
        (FrameType.HELLO_ACK, bytes(16), bytes(17)),
    ],
)
def test_a_hello_of_other_parts_is_not_written(
    kind: FrameType, link_id: bytes, random: bytes
) -> None:
    with pytest.raises(FrameMisuseError):
        wire.write_hello(kind, 1, link_id, random, SEED)
