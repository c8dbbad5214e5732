"""Sets of chunks: as bitmaps, as runs, and packed for messages and journals.

A bitmap has bit ``i % 8`` of byte ``i // 8``, least significant first, for chunk ``i``. A run is
``(first, count)``. Packed, a set is alternating counts of chunks that are not in it and chunks that
are, as LEB128 numbers: an interrupted transfer of millions of chunks fits in a few bytes, since what
is held comes in long runs. There is exactly one packing of a set.
"""

from __future__ import annotations

import re
import sys
from array import array
from collections.abc import Iterable, Iterator
from typing import Final, TypeAlias

Run: TypeAlias = tuple[int, int]
"""First chunk, number of chunks."""
Bits: TypeAlias = bytes | bytearray

# Whole bytes of the same kind at a time: what is held comes in long runs.
_STRETCH: Final = re.compile(rb"\xff+|\x00+|[^\x00\xff]", re.DOTALL)
_LEAF_BYTES: Final = 4
_MAX_NUMBER_BYTES: Final = 10
"""Of one LEB128 number below 2^64."""

assert array("I").itemsize == _LEAF_BYTES


def bitmap_bytes(chunks: int) -> int:
    """Size of the bitmap of *chunks* chunks."""
    return -(-chunks // 8)


def is_set(bits: Bits, chunk: int) -> bool:
    return bool(bits[chunk // 8] >> (chunk % 8) & 1)


def count_set(bits: Bits) -> int:
    return int.from_bytes(bits, "little").bit_count()


def set_run(bits: bytearray, first: int, count: int) -> int:
    """Set *count* bits from *first* on; returns how many of them were not set before."""
    return _change_run(bits, first, count, True)


def clear_run(bits: bytearray, first: int, count: int) -> int:
    """Clear *count* bits from *first* on; returns how many of them were set before."""
    return _change_run(bits, first, count, False)


def _change_run(bits: bytearray, first: int, count: int, value: bool) -> int:
    if not count:
        return 0
    begin, end = first // 8, (first + count - 1) // 8 + 1
    before = int.from_bytes(bits[begin:end], "little")
    mask = ((1 << count) - 1) << (first % 8)
    after = before | mask if value else before & ~mask
    bits[begin:end] = after.to_bytes(end - begin, "little")
    return abs(after.bit_count() - before.bit_count())


def difference(bits: Bits, without: Bits) -> bytes:
    """What is in *bits* and not in *without*; both of one size."""
    left = int.from_bytes(bits, "little") & ~int.from_bytes(without, "little")
    return left.to_bytes(len(bits), "little")


def runs_of(bits: Bits, chunks: int) -> Iterator[Run]:
    """The runs of set bits below *chunks*, in order, each as long as it can be."""
    first = count = 0
    for begin, size, value in _stretches(bits):
        if begin >= chunks:
            break
        if value and begin == first + count and count:
            count += size
        elif value:
            if count:
                yield first, count
            first, count = begin, size
    if count:
        yield first, min(count, chunks - first)


def missing_runs(bits: Bits, first: int, count: int) -> Iterator[Run]:
    """The runs among *count* chunks from *first* on that are not set; costs nothing for the rest."""
    if not count:
        return
    begin, end = first // 8, (first + count - 1) // 8 + 1
    mask = ((1 << count) - 1) << (first % 8)
    missing = mask & ~int.from_bytes(bits[begin:end], "little")
    part = missing.to_bytes(end - begin, "little")
    for start, length in runs_of(part, (end - begin) * 8):
        yield begin * 8 + start, length


def _stretches(bits: Bits) -> Iterator[tuple[int, int, bool]]:
    """First bit, number of bits, and their value."""
    for found in _STRETCH.finditer(bits):
        begin, value = found.start() * 8, bits[found.start()]
        if value in (0, 255):
            yield begin, (found.end() - found.start()) * 8, value == 255
        else:
            for bit in range(8):
                yield begin + bit, 1, bool(value >> bit & 1)


def bits_of(runs: Iterable[Run], chunks: int) -> bytearray:
    """The bitmap of *runs*, which lie below *chunks*."""
    bits = bytearray(bitmap_bytes(chunks))
    for first, count in runs:
        set_run(bits, first, count)
    return bits


# --- Packed -----------------------------------------------------------------------------------


def pack_runs(runs: Iterable[Run]) -> bytes:
    """*runs* in order, none of them touching the next."""
    packed = bytearray()
    end = 0
    for first, count in runs:
        packed += pack_number(first - end) + pack_number(count)
        end = first + count
    return bytes(packed)


def unpack_runs(packed: Bits | memoryview, chunks: int) -> Iterator[Run]:
    """The inverse of :func:`pack_runs`, one run after another: what is claimed is never held.

    Raises:
      ValueError: it is no set of chunks below *chunks*, or not packed the one way there is.
    """
    end, position, size = 0, 0, len(packed)
    while position < size:
        gap, position = read_number(packed, position)
        count, position = read_number(packed, position)
        if not count or (end and not gap):
            raise ValueError("a run of chunks that is empty, or belongs to the one before")
        first, end = end + gap, end + gap + count
        if end > chunks:
            raise ValueError(f"a run of chunks up to {end}, of {chunks}")
        yield first, count


def pack_number(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def read_number(data: Bits | memoryview, position: int) -> tuple[int, int]:
    value = 0
    for index in range(_MAX_NUMBER_BYTES):
        if position + index >= len(data):
            raise ValueError("a number that is cut off")
        byte = data[position + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            if not byte and index:
                raise ValueError("a number that is longer than it need be")
            return value, position + index + 1
    raise ValueError("a number that is too large")


def pack_leaves(leaves: array[int]) -> bytes:
    """Checksums as they are in messages, journals and the tree: big-endian, four bytes each."""
    if sys.byteorder == "little":
        leaves = leaves[:]
        leaves.byteswap()
    return leaves.tobytes()


def unpack_leaves(packed: Bits | memoryview) -> array[int]:
    """The inverse of :func:`pack_leaves`, an ``array("I")``.

    Raises:
      ValueError: there is half a checksum.
    """
    leaves = array("I")
    leaves.frombytes(packed)
    if sys.byteorder == "little":
        leaves.byteswap()
    return leaves


def pick_leaves(runs: Iterable[Run], leaves: array[int]) -> bytes:
    """The checksums of the chunks in *runs*, packed; *leaves* has one for each chunk."""
    return b"".join(pack_leaves(leaves[first : first + count]) for first, count in runs)


def place_leaves(packed: Bits | memoryview, runs: Iterable[Run], leaves: array[int]) -> None:
    """The inverse of :func:`pick_leaves`: put the checksums where their chunks are.

    Raises:
      ValueError: there are more or fewer than chunks. Some may have been placed by then.
    """
    view = memoryview(packed)
    position = 0
    for first, count in runs:
        size = count * _LEAF_BYTES
        if size > len(view) - position:
            raise ValueError("fewer checksums than chunks")
        leaves[first : first + count] = unpack_leaves(view[position : position + size])
        position += size
    if position != len(view):
        raise ValueError("more checksums than chunks")
