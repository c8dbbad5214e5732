"""Reading an audit log back and finding everything that was done to it since."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from novacron.security.audit_anchors import AuditAnchor, Comparison
from novacron.security.audit_export import is_csv, line_of_row
from novacron.security.audit_files import audit_files, first_seq
from novacron.security.audit_head import AuditHead
from novacron.security.audit_record import GENESIS, LONGEST_LINE, parse
from novacron.security.audit_retention import boundaries
from novacron.security.errors import storage_failure
from novacron.security.filelock import held

_ATTEMPTS = 3
_MOST_PROBLEMS = 100
"""Past so many the log is broken, and more lines help nobody."""


class Problem:
    """One thing that is wrong."""

    __slots__ = ("file", "line", "seq", "text")

    def __init__(self, file: str, line: int, seq: int | None, text: str) -> None:
        self.file = file
        self.line = line
        """From 1; 0 for the file as a whole."""
        self.seq = seq
        self.text = text

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.text}"

    def document(self) -> dict[str, Any]:
        return {"file": self.file, "line": self.line, "seq": self.seq, "problem": self.text}


class Verification:
    """What a verification has found."""

    def __init__(self) -> None:
        self.files = 0
        self.records = 0
        self.first_seq: int | None = None
        self.last_seq: int | None = None
        self.last_hash = ""
        self.pruned_through = 0
        """Number of the last record that was removed because it was old; 0: none was."""
        self.anchors: dict[str, Any] | None = None
        """What :meth:`Comparison.judge` says; None: it was held against none."""
        self.problems: list[Problem] = []

    @property
    def ok(self) -> bool:
        return not self.problems

    def add(self, file: str, line: int, seq: int | None, text: str) -> None:
        if len(self.problems) < _MOST_PROBLEMS:
            self.problems.append(Problem(file, line, seq, text))

    def document(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "files": self.files,
            "records": self.records,
            "first_seq": self.first_seq,
            "last_seq": self.last_seq,
            "last_hash": self.last_hash,
            "pruned_through": self.pruned_through,
            "anchors": self.anchors,
            "problems": [problem.document() for problem in self.problems],
        }


def verify(
    directory: Path,
    head: AuditHead | None,
    *,
    after: int = 0,
    filtered: bool = False,
    anchors: Sequence[AuditAnchor] | None = None,
) -> Verification:
    """Check every record in *directory* (or one exported file), its end against *head*, and all of it
    against *anchors*. Blocks, for a second per 50,000 records; appends go on meanwhile.

    Args:
      head: None for an exported log, which has none: then a missing end is not found.
      after: Start after the record with this number, the last one of an older log whose damage is
        known.
      filtered: Records were left out of the export; those that follow each other are checked.
      anchors: Of this log's node, and had before this is called; None: hold it against none. That
        there are none, or none that falls into the log, is a finding: nothing is proven then.

    Raises:
      StorageFailedError: a file cannot be read.
    """
    for _ in range(_ATTEMPTS - 1):
        try:
            return _verify(directory, head, after, filtered, anchors)
        except FileNotFoundError:
            # The oldest file went meanwhile, because it was old.
            continue
        except OSError as exc:
            raise storage_failure("read", directory, exc) from exc
    try:
        return _verify(directory, head, after, filtered, anchors)
    except OSError as exc:
        raise storage_failure("read", directory, exc) from exc


def _verify(
    directory: Path,
    head: AuditHead | None,
    after: int,
    filtered: bool,
    anchors: Sequence[AuditAnchor] | None,
) -> Verification:
    result = Verification()
    compared = None if anchors is None else Comparison(anchors, after)
    lock = directory / "lock"
    if head is not None and lock.exists():
        # Where everything ends now: what is appended meanwhile is not looked at.
        with held(lock):
            anchor, problem = _anchor(head)
            ends = [(path, path.stat().st_size) for path in _files(directory)]
    else:
        anchor, problem = _anchor(head)
        ends = [(path, path.stat().st_size) for path in _files(directory)]
    if problem:
        result.add("head", 0, None, problem)
    expected_seq, expected_prev = (1, GENESIS) if after == 0 else (after + 1, None)
    beginning: dict[str, Any] | None = None
    noted: set[tuple[int, str]] = set()
    for path, end in ends:
        result.files += 1
        number = 0
        for number, line, terminated in _lines(path, end):
            # A damaged line does not say its number; its place in the file does.
            known = first_seq(path) + number - 1 <= after
            if not terminated and not known:
                result.add(
                    path.name,
                    number,
                    None,
                    "the line is not complete (a crash while it was written; the node's next "
                    "start repairs it)",
                )
                continue
            try:
                record = parse(line)
            except ValueError as exc:
                if known:
                    continue
                result.add(path.name, number, expected_seq, str(exc))
                expected_prev = None
                expected_seq += 1
                continue
            seq = record["seq"]
            if seq <= after:
                continue
            if filtered and seq > expected_seq:
                expected_seq, expected_prev = seq, None
            elif result.records == 0 and after == 0 and seq > 1 and expected_seq == 1:
                # Judged at the end: a later record may say that what was before is gone.
                beginning = record
                expected_seq, expected_prev = seq, None
            _check_link(result, path.name, number, record, expected_seq, expected_prev)
            if number == 1 and path != directory and first_seq(path) != seq:
                result.add(path.name, 1, seq, f"the file is named after another record than {seq}")
            if anchor is not None and seq == anchor[0] and record["hash"] != anchor[1]:
                result.add(path.name, number, seq, "it is not the record the head was written for")
            if compared is not None:
                compared.see(seq, record["hash"])
            noted.update(boundaries(record))
            result.records += 1
            result.first_seq = seq if result.first_seq is None else result.first_seq
            result.last_seq, result.last_hash = seq, record["hash"]
            expected_seq, expected_prev = seq + 1, record["hash"]
    if beginning is not None:
        _judge_beginning(result, ends[0][0], beginning, noted)
    last = result.last_seq if result.last_seq is not None else after
    if anchor is not None and last < anchor[0]:
        result.add(
            "head", 0, anchor[0], f"the records {last + 1} to {anchor[0]} are missing at the end"
        )
    if compared is not None:
        result.anchors, misfits = compared.judge(result.first_seq, last, filtered=filtered)
        for anchored, text in misfits:
            place = f"anchor of record {anchored.seq}" if anchored.seq else "anchors"
            result.add(place, 0, anchored.seq or None, text)
    return result


def _judge_beginning(
    result: Verification, path: Path, first: dict[str, Any], noted: set[tuple[int, str]]
) -> None:
    before = first["seq"] - 1
    if (before, first["prev"]) in noted:
        result.pruned_through = before
        return
    missing = "1" if before == 1 else f"1 to {before}"
    result.add(path.name, 1, first["seq"], f"missing before it: {missing}")


def _files(directory: Path) -> list[Path]:
    return [directory] if directory.is_file() else audit_files(directory)


def _check_link(
    result: Verification,
    file: str,
    number: int,
    record: dict[str, Any],
    expected_seq: int,
    expected_prev: str | None,
) -> None:
    seq = record["seq"]
    if seq > expected_seq:
        missing = f"{expected_seq}" if seq == expected_seq + 1 else f"{expected_seq} to {seq - 1}"
        result.add(file, number, seq, f"missing before it: {missing}")
    elif seq < expected_seq:
        result.add(file, number, seq, f"record {seq} is out of order, {expected_seq} was expected")
    elif expected_prev is not None and record["prev"] != expected_prev:
        result.add(file, number, seq, "it does not follow from the record before it")


def _anchor(head: AuditHead | None) -> tuple[tuple[int, str] | None, str]:
    if head is None:
        return None, ""
    try:
        found = head.read()
    except ValueError as exc:
        return None, str(exc)
    if found is None:
        return None, f"{head.path} is missing: whether records are missing at the end is unknown"
    return (found.seq, found.hash), ""


def _lines(path: Path, end: int) -> Iterator[tuple[int, bytes, bool]]:
    """Number, content and whether it was terminated, of each line in the first *end* bytes."""
    number = 0
    with path.open("rb") as file:
        if is_csv(file.readline(LONGEST_LINE)):
            yield from _rows(file)
            return
        file.seek(0)
        left = end
        while left > 0:
            # Bounded: a damaged file may be one line of gigabytes.
            line = file.readline(min(left, LONGEST_LINE))
            if not line:
                return
            left -= len(line)
            number += 1
            if line.endswith(b"\n"):
                yield number, line[:-1], True
            else:
                yield number, line, left > 0


def _rows(file: IO[bytes]) -> Iterator[tuple[int, bytes, bool]]:
    """Likewise of an export as CSV, whose first row was read."""
    text = io.TextIOWrapper(file, "utf-8", "replace", newline="")
    csv.field_size_limit(LONGEST_LINE)
    try:
        for number, row in enumerate(csv.reader(text), 2):
            yield number, line_of_row(row), True
    except csv.Error:
        yield 0, b"", True
    finally:
        text.detach()
