"""One line of the audit log, and the rule that chains it to the one before. Pure.

A line is canonical JSON (sorted keys, no spaces, ASCII), so that there is one way to write a
record: ``hash`` is SHA-256 over the record without its ``hash``, ``prev`` is the hash of the
record before. Any other spelling of the same record is a change.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from novacron.errors import LocalProtocolError, SecurityError
from novacron.security.documents import canonical

GENESIS = "0" * 64
"""``prev`` of the first record."""
LONGEST_LINE = 128 * 1024
"""Bytes. So much is read from the end of a file to find its last record."""
_LONGEST_FIELD = 1024
_LONGEST_DETAILS = LONGEST_LINE - 1024 - 5 * 12 * _LONGEST_FIELD
"""Bytes. What is left when each character of the five text fields takes the twelve bytes that an
escaped surrogate pair takes; a lone one takes seven."""

_FIELDS = frozenset(
    (
        "action",
        "actor",
        "details",
        "hash",
        "outcome",
        "prev",
        "seq",
        "source",
        "target",
        "time",
    )
)


class AuditRecordError(SecurityError, LocalProtocolError):
    """A caller wants to record what JSON cannot hold."""

    code = "security.audit_record"


class Entry:
    """What a caller wants recorded."""

    __slots__ = ("fields",)

    def __init__(
        self,
        time: str,
        action: str,
        actor: str,
        target: str,
        outcome: str,
        source: str,
        details: Mapping[str, Any],
    ) -> None:
        try:
            encoded = canonical(dict(details))
        except (TypeError, ValueError, RecursionError) as exc:
            raise AuditRecordError(
                f"cannot record the action {action}", why="its details are not JSON"
            ) from exc
        if len(encoded) > _LONGEST_DETAILS:
            kept: Any = {"left_out_bytes": len(encoded)}
        else:
            # Decoded again: a later change to the caller's objects must not change the record.
            kept = json.loads(encoded)
        self.fields: dict[str, Any] = {
            "time": time,
            "action": _text(action),
            "actor": _text(actor),
            "target": _text(target),
            "outcome": _text(outcome),
            "source": _text(source),
            "details": kept,
        }


def _text(value: str) -> str:
    # A lone surrogate, as Python makes of a file name that is not UTF-8, has no place in an export.
    return value[:_LONGEST_FIELD].encode("utf-8", "backslashreplace").decode()


def seal(entry: Entry, seq: int, prev: str) -> tuple[bytes, str]:
    """The line for *entry* at *seq* after the record whose hash is *prev*; and its own hash."""
    record = {**entry.fields, "seq": seq, "prev": prev}
    hash = hashlib.sha256(canonical(record)).hexdigest()
    return canonical({**record, "hash": hash}) + b"\n", hash


def parse(line: bytes) -> dict[str, Any]:
    """The record in *line* (without its line feed), whose own hash holds.

    Raises:
      ValueError: it is not exactly what :func:`seal` writes.
    """
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON") from None
    if not isinstance(record, dict) or record.keys() != _FIELDS:
        raise ValueError("it has not the fields of a record")
    if type(record["seq"]) is not int or not isinstance(record["hash"], str):
        raise ValueError("a field has the wrong type")
    try:
        same = canonical(record) == line
    except (ValueError, RecursionError):
        same = False
    if not same:
        raise ValueError("it was rewritten: same record, other spelling")
    bare = {name: value for name, value in record.items() if name != "hash"}
    if hashlib.sha256(canonical(bare)).hexdigest() != record["hash"]:
        raise ValueError("it was changed: its hash does not match")
    return record
