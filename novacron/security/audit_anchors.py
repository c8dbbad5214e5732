"""Where an audit log stood when, as noted outside of the node, and what a log says to that. Pure, but for
:func:`stored_hash`.

A record's hash covers every record before it. So one anchor that fits vouches for the whole log up to
its record, and one that does not fit says that this record or one before it is not what it was.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from novacron.errors import InvalidError, SecurityError
from novacron.record import Record
from novacron.security import documents
from novacron.security.audit_files import audit_files, first_seq
from novacron.security.audit_record import parse
from novacron.security.audit_recovery import tail

MOST_LISTED: Final = 5
"""Anchors that do not fit and are told of one by one; after a rewritten chain none does, and the first
says it all."""

_MEANING: Final = (
    "this record, or one before it, was made anew since; or somebody else wrote the anchor"
)


class AnchorsInvalidError(SecurityError, InvalidError):
    """What should be a list of anchors is none."""

    code = "security.audit_anchors"


class AuditAnchor(Record):
    """The log of *node_id* ended with the record *seq*, whose hash was *hash*."""

    node_id: str
    seq: int
    hash: str
    recorded: float
    """Seconds since the epoch, by the clock of the node."""

    @property
    def when(self) -> str:
        return documents.to_text(self.recorded)

    def document(self) -> dict[str, Any]:
        return {"node_id": self.node_id, "seq": self.seq, "hash": self.hash, "recorded": self.when}


def read_anchors(document: Any, where: str) -> list[AuditAnchor]:
    """The anchors in *document*, as ``novacron audit anchors --json`` prints it.

    Args:
      where: For the error.

    Raises:
      AnchorsInvalidError: it is something else.
    """
    entries = document.get("anchors") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise _no_anchors(where, 'it is not {"anchors": [...]}')
    found = []
    for number, entry in enumerate(entries):
        try:
            anchor = AuditAnchor(
                entry["node_id"],
                entry["seq"],
                entry["hash"],
                documents.from_text(entry["recorded"]),
            )
        except (TypeError, KeyError, ValueError):
            anchor = None
        if (
            anchor is None
            or not isinstance(anchor.node_id, str)
            or type(anchor.seq) is not int
            or not isinstance(anchor.hash, str)
        ):
            raise _no_anchors(where, f"number {number} has not node_id, seq, hash and recorded")
        found.append(anchor)
    return found


def read_anchors_file(path: Path) -> list[AuditAnchor]:
    """Those in the file *path*.

    Raises:
      AnchorsInvalidError: it cannot be read, or holds something else.
    """
    try:
        document = json.loads(path.read_bytes())
    except OSError as exc:
        raise _no_anchors(str(path), exc.strerror or type(exc).__name__) from exc
    except (ValueError, RecursionError):
        raise _no_anchors(str(path), "it is not JSON") from None
    return read_anchors(document, str(path))


def _no_anchors(where: str, why: str) -> AnchorsInvalidError:
    return AnchorsInvalidError(
        f"cannot read anchors from {where}",
        why=why,
        remedy="make the list with `novacron audit anchors --node ID --json` on a node that shares "
        "the database",
    )


class Misfit(Record):
    """An anchor that the log contradicts."""

    anchor: AuditAnchor
    text: str


class Comparison:
    """Anchors of one node, held against its log while somebody reads that from its beginning.

    Args:
      after: Anchors up to the record with this number are left out.
    """

    def __init__(self, anchors: Iterable[AuditAnchor], after: int = 0) -> None:
        self._given = sorted(
            {a for a in anchors if a.seq > after}, key=lambda a: (a.seq, a.recorded)
        )
        self._wanted = {anchor.seq for anchor in self._given}
        self._found: dict[int, str] = {}

    def see(self, seq: int, hash: str) -> None:
        """The log has a record *seq*, whose hash holds."""
        if seq in self._wanted:
            self._found[seq] = hash

    def judge(
        self, first: int | None, last: int, *, filtered: bool = False
    ) -> tuple[dict[str, Any], list[Misfit]]:
        """What is to be said, as a document and as what is wrong.

        Args:
          first: The number of the first record; None: there is none.
          last: That of the last.
          filtered: Records were left out: one that an anchor is of need not be there.
        """
        fitting = [a for a in self._given if self._found.get(a.seq) == a.hash]
        differing = [a for a in self._given if self._found.get(a.seq, a.hash) != a.hash]
        beyond = [a for a in self._given if a.seq > last] if not filtered else []
        older = [a for a in self._given if first is not None and a.seq < first]
        newest = fitting[-1] if fitting else None
        wrong = [Misfit(anchor, self._differs(anchor, fitting)) for anchor in differing]
        if len(wrong) > MOST_LISTED:
            more = len(wrong) - MOST_LISTED
            last_one = differing[-1]
            wrong[MOST_LISTED:] = [
                Misfit(
                    last_one, f"{more} more anchors up to this one, of {last_one.when}, do not fit"
                )
            ]
        if beyond:
            wrong.append(Misfit(beyond[-1], _beyond(beyond, last)))
        if not self._given:
            wrong.append(Misfit(_NONE, "there is no anchor to hold the log against"))
        elif not fitting and not wrong:
            wrong.append(Misfit(self._given[-1], _nothing_proven(self._given[-1], first)))
        document = {
            "given": len(self._given),
            "comparable": bool(fitting or differing or beyond),
            "fitting": len(fitting),
            "not_fitting": [anchor.document() for anchor in differing[:100]],
            "past_the_end": [anchor.document() for anchor in beyond[-100:]],
            "before_the_first_record": len(older),
            "newest_fitting": None if newest is None else newest.document(),
        }
        return document, wrong

    def _differs(self, anchor: AuditAnchor, fitting: list[AuditAnchor]) -> str:
        before = [a for a in fitting if a.seq < anchor.seq]
        proven = (
            f"up to record {before[-1].seq}, anchored at {before[-1].when}, nothing was changed"
            if before
            else "no anchor before it fits"
        )
        return (
            f"the log has the hash {self._found[anchor.seq]} there, and {anchor.hash} was anchored "
            f"at {anchor.when}: {_MEANING} ({proven})"
        )


_NONE = AuditAnchor("", 0, "", 0.0)


def _beyond(beyond: list[AuditAnchor], last: int) -> str:
    newest = beyond[-1]
    missing = f"{last + 1}" if newest.seq == last + 1 else f"{last + 1} to {newest.seq}"
    return (
        f"the log ends with record {last}, and {newest.seq} was anchored at {newest.when}: missing at "
        f"the end: {missing}. The end was cut off, or this is an older copy"
    )


def _nothing_proven(newest: AuditAnchor, first: int | None) -> str:
    begins = "has no record" if first is None else f"begins with record {first}"
    return (
        f"the log {begins}, and the newest anchor is older, of {newest.when}, or its record is not "
        "there: the anchors prove nothing of it"
    )


def stored_hash(directory: Path, seq: int) -> str | None:
    """The hash of the record *seq* in the log in *directory*; empty where it is not there, or damaged; None
    where the log begins after it: its file went because it was old, or somebody removed it.

    Blocks. One near the end of its file is read from there, in a millisecond; for others the file is read
    up to it, 64 MiB in 50 ms.

    Raises:
      OSError: the disk refuses.
    """
    files = audit_files(directory)
    holding = [path for path in files if first_seq(path) <= seq]
    if not holding:
        return None if files else ""
    lines = tail(holding[-1]).split(b"\n")[:-1]
    place = _seq(lines[-1]) - seq if lines else -1
    if 0 <= place < len(lines):
        return _hash(lines[-1 - place], seq)
    place = seq - first_seq(holding[-1])
    with holding[-1].open("rb") as file:
        for number, line in enumerate(file):
            if number == place:
                return _hash(line.removesuffix(b"\n"), seq)
    return ""


def _seq(line: bytes) -> int:
    try:
        return int(parse(line)["seq"])
    except ValueError:
        return -1


def _hash(line: bytes, seq: int) -> str:
    try:
        record = parse(line)
    except ValueError:
        return ""
    return str(record["hash"]) if record["seq"] == seq else ""
