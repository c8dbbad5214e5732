"""A backup file holds what was written, and a reader believes nothing else."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from novacron.database.copies.reading import BackupFile
from novacron.database.copies.tables import BackupInvalidError, Owner
from novacron.database.copies.wire import MAGIC, MAX_CONTENT, MAX_ITEMS
from novacron.database.copies.writing import write_backup
from tests.database.copies.support import Values, quiet, read_all

VALUES = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.binary(),
)
KINDS = ("integer", "real", "text", "blob")


@st.composite
def contents(draw: st.DrawFn) -> dict[str, Any]:
    names = draw(st.lists(st.sampled_from(["a", "b_2", "node_x", "Z"]), unique=True))
    found = {}
    for name in names:
        width = draw(st.integers(1, 4))
        row = st.lists(VALUES, min_size=width, max_size=width)
        kinds = draw(st.lists(st.sampled_from(KINDS), min_size=width, max_size=width))
        found[name] = (kinds, draw(st.lists(row, max_size=5)))
    return found


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    root = tmp_path_factory.mktemp("backups")
    count = 0

    def make() -> Path:
        nonlocal count
        count += 1
        return root / f"{count}.ncb"

    return make


@given(content=contents())
def test_what_was_written_is_read(fresh: Callable[[], Path], content: dict[str, Any]) -> None:
    path = fresh()
    made = write_backup(Values(content, owner=Owner("node", "n")), path, "1", quiet)
    assert read_all(path) == {name: rows for name, (_kinds, rows) in content.items()}
    with BackupFile(path) as backup:
        backup.verify(quiet)
        assert backup.sha256 == made.sha256
        assert backup.owner == Owner("node", "n")
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.fixture(scope="module")
def sample(fresh: Callable[[], Path]) -> bytes:
    rows = [[n, f"row {n}", bytes([n % 256]) * 20, n / 3] for n in range(1000)]
    path = fresh()
    content = {"a": (KINDS, rows), "b": (("text",), [["x"]]), "empty": (("text",), [])}
    write_backup(Values(content), path, "1", quiet)
    return path.read_bytes()


def refused(fresh: Callable[[], Path], data: bytes) -> str:
    path = fresh()
    path.write_bytes(data)
    with pytest.raises(BackupInvalidError) as caught:
        read_all(path)
    assert str(path) in str(caught.value)
    return caught.value.why


@given(place=st.integers(0), bit=st.integers(0, 7))
def test_a_flipped_bit_anywhere_is_found(
    fresh: Callable[[], Path], sample: bytes, place: int, bit: int
) -> None:
    damaged = bytearray(sample)
    damaged[place % len(sample)] ^= 1 << bit
    refused(fresh, bytes(damaged))


@given(length=st.integers(0))
def test_a_file_that_is_cut_short_anywhere_is_found(
    fresh: Callable[[], Path], sample: bytes, length: int
) -> None:
    refused(fresh, sample[: length % len(sample)])


@given(data=st.binary(max_size=300))
def test_arbitrary_bytes_are_refused(fresh: Callable[[], Path], data: bytes) -> None:
    refused(fresh, data)
    refused(fresh, MAGIC + data)
    refused(fresh, MAGIC + struct.pack(">HHI", 1, 0, len(data)) + data)


def test_what_follows_the_end_is_found(fresh: Callable[[], Path], sample: bytes) -> None:
    assert "follows" in refused(fresh, sample + b"x")


def test_a_later_format_is_named(fresh: Callable[[], Path], sample: bytes) -> None:
    assert "version 2" in refused(fresh, sample[:8] + b"\0\2" + sample[10:])


# --- Files that somebody made on purpose: every checksum fits ------------------------------------

HEADER: dict[str, Any] = {
    "novacron": "1",
    "revision": "0001",
    "engine": "sqlite",
    "owner": None,
    "created": 1.0,
    "tables": [["a", [["x", "integer"], ["y", "text"]], 1], ["b", [["x", "blob"]], 0]],
}


def forged(header: Any, *frames: bytes) -> bytes:
    packed = msgpack.packb(header) if not isinstance(header, bytes) else header
    data = MAGIC + struct.pack(">HHI", 1, 0, len(packed)) + packed
    for frame in frames:
        data += struct.pack(">I", len(frame)) + frame
    data += struct.pack(">I", 0)
    return data + hashlib.sha256(data).digest()


def frame(content: Any) -> bytes:
    packed = content if isinstance(content, bytes) else msgpack.packb(content)
    return zstandard.ZstdCompressor().compress(packed)


def test_the_forgery_is_read_where_nothing_is_wrong(fresh: Callable[[], Path]) -> None:
    path = fresh()
    path.write_bytes(forged(HEADER, frame([0, [[1, "t"]]])))
    assert read_all(path) == {"a": [[1, "t"]], "b": []}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ([0, [[1]]], "shape"),
        ([0, [[1, 2, 3]]], "shape"),
        ([0, [7]], "shape"),
        ([0, []], "no rows"),
        ([2, [[1, "t"]]], "no table"),
        ([-1, [[1, "t"]]], "no table"),
        ([True, [[1, "t"]]], "no rows"),
        ([0, [[2**63, "t"]]], "64 bits"),
        ([0, [[[], "t"]]], "no known type"),
        ([0, [[True, "t"]]], "no known type"),
        ([0, [[msgpack.Timestamp(1), "t"]]], "decoded"),
        ([0, [[{}, "t"]]], "no known type"),
        ({}, "no rows"),
        (b"\xc1", "decoded"),
        (b"\x92\x00\xdd\xff\xff\xff\xff", "decoded"),
        (b"\x91" * 5000, "decoded"),
        (msgpack.packb([0, [[1, "t"]]]) + b"\0", "decoded"),
        ([0, [[1, "t"]] * (MAX_ITEMS + 1)], "decoded"),
        ([0, [[1, "t"], [2, "u"]]], "2 of 1 rows"),
    ],
)
def test_a_frame_that_cannot_be_is_refused(
    fresh: Callable[[], Path], content: Any, why: str
) -> None:
    assert why in refused(fresh, forged(HEADER, frame(content)))


def test_a_frame_that_would_be_too_large_is_refused_before_it_is_made(
    fresh: Callable[[], Path],
) -> None:
    bomb = frame(bytes(MAX_CONTENT + 1))
    assert len(bomb) < 10_000
    assert "size" in refused(fresh, forged(HEADER, bomb))
    stream = zstandard.ZstdCompressor().compressobj()
    unsized = stream.compress(bytes(100)) + stream.flush()
    assert "size" in refused(fresh, forged(HEADER, unsized))


def test_tables_out_of_their_order_are_refused(fresh: Callable[[], Path]) -> None:
    header = HEADER | {"tables": [["a", [["x", "integer"]], 1], ["b", [["x", "integer"]], 1]]}
    assert "order" in refused(fresh, forged(header, frame([1, [[1]]]), frame([0, [[1]]])))


@pytest.mark.parametrize(
    "change",
    [
        {"revision": "head"},
        {"revision": None},
        {"engine": "oracle"},
        {"owner": ["king", "x"]},
        {"owner": "x"},
        {"created": "now"},
        {"created": float("nan")},
        {"novacron": 1},
        {"tables": None},
        {"tables": [["a", [], 0]]},
        {"tables": [["a", [["x", "money"]], 0]]},
        {"tables": [["a; DROP TABLE b", [["x", "text"]], 0]]},
        {"tables": [["a", [["x", "text"], ["x", "text"]], 0]]},
        {"tables": [["a", [["x", "text"]], 0], ["a", [["x", "text"]], 0]]},
        {"tables": [["a", [["x", "text"]], -1]]},
        {"tables": [["a", [["x", "text"]], True]]},
        {"tables": [["a" * 64, [["x", "text"]], 0]]},
    ],
)
def test_a_header_that_cannot_be_is_refused(
    fresh: Callable[[], Path], change: dict[str, Any]
) -> None:
    assert "header" in refused(fresh, forged(HEADER | change))


@pytest.mark.parametrize("header", [b"", b"\xc1", b"\x91" * 5000, [1], None, {b"x": 1}])
def test_a_header_that_is_no_map_is_refused(fresh: Callable[[], Path], header: Any) -> None:
    assert "header" in refused(fresh, forged(header))


def test_a_missing_file_and_a_directory_are_named(tmp_path: Path) -> None:
    from novacron.database.store import DatabaseUnavailableError

    for path in (tmp_path / "gone", tmp_path):
        with pytest.raises(DatabaseUnavailableError, match=str(path)):
            BackupFile(path)
