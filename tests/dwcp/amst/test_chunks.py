from __future__ import annotations

import os
from array import array
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.dwcp.amst import runs
from novacron.dwcp.amst.chunks import (
    SAMPLE_ALL_BELOW,
    batches,
    read_exactly,
    sample,
    wrong_chunks,
)

CHUNK = 4096
CONTENT = os.urandom(10 * CHUNK + 7)
LEAVES = array("I", [crc32(CONTENT[at : at + CHUNK]) for at in range(0, len(CONTENT), CHUNK)])


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "file").write_bytes(CONTENT)
    descriptor = os.open(tmp_path / "file", os.O_RDWR)
    yield descriptor
    os.close(descriptor)


def test_what_is_as_it_was_is_not_wrong(file: int) -> None:
    assert wrong_chunks(file, len(CONTENT), CHUNK, (0, 11), LEAVES) == []


def test_every_damaged_chunk_of_the_run_is_found(file: int) -> None:
    for position in (0, 4 * CHUNK + 5, 10 * CHUNK + 6):
        os.pwrite(file, bytes([CONTENT[position] ^ 1]), position)
    assert wrong_chunks(file, len(CONTENT), CHUNK, (0, 11), LEAVES) == [0, 4, 10]
    assert wrong_chunks(file, len(CONTENT), CHUNK, (1, 4), LEAVES) == [4]


def test_a_file_that_is_too_short_has_wrong_chunks(file: int) -> None:
    os.ftruncate(file, 9 * CHUNK + 1)
    assert wrong_chunks(file, len(CONTENT), CHUNK, (8, 3), LEAVES) == [9, 10]
    with pytest.raises(EOFError, match=str(9 * CHUNK + 1)):
        read_exactly(file, memoryview(bytearray(10)), 9 * CHUNK)


def test_of_a_small_object_everything_is_looked_at() -> None:
    held = [(0, 3), (5, 1)]
    assert sample(held, SAMPLE_ALL_BELOW, CHUNK) == held


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 2000)), max_size=20), st.integers())
def test_of_a_large_one_each_run_is_looked_at_and_its_last_chunk(
    gaps: list[tuple[int, int]], seed: int
) -> None:
    held: list[runs.Run] = []
    position = 0
    for gap, count in gaps:
        held.append((position + gap, count))
        position += gap + count
    picked = sample(held, SAMPLE_ALL_BELOW + 1, CHUNK, seed)
    chunks = [first for first, count in picked]
    assert all(count == 1 for _, count in picked)
    assert chunks == sorted(set(chunks))
    for first, count in held:
        mine = [chunk for chunk in chunks if first <= chunk < first + count]
        assert mine[-1] == first + count - 1
        assert len(mine) == 1 + (count - 1) // 100
    assert len(chunks) == sum(1 + (count - 1) // 100 for _, count in held)


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 1000)), max_size=10))
def test_batches_are_small_and_together_the_runs(held: list[runs.Run]) -> None:
    cut = list(batches(held, 1 << 20))
    assert all(0 < count <= 64 for _, count in cut)
    assert [c for first, count in cut for c in range(first, first + count)] == [
        c for first, count in held for c in range(first, first + count)
    ]
