"""Chunks of an object in a file: reading them, and checking those that should be there already.

These functions block on the disk: call them in a worker thread.
"""

from __future__ import annotations

import os
import random
from array import array
from collections.abc import Iterable, Iterator
from typing import Final
from zlib import crc32

from novacron.dwcp.amst.runs import Run

SAMPLE_ALL_BELOW: Final = 1 << 30
"""Bytes up to which everything is read back when a transfer goes on: it takes a second or two."""
_SAMPLE_SHARE: Final = 100
"""Above that, one chunk in so many. It is to find a disk that lost everything it had said it kept,
not a single bad sector: the checksums of a file system, or a scrub, are for that."""
_CHECK_BATCH_BYTES: Final = 64 << 20
"""Read in one go at most, so that a caller who was cancelled need not wait long."""


def read_exactly(descriptor: int, area: memoryview, offset: int) -> None:
    """Fill *area* from *offset* on.

    Raises:
      EOFError: the file ends before.
      OSError: it cannot be read.
    """
    position = 0
    while position < len(area):
        count = os.preadv(descriptor, [area[position:]], offset + position)
        if not count:
            raise EOFError(f"the file ends at {offset + position}")
        position += count


def chunk_size(size: int, chunk_bytes: int, index: int) -> int:
    """Bytes of chunk *index* of an object of *size* bytes."""
    return min(chunk_bytes, size - index * chunk_bytes)


def sample(runs: Iterable[Run], size: int, chunk_bytes: int, seed: int | None = None) -> list[Run]:
    """Which of the chunks in *runs* to read back: all of an object below 1 GiB, else one in a
    hundred, among them the last of each run, which was the last to be written before the end.

    Args:
      seed: For tests; otherwise nobody can tell which.
    """
    held = list(runs)
    if size <= SAMPLE_ALL_BELOW:
        return held
    chooser = random.Random(seed)  # a sample, no secret
    picked: list[Run] = []
    for first, count in held:
        last = first + count - 1
        chosen = chooser.sample(range(first, last), (count - 1) // _SAMPLE_SHARE)
        picked.extend((index, 1) for index in sorted(chosen))
        picked.append((last, 1))
    return picked


def batches(runs: Iterable[Run], chunk_bytes: int) -> Iterator[Run]:
    """*runs* cut into pieces of at most 64 MiB, each for one call of :func:`wrong_chunks`."""
    most = max(1, _CHECK_BATCH_BYTES // chunk_bytes)
    for first, count in runs:
        for begin in range(first, first + count, most):
            yield begin, min(most, first + count - begin)


def wrong_chunks(
    descriptor: int, size: int, chunk_bytes: int, run: Run, leaves: array[int]
) -> list[int]:
    """The chunks of *run* whose content has another checksum than *leaves* (one for each chunk of
    the object), or none because the file is too short.

    Raises:
      OSError: the file cannot be read.
    """
    wrong = []
    buffer = memoryview(bytearray(chunk_bytes))
    for index in range(run[0], run[0] + run[1]):
        area = buffer[: chunk_size(size, chunk_bytes, index)]
        try:
            read_exactly(descriptor, area, index * chunk_bytes)
        except EOFError:
            wrong.append(index)
            continue
        if crc32(area) != leaves[index]:
            wrong.append(index)
    return wrong
