"""Cutting files, with and without holes."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from zlib import crc32

import pytest

from novacron.dwcp.amst import runs
from novacron.dwcp.hde.blocks.core import SCHEME, Block
from novacron.dwcp.hde.blocks.cutting import Checksums, blocks_of, extents, find_cut, take
from novacron.units import MIB

CHUNK = 1 << 20
CUT, WHY = find_cut()


@contextmanager
def opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def cut(path: Path, checksums: Checksums | None = None) -> list[Block]:
    assert CUT is not None, WHY
    with opened(path) as descriptor:
        return list(blocks_of(descriptor, path.stat().st_size, CUT, checksums=checksums))


def noise(size: int, seed: int = 7) -> bytes:
    return random.Random(seed).randbytes(size)


def test_blocks_are_all_of_the_file_in_order_with_their_digests(tmp_path: Path) -> None:
    content = noise(11 * MIB + 123)
    path = tmp_path / "file"
    path.write_bytes(content)
    blocks = cut(path)
    assert blocks[0][0] == 0
    assert sum(blocks[-1][:2]) == len(content)
    for (offset, size, digest), (then, _, _) in pairwise([*blocks, (len(content), 0, b"")]):
        assert offset + size == then
        assert sha256(content[offset : offset + size]).digest() == digest
        assert size <= SCHEME.maximum
    assert all(size >= SCHEME.minimum for _, size, _ in blocks[:-1])


def test_what_is_inserted_changes_the_blocks_beside_it_and_no_others(tmp_path: Path) -> None:
    content = noise(8 * MIB)
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_bytes(content)
    second.write_bytes(noise(1000, 8) + content)
    known = {digest for _, _, digest in cut(first)}
    new = [size for _, size, digest in cut(second) if digest not in known]
    assert 1 <= len(new) <= 2
    assert sum(new) <= 2 * SCHEME.maximum


def test_holes_and_zeros_are_in_no_block(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(40 * MIB)
        file.seek(10 * MIB)
        file.write(noise(MIB))
        file.seek(20 * MIB)
        file.write(bytes(4 * MIB))
        file.seek(30 * MIB + 5)
        file.write(b"x")
    with opened(path) as descriptor:
        found = list(extents(descriptor, 40 * MIB))
    assert found[0][0] == 10 * MIB
    blocks = cut(path)
    covered = sum(size for _, size, _ in blocks)
    assert MIB <= covered <= MIB + 2 * SCHEME.maximum
    assert any(offset <= 30 * MIB + 5 < offset + size for offset, size, _ in blocks)
    assert not any(21 * MIB <= offset < 23 * MIB for offset, _, _ in blocks)


def test_the_checksums_of_chunks_are_those_of_the_file_and_unknown_in_holes(
    tmp_path: Path,
) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(8 * MIB + 100)
        file.seek(CHUNK // 2)
        file.write(noise(2 * MIB + 7))
        file.seek(8 * MIB + 50)
        file.write(b"x")
    checksums = Checksums(8 * MIB + 100, CHUNK)
    cut(path, checksums)
    content = path.read_bytes()
    known = [index for index in range(9) if runs.is_set(checksums.bits, index)]
    assert {0, 1, 2, 8} <= set(known)
    assert 5 not in known
    for index in known:
        assert checksums.leaves[index] == crc32(content[index * CHUNK : (index + 1) * CHUNK])


def test_a_file_that_becomes_shorter_while_it_is_cut_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(noise(12 * MIB))
    assert CUT is not None
    with opened(path) as descriptor:
        blocks = blocks_of(descriptor, 12 * MIB, CUT)
        assert len(take(blocks, 3)) == 3
        os.truncate(path, 5 * MIB)
        with pytest.raises(EOFError):
            list(blocks)
