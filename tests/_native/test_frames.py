"""The engine's parser and key schedule, held to the vectors and to the twin in Python."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from novacron._native import crypto, frames
from novacron._native.ffi import (
    NativeError,
    NativeIntegrityError,
    NativeInvalidError,
    NativeProtocolError,
    native,
)
from novacron._native.frames import Acknowledgement, Header
from novacron.dwcp.amst import wire
from tests.dwcp.amst import reference, strategies
from tests.dwcp.amst.vector_files import cases_of
from tests.dwcp.amst.vectors import SEED

ERRORS: dict[str, type[NativeError]] = {
    "PROTOCOL": NativeProtocolError,
    "INTEGRITY": NativeIntegrityError,
}


def cases(name: str) -> list[Any]:
    return [pytest.param(case, id=case["name"]) for case in cases_of(name)]


# --- The vectors ------------------------------------------------------------------------------


@pytest.mark.parametrize("case", cases("headers"))
def test_a_header_has_exactly_the_bytes_of_its_vector(case: dict[str, Any]) -> None:
    header = Header(**case["fields"])
    assert frames.write_header(header, case["seed"]).hex() == case["bytes"]
    data = bytes.fromhex(case["bytes"])
    assert frames.read_header(data, case["seed"], case["max_chunk"]) == header


@pytest.mark.parametrize("case", cases("invalid_headers"))
def test_an_invalid_header_is_refused_for_the_reason_of_its_vector(case: dict[str, Any]) -> None:
    with pytest.raises(ERRORS[case["error"]]) as caught:
        frames.read_header(bytes.fromhex(case["bytes"]), case["seed"], case["max_chunk"])
    assert caught.value.why.startswith(case["reason"])


@pytest.mark.parametrize("case", cases("acks"))
def test_an_acknowledgement_has_exactly_the_bytes_of_its_vector(case: dict[str, Any]) -> None:
    ack = Acknowledgement(**case["fields"])
    assert frames.write_ack(ack).hex() == case["bytes"]
    assert frames.read_ack(bytes.fromhex(case["bytes"])) == ack


@pytest.mark.parametrize("case", cases("invalid_acks"))
def test_an_invalid_acknowledgement_is_refused_for_the_reason_of_its_vector(
    case: dict[str, Any],
) -> None:
    with pytest.raises(ERRORS[case["error"]]) as caught:
        frames.read_ack(bytes.fromhex(case["bytes"]))
    assert caught.value.why.startswith(case["reason"])


def keys_of(case: dict[str, Any], stream: int, epoch: int) -> tuple[bytes, bytes]:
    secret, context = bytes.fromhex(case["secret"]), bytes.fromhex(case["context"])
    return frames.key(secret, context, case["direction"], stream, epoch)


@pytest.mark.parametrize("case", cases("keys"))
def test_a_key_is_that_of_its_vector(case: dict[str, Any]) -> None:
    secret, context = bytes.fromhex(case["secret"]), bytes.fromhex(case["context"])
    key, iv = keys_of(case, case["stream"], case["epoch"])
    assert (key.hex(), iv.hex()) == (case["key"], case["iv"])
    assert frames.seed(secret, context) == case["seed"]


@pytest.mark.parametrize("case", cases("hello"))
def test_the_tag_of_a_hello_covers_all_of_it(case: dict[str, Any]) -> None:
    data = bytearray.fromhex(case["bytes"])
    assert len(data) == native().lib.NC_FRAME_HELLO_BYTES == wire.HELLO_BYTES
    key, iv = keys_of(case, case["stream"], 0)
    with crypto.Aead(key, iv, seal=True) as sealer, crypto.Aead(key, iv, seal=False) as opener:
        assert sealer.seal(0, data[:96], b"") == (b"", bytes(data[96:]))
        assert opener.unseal(0, data[:96], b"", data[96:]) == b""
        for place in range(96):
            data[place] ^= 1
            with pytest.raises(NativeIntegrityError):
                opener.unseal(0, data[:96], b"", data[96:])
            data[place] ^= 1


def opened(case: dict[str, Any]) -> bytes:
    """The payload of a whole sealed frame, as the engine takes it apart."""
    data = bytes.fromhex(case["bytes"])
    seed = frames.seed(bytes.fromhex(case["secret"]), bytes.fromhex(case["context"]))
    header = frames.read_header(data[:64], seed, wire.MAX_CHUNK_BYTES)
    end = 64 + header.wire_size
    assert len(data) == end + wire.TAG_BYTES
    with crypto.Aead(*keys_of(case, header.stream, header.epoch), seal=False) as opener:
        return opener.unseal(header.sequence, data[:64], data[64:end], data[end:])


@pytest.mark.parametrize("case", cases("sealed"))
def test_a_sealed_frame_opens_to_its_payload_and_is_sealed_to_the_same_bytes(
    case: dict[str, Any],
) -> None:
    data, clear = bytes.fromhex(case["bytes"]), bytes.fromhex(case["payload"])
    assert opened(case) == clear
    seed = frames.seed(bytes.fromhex(case["secret"]), bytes.fromhex(case["context"]))
    header = frames.read_header(data[:64], seed, wire.MAX_CHUNK_BYTES)
    with crypto.Aead(*keys_of(case, header.stream, header.epoch), seal=True) as sealer:
        assert data[:64] + b"".join(sealer.seal(header.sequence, data[:64], clear)) == data


@pytest.mark.parametrize("case", cases("forged"))
def test_a_forged_frame_does_not_open(case: dict[str, Any]) -> None:
    with pytest.raises(ERRORS[case["error"]]):
        opened(case)


# --- The twin ---------------------------------------------------------------------------------


def read_by_both(read: Any, twin: Any) -> tuple[Any, Any, str, str]:
    """What each read, or why it did not."""
    value = other = None
    why = other_why = ""
    try:
        value = read()
    except NativeProtocolError as exc:
        why = exc.why
    try:
        other = twin()
    except wire.FrameError as exc:
        other_why = exc.why
    return value, other, why, other_why


@settings(max_examples=1500)
@given(strategies.headers(SEED), strategies.MAX_CHUNK)
def test_both_parsers_agree_on_every_header_and_on_every_field_of_it(
    data: bytes, max_chunk: int
) -> None:
    header, frame, why, other_why = read_by_both(
        lambda: frames.read_header(data, SEED, max_chunk),
        lambda: wire.read_header(data, SEED, max_chunk),
    )
    assert why == other_why
    assert (header is None) == (frame is None)
    if header is not None:
        assert header._asdict() == frame._asdict()
        assert frames.write_header(header, SEED) == wire.write_header(frame, SEED) == data


@settings(max_examples=1000)
@given(strategies.ACK_BYTES)
def test_both_parsers_agree_on_every_acknowledgement(data: bytes) -> None:
    ack, acks, why, other_why = read_by_both(
        lambda: frames.read_ack(data), lambda: wire.read_acks(data)
    )
    assert why == other_why
    assert (ack is None) == (acks is None)
    if ack is not None:
        assert ack._asdict() == acks[0]._asdict()
        assert frames.write_ack(ack) == data


@given(strategies.FIELDS, st.integers(0, 2**32 - 1))
def test_a_header_is_written_as_the_specification_says(fields: dict[str, int], seed: int) -> None:
    assert frames.write_header(Header(**fields), seed) == reference.header(fields, seed)


@given(
    st.binary(min_size=32, max_size=32),
    st.binary(min_size=32, max_size=32),
    st.sampled_from([0, 1]),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
)
def test_keys_are_derived_as_the_specification_says(
    secret: bytes, context: bytes, direction: int, stream: int, epoch: int
) -> None:
    made = frames.key(secret, context, direction, stream, epoch)
    assert made == reference.key(secret, context, direction, stream, epoch)
    assert frames.seed(secret, context) == reference.seed(secret, context)


def test_both_sides_have_the_same_numbers() -> None:
    loaded = native()
    lib = loaded.lib
    assert lib.NC_FRAME_HEADER_BYTES == wire.HEADER_BYTES
    assert lib.NC_FRAME_ACK_BYTES == wire.ACK_BYTES
    assert lib.NC_FRAME_MIN_CHUNK == wire.MIN_CHUNK_BYTES
    assert lib.NC_FRAME_MAX_CHUNK == wire.MAX_CHUNK_BYTES
    assert lib.NC_FRAME_MAX_CONTROL == wire.MAX_CONTROL_BYTES
    assert lib.NC_FRAME_MAX_ACKS == wire.MAX_ACKS
    assert lib.NC_FRAME_EPOCH_FRAMES == wire.EPOCH_FRAMES
    assert lib.NC_FRAME_EPOCH_BYTES == wire.EPOCH_BYTES
    assert lib.NC_CRYPTO_TAG_BYTES == wire.TAG_BYTES == crypto.TAG_BYTES
    assert lib.NC_CRYPTO_KEY_BYTES == crypto.KEY_BYTES
    assert lib.NC_CRYPTO_NONCE_BYTES == crypto.NONCE_BYTES
    assert lib.NC_CRYPTO_HASH_BYTES == crypto.HASH_BYTES == frames.HASH_BYTES


def test_error_numbers_are_the_same_on_both_sides() -> None:
    loaded = native()
    names = {
        loaded.text(loaded.lib.nc_err_name(code)): loaded.lib.nc_frame_error_number(code)
        for code in range(1, loaded.lib.nc_err_count())
    }
    assert names == {number.name: number.value for number in wire.ErrorNumber}


def test_what_has_another_size_is_refused() -> None:
    with pytest.raises(NativeInvalidError, match="a header has 64 bytes, not 63"):
        frames.read_header(bytes(63), SEED, wire.MAX_CHUNK_BYTES)
    with pytest.raises(NativeInvalidError, match="an acknowledgement has 32 bytes, not 33"):
        frames.read_ack(bytes(33))
    with pytest.raises(NativeInvalidError, match="has 32 bytes, not 31"):
        frames.key(bytes(31), bytes(32), 0, 0, 0)
    with pytest.raises(NativeInvalidError, match="has 32 bytes, not 33"):
        frames.seed(bytes(32), bytes(33))
    with pytest.raises(NativeInvalidError, match="direction 2"):
        frames.key(bytes(32), bytes(32), 2, 0, 0)
