"""What somebody does to an audit log who may write all of it: root of the machine."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from novacron.data_directory import DataDirectory
from novacron.security.audit_files import audit_files
from novacron.security.audit_head import AuditHead
from novacron.security.audit_record import GENESIS, Entry, seal

Change = Callable[[dict[str, Any]], None]


def rewrite(directory: DataDirectory, change: Change, *, first: int = 1) -> None:
    """Make the chain anew from the record *first* on, every record as *change* leaves it, with hashes and
    a head that fit. No trace of it is in the files."""
    seq, prev = 0, GENESIS
    for path in audit_files(directory.audit):
        lines = []
        for line in path.read_bytes().splitlines():
            record = json.loads(line)
            seq = record["seq"]
            if seq < first:
                prev = record["hash"]
                lines.append(line + b"\n")
                continue
            change(record)
            fields = ("time", "action", "actor", "target", "outcome", "source", "details")
            sealed, prev = seal(Entry(*(record[name] for name in fields)), seq, prev)
            lines.append(sealed)
        path.write_bytes(b"".join(lines))
    write_head(directory, seq, prev)


def cut(directory: DataDirectory, last: int) -> None:
    """Remove every record after *last*, and have the head say that nothing was ever there."""
    hash = GENESIS
    for path in audit_files(directory.audit):
        lines = path.read_bytes().splitlines(keepends=True)
        kept = [line for line in lines if json.loads(line)["seq"] <= last]
        if kept:
            hash = json.loads(kept[-1])["hash"]
            path.write_bytes(b"".join(kept))
        else:
            path.unlink()
    write_head(directory, last, hash)


def write_head(directory: DataDirectory, seq: int, hash: str) -> None:
    head = AuditHead(directory.secrets / "audit.head")
    head.path.unlink()
    head.write(1, seq, hash)


def records(directory: DataDirectory) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for path in audit_files(directory.audit)
        for line in path.read_bytes().splitlines()
    ]
