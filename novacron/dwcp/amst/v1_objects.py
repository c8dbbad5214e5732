"""Objects of protocol v1. What blocks on a disk runs in worker threads; the rest, in the loop."""

from __future__ import annotations

import errno
import os
from array import array
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

import trio

from novacron.dwcp.amst import runs
from novacron.dwcp.amst.chunks import read_exactly
from novacron.dwcp.amst.transport import Have, Source, Target, chunk_count
from novacron.dwcp.amst.tree import zero_leaf
from novacron.dwcp.amst.v1_moving import Key, V1Moving, unreadable, unwritable
from novacron.dwcp.amst.wire import CHECKSUM_BYTES, HEADER_BYTES, check_content
from novacron.record import Record

if TYPE_CHECKING:
    from novacron.dwcp.amst.v1 import V1Link

BLOCK_BYTES: Final = 4096
"""Holes are kept in units of a page: file systems know no smaller ones that matter."""
_ZERO_BLOCK: Final = bytes(BLOCK_BYTES)
_ZEROS: Final = bytes(1 << 20)
_ZERO_SLICE: Final = 64 << 20
"""Zeros that are written in one go: a thread cannot be interrupted."""


class Piece(Record):
    """What one frame carries of an object."""

    first: int
    chunks: int
    size: int
    """Bytes of content."""
    zeros: bool
    frame: bytearray
    """Room for the header, the content and its checksum; empty for zeros."""


class V1Object(V1Moving):
    def __init__(
        self,
        link: V1Link,
        key: Key,
        size: int,
        chunk_bytes: int,
        have: Have | None,
        priority: int = 0,
        limit_bps: int = 0,
    ) -> None:
        chunks = chunk_count(size, chunk_bytes)
        super().__init__(link, key, chunks, priority, limit_bps)
        self.size = size
        self.chunk_bytes = chunk_bytes
        self._bits = bytearray(runs.bitmap_bytes(chunks))
        self._leaves = array("I", bytes(4)) * chunks
        if have is not None:
            for first, count in runs.runs_of(have.bits, chunks):
                self._leaves[first : first + count] = have.leaves[first : first + count]
                self._note(first, count)
        self.finish_if_done()

    def bitmap(self) -> bytes:
        return bytes(self._bits)

    def leaves(self, first: int, count: int) -> array[int]:
        return self._leaves[first : first + count]

    def finish_if_done(self) -> None:
        if self._done_chunks == self._chunks:
            self.finish()

    def chunk_size(self, index: int) -> int:
        return min(self.chunk_bytes, self.size - index * self.chunk_bytes)

    def span(self, first: int, count: int) -> int:
        """Bytes of *count* chunks from *first* on."""
        return min(count * self.chunk_bytes, self.size - first * self.chunk_bytes)

    def _note(self, first: int, count: int) -> int:
        """These chunks are done; returns how many bytes of them were not before."""
        new = sum(self.span(*run) for run in runs.missing_runs(self._bits, first, count))
        self._done_chunks += runs.set_run(self._bits, first, count)
        self._done_bytes += new
        return new

    def _note_zero_leaves(self, first: int, count: int) -> None:
        """Leaves of a run of zeros."""
        last = first + count - 1
        self._leaves[first:last] = array("I", [zero_leaf(self.chunk_bytes)]) * (count - 1)
        self._leaves[last] = zero_leaf(self.chunk_size(last))


