"""One attempt of a sender to bring a transfer to its end, over one link.

A producer walks the sources and offers entries, at most :data:`WINDOW` of them unfinished; each file
that is wanted has a task that sends it; those that are sent wait together for their names. So small
files cost no round trip each, and a million of them no more memory than a hundred.
"""

from __future__ import annotations

import itertools
import logging
from array import array
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Final

import trio

from novacron.dwcp.amst.asking import ASK_TIMEOUT, check, error_of
from novacron.dwcp.amst.comparing import compare_held
from novacron.dwcp.amst.errors import (
    IntegrityError,
    LinkLostError,
    MessageError,
    ObjectRefusedError,
    SourceChangedError,
    SourceReadError,
    TransferUnknownError,
)
from novacron.dwcp.amst.host import Room
from novacron.dwcp.amst.naming import DISK_BPS, Names
from novacron.dwcp.amst.rates import shares
from novacron.dwcp.amst.sources import Entry, SourceFile, Sources
from novacron.dwcp.amst.telling import tell_blocks
from novacron.dwcp.amst.transfer import CLASSES, MAX_ERRORS, TransferError, remedy_of
from novacron.dwcp.amst.transfer_messages import (
    MAX_ENTRIES,
    WANTED,
    Drop,
    Entries,
    EntriesTaken,
    EntryState,
    Outcome,
    Trouble,
)
from novacron.dwcp.amst.transfer_messages import Entry as Offer
from novacron.dwcp.amst.transport import Base, Have, Link, Moving, Source, chunk_count
from novacron.dwcp.amst.tree import ROOT_BYTES, root_of
from novacron.dwcp.hde.blocks.core import Range
from novacron.errors import NovaCronError
from novacron.record import Record

if TYPE_CHECKING:
    from novacron.dwcp.amst.sending import Outgoing

logger = logging.getLogger("novacron.dwcp.transfers")

WINDOW: Final = 128
"""Entries that are offered and not finished. With 100 ms to the other node and back, and three
round trips for a file, that is 400 files a second."""
LARGE_BYTES: Final = 16 << 20
_LARGE_WEIGHT: Final = WINDOW // 4
"""So that at most four large files are sent at once: enough to fill gaps between them, few enough
to finish some before others begin."""
SMALL_BYTES: Final = 1 << 20
"""Up to here a file is paid for at the transfer's bucket before it starts, see
:func:`~novacron.dwcp.amst.rates.shares`."""
_COUNT_AT_ONCE: Final = 2048
_ROOT_CHUNKS: Final = 4096
MAX_RESTARTS: Final = 5
"""Of one file whose source keeps changing, where it may begin again."""

_numbers = itertools.count(1)
_TOP_NUMBER: Final = (1 << 31) - 1
"""The upper half of the numbers belongs to streams back, see
:mod:`~novacron.dwcp.amst.byte_streams`."""


def next_number() -> int:
    """A number for an object that this node sends; unique on every link for as long as it matters."""
    return next(_numbers) % _TOP_NUMBER + 1


class _Object:
    """A file on its way: the entry as last listed, and what it is called on the link."""

    def __init__(self, entry: Entry, number: int) -> None:
        self.entry = entry
        self.number = number
        self.moving: Moving | None = None
        self.found_bytes = 0
        """That the receiver held in other files."""


class Held(Record):
    """What the receiver has of a file before it is sent."""

    have: Have | None
    """Chunks."""
    parts: Sequence[Range] = ()
    """What it has of others, at their places: the base of what is sent of them."""


NOTHING: Final = Held(None)


