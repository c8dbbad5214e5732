"""A transfer as those see it who asked for it, watch it and steer it; both roles have it in common."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Final

import trio

from novacron.dwcp.amst.errors import TransferCancelledError
from novacron.dwcp.amst.rates import Meter, eta_seconds
from novacron.dwcp.amst.transport import Link, Moving, Progress, Traffic
from novacron.dwcp.amst.wire_share import WireShare
from novacron.dwcp.hde.blocks.metrics import DEDUPLICATED
from novacron.dwcp.hde.report import NOTHING, CodingReport
from novacron.errors import NovaCronError
from novacron.observe import Counter, Gauge
from novacron.record import Record

TRANSFERS: Final = Counter(
    "novacron_dwcp_transfers_ended_total", "Transfers that ended.", ("role", "result")
)
TRANSFER_BYTES: Final = Counter(
    "novacron_dwcp_transfer_bytes_total",
    "Bytes of content that crossed a link in transfers.",
    ("direction",),
)
STATES: Final = Gauge(
    "novacron_dwcp_transfers", "Transfers that are not over, by state.", ("state",)
)

ENDED: Final = frozenset({"done", "failed", "cancelled"})
MAX_ERRORS: Final = 20
PRIORITIES: Final = ("urgent", "normal", "background")
CLASSES: Final = {
    "urgent": Traffic.STATE,
    "normal": Traffic.MIGRATION,
    "background": Traffic.BULK,
}
"""Of traffic, by priority. None is control: however urgent, files must not hold up what steers."""


class SendRequest(Record):
    """Send *paths* to *path* on *node*, as ``cp -r`` would: see
    :mod:`~novacron.dwcp.amst.sources` for what the entries are called there."""

    node: str
    """Its id."""
    paths: tuple[str, ...]
    """Of this node; absolute."""
    path: str
    """Where to, absolute or below the first of the directories that node allows. A directory that
    is there, or a slash at the end: into it."""
    priority: str = "normal"
    limit_bps: int = 0
    """Bytes a second; 0: no limit."""
    deadline_seconds: float = 0.0
    """From now; 0: none."""
    overwrite: bool = False
    on_change: str = "refuse"
    """Where a source changes while it is sent: ``refuse`` it, or ``restart`` it."""
    recursive: bool = True
    anywhere: bool = True
    """*paths* may be outside of the directories this node allows."""
    codec: str = ""
    """``auto``, ``off``, ``lz4``, ``zstd`` or ``zstd:LEVEL``; empty: as ``dwcp.hde`` says."""
    tenant: str = ""
    """Whose files these are: what another tenant has at the receiver is never made use of, nor told
    of. Empty: ``dwcp.hde.tenant``."""
    dedup: str = ""
    """Whether the receiver looks for what it holds in other files: ``auto``, ``always``, ``never``.
    Empty: ``dwcp.hde.dedup``."""


class ReceiveRequest(Record):
    """Have *node* send *paths* of its own, which must lie below the directories it allows, to
    *path* here."""

    node: str
    paths: tuple[str, ...]
    path: str
    priority: str = "normal"
    limit_bps: int = 0
    deadline_seconds: float = 0.0
    overwrite: bool = False
    on_change: str = "refuse"
    recursive: bool = True
    anywhere: bool = False
    """*path* may be outside of the directories this node allows: its caller answers for that."""
    tenant: str = ""
    dedup: str = ""


class TransferError(Record):
    path: str
    why: str


class TransferView(Record):
    """How a transfer stands. Bytes of content unless a name says otherwise; times are seconds since
    the epoch, or None where they have not come."""

    id: str
    direction: str
    """``send`` or ``receive``."""
    role: str
    peer: str
    state: str
    why: str
    remedy: str
    paths: list[str]
    destination: str
    created_at: float
    started_at: float | None
    finished_at: float | None
    files_total: int
    files_done: int
    bytes_total: int
    bytes_done: int
    bytes_moved: int
    bytes_zero: int
    bytes_resent: int
    wire_bytes: int
    """With headers, tags and what was sent again; this transfer's share of its links'."""
    rate_bps: float
    """Of content, over the last five seconds."""
    eta_seconds: float | None
    streams: int
    mover: str
    protocol: int
    """0 before there was a link."""
    encrypted: bool
    priority: str
    limit_bps: int
    deadline_at: float | None
    current: str
    errors: list[TransferError]
    files_skipped: int
    """What lies in a directory that is sent and cannot be: links, pipes, sockets, devices, names that
    the other node would refuse. The sender knows; 0 at the receiver."""
    skipped: list[TransferError]
    """The first of them, in this life of the node."""
    wire_rate_bps: float = 0.0
    """Of :attr:`wire_bytes`, over the last five seconds."""
    coding: CodingReport = NOTHING
    """How the content was encoded; at the receiver, decoded. Of all attempts; what was sent again is
    in it as often."""
    bytes_deduplicated: int = 0
    """What the receiver held in other files, and so was not moved."""


class Transfer(ABC):
    """Made by :class:`~novacron.dwcp.amst.transfers.Transfers`, which also runs it.

    Attributes:
      id: 16 bytes.
      peer: Id of the other node.
      state: ``waiting``, ``connecting``, ``moving``, ``paused``, ``finishing``; at the end ``done``,
        ``failed`` or ``cancelled``.
    """

    role: ClassVar[str]

    def __init__(
        self, id: bytes, peer: str, *, created_at: float, notify: Callable[[], None]
    ) -> None:
        self.id = id
        self.peer = peer
        self.state = "waiting"
        self.why = ""
        self.remedy = ""
        self.paths: list[str] = []
        self.destination = ""
        self.tenant = ""
        """Whose files these are; empty: nobody said, or not yet."""
        self.priority = "normal"
        self.limit_bps = 0
        self.deadline_at: float | None = None
        self.created_at = created_at
        self.started_at: float | None = None
        self.finished_at: float | None = None
        self.files_total = self.files_done = 0
        self.bytes_total = 0
        self.total_known = False
        self.errors: list[TransferError] = []
        self.errors_total = 0
        self.files_skipped = 0
        self.skipped: list[TransferError] = []
        self.current = ""
        self.link: Link | None = None
        # Of the last link, also when it is left: what a transfer went over is asked afterwards too.
        self._mover, self._protocol, self._encrypted = "", 0, False
        self._done = self._moved = self._zero = self._resent = 0
        self._found = self._parts = 0
        self._found_before = 0
        """In an earlier life of the node."""
        self._wire_bytes = 0.0
        self._wire: WireShare | None = None
        self._counted = 0
        self._seen = 0
        self._active: dict[Moving, int] = {}
        self._coded = NOTHING
        self._rate = Meter()
        self._wire_rate = Meter()
        self._advance = Meter()
        self._error: NovaCronError | None = None
        self._over = trio.Event()
        self._changes = trio.lowlevel.ParkingLot()
        self._notify = notify

    # For whoever asked -----------------------------------------------------------------------

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    async def wait(self) -> None:
        """Return when it is done.

        Raises:
          NovaCronError: it failed, or was cancelled (TransferCancelledError); the error says why
            and what to do.
        """
        await self._over.wait()
        if self._error is not None:
            raise self._error

    async def wait_ended(self) -> None:
        """Return when it is over, however that came."""
        await self._over.wait()

    async def wait_changed(self) -> None:
        """Return when there is something new to see: at once where the state changes, every half
        a second while bytes move. Returns at once when it is over."""
        if self.ended:
            await trio.lowlevel.checkpoint()
            return
        await self._changes.park()

    @abstractmethod
    async def pause(self) -> None:
        """Stop to move until :meth:`resume`. Harmless when repeated.

        Raises:
          NovaCronError: the sender is another node, and does not answer.
        """

    @abstractmethod
    async def resume(self) -> None:
        """Go on after :meth:`pause`."""

    @abstractmethod
    async def cancel(self) -> None:
        """End it, and remove what is partial at the receiver, as soon as that can be reached."""

    @abstractmethod
    async def limit(self, bytes_per_second: int) -> None:
        """0: no limit."""

    def view(self) -> TransferView:
        now = trio.current_time()
        progress = self.progress()
        done = progress.done_bytes if self.ended else max(progress.done_bytes, self._seen)
        moving = self.state == "moving"
        link = self.link
        rate = self._rate.rate(now) if moving else 0.0
        left = max(0, self.bytes_total - done)
        eta = eta_seconds(left, self._advance.rate(now)) if moving and self.total_known else None
        return TransferView(
            id=self.id.hex(),
            direction="send" if self.role == "sender" else "receive",
            role=self.role,
            peer=self.peer,
            state=self.state,
            why=self.why,
            remedy=self.remedy,
            paths=list(self.paths),
            destination=self.destination,
            created_at=self.created_at,
            started_at=self.started_at,
            finished_at=self.finished_at,
            files_total=self.files_total,
            files_done=self.files_done,
            bytes_total=max(self.bytes_total, done),
            bytes_done=done,
            bytes_moved=self.moved_bytes,
            bytes_zero=progress.zero_bytes,
            bytes_resent=progress.resent_bytes,
            wire_bytes=int(self._wire_bytes),
            rate_bps=rate,
            wire_rate_bps=self._wire_rate.rate(now) if moving else 0.0,
            eta_seconds=eta,
            streams=link.statistics().counters.streams if link is not None else 0,
            mover=self._mover,
            protocol=self._protocol,
            encrypted=self._encrypted,
            priority=self.priority,
            limit_bps=self.limit_bps,
            deadline_at=self.deadline_at,
            current=self.current,
            errors=list(self.errors),
            files_skipped=self.files_skipped,
            skipped=list(self.skipped),
            coding=self.coding(),
            bytes_deduplicated=self._found,
        )

    # For those that run it -------------------------------------------------------------------

    def progress(self) -> Progress:
        done, moved, zero, resent = self._done, self._moved, self._zero, self._resent
        for moving in self._active:
            found = moving.progress()
            done += found.done_bytes
            moved += found.moved_bytes
            zero += found.zero_bytes
            resent += found.resent_bytes
        return Progress(done, moved, zero, resent, 0, 0)

    def coding(self) -> CodingReport:
        found = self._coded
        for moving in self._active:
            found = found.plus(moving.coding())
        return found

    def tick(self) -> None:
        """Half a second passed: take the measures."""
        now = trio.current_time()
        found = self.progress()
        self._rate.note(now, found.moved_bytes)
        self._advance.note(now, found.moved_bytes + found.zero_bytes)
        moved = self.moved_bytes
        if moved > self._counted:
            TRANSFER_BYTES.inc(
                "sent" if self.role == "sender" else "received", by=moved - self._counted
            )
            self._counted = moved
        if self._wire is not None:
            self._wire_bytes += self._wire.note(found.moved_bytes, self.role)
            self._wire_rate.note(now, int(self._wire_bytes))
        if self.state == "moving":
            self._changes.unpark_all()

    def change(self, state: str, why: str = "", remedy: str = "") -> None:
        """To another state; the last one but for the measures is not left again."""
        if self.ended:
            return
        if self.started_at is None and state in ("moving", "finishing"):
            self.started_at = time.time()
        self.state, self.why, self.remedy = state, why, remedy
        self._changes.unpark_all()
        self._notify()

    def end(self, state: str, error: NovaCronError | None) -> None:
        """``done``, or with the reason."""
        if self.ended:
            return
        self.tick()
        self.leave_link()
        self.finished_at = time.time()
        self.current = ""
        if state == "cancelled" and error is None:
            error = TransferCancelledError("the transfer was cancelled")
        self._error = error
        self.change(
            state,
            "" if error is None else _said(error),
            "" if error is None else remedy_of(error),
        )
        TRANSFERS.inc(self.role, state)
        DEDUPLICATED.inc(
            "sent" if self.role == "sender" else "received",
            by=max(0, self._found - self._found_before),
        )
        self._over.set()

    def close_before(self, error: NovaCronError | None) -> None:
        """It was over in an earlier life of the node."""
        self._error = error
        self._over.set()

    @property
    def error(self) -> NovaCronError | None:
        """What it ended with."""
        return self._error

    def use_link(self, link: Link) -> None:
        self.link = link
        self._mover, self._protocol, self._encrypted = link.mover, link.protocol, link.encrypted
        self._wire = WireShare(link)
        self._rate.forget()
        self._wire_rate.forget()
        self._advance.forget()
        self.tick()

    def leave_link(self) -> None:
        # What was there does not go away while both ends find out what they have.
        self._seen = max(self._seen, self.progress().done_bytes)
        if self._wire is not None:
            self._wire_bytes += self._wire.note(self.progress().moved_bytes, self.role)
        self._wire = None
        self.link = None

    def attend(self, moving: Moving, size: int) -> None:
        """Count *moving*, an object of *size* bytes, as part of this."""
        self._active[moving] = size

    def absorb(self, moving: Moving) -> None:
        """*moving* stopped, finished or not. What it did counts as moved; it counts as done when
        :meth:`count_file` says so."""
        if self._active.pop(moving, None) is None:
            return
        found = moving.progress()
        self._moved += found.moved_bytes
        self._zero += found.zero_bytes
        self._resent += found.resent_bytes
        self._coded = self._coded.plus(moving.coding())

    def count_found(self, size: int) -> None:
        """So many bytes were held in other files; less than 0 where that came to nothing."""
        self._found += size

    def count_parts(self, size: int) -> None:
        """An object moved, and so many bytes of its chunks were at the receiver: the rest of those
        chunks crossed the link, not all of them, as those say that move chunks."""
        self._parts += size
        self.count_found(size)

    @property
    def moved_bytes(self) -> int:
        """Content that crossed a link."""
        return max(0, self.progress().moved_bytes - self._parts)

    def count_file(self, size: int) -> None:
        """A file, or a directory (0 bytes), is finished."""
        self.files_done += 1
        self._done += size

    def forget_done(self) -> None:
        """A new attempt counts from nothing what is there; what was moved stays moved."""
        self.files_done = 0
        self._done = 0

    def add_error(self, path: str, error: NovaCronError) -> None:
        self.errors_total += 1
        if len(self.errors) < MAX_ERRORS:
            self.errors.append(TransferError(path, _said(error)))
        self._changes.unpark_all()


def _said(error: NovaCronError) -> str:
    return f"{error.what}: {error.why}" if error.why else error.what


def remedy_of(error: NovaCronError) -> str:
    """What to do, with the key concerned: a view has no other place for that."""
    return f"{error.remedy} [{error.key}]".lstrip() if error.key else error.remedy


def count_states(transfers: Iterator[Transfer]) -> None:
    """Set the gauge."""
    counts: dict[str, int] = dict.fromkeys(
        ("waiting", "connecting", "moving", "paused", "finishing"), 0
    )
    for transfer in transfers:
        if not transfer.ended:
            counts[transfer.state] += 1
    for state, count in counts.items():
        STATES.set(count, state)


def view_as_dict(view: TransferView) -> dict[str, Any]:
    """For JSON."""
    found = view._asdict()
    found["coding"] = view.coding.as_json()
    found["errors"] = [error._asdict() for error in view.errors]
    found["skipped"] = [skipped._asdict() for skipped in view.skipped]
    return found
