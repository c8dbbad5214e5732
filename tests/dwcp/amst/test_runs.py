from __future__ import annotations

import itertools
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.dwcp.amst import runs

SETS = st.integers(0, 300).flatmap(
    lambda chunks: st.tuples(
        st.just(chunks), st.frozensets(st.integers(0, max(0, chunks - 1)), max_size=chunks)
    )
)


def bits_of_set(chunks: int, members: frozenset[int]) -> bytearray:
    bits = bytearray(runs.bitmap_bytes(chunks))
    for chunk in members:
        bits[chunk // 8] |= 1 << chunk % 8
    return bits


def members_of(found: list[runs.Run]) -> set[int]:
    return {chunk for first, count in found for chunk in range(first, first + count)}


@given(SETS)
def test_runs_say_what_the_bitmap_says_and_none_touches_the_next(
    case: tuple[int, frozenset[int]],
) -> None:
    chunks, members = case
    members = members if chunks else frozenset()
    bits = bits_of_set(chunks, members)
    found = list(runs.runs_of(bits, chunks))
    assert members_of(found) == members
    assert all(first + count < then for (first, count), (then, _) in itertools.pairwise(found))
    assert runs.bits_of(found, chunks) == bits
    assert runs.count_set(bits) == len(members)
    assert all(runs.is_set(bits, chunk) == (chunk in members) for chunk in range(chunks))


@given(SETS)
def test_a_set_is_packed_in_one_way_and_unpacked(case: tuple[int, frozenset[int]]) -> None:
    chunks, members = case
    bits = bits_of_set(chunks, members if chunks else frozenset())
    found = list(runs.runs_of(bits, chunks))
    assert list(runs.unpack_runs(runs.pack_runs(found), chunks)) == found


@given(st.binary(max_size=40), st.integers(0, 2**40))
def test_whatever_unpacks_packs_to_the_same_bytes(packed: bytes, chunks: int) -> None:
    try:
        found = list(runs.unpack_runs(packed, chunks))
    except ValueError:
        return
    assert runs.pack_runs(found) == packed
    assert all(count > 0 and first + count <= chunks for first, count in found)


@pytest.mark.parametrize(
    ("packed", "why"),
    [
        (b"\x00\x00", "empty"),
        (b"\x00\x01\x00\x01", "belongs to the one before"),
        (b"\x05\x06", "of 10"),
        (b"\x00", "cut off"),
        (b"\x80", "cut off"),
        (b"\x80\x00\x01", "longer than it need be"),
        (b"\xff" * 11, "too large"),
    ],
)
def test_what_is_no_packing_is_refused(packed: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        list(runs.unpack_runs(packed, 10))


def test_a_claim_of_very_many_chunks_takes_no_memory() -> None:
    chunks = 1 << 60
    packed = runs.pack_runs([(0, chunks)])
    assert len(packed) < 16
    assert list(runs.unpack_runs(packed, chunks)) == [(0, chunks)]


@given(
    SETS.filter(lambda case: case[0] > 0),
    st.integers(0, 299),
    st.integers(0, 300),
)
def test_changing_a_run_counts_what_changed(
    case: tuple[int, frozenset[int]], first: int, count: int
) -> None:
    chunks, members = case
    first %= chunks
    count = min(count, chunks - first)
    span = set(range(first, first + count))
    bits = bits_of_set(chunks, members)
    assert members_of(list(runs.missing_runs(bits, first, count))) == span - members
    assert runs.set_run(bits, first, count) == len(span - members)
    assert bits == bits_of_set(chunks, members | span)
    assert runs.clear_run(bits, first, count) == len(span)
    assert bits == bits_of_set(chunks, members - span)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=100))
def test_the_difference_is_what_only_the_first_has(pairs: list[tuple[bool, bool]]) -> None:
    one = bits_of_set(len(pairs), frozenset(i for i, pair in enumerate(pairs) if pair[0]))
    two = bits_of_set(len(pairs), frozenset(i for i, pair in enumerate(pairs) if pair[1]))
    left = frozenset(i for i, pair in enumerate(pairs) if pair == (True, False))
    assert runs.difference(one, two) == bits_of_set(len(pairs), left)


def test_leaves_are_big_endian_and_placed_where_their_chunks_are() -> None:
    leaves = array("I", [0x01020304, 5, 6, 7])
    assert runs.pack_leaves(leaves[:1]) == b"\x01\x02\x03\x04"
    assert runs.unpack_leaves(runs.pack_leaves(leaves)) == leaves
    packed = runs.pick_leaves([(0, 1), (2, 2)], leaves)
    placed = array("I", [0, 0, 0, 0])
    runs.place_leaves(packed, [(0, 1), (2, 2)], placed)
    assert placed == array("I", [0x01020304, 0, 6, 7])


@pytest.mark.parametrize(("size", "why"), [(8, "fewer"), (16, "more")])
def test_as_many_leaves_as_chunks_are_needed(size: int, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        runs.place_leaves(bytes(size), [(0, 3)], array("I", [0, 0, 0]))
