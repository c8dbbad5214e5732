"""The receiving end of a transfer: it decides what may come, where it goes, and when it is whole.

The sender's requests arrive in handlers (:mod:`~novacron.dwcp.amst.transfers`), which call the
methods here; the payload comes over the link meanwhile. Files of one attempt belong to an *epoch*:
a request of an earlier attempt that is still being served notices, and leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, ClassVar, Final

import trio

from novacron.boot.retry import Backoff
from novacron.dwcp.amst import runs, targets
from novacron.dwcp.amst.arriving import Arriving
from novacron.dwcp.amst.asking import error_of, is_passing
from novacron.dwcp.amst.errors import (
    DeadlineError,
    IntegrityError,
    LinkLostError,
    MessageError,
    SourceChangedError,
    TargetWriteError,
    TransferCancelledError,
    TransferRefusedError,
    TransferUnknownError,
)
from novacron.dwcp.amst.host import Host
from novacron.dwcp.amst.paths import Confinement, Place, fault_of_path
from novacron.dwcp.amst.store import IncomingRecord, Ledger
from novacron.dwcp.amst.transfer import PRIORITIES, Transfer
from novacron.dwcp.amst.transfer_messages import (
    HAVE_CHUNKS,
    AskHave,
    Begin,
    Begun,
    Control,
    Drop,
    End,
    Entries,
    EntriesTaken,
    Entry,
    EntryState,
    Finish,
    Finished,
    FinishedObject,
    HavePage,
    Outcome,
    Pull,
    Start,
    Trouble,
)
from novacron.dwcp.amst.transport import Link, Target
from novacron.errors import NovaCronError

logger = logging.getLogger("novacron.dwcp.transfers")

MAX_OBJECTS: Final = 256
"""Files of one transfer that are open at once; a sender offers half as many."""
MAX_DIRECTORIES: Final = 1_000_000
"""Of one transfer: their modes and times are kept to be set at the end."""
_ARRIVAL_TIMEOUT: Final = 60.0
"""Seconds between what the sender says was acknowledged and what this end saw written."""
_GOODBYE_TIMEOUT: Final = 10.0
_DEADLINE_GRACE: Final = 5.0


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
        self.priority = record.priority
        self.limit_bps = record.limit_bps
        self.deadline_at = record.deadline_at
        self.started_at = record.started_at
        self.files_total, self.bytes_total = record.files_total, record.bytes_total
        self._host = host
        self._confinement = Confinement([Path(record.root)]) if record.root else host.confinement
        self._turn = trio.Lock()
        self._epoch = 0
        self._serving = 0
        self._served = trio.lowlevel.ParkingLot()
        self._place: Place | None = None
        self._ledger: Ledger | None = None
        self._objects: dict[int, Arriving] = {}
        self._directories: dict[str, tuple[int, int]] = {}
        self._asked_again = True

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
            if self.state == "done":
                raise TransferRefusedError("the transfer is done already")
            resumed = self.known
            await self._suspend(record=True)
            self.priority = PRIORITIES[min(message.priority, len(PRIORITIES) - 1)]
            self.forget_done()
            await self._open_place()
            self.known = True
            await self._save(state="moving", priority=self.priority)
            self.use_link(link)
            self.change("moving")
            self._host.start(self._watch, link, self._epoch)
            logger.info(
                "a transfer goes on" if resumed else "a transfer begins",
                extra={"transfer": self.record.id, "peer": self.peer, "path": self.destination},
            )
            return Begun(None, "crc32", resumed, self.destination[:4096])

    async def _open_place(self) -> None:
        record = self.record

        def work() -> tuple[Place, str, Ledger]:
            into = record.into if record.prefix is None else not record.prefix
            place = self._confinement.open_target(record.path, into=into)
            try:
                if record.prefix is None and place.name and targets.is_directory(place):
                    place.close()
                    place = self._confinement.open_target(record.path, into=True)
                self._host.incoming.save(record)
                return place, place.name, Ledger(self.directory)
            except BaseException:
                place.close()
                raise

        place, prefix, ledger = await trio.to_thread.run_sync(work)
        self._place, self._ledger = place, ledger
        # Decided once: what the first attempt made must not look like a directory to go into.
        self.record = record._replace(prefix=prefix)
        self.destination = place.path

    async def _watch(self, link: Link, epoch: int) -> None:
        reason = await link.wait_ended()
        async with self._turn:
            if epoch == self._epoch and not self.ended:
                await self._suspend(record=True)
                self.change("waiting", str(reason))

    async def suspend(self, why: str) -> None:
        """The node stops: record what is there, and let go of it."""
        async with self._turn:
            await self._suspend(record=True)
            self.change("waiting", why)

    async def _suspend(self, *, record: bool) -> None:
        """With the turn: nothing of this transfer is written any more, and its files are closed."""
        self._epoch += 1
        self.leave_link()  # from here on no request is let in
        with trio.CancelScope(shield=True):
            for arriving in self._objects.values():
                arriving.interrupt()
            # Requests that are being served may be about to give a whole file its name.
            while self._serving:
                await self._served.park()
            async with trio.open_nursery() as nursery:
                for arriving in self._objects.values():
                    nursery.start_soon(self._stop, arriving, record)
            await self._let_go()

    async def _stop(self, arriving: Arriving, record: bool) -> None:
        await arriving.stop(record=record)

    async def _let_go(self) -> None:
        objects = list(self._objects.values())
        for arriving in objects:
            self._release(arriving)
        place, self._place = self._place, None
        ledger, self._ledger = self._ledger, None

        def work() -> None:
            for arriving in objects:
                arriving.close()
            if place is not None:
                place.close()
            if ledger is not None:
                ledger.close()

        await trio.to_thread.run_sync(work)

    def _release(self, arriving: Arriving) -> None:
        """It is no longer one of this transfer's open files."""
        if self._objects.get(arriving.entry.entry) is arriving:
            del self._objects[arriving.entry.entry]
            self._host.open_files.give(1)
        if arriving.moving is not None:
            self.absorb(arriving.moving)

    @asynccontextmanager
    async def _served_request(self) -> AsyncIterator[int]:
        """Raises TransferUnknownError: the transfer is not under way."""
        if self._place is None or self.link is None or self.ended:
            raise TransferUnknownError(
                "the transfer is not under way at the receiver",
                why=self.why or "it was interrupted",
            )
        self._serving += 1
        try:
            yield self._epoch
        finally:
            self._serving -= 1
            self._served.unpark_all()

    def _check_epoch(self, epoch: int) -> None:
        if epoch != self._epoch:
            raise LinkLostError("the transfer was interrupted", why=self.why)

    # What comes ------------------------------------------------------------------------------

    async def take_entries(self, message: Entries) -> EntriesTaken:
        async with self._served_request() as epoch:
            entries = message.entries
            if len({entry.entry for entry in entries}) != len(entries):
                raise MessageError("a peer offered one entry twice in a message")
            self.files_total = max(self.files_total, message.total_files)
            self.bytes_total = max(self.bytes_total, message.total_bytes)
            self.total_known = True
            for entry in entries:
                old = self._objects.get(entry.entry)
                if old is not None:  # offered anew, since its source changed
                    await old.stop(record=False)
                    self._release(old)
                    await trio.to_thread.run_sync(old.close)
            if len(self._objects) + len(entries) > MAX_OBJECTS:
                raise MessageError(f"a peer offered more than {MAX_OBJECTS} files at once")
            await self._host.take_files(len(entries))
            unused = len(entries)
            states = []
            try:
                found = await trio.to_thread.run_sync(self._prepare_all, entries)
                for entry, outcome in zip(entries, found, strict=True):
                    if isinstance(outcome, Arriving):
                        self._objects[entry.entry] = outcome
                        unused -= 1
                self._check_epoch(epoch)
                for entry, outcome in zip(entries, found, strict=True):
                    states.append(await self._answer(entry, outcome, epoch))
            finally:
                self._host.open_files.give(unused)
            return EntriesTaken(None, states)

    def _prepare_all(self, entries: list[Entry]) -> list[Arriving | NovaCronError | None]:
        """In a thread. For each the file, or why not, or None: nothing is to come."""
        place, ledger = self._place, self._ledger
        assert place is not None
        assert ledger is not None
        found: list[Arriving | NovaCronError | None] = []
        expected = sum(
            arriving.entry.size
            for arriving in list(self._objects.values())
            if not arriving.entry.sparse
        )
        fresh = []
        for entry in entries:
            try:
                path = self._local_path(entry.path)
                with self._confinement.open_below(place, path) as below:
                    if entry.kind == "dir":
                        targets.create_directory(below)
                        found.append(None)
                        continue
                    outcome = self._prepare(entry, path, below, ledger, expected)
                if outcome is not None:
                    if not entry.sparse:
                        expected += entry.size
                    if outcome.journal is None:
                        fresh.append((path, entry.identity))
                found.append(outcome)
            except NovaCronError as exc:
                found.append(exc)
        if fresh:
            with _recording(self.directory):
                ledger.note_open(fresh)
        return found

    def _local_path(self, path: str) -> str:
        """Raises PathDeniedError, MessageError."""
        if fault_of_path(path):
            return path  # whoever opens it says what is wrong
        prefix = self.record.prefix
        if not prefix:
            return path
        return "/".join((prefix, *path.split("/")[1:]))

    def _prepare(
        self, entry: Entry, path: str, place: Place, ledger: Ledger, expected: int
    ) -> Arriving | None:
        version = ledger.version(path)
        own = version is not None
        if version is not None and targets.is_finished(place, entry.size, entry.mtime_ns):
            if version == entry.identity[:16]:
                targets.remove_part(place, self.id)
                return None
            self._check_change(path)
        opened = ledger.opened.get(path)
        if opened is not None:
            if opened == entry.identity.hex():
                part = targets.open_part(place, self.id, entry.size)
                if part is not None:
                    arriving = Arriving(entry, path, part, self.directory, self.id)
                    arriving.overwrite_own = own
                    if arriving.read_journal():
                        return arriving
                    arriving.close()
            else:
                self._check_change(path)
        if not entry.sparse:
            targets.check_space(place, entry.size + expected)
        overwrite = self.record.overwrite or own
        part = targets.create_part(place, self.id, entry.size, overwrite=overwrite)
        arriving = Arriving(entry, path, part, self.directory, self.id)
        arriving.overwrite_own = own
        arriving.forget_journal()
        return arriving

    def _check_change(self, path: str) -> None:
        if self.record.on_change == "refuse":
            raise SourceChangedError(
                f"{path!r} is not what it was when the transfer began",
                why="its size, time, place or kind is another one",
                remedy="cancel the transfer and send it again, from a snapshot if something "
                "writes to it; or let such transfers begin again (on_change: restart)",
            )

    async def _answer(
        self, entry: Entry, outcome: Arriving | NovaCronError | None, epoch: int
    ) -> EntryState:
        if isinstance(outcome, NovaCronError):
            self.add_error(entry.path, outcome)
            return EntryState(entry.entry, "refused", 0, Trouble.of(outcome))
        if outcome is None:
            if entry.kind == "dir":
                if len(self._directories) >= MAX_DIRECTORIES:
                    raise MessageError(f"a peer sends more than {MAX_DIRECTORIES} directories")
                self._directories[self._local_path(entry.path)] = entry.mode, entry.mtime_ns
            self.count_file(entry.size)
            return EntryState(entry.entry, "done", 0, None)
        try:
            if outcome.journal is not None:
                await outcome.verify_held(self._host.checks)
                self._check_epoch(epoch)
            if not outcome.held:
                self._expect(outcome)
        except OSError as exc:
            raise TransferRefusedError(
                f"the record of {outcome.path} cannot be used", why=exc.strerror or ""
            ) from exc
        return EntryState(entry.entry, "wanted", outcome.held, None)

    def _expect(self, arriving: Arriving) -> None:
        """Raises LinkLostError."""
        link = self.link
        if link is None:
            raise LinkLostError("the transfer was interrupted", why=self.why)
        entry = arriving.entry
        if entry.size:
            arriving.moving = link.receive_object(
                entry.number,
                entry.generation,
                Target(entry.size, arriving.part.descriptor, sparse=True),
                chunk_bytes=entry.chunk_bytes,
                have=arriving.have(),
            )
            self.attend(arriving.moving, entry.size)
        self.current = arriving.path
        self._host.start(arriving.attend)

    def _find(self, entry: int) -> Arriving:
        arriving = self._objects.get(entry)
        if arriving is None:
            raise TransferUnknownError(f"entry {entry} is not under way at the receiver")
        return arriving

    async def have(self, message: AskHave) -> HavePage:
        async with self._served_request():
            arriving = self._find(message.entry)
            journal = arriving.journal
            if journal is None:
                return HavePage(None, b"", b"", 0)
            page = bytearray(len(journal.bits))
            last = min(arriving.chunks, message.first + HAVE_CHUNKS)
            if message.first < last:
                runs.set_run(page, message.first, last - message.first)
            both = int.from_bytes(page, "little") & int.from_bytes(journal.bits, "little")
            found = list(runs.runs_of(both.to_bytes(len(page), "little"), arriving.chunks))
            leaves = runs.pick_leaves(found, journal.leaves)
            return HavePage(
                None, runs.pack_runs(found), leaves, last if last < arriving.chunks else 0
            )

    async def start(self, message: Start) -> Outcome:
        async with self._served_request() as epoch:
            arriving = self._find(message.entry)
            if arriving.moving is not None:
                raise MessageError("a peer started an object twice")
            try:
                dropped = [
                    index
                    for first, count in (
                        [(0, arriving.chunks)]
                        if message.drop_all
                        else runs.unpack_runs(message.drop, arriving.chunks)
                    )
                    for index in range(first, first + count)
                ]
            except ValueError as exc:
                raise MessageError("a peer named no set of chunks", why=str(exc)) from exc
            try:
                await arriving.drop(dropped)
            except OSError as exc:
                raise TransferRefusedError(
                    f"the record of {arriving.path} cannot be used", why=exc.strerror or ""
                ) from exc
            self._check_epoch(epoch)
            self._expect(arriving)
            return Outcome(None)

    async def drop(self, message: Drop) -> Outcome:
        """The sender gave one up, for now."""
        async with self._served_request():
            arriving = self._find(message.entry)
            await arriving.stop(record=True)
            self._release(arriving)
            await trio.to_thread.run_sync(arriving.close)
            self.add_error(arriving.path, error_of(message.trouble, self.peer))
            return Outcome(None)

    # Whole -----------------------------------------------------------------------------------

    async def finish(self, message: Finish) -> Finished:
        async with self._served_request():
            answers: dict[int, Trouble | None] = {}
            whole = []
            for asked in message.objects:
                try:
                    arriving = self._find(asked.entry)
                    await self._check_whole(arriving, asked.root)
                    whole.append(arriving)
                except NovaCronError as exc:
                    answers[asked.entry] = Trouble.of(exc)
            if whole:
                outcomes = await trio.to_thread.run_sync(self._finish_all, whole)
                for arriving, failure in zip(whole, outcomes, strict=True):
                    self._release(arriving)
                    if failure is None:
                        self.count_file(arriving.entry.size)
                        answers[arriving.entry.entry] = None
                    else:
                        self.add_error(arriving.path, failure)
                        answers[arriving.entry.entry] = Trouble.of(failure)
            return Finished(None, [FinishedObject(*answer) for answer in answers.items()])

    async def _check_whole(self, arriving: Arriving, root: bytes) -> None:
        with trio.move_on_after(_ARRIVAL_TIMEOUT) as scope:
            await arriving.arrived.wait()
        if scope.cancelled_caught:
            raise LinkLostError(
                f"{arriving.path} has not arrived",
                why=f"not all of it was written within {_ARRIVAL_TIMEOUT:g} s after it was sent",
            )
        failure = arriving.failure
        try:
            if failure is not None:
                raise failure
            await arriving.check_root(root)
            await arriving.stop(record=False)
        except IntegrityError:
            await arriving.stop(record=False)
            self._release(arriving)
            await trio.to_thread.run_sync(self._abandon, arriving)
            raise
        except LinkLostError:
            raise  # what came of it is recorded by those who end the attempt
        except NovaCronError as exc:
            await arriving.stop(record=True)
            self._release(arriving)
            await trio.to_thread.run_sync(arriving.close)
            self.add_error(arriving.path, exc)
            raise

    def _abandon(self, arriving: Arriving) -> None:
        arriving.abandon()
        if self._ledger is not None:
            self._ledger.note_gone([arriving.path])

    def _finish_all(self, whole: list[Arriving]) -> list[NovaCronError | None]:
        """In a thread: why not, for each."""
        ledger = self._ledger
        assert ledger is not None
        try:
            with _recording(self.directory):
                ledger.note_finished([(each.path, each.entry.identity) for each in whole])
        except NovaCronError as exc:
            for arriving in whole:
                arriving.close()
            return [exc] * len(whole)
        failures: list[NovaCronError | None] = []
        gone = []
        for arriving in whole:
            try:
                arriving.finish(overwrite=self.record.overwrite)
                failures.append(None)
                gone.append(arriving.path)
            except NovaCronError as exc:
                failures.append(exc)
            finally:
                arriving.close()
        with contextlib.suppress(OSError):
            ledger.note_gone(gone)
        return failures

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
            failure = await self._finish_directories()
            await self._suspend(record=True)
            if failure is not None:
                await self.fail(failure)
                raise failure
            await trio.to_thread.run_sync(self._host.incoming.remove, self.record.id)
            self.end("done", None)
            logger.info(
                "a transfer is done",
                extra={"transfer": self.record.id, "peer": self.peer, "path": self.destination},
            )
            return Outcome(None)

    async def _finish_directories(self) -> NovaCronError | None:
        place, directories = self._place, list(self._directories.items())

        def work() -> NovaCronError | None:
            assert place is not None
            # What lies inside comes later in the walk: its change would be the directory's again.
            for path, (mode, mtime_ns) in reversed(directories):
                try:
                    with self._confinement.open_below(place, path) as below:
                        targets.finish_directory(below, mode, mtime_ns)
                except NovaCronError as exc:
                    return exc
            return None

        if place is None or not directories:
            return None
        return await trio.to_thread.run_sync(work)

    async def fail(self, error: NovaCronError) -> None:
        """Over, but what is there can be gone on with by asking for the same again."""
        self.end("failed", error)
        await self._save(
            state="failed", why=self.why, remedy=self.remedy, finished_at=self.finished_at
        )
        logger.warning(
            "a transfer failed: %s", error, extra={"transfer": self.record.id, "peer": self.peer}
        )

    def revive(self, record: IncomingRecord) -> Incoming:
        """The same transfer once more, after it failed."""
        return Incoming(self._host, record._replace(prefix=self.record.prefix), known=True)

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

    # A pull ----------------------------------------------------------------------------------

    async def run_pull(self) -> None:
        """Ask the other node until it sends, and again where it ceased to."""
        record = self.record
        remaining = None if record.deadline_at is None else record.deadline_at - time.time()
        with trio.CancelScope() as scope:
            if remaining is not None:
                # The sender has the same deadline and tells when it has passed; this is for one
                # that is not there.
                scope.deadline = trio.current_time() + remaining + _DEADLINE_GRACE
            try:
                await self._ask_until_over()
            except NovaCronError as exc:
                async with self._turn:
                    await self._suspend(record=True)
                    if not self.ended:
                        await self.fail(exc)
        if scope.cancelled_caught and not self.ended:
            async with self._turn:
                await self._suspend(record=True)
                await self.fail(
                    DeadlineError("the transfer was not done by its deadline", remedy="ask again")
                )

    async def _ask_until_over(self) -> None:
        backoff = Backoff(self._host.retry, self._host.random)
        interrupted_at: float | None = None
        while not self.ended:
            if self.link is not None:
                interrupted_at = None
                backoff.failures = 0
                await self._changes.park()
                continue
            now = trio.current_time()
            interrupted_at = now if interrupted_at is None else interrupted_at
            why = ""
            try:
                await self._ask()
            except NovaCronError as exc:
                if not is_passing(exc):
                    raise
                if now - interrupted_at > self._host.settings.retry_for:
                    raise
                why = str(exc)
            if self.link is None:
                self.change("waiting" if why else "connecting", why)
                with trio.move_on_after(backoff.next_delay(now)):
                    while self.link is None and not self.ended:
                        await self._changes.park()

    async def _ask(self) -> None:
        record = self.record
        left = 0 if record.deadline_at is None else max(0.001, record.deadline_at - time.time())
        answer = await self._host.asking.ask(
            self.peer,
            "amst.pull",
            Pull(
                self.id,
                list(record.paths),
                record.recursive,
                record.on_change,
                PRIORITIES.index(record.priority),
                record.limit_bps,
                int(left * 1000),
                self._asked_again,
            ),
            Outcome,
        )
        if answer.trouble is not None:
            raise error_of(answer.trouble, self.peer)
        self._asked_again = False


@contextmanager
def _recording(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise TargetWriteError(
            f"cannot keep the record of a transfer in {directory}",
            why=exc.strerror or str(exc),
            remedy="free space there",
            key="system.data_dir",
        ) from exc
