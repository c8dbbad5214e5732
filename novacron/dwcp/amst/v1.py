"""Protocol v1: a link over one TLS stream, in Python alone.

What a node speaks that has no C extension or no libcrypto, and what it speaks with such a node. The
frames are those of v3 (``wire.py``) with stream 0, epoch 0, the seed 0, and sequences from 1 in both
directions; TLS seals them, and each content has its checksum, which holds before anything is
written. There is one stream: when it is lost, so is the link, and transfers go on over another one
from what the receiver has.

The loop never waits for a disk: reading, checking and writing of chunks is done in worker threads,
one chunk ahead of the stream when sending. Every wait for the peer ends: when it takes nothing,
stops in the middle of a frame, or acknowledges nothing of what is under way. Silence while nothing
is under way is none of these; whether the peer is alive then is for the control session to say.

To join two links in one process, give each an end of a stream::

    near = await open_link(stream, peer="b", max_chunk_bytes=…, send_window=…, receive_window=…,
                           nursery=nursery)
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import ClassVar, Final

import trio

from novacron.dwcp.amst.buckets import TokenBucket
from novacron.dwcp.amst.errors import LinkLostError
from novacron.dwcp.amst.transport import (
    Have,
    LinkCounters,
    LinkStatistics,
    Source,
    StreamStatistics,
    Target,
)
from novacron.dwcp.amst.v1_inbound import Inbound
from novacron.dwcp.amst.v1_moving import Key, V1Moving
from novacron.dwcp.amst.v1_objects import BLOCK_BYTES, ReceivingObject, SendingObject
from novacron.dwcp.amst.v1_outbound import ByteStream, Outbound
from novacron.dwcp.amst.v1_pipes import ReceivingPipe, SendingPipe
from novacron.dwcp.amst.wire import ErrorNumber, Frame, FrameType
from novacron.errors import DwcpError, LocalProtocolError, NovaCronError

PATIENCE: Final = 30.0
"""Seconds that the peer may take nothing of what is sent, or stay in the middle of a frame."""
_ACK_PATIENCE: Final = 4
"""Times that, until an acknowledgement comes at all: the peer's disk may have to be waited for."""
_STORING: Final = 4
"""Chunks that are checked and written at a time."""
_FAREWELL: Final = 1.0
"""Seconds for the last words."""


class LinkMisuseError(DwcpError, LocalProtocolError):
    """What was asked for does not fit the link."""

    code: ClassVar[str] = "dwcp.link_misuse"


async def open_link(
    stream: ByteStream,
    *,
    peer: str,
    link_id: bytes = bytes(16),
    max_chunk_bytes: int,
    send_window: int,
    receive_window: int,
    nursery: trio.Nursery,
    received: bytes = b"",
    limits: Sequence[TokenBucket] = (),
    patience: float = PATIENCE,
) -> V1Link:
    """A link over *stream*, which is closed with it. Both ends do the same, right after whatever
    was said on the stream to agree on the link.

    Args:
      peer: Id of the node at the other end.
      send_window: Bytes in flight that the other side takes: its *receive_window*.
      receive_window: Bytes of payload held here at most.
      nursery: Where the link's tasks run, until it has ended.
      received: What was read from the stream already and belongs to the link.
      limits: Rate limits that this link shares with others; whoever changes one calls
        :meth:`V1Link.kick`.
      patience: Seconds without progress after which the link is lost.
    """
    link = V1Link(
        stream,
        peer,
        link_id,
        max_chunk_bytes,
        send_window,
        receive_window,
        received,
        limits,
        patience,
    )
    await nursery.start(link._run)
    return link


