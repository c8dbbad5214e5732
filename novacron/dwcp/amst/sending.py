"""The sending end of a transfer: from one interruption to the next until it is over."""

from __future__ import annotations

import contextlib
import logging
import time
from pathlib import Path
from typing import ClassVar, Final

import trio

from novacron.boot.retry import Backoff
from novacron.dwcp.amst.asking import check, is_passing
from novacron.dwcp.amst.attempt import Attempt
from novacron.dwcp.amst.errors import (
    DeadlineError,
    ObjectRefusedError,
    PeerUnreachableError,
    TransferUnknownError,
)
from novacron.dwcp.amst.host import Host
from novacron.dwcp.amst.rates import Bucket
from novacron.dwcp.amst.sources import Sources
from novacron.dwcp.amst.store import OutgoingRecord
from novacron.dwcp.amst.telling import agree_on_dedup
from novacron.dwcp.amst.transfer import PRIORITIES, Transfer
from novacron.dwcp.amst.transfer_messages import Begin, Begun, End, Outcome, Pause, Trouble
from novacron.dwcp.amst.transport import Link
from novacron.dwcp.hde.choice import chosen
from novacron.dwcp.hde.report import CodingReport
from novacron.errors import NetworkError, NovaCronError

logger = logging.getLogger("novacron.dwcp.transfers")

_GOODBYE_TIMEOUT: Final = 10.0
"""Seconds to tell the receiver that it is over. One that does not hear it keeps what is partial for
a while, and that is all."""
_FINISH_TIMEOUT: Final = 600.0


