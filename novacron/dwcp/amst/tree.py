"""The tree hash of an object: one value that both ends compute over the checksums of its chunks.

Three levels, all numbers big-endian::

    leaf  = CRC-32 of a chunk's content, 4 bytes
    group = SHA-256("novacron amst group" | the leaves of up to 1024 chunks that follow each other)
    root  = SHA-256("novacron amst root" | size, 8 bytes | chunk_bytes, 4 bytes | the groups)

An object of no bytes has no groups. ``tests/vectors/amst/tree.json`` has examples.

Every content crossed the link in a sealed frame with its checksum, so the root need not withstand a
forger: it proves that every chunk is there, in its place, in the version that the sender read last.
"""

from __future__ import annotations

import hashlib
from array import array
from functools import lru_cache
from typing import Final
from zlib import crc32

from novacron.dwcp.amst.runs import pack_leaves

GROUP_CHUNKS: Final = 1024
ROOT_BYTES: Final = 32
_GROUP: Final = b"novacron amst group"
_ROOT: Final = b"novacron amst root"


class Tree:
    """Takes the leaves of an object in order, as many at a time as the caller likes."""

    def __init__(self, size: int, chunk_bytes: int) -> None:
        self._chunks = -(-size // chunk_bytes)
        self._root = hashlib.sha256(
            _ROOT + size.to_bytes(8, "big") + chunk_bytes.to_bytes(4, "big")
        )
        self._group = hashlib.sha256(_GROUP)
        self._taken = 0

    def add(self, leaves: array[int]) -> None:
        """Raises ValueError: there are more than the object has chunks."""
        if self._taken + len(leaves) > self._chunks:
            raise ValueError(f"more than {self._chunks} leaves")
        position = 0
        while position < len(leaves):
            room = GROUP_CHUNKS - self._taken % GROUP_CHUNKS
            part = leaves[position : position + room]
            self._group.update(pack_leaves(part))
            self._taken += len(part)
            position += len(part)
            if self._taken % GROUP_CHUNKS == 0 or self._taken == self._chunks:
                self._root.update(self._group.digest())
                self._group = hashlib.sha256(_GROUP)

    def root(self) -> bytes:
        """Raises ValueError: leaves are missing."""
        if self._taken != self._chunks:
            raise ValueError(f"{self._taken} leaves of {self._chunks}")
        return self._root.digest()


def root_of(size: int, chunk_bytes: int, leaves: array[int]) -> bytes:
    """The root of an object of *size* bytes, whose chunks have *leaves*.

    Takes a second for some ten million chunks: call it in a worker thread.

    Raises:
      ValueError: there are not as many leaves as chunks.
    """
    tree = Tree(size, chunk_bytes)
    tree.add(leaves)
    return tree.root()


@lru_cache(maxsize=16)
def zero_leaf(size: int) -> int:
    """The leaf of *size* zero bytes; *size* is at most one chunk."""
    return crc32(bytes(size))
