from __future__ import annotations

import itertools
import zlib

from hypothesis import given, settings
from hypothesis import strategies as st

from novacron._native import crc
from novacron._native.ffi import native

MESSAGE = bytes((i * i * 31 + i * 7 >> 3) & 0xFF for i in range(70_000))
CRC = st.integers(0, 2**32 - 1)


def tables(data: memoryview, start: int) -> int:
    loaded = native()
    return loaded.lib.nc_crc32_tables(start, loaded.ffi.from_buffer(data), len(data))


def test_every_small_size_gives_what_zlib_gives() -> None:
    view = memoryview(MESSAGE)
    for size in range(2100):
        part = view[size % 61 : size % 61 + size]
        expected = zlib.crc32(part, size)
        assert crc.crc32(part, size) == expected, size
        assert tables(part, size) == expected, size


@settings(max_examples=500)
@given(st.integers(0, 66_000), st.integers(0, 130), st.integers(0, 4000), CRC)
def test_any_part_from_any_start_gives_what_zlib_gives(
    start: int, unaligned: int, size: int, before: int
) -> None:
    part = memoryview(MESSAGE)[start + unaligned : start + unaligned + size]
    assert crc.crc32(part, before) == zlib.crc32(part, before)


@settings(max_examples=300)
@given(st.lists(st.integers(0, len(MESSAGE)), max_size=8), CRC)
def test_a_message_may_be_cut_anywhere(cuts: list[int], before: int) -> None:
    view = memoryview(MESSAGE)
    found = before
    ends = [0, *sorted(cuts), len(MESSAGE)]
    for start, end in itertools.pairwise(ends):
        found = crc.crc32(view[start:end], found)
    assert found == zlib.crc32(MESSAGE, before)


@given(st.binary(max_size=600), CRC)
def test_arbitrary_bytes_give_what_zlib_gives(data: bytes, before: int) -> None:
    assert crc.crc32(data, before) == zlib.crc32(data, before)


@given(st.integers(0, 100_000), CRC)
def test_zeros_need_not_be_there(size: int, before: int) -> None:
    assert crc.crc32_of_zeros(size, before) == zlib.crc32(bytes(size), before)


@given(st.integers(0, 2**62), st.integers(0, 2**62), CRC)
def test_two_runs_of_zeros_are_one(first: int, second: int, before: int) -> None:
    apart = crc.crc32_of_zeros(second, crc.crc32_of_zeros(first, before))
    assert apart == crc.crc32_of_zeros(first + second, before)


def test_the_kernel_has_a_name() -> None:
    assert crc.kernel() in {"vpclmul", "pclmul", "tables"}
