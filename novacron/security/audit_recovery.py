"""Finding the end of the audit log after whatever happened to it.

Reads the end of the last file and the head, never the whole log: that is what a verification is
for. A torn last line is what a crash leaves, and is set aside. Anything else means that somebody
or something changed the log: it is left untouched, and a new file goes on after it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from novacron.data_directory import DataDirectory
from novacron.durable import fsync_directory, write_durably
from novacron.security.audit_files import audit_files, first_seq
from novacron.security.audit_head import Anchor, AuditHead
from novacron.security.audit_record import GENESIS, LONGEST_LINE, parse

Events = list[tuple[str, dict[str, Any]]]


class AuditPosition:
    """Where the next record goes."""

    __slots__ = ("fresh", "generation", "hash", "path", "seq", "size")

    def __init__(
        self,
        path: Path | None,
        size: int,
        seq: int,
        hash: str,
        generation: int,
        *,
        fresh: bool = False,
    ) -> None:
        self.path = path
        """The last file; None when there is none."""
        self.size = size
        self.seq = seq
        """Number of the last record; 0 when there is none."""
        self.hash = hash
        self.generation = generation
        """Of the head's last slot."""
        self.fresh = fresh
        """The next record begins a new file, because the last one is not to be touched."""


def recover(
    data: DataDirectory, directory: Path, head: AuditHead
) -> tuple[AuditPosition, list[str], Events]:
    """Where to go on, warnings for the operator, and events to record first.

    The caller holds the log's lock.

    Raises:
      OSError: the disk refuses.
    """
    warnings: list[str] = []
    events: Events = []
    damaged_head = False
    try:
        anchor = head.read()
    except ValueError:
        anchor, damaged_head = None, True
    files = audit_files(directory)
    if not files and anchor is None and not damaged_head:
        return AuditPosition(None, 0, 0, GENESIS, 0), warnings, events

    files = _cut_torn_line(data, files, warnings, events)
    generation = anchor.generation if anchor else 0
    reason, last_seq, last_hash = _end(files, anchor)
    if reason:
        # Past everything that was ever there, so that no number is used twice.
        seq = max(last_seq, anchor.seq if anchor else 0, *(first_seq(path) for path in files), 0)
        hash = anchor.hash if anchor is not None and anchor.seq >= last_seq else last_hash
        warnings.append(
            f"The audit log was changed: {reason}. It was left as it is and goes on in a new file; "
            "run `novacron audit verify` and see the runbook audit-broken."
        )
        events.append(("audit.restarted", {"reason": reason, "after_seq": seq}))
        position = AuditPosition(
            files[-1] if files else None, 0, seq, hash or GENESIS, generation, fresh=True
        )
        return position, warnings, events
    if damaged_head or anchor is None:
        what = "damaged" if damaged_head else "missing"
        warnings.append(
            f"The audit log's head {head.path} was {what} and was made anew: whether records are "
            "missing at the end of the log is unknown. See the runbook audit-broken."
        )
        events.append(("audit.head_rebuilt", {"was": what, "seq": last_seq}))
    return (
        AuditPosition(files[-1], files[-1].stat().st_size, last_seq, last_hash, generation)
        if files
        else AuditPosition(None, 0, last_seq, last_hash, generation),
        warnings,
        events,
    )


def _end(files: list[Path], anchor: Anchor | None) -> tuple[str, int, str]:
    """What is wrong with the end of the log (empty: nothing), and its last record."""
    if not files:
        if anchor is not None and anchor.seq > 0:
            return f"its files are gone, which held {anchor.seq} records", 0, ""
        return "", 0, GENESIS
    name = files[-1].name
    lines = tail(files[-1]).split(b"\n")[:-1]
    if not lines:
        return f"{name} has no complete line near its end", 0, ""
    try:
        last = parse(lines[-1])
    except ValueError as exc:
        return f"the last line of {name} is damaged ({exc})", 0, ""
    seq, hash = last["seq"], last["hash"]
    if anchor is None:
        return "", seq, hash
    if seq < anchor.seq:
        lost = anchor.seq - seq
        are = "record is" if lost == 1 else "records are"
        return f"{lost} {are} missing at the end of {name}", seq, hash
    if seq == anchor.seq:
        if hash != anchor.hash:
            return f"the last record of {name} is not the one that was written", seq, hash
        return "", seq, hash
    # Records after the head: a crash between the two writes. They must follow from each other.
    expected = hash
    for line in reversed(lines):
        try:
            record = parse(line)
        except ValueError:
            return f"a line near the end of {name} is damaged", seq, hash
        if record["hash"] != expected:
            return f"the records at the end of {name} do not follow from each other", seq, hash
        if record["seq"] <= anchor.seq:
            break
        expected = record["prev"]
        if record["seq"] == anchor.seq + 1 and expected != anchor.hash:
            return f"the records at the end of {name} do not follow from the head", seq, hash
    return "", seq, hash


def tail(path: Path) -> bytes:
    """The end of *path*: complete lines, of which there is at least one if there is any."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        start = max(0, size - 2 * LONGEST_LINE)
        file.seek(start)
        data = file.read()
    if start:
        data = data[data.find(b"\n") + 1 :]
    return data


def _cut_torn_line(
    data: DataDirectory, files: list[Path], warnings: list[str], events: Events
) -> list[Path]:
    """Set aside what follows the last line feed of the last file, and a file of nothing else."""
    if not files:
        return files
    path = files[-1]
    with path.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        start = max(0, size - 2 * LONGEST_LINE)
        file.seek(start)
        tail = file.read()
        keep = start + tail.rfind(b"\n") + 1
        if keep == size and size:
            return files
        if keep < size and not (start and b"\n" not in tail):
            torn = tail[keep - start :]
            data.quarantine_area.mkdir(mode=0o700, exist_ok=True)
            aside = data.quarantine_area / f"{path.name}.torn-at-{keep}"
            write_durably(aside, torn)
            file.truncate(keep)
            os.fsync(file.fileno())
            warnings.append(
                f"The last line of the audit log was incomplete, as a crash leaves it; its "
                f"{len(torn)} bytes lie in {aside} now."
            )
            events.append(
                ("audit.repaired", {"file": path.name, "offset": keep, "bytes": len(torn)})
            )
            size = keep
    if size == 0:
        # Created by a rotation and never written to: the end is in the file before.
        path.unlink()
        fsync_directory(path.parent)
        return files[:-1]
    return files
