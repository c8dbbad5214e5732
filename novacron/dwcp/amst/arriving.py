"""One file that arrives: its part file, its journal, and what moves it."""

from __future__ import annotations

import contextlib
import logging
from array import array
from bisect import bisect_right
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from novacron.dwcp.amst import runs
from novacron.dwcp.amst.chunks import batches, sample, wrong_chunks
from novacron.dwcp.amst.errors import (
    IntegrityError,
    JournalError,
    LinkLostError,
    TargetWriteError,
)
from novacron.dwcp.amst.journal import Journal, Subject, create_journal, open_journal
from novacron.dwcp.amst.store import journal_index, journal_path
from novacron.dwcp.amst.targets import PartFile
from novacron.dwcp.amst.transfer_messages import Entry
from novacron.dwcp.amst.transport import Base, Have, Moving, chunk_count
from novacron.dwcp.amst.tree import root_of
from novacron.errors import DwcpError, NovaCronError

if TYPE_CHECKING:
    from novacron.dwcp.amst.filling import Filling

logger = logging.getLogger("novacron.dwcp.transfers")

CHECKPOINT_SECONDS: Final = 1.0
CHECKPOINT_BYTES: Final = 256 << 20
"""What a crash costs at most is what came in one of these: a second, or so many bytes."""
_LOOK_SECONDS: Final = 0.1
_ROOT_CHUNKS: Final = 4096
"""Roots of up to so many leaves are computed where they are; a thread costs more."""


