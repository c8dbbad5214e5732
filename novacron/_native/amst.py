"""The AMST engine: typed handles on ``native/include/nc_amst.h``.

Handles are numbers (tags) to the C side and objects here; who waits for which event is the business
of :mod:`novacron.dwcp.amst.native`. Calls neither block nor move payload.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import Any

from novacron._native.amst_objects import NOT_CODED, BaseOptions, CodingOptions, ObjectHandle
from novacron._native.ffi import Native, Pointer, native
from novacron._native.hde import CODECS
from novacron._native.rdma import Channel
from novacron.record import Record

EVENTS_AT_ONCE = 64
STREAMS_AT_ONCE = 256
"""The most streams a link may have."""

STATES = {1: "greeting", 2: "open", 3: "retiring"}
MOVERS = {1: "tcp", 2: "rdma"}


class Event(Record):
    kind: str
    """``stream_up``, ``stream_lost``, ``stream_closed``, ``object_done``, ``object_failed``,
    ``object_ended`` or ``link_ended``."""
    code: str
    """Name from the C side's table of errors; ``OK`` where nothing failed."""
    os_errno: int
    refused: bool
    """``object_failed``: the other side said so, and the code is its."""
    link: int
    stream: int
    object: int
    why: str = ""
    """``stream_lost`` over RDMA: the channel's own words."""


_KINDS = (
    "stream_up",
    "stream_lost",
    "stream_closed",
    "object_done",
    "object_failed",
    "object_ended",
    "link_ended",
)


class Engine:
    """Threads that move bytes. :meth:`close` joins them and frees everything that is left: it may
    take a moment, so call it in a worker thread.

    Raises:
      NativeUnavailableError: the extension or libcrypto cannot be used.
      NativeFailureError: no threads or descriptors are to be had.
    """

    def __init__(self, *, threads: int, limit_bps: int = 0, encode_cpu: float = 0.0) -> None:
        self._native = loaded = native()
        error = loaded.new_error()
        ret = loaded.ffi.new("struct nc_amst **")
        options = loaded.ffi.new(
            "struct nc_amst_options *",
            {
                "threads": threads,
                "limit_bps": limit_bps,
                "encode_cpu": max(1, round(encode_cpu * 100)) if encode_cpu else 0,
            },
        )
        code = loaded.lib.nc_amst_open(options, ret, error)
        loaded.check(code, error, "the AMST engine cannot be started")
        self._pointer = ret[0]
        self._events = loaded.ffi.new("struct nc_amst_event[]", EVENTS_AT_ONCE)
        self._kinds = {getattr(loaded.lib, f"NC_AMST_{kind.upper()}"): kind for kind in _KINDS}
        self.event_fd: int = loaded.lib.nc_amst_event_fd(self._pointer)
        """Readable when :meth:`poll` has something. Not to be closed."""

    def poll(self) -> list[Event]:
        loaded = self._native
        count = loaded.lib.nc_amst_poll(self._pointer, self._events, EVENTS_AT_ONCE)
        return [
            Event(
                self._kinds[event.kind],
                loaded.text(loaded.lib.nc_err_name(event.code)),
                event.os_errno,
                bool(event.refused),
                event.link,
                event.stream,
                event.object,
                loaded.text(event.why),
            )
            for event in self._events[0:count]
        ]

    def limit(self, bytes_per_second: int) -> None:
        self._native.lib.nc_amst_limit(self._pointer, bytes_per_second)

    def close(self) -> None:
        pointer, self._pointer = self._pointer, self._native.ffi.NULL
        self._native.lib.nc_amst_close(pointer)

    def open_link(
        self,
        tag: int,
        *,
        link_id: bytes,
        secret: bytes | bytearray,
        context: bytes,
        initiator: bool,
        encrypt: bool,
        max_chunk: int,
        send_window: int,
        receive_window: int,
        codecs: Sequence[str] = ("raw",),
        link_bps: int = 0,
    ) -> LinkHandle:
        """*secret* is copied; the caller wipes its own.

        Raises:
          NativeInvalidError: sizes that make no sense.
        """
        loaded = self._native
        ffi = loaded.ffi
        error = loaded.new_error()
        options = ffi.new("struct nc_amst_link_options *")
        options.tag = tag
        ffi.memmove(options.id, link_id, 16)
        ffi.memmove(options.secret, secret, 32)
        ffi.memmove(options.context, context, 32)
        options.initiator = initiator
        options.encrypt = encrypt
        options.max_chunk = max_chunk
        options.send_window = send_window
        options.receive_window = receive_window
        options.codecs = self._bits(codecs)
        options.link_bps = link_bps
        ret = ffi.new("struct nc_amst_link **")
        try:
            code = loaded.lib.nc_amst_link_open(self._pointer, options, ret, error)
        finally:
            loaded.lib.nc_crypto_wipe(options.secret, 32)
        loaded.check(code, error, "the link cannot be opened")
        return LinkHandle(loaded, ret[0])

    def _bits(self, codecs: Sequence[str]) -> int:
        bits: int = self._native.lib.NC_AMST_DELTA if "delta" in codecs else 0
        for number, name in enumerate(CODECS):
            bits |= (name in codecs) << number
        return bits


