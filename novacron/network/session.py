"""Runs a session machine on a stream: one task reads, one writes and keeps the time.

Everything the machine says goes through one bounded queue. Room in it is waited for *before* the
machine is asked, never between its answer and the queue: a wait there could be cancelled, and the
machine would remember as sent what never was.
"""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import trio

from novacron._native.tcp import TcpInfo
from novacron.errors import NetworkError, NovaCronError
from novacron.network.errors import PeerForbiddenError, RequestFailedError, TlsError
from novacron.network.metrics import BYTES, FRAMES, ROUND_TRIP, SEED_ROUND_TRIP
from novacron.network.transport import Stream
from novacron.protocol.codes import GoodbyeReason, MisuseError
from novacron.protocol.events import (
    Closed,
    ConnectionLostError,
    Established,
    Event,
    Failed,
    GoodbyeReceived,
    Measured,
    PingReceived,
    RequestReceived,
    ResponseReceived,
    SessionTimeoutError,
    Transmit,
)
from novacron.protocol.measure import LinkStatistics
from novacron.protocol.messages import Goodbye, Request, Response
from novacron.protocol.party import LocalParty
from novacron.protocol.session import SessionMachine
from novacron.protocol.states import ENDED, Role, State
from novacron.record import Record

logger = logging.getLogger("novacron.network")

QUEUE_FRAMES: Final = 64
"""Frames that wait for the writer. With the peer's limit of requests in flight this bounds what a
peer that does not read can make us keep."""
BATCH_BYTES: Final = 65536
"""Frames up to this size together are written at once."""
FLUSH_TIMEOUT: Final = 1.0
"""Seconds for the last words of a session."""

TRIPS_KEPT: Final = 32
"""Single round trips that wait for whoever looks once in a while; a burst of pings is 10."""

STATUS_OK: Final = 0
STATUS_UNKNOWN_METHOD: Final = 1
STATUS_FAILED: Final = 2
STATUS_INTERNAL: Final = 3
STATUS_DENIED: Final = 4
"""No rule allows it to a node; asking again is of no use."""

RequestHandler = Callable[["PeerSession", bytes], Awaitable[bytes]]
"""Does what a peer asks. A NovaCronError becomes the answer's message; anything else is logged and
answered without details."""


class Trip(Record):
    """A ping that was answered."""

    seconds: float
    info: TcpInfo | None
    """What the kernel knew of the connection then."""


class _Reply:
    """A request that waits for its answer."""

    __slots__ = ("done", "response")

    def __init__(self) -> None:
        self.done = trio.Event()
        self.response: Response | None = None