class Outgoing(Transfer):
    """Made by :class:`~novacron.dwcp.amst.transfers.Transfers`, which calls :meth:`run`."""

    role: ClassVar[str] = "sender"

    def __init__(self, host: Host, record: OutgoingRecord) -> None:
        super().__init__(
            bytes.fromhex(record.id), record.peer, created_at=record.created_at, notify=host.notify
        )
        self.record = record
        self.paths = list(record.paths)
        self.destination = record.destination or record.path
        self.tenant = record.tenant
        self.priority = record.priority
        self.limit_bps = record.limit_bps
        self.deadline_at = record.deadline_at
        self.started_at = record.started_at
        self.files_total, self.bytes_total = record.files_total, record.bytes_total
        self._moved, self._zero = record.bytes_moved, record.bytes_zero
        self._resent, self._wire_bytes = record.bytes_resent, float(record.wire_bytes)
        self._counted = record.bytes_moved
        self._coded = CodingReport.of_json(record.coding)
        self.coding_wanted = chosen(record.codec, host.coding)
        self.files_skipped = record.files_skipped
        self._found = self._found_before = record.bytes_deduplicated
        self.dedup = "never"
        """Of the attempt: whether the receiver is told of blocks."""
        self.bucket = Bucket(float(record.limit_bps), 0.0)
        self.paused = record.paused
        self.generation = 0
        self.attempt: Attempt | None = None
        self.host = host
        self._may_go = trio.lowlevel.ParkingLot()
        self._running = trio.CancelScope()
        self._cancelled = False
        self.leaving = False
        """It is as good as over."""
        self._all_there = record.state == "finishing"

    @classmethod
    def ended_before(cls, host: Host, record: OutgoingRecord) -> Outgoing:
        """One of an earlier life of the node, to be told of."""
        transfer = cls(host, record)
        transfer.state, transfer.why, transfer.remedy = record.state, record.why, record.remedy
        transfer.finished_at = record.finished_at
        transfer.files_done = record.files_done
        transfer._done = record.bytes_done
        transfer.close_before(
            ObjectRefusedError(record.why, remedy=record.remedy) if record.state != "done" else None
        )
        return transfer

    # Its life --------------------------------------------------------------------------------

    async def run(self, slots: trio.CapacityLimiter) -> None:
        """Until it is over. *slots*: as many as may be under way at once."""
        error: NovaCronError | None = None
        deadline = (
            trio.current_time() + self.deadline_at - time.time()
            if self.deadline_at is not None
            else float("inf")
        )
        with self._running, trio.CancelScope(deadline=deadline) as timed:
            try:
                async with slots:
                    await self._try_until_done()
            except NovaCronError as exc:
                error = exc
        if timed.cancelled_caught:
            error = DeadlineError(
                "the transfer was not done by its deadline",
                why=f"{self.progress().done_bytes} of {self.bytes_total} bytes are there",
                remedy="send it again with a later one; it goes on from there",
            )
        state = "cancelled" if self._cancelled else "failed" if error is not None else "done"
        self.leaving = True
        await self._say_end(state, error)
        self.end(state, error)
        await self.save()
        level = logging.WARNING if state == "failed" else logging.INFO
        logger.log(
            level,
            "a transfer %s%s",
            {"done": "is done", "failed": "failed", "cancelled": "was cancelled"}[state],
            f": {error}" if error is not None else "",
            extra={"transfer": self.record.id, "peer": self.peer, "bytes": self._moved},
        )

    async def _try_until_done(self) -> None:
        backoff = Backoff(self.host.retry, self.host.random)
        interrupted_at: float | None = None
        while True:
            await self._wait_unpaused()
            before = self._moved + self.files_done
            try:
                if not self._all_there:
                    await self._attempt()
                self._all_there = True
                await self._finish()
                return
            except NovaCronError as exc:
                if not is_passing(exc):
                    raise
                now = trio.current_time()
                if self._moved + self.files_done > before:
                    backoff.failures, interrupted_at = 0, None
                if interrupted_at is None:
                    interrupted_at = now
                    logger.info(
                        "a transfer was interrupted: %s",
                        exc,
                        extra={"transfer": self.record.id, "peer": self.peer},
                    )
                if now - interrupted_at > self.host.settings.retry_for:
                    raise PeerUnreachableError(
                        "the transfer was interrupted for too long",
                        why=str(exc),
                        remedy="send it again when the other node can be reached; it goes on from "
                        "where it is",
                        key="dwcp.amst.retry_for",
                    ) from exc
                if not self.paused:
                    self.change("waiting", str(exc))
                await self.save()
                await trio.sleep(backoff.next_delay(now))

    async def _attempt(self) -> None:
        record, host = self.record, self.host
        self.change("connecting")
        self.generation += 1
        sources = await trio.to_thread.run_sync(self.open_sources)
        try:
            link = await self._link()
            begun = await host.asking.ask(
                self.peer,
                "amst.begin",
                Begin(
                    self.id,
                    link.link_id,
                    record.path,
                    # What has no name of its own cannot be given one, only be put into something.
                    record.path.endswith("/") or len(record.paths) > 1 or nameless(record.paths[0]),
                    record.overwrite,
                    record.on_change,
                    PRIORITIES.index(record.priority),
                    self.id if record.pulled else None,
                ),
                Begun,
            )
            check(begun.trouble, self.peer)
            self.destination = begun.destination or record.path
            self.dedup = await agree_on_dedup(self)
            self.use_link(link)
            self.change("paused" if self.paused else "moving")
            await self.save()
            self.attempt = Attempt(self, link, sources)
            await self.attempt.run()
        finally:
            self.attempt = None
            self.leave_link()
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(sources.close)
        if self.errors_total:
            first = self.errors[0]
            raise ObjectRefusedError(
                f"{self.errors_total} of {self.files_total} files were not sent"
                if self.files_total > 1
                else f"{first.path} was not sent",
                why=first.why if self.files_total <= 1 else f"{first.path}: {first.why}",
                remedy=self.attempt_remedy,
            )

    async def _link(self) -> Link:
        try:
            return await self.host.links.link_to(self.peer)
        except NetworkError as exc:
            # Also one that is not known: after a restart of this node it may be the other one
            # that dials.
            raise PeerUnreachableError(
                f"node {self.peer} cannot be reached", why=str(exc), remedy=exc.remedy, key=exc.key
            ) from exc

    attempt_remedy = ""
    """Of the first file that was not sent."""

    def open_sources(self) -> Sources:
        """In a thread."""
        record = self.record
        return Sources(
            record.paths,
            recursive=record.recursive,
            confinement=self.host.confinement if record.pulled or record.confined else None,
        )

    async def _finish(self) -> None:
        self.change("finishing")
        # Before it is said: a node that dies in between must not offer everything once more to a
        # receiver that has forgotten the transfer.
        await self.save()
        answer = await self.host.asking.ask(
            self.peer, "amst.end", End(self.id, "done", None), Outcome, within=_FINISH_TIMEOUT
        )
        try:
            check(answer.trouble, self.peer)
        except TransferUnknownError:
            return  # it was done, and the receiver was started anew since
        except NovaCronError as exc:
            # It has let go of the files' places, and needs to be told them again.
            self._all_there = not is_passing(exc)
            raise

    async def _say_end(self, state: str, error: NovaCronError | None) -> None:
        if state == "done":
            return
        trouble = Trouble.of(error) if error is not None else None
        with (
            contextlib.suppress(NovaCronError),
            trio.move_on_after(_GOODBYE_TIMEOUT),
        ):
            await self.host.asking.ask(
                self.peer,
                "amst.end",
                End(self.id, state, trouble),
                Outcome,
                within=_GOODBYE_TIMEOUT,
            )

    async def save(self) -> None:
        found = self.progress()
        self.record = self.record._replace(
            state=self.state,
            why=self.why,
            remedy=self.remedy,
            paused=self.paused,
            limit_bps=self.limit_bps,
            started_at=self.started_at,
            finished_at=self.finished_at,
            destination=self.destination,
            files_total=self.files_total,
            files_done=self.files_done,
            bytes_total=self.bytes_total,
            bytes_done=found.done_bytes,
            bytes_moved=self.moved_bytes,
            bytes_zero=found.zero_bytes,
            bytes_resent=found.resent_bytes,
            wire_bytes=int(self._wire_bytes),
            files_skipped=self.files_skipped,
            coding=self.coding().as_json(),
            bytes_deduplicated=self._found,
        )
        record = self.record
        try:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self.host.outgoing.save, record)
        except OSError as exc:
            # It goes on in memory; only a restart of the node would not know how far it is.
            logger.warning("the state of a transfer cannot be kept: %s", exc.strerror)

    # Steering --------------------------------------------------------------------------------

    async def pause(self) -> None:
        if self.ended or self.paused:
            return
        self.paused = True
        if self.attempt is not None:
            self.attempt.pause(True)
        self.change("paused")
        await self.save()
        await self._say_pause()

    async def resume(self) -> None:
        if self.ended or not self.paused:
            return
        self.paused = False
        self._may_go.unpark_all()
        if self.attempt is not None:
            self.attempt.pause(False)
        self.change("waiting" if self.link is None else "moving")
        await self.save()
        await self._say_pause()

    async def _say_pause(self) -> None:
        if self.link is not None:
            with contextlib.suppress(NovaCronError):
                await self.host.asking.ask(
                    self.peer, "amst.pause", Pause(self.id, self.paused), Outcome, within=5
                )

    async def wait_unpaused(self) -> None:
        while self.paused:
            await self._may_go.park()

    async def _wait_unpaused(self) -> None:
        if self.paused:
            self.change("paused")
            await self.wait_unpaused()

    async def cancel(self) -> None:
        if self.ended:
            if self.state == "failed":
                # Its partial files are kept for another attempt that is not to come.
                await self._say_end("cancelled", None)
            return
        self._cancelled = True
        self._running.cancel()
        await self._over.wait()

    async def limit(self, bytes_per_second: int) -> None:
        self.limit_bps = bytes_per_second
        self.bucket.change(float(bytes_per_second), trio.current_time())
        if self.attempt is not None:
            self.attempt.share()
        await self.save()


def resolve(paths: tuple[str, ...]) -> list[str]:
    """*paths*, absolute: a transfer goes on in another process, with another working directory."""
    return [path if path.startswith("/") else f"{Path.cwd()}/{path}" for path in paths]


def nameless(path: str) -> bool:
    """Whether *path* gives what is in it, without a directory around; see
    :mod:`~novacron.dwcp.amst.sources`."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return not parts or parts[-1] == ".." or path.endswith("/.")
