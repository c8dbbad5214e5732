"""The journal: it never claims a chunk that was not recorded, whatever happened to the file."""

from __future__ import annotations

import errno
import os
from array import array
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from novacron.dwcp.amst import journal as module
from novacron.dwcp.amst import runs
from novacron.dwcp.amst.errors import JournalError
from novacron.dwcp.amst.journal import Journal, Subject, create_journal, open_journal

CHUNKS = 1000
SUBJECT = Subject(b"t" * 16, 3, CHUNKS * 65536 - 5, 65536, b"i" * 32)


def leaf(chunk: int) -> int:
    return (chunk * 2654435761 + 1) % 2**32


def leaves(first: int, count: int) -> array[int]:
    return array("I", [leaf(chunk) for chunk in range(first, first + count)])


def bits(*found: runs.Run) -> bytes:
    return bytes(runs.bits_of(found, CHUNKS))


def claimed(journal: Journal) -> dict[int, int]:
    return {
        chunk: journal.leaves[chunk] for chunk in range(CHUNKS) if runs.is_set(journal.bits, chunk)
    }


def reopened(path: Path, subject: Subject = SUBJECT) -> dict[int, int]:
    journal = open_journal(path, subject)
    try:
        return claimed(journal)
    finally:
        journal.close()


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, list[int]]:
    """A journal of three records, and where each of them ends."""
    path = tmp_path_factory.mktemp("journal") / "3.journal"
    journal = create_journal(path, SUBJECT)
    ends = [path.stat().st_size]
    for held in (bits((0, 3)), bits((0, 3), (7, 1), (500, 20)), bits((0, 9), (500, 20))):
        # What is gone from a later bitmap stays on record: only what is new counts.
        assert journal.append(held, leaves) > 0
        ends.append(path.stat().st_size)
    journal.close()
    return path.read_bytes(), ends


WHOLE = {chunk: leaf(chunk) for chunk in (*range(9), *range(500, 520))}


def test_what_was_recorded_is_there_again(tmp_path: Path, recorded: Any) -> None:
    path = tmp_path / "journal"
    path.write_bytes(recorded[0])
    assert reopened(path) == WHOLE


def test_appending_goes_on_where_it_was(tmp_path: Path, recorded: Any) -> None:
    path = tmp_path / "journal"
    path.write_bytes(recorded[0])
    journal = open_journal(path, SUBJECT)
    assert journal.append(bits((0, 9), (500, 21), (999, 1)), leaves) == 2
    assert journal.append(bits((0, 9)), leaves) == 0
    journal.close()
    journal.close()
    assert reopened(path) == WHOLE | {520: leaf(520), 999: leaf(999)}


def test_a_journal_cut_off_anywhere_claims_the_records_before(
    tmp_path: Path, recorded: Any
) -> None:
    data, ends = recorded
    path = tmp_path / "journal"
    for size in range(len(data)):
        path.write_bytes(data[:size])
        if size < ends[0]:
            with pytest.raises(JournalError, match="damaged"):
                open_journal(path, SUBJECT)
            continue
        found = reopened(path)
        assert found.items() <= WHOLE.items()
        whole = max(end for end in ends if end <= size)
        assert path.stat().st_size == whole, "the torn rest is cut off"
        assert len(found) == {ends[0]: 0, ends[1]: 3, ends[2]: 24}[whole]


def test_any_flipped_bit_leaves_a_subset(tmp_path: Path, recorded: Any) -> None:
    data, ends = recorded
    path = tmp_path / "journal"
    for position in range(len(data)):
        for bit in (0, 5):
            damaged = bytearray(data)
            damaged[position] ^= 1 << bit
            path.write_bytes(damaged)
            try:
                found = reopened(path)
            except JournalError:
                assert position < ends[0]
                continue
            assert position >= ends[0]
            assert found.items() < WHOLE.items()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(changes=st.lists(st.tuples(st.integers(0, 10**6), st.binary(max_size=6)), max_size=4))
def test_no_damage_makes_it_claim_more(
    tmp_path: Path, recorded: Any, changes: list[tuple[int, bytes]]
) -> None:
    damaged = bytearray(recorded[0])
    for position, patch in changes:
        position %= len(damaged) + 1
        damaged[position : position + len(patch)] = patch
    path = tmp_path / "journal"
    path.write_bytes(damaged)
    try:
        found = reopened(path)
    except JournalError:
        return
    assert found.items() <= WHOLE.items()


