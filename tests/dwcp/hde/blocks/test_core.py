"""Blocks on the wire, and which chunks those that are held make."""

from __future__ import annotations

import os
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.dwcp.amst import runs
from novacron.dwcp.hde.blocks import core
from novacron.dwcp.hde.blocks.core import (
    DIGEST_BYTES,
    MAX_BLOCKS,
    SCHEME,
    Block,
    Chunk,
    Coverage,
    Tally,
    fault_of_tenant,
    pack_places,
    pieces,
    unpack_blocks,
)

CHUNK = 1000

LAYOUTS = st.lists(
    st.tuples(st.integers(0, 3000), st.integers(1, 2500), st.booleans()), max_size=40
)
"""Of a file: gap, size, and whether the receiver holds it, for each block."""


def laid_out(layout: list[tuple[int, int, bool]]) -> tuple[list[Block], bytes, int]:
    blocks, held, end = [], bytearray(runs.bitmap_bytes(len(layout))), 0
    for index, (gap, size, is_held) in enumerate(layout):
        blocks.append((end + gap, size, sha256(bytes([index])).digest()))
        end += gap + size
        if is_held:
            runs.set_run(held, index, 1)
    return blocks, bytes(held), end


@given(LAYOUTS, st.integers(0, 5000))
def test_what_is_packed_is_read_back(layout: list[tuple[int, int, bool]], begin: int) -> None:
    blocks, _, end = laid_out(layout)
    moved = [(offset + begin, size, digest) for offset, size, digest in blocks]
    packed = pack_places(moved, begin)
    digests = b"".join(digest for _, _, digest in moved)
    assert unpack_blocks(packed, digests, begin, begin + end) == moved
    if moved:
        with pytest.raises(ValueError):
            unpack_blocks(packed, digests, begin, begin + end - 1)
        with pytest.raises(ValueError):
            unpack_blocks(packed, digests[DIGEST_BYTES:], begin, begin + end)
        with pytest.raises(ValueError):
            unpack_blocks(packed[:-1], digests, begin, begin + end)


@given(st.binary(max_size=64), st.integers(0, 5), st.integers(0, 1 << 40))
def test_nothing_that_a_peer_sends_makes_a_block_beyond_the_end(
    places: bytes, count: int, end: int
) -> None:
    try:
        blocks = unpack_blocks(places, bytes(count * DIGEST_BYTES), 0, end)
    except ValueError:
        return
    assert len(blocks) == count
    at = 0
    for offset, size, _ in blocks:
        assert at <= offset < offset + size <= end
        assert size <= SCHEME.maximum
        at = offset + size


@pytest.mark.parametrize(
    ("places", "digests"),
    [
        (b"", bytes(DIGEST_BYTES - 1)),
        (b"", bytes(DIGEST_BYTES)),
        (b"\x00\x00", bytes(DIGEST_BYTES)),
        (pack_places([(0, SCHEME.maximum + 1, b"")], 0), bytes(DIGEST_BYTES)),
        (b"\x00\x01" * (MAX_BLOCKS + 1), bytes(DIGEST_BYTES * (MAX_BLOCKS + 1))),
        (b"\xff" * 20, bytes(DIGEST_BYTES)),
        (b"\x80\x00\x01", bytes(DIGEST_BYTES)),
    ],
)
def test_blocks_that_are_none_are_refused(places: bytes, digests: bytes) -> None:
    with pytest.raises(ValueError):
        unpack_blocks(places, digests, 0, 1 << 60)


def cover(blocks: list[Block], held: bytes, size: int, told: int) -> list[Chunk]:
    coverage = Coverage(size, CHUNK)
    found = []
    for index, (offset, length, _) in enumerate(blocks):
        for chunk, start, part in pieces(offset, length, CHUNK):
            found.append(coverage.add(chunk, start, part, runs.is_set(held, index)))
    found.append(coverage.finish(told))
    return [chunk for chunk in found if chunk is not None]


@given(LAYOUTS, st.integers(0, 2000), st.booleans())
def test_a_chunk_is_whole_exactly_when_each_of_its_bytes_is_held_or_zero(
    layout: list[tuple[int, int, bool]], hole: int, all_told: bool
) -> None:
    blocks, held, end = laid_out(layout)
    size = end + hole
    told = size if all_told else end
    # One letter a byte: held, not held, zero, and unknown where nothing was told.
    state = bytearray(b"." * told + b"?" * (size - told))
    for index, (offset, length, _) in enumerate(blocks):
        state[offset : offset + length] = (b"h" if runs.is_set(held, index) else b"m") * length
    found = cover(blocks, held, size, told)
    wanted = {}
    for number in range(-(-size // CHUNK)):
        part = state[number * CHUNK : (number + 1) * CHUNK]
        if b"h" in part:
            wanted[number] = b"m" not in part and b"?" not in part
    assert {chunk.number: chunk.whole for chunk in found} == wanted
    marked = bytearray(len(state))
    for chunk in found:
        for offset, length in chunk.ranges:
            marked[offset : offset + length] = b"h" * length
    assert bytes(marked) == bytes(byte if byte == ord("h") else 0 for byte in state)
    tops = [pair for chunk in found for pair in chunk.ranges]
    assert tops == sorted(tops)


@given(LAYOUTS)
def test_what_the_sender_remembers_adds_up_to_what_is_held(
    layout: list[tuple[int, int, bool]],
) -> None:
    blocks, held, end = laid_out(layout)
    tally = Tally(end, CHUNK)
    tally.add(blocks, held)
    tally.finish(end)
    held_bytes = sum(size for _, size, is_held in layout if is_held)
    bits = runs.bits_of([(0, -(-end // CHUNK))] if end else [], -(-end // CHUNK))
    nothing = bytes(len(bits))
    parts = sum(size for _, size in tally.ranges(nothing))
    assert tally.whole_bytes(bits) + parts == held_bytes
    assert tally.whole_bytes(nothing) == 0
    assert tally.ranges(bits) == []
    assert tally.hits == sum(is_held for _, _, is_held in layout)


def test_a_sender_forgets_parts_past_its_limit_and_no_whole_chunk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(core, "MAX_RANGES", 3)
    blocks = [(index * CHUNK, 500, os.urandom(32)) for index in range(10)]
    gaps = [(index * CHUNK + 500, 500, os.urandom(32)) for index in range(10)]
    both = sorted(blocks + gaps)
    held = bytearray(3)
    for index in range(20):
        # The first halves, and all of the last chunk.
        if index % 2 == 0 or index == 19:
            runs.set_run(held, index, 1)
    tally = Tally(10 * CHUNK, CHUNK)
    tally.add(both, bytes(held))
    tally.finish(10 * CHUNK)
    assert tally.ranges(bytes(2)) == [(0, 500), (1000, 500), (2000, 500)]
    assert tally.whole_bytes(b"\xff\x03") == CHUNK


@pytest.mark.parametrize("name", ["", "a\0b", "a\nb", "\ud800", "x" * 129, "ü" * 65])
def test_a_tenant_needs_a_name_that_can_be_printed(name: str) -> None:
    assert fault_of_tenant(name)
    assert not fault_of_tenant("acme-1")
