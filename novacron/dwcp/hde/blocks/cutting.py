"""Cutting a file into blocks, a piece at a time, without its holes.

Everything here blocks on the disk: call it in a worker thread.
"""

from __future__ import annotations

import errno
import os
from array import array
from collections.abc import Callable, Iterator
from hashlib import sha256
from itertools import islice
from typing import Final, TypeAlias
from zlib import crc32

from novacron._native import hde
from novacron.dwcp.amst import runs
from novacron.dwcp.hde.blocks.core import SCHEME, Block, pieces
from novacron.errors import NativeError

Cut: TypeAlias = Callable[[memoryview, bool], list[int]]
"""``cut(data, last)``: where the blocks end that begin at the start of *data*. Unless it is the last,
what is behind the last end is to be given again with more behind it."""

_WINDOW_BYTES: Final = 4 << 20
"""Read at once, and the memory of one file that is cut."""
_ZEROS: Final = bytes(1 << 20)


class Checksums:
    """CRC-32 of the chunks of a file, as its content is read in order: what a receiver claims to
    hold is compared with these, without reading the file once more."""

    def __init__(self, size: int, chunk_bytes: int) -> None:
        chunks = -(-size // chunk_bytes)
        self.leaves = array("I", bytes(4)) * chunks
        """Of the chunks in :attr:`bits`."""
        self.bits = bytearray(runs.bitmap_bytes(chunks))
        self._size = size
        self._chunk_bytes = chunk_bytes
        self._chunk = -1
        self._at = 0
        self._value = 0

    def add(self, offset: int, data: memoryview) -> None:
        """*data* lies at *offset*, behind what was added before; what is between is zero."""
        for chunk, start, length in pieces(offset, len(data), self._chunk_bytes):
            if chunk != self._chunk:
                self.finish()
                self._chunk, self._at, self._value = chunk, chunk * self._chunk_bytes, 0
            self._skip(start)
            self._value = crc32(data[start - offset : start - offset + length], self._value)
            self._at = start + length

    def finish(self) -> None:
        """The rest of the chunk is zero."""
        if self._chunk < 0:
            return
        self._skip(min(self._size, (self._chunk + 1) * self._chunk_bytes))
        self.leaves[self._chunk] = self._value
        runs.set_run(self.bits, self._chunk, 1)
        self._chunk = -1

    def _skip(self, end: int) -> None:
        while self._at < end:
            count = min(end - self._at, len(_ZEROS))
            self._value = crc32(memoryview(_ZEROS)[:count], self._value)
            self._at += count


def find_cut() -> tuple[Cut | None, str]:
    """How files are cut by :data:`~novacron.dwcp.hde.blocks.core.SCHEME`; None, and why, where the
    compiled part that does it is missing. There is no other: in Python it would take a CPU hours."""
    sizes = hde.BlockSizes(SCHEME.minimum, SCHEME.average, SCHEME.maximum)
    try:
        hde.block_ends(sizes, b"")
    except NativeError as exc:
        return None, str(exc)
    return lambda data, last: hde.block_ends(sizes, data, last=last), ""


def extents(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """Where a file of *size* bytes holds anything: begin and end of each stretch."""
    begin = 0
    while begin < size:
        try:
            begin = os.lseek(descriptor, begin, os.SEEK_DATA)
        except OSError as exc:
            if exc.errno == errno.ENXIO:  # a hole up to the end of the file
                return
            raise
        end = min(size, os.lseek(descriptor, begin, os.SEEK_HOLE))
        if begin < end:
            yield begin, end
        begin = max(end, begin + 1)


def blocks_of(
    descriptor: int,
    size: int,
    cut: Cut,
    *,
    checksums: Checksums | None = None,
) -> Iterator[Block]:
    """The blocks of the first *size* bytes, in order. What is zero belongs to none.

    Args:
      checksums: Is given everything that is read.

    Raises:
      EOFError: the file is shorter.
      OSError: it cannot be read.
    """
    view = memoryview(bytearray(_WINDOW_BYTES))
    for begin, end in extents(descriptor, size):
        at, filled = begin, 0  # the window holds the file from `at` on
        while at < end:
            filled = _fill(descriptor, view, at, filled, end)
            last = at + filled == end
            start = 0
            for stop in cut(view[:filled], last):
                data = view[start:stop]
                if checksums is not None:
                    checksums.add(at + start, data)
                # A stretch of zeros need be neither looked for nor sent.
                if not _ZEROS.startswith(data):
                    yield at + start, stop - start, sha256(data).digest()
                start = stop
            view[: filled - start] = bytes(view[start:filled])
            at, filled = at + start, filled - start
    if checksums is not None:
        checksums.finish()


def _fill(descriptor: int, view: memoryview, at: int, filled: int, end: int) -> int:
    """How much of the file from *at* on the window holds now."""
    room = min(len(view), end - at)
    while filled < room:
        count = os.preadv(descriptor, [view[filled:room]], at + filled)
        if not count:
            raise EOFError(f"the file ends at {at + filled}")
        filled += count
    return filled


def take(blocks: Iterator[Block], count: int) -> list[Block]:
    """The next *count* of them, or what is left."""
    return list(islice(blocks, count))