class Attempt:
    def __init__(self, transfer: Outgoing, link: Link, sources: Sources) -> None:
        self._transfer = transfer
        self._link = link
        self._sources = sources
        self._host = transfer.host
        self._chunk_bytes = min(transfer.record.chunk_bytes, link.max_chunk_bytes)
        self._window = Room(WINDOW)
        self._objects: set[_Object] = set()
        self._names = Names(transfer)
        self._offered_files = self._offered_bytes = 0
        self._failure: NovaCronError | None = None
        self._scope = trio.CancelScope()
        self._nursery: trio.Nursery | None = None

    async def run(self) -> None:
        """Raises NovaCronError: the attempt failed as a whole. Files that could not be sent are
        among the transfer's errors."""
        transfer = self._transfer
        transfer.forget_done()
        transfer.errors.clear()
        transfer.errors_total = 0
        transfer.attempt_remedy = ""
        with self._scope:
            async with trio.open_nursery() as outer:
                outer.start_soon(self._guard, self._watch)
                if not transfer.total_known:
                    outer.start_soon(self._guard, self._count)
                async with trio.open_nursery() as self._nursery:
                    self._nursery.start_soon(self._guard, self._offer_all)
                outer.cancel_scope.cancel()
        if self._failure is not None:
            raise self._failure

    async def _guard(self, function: Callable[..., Awaitable[None]], *args: object) -> None:
        try:
            await function(*args)
        except NovaCronError as exc:
            self._fail(exc)

    def _fail(self, exc: NovaCronError) -> None:
        if isinstance(exc, TransferUnknownError):
            # A receiver that was started anew is told of the transfer once more.
            exc = LinkLostError("the receiver has forgotten the transfer", why=str(exc))
        # What fails after the link is only the echo of that.
        if self._failure is None or (self._failure.retryable and not exc.retryable):
            self._failure = exc
        self._scope.cancel()

    async def _watch(self) -> None:
        self._fail(await self._link.wait_ended())

    # Steering --------------------------------------------------------------------------------

    def pause(self, paused: bool) -> None:
        for each in self._objects:
            if each.moving is not None:
                each.moving.pause(paused)

    def share(self) -> None:
        """Divide the transfer's limit among what moves."""
        moving = [each for each in self._objects if each.moving is not None]
        large = [each for each in moving if each.entry.size > SMALL_BYTES]
        part = shares(self._transfer.limit_bps, len(large), len(large) < len(moving))
        for each in large:
            if each.moving is not None:
                each.moving.limit(part)
        self._transfer.bucket.change(float(part), trio.current_time())

    # Offering --------------------------------------------------------------------------------

    async def _count(self) -> None:
        """How much there is in all; in a walk of its own, since the other waits for the link."""
        transfer = self._transfer
        sources = await trio.to_thread.run_sync(transfer.open_sources)
        try:
            files = size = 0
            walk = sources.entries()
            while True:
                found = await trio.to_thread.run_sync(_take, walk, _COUNT_AT_ONCE)
                files += len(found)
                size += sum(entry.size for entry in found)
                if len(found) < _COUNT_AT_ONCE:
                    break
            transfer.files_total, transfer.bytes_total = files, size
            transfer.total_known = True
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(sources.close)

    async def _offer_all(self) -> None:
        walk = self._sources.entries()
        while True:
            found = await trio.to_thread.run_sync(_take, walk, MAX_ENTRIES)
            waiting: list[Entry] = []
            for entry in found:
                weight = _weight(entry)
                if waiting and self._window.free < weight:
                    await self._offer(waiting)
                    waiting = []
                await self._window.take(weight)
                waiting.append(entry)
            if waiting:
                await self._offer(waiting)
            if len(found) < MAX_ENTRIES:
                break
        transfer = self._transfer
        transfer.files_skipped = self._sources.skipped_total
        transfer.skipped = [
            TransferError(skipped.path, skipped.why)
            for skipped in self._sources.skipped[:MAX_ERRORS]
        ]
        for skipped in self._sources.skipped:
            logger.info(
                "not sent: %s: %s",
                skipped.path,
                skipped.why,
                extra={"transfer": transfer.record.id},
            )

    async def _offer(self, entries: list[Entry]) -> None:
        """Entries that have their place in the window; it is given back when they are finished."""
        assert self._nursery is not None
        await self._transfer.wait_unpaused()
        objects = [_Object(entry, next_number()) for entry in entries]
        states = await self._ask_entries(objects)
        for each in objects:
            state = states.get(each.entry.position)
            if state is None:
                raise MessageError("the receiver did not answer for an entry")
            if state.state in WANTED:
                self._nursery.start_soon(self._guard, self._send_wanted, each, state)
            else:
                self._settle(each, state)
                self._window.give(_weight(each.entry))

    async def _ask_entries(self, objects: list[_Object]) -> dict[int, EntryState]:
        transfer = self._transfer
        size = sum(each.entry.size for each in objects)
        for each in objects:
            if each.entry.position >= self._offered_files:  # not one that is offered anew
                self._offered_files = each.entry.position + 1
                self._offered_bytes += each.entry.size
        answer = await self._host.asking.ask(
            transfer.peer,
            "amst.entries",
            Entries(
                transfer.id,
                # The count may still be at it; of a few files all are offered before it is done.
                max(transfer.files_total, self._offered_files),
                max(transfer.bytes_total, self._offered_bytes),
                [self._offer_of(each) for each in objects],
            ),
            EntriesTaken,
            # The receiver reads some of what it has back.
            within=ASK_TIMEOUT + size / DISK_BPS,
        )
        check(answer.trouble, transfer.peer)
        return {state.entry: state for state in answer.entries}

    def _offer_of(self, each: _Object) -> Offer:
        entry = each.entry
        return Offer(
            entry.position,
            each.number,
            self._transfer.generation,
            entry.path,
            entry.kind,
            entry.size,
            entry.mode,
            entry.mtime_ns,
            entry.sparse,
            self._chunk_bytes,
            entry.identity,
        )

    def _settle(self, each: _Object, state: EntryState) -> None:
        """Nothing is to be sent for this entry."""
        if state.state == "done":
            self._transfer.count_file(each.entry.size)
        elif state.trouble is None:
            raise MessageError("the receiver refused an entry without a reason")
        else:
            self._give_up(each, error_of(state.trouble, self._transfer.peer))

    def _give_up(self, each: _Object, exc: NovaCronError) -> None:
        """The entry cannot be sent. A receiver that has no room, or whose disk fails, has none for
        the others either."""
        transfer = self._transfer
        if not transfer.errors_total:
            transfer.attempt_remedy = remedy_of(exc)
        transfer.add_error(each.entry.path, exc)
        if exc.code in ("dwcp.no_space", "dwcp.target_write", "dwcp.transfer_limit"):
            raise exc

    # Sending ---------------------------------------------------------------------------------

    async def _send_wanted(self, each: _Object, state: EntryState) -> None:
        weight = _weight(each.entry)
        self._objects.add(each)
        try:
            for restart in range(MAX_RESTARTS + 1):
                try:
                    await self._send(each, state)
                    self._transfer.count_file(each.entry.size)
                    return
                except SourceChangedError as exc:
                    self._transfer.count_found(-each.found_bytes)
                    each.found_bytes = 0
                    if self._transfer.record.on_change == "refuse" or restart == MAX_RESTARTS:
                        await self._drop(each, exc)
                        return
                    logger.info(
                        "%s begins again: it changed",
                        each.entry.path,
                        extra={"transfer": self._transfer.record.id},
                    )
                entry = await trio.to_thread.run_sync(self._list_again, each.entry)
                if entry is None:
                    await self._drop(each, SourceReadError(f"{each.entry.path!r} is gone"))
                    return
                each.entry, each.number = entry, next_number()
                again = (await self._ask_entries([each])).get(entry.position)
                if again is None:
                    raise MessageError("the receiver did not answer for an entry")
                if again.state not in WANTED:
                    self._settle(each, again)
                    return
                state = again
        except (SourceReadError, ObjectRefusedError, IntegrityError) as exc:
            if isinstance(exc, SourceReadError):
                await self._drop(each, exc)
            else:
                self._give_up(each, exc)
        finally:
            self._objects.discard(each)
            self._window.give(weight)

    def _list_again(self, entry: Entry) -> Entry | None:
        """In a thread: *entry* as it is now. A walk, since only that knows how entries are made;
        it is rare. One of its own, since the other may still be at it and notes what it skips."""
        sources = self._transfer.open_sources()
        try:
            for found in sources.entries():
                if found.path == entry.path and found.kind == entry.kind:
                    return found._replace(position=entry.position)
            return None
        finally:
            sources.close()

    async def _drop(self, each: _Object, exc: NovaCronError) -> None:
        transfer = self._transfer
        await self._host.asking.ask(
            transfer.peer,
            "amst.drop",
            Drop(transfer.id, each.entry.position, Trouble.of(exc)),
            Outcome,
        )
        self._give_up(each, exc)

    async def _send(self, each: _Object, state: EntryState) -> None:
        """From where the receiver is to the file's name.

        Raises:
          SourceChangedError, SourceReadError: this end could not.
          NovaCronError: why the receiver did not take it, or LinkLostError.
        """
        entry, transfer = each.entry, self._transfer
        file = await trio.to_thread.run_sync(self._sources.open, entry)
        try:
            transfer.current = entry.path
            held = await self._find_held(each, file, state)
            leaves = await self._move(each, file, held) if entry.size else array("I")
            if len(leaves) <= _ROOT_CHUNKS:
                root = root_of(entry.size, self._chunk_bytes, leaves)
            else:
                root = await trio.to_thread.run_sync(root_of, entry.size, self._chunk_bytes, leaves)
            # After the last read; what changes from here on is not what was sent.
            file.check_unchanged()
        finally:
            file.close()
        trouble = await self._names.ask(each.entry, root)
        check(trouble, transfer.peer)

    async def _find_held(self, each: _Object, file: SourceFile, state: EntryState) -> Held:
        """What the receiver has of it, from before or from other files."""
        entry, transfer = each.entry, self._transfer
        if state.state == "wanted":
            if not state.held:
                return NOTHING
            compared = await compare_held(transfer, entry, self._chunk_bytes, file)
            return Held(compared.have)
        if transfer.dedup == "never":
            raise MessageError("the receiver asks for blocks, which was not agreed on")
        told = await tell_blocks(
            transfer, entry, self._chunk_bytes, file, patient=transfer.dedup == "always"
        )
        compared = await compare_held(transfer, entry, self._chunk_bytes, file, told.checksums)
        if compared.have is not None:
            each.found_bytes = told.tally.whole_bytes(compared.have.bits)
            transfer.count_found(each.found_bytes)
        if "delta" not in self._link.codecs:
            return Held(compared.have)
        return Held(compared.have, told.tally.ranges(compared.told))

    async def _move(self, each: _Object, file: SourceFile, held: Held) -> array[int]:
        entry, transfer = each.entry, self._transfer
        if transfer.limit_bps and entry.size <= SMALL_BYTES:
            self.share()
            await trio.sleep(transfer.bucket.take(entry.size, trio.current_time()))
        await transfer.wait_unpaused()
        moving = self._link.send_object(
            each.number,
            transfer.generation,
            Source(
                entry.size,
                file.descriptor,
                sparse=entry.sparse,
                coding=transfer.coding_wanted,
                base=Base(each.number, held=held.parts) if held.parts else None,
            ),
            chunk_bytes=self._chunk_bytes,
            priority=CLASSES[transfer.priority],
            have=held.have,
        )
        each.moving = moving
        transfer.attend(moving, entry.size)
        try:
            if transfer.limit_bps:
                self.share()
            if transfer.paused:
                moving.pause(True)
            await moving.wait()
            transfer.count_parts(sum(size for _, size in held.parts))
            return moving.leaves(0, chunk_count(entry.size, self._chunk_bytes))
        except ObjectRefusedError as exc:
            raise await self._true_reason(each, exc) from exc
        except SourceReadError:
            file.check_unchanged()  # one that was cut off changed, and that is the better reason
            raise
        finally:
            await moving.aclose()
            transfer.absorb(moving)
            each.moving = None
            if transfer.limit_bps:
                self.share()

    async def _true_reason(self, each: _Object, exc: ObjectRefusedError) -> NovaCronError:
        """The engine's protocol tells that an object was refused; the control protocol tells why."""
        trouble = await self._names.ask(each.entry, bytes(ROOT_BYTES))
        if trouble is None:
            return exc
        error = error_of(trouble, self._transfer.peer)
        if isinstance(error, TransferUnknownError):
            return LinkLostError("the receiver lost the object", why=str(error))
        return error


def _weight(entry: Entry) -> int:
    return _LARGE_WEIGHT if entry.size > LARGE_BYTES else 1


def _take(walk: Iterator[Entry], count: int) -> list[Entry]:
    return list(islice(walk, count))
