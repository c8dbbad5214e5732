"""The engine's own parser and key schedule for AMST's frames.

``novacron/dwcp/amst/wire.py`` does the same without the extension; tests hold the two together.
"""

from __future__ import annotations

from novacron._native.ffi import Bytes, Native, Pointer, exactly, native
from novacron.record import Record

HASH_BYTES = 32


class Header(Record):
    """``struct nc_frame``, field by field."""

    type: int
    flags: int
    codec: int
    stream: int
    epoch: int
    sequence: int
    object: int
    generation: int
    offset: int
    raw_size: int
    wire_size: int
    base: int


class Acknowledgement(Record):
    """``struct nc_frame_ack``, field by field."""

    kind: int
    object: int
    generation: int
    offset: int
    value: int


def write_header(header: Header, seed: int) -> bytes:
    """The 64 bytes of *header*, whether the other side would take it or not.

    Raises:
      NativeUnavailableError: there is no compiled module; so for all functions here.
      OverflowError: a field does not fit.
    """
    loaded = native()
    out = bytearray(loaded.lib.NC_FRAME_HEADER_BYTES)
    with loaded.ffi.from_buffer(out) as into:
        loaded.lib.nc_frame_write(loaded.ffi.new("struct nc_frame *", header._asdict()), seed, into)
    return bytes(out)


def read_header(data: Bytes, seed: int, max_chunk: int) -> Header:
    """What 64 bytes say.

    Raises:
      NativeProtocolError: they are no header, or none of this link.
      NativeInvalidError: they are not 64 bytes.
    """
    loaded = native()
    error = loaded.new_error()
    frame = loaded.ffi.new("struct nc_frame *")
    exactly(data, loaded.lib.NC_FRAME_HEADER_BYTES, "a header")
    with loaded.ffi.from_buffer(data) as pointer:
        code = loaded.lib.nc_frame_read(pointer, seed, max_chunk, frame, error)
    loaded.check(code, error, "the peer sent what is no frame of this link")
    return Header(*(getattr(frame, name) for name in Header._fields))


def write_ack(ack: Acknowledgement) -> bytes:
    """The 32 bytes of *ack*, whether the other side would take it or not."""
    loaded = native()
    out = bytearray(loaded.lib.NC_FRAME_ACK_BYTES)
    with loaded.ffi.from_buffer(out) as into:
        loaded.lib.nc_frame_ack_write(loaded.ffi.new("struct nc_frame_ack *", ack._asdict()), into)
    return bytes(out)


def read_ack(data: Bytes) -> Acknowledgement:
    """What 32 bytes say.

    Raises:
      NativeProtocolError: they are no acknowledgement.
      NativeInvalidError: they are not 32 bytes.
    """
    loaded = native()
    error = loaded.new_error()
    ack = loaded.ffi.new("struct nc_frame_ack *")
    exactly(data, loaded.lib.NC_FRAME_ACK_BYTES, "an acknowledgement")
    with loaded.ffi.from_buffer(data) as pointer:
        code = loaded.lib.nc_frame_ack_read(pointer, ack, error)
    loaded.check(code, error, "the peer sent what is no acknowledgement")
    return Acknowledgement(*(getattr(ack, name) for name in Acknowledgement._fields))


def key(
    secret: Bytes, context: Bytes, direction: int, stream: int, epoch: int
) -> tuple[bytes, bytes]:
    """Key (32 bytes) and iv (12) of one epoch of one stream in one direction (0 or 1).

    Raises:
      NativeInvalidError: *secret* or *context* has not 32 bytes, or there is no such direction.
      NativeUnavailableError: no libcrypto.
    """
    loaded = native()
    error = loaded.new_error()
    result = loaded.ffi.new("struct nc_frame_key *")
    with _hash(loaded, secret) as from_secret, _hash(loaded, context) as from_context:
        code = loaded.lib.nc_frame_key(
            from_secret, from_context, direction, stream, epoch, result, error
        )
    loaded.check(code, error, "cannot derive the key of a stream")
    made = bytes(loaded.ffi.buffer(result.key)), bytes(loaded.ffi.buffer(result.iv))
    loaded.lib.nc_crypto_wipe(result, loaded.ffi.sizeof("struct nc_frame_key"))
    return made


def seed(secret: Bytes, context: Bytes) -> int:
    """What the checksums of a link's headers begin with.

    Raises:
      NativeInvalidError: *secret* or *context* has not 32 bytes.
      NativeUnavailableError: no libcrypto.
    """
    loaded = native()
    error = loaded.new_error()
    result = loaded.ffi.new("uint32_t *")
    with _hash(loaded, secret) as from_secret, _hash(loaded, context) as from_context:
        code = loaded.lib.nc_frame_seed(from_secret, from_context, result, error)
    loaded.check(code, error, "cannot derive the seed of a link")
    return int(result[0])


def _hash(loaded: Native, value: Bytes) -> Pointer:
    exactly(value, HASH_BYTES, "a secret or context")
    return loaded.ffi.from_buffer(value)
