"""Filling a part file with blocks that this node holds in other files, before anything is moved.

A page of blocks at a time: each is looked for in the tenant's index, read, checked against its
SHA-256, and only then put in its place. A chunk that is whole that way goes on the journal after it
was made durable, exactly as one that arrived; so a crash at any point leaves what it would leave
while chunks arrive.
"""

from __future__ import annotations

import logging
import os
import stat
from array import array
from hashlib import sha256
from typing import TYPE_CHECKING, Final
from zlib import crc32

import trio

from novacron.dwcp.amst import runs
from novacron.dwcp.amst.chunks import read_exactly
from novacron.dwcp.amst.errors import LinkLostError, MessageError
from novacron.dwcp.amst.transport import Have, chunk_count
from novacron.dwcp.hde.blocks.core import Block, Chunk, Coverage, pieces, unpack_blocks
from novacron.dwcp.hde.blocks.library import BlockLibrary
from novacron.dwcp.hde.blocks.ownership import is_of

if TYPE_CHECKING:
    from novacron.dwcp.amst.arriving import Arriving
    from novacron.dwcp.hde.blocks.index import Place

logger = logging.getLogger("novacron.dwcp.blocks")

_CHECKPOINT_BYTES: Final = 256 << 20
"""What a crash costs at most, as while chunks arrive; there is no time limit, since nothing waits."""
_OPEN_FILES: Final = 16
"""That blocks are read from. They come in runs from few files."""


class Filling:
    """Of one file that arrives. Nothing touches its part file any more when :meth:`stop` returned.

    Args:
      old: Descriptor of the file that will be overwritten, where this tenant may know what is in
        it; taken over.
      partial: Blocks are wanted also in chunks that they do not make whole: the sender can send
        what is missing there.
    """

    def __init__(
        self,
        arriving: Arriving,
        library: BlockLibrary,
        tenant: str,
        *,
        old: int | None,
        partial: bool,
    ) -> None:
        self._arriving = arriving
        self._library = library
        self._tenant = tenant
        self._old = old
        self._partial = partial
        entry = arriving.entry
        chunks = chunk_count(entry.size, entry.chunk_bytes)
        known = arriving.journal.bits if arriving.journal is not None else None
        self._bits = bytearray(known if known is not None else runs.bitmap_bytes(chunks))
        self._known = bytes(self._bits)
        """On record before: not looked for, and never written over."""
        self._leaves = array("I", bytes(4)) * chunks
        self._unrecorded = 0
        self._coverage = Coverage(entry.size, entry.chunk_bytes)
        self._buffer = memoryview(bytearray(entry.chunk_bytes))
        self._told = 0
        self._files = _Files(tenant, library.settings.tenant)
        self._turn = trio.Lock()
        self._prepared = trio.Event()
        self._stopping = False
        self.over = False
        """No more pages are taken: the last one came, or it was stopped."""
        self.parts_bytes = 0
        """Of the part file, what is right in chunks that are not whole."""
        self._found = array("I", bytes(4)) * chunks

    async def prepare(self) -> None:
        """Index the file that will be overwritten, while the sender cuts its own."""
        old = self._old
        try:
            if old is not None:
                await self._library.index_file(
                    self._tenant,
                    self._arriving.located,
                    descriptor=old,
                    gently=False,
                    # The sender does not wait for ever, and no image is that much smaller than the
                    # one before.
                    most=2 * self._arriving.entry.size,
                    go_on=lambda: not self._stopping,
                )
        except (OSError, EOFError) as exc:
            logger.info("%s is not looked at: %s", self._arriving.part.path, exc)
        finally:
            self._old = None
            if old is not None:
                os.close(old)
            self._prepared.set()

    async def take(self, begin: int, end: int, places: bytes, digests: bytes, last: bool) -> bytes:
        """A page; which of its blocks were held and are in their places now, a bit for each.

        Raises:
          MessageError: it is not one that could follow the ones before.
          TargetWriteError: the part file or its journal cannot be written.
          LinkLostError: it was stopped.
        """
        size = self._arriving.entry.size
        if self._stopping:
            raise self._interrupted()
        if self.over or begin != self._told or not begin <= end <= size:
            raise MessageError(
                "a peer told of blocks out of turn", why=f"{begin} to {end} of {size} bytes"
            )
        if begin == end and not last:
            raise MessageError("a peer told of no blocks")
        try:
            blocks = unpack_blocks(places, digests, begin, end)
        except ValueError as exc:
            raise MessageError("a peer told of blocks that are none", why=str(exc)) from exc
        if self._turn.locked():
            raise MessageError("a peer told of blocks twice at once")
        async with self._turn:
            await self._prepared.wait()
            # Nothing can follow a page that was taken in part.
            self.over = True
            held = await trio.to_thread.run_sync(
                self._fill, blocks, end, last, limiter=self._library.threads
            )
            self._told = end
            self.over = self._stopping or last
            return held

    def _interrupted(self) -> LinkLostError:
        return LinkLostError(f"{self._arriving.path} did not arrive", why="it was interrupted")

    def interrupt(self) -> None:
        """A page that is being taken is left at the next block."""
        self._stopping = self.over = True

    async def stop(self) -> None:
        """Harmless when repeated."""
        self.interrupt()
        with trio.CancelScope(shield=True):
            async with self._turn:
                await self._prepared.wait()
                self._files.close()

    def found_in(self, have: Have | None) -> int:
        """Bytes that were found here and need not be moved, since their chunks are in *have*."""
        if have is None:
            return 0
        return sum(
            sum(self._found[first : first + count])
            for first, count in runs.runs_of(have.bits, len(self._found))
        )

    # In a thread -----------------------------------------------------------------------------

    def _fill(self, blocks: list[Block], end: int, last: bool) -> bytes:
        held = bytearray(runs.bitmap_bytes(len(blocks)))
        places: list[list[Place]] = [[] for _ in blocks]
        with self._library.index_of(self._tenant) as index:
            if index is not None:
                places = index.find([digest for _, _, digest in blocks])
        try:
            for number, (block, candidates) in enumerate(zip(blocks, places, strict=True)):
                if self._stopping:
                    raise self._interrupted()
                if self._place(block, candidates):
                    runs.set_run(held, number, 1)
            if last:
                self._end_chunk(self._coverage.finish(end))
            if self._unrecorded and (last or self._unrecorded >= _CHECKPOINT_BYTES):
                self._arriving.record(bytes(self._bits), self._leaves_of)
                self._unrecorded = 0
        finally:
            self._files.settle(self._library, self._tenant)
            if last:
                self._files.close()
        return bytes(held)

    def _place(self, block: Block, candidates: list[Place]) -> bool:
        """Whether the block is held."""
        offset, size, digest = block
        chunk_bytes = self._arriving.entry.chunk_bytes
        parts = [
            part
            for part in pieces(offset, size, chunk_bytes)
            if not runs.is_set(self._known, part[0])
        ]
        data = self._files.read(size, digest, candidates) if parts else None
        for chunk, start, length in parts:
            self._end_chunk(self._coverage.add(chunk, start, length, data is not None))
            if data is not None:
                at = start - chunk * chunk_bytes
                self._buffer[at : at + length] = data[start - offset : start - offset + length]
        return data is not None

    def _end_chunk(self, chunk: Chunk | None) -> None:
        """Every block that may be in it was looked for."""
        if chunk is None:
            return
        arriving = self._arriving
        begin = chunk.number * arriving.entry.chunk_bytes
        length = min(arriving.entry.chunk_bytes, arriving.entry.size - begin)
        if chunk.whole:
            value, at = 0, begin
            for offset, size in chunk.ranges:
                value = crc32(bytes(offset - at), value)
                value = crc32(self._buffer[offset - begin : offset - begin + size], value)
                at = offset + size
            self._leaves[chunk.number] = crc32(bytes(begin + length - at), value)
        elif self._partial:
            self.parts_bytes += sum(size for _, size in chunk.ranges)
        else:
            return
        for offset, size in chunk.ranges:
            arriving.part.write(self._buffer[offset - begin : offset - begin + size], offset)
            self._found[chunk.number] += size
        if chunk.whole:
            runs.set_run(self._bits, chunk.number, 1)
            self._unrecorded += length

    def _leaves_of(self, first: int, count: int) -> array[int]:
        return self._leaves[first : first + count]


