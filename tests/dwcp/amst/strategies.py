"""Headers for property tests: arbitrary bytes, fields at their edges, and good ones changed."""

from __future__ import annotations

import struct
import zlib

from hypothesis import strategies as st

from tests.dwcp.amst import reference
from tests.dwcp.amst.vectors import END_OF_FILES, GOOD, LARGEST_CHUNK, MIB

EDGES = (
    0,
    1,
    4,
    5,
    8,
    31,
    32,
    33,
    36,
    4064,
    4095,
    4096,
    MIB,
    MIB + 4,
    LARGEST_CHUNK,
    LARGEST_CHUNK + 4,
)
U32 = st.sampled_from([*EDGES, 2**31, 2**32 - 1]) | st.integers(0, 2**32 - 1)
U64 = st.sampled_from(
    [*EDGES, END_OF_FILES - MIB, END_OF_FILES - MIB + 1, END_OF_FILES, END_OF_FILES + 1, 2**64 - 1]
) | st.integers(0, 2**64 - 1)
U8 = st.integers(0, 10) | st.integers(0, 255)

_WIDTHS = {"type": U8, "flags": U8, "codec": U8, "sequence": U64, "offset": U64}
FIELDS = st.fixed_dictionaries({name: _WIDTHS.get(name, U32) for name in reference.FIELDS})
SOME_FIELDS = st.fixed_dictionaries(
    {}, optional={name: _WIDTHS.get(name, U32) for name in reference.FIELDS}
)
MAX_CHUNK = st.sampled_from([65536, MIB, LARGEST_CHUNK, 2**32 - 1]) | st.integers(0, 2**32 - 1)


def _with_checksum(data: bytes, seed: int) -> bytes:
    return data[:60] + struct.pack(">I", zlib.crc32(data[:60], seed))


@st.composite
def headers(draw: st.DrawFn, seed: int) -> bytes:
    """64 bytes, most of them with a checksum that holds: or else nothing behind it is looked at."""
    match draw(st.integers(0, 4)):
        case 0:
            return draw(st.binary(min_size=64, max_size=64))
        case 1:
            return _with_checksum(draw(st.binary(min_size=64, max_size=64)), seed)
        case 2:
            return reference.header(draw(FIELDS), seed)
        case 3:
            good = draw(st.sampled_from(list(GOOD.values())))
            changed = draw(SOME_FIELDS.filter(lambda fields: len(fields) <= 3))
            return reference.header(good | changed, seed)
    good = draw(st.sampled_from(list(GOOD.values())))
    data = bytearray(reference.header(good, seed))
    for bit in draw(st.lists(st.integers(0, 8 * 60 - 1), max_size=3)):
        data[bit // 8] ^= 1 << bit % 8
    return _with_checksum(bytes(data), seed) if draw(st.booleans()) else bytes(data)


ACK_FIELDS = st.fixed_dictionaries(
    {"kind": st.integers(0, 7) | U8, "object": U32, "generation": U32, "offset": U64, "value": U64}
)
ACK_BYTES = st.binary(min_size=32, max_size=32) | ACK_FIELDS.map(reference.acknowledgement)