def test_records_of_another_journal_are_not_believed(tmp_path: Path, recorded: Any) -> None:
    data, ends = recorded
    other = create_journal(tmp_path / "other", SUBJECT._replace(position=4))
    other.close()
    path = tmp_path / "other"
    path.write_bytes(path.read_bytes() + data[ends[0] :])
    assert reopened(path, SUBJECT._replace(position=4)) == {}


def test_a_record_that_is_missing_in_between_ends_what_is_believed(
    tmp_path: Path, recorded: Any
) -> None:
    data, ends = recorded
    path = tmp_path / "journal"
    path.write_bytes(data[: ends[1]] + data[ends[2] :])
    assert set(reopened(path)) == {0, 1, 2}


@pytest.mark.parametrize(
    "change",
    [
        {"transfer": b"u" * 16},
        {"position": 4},
        {"size": SUBJECT.size - 1},
        {"chunk_bytes": 4096},
        {"identity": b"j" * 32},
    ],
)
def test_a_journal_about_something_else_is_not_read(
    tmp_path: Path, recorded: Any, change: dict[str, Any]
) -> None:
    path = tmp_path / "journal"
    path.write_bytes(recorded[0])
    with pytest.raises(JournalError, match="another object"):
        open_journal(path, SUBJECT._replace(**change))


def test_a_claim_beyond_the_object_is_not_believed(tmp_path: Path) -> None:
    """Written with all its checksums right, as only somebody with write access could."""
    path = tmp_path / "journal"
    journal = create_journal(path, SUBJECT)
    for part in ([(CHUNKS - 1, 2)], [(0, 1 << 59)]):
        record, _ = module._pack(part, [array("I", [1])], journal._check)
        data = path.read_bytes()
        path.write_bytes(data + record)
        assert reopened(path) == {}
        path.write_bytes(data)
    journal.close()


def test_a_large_record_is_cut_into_several(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "_RECORD_CHUNKS", 100)
    path = tmp_path / "journal"
    journal = create_journal(path, SUBJECT)
    small = path.stat().st_size
    assert journal.append(bits((5, 250), (300, 1), (302, 400)), leaves) == 651
    journal.close()
    assert path.stat().st_size > small + 651 * 4 + 6 * 12
    assert set(reopened(path)) == {*range(5, 255), 300, *range(302, 702)}


def test_creating_it_anew_takes_chunks_back(tmp_path: Path, recorded: Any) -> None:
    path = tmp_path / "journal"
    path.write_bytes(recorded[0])
    old = open_journal(path, SUBJECT)
    kept = bits((0, 3), (501, 2))
    create_journal(path, SUBJECT, kept, old.leaves).close()
    old.close()
    assert reopened(path) == {chunk: leaf(chunk) for chunk in (0, 1, 2, 501, 502)}
    assert [entry.name for entry in tmp_path.iterdir()] == ["journal"]


def test_a_full_disk_leaves_what_was_on_record_and_more_may_follow(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = create_journal(path, SUBJECT)
    journal.append(bits((0, 3)), leaves)
    real = os.pwrite

    def tear(descriptor: int, data: Any, offset: int) -> int:
        if len(data) > 5:
            return real(descriptor, data[:5], offset)
        raise OSError(errno.ENOSPC, "No space left on device")

    with mock.patch.object(os, "pwrite", tear), pytest.raises(OSError, match="No space"):
        journal.append(bits((0, 5)), leaves)
    assert set(reopened(path)) == {0, 1, 2}
    assert journal.append(bits((0, 4)), leaves) == 1
    journal.close()
    assert set(reopened(path)) == {0, 1, 2, 3}


def test_after_a_failed_sync_nothing_more_is_said(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = create_journal(path, SUBJECT)
    failure = OSError(errno.EIO, "Input/output error")
    with mock.patch.object(os, "fdatasync", side_effect=failure), pytest.raises(OSError):
        journal.append(bits((0, 3)), leaves)
    with pytest.raises(OSError, match="failed before"):
        journal.append(bits((0, 3)), leaves)
    journal.close()


def test_too_few_leaves_are_a_mistake_and_change_nothing(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = create_journal(path, SUBJECT)
    with pytest.raises(ValueError, match="1 leaves for 2"):
        journal.append(bits((0, 2)), lambda first, count: array("I", [1]))
    assert journal.append(bits((0, 2)), leaves) == 2
    journal.close()
    assert set(reopened(path)) == {0, 1}


def test_a_symbolic_link_is_not_followed(tmp_path: Path, recorded: Any) -> None:
    (tmp_path / "real").write_bytes(recorded[0])
    (tmp_path / "journal").symlink_to("real")
    with pytest.raises(OSError):
        open_journal(tmp_path / "journal", SUBJECT)


def test_no_journal_is_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_journal(tmp_path / "journal", SUBJECT)