class PeerSession:
    """A session on *stream*. Call :meth:`handshake`, then :meth:`run`; the latter closes the
    stream, :meth:`close` does where it never came to that.

    Args:
      certified_id: the node the peer's certificate was issued for; *serial* and *issuer* are that one's.
      handlers: what peers may ask for, by method; may change while the session runs.
      started_at: on Trio's clock, when the connection was made; the time for the handshake
        counts from there.
    """

    def __init__(
        self,
        stream: Stream,
        role: Role,
        local: LocalParty,
        certified_id: str,
        handlers: Mapping[str, RequestHandler],
        *,
        started_at: float,
        serial: str = "",
        issuer: str = "",
        own_issuer: str = "",
    ) -> None:
        self.role = role
        self.stream = stream
        self.certified_id = certified_id
        self.serial = serial
        """Of the peer's certificate, hexadecimal."""
        self.issuer = issuer
        """Hash of the key that has issued it."""
        self.own_issuer = own_issuer
        """The same of the certificate that this node has shown."""
        self.machine = SessionMachine(role, local, certified_id=certified_id, now=started_at)
        self.opened_at = started_at
        self.seed_name: str | None = None
        """The configured seed at the other end, if it is one: its round trip has a metric."""
        self.peer: Established | None = None
        self.outcome: Closed | Failed | None = None
        """How it ended; None while it goes on."""
        self.goodbye: GoodbyeReceived | None = None
        self.ended = trio.Event()
        self._trips: deque[Trip] = deque(maxlen=TRIPS_KEPT)
        self._local = local
        self._handlers = handlers
        self._outgoing: deque[bytes] = deque()
        self._requests: deque[Request] = deque()
        self._wake = trio.Event()
        self._flushed = trio.Event()
        self._room = trio.lowlevel.ParkingLot()
        self._slots = trio.lowlevel.ParkingLot()
        self._replies: dict[int, _Reply] = {}
        self._reading: trio.CancelScope | None = None

    @property
    def initiator_id(self) -> str:
        """The node that dialled."""
        return self._local.node_id if self.role is Role.INITIATOR else self.certified_id

    @property
    def node_id(self) -> str:
        return self.certified_id

    def statistics(self) -> LinkStatistics:
        return self.machine.link.statistics(trio.current_time())

    @property
    def same_host(self) -> bool:
        """Whether the peer is on this machine, as far as addresses tell."""
        return self.stream.same_host

    def trips_since(self, samples: int) -> list[Trip]:
        """The single round trips after the first *samples* of this session, as far as they are kept:
        the newest :data:`TRIPS_KEPT`. How many there were is in :meth:`statistics`."""
        count = min(self.machine.link.samples - samples, len(self._trips))
        return list(self._trips)[-count:] if count > 0 else []

    def hasten_pings(self, count: int, interval: float) -> None:
        """Measure the round trip *count* times soon, *interval* seconds apart, and no more often
        than the protocol allows; does not wait. The pings are as any other, so that nothing is owed
        where the session ends meanwhile."""
        self.machine.hasten_pings(count, interval, trio.current_time())
        self._wake.set()

    # The life of a session -----------------------------------------------------------------

    async def handshake(self) -> Established:
        """Exchange Hello and Welcome, within the machine's deadline.

        Raises:
          NetworkError: no session came of it; :attr:`outcome` says why. The peer was told, where
            the protocol allows; the stream is still to be closed.
        """
        machine = self.machine
        try:
            if self.role is Role.INITIATOR:
                self._queue(machine.start())
            while self.peer is None and self.outcome is None:
                data = None
                with trio.move_on_at(machine.next_deadline()):
                    await self._flush()
                    data = await self._receive()
                now = trio.current_time()
                if data is None:
                    self._take(machine.tick(now))
                else:
                    self._take(machine.receive(data, now) if data else machine.receive_eof())
        except TlsError as exc:
            self._end(Failed(exc.reason, exc))
        except NetworkError as exc:
            self._end(Failed("lost", exc))
        if self.peer is not None:
            return self.peer
        with trio.move_on_after(FLUSH_TIMEOUT), contextlib.suppress(NetworkError):
            await self._flush()
        assert isinstance(self.outcome, Failed)
        raise self.outcome.error

    async def run(self) -> Closed | Failed:
        """Serve until the session ends; returns how it did. Closes the stream."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write)
                with trio.CancelScope() as self._reading:
                    await self._read(nursery)
                # The writer still says the last words; the handlers have nobody to answer.
                await self._flushed.wait()
                nursery.cancel_scope.cancel()
        finally:
            await self.close()  # where this is cancelled, it closes at once instead of lingering
        assert self.outcome is not None
        return self.outcome

    async def close(self) -> None:
        """Release the stream; harmless when repeated."""
        self.abort()
        self.ended.set()
        await self.stream.aclose()

    def abort(self) -> None:
        """End the session without waiting for the peer; :meth:`run` returns soon."""
        self._end(Failed("closed", ConnectionLostError("the session was closed here")))

    def expel(self, error: NovaCronError) -> None:
        """End the session at once: the peer is not trusted any more, or not by that certificate."""
        lost = ConnectionLostError("the session was ended here", why=str(error))
        self._end(Failed("revoked", lost))

    def leave(self, reason: GoodbyeReason, message: str) -> None:
        """Say Goodbye; the session ends when what is in flight is answered. Does not wait."""
        if self.machine.state is State.OPEN:
            self._queue(self.machine.send(Goodbye(reason, message)))
            self._take(self.machine.settle())
            self._wake_requesters()

    # Requests ------------------------------------------------------------------------------

    async def request(self, method: str, body: bytes, *, within: float) -> bytes:
        """Ask the peer to do *method*; returns its answer.

        Args:
          within: seconds for all of it, waiting for a free place included.

        Raises:
          RequestFailedError: the peer could not do it.
          SessionTimeoutError: no answer in time.
          ConnectionLostError: the session ended, or takes no requests any more.
          MisuseError: *body* is larger than what the peer takes.
        """
        reply = _Reply()
        request_id: int | None = None
        try:
            with trio.move_on_after(within):
                await self._wait_request_slot()
                request_id = self.machine.next_request_id()
                self._queue(self.machine.send(Request(request_id, method, body)))
                self._replies[request_id] = reply
                await reply.done.wait()
        finally:
            if request_id is not None:
                self._replies.pop(request_id, None)
        response = reply.response
        if response is not None:
            if response.status != STATUS_OK:
                raise RequestFailedError(method, response.status, response.message)
            return response.body
        if reply.done.is_set():
            raise self._no_more_requests()
        raise SessionTimeoutError(f"the peer did not answer {method} within {within:g} s")

    async def _wait_request_slot(self) -> None:
        while True:
            if self.machine.state is not State.OPEN:
                raise self._no_more_requests()
            if self.machine.peer is not None and not self.machine.takes_requests:
                raise MisuseError("cannot send a request", why="the peer does not take any")
            if not self.machine.may_request:
                await self._slots.park()
            elif len(self._outgoing) >= QUEUE_FRAMES:
                await self._room.park()
            else:
                return

    def _no_more_requests(self) -> NetworkError:
        if isinstance(self.outcome, Failed):
            return ConnectionLostError("the session ended", why=str(self.outcome.error))
        return ConnectionLostError("the session ended", why="one side said Goodbye")

    async def _answer(self, request: Request) -> None:
        handler = self._handlers.get(request.method)
        if handler is None:
            await self._respond(request.id, STATUS_UNKNOWN_METHOD, "no such method")
            return
        try:
            body = await handler(self, request.body)
        except PeerForbiddenError as exc:
            await self._respond(request.id, STATUS_DENIED, exc.what)
        except NovaCronError as exc:
            await self._respond(request.id, STATUS_FAILED, exc.what)
        except Exception:
            logger.exception(
                "a peer's request failed", extra={"peer": self.node_id, "method": request.method}
            )
            await self._respond(request.id, STATUS_INTERNAL, "internal error")
        else:
            await self._respond(request.id, STATUS_OK, "", body)

    async def _respond(self, id: int, status: int, message: str, body: bytes = b"") -> None:
        await self._wait_room()
        machine = self.machine
        if machine.state in ENDED:
            return
        try:
            data = machine.send(Response(id, status, message[:128], body))
        except MisuseError:
            # The only thing a handler can get wrong here is the size of its answer.
            logger.warning("an answer was too large", extra={"peer": self.node_id})
            data = machine.send(Response(id, STATUS_INTERNAL, "the answer is too large", b""))
        self._queue(data)
        self._take(machine.settle())

    # Bytes ---------------------------------------------------------------------------------

    async def _receive(self) -> bytes:
        data = await self.stream.receive_some()
        BYTES.inc("received", by=len(data))
        return data

    async def _read(self, nursery: trio.Nursery) -> None:
        try:
            while True:
                while self._requests:  # the machine's limit of requests in flight bounds it
                    nursery.start_soon(self._answer, self._requests.popleft())
                await self._wait_room()
                if self.outcome is not None:
                    return
                data = await self._receive()
                now = trio.current_time()
                self._take(self.machine.receive(data, now) if data else self.machine.receive_eof())
        except NetworkError as exc:
            self._end(Failed("lost", exc))

    async def _write(self) -> None:
        """Ends when the session did and its last words are out."""
        machine = self.machine
        try:
            while self.outcome is None:
                await self._flush()
                self._take(machine.tick(trio.current_time()))
                if self._outgoing or self.outcome is not None:
                    continue
                self._wake = trio.Event()
                with trio.move_on_at(machine.next_deadline()):
                    await self._wake.wait()
            with trio.move_on_after(FLUSH_TIMEOUT):
                await self._flush()
        except SessionTimeoutError as exc:
            self._end(Failed("write_timeout", exc))
        except NetworkError as exc:
            self._end(Failed("lost", exc))
        finally:
            self._flushed.set()

    async def _flush(self) -> None:
        """Raises SessionTimeoutError when the peer does not read; the stream then ends in the
        middle of a frame, and nothing can follow."""
        outgoing = self._outgoing
        timeout = self._local.idle_timeout
        while outgoing:
            batch = [outgoing.popleft()]
            size = len(batch[0])
            while outgoing and size + len(outgoing[0]) <= BATCH_BYTES:
                size += len(outgoing[0])
                batch.append(outgoing.popleft())
            self._room.unpark_all()
            with trio.move_on_after(timeout) as scope:
                await self.stream.send_all(batch[0] if len(batch) == 1 else b"".join(batch))
            if scope.cancelled_caught:
                raise SessionTimeoutError(
                    f"the peer did not read for {timeout:g} s", key="network.idle_timeout"
                )
            BYTES.inc("sent", by=size)

    async def _wait_room(self) -> None:
        while len(self._outgoing) >= QUEUE_FRAMES and self.outcome is None:
            await self._room.park()

    def _queue(self, data: bytes) -> None:
        self._outgoing.append(data)
        FRAMES.inc("sent", _frame_name(data))
        self._wake.set()

    # Events --------------------------------------------------------------------------------

    def _take(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Transmit):
                self._queue(event.data)
            elif isinstance(event, PingReceived):
                FRAMES.inc("received", "ping")
            elif isinstance(event, Measured):
                FRAMES.inc("received", "pong")
                ROUND_TRIP.observe(event.round_trip)
                self._trips.append(Trip(event.round_trip, self.stream.tcp_info()))
                smoothed = self.machine.link.round_trip.smoothed
                if self.seed_name is not None and smoothed is not None:
                    SEED_ROUND_TRIP.set(smoothed, self.seed_name)
            elif isinstance(event, RequestReceived):
                FRAMES.inc("received", "request")
                self._requests.append(event.request)
            elif isinstance(event, ResponseReceived):
                FRAMES.inc("received", "response")
                reply = self._replies.get(event.response.id)
                if reply is not None:
                    reply.response = event.response
                    reply.done.set()
                self._slots.unpark_all()
            elif isinstance(event, GoodbyeReceived):
                FRAMES.inc("received", "goodbye")
                self.goodbye = event
                if self.machine.state is State.LEFT:
                    self._queue(self.machine.send(Goodbye(GoodbyeReason.UNNEEDED, "")))
                    self._take(self.machine.settle())
                self._wake_requesters()
            elif isinstance(event, Established):
                self.peer = event
            elif isinstance(event, (Closed, Failed)):
                self._end(event)

    def _wake_requesters(self) -> None:
        self._slots.unpark_all()
        self._room.unpark_all()

    def _end(self, outcome: Closed | Failed) -> None:
        if self.outcome is not None:
            return
        self.outcome = outcome
        for reply in self._replies.values():
            reply.done.set()
        self._wake_requesters()
        self._wake.set()
        if self._reading is not None:
            self._reading.cancel()


_NAMES: Final = {
    1: "hello",
    2: "welcome",
    3: "ping",
    4: "pong",
    5: "goodbye",
    6: "error",
    7: "request",
    8: "response",
}


def _frame_name(frame: bytes) -> str:
    return _NAMES[frame[5]]
