"""What moves on a link of the C engine."""

from __future__ import annotations

import errno
import os
import time
from array import array
from typing import TYPE_CHECKING, Final

import trio

from novacron._native.amst import Event
from novacron._native.amst_objects import BaseOptions, CodingInfo, CodingOptions, ObjectHandle
from novacron._native.hde import CODECS
from novacron.dwcp.amst.errors import (
    LinkLostError,
    ObjectRefusedError,
    SourceReadError,
    TargetWriteError,
)
from novacron.dwcp.amst.transport import Base, Coding, Progress
from novacron.dwcp.hde.report import (
    NOTHING,
    REASONS,
    RUNGS,
    Coded,
    CodingReport,
    Decision,
    StageSeconds,
)
from novacron.errors import DwcpError

if TYPE_CHECKING:
    from novacron.dwcp.amst.native import NativeLink

_REFUSALS: Final = {
    "NOT_FOUND": "it does not expect this object",
    "DENIED": "it is not allowed to",
    "PROTOCOL": "the pieces do not fit the object that it expects",
    "CLOSED": "it gave the object up",
    "MEMORY": "it is out of memory",
    "LIMIT": "it is at a limit",
    "INTEGRITY": "the pieces did not arrive as they were sent",
}


class NativeMoving:
    """A :class:`~novacron.dwcp.amst.transport.Moving`; made by a :class:`NativeLink`."""

    _handle: ObjectHandle

    def __init__(self, link: NativeLink, tag: int, role: str, chunks: int) -> None:
        self._link = link
        self._tag = tag
        self._role = role
        self._chunks = chunks
        self._finished = trio.Event()
        self._ended = trio.Event()
        self._closing = False
        self._freed = False
        self._failure: Event | None = None
        self._last = Progress(0, 0, 0, 0, 0, chunks)
        self._coded = NOTHING
        self._kept: tuple[bytes, array[int]] | None = None

    @property
    def sends(self) -> bool:
        return self._role == "sending" and not self._finished.is_set()

    async def wait(self) -> None:
        await self._finished.wait()
        if self._failure is not None:
            raise self._error(self._failure)

    def progress(self) -> Progress:
        if not self._freed:
            self._last = Progress(*self._handle.info())
        return self._last

    def coding(self) -> CodingReport:
        if not self._freed:
            self._coded = report_of(self._handle.coding())
        return self._coded

    def pause(self, paused: bool) -> None:
        if not self._freed:
            self._handle.pause(paused)

    def limit(self, bytes_per_second: int) -> None:
        if not self._freed:
            self._handle.limit(bytes_per_second)

    def prioritise(self, priority: int) -> None:
        if not self._freed:
            self._handle.prioritise(priority)

    def bitmap(self) -> bytes:
        if not self._freed:
            return self._handle.bitmap(self._chunks)
        return self._kept[0] if self._kept is not None else b""

    def leaves(self, first: int, count: int) -> array[int]:
        if not self._freed:
            return self._handle.leaves(first, count)
        return self._kept[1][first : first + count] if self._kept is not None else array("I")

    async def aclose(self) -> None:
        if not self._closing:
            self._closing = True
            self._handle.abort()
        with trio.CancelScope(shield=True):
            await self._link._engine._until(self._ended)
        if self._freed:
            return
        progress = self.progress()
        self.coding()
        if self._role == "receiving" and progress.done_chunks < self._chunks:
            # A link that ends closes this before its owner could ask what is to be recorded.
            self._kept = self.bitmap(), self._handle.leaves(0, self._chunks)
        self._freed = True
        self._handle.free()
        self._link._objects.discard(self)
        self._link._engine._objects.pop(self._tag, None)
        if not self._finished.is_set():
            self._failure = Event("object_failed", "CLOSED", 0, False, 0, 0, 0, "")
            self._finished.set()

    def _take(self, event: Event) -> None:
        if event.kind == "object_ended":
            self._ended.set()
            return
        if event.kind == "object_failed":
            self._failure = event
        self._finished.set()

    def _error(self, event: Event) -> DwcpError:
        if event.refused and event.code == "CLOSED":
            # What a link says of its objects when it is ended over there: try again.
            return LinkLostError("the link ended", why="the other node ended it")
        if event.refused:
            return ObjectRefusedError(
                "the other node could not take the object", why=reason_of(_REFUSALS, event)
            )
        if event.code == "CLOSED":
            return self._link._lost()
        if self._role == "sending":
            why = reason_of({"LIMIT": "it is shorter than it was when the transfer began"}, event)
            return SourceReadError("the source cannot be read", why=why)
        return TargetWriteError(
            "the target cannot be written",
            why=reason_of(_REFUSALS, event),
            remedy="free space on its file system" if event.os_errno == errno.ENOSPC else "",
        )


_OFF: Final = CodingOptions()
_POLICIES: Final = ("off", "adaptive", "fixed")


def coding_options(coding: Coding | None) -> CodingOptions:
    if coding is None:
        return _OFF
    return CodingOptions(
        _POLICIES.index(coding.policy),
        CODECS.index(coding.codec),
        coding.level,
        coding.level_min,
        coding.level_max,
    )


def base_options(base: Base | None) -> BaseOptions | None:
    return None if base is None else BaseOptions(base.id, base.fd, base.memory, base.held)


def report_of(info: CodingInfo) -> CodingReport:
    raw, lz4, zstd = (
        Coded(*one) for one in zip(info.chunks, info.bytes, info.wire_bytes, strict=True)
    )
    epoch = time.time() - time.monotonic()
    return CodingReport(
        zero=Coded(info.zero_chunks, info.zero_bytes, 0),
        raw=raw,
        lz4=lz4,
        zstd=zstd,
        delta=Coded(info.delta_chunks, info.delta_bytes, info.delta_wire_bytes),
        refused_bases=info.refused_bases,
        budget_chunks=info.budget_chunks,
        cpu_seconds=StageSeconds(*(ns / 1e9 for ns in info.cpu_ns)),
        decisions=tuple(
            Decision(
                at=epoch + change.at_ns / 1e9,
                before=RUNGS[change.before],
                after=RUNGS[change.after],
                why=REASONS[change.why],
                link_bps=change.link_bps,
                encode_bps=change.encode_bps,
                ratio=change.ratio,
            )
            for change in info.changes
        ),
    )


def reason_of(known: dict[str, str], event: Event) -> str:
    if event.why:
        return event.why
    if event.os_errno:
        return os.strerror(event.os_errno)
    return known.get(event.code, event.code.lower().replace("_", " "))
