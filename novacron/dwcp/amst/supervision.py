"""What keeps a link: its connections are dialled, counted, replaced and given up here."""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

import trio

from novacron.config.schema import AcpSettings, AmstSettings
from novacron.dwcp.acp.classes.core import DCTCP, NEAR_US, SAME_HOST, PathClass
from novacron.dwcp.acp.steering import UNKNOWN_RTT, Steering
from novacron.dwcp.amst.congestion import Choice, Congestion
from novacron.dwcp.amst.errors import LinkLostError
from novacron.dwcp.amst.metrics import (
    BAD_FRAMES,
    BYTES,
    REKEYS,
    RESENT_BYTES,
    STREAMS,
    STREAMS_LOST,
    WIRE_BYTES,
)
from novacron.dwcp.amst.native import NativeLink
from novacron.dwcp.amst.streams.core import Controller, Sample
from novacron.dwcp.amst.transport import Link, LinkCounters, StreamStatistics
from novacron.errors import DwcpError, NovaCronError

logger = logging.getLogger("novacron.dwcp")

IDLE_AFTER: Final = 60.0
"""Seconds without anything on its way after which a link is closed."""
DIAL_TIMEOUT: Final = 10.0
DIALS_AT_ONCE: Final = 32
FIRST_BACKOFF: Final = 0.2
LAST_BACKOFF: Final = 5.0
STABLE: Final = 5.0
"""Seconds a connection has to last for the next one to be dialled without much of a pause."""
SHORTEST_INTERVAL: Final = 0.25
INTERVAL_ROUND_TRIPS: Final = 4
MOST_CHOICES: Final = 512
"""Twice the streams of a link: some greet and are refused, which nobody hears of."""
WIDE: Final = 2
"""So many times the datacenter's round trip leave no doubt that the path is none."""
FALLBACK: Final = "cubic"
"""Instead of DCTCP, on a live connection."""
SETTING_UP: Final = "it is being set up"
NOT_SET_UP: Final = "the other node, which asked for the link, has not set it up"


class Supervisor(Protocol):
    """Keeps one link; made with it, then run once and closed."""

    heard_close: bool
    """The other node said that it closed the link."""

    @property
    def link(self) -> Link | None:
        """None until there is a connection, where the link is nothing without one."""
        ...

    @property
    def over(self) -> bool:
        """Whether :meth:`run` is about to return, or has."""
        ...

    async def ready(self) -> Link:
        """The link, when it can be used.

        Raises:
          DwcpError: it ended before.
        """
        ...

    def end(self, reason: DwcpError) -> None: ...

    async def run(self) -> DwcpError:
        """Until the link is over; says why."""
        ...

    async def aclose(self) -> None: ...

    def statistics(self) -> dict[str, Any]: ...


