"""The seam between what is moved and what moves it: links, and what is in motion on them.

A link joins two nodes. TCP and RDMA through the C engine, one TLS stream in Python (protocol v1) and
plain memory for tests all look like this, and pass the same contract suite
(``tests/contracts/check_link.py``).

Example, sending a file over a link on which the other end called ``receive_object(7, 0, …)``::

    moving = link.send_object(7, 0, Source(fd=fd, size=size), chunk_bytes=1 << 20)
    try:
        await moving.wait()
    finally:
        await moving.aclose()   # from here on nothing reads fd any more
"""

from __future__ import annotations

import enum
from array import array
from collections.abc import Sequence
from typing import Any, Final, Protocol

from novacron.dwcp.hde.report import CodingReport
from novacron.errors import DwcpError
from novacron.record import Record

MIN_CHUNK_BYTES = 64 * 1024
MAX_CHUNK_BYTES = 4 * 1024 * 1024


class Traffic(enum.IntEnum):
    """What something is sent for; the ``priority`` of objects and byte streams. What is of class
    CONTROL comes strictly first, and may borrow from rate limits what they would make it wait for;
    the others share what is left by ``dwcp.acp.weights``, over bytes of content."""

    CONTROL = 0
    STATE = 1
    MIGRATION = 2
    BULK = 3


class Coding(Record):
    """How an object is encoded on its way. A link that cannot encode sends it as it is."""

    policy: str = "adaptive"
    """``adaptive``: for each chunk what gets it over soonest. ``fixed``: *codec* at *level*, where
    that makes a chunk smaller. ``off``: as it is; not even zeros are looked for, but for holes."""
    codec: str = "zstd"
    """``raw``, ``lz4`` or ``zstd``."""
    level: int = 3
    """Of zstd, -7 to 19; of lz4 its acceleration, 1 the best."""
    level_min: int = -5
    """Of zstd, what ``adaptive`` may take."""
    level_max: int = 9


PLAIN: Final = Coding("off")


class Base(Record):
    """What the receiver holds already, so that only the difference is sent. Both ends name it by the
    same *id*, and each chunk proves that it is the same: one that is not is sent whole.

    In a descriptor or in memory, as for :class:`Source`, of the object's size; the target itself may
    be it. Of a source *held* says it as well: the receiver holds these parts of the content, and
    zeros elsewhere.
    """

    id: int
    """1 to 2^32 - 1."""
    fd: int | None = None
    memory: Any = None
    held: Sequence[tuple[int, int]] = ()
    """Offset and size of each part, in order, apart."""


class Source(Record):
    """Where an object's bytes are read: a descriptor or memory, exactly one of them.

    The descriptor stays the caller's and is read with ``pread``; it and the memory must stay until
    :meth:`Moving.aclose` returned.
    """

    size: int
    """Bytes."""
    fd: int | None = None
    memory: Any = None
    """An object with the buffer protocol, of at least *size* bytes, C-contiguous."""
    sparse: bool = False
    """Look for holes (``SEEK_DATA``) and keep them."""
    stable: bool = False
    """Memory that does not change meanwhile may be sent from where it lies, without a copy. Memory
    that does change although this is set costs the stream its checksum, not the target its truth."""
    coding: Coding | None = None
    """None: off."""
    base: Base | None = None


class Target(Record):
    """Where an object's bytes are written; ownership is as for :class:`Source`."""

    size: int
    fd: int | None = None
    memory: Any = None
    sparse: bool = False
    """The target reads as zero where nothing was written: blocks of zeros are not written."""
    base: Base | None = None


class Have(Record):
    """The chunks of an object that the receiver holds already."""

    bits: bytes
    """Bit ``i`` of byte ``i // 8``, least significant first, for chunk ``i``."""
    leaves: array[int]
    """``array("I")``: the CRC-32 of each chunk of the object; only those of held ones mean anything."""


class Progress(Record):
    """How far an object or byte stream is. Bytes of content."""

    done_bytes: int
    """Acknowledged or written; holes and what was there before included."""
    moved_bytes: int
    """Of those, what crossed the link."""
    zero_bytes: int
    """Of those, what was a hole."""
    resent_bytes: int
    """Sent more than once, because a stream died or was too slow."""
    done_chunks: int
    chunks: int


class StreamStatistics(Record):
    """One connection of a link. Times in microseconds, rates in bytes a second."""

    id: int
    state: str
    """``greeting``, ``open`` or ``retiring``."""
    mover: str
    sent_bytes: int
    received_bytes: int
    wire_sent_bytes: int
    wire_received_bytes: int
    in_flight_bytes: int
    rtt_us: int = 0
    rttvar_us: int = 0
    min_rtt_us: int = 0
    base_rtt_us: int = 0
    """The way without queues, as of the last ten seconds; known to BBR only, else 0."""
    snd_cwnd: int = 0
    snd_mss: int = 0
    unsent_bytes: int = 0
    total_retrans: int = 0
    segments_out: int = 0
    """With data, repeated ones included; of the connection's life, as all counters here."""
    needless_retrans: int = 0
    """Repeated although the other end had them already."""
    delivered: int = 0
    delivered_ce: int = 0
    ecn: bool = False
    app_limited: bool = False
    acked_bytes: int = 0
    """By the other side's kernel, of everything sent on it."""
    delivery_rate: int = 0
    pacing_rate: int = 0
    busy_us: int = 0
    rwnd_limited_us: int = 0
    sndbuf_limited_us: int = 0
    congestion: str = ""
    """Congestion control as the kernel names it; empty where it is not TCP or not known."""
    epoch: int = 0
    """How often the sending key was replaced."""


