"""Loads the compiled module once and turns its error codes into exceptions."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, cast

from novacron.errors import (
    DeniedError,
    InvalidError,
    LimitError,
    NativeError,
    NotFoundError,
    RemoteProtocolError,
    TransientError,
    UnavailableError,
)

if TYPE_CHECKING:
    from types import ModuleType

ABI = 3
"""What ``nc_abi()`` of a module that fits this code says; see ``native/include/nc_err.h``."""

MODULE = "novacron._native._nc"

Pointer = Any
"""A cffi pointer or structure. cffi checks at the call what mypy cannot see."""


Bytes = bytes | bytearray | memoryview
"""What C reads through ``ffi.from_buffer``: no copy, and the owner keeps it alive for the call."""


class NativeUnavailableError(NativeError, UnavailableError):
    """The compiled module, or what it needs of the machine, is not there."""

    code = "native.unavailable"


class NativeDeniedError(NativeError, DeniedError):
    """The kernel does not let this process do that."""

    code = "native.denied"


class NativeInvalidError(NativeError, InvalidError):
    """The argument makes no sense to the kernel or the library."""

    code = "native.invalid"


class NativeNotFoundError(NativeError, NotFoundError):
    """The kernel does not know the named thing."""

    code = "native.not_found"


class NativeLimitError(NativeError, LimitError):
    """The answer does not fit in the buffer that was made for it."""

    code = "native.limit"


class NativeMemoryError(NativeError, TransientError):
    """The C side could not allocate memory."""

    code = "native.memory"


class NativeFailureError(NativeError):
    """A system call failed in a way that has no better name."""

    code = "native.system"


class NativeProtocolError(NativeError, RemoteProtocolError):
    """The peer said something the protocol forbids."""

    code = "native.protocol"


class NativeIntegrityError(NativeError, RemoteProtocolError):
    """A tag or a checksum does not hold."""

    code = "native.integrity"


class NativeClosedError(NativeError, TransientError):
    """The thing was closed, here or over there."""

    code = "native.closed"


class NativeTimeoutError(NativeError, TransientError):
    """No answer in time."""

    code = "native.timeout"


CLASSES: dict[str, type[NativeError]] = {
    "MEMORY": NativeMemoryError,
    "UNAVAILABLE": NativeUnavailableError,
    "DENIED": NativeDeniedError,
    "INVALID": NativeInvalidError,
    "NOT_FOUND": NativeNotFoundError,
    "LIMIT": NativeLimitError,
    "SYSTEM": NativeFailureError,
    "PROTOCOL": NativeProtocolError,
    "INTEGRITY": NativeIntegrityError,
    "CLOSED": NativeClosedError,
    "TIMEOUT": NativeTimeoutError,
}
"""By the names of ``NC_ERR_TABLE``; the numbers are private to one build."""


class Library(Protocol):
    """The functions of ``native/cdef``, so that mypy sees through cffi."""

    NC_AMST_STREAM_UP: int
    NC_AMST_STREAM_LOST: int
    NC_AMST_STREAM_CLOSED: int
    NC_AMST_OBJECT_DONE: int
    NC_AMST_OBJECT_FAILED: int
    NC_AMST_OBJECT_ENDED: int
    NC_AMST_LINK_ENDED: int
    NC_AMST_DELTA: int
    NC_TCP_NAME_BYTES: int
    NC_TCP_AVAILABLE: int
    NC_TCP_ALLOWED: int
    NC_TCP_DEFAULT: int
    NC_CRYPTO_KEY_BYTES: int
    NC_CRYPTO_NONCE_BYTES: int
    NC_CRYPTO_TAG_BYTES: int
    NC_CRYPTO_HASH_BYTES: int
    NC_DELTA_SPARE: int
    NC_FRAME_HEADER_BYTES: int
    NC_FRAME_ACK_BYTES: int
    NC_FRAME_HELLO_BYTES: int
    NC_FRAME_MIN_CHUNK: int
    NC_FRAME_MAX_CHUNK: int
    NC_FRAME_MAX_CONTROL: int
    NC_FRAME_MAX_ACKS: int
    NC_FRAME_EPOCH_FRAMES: int
    NC_FRAME_EPOCH_BYTES: int

    def nc_abi(self, /) -> int: ...
    def nc_err_count(self, /) -> int: ...
    def nc_err_name(self, code: int, /) -> Pointer: ...
    def nc_err_text(self, code: int, /) -> Pointer: ...
    def nc_clock_read(self, ret_clock: Pointer, err: Pointer, /) -> int: ...
    def nc_tcp_list(self, which: int, ret_text: Pointer, size: int, err: Pointer, /) -> int: ...
    def nc_tcp_probe(self, name: bytes, err: Pointer, /) -> int: ...
    def nc_tcp_set(self, fd: int, name: bytes, err: Pointer, /) -> int: ...
    def nc_tcp_get(self, fd: int, ret_name: Pointer, size: int, err: Pointer, /) -> int: ...
    def nc_tcp_info(self, fd: int, ret_info: Pointer, err: Pointer, /) -> int: ...
    def nc_verbs_open(self, soname: bytes | Pointer, ret: Pointer, err: Pointer, /) -> int: ...
    def nc_verbs_close(self, verbs: Pointer, /) -> None: ...
    def nc_verbs_count(self, verbs: Pointer, /) -> int: ...
    def nc_verbs_device(self, verbs: Pointer, index: int, ret: Pointer, err: Pointer, /) -> int: ...
    def nc_verbs_ports(
        self, verbs: Pointer, index: int, ret: Pointer, size: int, count: Pointer, err: Pointer, /
    ) -> int: ...
    def nc_verbs_speed_bps(self, width_code: int, speed_code: int, /) -> int: ...
    def nc_rdma_open(self, options: Pointer, ret_rdma: Pointer, err: Pointer, /) -> int: ...
    def nc_rdma_close(self, rdma: Pointer, /) -> None: ...
    def nc_rdma_lost(self, rdma: Pointer, /) -> int: ...
    def nc_rdma_device_name(self, rdma: Pointer, /) -> Pointer: ...
    def nc_rdma_channel_open(
        self, rdma: Pointer, slots: int, slot_bytes: int, ret_channel: Pointer, err: Pointer, /
    ) -> int: ...
    def nc_rdma_channel_close(self, channel: Pointer, /) -> None: ...
    def nc_rdma_channel_local(self, channel: Pointer, ret_peer: Pointer, /) -> None: ...
    def nc_rdma_channel_connect(self, channel: Pointer, peer: Pointer, err: Pointer, /) -> int: ...
    def nc_rdma_channel_fd(self, channel: Pointer, /) -> int: ...
    def nc_rdma_channel_acquire(self, channel: Pointer, ret_slot: Pointer, /) -> Pointer: ...
    def nc_rdma_channel_discard(self, channel: Pointer, slot: int, /) -> None: ...
    def nc_rdma_channel_post(
        self, channel: Pointer, slot: int, size: int, err: Pointer, /
    ) -> int: ...
    def nc_rdma_channel_poll(
        self,
        channel: Pointer,
        ret_messages: Pointer,
        capacity: int,
        ret_count: Pointer,
        ret_room: Pointer,
        err: Pointer,
        /,
    ) -> int: ...
    def nc_rdma_channel_release(self, channel: Pointer, slot: int, err: Pointer, /) -> int: ...
    def nc_crc32(self, crc: int, data: Pointer, size: int, /) -> int: ...
    def nc_crc32_zeros(self, crc: int, size: int, /) -> int: ...
    def nc_crc32_kernel(self, /) -> Pointer: ...
    def nc_crc32_tables(self, crc: int, data: Pointer, size: int, /) -> int: ...
    def nc_crypto_load(self, soname: bytes | Pointer, err: Pointer, /) -> int: ...
    def nc_crypto_version(self, /) -> Pointer: ...
    def nc_aead_open(
        self, key: Pointer, iv: Pointer, seal: int, ret: Pointer, err: Pointer, /
    ) -> int: ...
    def nc_aead_close(self, aead: Pointer, /) -> None: ...
    def nc_aead_seal(
        self,
        aead: Pointer,
        sequence: int,
        aad: Pointer,
        aad_size: int,
        data: Pointer,
        size: int,
        out: Pointer,
        ret_tag: Pointer,
        err: Pointer,
        /,
    ) -> int: ...
    def nc_aead_unseal(
        self,
        aead: Pointer,
        sequence: int,
        aad: Pointer,
        aad_size: int,
        data: Pointer,
        size: int,
        out: Pointer,
        tag: Pointer,
        err: Pointer,
        /,
    ) -> int: ...
    def nc_hkdf_expand(
        self, prk: Pointer, info: Pointer, info_size: int, ret: Pointer, size: int, err: Pointer, /
    ) -> int: ...
    def nc_hkdf_extract(
        self,
        salt: Pointer,
        salt_size: int,
        material: Pointer,
        size: int,
        ret: Pointer,
        err: Pointer,
        /,
    ) -> int: ...
    def nc_crypto_wipe(self, data: Pointer, size: int, /) -> None: ...
    def nc_codec_load(self, id: int, soname: bytes | Pointer, err: Pointer, /) -> int: ...
    def nc_codec_available(self, /) -> int: ...
    def nc_codec_version(self, id: int, /) -> Pointer: ...
    def nc_codec_missing(self, id: int, /) -> Pointer: ...
    def nc_codec_open(self, ret_codec: Pointer, err: Pointer, /) -> int: ...
    def nc_codec_close(self, codec: Pointer, /) -> None: ...
    def nc_codec_memory(self, codec: Pointer, /) -> int: ...
    def nc_codec_encode(
        self,
        codec: Pointer,
        id: int,
        level: int,
        content: Pointer,
        size: int,
        ret_coded: Pointer,
        capacity: int,
        ret_size: Pointer,
        err: Pointer,
        /,
    ) -> int: ...
    def nc_codec_decode(
        self,
        codec: Pointer,
        id: int,
        coded: Pointer,
        coded_size: int,
        ret_content: Pointer,
        size: int,
        err: Pointer,
        /,
    ) -> int: ...
    def nc_delta_encode(
        self, content: Pointer, base: Pointer, size: int, ret_delta: Pointer, capacity: int, /
    ) -> int: ...
    def nc_delta_decode(
        self,
        delta: Pointer,
        delta_size: int,
        base: Pointer,
        ret_content: Pointer,
        size: int,
        err: Pointer,
        /,
    ) -> int: ...
    def nc_is_zero(self, data: Pointer, size: int, /) -> bool: ...
    def nc_cdc_check(self, cdc: Pointer, err: Pointer, /) -> int: ...
    def nc_cdc_ends(
        self,
        cdc: Pointer,
        data: Pointer,
        size: int,
        last: bool,
        ret_ends: Pointer,
        capacity: int,
        /,
    ) -> int: ...
    def nc_frame_write(self, frame: Pointer, seed: int, ret_header: Pointer, /) -> None: ...
    def nc_frame_read(
        self, header: Pointer, seed: int, max_chunk: int, ret_frame: Pointer, err: Pointer, /
    ) -> int: ...
    def nc_frame_ack_write(self, ack: Pointer, ret_bytes: Pointer, /) -> None: ...
    def nc_frame_ack_read(self, data: Pointer, ret_ack: Pointer, err: Pointer, /) -> int: ...
    def nc_frame_error_number(self, code: int, /) -> int: ...
    def nc_frame_error_code(self, number: int, /) -> int: ...
    def nc_frame_key(
        self,
        secret: Pointer,
        context: Pointer,
        direction: int,
        stream: int,
        epoch: int,
        ret_key: Pointer,
        err: Pointer,
        /,
    ) -> int: ...
    def nc_frame_seed(
        self, secret: Pointer, context: Pointer, ret_seed: Pointer, err: Pointer, /
    ) -> int: ...

    def nc_amst_open(self, options: Pointer, ret_engine: Pointer, err: Pointer, /) -> int: ...
    def nc_amst_close(self, engine: Pointer, /) -> None: ...
    def nc_amst_event_fd(self, engine: Pointer, /) -> int: ...
    def nc_amst_limit(self, engine: Pointer, limit_bps: int, /) -> None: ...
    def nc_amst_poll(self, engine: Pointer, ret_events: Pointer, capacity: int, /) -> int: ...
    def nc_amst_link_open(
        self, engine: Pointer, options: Pointer, ret_link: Pointer, err: Pointer, /
    ) -> int: ...
    def nc_amst_link_dialled(
        self, link: Pointer, fd: int, stream_id: int, err: Pointer, /
    ) -> int: ...
    def nc_amst_link_accepted(
        self, link: Pointer, fd: int, hello: bytes, size: int, err: Pointer, /
    ) -> int: ...
    def nc_amst_link_rdma(
        self, link: Pointer, channel: Pointer, stream_id: int, err: Pointer, /
    ) -> int: ...
    def nc_amst_link_retire(self, link: Pointer, stream_id: int, err: Pointer, /) -> int: ...
    def nc_amst_link_limit(self, link: Pointer, limit_bps: int, /) -> None: ...
    def nc_amst_link_pace(self, link: Pointer, pace_bps: int, /) -> None: ...
    def nc_amst_link_senders(self, link: Pointer, most: int, /) -> None: ...
    def nc_amst_link_weight(
        self, link: Pointer, priority: int, weight: int, err: Pointer, /
    ) -> int: ...
    def nc_amst_link_congestion(
        self, link: Pointer, stream_id: int, name: bytes, err: Pointer, /
    ) -> int: ...
    def nc_amst_link_abort(self, link: Pointer, /) -> None: ...
    def nc_amst_link_free(self, link: Pointer, /) -> None: ...
    def nc_amst_link_info(self, link: Pointer, ret_info: Pointer, /) -> None: ...
    def nc_amst_link_streams(
        self, link: Pointer, ret_streams: Pointer, capacity: int, ret_count: Pointer, /
    ) -> None: ...
    def nc_amst_send(
        self, link: Pointer, source: Pointer, ret_object: Pointer, err: Pointer, /
    ) -> int: ...
    def nc_amst_receive(
        self, link: Pointer, target: Pointer, ret_object: Pointer, err: Pointer, /
    ) -> int: ...
    def nc_amst_object_pause(self, object: Pointer, paused: bool, /) -> None: ...
    def nc_amst_object_limit(self, object: Pointer, limit_bps: int, /) -> None: ...
    def nc_amst_object_priority(self, object: Pointer, priority: int, /) -> None: ...
    def nc_amst_object_abort(self, object: Pointer, /) -> None: ...
    def nc_amst_object_free(self, object: Pointer, /) -> None: ...
    def nc_amst_object_info(self, object: Pointer, ret_info: Pointer, /) -> None: ...
    def nc_amst_object_coding(self, object: Pointer, ret_info: Pointer, /) -> None: ...
    def nc_amst_object_bitmap(
        self, object: Pointer, ret_bits: Pointer, size: int, err: Pointer, /
    ) -> int: ...
    def nc_amst_object_leaves(
        self, object: Pointer, first: int, count: int, ret_leaves: Pointer, err: Pointer, /
    ) -> int: ...
    def nc_amst_pipe_send(
        self,
        link: Pointer,
        tag: int,
        number: int,
        fd: int,
        chunk: int,
        priority: int,
        window: int,
        ret_object: Pointer,
        err: Pointer,
        /,
    ) -> int: ...
    def nc_amst_pipe_receive(
        self,
        link: Pointer,
        tag: int,
        number: int,
        fd: int,
        window: int,
        ret_object: Pointer,
        err: Pointer,
        /,
    ) -> int: ...


class Native:
    """The loaded module: ``ffi`` makes C data, ``lib`` has the functions."""

    # Not cffi's own FFI type: its structures have no fields, which is all we want of them.
    def __init__(self, ffi: Any, lib: Library) -> None:
        self.ffi = ffi
        self.lib = lib

    def new_error(self) -> Pointer:
        return self.ffi.new("struct nc_err *")

    def text(self, pointer: Pointer) -> str:
        """A zero-terminated C string; what is not UTF-8 is shown, not refused."""
        return bytes(self.ffi.string(pointer)).decode("utf-8", "backslashreplace")

    def check(self, code: int, error: Pointer, what: str) -> None:
        """Raise the class of *code*, unless it is OK.

        Raises:
          NativeError: a subclass from :data:`CLASSES`, with *what* failed and the C side's reason.
        """
        if code:
            self._fail(code, error, what)

    def _fail(self, code: int, error: Pointer, what: str) -> NoReturn:
        name = self.text(self.lib.nc_err_name(code))
        why = self.text(error.reason) or self.text(self.lib.nc_err_text(code))
        if error.os_errno:
            why += f" ({os.strerror(error.os_errno)}, errno {error.os_errno})"
        raise CLASSES.get(name, NativeFailureError)(what, why=why)


_native: Native | None = None


def native() -> Native:
    """The compiled module, loaded at the first call (a few milliseconds).

    Raises:
      NativeUnavailableError: it was not built, does not load here, or was built from other sources. The
        next call tries again.
    """
    global _native
    if _native is None:
        try:
            module = importlib.import_module(MODULE)
        except ImportError as exc:
            raise _unavailable(str(exc)) from exc
        _native = _fitting(module)
    return _native


def _fitting(module: ModuleType) -> Native:
    lib = cast("Library", module.lib)
    found = lib.nc_abi() if hasattr(lib, "nc_abi") else None
    if found != ABI:
        raise _unavailable(f"it was built from other sources (interface {found}, not {ABI})")
    return Native(module.ffi, lib)


def _unavailable(why: str) -> NativeUnavailableError:
    return NativeUnavailableError(
        "the compiled part of NovaCron (novacron._native._nc) cannot be used",
        why=why,
        remedy="run `make install` in the checkout, or install a wheel made for this platform",
    )


def exactly(value: Bytes, size: int, what: str) -> None:
    """Refuse *value* unless it has *size* bytes: the C side reads that many, whatever is there.

    Raises:
      NativeInvalidError: it has not.
    """
    if len(value) != size:
        raise NativeInvalidError(f"{what} has {size} bytes, not {len(value)}")