class NativeSupervisor:
    """Of a link of the C engine. The initiator dials; both watch."""

    def __init__(
        self,
        link: NativeLink,
        *,
        host: str,
        port: int,
        initiator: bool,
        settings: AmstSettings,
        max_streams: int,
        start: int,
        congestion: Congestion,
        acp: AcpSettings | None = None,
        peer_congestion: str = "",
        dial_rdma: Callable[[int], Awaitable[None]] | None = None,
        rdma_why: str = "not agreed on",
    ) -> None:
        """Args:
        acp: None: what is sent is not paced.
        peer_congestion: What the other end said it uses.
        dial_rdma: Where RDMA was agreed on.
        rdma_why: Why it was not, otherwise.
        """
        self._link = link
        self.heard_close = False
        self._host = host
        self._port = port
        self._initiator = initiator
        self._settings = settings
        self._congestion = congestion
        self._peer_congestion = peer_congestion
        self._choices: dict[int, Choice] = {}
        """Of the streams over TCP, by id."""
        settled = acp or AcpSettings(queue="off")
        off = "it is on the same host" if self._path().name == SAME_HOST else ""
        self._steering = Steering(link, settled, off=off)
        self._dial_rdma = dial_rdma
        self._rdma_stream: int | None = None
        if dial_rdma is not None:
            rdma_why = SETTING_UP if initiator else NOT_SET_UP
        self.rdma_why = rdma_why
        """Why RDMA does not carry; empty while it does."""
        self._controller = Controller(
            minimum=min(settings.streams_min, max_streams),
            maximum=min(settings.streams_max, max_streams),
            start=start,
        )
        self._open: dict[int, float] = {}
        """Streams, and since when."""
        self._dialling = 0
        self._greeting: set[int] = set()
        self._retiring: set[int] = set()
        self._next_id = 1
        self._backoff = FIRST_BACKOFF
        self._dial_at = 0.0
        self._last_failure = ""
        self._wake = trio.Event()
        self._counted = LinkCounters()
        self._unsent = 0
        self._shown = link.mover, 0

    @property
    def link(self) -> NativeLink:
        return self._link

    @property
    def over(self) -> bool:
        return self._link.over

    async def ready(self) -> NativeLink:
        return self._link  # what is given to it waits for its first connection

    def end(self, reason: DwcpError) -> None:
        self.link.end(reason)

    async def aclose(self) -> None:
        self._count()
        await self.link.aclose()
        self._open.clear()
        self._show_streams()

    async def run(self) -> DwcpError:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_streams)
            nursery.start_soon(self._watch_life)
            nursery.start_soon(self._control)
            nursery.start_soon(self._steer)
            if self._initiator:
                nursery.start_soon(self._dial_missing)
                if self._dial_rdma is not None:
                    nursery.start_soon(self._try_rdma, self._dial_rdma)
            reason = await self.link.wait_ended()
            nursery.cancel_scope.cancel()
        return reason

    def statistics(self) -> dict[str, Any]:
        controller = self._controller
        return {
            "role": "initiator" if self._initiator else "acceptor",
            "address": f"{self._host}:{self._port}" if self._initiator else None,
            "streams_wanted": controller.target if self._initiator else None,
            "bound_by": controller.bound_by,
            "decisions": [
                {
                    "at": round(d.at, 3),
                    "streams": d.target,
                    "reason": str(d.reason),
                    "goodput_bps": round(d.goodput_bps),
                    "why": d.why,
                }
                for d in controller.history
            ],
            "last_failure": self._last_failure,
            "rdma": {
                "wanted": self._settings.rdma,
                "got": "off" if self.rdma_why else "on",
                "why": self.rdma_why,
            },
            "path": self._path()._asdict(),
            "congestion": {"other_end": self._peer_congestion, **self._summary()},
            "queue": self._steering.statistics(),
            "counters": self.link.counters()._asdict(),
            "streams": [self._described(stream) for stream in self.link.streams()],
        }

    def _described(self, stream: StreamStatistics) -> dict[str, Any]:
        """What a stream uses is read back now: it may be another one than at first."""
        choice = self._choices.get(stream.id)
        return {
            **stream._asdict(),
            "congestion_wanted": choice.wanted if choice is not None else "",
            "congestion_why": choice.why if choice is not None else "",
        }

    def _summary(self) -> dict[str, str]:
        """Of the newest stream; others may differ where the path was found to be another one."""
        wanted, why = self._path().congestion, ""
        if self._choices:
            choice = self._choices[max(self._choices)]
            wanted, why = choice.wanted, choice.why
        used = sorted({s.congestion for s in self.link.streams() if s.congestion})
        return {"wanted": wanted, "got": ", ".join(used), "why": why}

    # What kind of path it is -------------------------------------------------------------------

    def _path(self) -> PathClass:
        return self._congestion.classify(self._link.peer, self._host)

    def accept(self, fd: int, host: str, stream_id: int) -> None:
        """A connection that the initiator made, before the link has it."""
        choice = self._congestion.accept(fd, host, self._link.peer, self._peer_congestion)
        self._choices[stream_id] = choice
        while len(self._choices) > MOST_CHOICES:
            del self._choices[min(self._choices)]

    async def _steer(self) -> None:
        while True:
            pause = self._steering.observe()
            await trio.sleep(pause)

    def _leave_dctcp(self, streams: list[StreamStatistics]) -> None:
        """A route may change in the life of a connection, and lead over a wide-area hop now."""
        for stream in streams:
            choice = self._choices.get(stream.id)
            far = WIDE * NEAR_US <= stream.min_rtt_us < UNKNOWN_RTT
            if choice is None or stream.congestion != DCTCP or choice.why or not far:
                continue
            why = f"no dctcp over a wide-area hop: the round trip is {stream.min_rtt_us / 1000:.3g} ms"
            self._choices[stream.id] = choice._replace(got=FALLBACK, why=why)
            self.link.use_congestion(stream.id, FALLBACK)

    # Connections -------------------------------------------------------------------------------

    async def _try_rdma(self, dial: Callable[[int], Awaitable[None]]) -> None:
        """Once in the life of a link, beside the first TCP connections: those carry everything until
        the greeting came back over RDMA, which is the self-test, and again if RDMA fails later."""
        stream_id = self._next_id
        self._next_id += 1
        self._rdma_stream = stream_id
        try:
            await dial(stream_id)
        except NovaCronError as exc:
            self.lose_rdma(str(exc))

    def expect_rdma(self, stream_id: int) -> None:
        """That stream, which the initiator dialled, is the one over RDMA."""
        self._rdma_stream = stream_id

    def lose_rdma(self, why: str) -> None:
        """TCP carries, for the rest of the link's life."""
        self._rdma_stream = None
        self.rdma_why = why
        self.link.mover = "tcp"
        if self.link.over:
            return
        logger.warning(
            "RDMA with %s cannot be used, TCP is: %s",
            self.link.peer,
            why,
            extra={"peer": self.link.peer},
        )

    async def _watch_streams(self) -> None:
        async for event in self.link.stream_events:
            self._greeting.discard(event.stream_id)
            rdma = event.stream_id == self._rdma_stream
            if event.kind == "up":
                if rdma:
                    self.link.mover, self.rdma_why = "rdma", ""
                self._open[event.stream_id] = trio.current_time()
            else:
                since = self._open.pop(event.stream_id, None)
                self._retiring.discard(event.stream_id)
                self._choices.pop(event.stream_id, None)
                if event.kind == "lost":
                    STREAMS_LOST.inc()
                if rdma:  # TCP takes over, and that at once
                    self.lose_rdma(event.reason or "the other node ended it")
                elif event.kind == "lost":
                    if since is not None and trio.current_time() - since >= STABLE:
                        self._backoff = FIRST_BACKOFF
                    self._fail(event.reason)
                    logger.info(
                        "a data connection with %s was lost: %s",
                        self.link.peer,
                        event.reason,
                        extra={"peer": self.link.peer, "stream": event.stream_id},
                    )
            self._show_streams()
            self._wake.set()

    def _show_streams(self) -> None:
        mover, count = self._shown
        if count:
            STREAMS.add(-count, mover)
        self._shown = mover, count = self.link.mover, len(self._open)
        if count:
            STREAMS.add(count, mover)

    def _fail(self, why: str) -> None:
        """Dial no more for a while. Those that fail together are one failure."""
        self._last_failure = why
        now = trio.current_time()
        if now >= self._dial_at:
            self._dial_at = now + self._backoff
            self._backoff = min(self._backoff * 2, LAST_BACKOFF)

    async def _dial_missing(self) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                self._wake = trio.Event()
                staying = len(self._open.keys() - self._retiring)
                missing = self._wanted() - staying - len(self._greeting) - self._dialling
                if missing > 0 and trio.current_time() < self._dial_at:
                    await trio.sleep_until(self._dial_at)
                    continue
                for _ in range(min(missing, DIALS_AT_ONCE - self._dialling)):
                    self._dialling += 1
                    nursery.start_soon(self._dial)
                if missing < 0:
                    self._retire(-missing)
                await self._wake.wait()

    def _wanted(self) -> int:
        """Where RDMA carries, that one is all."""
        return 1 if self.link.mover == "rdma" else self._controller.target

    async def _dial(self) -> None:
        """One connection, handed to the engine; a failure is noted and tried again after a pause."""
        failure = "no connection in time"
        try:
            with trio.move_on_after(DIAL_TIMEOUT):
                connection, choice = await self._connect()
                stream_id = self._next_id
                self._next_id += 1
                self._choices[stream_id] = choice
                self.link.add_dialled(connection, stream_id)
                self._greeting.add(stream_id)
                failure = ""
        except OSError as exc:
            failure = exc.strerror or str(exc)
        except LinkLostError as exc:
            failure = exc.why or exc.what
        finally:
            self._dialling -= 1
        if failure:
            self._fail(failure)
        self._wake.set()

    async def _connect(self) -> tuple[socket.socket, Choice]:
        found = await trio.socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, address = found[0]
        connection = trio.socket.socket(family, kind, protocol)
        try:
            peer = self._link.peer
            choice = self._congestion.apply(connection.fileno(), str(address[0]), peer)
            await connection.connect(address)
            choice = self._congestion.confirm(connection.fileno(), choice, peer)
        except BaseException:
            connection.close()
            raise
        return socket.socket(fileno=connection.detach()), choice

    def _retire(self, count: int) -> None:
        """Those that carried least since they were opened go first."""
        spared = self._retiring | {self._rdma_stream}
        here = [s for s in self.link.streams() if s.id in self._open.keys() - spared]
        here.sort(key=lambda stream: stream.sent_bytes + stream.received_bytes)
        for stream in here[:count]:
            self._retiring.add(stream.id)
            self.link.retire(stream.id)

    # Watching ----------------------------------------------------------------------------------

    async def _watch_life(self) -> None:
        alone_since = idle_since = trio.current_time()
        while True:
            await trio.sleep(0.5)
            now = trio.current_time()
            if self._open:
                alone_since = now
            if self.link.busy:
                idle_since = now
            if now - alone_since >= self._settings.link_timeout:
                self.end(
                    LinkLostError(
                        f"the link with node {self.link.peer} is lost",
                        why=f"no connection for {self._settings.link_timeout:g} s"
                        + (f"; the last one: {self._last_failure}" if self._last_failure else ""),
                        key="dwcp.amst.link_timeout",
                    )
                )
            elif self._initiator and now - idle_since >= IDLE_AFTER:
                self.end(LinkLostError("the link was closed", why="nothing moved on it"))

    async def _control(self) -> None:
        before = self.link.counters()
        at = trio.current_time()
        while True:
            streams = self.link.streams()
            round_trips = [s.rtt_us for s in streams if s.rtt_us]
            pause = max(
                SHORTEST_INTERVAL,
                INTERVAL_ROUND_TRIPS * (median(round_trips)) / 1e6,
            )
            await trio.sleep(pause)
            self._leave_dctcp(streams)
            after, now = self.link.counters(), trio.current_time()
            if self._initiator and self._open and self.link.mover == "tcp":
                target = self._controller.observe(
                    self._sample(before, after, now - at, self.link.streams())
                )
                if target != len(self._open):
                    self._wake.set()
            self._count()
            before, at = after, now

    def _sample(
        self,
        before: LinkCounters,
        after: LinkCounters,
        seconds: float,
        streams: list[StreamStatistics],
    ) -> Sample:
        stream_ns = max(len(streams), 1) * seconds * 1e9
        measured = [s for s in streams if s.min_rtt_us]
        unsent, self._unsent = self._unsent, sum(s.unsent_bytes for s in streams)
        sent = after.wire_sent_bytes - before.wire_sent_bytes + unsent - self._unsent
        received = after.wire_received_bytes - before.wire_received_bytes
        # What holds the sending end is known there alone. Seen from a receiving one its streams
        # starve, with nothing to send, which says nothing about the path.
        known = 1.0 if sent >= received else 0.0
        return Sample(
            seconds=seconds,
            moved_bytes=max(0, sent) + received,
            streams=len(self._open.keys() - self._retiring),
            starved_share=known * (after.starved_ns - before.starved_ns) / stream_ns,
            limited_share=known * (after.limited_ns - before.limited_ns) / stream_ns,
            window_share=known * (after.window_ns - before.window_ns) / stream_ns,
            smoothed_rtt=median([s.rtt_us for s in measured]) / 1e6,
            least_rtt=min(s.min_rtt_us for s in measured) / 1e6 if measured else 0.0,
            paced=sent >= received and self._steering.binding,
        )

    def _count(self) -> None:
        """What was moved since the last time, into the node's metrics."""
        now, before = self.link.counters(), self._counted
        if now.sent_bytes < before.sent_bytes:
            return  # the link is gone, and its counters with it
        self._counted = now
        BYTES.inc("sent", by=now.sent_bytes - before.sent_bytes)
        BYTES.inc("received", by=now.received_bytes - before.received_bytes)
        WIRE_BYTES.inc("sent", by=now.wire_sent_bytes - before.wire_sent_bytes)
        WIRE_BYTES.inc("received", by=now.wire_received_bytes - before.wire_received_bytes)
        RESENT_BYTES.inc(by=now.resent_bytes - before.resent_bytes)
        BAD_FRAMES.inc(by=now.bad_frames - before.bad_frames)
        REKEYS.inc(by=now.rekeys - before.rekeys)


def median(values: list[int]) -> int:
    """The upper one of an even number; 0 of none. The standard library's module for this is a
    fiftieth of what a boot imports."""
    return sorted(values)[len(values) // 2] if values else 0