class _Files:
    """What blocks are read from."""

    def __init__(self, tenant: str, default_tenant: str) -> None:
        self._tenant = tenant
        self._default_tenant = default_tenant
        self._open: dict[int, tuple[int, Place]] = {}
        """By its number in the index: descriptor, the one used last at the end; and a place in it."""
        self._wrong: set[int] = set()
        self._bad: list[Place] = []
        self._used: set[int] = set()

    def read(self, size: int, digest: bytes, candidates: list[Place]) -> memoryview | None:
        """The block, if one of *candidates* is it."""
        # A file that is open is most likely the one that the blocks before came from.
        for place in sorted(candidates, key=lambda place: place.file not in self._open):
            if place.size != size or place.file in self._wrong:
                continue
            descriptor = self._descriptor(place)
            if descriptor is None:
                continue
            data = memoryview(bytearray(size))
            try:
                read_exactly(descriptor, data, place.offset)
            except (OSError, EOFError):
                self._give_up(place.file)
                continue
            if sha256(data).digest() == digest:
                self._used.add(place.file)
                return data
            self._bad.append(place)
        return None

    def _descriptor(self, place: Place) -> int | None:
        from novacron.dwcp.hde.blocks.index import Stamp

        found = self._open.pop(place.file, None)
        if found is not None:
            self._open[place.file] = found
            return found[0]
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            descriptor = os.open(place.path, flags)
        except OSError:
            self._wrong.add(place.file)
            return None
        seen = os.fstat(descriptor)
        if (
            not stat.S_ISREG(seen.st_mode)
            or Stamp.of(seen) != place.stamp
            or not is_of(descriptor, self._tenant, default=self._default_tenant, indexed=True)
        ):
            os.close(descriptor)
            self._wrong.add(place.file)
            return None
        while len(self._open) >= _OPEN_FILES:
            os.close(self._open.pop(next(iter(self._open)))[0])
        self._open[place.file] = descriptor, place
        return descriptor

    def _give_up(self, file: int) -> None:
        self._wrong.add(file)
        found = self._open.pop(file, None)
        if found is not None:
            os.close(found[0])

    def settle(self, library: BlockLibrary, tenant: str) -> None:
        """Tell the index which files were of use, and which are not what they were."""
        if self._wrong or self._used or self._bad:
            with library.index_of(tenant) as index:
                if index is not None:
                    index.forget(self._wrong)
                    index.forget_places(self._bad)
                    index.touch(self._used - self._wrong)
        self._wrong, self._bad, self._used = set(), [], set()

    def close(self) -> None:
        while self._open:
            os.close(self._open.popitem()[1][0])
