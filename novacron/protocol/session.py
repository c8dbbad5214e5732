"""One peer session as a state machine: bytes and times in, bytes and events out.

The tables say which message may be sent and received in which state; everything else here is what
tables cannot say: limits, identities, deadlines. Times are seconds of one monotonic clock that the
caller owns.

The machine never raises on what the peer sent: garbage becomes a :class:`Failed` event in its place
among the others, so that the same bytes give the same events however they were cut.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final

from novacron.protocol.codes import (
    FEATURE_REQUESTS,
    ErrorCode,
    MisuseError,
    ViolationError,
    feature_list,
)
from novacron.protocol.events import (
    Closed,
    ConnectionLostError,
    Established,
    Event,
    Failed,
    GoodbyeReceived,
    Measured,
    PingReceived,
    RefusedError,
    RequestReceived,
    ResponseReceived,
    SessionTimeoutError,
    Transmit,
)
from novacron.protocol.frames import FrameDecoder
from novacron.protocol.measure import Link
from novacron.protocol.messages import (
    Error,
    Goodbye,
    Hello,
    Message,
    Ping,
    Pong,
    Request,
    Response,
    Welcome,
    decode,
    encode,
)
from novacron.protocol.party import LocalParty
from novacron.protocol.states import ENDED, HANDSHAKE, RECEIVE, SEND, SETTLED, Role, State

HANDSHAKE_MAX_PAYLOAD: Final = 4096
"""Bytes. A Hello with every field at its longest is under 800."""
MIN_PING_INTERVAL: Final = 0.05
"""Seconds; pings are sent no faster whatever is configured."""
MAX_EXTRA_PINGS: Final = 20
"""That one call may ask for: a second's worth at :data:`MIN_PING_INTERVAL`."""
MAX_PINGS_PER_SECOND: Final = 100
"""Five times what :data:`MIN_PING_INTERVAL` allows: answering costs us more than asking costs the
peer, so a flood is a violation."""