class LinkHandle:
    """Free it after ``link_ended`` and after all its objects were freed."""

    def __init__(self, loaded: Native, pointer: Pointer) -> None:
        self._native = loaded
        self._pointer = pointer
        self._info = loaded.ffi.new("struct nc_amst_link_info *")

    def dialled(self, fd: int, stream_id: int) -> None:
        """Hand over a connected socket, which is closed in all cases.

        Raises:
          NativeInvalidError: no TCP socket. NativeClosedError: the link was aborted.
        """
        error = self._native.new_error()
        code = self._native.lib.nc_amst_link_dialled(self._pointer, fd, stream_id, error)
        self._native.check(code, error, "the connection cannot be used")

    def accepted(self, fd: int, hello: bytes) -> None:
        """Likewise, with the greeting that was read from it.

        Raises:
          NativeDeniedError, NativeProtocolError: it does not prove the link's keys.
        """
        error = self._native.new_error()
        code = self._native.lib.nc_amst_link_accepted(self._pointer, fd, hello, len(hello), error)
        self._native.check(code, error, "the connection is refused")

    def rdma(self, channel: Channel, stream_id: int) -> None:
        """Hand over a connected channel, which is closed in all cases, before its device is.

        Raises:
          NativeDeniedError: the stream's id was used before. NativeClosedError: the link was aborted.
        """
        error = self._native.new_error()
        code = self._native.lib.nc_amst_link_rdma(self._pointer, channel.detach(), stream_id, error)
        self._native.check(code, error, "the RDMA channel cannot be used")

    def retire(self, stream_id: int) -> None:
        """Raises NativeNotFoundError where there is no such stream."""
        error = self._native.new_error()
        code = self._native.lib.nc_amst_link_retire(self._pointer, stream_id, error)
        self._native.check(code, error, f"stream {stream_id} cannot be retired")

    def limit(self, bytes_per_second: int) -> None:
        self._native.lib.nc_amst_link_limit(self._pointer, bytes_per_second)

    def pace(self, bytes_per_second: int) -> None:
        self._native.lib.nc_amst_link_pace(self._pointer, bytes_per_second)

    def senders(self, most: int) -> None:
        self._native.lib.nc_amst_link_senders(self._pointer, most)

    def weight(self, priority: int, weight: int) -> None:
        """Raises NativeInvalidError: no class with a weight, or no weight."""
        error = self._native.new_error()
        code = self._native.lib.nc_amst_link_weight(self._pointer, priority, weight, error)
        self._native.check(code, error, "the weight cannot be set")

    def congestion(self, stream_id: int, name: str) -> None:
        """Raises as :func:`novacron._native.tcp.choose`, and NativeNotFoundError where there is no
        such stream over TCP."""
        error = self._native.new_error()
        code = self._native.lib.nc_amst_link_congestion(
            self._pointer, stream_id, name.encode("ascii"), error
        )
        self._native.check(code, error, f"stream {stream_id} cannot use {name!r}")

    def abort(self) -> None:
        self._native.lib.nc_amst_link_abort(self._pointer)

    def free(self) -> None:
        pointer, self._pointer = self._pointer, self._native.ffi.NULL
        self._native.lib.nc_amst_link_free(pointer)

    def info(self) -> Mapping[str, int]:
        self._native.lib.nc_amst_link_info(self._pointer, self._info)
        return {name: getattr(self._info, name) for name in _LINK_FIELDS}

    def streams(self) -> list[dict[str, Any]]:
        """One mapping a stream, with the fields of ``struct nc_amst_stream_info``."""
        loaded = self._native
        streams = loaded.ffi.new("struct nc_amst_stream_info[]", STREAMS_AT_ONCE)
        count = loaded.ffi.new("size_t *")
        loaded.lib.nc_amst_link_streams(self._pointer, streams, STREAMS_AT_ONCE, count)
        found = []
        for stream in streams[0 : min(count[0], STREAMS_AT_ONCE)]:
            fields: dict[str, Any] = {name: getattr(stream, name) for name in _STREAM_FIELDS}
            fields["state"] = STATES[stream.state]
            fields["mover"] = MOVERS[stream.mover]
            fields["congestion"] = loaded.text(stream.congestion)
            fields["ecn"] = bool(stream.ecn)
            fields["app_limited"] = bool(stream.app_limited)
            fields["epoch"] = stream.epoch_sent
            found.append(fields)
        return found

    def send(
        self,
        tag: int,
        number: int,
        generation: int,
        *,
        fd: int | None,
        memory: Any,
        size: int,
        chunk: int,
        priority: int,
        sparse: bool,
        stable: bool,
        limit_bps: int,
        have: bytes | None,
        leaves: array[int] | None,
        coding: CodingOptions = NOT_CODED,
        base: BaseOptions | None = None,
    ) -> ObjectHandle:
        """Raises NativeInvalidError, NativeClosedError."""
        ffi = self._native.ffi
        keep, pointers = self._held(memory, have, leaves)
        held = base.held if base is not None else ()
        ranges = ffi.new("struct nc_amst_range[]", [tuple(one) for one in held])
        source = ffi.new(
            "struct nc_amst_source *",
            {
                "tag": tag,
                "number": number,
                "generation": generation,
                "fd": -1 if fd is None else fd,
                "memory": pointers[0],
                "size": size,
                "chunk": chunk,
                "priority": priority,
                "sparse": sparse,
                "stable": stable,
                "limit_bps": limit_bps,
                "have": pointers[1],
                "leaves": pointers[2],
                "coding": tuple(coding),
                "held": ranges,
                "held_count": len(held),
                **self._base(base),
            },
        )
        return self._object(self._native.lib.nc_amst_send, source, (*keep, base))

    def receive(
        self,
        tag: int,
        number: int,
        generation: int,
        *,
        fd: int | None,
        memory: Any,
        size: int,
        chunk: int,
        sparse: bool,
        have: bytes | None,
        leaves: array[int] | None,
        base: BaseOptions | None = None,
    ) -> ObjectHandle:
        """Raises NativeInvalidError, NativeClosedError."""
        ffi = self._native.ffi
        keep, pointers = self._held(memory, have, leaves)
        target = ffi.new(
            "struct nc_amst_target *",
            {
                "tag": tag,
                "number": number,
                "generation": generation,
                "fd": -1 if fd is None else fd,
                "memory": pointers[0],
                "size": size,
                "chunk": chunk,
                "sparse": sparse,
                "have": pointers[1],
                "leaves": pointers[2],
                **self._base(base),
            },
        )
        return self._object(self._native.lib.nc_amst_receive, target, (*keep, base))

    def _base(self, base: BaseOptions | None) -> dict[str, Any]:
        if base is None:
            return {"base_id": 0, "base_fd": -1}
        ffi = self._native.ffi
        return {
            "base_id": base.id,
            "base_fd": -1 if base.fd is None else base.fd,
            "base_memory": ffi.NULL if base.memory is None else ffi.from_buffer(base.memory),
        }

    def pipe_send(
        self, tag: int, number: int, fd: int, *, chunk: int, priority: int, window: int
    ) -> ObjectHandle:
        """Raises NativeInvalidError, NativeClosedError."""
        loaded = self._native
        error = loaded.new_error()
        ret = loaded.ffi.new("struct nc_amst_object **")
        code = loaded.lib.nc_amst_pipe_send(
            self._pointer, tag, number, fd, chunk, priority, window, ret, error
        )
        loaded.check(code, error, "the byte stream cannot be opened")
        return ObjectHandle(loaded, ret[0], None)

    def pipe_receive(self, tag: int, number: int, fd: int, *, window: int) -> ObjectHandle:
        """Raises NativeInvalidError, NativeClosedError."""
        loaded = self._native
        error = loaded.new_error()
        ret = loaded.ffi.new("struct nc_amst_object **")
        code = loaded.lib.nc_amst_pipe_receive(self._pointer, tag, number, fd, window, ret, error)
        loaded.check(code, error, "the byte stream cannot be opened")
        return ObjectHandle(loaded, ret[0], None)

    def _held(
        self, memory: Any, have: bytes | None, leaves: array[int] | None
    ) -> tuple[tuple[Any, ...], tuple[Pointer, Pointer, Pointer]]:
        """Pointers into what Python owns, and what keeps that alive."""
        ffi = self._native.ffi
        # from_buffer of an empty buffer is a valid address too, which is how an empty object in
        # memory differs from one without memory.
        area = ffi.NULL if memory is None else ffi.from_buffer(memory)
        bits = ffi.NULL if have is None else ffi.from_buffer("uint8_t[]", have)
        sums = ffi.NULL if leaves is None else ffi.from_buffer("uint32_t[]", leaves)
        return (area, memory), (area, bits, sums)

    def _object(self, call: Any, described: Pointer, keep: tuple[Any, ...]) -> ObjectHandle:
        loaded = self._native
        error = loaded.new_error()
        ret = loaded.ffi.new("struct nc_amst_object **")
        code = call(self._pointer, described, ret, error)
        loaded.check(code, error, "the object cannot be moved")
        return ObjectHandle(loaded, ret[0], keep)


_LINK_FIELDS = (
    "sent_bytes",
    "received_bytes",
    "wire_sent_bytes",
    "wire_received_bytes",
    "resent_bytes",
    "duplicate_bytes",
    "hedged_chunks",
    "bad_frames",
    "limited_ns",
    "starved_ns",
    "window_ns",
    "rekeys",
    "in_flight_bytes",
    "streams",
)
_STREAM_FIELDS = (
    "id",
    "sent_bytes",
    "received_bytes",
    "wire_sent_bytes",
    "wire_received_bytes",
    "in_flight_bytes",
    "rtt_us",
    "rttvar_us",
    "min_rtt_us",
    "base_rtt_us",
    "snd_cwnd",
    "snd_mss",
    "unsent_bytes",
    "total_retrans",
    "segments_out",
    "needless_retrans",
    "delivered",
    "delivered_ce",
    "acked_bytes",
    "delivery_rate",
    "pacing_rate",
    "busy_us",
    "rwnd_limited_us",
    "sndbuf_limited_us",
)
