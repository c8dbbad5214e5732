"""The anchor of the audit log: sequence number and hash of the last record, in another directory.

Without it, cutting records off the end would leave a valid chain. The file has two slots, written
in turn and in place, each with a checksum: a crash spoils at most the one being written, and an
append costs one fdatasync here instead of the three that replacing the file takes.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from novacron.durable import write_durably
from novacron.security import documents

SLOT_BYTES = 512
"""A disk sector, which is written whole or not at all."""


class Anchor:
    """What the head says."""

    __slots__ = ("generation", "hash", "seq")

    def __init__(self, generation: int, seq: int, hash: str) -> None:
        self.generation = generation
        self.seq = seq
        self.hash = hash


class AuditHead:
    """The head file. Blocks; the caller holds the audit log's lock."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Anchor | None:
        """The newest slot that holds; None when there is no file.

        Raises:
          ValueError: no slot holds.
          OSError: it cannot be read.
        """
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return None
        found = [
            anchor
            for start in (0, SLOT_BYTES)
            if (anchor := _decode(data[start : start + SLOT_BYTES])) is not None
        ]
        if not found:
            raise ValueError("both halves of the audit log's head are damaged")
        return max(found, key=lambda anchor: (anchor.seq, anchor.generation))

    def write(self, generation: int, seq: int, hash: str) -> None:
        """Raises ``OSError``."""
        body: dict[str, Any] = {"generation": generation, "seq": seq, "hash": hash}
        slot = documents.encode(body).ljust(SLOT_BYTES)
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            write_durably(self.path, slot + slot)
            return
        try:
            os.pwrite(descriptor, slot, (generation % 2) * SLOT_BYTES)
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)


def _decode(slot: bytes) -> Anchor | None:
    try:
        body = documents.decode(slot)
        return Anchor(int(body["generation"]), int(body["seq"]), str(body["hash"]))
    except (ValueError, KeyError, TypeError):
        return None