class LinkCounters(Record):
    """Totals of a link since it was opened; all but the last three only grow."""

    sent_bytes: int = 0
    """Content acknowledged by the other side."""
    received_bytes: int = 0
    wire_sent_bytes: int = 0
    wire_received_bytes: int = 0
    resent_bytes: int = 0
    duplicate_bytes: int = 0
    """Received a second time and dropped."""
    hedged_chunks: int = 0
    """Repeated on a second stream because the first was slow."""
    bad_frames: int = 0
    """Refused by tag, checksum or rule; each ended its stream."""
    limited_ns: int = 0
    """Streams were ready and a rate limit held them."""
    starved_ns: int = 0
    """Streams were ready and there was nothing to send."""
    window_ns: int = 0
    """Streams were ready and the receiver's window was full."""
    rekeys: int = 0
    in_flight_bytes: int = 0
    streams: int = 0


class LinkStatistics(Record):
    counters: LinkCounters
    streams: Sequence[StreamStatistics]


class Moving(Protocol):
    """An object or a byte stream on its way, seen from one end. Close it with :meth:`aclose`."""

    async def wait(self) -> None:
        """Return when everything was acknowledged (sender) or written (receiver).

        Raises:
          ObjectRefusedError: the other side could not write it, or does not know it.
          SourceReadError, TargetWriteError: this side could not.
          LinkLostError: the link ended.
        """
        ...

    def progress(self) -> Progress: ...

    def coding(self) -> CodingReport:
        """How it was encoded so far, or, of what is received, decoded. Objects only."""
        ...

    def pause(self, paused: bool) -> None:
        """Stop starting new pieces (sender's end); those under way still arrive."""
        ...

    def limit(self, bytes_per_second: int) -> None:
        """0: no limit."""
        ...

    def prioritise(self, priority: int) -> None:
        """The class of what it is sent for: 0 control, served strictly first; 1 state, 2 migration
        and 3 bulk, which share by ``dwcp.acp.weights``; those of one class take turns."""
        ...

    def bitmap(self) -> bytes:
        """Which chunks are done, as :attr:`Have.bits`. Objects only. Of one that is received and
        was not whole this and the leaves are still to be had after the link closed it."""
        ...

    def leaves(self, first: int, count: int) -> array[int]:
        """CRC-32 of chunks *first* to *first + count - 1*, an ``array("I")``. Objects only."""
        ...

    async def aclose(self) -> None:
        """Abort what is not finished. When this returns, also when cancelled, nothing touches the
        descriptor or memory any more. Harmless when repeated."""
        ...


class Link(Protocol):
    """Both ends may send and receive, many objects and byte streams at once.

    ``number`` is chosen by the sending end, unique on the link among those under way in that
    direction, from 1; ``generation`` counts attempts at the same object. The receiving end calls
    first.
    """

    @property
    def peer(self) -> str:
        """Id of the node at the other end."""
        ...

    @property
    def link_id(self) -> bytes:
        """16 bytes that both ends know it by."""
        ...

    @property
    def protocol(self) -> int:
        """3, or 1 for the fall-back."""
        ...

    @property
    def mover(self) -> str:
        """``tcp``, ``rdma``, ``tls`` or ``memory``."""
        ...

    @property
    def encrypted(self) -> bool: ...

    @property
    def max_chunk_bytes(self) -> int: ...

    @property
    def codecs(self) -> Sequence[str]:
        """What both ends can decode: ``raw``, and of ``lz4``, ``zstd`` and ``delta``."""
        ...

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
    ) -> Moving:
        """Start to send.

        Raises:
          LinkLostError: the link has ended.
        """
        ...

    def receive_object(
        self,
        number: int,
        generation: int,
        target: Target,
        *,
        chunk_bytes: int,
        have: Have | None = None,
    ) -> Moving: ...

    def send_pipe(
        self, number: int, fd: int, *, chunk_bytes: int, priority: int = 0, window_bytes: int
    ) -> Moving:
        """Send what can be read from *fd*, a stream socket or pipe, up to its end. The descriptor
        is duplicated and made non-blocking; the caller may close its own at once."""
        ...

    def receive_pipe(self, number: int, fd: int, *, window_bytes: int) -> Moving:
        """Write what comes to *fd*, in order. A socket is shut down for writing after the last
        byte. *window_bytes* is the sender's as well."""
        ...

    def limit(self, bytes_per_second: int) -> None:
        """Of everything this end sends on the link; 0: no limit."""
        ...

    def statistics(self) -> LinkStatistics: ...

    async def wait_ended(self) -> DwcpError:
        """Return when the link is over, with the reason."""
        ...

    async def aclose(self) -> None:
        """End it. What moves on it fails with LinkLostError. Harmless when repeated."""
        ...


def chunk_count(size: int, chunk_bytes: int) -> int:
    return -(-size // chunk_bytes)
