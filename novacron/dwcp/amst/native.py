"""The seam over the C engine: links of many TCP or RDMA streams.

One task waits on the engine's descriptor and wakes whoever an event is for; nothing here runs for
each chunk. To join two engines in one process, open a link on each with the same id, secret and
context (one as the initiator), connect a socket pair over loopback, give one end to
:meth:`NativeLink.add_dialled`, read :data:`~novacron.dwcp.amst.wire.HELLO_BYTES` bytes from the
other and give both to :meth:`NativeLink.add_accepted`.
"""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Sequence
from typing import Any, Final

import trio

from novacron._native.amst import Engine, Event, LinkHandle
from novacron._native.ffi import NativeNotFoundError
from novacron._native.rdma import Channel
from novacron.dwcp.amst.errors import (
    LinkLostError,
    StreamDeniedError,
)
from novacron.dwcp.amst.native_moving import (
    NativeMoving,
    base_options,
    coding_options,
    reason_of,
)
from novacron.dwcp.amst.transport import (
    Have,
    LinkCounters,
    LinkStatistics,
    Source,
    StreamStatistics,
    Target,
    chunk_count,
)
from novacron.errors import DwcpError, NativeError
from novacron.record import Record

STREAM_EVENTS: Final = 1024
"""Stream events that wait to be read. A link has at most 256 streams, and one that nobody redials
makes no new ones; what does not fit even so is dropped, since :meth:`NativeLink.streams` tells."""

_LOSSES: Final = {
    "PROTOCOL": "the peer broke the protocol",
    "INTEGRITY": "a frame did not arrive as it was sent",
    "DENIED": "the peer did not prove the link's keys",
    "TIMEOUT": "the peer did not answer in time",
    "MEMORY": "out of memory",
    "CLOSED": "the connection was closed",
}


class StreamEvent(Record):
    kind: str
    """``up``, ``lost`` or ``closed``."""
    stream_id: int
    reason: str
    """Why it was lost."""


