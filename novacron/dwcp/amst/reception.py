"""One attempt at the receiving end: from where a sender began over a link until that ends.

The sender's requests are served by the methods here, several at once; the payload comes over the
link meanwhile. Once :meth:`Reception.close` was called no request is let in, and one that is still
being served notices, and leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

import trio

from novacron.dwcp.amst import runs, targets
from novacron.dwcp.amst.arriving import Arriving
from novacron.dwcp.amst.asking import error_of
from novacron.dwcp.amst.block_messages import AskDedup, Blocks, BlocksHeld, Dedup
from novacron.dwcp.amst.deduplication import Deduplication
from novacron.dwcp.amst.errors import (
    IntegrityError,
    LinkLostError,
    MessageError,
    SourceChangedError,
    TargetWriteError,
    TransferRefusedError,
    TransferUnknownError,
)
from novacron.dwcp.amst.host import Host
from novacron.dwcp.amst.paths import Confinement, Place, fault_of_path
from novacron.dwcp.amst.store import IncomingRecord, Ledger
from novacron.dwcp.amst.transfer import Transfer
from novacron.dwcp.amst.transfer_messages import (
    HAVE_CHUNKS,
    AskHave,
    Drop,
    Entries,
    EntriesTaken,
    Entry,
    EntryState,
    Finish,
    Finished,
    FinishedObject,
    HavePage,
    Outcome,
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


class Reception:
    """Takes over *place* and *ledger*. Counts in *transfer*.

    Args:
      record: With its ``prefix``.
    """

    def __init__(
        self,
        host: Host,
        transfer: Transfer,
        record: IncomingRecord,
        confinement: Confinement,
        link: Link,
        place: Place,
        ledger: Ledger,
    ) -> None:
        self.link = link
        self._host = host
        self._transfer = transfer
        self._record = record
        self._confinement = confinement
        self._place = place
        self._ledger = ledger
        self._directory = host.incoming.directory(record.id)
        self._objects: dict[int, Arriving] = {}
        self._directories: dict[str, tuple[int, int]] = {}
        self._dedup = Deduplication(host)
        self._closed = False
        self._serving = 0
        self._served = trio.lowlevel.ParkingLot()

    async def close(self, *, record: bool) -> None:
        """When this returns nothing is written any more, and every file is closed. Once.

        Args:
          record: What came is to be found again.
        """
        self._closed = True
        with trio.CancelScope(shield=True):
            for arriving in self._objects.values():
                arriving.interrupt()
            # Requests that are being served may be about to give a whole file its name.
            while self._serving:
                await self._served.park()
            objects = list(self._objects.values())
            async with trio.open_nursery() as nursery:
                for arriving in objects:
                    nursery.start_soon(_stop, arriving, record)
            for arriving in objects:
                self._release(arriving)

            def work() -> None:
                for arriving in objects:
                    arriving.close()
                self._place.close()
                self._ledger.close()

            await trio.to_thread.run_sync(work)

    def _release(self, arriving: Arriving) -> None:
        """It is no longer one of the open files."""
        if self._objects.get(arriving.entry.entry) is arriving:
            del self._objects[arriving.entry.entry]
            self._host.open_files.give(1)
        if arriving.moving is not None:
            self._transfer.absorb(arriving.moving)

    @asynccontextmanager
    async def _serve(self) -> AsyncIterator[None]:
        """Raises LinkLostError: it is closed."""
        self._check_open()
        self._serving += 1
        try:
            yield
        finally:
            self._serving -= 1
            self._served.unpark_all()

    def _check_open(self) -> None:
        if self._closed:
            raise LinkLostError("the transfer was interrupted", why=self._transfer.why)

    # What comes ------------------------------------------------------------------------------

    async def agree(self, message: AskDedup) -> Dedup:
        record = self._record
        self._transfer.tenant = record.tenant or message.tenant
        async with self._serve():
            # Of a pull, whose files come and how is for those to say who asked for them.
            return await self._dedup.agree(message, tenant=record.tenant, policy=record.dedup)

    async def take_blocks(self, message: Blocks) -> BlocksHeld:
        async with self._serve():
            return await self._dedup.take(self._find(message.entry), message)

    async def take_entries(self, message: Entries) -> EntriesTaken:
        async with self._serve():
            entries = message.entries
            if len({entry.entry for entry in entries}) != len(entries):
                raise MessageError("a peer offered one entry twice in a message")
            self._transfer.files_total = max(self._transfer.files_total, message.total_files)
            self._transfer.bytes_total = max(self._transfer.bytes_total, message.total_bytes)
            self._transfer.total_known = True
            for entry in entries:
                old = self._objects.get(entry.entry)
                if old is not None:  # offered anew, since its source changed
                    await old.stop(record=False)
                    self._transfer.count_found(-old.found_bytes)
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
                self._check_open()
                for entry, outcome in zip(entries, found, strict=True):
                    states.append(await self._answer(entry, outcome))
            finally:
                self._host.open_files.give(unused)
            return EntriesTaken(None, states)

    def _prepare_all(self, entries: list[Entry]) -> list[Arriving | NovaCronError | None]:
        """In a thread. For each the file, or why not, or None: nothing is to come."""
        place, ledger = self._place, self._ledger
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
            with _recording(self._directory):
                ledger.note_open(fresh)
        return found

    def _local_path(self, path: str) -> str:
        """Raises PathDeniedError, MessageError."""
        if fault_of_path(path):
            return path  # whoever opens it says what is wrong
        prefix = self._record.prefix
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
                targets.remove_part(place, self._transfer.id)
                return None
            self._check_change(path)
        opened = ledger.opened.get(path)
        if opened is not None:
            if opened == entry.identity.hex():
                part = targets.open_part(place, self._transfer.id, entry.size)
                if part is not None:
                    arriving = Arriving(entry, path, part, self._directory, self._transfer.id)
                    arriving.overwrite_own = own
                    if arriving.read_journal():
                        return arriving
                    arriving.close()
            else:
                self._check_change(path)
        if not entry.sparse:
            targets.check_space(place, entry.size + expected)
        overwrite = self._record.overwrite or own
        part = targets.create_part(place, self._transfer.id, entry.size, overwrite=overwrite)
        arriving = Arriving(entry, path, part, self._directory, self._transfer.id)
        arriving.overwrite_own = own
        arriving.forget_journal()
        self._dedup.mark(arriving)
        return arriving

    def _check_change(self, path: str) -> None:
        if self._record.on_change == "refuse":
            raise SourceChangedError(
                f"{path!r} is not what it was when the transfer began",
                why="its size, time, place or kind is another one",
                remedy="cancel the transfer and send it again, from a snapshot if something "
                "writes to it; or let such transfers begin again (on_change: restart)",
            )

    async def _answer(self, entry: Entry, outcome: Arriving | NovaCronError | None) -> EntryState:
        if isinstance(outcome, NovaCronError):
            self._transfer.add_error(entry.path, outcome)
            return EntryState(entry.entry, "refused", 0, Trouble.of(outcome))
        if outcome is None:
            if entry.kind == "dir":
                if len(self._directories) >= MAX_DIRECTORIES:
                    raise MessageError(f"a peer sends more than {MAX_DIRECTORIES} directories")
                self._directories[self._local_path(entry.path)] = entry.mode, entry.mtime_ns
            self._transfer.count_file(entry.size)
            return EntryState(entry.entry, "done", 0, None)
        try:
            if outcome.journal is not None:
                await outcome.verify_held(self._host.checks)
                self._check_open()
            blocks = await self._dedup.look(outcome, self.link)
            self._check_open()
            if not outcome.held and not blocks:
                self._expect(outcome)
        except OSError as exc:
            raise TransferRefusedError(
                f"the record of {outcome.path} cannot be used", why=exc.strerror or ""
            ) from exc
        return EntryState(entry.entry, "blocks" if blocks else "wanted", outcome.held, None)

    def _expect(self, arriving: Arriving) -> None:
        """Raises LinkLostError."""
        entry = arriving.entry
        if entry.size:
            arriving.moving = self.link.receive_object(
                entry.number,
                entry.generation,
                Target(entry.size, arriving.part.descriptor, sparse=True, base=arriving.base),
                chunk_bytes=entry.chunk_bytes,
                have=arriving.have(),
            )
            self._transfer.attend(arriving.moving, entry.size)
        self._transfer.current = arriving.path
        self._host.start(arriving.attend)

    def _find(self, entry: int) -> Arriving:
        arriving = self._objects.get(entry)
        if arriving is None:
            raise TransferUnknownError(f"entry {entry} is not under way at the receiver")
        return arriving

    async def have(self, message: AskHave) -> HavePage:
        async with self._serve():
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
        async with self._serve():
            arriving = self._find(message.entry)
            if arriving.moving is not None:
                raise MessageError("a peer started an object twice")
            filling = arriving.filling
            if filling is not None:
                await filling.stop()
                self._check_open()
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
            self._check_open()
            if filling is not None:
                arriving.found_bytes = filling.found_in(arriving.have())
                self._transfer.count_found(arriving.found_bytes)
            self._expect(arriving)
            return Outcome(None)

    async def drop(self, message: Drop) -> Outcome:
        """The sender gave one up, for now."""
        async with self._serve():
            arriving = self._find(message.entry)
            await arriving.stop(record=True)
            self._release(arriving)
            await trio.to_thread.run_sync(arriving.close)
            self._transfer.add_error(arriving.path, error_of(message.trouble, self._transfer.peer))
            return Outcome(None)

    # Whole -----------------------------------------------------------------------------------

    async def finish(self, message: Finish) -> Finished:
        async with self._serve():
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
                        self._dedup.finish(arriving, self._transfer)
                        self._transfer.count_file(arriving.entry.size)
                        answers[arriving.entry.entry] = None
                    else:
                        self._transfer.add_error(arriving.path, failure)
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
            self._transfer.add_error(arriving.path, exc)
            raise

    def _abandon(self, arriving: Arriving) -> None:
        arriving.abandon()
        with _recording(self._directory):
            self._ledger.note_gone([arriving.path])

    def _finish_all(self, whole: list[Arriving]) -> list[NovaCronError | None]:
        """In a thread: why not, for each."""
        ledger = self._ledger
        try:
            with _recording(self._directory):
                ledger.note_finished([(each.path, each.entry.identity) for each in whole])
        except NovaCronError as exc:
            for arriving in whole:
                arriving.close()
            return [exc] * len(whole)
        failures: list[NovaCronError | None] = []
        gone = []
        for arriving in whole:
            try:
                arriving.finish(overwrite=self._record.overwrite)
                failures.append(None)
                gone.append(arriving.path)
            except NovaCronError as exc:
                failures.append(exc)
            finally:
                arriving.close()
        with contextlib.suppress(OSError):
            ledger.note_gone(gone)
        return failures

    async def finish_directories(self) -> None:
        """Give them their modes and times, after everything in them was finished.

        Raises:
          TargetWriteError, PathDeniedError: one could not be given them.
        """

        def work() -> None:
            # What lies inside comes later in the walk: its change would be the directory's again.
            for path, (mode, mtime_ns) in reversed(self._directories.items()):
                with self._confinement.open_below(self._place, path) as below:
                    targets.finish_directory(below, mode, mtime_ns)

        async with self._serve():
            if self._directories:
                await trio.to_thread.run_sync(work)


async def _stop(arriving: Arriving, record: bool) -> None:
    await arriving.stop(record=record)


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
