"""The audit log in other formats, and what a verification of an export finds."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.security.audit_export import (
    COLUMNS,
    Selection,
    header,
    is_csv,
    line_of_row,
    render,
)
from novacron.security.audit_record import GENESIS, Entry, parse, seal
from novacron.security.audit_verification import verify

TEXT = st.text(max_size=30)


def line(
    seq: int = 1,
    prev: str = GENESIS,
    *,
    time: str = "2026-01-31T12:00:00.000000Z",
    action: str = "token.create",
    actor: str = "token:abc",
    target: str = "t",
    outcome: str = "success",
    source: str = "192.0.2.7",
    details: dict[str, Any] | None = None,
) -> tuple[bytes, str]:
    entry = Entry(time, action, actor, target, outcome, source, details or {})
    sealed, hash = seal(entry, seq, prev)
    return sealed.rstrip(b"\n"), hash


def chain(count: int) -> list[bytes]:
    lines, prev = [], GENESIS
    for seq in range(1, count + 1):
        made, prev = line(seq, prev, target=f"thing {seq}", details={"n": seq})
        lines.append(made)
    return lines


def exported(lines: list[bytes], format: str) -> str:
    return header(format) + "".join(render(json.loads(line), line, format, "1") for line in lines)


@given(
    target=TEXT,
    actor=TEXT,
    details=st.dictionaries(TEXT, st.integers() | TEXT | st.none() | st.lists(TEXT, max_size=2)),
)
def test_a_row_of_csv_gives_the_line_back(target: str, actor: str, details: dict[str, Any]) -> None:
    made, _ = line(target=target, actor=actor, details=details)
    text = render(json.loads(made), made, "csv", "1")
    (row,) = csv.reader(io.StringIO(text, newline=""))
    assert line_of_row(row) == made
    assert parse(line_of_row(row))["target"] == json.loads(made)["target"]


@pytest.mark.parametrize(
    ("column", "other"),
    [
        ("details", '{"who":"somebody else","who":"me"}'),
        ("details", '{ "who": "me" }'),
        ("seq", "+1"),
        ("seq", " 1"),
    ],
)
def test_a_row_that_reads_otherwise_than_it_hashes_gives_no_line(column: str, other: str) -> None:
    made, _ = line(details={"who": "me"})
    (row,) = csv.reader(io.StringIO(render(json.loads(made), made, "csv", "1"), newline=""))
    assert line_of_row(row) == made
    row[COLUMNS.index(column)] = other
    assert line_of_row(row) == b""


def test_what_is_no_unicode_is_recorded_so_that_it_can_be_exported() -> None:
    made, _ = line(target="caf\udce9")
    assert parse(made)["target"] == "caf\\udce9"
    assert render(parse(made), made, "csv", "1").encode()


@pytest.mark.parametrize("row", [[], ["x"] * 10, ["1"] * 9, ["1"] * 7 + ["{"] + ["1"] * 2])
def test_a_row_that_is_none_gives_no_line(row: list[str]) -> None:
    assert line_of_row(row) == b""


@pytest.mark.parametrize("format", ["jsonl", "csv"])
def test_an_export_verifies_and_a_change_to_it_is_found(tmp_path: Path, format: str) -> None:
    path = tmp_path / "export"
    lines = chain(6)
    path.write_text(exported(lines, format), newline="")
    found = verify(path, None)
    assert (found.ok, found.records) == (True, 6)
    path.write_text(exported(lines, format).replace("thing 3", "thing 7"), newline="")
    assert [problem.seq for problem in verify(path, None).problems] == [3]
    path.write_text(exported(lines[:2] + lines[3:], format), newline="")
    assert "missing before it: 3" in str(verify(path, None).problems[0])


@pytest.mark.parametrize("format", ["jsonl", "csv"])
def test_what_a_filter_left_out_is_no_damage_and_what_is_there_is_checked(
    tmp_path: Path, format: str
) -> None:
    path = tmp_path / "export"
    lines = chain(8)
    some = [lines[index] for index in (1, 2, 5, 7)]
    path.write_text(exported(some, format), newline="")
    assert not verify(path, None).ok
    assert verify(path, None, filtered=True).ok
    other, _ = line(3, GENESIS)
    path.write_text(exported([lines[1], other, lines[5]], format), newline="")
    assert any("does not follow" in str(p) for p in verify(path, None, filtered=True).problems)
    path.write_text(exported([lines[5], lines[1]], format), newline="")
    assert any("out of order" in str(p) for p in verify(path, None, filtered=True).problems)


def test_an_export_that_begins_later_verifies_where_the_log_notes_why(tmp_path: Path) -> None:
    lines = chain(4)
    last = parse(lines[1])
    files = [{"last_seq": 2, "last_hash": last["hash"]}]
    note, _ = line(5, parse(lines[3])["hash"], action="audit.pruned", details={"files": files})
    path = tmp_path / "export"
    path.write_text(exported([*lines[2:], note], "csv"), newline="")
    found = verify(path, None)
    assert found.ok
    assert found.pruned_through == 2


def test_csv_is_known_by_its_first_line() -> None:
    assert is_csv(header("csv").encode())
    assert not is_csv(chain(1)[0])
    assert header("csv").strip().split(",") == list(COLUMNS)


def test_cef_has_the_fields_a_collector_looks_for() -> None:
    made, hash = line(7, outcome="denied", source="192.0.2.7:4711", details={"why": "a=b"})
    text = render(json.loads(made), made, "cef", "1.0|x")
    assert text.startswith(r"CEF:0|NovaCron|NovaCron|1.0\|x|token.create|token.create|6|")
    assert "rt=1769860800000 externalId=7 suser=token:abc outcome=denied src=192.0.2.7" in text
    assert "spt=4711" in text
    assert f"cs2={hash}" in text
    assert r'msg={"why":"a\=b"}' in text


@pytest.mark.parametrize(
    ("source", "field"),
    [
        ("2001:db8::1", "c6a2=2001:db8::1 "),
        ("[2001:db8::1]:7401", "c6a2=2001:db8::1 spt=7401"),
        ("", "outcome=success cs1Label"),
        ("somewhere", "shost=somewhere"),
    ],
)
def test_cef_tells_addresses_apart(source: str, field: str) -> None:
    made, _ = line(source=source)
    assert field in render(json.loads(made), made, "cef", "1")


@given(target=TEXT, actor=TEXT)
def test_one_record_is_one_line_of_cef_whatever_is_in_it(target: str, actor: str) -> None:
    made, _ = line(target=target, actor=actor)
    text = render(json.loads(made), made, "cef", "1")
    assert text.count("\n") == 1
    assert "\r" not in text


def test_a_log_that_was_touched_wakes_somebody() -> None:
    made, _ = line(action="audit.restarted")
    assert "|8|" in render(json.loads(made), made, "cef", "1")


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(), True),
        (Selection(after=1), False),
        (Selection(action="token."), True),
        (Selection(action="transfer"), False),
        (Selection(actor="token:"), True),
        (Selection(actor="node:"), False),
        (Selection(outcome="success"), True),
        (Selection(outcome="denied"), False),
        (Selection(since=1769860800.0), True),
        (Selection(since=1769860800.1), False),
        (Selection(until=1769860800.0), False),
        (Selection(until=1769860800.1), True),
    ],
)
def test_a_selection_takes_what_fits_all_of_it(selection: Selection, expected: bool) -> None:
    made, _ = line()
    assert selection.takes(json.loads(made)) is expected


def test_a_time_that_cannot_be_read_fits_no_bound() -> None:
    record = json.loads(line()[0]) | {"time": "yesterday"}
    assert Selection().takes(record)
    assert not Selection(since=0.0).takes(record)
