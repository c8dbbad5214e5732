"""Whatever is done to an audit log, a verification finds it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.data_directory import DataDirectory
from novacron.security.audit import AuditLog
from novacron.security.audit_head import AuditHead
from novacron.security.audit_record import Entry, parse, seal
from novacron.security.audit_verification import Verification, verify
from tests.security.stand_ins import prepared

RECORDS = 12


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> DataDirectory:
    directory = prepared(tmp_path_factory.mktemp("written"))
    log = AuditLog(directory, max_bytes=1200)
    log.open_blocking()
    for number in range(RECORDS):
        log.append_blocking("test.action", "tester", f"thing {number}")
    log.close_blocking()
    return directory


def check(directory: DataDirectory) -> Verification:
    return verify(directory.audit, AuditHead(directory.secrets / "audit.head"))


def files(directory: DataDirectory) -> list[Path]:
    return sorted(directory.audit.glob("*.jsonl"))


def test_an_untouched_log_verifies(written: DataDirectory) -> None:
    found = check(written)
    assert found.ok
    assert (found.records, found.first_seq, found.last_seq) == (RECORDS, 1, RECORDS)
    assert found.files == len(files(written)) > 2
    assert found.document()["ok"] is True


@given(data=st.data())
def test_any_flipped_bit_is_found(written: DataDirectory, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(files(written)))
    good = path.read_bytes()
    bad = bytearray(good)
    bit = data.draw(st.integers(0, len(bad) * 8 - 1))
    bad[bit // 8] ^= 1 << (bit % 8)
    path.write_bytes(bad)
    try:
        assert not check(written).ok
    finally:
        path.write_bytes(good)


@given(data=st.data())
def test_any_cut_off_end_is_found(written: DataDirectory, data: st.DataObject) -> None:
    path = files(written)[-1]
    good = path.read_bytes()
    path.write_bytes(good[: data.draw(st.integers(0, len(good) - 1))])
    try:
        assert not check(written).ok
    finally:
        path.write_bytes(good)


def remove_line(lines: list[bytes]) -> list[bytes]:
    return lines[:1] + lines[2:]


def swap_lines(lines: list[bytes]) -> list[bytes]:
    return [lines[1], lines[0], *lines[2:]]


def repeat_line(lines: list[bytes]) -> list[bytes]:
    return [lines[0], lines[0], *lines[1:]]


def respell(lines: list[bytes]) -> list[bytes]:
    return [lines[0].replace(b'":"', b'": "', 1), *lines[1:]]


def rewrite(lines: list[bytes]) -> list[bytes]:
    """A record made anew, with a hash that fits it: only the chain can tell."""
    record = parse(lines[0].rstrip(b"\n"))
    entry = Entry(record["time"], "forged", "a", "b", "c", "d", {})
    return [seal(entry, record["seq"], record["prev"])[0], *lines[1:]]


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        (remove_line, "missing before it: "),
        (swap_lines, "out of order"),
        (repeat_line, "out of order"),
        (respell, "it was rewritten"),
        (rewrite, "does not follow from the record before it"),
    ],
)
def test_each_kind_of_change_has_its_own_words(
    written: DataDirectory,
    tmp_path: Path,
    harm: Callable[[list[bytes]], list[bytes]],
    problem: str,
) -> None:
    shutil.copytree(written.root, tmp_path / "copy")
    copy = DataDirectory(tmp_path / "copy")
    path = files(copy)[1]
    path.write_bytes(b"".join(harm(path.read_bytes().splitlines(keepends=True))))
    found = check(copy)
    assert any(problem in str(each) for each in found.problems), found.document()
    assert all(each.file.startswith("audit-") for each in found.problems)


@pytest.mark.parametrize("index", [0, 1, -1])
def test_a_missing_file_is_found(written: DataDirectory, tmp_path: Path, index: int) -> None:
    shutil.copytree(written.root, tmp_path / "copy")
    copy = DataDirectory(tmp_path / "copy")
    files(copy)[index].unlink()
    text = " ".join(map(str, check(copy).problems))
    assert "missing" in text


def test_a_last_record_made_anew_is_found_by_the_head(
    written: DataDirectory, tmp_path: Path
) -> None:
    shutil.copytree(written.root, tmp_path / "copy")
    copy = DataDirectory(tmp_path / "copy")
    path = files(copy)[-1]
    lines = path.read_bytes().splitlines(keepends=True)
    last = parse(lines[-1].rstrip(b"\n"))
    entry = Entry(last["time"], "forged", "a", "b", "c", "d", {})
    lines[-1] = seal(entry, last["seq"], last["prev"])[0]
    path.write_bytes(b"".join(lines))
    assert [problem.text for problem in check(copy).problems] == [
        "it is not the record the head was written for"
    ]
    assert verify(copy.audit, None).ok


def test_an_export_in_one_file_verifies(written: DataDirectory, tmp_path: Path) -> None:
    export = tmp_path / "export.jsonl"
    export.write_bytes(b"".join(path.read_bytes() for path in files(written)))
    found = verify(export, None)
    assert found.ok, found.document()
    assert found.records == RECORDS


def test_verifying_after_a_known_record_ignores_what_was_before(
    written: DataDirectory, tmp_path: Path
) -> None:
    shutil.copytree(written.root, tmp_path / "copy")
    copy = DataDirectory(tmp_path / "copy")
    head = AuditHead(copy.secrets / "audit.head")
    files(copy)[0].unlink()
    assert not verify(copy.audit, head).ok
    first = parse(files(copy)[0].read_bytes().splitlines()[0])["seq"]
    assert verify(copy.audit, head, after=first - 1).ok


@given(st.binary(max_size=300))
def test_a_line_of_any_bytes_is_a_record_or_a_clear_error(line: bytes) -> None:
    with pytest.raises(ValueError, match="it "):
        parse(line)


@given(
    actor=st.text(max_size=2000),
    details=st.dictionaries(
        st.text(max_size=20),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=20),
            lambda inner: st.lists(inner, max_size=3),
            max_leaves=4,
        ),
        max_size=3,
    ),
)
def test_whatever_is_recorded_can_be_read_back(actor: str, details: dict[str, object]) -> None:
    entry = Entry("2027-01-01T00:00:00.000000Z", "a", actor, "t", "o", "s", details)
    line, hash = seal(entry, 7, "0" * 64)
    assert line.count(b"\n") == 1
    record = parse(line.rstrip(b"\n"))
    assert record["hash"] == hash
    assert record["actor"] == actor[:1024]
    assert record["details"] == details