class Arriving:
    """Closed by :meth:`close`, after what moves it."""

    def __init__(self, entry: Entry, path: str, part: PartFile, directory: Path, id: bytes) -> None:
        self.entry = entry
        self.path = path
        """Relative to the place where the transfer is put."""
        self.part = part
        self.overwrite_own = False
        """What is there was put there by this transfer, from an earlier version of the source."""
        self.subject = Subject(
            id, journal_index(path), entry.size, entry.chunk_bytes, entry.identity
        )
        self.chunks = chunk_count(entry.size, entry.chunk_bytes)
        self.moving: Moving | None = None
        self.found_bytes = 0
        """Held in other files of this node, and counted as that."""
        self.located = ""
        """Where the finished file is."""
        self.filling: Filling | None = None
        """Blocks of it are looked for on this node before it is moved."""
        self.journal: Journal | None = None
        self.arrived = trio.Event()
        """Everything is written, or :attr:`failure` is set."""
        self.failure: NovaCronError | None = None
        self._journal_path = journal_path(directory, path)
        self._attending = trio.CancelScope()

    # What is there from before ---------------------------------------------------------------

    def read_journal(self) -> bool:
        """In a thread. Whether there is one that is about this version of the file."""
        try:
            self.journal = open_journal(self._journal_path, self.subject)
        except (FileNotFoundError, JournalError):
            return False
        except OSError as exc:
            logger.warning("%s cannot be read: %s", self._journal_path, exc.strerror)
            return False
        return True

    async def verify_held(self, limiter: trio.CapacityLimiter) -> None:
        """Read a part of what the journal promises back, and all of it where that is wrong; what
        is wrong is taken off the record. Then make the rest of the file read as zero.

        Raises:
          TargetWriteError, OSError: the file or the journal cannot be used.
        """
        journal = self.journal
        assert journal is not None
        entry = self.entry
        held = list(runs.runs_of(journal.bits, self.chunks))
        wrong = await self._wrong(sample(held, entry.size, entry.chunk_bytes), limiter)
        if wrong:
            logger.warning("%s is not what its journal says: all of it is checked", self.part.path)
            wrong = await self._wrong(held, limiter)
            await self.drop(wrong)
        bits = bytes(self.journal.bits if self.journal is not None else b"")
        await trio.to_thread.run_sync(self.part.clear, bits, entry.chunk_bytes, limiter=limiter)

    async def _wrong(self, held: list[runs.Run], limiter: trio.CapacityLimiter) -> list[int]:
        assert self.journal is not None
        found: list[int] = []
        for run in batches(held, self.entry.chunk_bytes):
            found += await trio.to_thread.run_sync(
                wrong_chunks,
                self.part.descriptor,
                self.entry.size,
                self.entry.chunk_bytes,
                run,
                self.journal.leaves,
                limiter=limiter,
            )
        return found

    async def drop(self, wrong: list[int]) -> None:
        """Take chunks off the record, and make them read as zero."""
        journal = self.journal
        if journal is None or not wrong:
            return
        bits = bytearray(journal.bits)
        for index in wrong:
            runs.clear_run(bits, index, 1)

        def renew() -> Journal:
            journal.close()
            renewed = create_journal(self._journal_path, self.subject, bytes(bits), journal.leaves)
            # No more than those: what lies between may be blocks that were found on this node.
            self.part.clear_chunks(wrong, self.entry.chunk_bytes)
            return renewed

        self.journal = await trio.to_thread.run_sync(renew)

    def record(self, bits: bytes, leaves: Callable[[int, int], array[int]]) -> None:
        """In a thread, before it is moved: make *bits* durable, and put them on record.

        Raises:
          TargetWriteError: that did not work; what was on record still is.
        """
        try:
            if self.journal is None:
                self.journal = create_journal(self._journal_path, self.subject)
            self.part.checkpoint(self.journal, bits, leaves)
        except OSError as exc:
            raise TargetWriteError(
                f"the record of {self.path} cannot be kept",
                why=exc.strerror or str(exc),
                remedy="free space there",
                key="system.data_dir",
            ) from exc

    @property
    def held(self) -> int:
        """Chunks on record."""
        return runs.count_set(self.journal.bits) if self.journal is not None else 0

    @property
    def base(self) -> Base | None:
        """What is in its place already, in chunks that are not held as a whole."""
        if self.filling is None or not self.filling.parts_bytes:
            return None
        # Named after the object: both ends know its number.
        return Base(self.entry.number, fd=self.part.descriptor)

    def have(self) -> Have | None:
        if self.journal is None or not self.held:
            return None
        return Have(bytes(self.journal.bits), self.journal.leaves[:])

    # While it comes --------------------------------------------------------------------------

    async def attend(self) -> None:
        """Keep the journal until everything is written or that failed; never raises what failed."""
        moving = self.moving
        try:
            if moving is not None:
                with self._attending:
                    async with trio.open_nursery() as nursery:
                        if self.chunks > 1:
                            nursery.start_soon(self._keep_journal, moving)
                        try:
                            await moving.wait()
                        except DwcpError as exc:
                            self.failure = exc
                        nursery.cancel_scope.cancel()
        finally:
            self.arrived.set()

    def interrupt(self) -> None:
        """Those who wait for its arrival are told that it will not come. :meth:`stop` is next."""
        if self.filling is not None:
            self.filling.interrupt()
        if self.arrived.is_set():
            return
        if self.failure is None:
            self.failure = LinkLostError(f"{self.path} did not arrive", why="it was interrupted")
        self._attending.cancel()
        if self.moving is None:
            self.arrived.set()

    async def _keep_journal(self, moving: Moving) -> None:
        recorded_at = trio.current_time()
        recorded = moving.progress()
        while True:
            await trio.sleep(_LOOK_SECONDS)
            now, progress = trio.current_time(), moving.progress()
            if progress.done_chunks == recorded.done_chunks:
                continue
            due = now - recorded_at >= CHECKPOINT_SECONDS
            if due or progress.done_bytes - recorded.done_bytes >= CHECKPOINT_BYTES:
                if not await self.checkpoint():
                    return
                # From its end: a disk that needs seconds for a sync does nothing else otherwise.
                recorded_at, recorded = trio.current_time(), progress

    async def checkpoint(self) -> bool:
        """Make durable and record what has come; whether that worked. Not to be called twice at
        once, nor after :meth:`stop`."""
        moving = self.moving
        if moving is None:
            return True
        known = self.journal.bits if self.journal is not None else bytes(-(-self.chunks // 8))
        bits = moving.bitmap()
        if len(bits) != len(known):
            return False  # the link was closed, and what moved on it with it
        # Asked for here and not in the thread: what moves may be closed meanwhile.
        new = list(runs.runs_of(runs.difference(bits, known), self.chunks))
        pieces = [moving.leaves(first, count) for first, count in new]
        if not new:
            return True
        firsts = [first for first, _ in new]

        def leaves(first: int, count: int) -> array[int]:
            which = bisect_right(firsts, first) - 1
            begin = first - firsts[which]
            return pieces[which][begin : begin + count]

        def work() -> None:
            if self.journal is None:
                self.journal = create_journal(self._journal_path, self.subject)
            self.part.checkpoint(self.journal, bits, leaves)

        try:
            await trio.to_thread.run_sync(work)
        except (NovaCronError, OSError) as exc:
            logger.warning("nothing more of %s is recorded: %s", self.part.path, exc)
            return False
        return True

    async def stop(self, *, record: bool) -> None:
        """Nothing is written any more when this returns.

        Args:
          record: What came is to be found again. One chunk is sooner sent again than recorded.
        """
        if self.filling is not None:
            await self.filling.stop()
        moving = self.moving
        if moving is None:
            return
        with trio.CancelScope(shield=True):
            self._attending.cancel()
            await self.arrived.wait()
            if record and self.chunks > 1 and self.held < moving.progress().done_chunks:
                await self.checkpoint()
            await moving.aclose()

    # At the end ------------------------------------------------------------------------------

    async def check_root(self, root: bytes) -> None:
        """Raises IntegrityError: what arrived is not what was sent."""
        leaves = array("I") if self.moving is None else self.moving.leaves(0, self.chunks)
        size, chunk_bytes = self.entry.size, self.entry.chunk_bytes
        if len(leaves) <= _ROOT_CHUNKS:
            own = root_of(size, chunk_bytes, leaves)
        else:
            own = await trio.to_thread.run_sync(root_of, size, chunk_bytes, leaves)
        if own != root:
            raise IntegrityError(
                f"{self.part.path} is not what was sent",
                why="the checksums of its pieces do not add up to the sender's",
                remedy="send it again; if that happens more than once, test the memory and the "
                "disks of both nodes",
            )

    def finish(self, *, overwrite: bool) -> None:
        """In a thread, after :meth:`stop`: give it its name, and forget the journal.

        Raises:
          TargetExistsError, TargetWriteError: the part file and its journal are still there.
        """
        entry = self.entry
        with contextlib.suppress(OSError):
            self.located = self.part.locate()
        self.part.finish(entry.mode, entry.mtime_ns, overwrite=overwrite or self.overwrite_own)
        self.forget_journal()

    def forget_journal(self) -> None:
        if self.journal is not None:
            self.journal.close()
        with contextlib.suppress(FileNotFoundError):
            self._journal_path.unlink()

    def abandon(self) -> None:
        """In a thread, after :meth:`stop`: remove the part file and the journal."""
        with contextlib.suppress(NovaCronError):
            self.part.abandon()
        self.forget_journal()
        self.close()

    def close(self) -> None:
        """Harmless when repeated."""
        self.part.close()
        if self.journal is not None:
            self.journal.close()
