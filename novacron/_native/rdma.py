"""Channels of bounded messages over RDMA; what :mod:`novacron._native.verbs` lists is opened here.

A node makes a channel, exchanges the two sides' figures over its control session, connects, and hands
the channel to the engine, which moves the bytes. :meth:`Channel.send` and :meth:`Channel.receive` copy
each message: they are for the test of a new connection, not for payload.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from novacron._native.ffi import Bytes, Native, NativeInvalidError, Pointer, exactly, native
from novacron.record import Record

GID_BYTES = 16
MOST_MESSAGES = 64
"""That one :meth:`Channel.receive` takes; the descriptor stays readable for the others."""


class Peer(Record):
    """What one side of a channel has to know of the other; no secret, but only for the peer."""

    gid: bytes
    qpn: int
    psn: int
    rkey: int
    slots: int
    slot_bytes: int
    mtu: int
    """In bytes."""
    address: int
    lid: int


class Device:
    """An open RDMA device and port. A context manager that closes it, and its channels first."""

    def __init__(self, loaded: Native, pointer: Pointer) -> None:
        self._native = loaded
        self._pointer = pointer
        self._channels: set[Channel] = set()

    @property
    def name(self) -> str:
        self._check_open()
        return self._native.text(self._native.lib.nc_rdma_device_name(self._pointer))

    @property
    def lost(self) -> bool:
        """It was removed or failed: no channel can be opened on it any more. Close it as soon as its
        channels are closed; some drivers keep whoever removes it waiting until then."""
        self._check_open()
        return bool(self._native.lib.nc_rdma_lost(self._pointer))

    def open_channel(self, slots: int, slot_bytes: int) -> Channel:
        """Register *slots* (2 to 1024) slots of *slot_bytes* (a multiple of 4096) for each direction.
        The caller closes the channel. Blocks while the pages are pinned: call it in a worker thread.

        Raises:
          NativeDeniedError: so much memory may not be locked; the message names the limit.
          NativeInvalidError: no channel can be like that.
          NativeUnavailableError: the device is lost.
          NativeError: the device refused, or the device was closed.
        """
        self._check_open()
        error = self._native.new_error()
        handle = self._native.ffi.new("struct nc_rdma_channel **")
        code = self._native.lib.nc_rdma_channel_open(
            self._pointer, slots, slot_bytes, handle, error
        )
        self._native.check(code, error, f"cannot open an RDMA channel on {self.name}")
        channel = Channel(self._native, self, handle[0], slot_bytes)
        self._channels.add(channel)
        return channel

    @property
    def channels(self) -> int:
        """How many are open and not handed on."""
        return len(self._channels)

    def close(self) -> None:
        """Closes the channels that are left first. The C device goes with the last of those that were
        handed on. Harmless when repeated."""
        for channel in tuple(self._channels):
            channel.close()
        pointer, self._pointer = self._pointer, None
        if pointer is not None:
            self._native.lib.nc_rdma_close(pointer)

    def forget(self, channel: Channel) -> None:
        self._channels.discard(channel)

    def _check_open(self) -> None:
        if self._pointer is None:
            raise NativeInvalidError("the RDMA device is closed")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Channel:
    """A queue pair with its slabs. Used by one thread at a time. A context manager that closes it."""

    def __init__(self, loaded: Native, device: Device, pointer: Pointer, slot_bytes: int) -> None:
        self._native = loaded
        self.device = device
        self._open_pointer = pointer
        self.slot_bytes = slot_bytes
        self.has_room = False
        """What the last :meth:`receive` found out: whether :meth:`send` would find a slot."""

    @property
    def _pointer(self) -> Pointer:
        if self._open_pointer is None:
            raise NativeInvalidError("the RDMA channel is closed, or was handed on")
        return self._open_pointer

    def local(self) -> Peer:
        """Our figures, for the other side."""
        peer = self._native.ffi.new("struct nc_rdma_peer *")
        self._native.lib.nc_rdma_channel_local(self._pointer, peer)
        return Peer(
            bytes(self._native.ffi.buffer(peer.gid)),
            *(getattr(peer, name) for name in Peer._fields[1:]),
        )

    def connect(self, peer: Peer) -> None:
        """Bring the queue pair up, once. Nobody may send before both sides have connected. Blocks for
        as long as the kernel looks for the peer's address: call it in a worker thread.

        Raises:
          NativeInvalidError: the peer's figures make no sense, or the channel was connected before.
          NativeError: the device or the kernel refused.
        """
        exactly(peer.gid, GID_BYTES, "a GID")
        fields: Mapping[str, Any] = peer._asdict()
        try:
            raw = self._native.ffi.new("struct nc_rdma_peer *", {**fields, "gid": list(peer.gid)})
        except OverflowError as exc:
            raise NativeInvalidError("the peer's figures make no sense", why=str(exc)) from exc
        error = self._native.new_error()
        code = self._native.lib.nc_rdma_channel_connect(self._pointer, raw, error)
        self._native.check(code, error, "cannot connect an RDMA channel")

    def fileno(self) -> int:
        """Readable when :meth:`receive` may have something, room or a failure included."""
        return self._native.lib.nc_rdma_channel_fd(self._pointer)

    def send(self, message: Bytes) -> bool:
        """Write *message* into a slot of the other side; False if none is free, here or there.

        Raises:
          NativeInvalidError: it is empty or larger than a slot.
          NativeError: the channel failed and is only good for closing.
        """
        size = len(message)
        if not 0 < size <= self.slot_bytes:
            raise NativeInvalidError(f"a message of {size} bytes in a slot of {self.slot_bytes}")
        slot = self._native.ffi.new("uint32_t *")
        data = self._native.lib.nc_rdma_channel_acquire(self._pointer, slot)
        if data == self._native.ffi.NULL:
            return False
        self._native.ffi.memmove(data, message, size)
        error = self._native.new_error()
        code = self._native.lib.nc_rdma_channel_post(self._pointer, slot[0], size, error)
        self._native.check(code, error, "cannot send over RDMA")
        return True

    def receive(self) -> list[bytes]:
        """The messages that are there, in order, their slots given back; at most :data:`MOST_MESSAGES`.

        Raises:
          NativeProtocolError: the peer broke the rules of the channel.
          NativeError: the channel failed. In both cases it is only good for closing.
        """
        ffi, lib = self._native.ffi, self._native.lib
        error = self._native.new_error()
        messages = ffi.new("struct nc_rdma_message[]", MOST_MESSAGES)
        count, room = ffi.new("size_t *"), ffi.new("int *")
        code = lib.nc_rdma_channel_poll(self._pointer, messages, MOST_MESSAGES, count, room, error)
        self._native.check(code, error, "the RDMA channel failed")
        self.has_room = bool(room[0])
        received = []
        for i in range(count[0]):
            received.append(bytes(ffi.buffer(messages[i].data, messages[i].size)))
            code = lib.nc_rdma_channel_release(self._pointer, messages[i].slot, error)
            self._native.check(code, error, "the RDMA channel failed")
        return received

    def detach(self) -> Pointer:
        """Hand the C channel to somebody who closes it."""
        pointer = self._pointer
        self._open_pointer = None
        self.device.forget(self)
        return pointer

    def close(self) -> None:
        """Harmless when repeated, and after :meth:`detach`."""
        pointer, self._open_pointer = self._open_pointer, None
        if pointer is not None:
            self.device.forget(self)
            self._native.lib.nc_rdma_channel_close(pointer)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def open_device(
    name: str = "", *, port: int = 0, gid_index: int = -1, library: str | None = None
) -> Device:
    """Open an RDMA device; the caller closes it. Blocks for as long as the drivers do, which is seconds
    on a device in trouble: call it in a worker thread.

    Args:
      name: As :func:`novacron._native.verbs.devices` lists it; "": the first with an active port.
      port: 0: the first active one.
      gid_index: -1: the address that routers know best.
      library: File or soname to load instead of ``libibverbs.so.1``.

    Raises:
      NativeUnavailableError: no compiled module, no libibverbs, no RDMA in the kernel, no device with an
        active port and an address, or a kernel on which ``fork()`` would damage what a device writes.
      NativeDeniedError: this process may not open it.
      NativeNotFoundError: there is no such device, port or GID.
    """
    if "\0" in name:
        raise NativeInvalidError(f"{name!r} is not the name of an RDMA device")
    loaded = native()
    error = loaded.new_error()
    handle = loaded.ffi.new("struct nc_rdma **")
    soname = loaded.ffi.NULL if library is None else loaded.ffi.new("char[]", library.encode())
    wanted = loaded.ffi.new("char[]", name.encode())
    options = loaded.ffi.new(
        "struct nc_rdma_options *",
        {"library": soname, "device": wanted, "port": port, "gid_index": gid_index},
    )
    code = loaded.lib.nc_rdma_open(options, handle, error)
    loaded.check(code, error, f"cannot use RDMA device {name}" if name else "cannot use RDMA")
    return Device(loaded, handle[0])