class NativeEngine:
    """The engine of a node. Made by :meth:`open`, ended by :meth:`aclose`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._tags = itertools.count(1)
        self._links: dict[int, NativeLink] = {}
        self._objects: dict[int, NativeMoving] = {}
        self._listening = False
        self._heard = trio.lowlevel.ParkingLot()
        self._pumping = trio.CancelScope()
        self._closed = False

    @classmethod
    async def open(
        cls, nursery: trio.Nursery, *, threads: int, limit_bps: int = 0, encode_cpu: float = 0.0
    ) -> NativeEngine:
        """Start the threads, and the task that listens to them in *nursery*.

        Args:
          encode_cpu: Cores that encoding may use; 0: as many as there are threads.

        Raises:
          NativeError: the extension or libcrypto cannot be used, or there are no threads to be had.
        """
        engine = await trio.to_thread.run_sync(
            lambda: Engine(threads=threads, limit_bps=limit_bps, encode_cpu=encode_cpu)
        )
        self = cls(engine)
        await nursery.start(self._pump)
        return self

    def limit(self, bytes_per_second: int) -> None:
        self._engine.limit(bytes_per_second)

    def open_link(
        self,
        *,
        peer: str,
        link_id: bytes,
        secret: bytes | bytearray,
        context: bytes,
        initiator: bool,
        encrypt: bool,
        max_chunk_bytes: int,
        send_window: int,
        receive_window: int,
        codecs: Sequence[str] = ("raw",),
        link_bps: int = 0,
    ) -> NativeLink:
        """The caller wipes its *secret*, and closes the link.

        Args:
          codecs: What both ends can decode.
          link_bps: Bytes a second that the path is expected to take; 0: not known.

        Raises:
          NativeError: sizes that make no sense.
        """
        tag = next(self._tags)
        handle = self._engine.open_link(
            tag,
            link_id=link_id,
            secret=secret,
            context=context,
            initiator=initiator,
            encrypt=encrypt,
            max_chunk=max_chunk_bytes,
            send_window=send_window,
            receive_window=receive_window,
            codecs=codecs,
            link_bps=link_bps,
        )
        link = NativeLink(self, tag, handle, peer, link_id, encrypt, max_chunk_bytes, tuple(codecs))
        self._links[tag] = link
        return link

    async def aclose(self) -> None:
        """End every link, then the threads. Harmless when repeated."""
        if self._closed:
            return
        self._closed = True
        with trio.CancelScope(shield=True):
            for link in list(self._links.values()):
                await link.aclose()
            self._pumping.cancel()
            await trio.to_thread.run_sync(self._engine.close)

    async def _pump(self, *, task_status: trio.TaskStatus[None]) -> None:
        with self._pumping:
            task_status.started()
            while True:
                await self._listen()

    async def _listen(self) -> None:
        """Return when something that the engine said was passed on, by this task or another one."""
        if self._listening:
            await self._heard.park()
            return
        self._listening = True
        try:
            await trio.lowlevel.wait_readable(self._engine.event_fd)
            for event in self._engine.poll():
                self._dispatch(event)
        finally:
            self._listening = False
            # All of them: what was said may be for any, and one of the others has to listen now.
            self._heard.unpark_all()

    async def _until(self, said: trio.Event) -> None:
        """Wait for *said*, which the engine's events set. Those who close what moves wait so, also
        while everything around them is cancelled, the task that listens for all among it."""
        while not said.is_set():
            await self._listen()

    def _dispatch(self, event: Event) -> None:
        if event.object:
            moving = self._objects.get(event.object)
            if moving is not None:
                moving._take(event)
            return
        link = self._links.get(event.link)
        if link is not None:
            link._take(event)


class NativeLink:
    """A :class:`~novacron.dwcp.amst.transport.Link`; made by :meth:`NativeEngine.open_link`."""

    protocol: int = 3

    def __init__(
        self,
        engine: NativeEngine,
        tag: int,
        handle: LinkHandle,
        peer: str,
        link_id: bytes,
        encrypted: bool,
        max_chunk_bytes: int,
        codecs: tuple[str, ...],
    ) -> None:
        self.peer = peer
        self.codecs = codecs
        self.link_id = link_id
        self.encrypted = encrypted
        self.max_chunk_bytes = max_chunk_bytes
        self.mover = "tcp"
        self._engine = engine
        self._tag = tag
        self._handle = handle
        self._objects: set[NativeMoving] = set()
        self._over = trio.Event()
        self._gone = trio.Event()
        self._closing = False
        self._reason: DwcpError | None = None
        self._say, self.stream_events = trio.open_memory_channel[StreamEvent](STREAM_EVENTS)

    @property
    def busy(self) -> bool:
        """Something is on its way, or was and is not closed."""
        return bool(self._objects)

    @property
    def sends(self) -> bool:
        """This end has something to send that is not through."""
        return any(moving.sends for moving in self._objects)

    # Streams -------------------------------------------------------------------------------

    def add_dialled(self, sock: socket.socket, stream_id: int) -> None:
        """Take over a connected socket; the link's initiator says its greeting on it.

        Raises:
          LinkLostError: the link has ended. The socket is closed all the same.
        """
        fd = sock.detach()
        if self._closing:
            os.close(fd)
            raise self._lost()
        try:
            self._handle.dialled(fd, stream_id)
        except NativeError as exc:
            raise LinkLostError("a connection cannot be used", why=exc.why) from exc

    def add_accepted(self, sock: socket.socket, hello: bytes) -> None:
        """Take over a connection and the greeting that was read from it.

        Raises:
          StreamDeniedError: it does not prove this link's keys. The socket is closed all the same.
        """
        fd = sock.detach()
        if self._closing:
            os.close(fd)
            raise self._lost()
        try:
            self._handle.accepted(fd, hello)
        except NativeError as exc:
            raise StreamDeniedError("a connection was refused", why=exc.why) from exc

    def add_rdma(self, channel: Channel, stream_id: int) -> None:
        """Take over a connected RDMA channel; the initiator's end says its greeting on it.

        Raises:
          LinkLostError: the link has ended, or the stream's id was used before. The channel is closed
            all the same.
        """
        if self._closing:
            channel.close()
            raise self._lost()
        try:
            self._handle.rdma(channel, stream_id)
        except NativeError as exc:
            raise LinkLostError("an RDMA channel cannot be used", why=exc.why) from exc

    def retire(self, stream_id: int) -> None:
        """Let a stream end when what it carries has arrived; one that is gone already is no error."""
        if self._closing:
            return
        try:
            self._handle.retire(stream_id)
        except NativeError:
            return

    def streams(self) -> list[StreamStatistics]:
        if self._gone.is_set():
            return []
        return [StreamStatistics(**fields) for fields in self._handle.streams()]

    def counters(self) -> LinkCounters:
        if self._gone.is_set():
            return LinkCounters()
        return LinkCounters(**self._handle.info())

    # The seam ------------------------------------------------------------------------------

    def send_object(
        self,
        number: int,
        generation: int,
        source: Source,
        *,
        chunk_bytes: int,
        priority: int = 1,
        limit_bps: int = 0,
        have: Have | None = None,
    ) -> NativeMoving:
        return self._start(
            "sending",
            chunk_count(source.size, chunk_bytes),
            lambda tag: self._handle.send(
                tag,
                number,
                generation,
                fd=source.fd,
                memory=source.memory,
                size=source.size,
                chunk=chunk_bytes,
                priority=priority,
                sparse=source.sparse,
                stable=source.stable,
                limit_bps=limit_bps,
                have=None if have is None else have.bits,
                leaves=None if have is None else have.leaves,
                coding=coding_options(source.coding),
                base=base_options(source.base),
            ),
        )

    def receive_object(
        self,
        number: int,
        generation: int,
        target: Target,
        *,
        chunk_bytes: int,
        have: Have | None = None,
    ) -> NativeMoving:
        return self._start(
            "receiving",
            chunk_count(target.size, chunk_bytes),
            lambda tag: self._handle.receive(
                tag,
                number,
                generation,
                fd=target.fd,
                memory=target.memory,
                size=target.size,
                chunk=chunk_bytes,
                sparse=target.sparse,
                have=None if have is None else have.bits,
                leaves=None if have is None else have.leaves,
                base=base_options(target.base),
            ),
        )

    def send_pipe(
        self, number: int, fd: int, *, chunk_bytes: int, priority: int = 0, window_bytes: int
    ) -> NativeMoving:
        return self._start(
            "sending",
            0,
            lambda tag: self._handle.pipe_send(
                tag, number, fd, chunk=chunk_bytes, priority=priority, window=window_bytes
            ),
        )

    def receive_pipe(self, number: int, fd: int, *, window_bytes: int) -> NativeMoving:
        return self._start(
            "receiving",
            0,
            lambda tag: self._handle.pipe_receive(tag, number, fd, window=window_bytes),
        )

    def limit(self, bytes_per_second: int) -> None:
        if not self._closing:
            self._handle.limit(bytes_per_second)

    def pace(self, bytes_per_second: int) -> None:
        """Spread what this end sends over its TCP streams, and over time; 0: do not."""
        if not self._closing:
            self._handle.pace(bytes_per_second)

    def senders(self, most: int) -> None:
        """Send content on at most so many of the streams; 0: on all."""
        if not self._closing:
            self._handle.senders(most)

    def weigh(self, priority: int, weight: int) -> None:
        """What the class 1, 2 or 3 gets beside the others, 1 to 1000."""
        self._handle.weight(priority, weight)

    def use_congestion(self, stream_id: int, name: str) -> str:
        """Change it on a live stream; why that was not possible, or nothing. One that is gone already
        is no failure."""
        if self._closing:
            return ""
        try:
            self._handle.congestion(stream_id, name)
        except NativeError as exc:
            gone = isinstance(exc, NativeNotFoundError) and not self._has(stream_id)
            return "" if gone else exc.why or exc.what
        return ""

    def _has(self, stream_id: int) -> bool:
        return any(stream.id == stream_id for stream in self.streams())

    def statistics(self) -> LinkStatistics:
        return LinkStatistics(self.counters(), self.streams())

    def end(self, reason: DwcpError) -> None:
        """Give the link up; :meth:`wait_ended` tells *reason*. Still to be closed."""
        if self._reason is None:
            self._reason = reason
            self._over.set()
            self._handle.abort()

    @property
    def over(self) -> bool:
        """Whether it was given up; :meth:`wait_ended` returns at once."""
        return self._over.is_set()

    async def wait_ended(self) -> DwcpError:
        await self._over.wait()
        assert self._reason is not None
        return self._reason

    async def aclose(self) -> None:
        if self._closing:
            await self._gone.wait()
            return
        self._closing = True
        self.end(LinkLostError("the link was closed here"))
        with trio.CancelScope(shield=True):
            await self._engine._until(self._gone)
            for moving in list(self._objects):
                await moving.aclose()
        self._handle.free()
        self._engine._links.pop(self._tag, None)
        self._say.close()

    # Underneath ----------------------------------------------------------------------------

    def _lost(self) -> LinkLostError:
        why = str(self._reason) if self._reason is not None else ""
        return LinkLostError("the link ended", why=why)

    def _start(self, role: str, chunks: int, start: Any) -> NativeMoving:
        if self._closing or self._reason is not None:
            raise self._lost()
        tag = next(self._engine._tags)
        moving = NativeMoving(self, tag, role, chunks)
        self._engine._objects[tag] = moving
        try:
            moving._handle = start(tag)
        except NativeError as exc:
            del self._engine._objects[tag]
            raise LinkLostError(exc.what, why=exc.why) from exc
        self._objects.add(moving)
        return moving

    def _take(self, event: Event) -> None:
        if event.kind == "link_ended":
            self._gone.set()
            return
        kind = event.kind.removeprefix("stream_")
        reason = "" if kind != "lost" else reason_of(_LOSSES, event)
        try:
            self._say.send_nowait(StreamEvent(kind, event.stream, reason))
        except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
            return