class V1Link:
    """A :class:`~novacron.dwcp.amst.transport.Link`; made by :func:`open_link`."""

    protocol: int = 1
    mover: str = "tls"
    codecs: tuple[str, ...] = ("raw",)
    encrypted: bool = True

    def __init__(
        self,
        stream: ByteStream,
        peer: str,
        link_id: bytes,
        max_chunk_bytes: int,
        send_window: int,
        receive_window: int,
        received: bytes,
        limits: Sequence[TokenBucket],
        patience: float,
    ) -> None:
        self.peer = peer
        self.link_id = link_id
        self.max_chunk_bytes = max_chunk_bytes
        self._stream = stream
        self._patience = patience
        limiter = trio.CapacityLimiter(_STORING + 1)
        self._out = Outbound(stream, max_chunk_bytes, send_window, limits, limiter)
        self._in = Inbound(stream, self._out, max_chunk_bytes, receive_window, received, limiter)
        self._nursery: trio.Nursery | None = None
        self._scope = trio.CancelScope()
        self._reason: DwcpError | None = None
        self._over = trio.Event()
        self._gone = trio.Event()
        self._bad_frames = 0

    @property
    def busy(self) -> bool:
        """Something is on its way, or was and is not closed."""
        return bool(self._out.moving or self._in.moving)

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
    ) -> SendingObject:
        key = self._check(
            (number, generation), (number, generation) in self._out.moving, chunk_bytes
        )
        moving = SendingObject(self, key, source, chunk_bytes, have, priority, limit_bps)
        self._out.add(moving)
        return moving

    def receive_object(
        self,
        number: int,
        generation: int,
        target: Target,
        *,
        chunk_bytes: int,
        have: Have | None = None,
    ) -> ReceivingObject:
        key = self._check(
            (number, generation), (number, generation) in self._in.moving, chunk_bytes
        )
        moving = ReceivingObject(self, key, target, chunk_bytes, have)
        self._in.moving[key] = moving
        return moving

    def send_pipe(
        self, number: int, fd: int, *, chunk_bytes: int, priority: int = 0, window_bytes: int
    ) -> SendingPipe:
        self._check((number, 0), (number, 0) in self._out.moving, None)
        if not 0 < chunk_bytes <= self.max_chunk_bytes or window_bytes <= 0:
            raise LinkMisuseError("cannot send a byte stream", why="it has no room")
        moving = SendingPipe(self, number, fd, chunk_bytes, priority, window_bytes)
        self._out.add(moving)
        self._start(moving.run)
        return moving

    def receive_pipe(self, number: int, fd: int, *, window_bytes: int) -> ReceivingPipe:
        self._check((number, 0), (number, 0) in self._in.moving, None)
        if window_bytes <= 0:
            raise LinkMisuseError("cannot receive a byte stream", why="it has no room")
        moving = ReceivingPipe(self, number, fd, window_bytes)
        self._in.moving[moving.key] = moving
        self._start(moving.run)
        return moving

    def limit(self, bytes_per_second: int) -> None:
        self._out.limit(bytes_per_second)

    def statistics(self) -> LinkStatistics:
        out, idle = self._out, self._out.idle_seconds
        streams = 0 if self._over.is_set() else 1
        counters = LinkCounters(
            sent_bytes=out.sent_bytes,
            received_bytes=self._in.received_bytes,
            wire_sent_bytes=out.wire_bytes,
            wire_received_bytes=self._in.wire_bytes,
            duplicate_bytes=self._in.duplicate_bytes,
            bad_frames=self._bad_frames,
            limited_ns=int(idle["limited"] * 1e9),
            starved_ns=int(idle["starved"] * 1e9),
            window_ns=int(idle["window"] * 1e9),
            in_flight_bytes=out.in_flight_bytes,
            streams=streams,
        )
        stream = StreamStatistics(
            id=0,
            state="open",
            mover=self.mover,
            sent_bytes=counters.sent_bytes,
            received_bytes=counters.received_bytes,
            wire_sent_bytes=counters.wire_sent_bytes,
            wire_received_bytes=counters.wire_received_bytes,
            in_flight_bytes=counters.in_flight_bytes,
        )
        return LinkStatistics(counters, [stream] * streams)

    def end(self, reason: DwcpError) -> None:
        """Give the link up; :meth:`wait_ended` tells *reason*. Still to be closed."""
        if self._reason is None:
            self._reason = reason
            self._over.set()
            self._scope.cancel()
            for moving in self._all():
                moving.finish(self._lost())

    async def wait_ended(self) -> DwcpError:
        await self._over.wait()
        assert self._reason is not None
        return self._reason

    async def aclose(self) -> None:
        self.end(LinkLostError("the link was closed here"))
        with trio.CancelScope(shield=True):
            await self._gone.wait()
            for moving in self._all():
                await moving.aclose()
        await trio.lowlevel.cancel_shielded_checkpoint()

    # For what moves ------------------------------------------------------------------------

    def kick(self) -> None:
        """There may be something to send, or leave to send it."""
        self._out.kick()

    def sort(self) -> None:
        """A priority changed."""
        self._out.sort()

    def drop(self, moving: V1Moving) -> None:
        """It was given up."""
        self._out.drop(moving)
        self._in.drop(moving)

    def tell_read(self, key: Key, offset: int) -> None:
        """Of a byte stream that comes in: everything before *offset* left this end."""
        self._out.tell_read(key, offset)

    def refuse_failed(self, key: Key, os_errno: int) -> None:
        """Something that was coming in cannot be taken any more."""
        self._out.refuse(key, ErrorNumber.SYSTEM, os_errno)

    def received(self, size: int) -> None:
        self._in.received_bytes += size

    def _all(self) -> list[V1Moving]:
        return [*self._out.moving.values(), *self._in.moving.values()]

    # Running -------------------------------------------------------------------------------

    async def _run(self, *, task_status: trio.TaskStatus[None]) -> None:
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    for task in (self._in.receive, self._out.write, self._out.load, self._watch):
                        nursery.start_soon(self._guard, task)
                    for _ in range(_STORING):
                        nursery.start_soon(self._guard, self._in.store)
                    task_status.started()
        finally:
            self.end(LinkLostError("the link ended", why="this node gave it up"))
            with trio.CancelScope(shield=True):
                await self._farewell()
            self._gone.set()

    async def _guard(self, task: Callable[[], Awaitable[None]]) -> None:
        try:
            await task()
        except DwcpError as exc:
            self._bad_frames += not isinstance(exc, LinkLostError)
            self.end(exc)
        except NovaCronError as exc:  # of the stream below
            why = f"{exc.what}: {exc.why}" if exc.why else exc.what
            self.end(LinkLostError(f"the link to {self.peer} was lost", why=why))

    async def _farewell(self) -> None:
        with trio.move_on_after(_FAREWELL):
            # Half a frame cannot be followed by anything.
            if self._out.sending_since is None:
                with contextlib.suppress(NovaCronError):
                    await self._out.send(Frame(FrameType.BYE), b"")
        await self._stream.aclose()

    def _start(self, task: Callable[[], Awaitable[None]]) -> None:
        assert self._nursery is not None
        self._nursery.start_soon(task)

    def _check(self, key: Key, taken: bool, chunk_bytes: int | None) -> Key:
        if self._reason is not None:
            raise self._lost()
        if not key[0] or taken:
            raise LinkMisuseError("cannot begin", why=f"the number {key[0]} is taken")
        if chunk_bytes is not None and not (
            BLOCK_BYTES <= chunk_bytes <= self.max_chunk_bytes and chunk_bytes % BLOCK_BYTES == 0
        ):
            raise LinkMisuseError("cannot begin", why=f"chunks of {chunk_bytes} bytes")
        return key

    def _lost(self) -> LinkLostError:
        return LinkLostError("the link ended", why=str(self._reason))

    async def _watch(self) -> None:
        while True:
            await trio.sleep(self._patience / 4)
            now, since = trio.current_time(), self._out.sending_since
            if since is not None and now - since > self._patience:
                raise self._stalled("took nothing")
            if self._in.in_frame and now - self._in.heard_at > self._patience:
                raise self._stalled("stopped in the middle of a frame")
            if self._out.waiting and now - self._out.progress_at > self._patience * _ACK_PATIENCE:
                raise self._stalled("acknowledged nothing")

    def _stalled(self, what: str) -> LinkLostError:
        return LinkLostError(
            f"the link to {self.peer} was lost", why=f"the other node {what} for too long"
        )