class SendingObject(V1Object):
    def __init__(
        self,
        link: V1Link,
        key: Key,
        source: Source,
        chunk_bytes: int,
        have: Have | None,
        priority: int,
        limit_bps: int,
    ) -> None:
        super().__init__(link, key, source.size, chunk_bytes, have, priority, limit_bps)
        self._source = source
        self._sparse = source.sparse and source.fd is not None
        # One stream keeps everything in order: what was sent once is never sent again.
        self._todo = runs.missing_runs(bytes(self._bits), 0, self._chunks)
        self._run: runs.Run = (0, 0)
        self._advance(0)

    def _advance(self, count: int) -> None:
        first, left = self._run
        self._run = (first + count, left - count)
        if not self._run[1]:
            self._run = next(self._todo, (0, 0))

    def ready(self) -> bool:
        return self._run[1] > 0 and not (self.paused or self.finished or self.aborted)

    @property
    def next_size(self) -> int:
        """Bytes of the chunk that comes next."""
        return self.chunk_size(self._run[0])

    async def next_piece(self, limiter: trio.CapacityLimiter) -> Piece | None:
        """None: it cannot be read, and is finished."""
        first, count = self._run
        with self.used():
            try:
                piece = await trio.to_thread.run_sync(self._read, first, count, limiter=limiter)
            except EOFError:
                self.finish(unreadable("it is shorter than it was when the transfer began"))
                return None
            except OSError as exc:
                self.finish(unreadable(exc.strerror or str(exc)))
                return None
        if piece.zeros:
            self._note_zero_leaves(first, piece.chunks)
        else:
            self._leaves[first] = int.from_bytes(piece.frame[-CHECKSUM_BYTES:], "big")
        self._advance(piece.chunks)
        return piece

    def _read(self, first: int, count: int) -> Piece:
        offset, size = first * self.chunk_bytes, self.chunk_size(first)
        descriptor = self._source.fd
        if self._sparse and descriptor is not None:
            zeros = self._hole(descriptor, offset, size, count)
            if zeros:
                return Piece(first, zeros, self.span(first, zeros), True, bytearray())
        frame = bytearray(HEADER_BYTES + size + CHECKSUM_BYTES)
        with memoryview(frame)[HEADER_BYTES : HEADER_BYTES + size] as content:
            if descriptor is not None:
                read_exactly(descriptor, content, offset)
            else:
                with memoryview(self._source.memory).cast("B") as memory:
                    content[:] = memory[offset : offset + size]
            frame[HEADER_BYTES + size :] = crc32(content).to_bytes(CHECKSUM_BYTES, "big")
        return Piece(first, 1, size, False, frame)

    def _hole(self, descriptor: int, offset: int, size: int, count: int) -> int:
        """How many whole chunks of a hole begin at *offset*; *count* at most."""
        try:
            data = os.lseek(descriptor, offset, os.SEEK_DATA)
        except OSError as exc:
            if exc.errno == errno.EINVAL:  # a file system that does not know
                self._sparse = False
                return 0
            if exc.errno != errno.ENXIO:
                raise
            # Nothing but a hole up to the end; or the end is not where it was.
            if os.fstat(descriptor).st_size < self.size:
                raise EOFError from None
            return count
        if data < offset + size:
            return 0
        if data >= self.size:
            return count
        return min(count, (data - offset) // self.chunk_bytes)

    def acknowledged(self, piece: Piece) -> None:
        new = self._note(piece.first, piece.chunks)
        if piece.zeros:
            self._zero_bytes += new
        else:
            self._moved_bytes += new
        self.finish_if_done()


class ReceivingObject(V1Object):
    def __init__(
        self, link: V1Link, key: Key, target: Target, chunk_bytes: int, have: Have | None
    ) -> None:
        super().__init__(link, key, target.size, chunk_bytes, have)
        self._target = target
        self._arriving: set[int] = set()

    def expects(self, offset: int, size: int) -> bool:
        """Whether a chunk can be there, and of that size."""
        index, rest = divmod(offset, self.chunk_bytes)
        return not rest and index < self._chunks and size == self.chunk_size(index)

    def expects_zeros(self, offset: int, size: int) -> bool:
        return (
            offset % self.chunk_bytes == 0
            and offset < self.size
            and size <= self.size - offset
            and (size % self.chunk_bytes == 0 or offset + size == self.size)
        )

    def begin(self, offset: int) -> bool:
        """Whether the chunk is neither here nor being written: a second copy is worth nothing."""
        index = offset // self.chunk_bytes
        if runs.is_set(self._bits, index) or index in self._arriving:
            return False
        self._arriving.add(index)
        return True

    async def store(self, offset: int, payload: bytearray, limiter: trio.CapacityLimiter) -> int:
        """Write a chunk, of which ``payload`` is content and checksum; returns 0, or an errno, and
        then the object is finished.

        Raises:
          ChecksumError: the checksum does not hold. Nothing was written.
        """
        index = offset // self.chunk_bytes
        try:
            with self.used():
                await trio.to_thread.run_sync(self._write, offset, payload, limiter=limiter)
        except OSError as exc:
            self.finish(unwritable(exc))
            return exc.errno or errno.EIO
        finally:
            self._arriving.discard(index)
        self._leaves[index] = int.from_bytes(payload[-CHECKSUM_BYTES:], "big")
        self._moved_bytes += self._note(index, 1)
        return 0

    async def store_zeros(self, offset: int, size: int, limiter: trio.CapacityLimiter) -> int:
        """As :meth:`store`, of a run of zeros."""
        begin, end = offset, offset + size
        try:
            while not self._target.sparse and begin < end and not self.aborted:
                part = min(_ZERO_SLICE, end - begin)
                with self.used():
                    await trio.to_thread.run_sync(self._write_zeros, begin, part, limiter=limiter)
                begin += part
        except OSError as exc:
            self.finish(unwritable(exc))
            return exc.errno or errno.EIO
        first = offset // self.chunk_bytes
        count = chunk_count(size, self.chunk_bytes)
        for missing in list(runs.missing_runs(self._bits, first, count)):
            self._note_zero_leaves(*missing)
        self._zero_bytes += self._note(first, count)
        return 0

    def _write(self, offset: int, payload: bytearray) -> None:
        with check_content(payload) as content:
            if not self._target.sparse:
                self._put(content, offset)
                return
            for begin, end in _solid(content):
                self._put(content[begin:end], offset + begin)

    def _write_zeros(self, offset: int, size: int) -> None:
        view = memoryview(_ZEROS)
        while size:
            part = min(size, len(view))
            self._put(view[:part], offset)
            offset, size = offset + part, size - part

    def _put(self, data: memoryview, offset: int) -> None:
        descriptor: int | None = self._target.fd
        if descriptor is None:
            memory: Any = self._target.memory
            with memoryview(memory).cast("B") as area:
                area[offset : offset + len(data)] = data
            return
        while data:
            count = os.pwrite(descriptor, data, offset)
            if not count:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            data, offset = data[count:], offset + count


def _solid(content: memoryview) -> list[tuple[int, int]]:
    """The parts of *content* that are not blocks of zeros: begin, end."""
    size = len(content)
    # A block of zeros begins with one: of random content, this leaves one block in 256 to look at.
    starts = bytes(content[::BLOCK_BYTES])
    empty = [
        index
        for index, value in enumerate(starts)
        if not value
        and bytes(content[index * BLOCK_BYTES : (index + 1) * BLOCK_BYTES])
        == _ZERO_BLOCK[: size - index * BLOCK_BYTES]
    ]
    parts = []
    begin = 0
    for index in empty:
        if index * BLOCK_BYTES > begin:
            parts.append((begin, index * BLOCK_BYTES))
        begin = (index + 1) * BLOCK_BYTES
    if begin < size:
        parts.append((begin, size))
    return parts
