"""What is decided about blocks: how they are written down, and which chunks those that are held make.

Nothing here reads a file or a clock.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import Final, TypeAlias

from novacron.dwcp.amst import runs
from novacron.record import Record

DIGEST_BYTES: Final = 32
"""SHA-256."""
MAX_BLOCKS: Final = 4096
"""In one page: 256 MiB of content on average, and 150 KiB of message."""
MAX_PLACES_BYTES: Final = MAX_BLOCKS * 13
"""Of the places in one page: gaps below 2^63 and sizes. Where there are few holes it is four each."""
MAX_RANGES: Final = 1 << 18
"""Held ranges of partly held chunks that a sender remembers of one file; 4 MiB of memory. Chunks past
that are sent whole, which is never wrong."""

POLICIES: Final = ("auto", "always", "never")
MAX_TENANT_BYTES: Final = 128

Block: TypeAlias = tuple[int, int, bytes]
"""Offset, size, digest."""
Range: TypeAlias = tuple[int, int]
"""Offset, size."""


class Scheme(Record):
    """How files are cut. Both ends have to cut alike, so a scheme never changes: another way of
    cutting gets another number."""

    number: int
    minimum: int
    average: int
    maximum: int


SCHEME: Final = Scheme(1, 16 << 10, 64 << 10, 256 << 10)
"""64 KiB on average: a change of one byte costs some 96 KiB of moved content, and an index entry for
each is under 0.1 % of the content. Half of that doubles the index for little less that is moved."""


def fault_of_tenant(name: str) -> str:
    """Why *name* cannot be that of a tenant; empty where it can."""
    if not name:
        return "it is empty"
    if not name.isprintable():
        return "it has characters that cannot be printed"
    if len(name.encode("utf-8", "replace")) > MAX_TENANT_BYTES:
        return f"it is longer than {MAX_TENANT_BYTES} bytes"
    return ""


def pack_places(blocks: Sequence[Block], begin: int) -> bytes:
    """Where *blocks* lie, in order, none over another: for each the gap to the end of the one before
    (the first to *begin*) and its size, as LEB128 numbers."""
    packed = bytearray()
    end = begin
    for offset, size, _ in blocks:
        packed += runs.pack_number(offset - end) + runs.pack_number(size)
        end = offset + size
    return bytes(packed)


def unpack_blocks(
    places: bytes, digests: bytes, begin: int, end: int, scheme: Scheme = SCHEME
) -> list[Block]:
    """The inverse of :func:`pack_places`, with each block's digest.

    Args:
      end: No block reaches beyond it.

    Raises:
      ValueError: there are other blocks than digests, too many of either, one that is larger than
        blocks are, or one that lies beyond the end.
    """
    count, rest = divmod(len(digests), DIGEST_BYTES)
    if rest or count > MAX_BLOCKS:
        raise ValueError(f"{len(digests)} bytes of digests")
    blocks: list[Block] = []
    position = 0
    for index in range(count):
        gap, position = runs.read_number(places, position)
        size, position = runs.read_number(places, position)
        offset, begin = begin + gap, begin + gap + size
        if not 0 < size <= scheme.maximum:
            raise ValueError(f"a block of {size} bytes")
        if begin > end:
            raise ValueError(f"a block up to {begin}, of {end} bytes")
        start = index * DIGEST_BYTES
        blocks.append((offset, size, digests[start : start + DIGEST_BYTES]))
    if position != len(places):
        raise ValueError("more blocks than digests")
    return blocks


class Chunk(Record):
    """A chunk of which at least a part is held. What no block covers is zero."""

    number: int
    whole: bool
    """Everything in it is held or zero."""
    ranges: tuple[Range, ...]
    """What is held, in order, apart; of the whole object."""


def pieces(offset: int, size: int, chunk_bytes: int) -> Iterator[tuple[int, int, int]]:
    """Chunk, offset and size of the parts that a range has in each chunk."""
    end = offset + size
    while offset < end:
        chunk = offset // chunk_bytes
        stop = min(end, (chunk + 1) * chunk_bytes)
        yield chunk, offset, stop - offset
        offset = stop


class Coverage:
    """Which chunks the blocks that are held make whole, and which in part. Takes pieces of blocks
    in the order of their places, each within one chunk; holds the state of one chunk."""

    def __init__(self, size: int, chunk_bytes: int) -> None:
        self._size = size
        self._chunk_bytes = chunk_bytes
        self._chunk = -1
        self._missing = False
        self._ranges: list[Range] = []

    def add(self, chunk: int, offset: int, size: int, held: bool) -> Chunk | None:
        """The chunk before, where this piece is the first of another one and some of it is held."""
        before = None
        if chunk != self._chunk:
            before = self.finish(self._size)
            self._chunk = chunk
        if not held:
            self._missing = True
        elif self._ranges and sum(self._ranges[-1]) == offset:
            self._ranges[-1] = (self._ranges[-1][0], self._ranges[-1][1] + size)
        else:
            self._ranges.append((offset, size))
        return before

    def finish(self, told: int) -> Chunk | None:
        """The last one. What lies behind *told* was not told of: it need not be zero."""
        chunk = None
        if self._ranges:
            end = min(self._size, (self._chunk + 1) * self._chunk_bytes)
            whole = not self._missing and end <= told
            chunk = Chunk(self._chunk, whole, tuple(self._ranges))
        self._chunk, self._missing, self._ranges = -1, False, []
        return chunk


class Tally:
    """What a sender remembers of the answers: four bytes a chunk, and :data:`MAX_RANGES`."""

    def __init__(self, size: int, chunk_bytes: int) -> None:
        self._chunk_bytes = chunk_bytes
        self._coverage = Coverage(size, chunk_bytes)
        self._whole = array("I", bytes(4)) * -(-size // chunk_bytes)
        self._offsets, self._sizes = array("Q"), array("Q")
        self.hits = 0
        """Blocks that are held."""

    def add(self, blocks: Sequence[Block], held: bytes) -> None:
        """*held*: bit ``i`` for block ``i``, as in :mod:`~novacron.dwcp.amst.runs`."""
        for index, (offset, size, _) in enumerate(blocks):
            is_held = runs.is_set(held, index)
            self.hits += is_held
            for chunk, start, length in pieces(offset, size, self._chunk_bytes):
                self._note(self._coverage.add(chunk, start, length, is_held))

    def finish(self, told: int) -> None:
        self._note(self._coverage.finish(told))

    def _note(self, chunk: Chunk | None) -> None:
        if chunk is None:
            return
        if chunk.whole:
            self._whole[chunk.number] = sum(size for _, size in chunk.ranges)
        elif len(self._offsets) + len(chunk.ranges) <= MAX_RANGES:
            for offset, size in chunk.ranges:
                self._offsets.append(offset)
                self._sizes.append(size)

    def whole_bytes(self, bits: runs.Bits) -> int:
        """Of held blocks in chunks that they make whole and that are in *bits*."""
        return sum(
            sum(self._whole[first : first + count])
            for first, count in runs.runs_of(bits, len(self._whole))
        )

    def ranges(self, bits: runs.Bits) -> list[Range]:
        """What is held of chunks that are not in *bits*, each as a whole."""
        return [
            (offset, size)
            for offset, size in zip(self._offsets, self._sizes, strict=True)
            if not runs.is_set(bits, offset // self._chunk_bytes)
        ]
