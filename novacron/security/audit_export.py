"""The audit log for other systems: which records, and in which format. Pure.

JSON lines are the log's own lines. CSV holds every field, the hash and the details included, so that
:func:`line_of_row` gives the line back and a verification works on it as well. CEF (ArcSight Common
Event Format, version 0) is for collectors that speak it, and loses what it has no field for.
"""

from __future__ import annotations

import csv
import io
import ipaddress
import json
from typing import Any

from novacron.record import Record
from novacron.security import documents

COLUMNS = (
    "seq",
    "time",
    "action",
    "actor",
    "target",
    "outcome",
    "source",
    "details",
    "prev",
    "hash",
)
FORMATS = ("jsonl", "csv", "cef")

_SEVERITIES = {"denied": 6, "failure": 5}
_NOTABLE = ("audit.restarted", "audit.head_rebuilt", "audit.repaired", "audit.lost")
"""What should wake somebody: the log was touched, or has a hole."""


class Selection(Record):
    """Which records: those that fit all of it. Empty texts and None fit everything."""

    after: int = 0
    since: float | None = None
    """Seconds since the epoch; records of that instant are in."""
    until: float | None = None
    """Likewise; records of that instant are out."""
    actor: str = ""
    action: str = ""
    """What it begins with, as of :attr:`actor`."""
    outcome: str = ""

    @property
    def is_everything(self) -> bool:
        """Whether nothing is left out but what is before a record."""
        return self._replace(after=0) == Selection()

    def takes(self, record: dict[str, Any]) -> bool:
        """Whether *record* is among them; a time that cannot be read fits no bound."""
        if record.get("seq", 0) <= self.after:
            return False
        if not str(record.get("action")).startswith(self.action):
            return False
        if not str(record.get("actor")).startswith(self.actor):
            return False
        if self.outcome and record.get("outcome") != self.outcome:
            return False
        if self.since is None and self.until is None:
            return True
        try:
            moment = documents.from_text(record.get("time"))
        except ValueError:
            return False
        return (self.since is None or moment >= self.since) and (
            self.until is None or moment < self.until
        )


def header(format: str) -> str:
    """What stands before the first record."""
    return _row(COLUMNS) if format == "csv" else ""


def render(record: dict[str, Any], line: bytes, format: str, version: str) -> str:
    """One record, with its line's end. *line*: as it stands in the log; *version*: of the product."""
    if format == "csv":
        values = {**record, "details": documents.canonical(record["details"]).decode()}
        return _row([str(values[column]) for column in COLUMNS])
    if format == "cef":
        return _cef(record, version) + "\n"
    return line.decode("ascii", "replace") + "\n"


def is_csv(first_line: bytes) -> bool:
    """Whether an exported file that begins so is CSV."""
    return first_line.strip() == _row(COLUMNS).strip().encode()


def line_of_row(row: list[str]) -> bytes:
    """The log's line for a row of CSV; a row that is none gives one that is none either."""
    try:
        record: dict[str, Any] = dict(zip(COLUMNS, row, strict=True))
        record["seq"] = int(record["seq"])
        record["details"] = json.loads(record["details"])
        # In one spelling alone, as the log's lines: of a field that is there twice people might read
        # the first, and the hash be that of the second.
        if [str(record["seq"]), documents.canonical(record["details"]).decode()] != [
            row[COLUMNS.index("seq")],
            row[COLUMNS.index("details")],
        ]:
            return b""
        return documents.canonical(record)
    except (ValueError, RecursionError):
        return b""


def _row(values: tuple[str, ...] | list[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\r\n").writerow(values)  # RFC 4180
    return buffer.getvalue()


def _cef(record: dict[str, Any], version: str) -> str:
    action, outcome = str(record["action"]), str(record["outcome"])
    severity = 8 if action in _NOTABLE else _SEVERITIES.get(outcome, 3)
    head = ("NovaCron", "NovaCron", version, action, action)
    fields = {
        "rt": _milliseconds(record["time"]),
        "externalId": str(record["seq"]),
        "suser": str(record["actor"]),
        "outcome": outcome,
        **_address(str(record["source"])),
        "cs1Label": "target",
        "cs1": str(record["target"]),
        "cs2Label": "hash",
        "cs2": str(record["hash"]),
        "msg": documents.canonical(record["details"]).decode(),
    }
    named = " ".join(f"{name}={_escape(value, '=')}" for name, value in fields.items() if value)
    return "CEF:0|" + "|".join(_escape(part, "|") for part in head) + f"|{severity}|{named}"


def _milliseconds(time: Any) -> str:
    try:
        return str(round(documents.from_text(time) * 1000))
    except ValueError:
        # Damaged. The record goes out all the same, and a verification of the log finds it.
        return ""


def _address(source: str) -> dict[str, str]:
    """The fields for where it came from; a peer's address has a port."""
    host, _, port = source.rpartition(":")
    for address, rest in ((source, ""), (host.strip("[]"), port)):
        try:
            version = ipaddress.ip_address(address).version
        except ValueError:
            continue
        # CEF keeps IPv6 apart, in a custom field.
        named = {"src": address} if version == 4 else {"c6a2Label": "source", "c6a2": address}
        return named | ({"spt": rest} if rest.isdecimal() else {})
    return {"shost": source}


def _escape(text: str, reserved: str) -> str:
    for character in ("\\", reserved):
        text = text.replace(character, "\\" + character)
    return text.replace("\r", "\\r").replace("\n", "\\n")
