"""Which files of the audit log are old enough to go, and what is noted so that the rest stays verifiable.

A record ``audit.pruned`` names each file that goes, with the number and hash of its last record, before
it goes. What is left then begins with a record whose ``prev`` is one of those hashes: a log whose
beginning somebody else removed has none. The last file never goes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from novacron.record import Record
from novacron.security import documents
from novacron.security.audit_files import audit_files, first_seq
from novacron.security.audit_record import LONGEST_LINE, parse
from novacron.security.audit_recovery import tail

ACTION = "audit.pruned"
RESTARTED = "audit.restarted"

MOST_AT_ONCE = 100
"""Files one record names; a file takes about 200 bytes of it. The rest goes at the next look."""


class Old(Record):
    """A file that goes."""

    path: Path
    last_seq: int
    last_hash: str

    def document(self) -> dict[str, Any]:
        return {
            "file": self.path.name,
            "first_seq": first_seq(self.path),
            "last_seq": self.last_seq,
            "last_hash": self.last_hash,
        }


def find_old(
    directory: Path, keep_files: int, keep_seconds: float, now: float
) -> tuple[list[Old], str]:
    """The files that go, oldest first; and why a file that is due stays (empty: none does).

    Args:
      keep_files: So many stay at most, the one that is written to included; 0: any number.
      keep_seconds: So long after its last record a file stays at most; 0: for ever.

    Raises:
      OSError: the disk refuses.
    """
    files = audit_files(directory)
    old: list[Old] = []
    for index, path in enumerate(files[:-1][:MOST_AT_ONCE]):
        surplus = keep_files > 0 and len(files) - index > keep_files
        if not surplus and keep_seconds <= 0:
            break
        try:
            lines = tail(path).split(b"\n")[:-1]
            last = parse(lines[-1]) if lines else None
        except ValueError as exc:
            return old, f"the last line of {path.name} is damaged ({exc})"
        if last is None:
            return old, f"{path.name} has no complete line near its end"
        if not surplus and now - documents.from_text(last["time"]) <= keep_seconds:
            break
        try:
            following = _first(files[index + 1])
        except ValueError as exc:
            return old, f"the first line of {files[index + 1].name} is damaged ({exc})"
        # A log that was restarted does not follow from what was there before, and says so itself.
        if following["prev"] != last["hash"] and following["action"] != RESTARTED:
            return old, f"{files[index + 1].name} does not follow from {path.name}"
        old.append(Old(path, last["seq"], last["hash"]))
    return old, ""


def boundaries(record: dict[str, Any]) -> list[tuple[int, str]]:
    """Number and hash of the last record of each file that *record* says goes; none where it is
    about something else."""
    if record["action"] != ACTION:
        return []
    files = record["details"].get("files")
    return [
        (file["last_seq"], file["last_hash"])
        for file in (files if isinstance(files, list) else [])
        if isinstance(file, dict)
        and isinstance(file.get("last_seq"), int)
        and isinstance(file.get("last_hash"), str)
    ]


def _first(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        line = file.readline(LONGEST_LINE)
    return parse(line.removesuffix(b"\n"))