class SessionMachine:
    """One end of a session.

    Args:
      role: INITIATOR sends Hello (:meth:`start`), ACCEPTOR waits for it.
      local: what to say of this node.
      certified_id: the node id that the peer's certificate was issued for; None only where the
        transport has no certificates (tests).
      now: seconds; the handshake's deadline counts from here.
      wall_clock_ns: read for the ``clock_ns`` fields.
    """

    def __init__(
        self,
        role: Role,
        local: LocalParty,
        *,
        certified_id: str | None,
        now: float,
        wall_clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.role = role
        self.local = local
        self.state = State.START if role is Role.INITIATOR else State.AWAIT_HELLO
        self.peer: Established | None = None
        self.link = Link()
        self._certified_id = certified_id
        self._wall_clock_ns = wall_clock_ns
        self._decoder = FrameDecoder(HANDSHAKE_MAX_PAYLOAD)
        self._handshake_deadline = now + local.handshake_timeout
        self._last_frame = now
        self._next_ping = now
        self._last_ping = -math.inf
        self._ping_interval = max(local.ping_interval, MIN_PING_INTERVAL)
        self._ping_sequence = 0
        self._extra_pings = 0
        self._extra_interval = MIN_PING_INTERVAL
        self._ping_window = now
        self._pings_in_window = 0
        self._next_request = 0
        self._asked: set[int] = set()
        self._owed: set[int] = set()

    # What we say ------------------------------------------------------------------------------

    def start(self) -> bytes:
        """The Hello of the initiator.

        Raises:
          MisuseError: this is the acceptor, or it was sent already.
        """
        local = self.local
        return self.send(
            Hello(
                local.minimum_version,
                local.maximum_version,
                local.node_id,
                local.boot_id,
                local.address,
                local.required,
                local.optional,
                local.max_frame_bytes,
                local.max_in_flight,
                self._wall_clock_ns(),
            )
        )

    def next_request_id(self) -> int:
        """An id that no open request has."""
        while self._next_request in self._asked:
            self._next_request = (self._next_request + 1) & 0xFFFFFFFF
        return self._next_request

    @property
    def takes_requests(self) -> bool:
        """Whether both sides agreed on requests."""
        return self.peer is not None and bool(self.peer.features & FEATURE_REQUESTS)

    @property
    def may_request(self) -> bool:
        """Whether a Request would be allowed now."""
        return (
            self.state is State.OPEN
            and self.peer is not None
            and self.takes_requests
            and len(self._asked) < self.peer.max_in_flight
        )

    @property
    def owed(self) -> int:
        """Requests of the peer that are not answered yet."""
        return len(self._owed)

    @property
    def asked(self) -> int:
        """Requests to the peer that it has not answered yet."""
        return len(self._asked)

    def send(self, message: Message) -> bytes:
        """The bytes of *message*; the machine counts it as sent.

        Raises:
          MisuseError: not allowed in this state, over the peer's limits, or badly filled in.
            Nothing changed.
        """
        kind = type(message)
        successor = SEND[self.state].get(kind)
        if successor is None:
            raise MisuseError(
                f"cannot send {kind.__name__}", why=f"the session is in state {self.state}"
            )
        if isinstance(message, Request):
            if not self.may_request or message.id in self._asked:
                raise MisuseError(
                    "cannot send a request",
                    why="requests were not agreed on, the peer's limit of open ones is reached, "
                    "or the id is taken",
                )
        elif isinstance(message, Response) and message.id not in self._owed:
            raise MisuseError("cannot send a response", why=f"no request {message.id} is open")
        limit = HANDSHAKE_MAX_PAYLOAD if self.peer is None else self.peer.max_frame_bytes
        data = encode(message, max_payload=limit)
        if isinstance(message, Request):
            self._asked.add(message.id)
            self._next_request = (message.id + 1) & 0xFFFFFFFF
        elif isinstance(message, Response):
            self._owed.discard(message.id)
        self.state = successor
        return data

    def settle(self) -> list[Event]:
        """Call after :meth:`send`: says when that was the last thing to do."""
        successor = SETTLED.get(self.state)
        if successor is None or self._asked or self._owed:
            return []
        self.state = successor
        return [Closed()]

    # What we hear -----------------------------------------------------------------------------

    def receive(self, data: bytes, now: float) -> list[Event]:
        """Take bytes from the connection. After the end of the session they are ignored.

        Returns:
          Events in order; a :class:`Closed` or :class:`Failed` is the last there will be.
        """
        events: list[Event] = []
        if self.state in ENDED:
            return events
        self._decoder.feed(data)
        try:
            while self.state not in ENDED:
                frame = self._decoder.next_frame()
                if frame is None:
                    break
                self._last_frame = now
                self._accept(decode(frame), now, events)
                events += self.settle()
        except ViolationError as violation:
            self._fail(violation, events)
        return events

    def receive_eof(self) -> list[Event]:
        """The connection ended."""
        if self.state in ENDED:
            return []
        where = "inside a frame" if self._decoder.buffered else f"in state {self.state}"
        self.state = State.FAILED
        why = f"it ended {where}, without a Goodbye"
        return [Failed("lost", ConnectionLostError("the connection was lost", why=why))]

    def _accept(self, message: Message, now: float, events: list[Event]) -> None:
        kind = type(message)
        successor = RECEIVE[self.state].get(kind)
        if successor is None:
            raise ViolationError(
                ErrorCode.STATE, f"the peer sent {kind.__name__} in state {self.state}"
            )
        if isinstance(message, Ping):
            self._count_ping(now)
            self.state = successor
            pong = Pong(message.sequence, message.clock_ns, self._wall_clock_ns())
            events += (PingReceived(message.sequence), Transmit(self.send(pong)))
        elif isinstance(message, Pong):
            self._take_pong(message, now, events)
        elif isinstance(message, Request):
            self._take_request(message, events)
        elif isinstance(message, Response):
            if message.id not in self._asked:
                raise ViolationError(
                    ErrorCode.STATE, f"the peer answered request {message.id}, which is not open"
                )
            self._asked.discard(message.id)
            events.append(ResponseReceived(message))
        elif isinstance(message, Goodbye):
            events.append(GoodbyeReceived(message.message, message.reason))
        elif isinstance(message, Error):
            events.append(Failed("refused", RefusedError(message.code, message.message)))
        elif isinstance(message, Hello):
            self._answer(message, successor, now, events)
            return
        elif isinstance(message, Welcome):
            self._check_welcome(message)
            self._establish(message.version, message.features, message, now, events)
        self.state = successor

    def _count_ping(self, now: float) -> None:
        if now - self._ping_window >= 1.0:
            self._ping_window = now
            self._pings_in_window = 0
        self._pings_in_window += 1
        if self._pings_in_window > MAX_PINGS_PER_SECOND:
            raise ViolationError(
                ErrorCode.LIMIT, f"the peer sent more than {MAX_PINGS_PER_SECOND} pings a second"
            )

    def _take_pong(self, pong: Pong, now: float, events: list[Event]) -> None:
        if (self._ping_sequence - 1 - pong.sequence) & 0xFFFFFFFF >= 1 << 31 or (
            self._ping_sequence == 0
        ):
            raise ViolationError(
                ErrorCode.STATE, f"the peer answered ping {pong.sequence}, which was not sent"
            )
        round_trip = self.link.pong_received(pong.sequence, now)
        if round_trip is not None:
            self.link.clock_seen(pong.ping_clock_ns, pong.clock_ns, self._wall_clock_ns())
            events.append(Measured(round_trip))

    def _take_request(self, request: Request, events: list[Event]) -> None:
        if not self.takes_requests:
            raise ViolationError(ErrorCode.STATE, "the peer sent a request; none were agreed on")
        if request.id in self._owed:
            raise ViolationError(ErrorCode.STATE, f"request {request.id} is open already")
        if len(self._owed) >= self.local.max_in_flight:
            raise ViolationError(
                ErrorCode.LIMIT,
                f"the peer has more than {self.local.max_in_flight} requests open",
            )
        self._owed.add(request.id)
        events.append(RequestReceived(request))

    # Handshake --------------------------------------------------------------------------------

    def _answer(self, hello: Hello, successor: State, now: float, events: list[Event]) -> None:
        self._check_identity(hello.node_id)
        local = self.local
        version = min(hello.maximum_version, local.maximum_version)
        if version < max(hello.minimum_version, local.minimum_version):
            raise ViolationError(
                ErrorCode.VERSION,
                "no protocol version in common",
                why=f"the peer speaks {hello.minimum_version} to {hello.maximum_version}, "
                f"this node {local.minimum_version} to {local.maximum_version}",
                remedy="upgrade the older node",
            )
        offered = hello.required | hello.optional
        known = local.required | local.optional
        self._check_features(hello.required & ~known, "the peer requires", "this node lacks")
        self._check_features(local.required & ~offered, "this node requires", "the peer lacks")
        self.state = successor
        welcome = Welcome(
            version,
            offered & known,
            local.node_id,
            local.boot_id,
            local.address,
            local.max_frame_bytes,
            local.max_in_flight,
            self._wall_clock_ns(),
        )
        events.append(Transmit(self.send(welcome)))
        self._establish(version, offered & known, hello, now, events)

    def _check_welcome(self, welcome: Welcome) -> None:
        self._check_identity(welcome.node_id)
        local = self.local
        if not local.minimum_version <= welcome.version <= local.maximum_version:
            raise ViolationError(
                ErrorCode.VERSION,
                f"the peer chose protocol version {welcome.version}",
                why=f"it was offered {local.minimum_version} to {local.maximum_version}",
            )
        known = local.required | local.optional
        self._check_features(welcome.features & ~known, "the peer uses", "it was not offered")
        self._check_features(
            local.required & ~welcome.features, "this node requires", "the peer lacks"
        )

    def _check_features(self, missing: int, who: str, verdict: str) -> None:
        if missing:
            raise ViolationError(
                ErrorCode.FEATURE,
                f"{who} the feature {feature_list(missing)}",
                why=f"{verdict} it",
                remedy="upgrade the older node",
            )

    def _check_identity(self, node_id: str) -> None:
        if node_id == self.local.node_id:
            raise ViolationError(
                ErrorCode.SELF,
                "both ends of the session are this node",
                remedy="remove this node's own address from network.seeds",
            )
        if self._certified_id is not None and node_id != self._certified_id:
            raise ViolationError(
                ErrorCode.IDENTITY,
                f"the peer says it is node {node_id}",
                why=f"its certificate was issued for {self._certified_id}",
            )

    def _establish(
        self,
        version: int,
        features: int,
        peer: Hello | Welcome,
        now: float,
        events: list[Event],
    ) -> None:
        self.peer = Established(
            version,
            features,
            peer.node_id,
            peer.boot_id,
            peer.address,
            peer.max_frame_bytes,
            peer.max_in_flight,
        )
        self._decoder.max_payload = self.local.max_frame_bytes
        self._next_ping = now
        events.append(self.peer)

    # Time -------------------------------------------------------------------------------------

    def hasten_pings(self, count: int, interval: float, now: float) -> None:
        """Send the next *count* pings *interval* seconds apart instead of ``ping_interval``, from
        *now* on; no closer than :data:`MIN_PING_INTERVAL`. Those asked for before count as some of
        them. Nothing outside of an open session."""
        if self.state is not State.OPEN:
            return
        self._extra_pings = max(self._extra_pings, min(count, MAX_EXTRA_PINGS))
        self._extra_interval = max(interval, MIN_PING_INTERVAL)
        self._next_ping = min(self._next_ping, max(now, self._last_ping + self._extra_interval))

    def next_deadline(self) -> float:
        """When :meth:`tick` wants to be called, at the latest; infinity when never again."""
        if self.state in ENDED:
            return float("inf")
        if self.state in HANDSHAKE:
            return self._handshake_deadline
        return min(self._last_frame + self.local.idle_timeout, self._next_ping)

    def tick(self, now: float) -> list[Event]:
        """Do what is due: send a ping, give up on a silent peer."""
        events: list[Event] = []
        if self.state in ENDED or now < self.next_deadline():
            return events
        if self.state in HANDSHAKE:
            self._expire(
                "handshake_timeout",
                f"the handshake took longer than {self.local.handshake_timeout:g} s",
                "network.handshake_timeout",
                events,
            )
        elif now >= self._last_frame + self.local.idle_timeout:
            self._expire(
                "idle_timeout",
                f"the peer sent no frame for {self.local.idle_timeout:g} s",
                "network.idle_timeout",
                events,
            )
        else:
            sequence = self._ping_sequence
            self._ping_sequence = (sequence + 1) & 0xFFFFFFFF
            events.append(Transmit(self.send(Ping(sequence, self._wall_clock_ns()))))
            self.link.ping_sent(sequence, now)
            self._last_ping = now
            self._extra_pings = max(self._extra_pings - 1, 0)
            self._next_ping = now + (
                min(self._extra_interval, self._ping_interval)
                if self._extra_pings
                else self._ping_interval
            )
        return events

    def _expire(self, reason: str, what: str, key: str, events: list[Event]) -> None:
        events.append(Transmit(self.send(Error(ErrorCode.TIMEOUT, what))))
        events.append(Failed(reason, SessionTimeoutError(what, key=key)))

    def _fail(self, violation: ViolationError, events: list[Event]) -> None:
        # What the peer is told is our own text: it holds none of its bytes and no secret.
        told = violation.what + (f": {violation.why}" if violation.why else "")
        code = violation.error_code
        data = encode(Error(code, told[:500]))
        self.state = State.FAILED
        events.append(Transmit(data))
        events.append(Failed(code.name.lower(), violation))
