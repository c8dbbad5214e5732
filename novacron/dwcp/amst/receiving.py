"""The receiving end of a transfer: it decides what may come, where it goes, and when it is whole.

The sender's requests arrive in handlers (:mod:`~novacron.dwcp.amst.transfers`), which call the
methods here; the payload comes over the link meanwhile. Files of one attempt belong to an *epoch*:
a request of an earlier attempt that is still being served notices, and leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import logging
import time
from pathlib import Path
from typing import Any, ClassVar, Final

import trio

from novacron.dwcp.amst import targets
from novacron.dwcp.amst.asking import error_of, is_passing
from novacron.dwcp.amst.errors import (
    LinkLostError,
    TargetWriteError,
    TransferCancelledError,
    TransferRefusedError,
)
from novacron.dwcp.amst.host import Host
from novacron.dwcp.amst.paths import Confinement, Place
from novacron.dwcp.amst.reception import Reception
from novacron.dwcp.amst.store import IncomingRecord, Ledger
from novacron.dwcp.amst.transfer import PRIORITIES, Transfer
from novacron.dwcp.amst.transfer_messages import (
    Begin,
    Begun,
    Control,
    End,
    Outcome,
)
from novacron.dwcp.amst.transport import Link
from novacron.errors import NovaCronError

logger = logging.getLogger("novacron.dwcp.transfers")

MAX_SHOWN: Final = 4096
_GOODBYE_TIMEOUT: Final = 10.0
"""Seconds to tell the sender that it is over."""


class Incoming(Transfer):
    """Made by :class:`~novacron.dwcp.amst.transfers.Transfers`."""

    role: ClassVar[str] = "receiver"

    def __init__(self, host: Host, record: IncomingRecord, *, known: bool) -> None:
        super().__init__(
            bytes.fromhex(record.id), record.peer, created_at=record.created_at, notify=host.notify
        )
        self.record = record
        self.known = known
        """It began in an earlier life of the node, or an earlier attempt."""
        self.paths = list(record.paths)
        self.destination = record.path
        self.tenant = record.tenant
        self.priority = record.priority
        self.limit_bps = record.limit_bps
        self.deadline_at = record.deadline_at
        self.started_at = record.started_at
        self.files_total, self.bytes_total = record.files_total, record.bytes_total
        self._host = host
        self._confinement = Confinement([Path(record.root)]) if record.root else host.confinement
        self._turn = trio.Lock()
        self._reception: Reception | None = None

    @property
    def directory(self) -> Path:
        """Of its journals."""
        return self._host.incoming.directory(self.record.id)

    # Attempts --------------------------------------------------------------------------------

    async def begin(self, link: Link, message: Begin) -> Begun:
        """Raises NovaCronError: the reason to refuse it."""
        async with self._turn:
            if self.state == "cancelled":
                raise TransferCancelledError("the transfer was cancelled at the receiver")
            if self.ended:
                raise TransferRefusedError(f"the transfer is over at the receiver: {self.state}")
            resumed = self.known
            await self._suspend(record=True)
            self.priority = PRIORITIES[min(message.priority, len(PRIORITIES) - 1)]
            self.forget_done()
            self._reception = await self._open_reception(link)
            self.known = True
            await self._save(state="moving", priority=self.priority)
            self.use_link(link)
            self.change("moving")
            self._host.start(self._watch, self._reception)
            logger.info(
                "a transfer goes on" if resumed else "a transfer begins",
                extra={"transfer": self.record.id, "peer": self.peer, "path": self.destination},
            )
            return Begun(None, "crc32", resumed, self.destination[:MAX_SHOWN])

    async def _open_reception(self, link: Link) -> Reception:
        record = self.record

        def work() -> tuple[Place, Ledger]:
            into = record.into if record.prefix is None else not record.prefix
            place = self._confinement.open_target(record.path, into=into)
            try:
                if record.prefix is None and place.name and targets.is_directory(place):
                    place.close()
                    place = self._confinement.open_target(record.path, into=True)
                self._host.incoming.save(record)
                return place, Ledger(self.directory)
            except OSError as exc:
                place.close()
                raise TargetWriteError(
                    "the transfer cannot be kept a record of",
                    why=exc.strerror or str(exc),
                    key="system.data_dir",
                ) from exc
            except BaseException:
                place.close()
                raise

        place, ledger = await trio.to_thread.run_sync(work)
        # Decided once: what the first attempt made must not look like a directory to go into.
        self.record = record._replace(prefix=place.name)
        self.destination = place.path
        return Reception(self._host, self, self.record, self._confinement, link, place, ledger)

    async def _watch(self, reception: Reception) -> None:
        reason = await reception.link.wait_ended()
        async with self._turn:
            if reception is self._reception and not self.ended:
                await self._suspend(record=True)
                self.change("waiting", str(reason))

    async def suspend(self, why: str) -> None:
        """The node stops: record what is there, and let go of it."""
        async with self._turn:
            await self._suspend(record=True)
            self.change("waiting", why)

    async def _suspend(self, *, record: bool) -> None:
        """With the turn: nothing of this transfer is written any more, and its files are closed."""
        reception, self._reception = self._reception, None
        self.leave_link()
        if reception is not None:
            await reception.close(record=record)

    @property
    def reception(self) -> Reception:
        """Raises LinkLostError: the transfer is not under way; the sender has to begin again."""
        if self._reception is None or self.ended:
            raise LinkLostError("the transfer was interrupted at the receiver", why=self.why)
        return self._reception

    # The end ---------------------------------------------------------------------------------

    async def finish_transfer(self, message: End) -> Outcome:
        """The sender says that it is over."""
        async with self._turn:
            if message.state == "cancelled":
                await self._discard(keep_record=False)
                self.end("cancelled", None)
                return Outcome(None)
            if self.ended:
                return Outcome(None)
            if message.state == "failed":
                await self._suspend(record=True)
                error = (
                    error_of(message.trouble, self.peer)
                    if message.trouble is not None
                    else TransferRefusedError("the sender gave the transfer up")
                )
                await self.fail(error)
                return Outcome(None)
            self.change("finishing")
            try:
                await self.reception.finish_directories()
            except NovaCronError as exc:
                await self._suspend(record=True)
                if not is_passing(exc):
                    await self.fail(exc)
                raise
            await self._suspend(record=True)
            await trio.to_thread.run_sync(self._host.incoming.remove, self.record.id)
            self.end("done", None)
            logger.info(
                "a transfer is done",
                extra={"transfer": self.record.id, "peer": self.peer, "path": self.destination},
            )
            return Outcome(None)

    async def fail(self, error: NovaCronError) -> None:
        """Over, but what is there can be gone on with by asking for the same again."""
        self.end("failed", error)
        await self._save(
            state="failed", why=self.why, remedy=self.remedy, finished_at=self.finished_at
        )
        logger.warning(
            "a transfer failed: %s", error, extra={"transfer": self.record.id, "peer": self.peer}
        )

    # By the operator -------------------------------------------------------------------------

    async def pause(self) -> None:
        await self._control("pause")

    async def resume(self) -> None:
        await self._control("resume")

    async def limit(self, bytes_per_second: int) -> None:
        await self._control("limit", bytes_per_second)
        self.limit_bps = bytes_per_second

    async def cancel(self) -> None:
        if self.state in ("done", "cancelled"):
            return
        if not self.ended:
            with contextlib.suppress(NovaCronError):
                await self._control("cancel", within=_GOODBYE_TIMEOUT)
                with trio.move_on_after(_GOODBYE_TIMEOUT):
                    await self._over.wait()
        async with self._turn:
            if self.state not in ("done", "cancelled"):
                # The sender does not know, and must not be let in again when it comes back.
                await self._discard(keep_record=True)
                self.end("cancelled", None)

    async def _control(self, action: str, limit_bps: int = 0, within: float = 30.0) -> None:
        if self.ended:
            return
        answer = await self._host.asking.ask(
            self.peer, "amst.control", Control(self.id, action, limit_bps), Outcome, within=within
        )
        if answer.trouble is not None:
            raise error_of(answer.trouble, self.peer)

    def take_pause(self, paused: bool) -> None:
        """The sender says so."""
        if self.link is not None:
            self.change("paused" if paused else "moving")

    async def _discard(self, *, keep_record: bool) -> None:
        """With the turn: remove every part file, and the journals."""
        await self._suspend(record=False)
        record = self.record._replace(
            state="cancelled", why="it was cancelled here", finished_at=time.time()
        )

        def work() -> None:
            self._remove_parts()
            self._host.incoming.remove(record.id)
            if keep_record:
                self._host.incoming.save(record)

        await trio.to_thread.run_sync(work)

    def _remove_parts(self) -> None:
        """In a thread, while nothing is open."""
        if not self.directory.is_dir() or self.record.prefix is None:
            return
        ledger = Ledger(self.directory)
        try:
            with self._confinement.open_target(
                self.record.path, into=not self.record.prefix
            ) as place:
                for path in ledger.opened:
                    try:
                        with self._confinement.open_below(place, path) as below:
                            targets.remove_part(below, self.id)
                    except NovaCronError as exc:
                        logger.warning("a partial file stays: %s", exc)
        except NovaCronError as exc:
            logger.warning("partial files stay: %s", exc)

    async def sweep(self) -> None:
        """Nobody went on with it for long: forget it."""
        async with self._turn:
            if self.link is not None:
                return
            await self._discard(keep_record=False)
            if not self.ended:
                self.end(
                    "failed",
                    LinkLostError(
                        "the sender did not go on with the transfer",
                        why=f"its partial files were kept for {self._host.settings.keep_partial:g} s",
                        key="dwcp.amst.keep_partial",
                    ),
                )

    async def _save(self, **changes: Any) -> None:
        self.record = self.record._replace(
            started_at=self.started_at,
            files_total=self.files_total,
            bytes_total=self.bytes_total,
            **changes,
        )
        record = self.record
        with contextlib.suppress(OSError):
            await trio.to_thread.run_sync(self._host.incoming.save, record)
