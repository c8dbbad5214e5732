"""The journal of an object that is being received: which of its chunks are on disk, and their leaves.

Appended to while the object comes in, and read when the transfer goes on. It never claims a chunk
that was not made durable before: the caller syncs the part file first
(:meth:`novacron.dwcp.amst.targets.PartFile.checkpoint` does both). The format, numbers big-endian::

    head    magic "NCAMSTJ1" | transfer 16 | position 4 | size 8 | chunk_bytes 4 | identity 32 | CRC-32
    record  size of the body 4 | size of the runs in it 4 | CRC-32 | body: packed runs, their leaves

Each CRC-32 goes on from the one before (the first from zero), over everything of its record but
itself: a record that was torn, damaged or put there from another journal ends what is believed, and
so does everything behind it. What is lost that way is moved again; nothing worse comes of it.

Everything here blocks on the disk: call it in a worker thread.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from array import array
from collections.abc import Callable
from pathlib import Path
from struct import Struct
from typing import Final
from zlib import crc32

from novacron.durable import fsync_directory
from novacron.dwcp.amst import runs
from novacron.dwcp.amst.errors import JournalError
from novacron.record import Record

_MAGIC: Final = b"NCAMSTJ1"
_HEAD = Struct("!8s16sIQI32s")
_PREFIX = Struct("!II")
_CHECK = Struct("!I")
_RECORD_CHUNKS: Final = 65536
"""In one record at most, so that a reader need not hold more than that."""
_MAX_BODY: Final = _RECORD_CHUNKS * (4 + 20)
"""A leaf, and in the worst case a run with two numbers of ten bytes, for each chunk."""


class Subject(Record):
    """What a journal is about; one that is about anything else is not read."""

    transfer: bytes
    """16 bytes."""
    position: int
    """Of the entry in its transfer."""
    size: int
    chunk_bytes: int
    identity: bytes
    """32 bytes that change when the source does."""

    @property
    def chunks(self) -> int:
        return -(-self.size // self.chunk_bytes)

    def packed(self) -> bytes:
        return _HEAD.pack(
            _MAGIC, self.transfer, self.position, self.size, self.chunk_bytes, self.identity
        )


class Journal:
    """Made by :func:`create_journal` and :func:`open_journal`; closed by whoever called them.

    ``bits`` and ``leaves`` (one for each chunk of the object) are what is on record; read only.
    """

    def __init__(self, path: Path, subject: Subject, descriptor: int) -> None:
        self.path = path
        self.subject = subject
        self.bits = bytearray(runs.bitmap_bytes(subject.chunks))
        self.leaves = array("I", bytes(4)) * subject.chunks
        self._descriptor = descriptor
        self._check = 0
        self._end = 0
        self._failed = False

    def append(self, bits: bytes, leaves: Callable[[int, int], array[int]]) -> int:
        """Record the chunks of *bits* that are not on record yet; returns how many that were.

        They must be durable by now. When this returns, the record is.

        Args:
          bits: A bitmap of the whole object.
          leaves: Asked for runs, (first, count); as
            :meth:`novacron.dwcp.amst.transport.Moving.leaves`.

        Raises:
          OSError: the disk is full or broken. What was on record still is. After a failed sync no
            more can be recorded: create the journal anew.
          ValueError: *leaves* gave more or fewer than it was asked for. Nothing was recorded.
        """
        if self._failed:
            raise OSError(errno.EIO, "a sync of this journal failed before", str(self.path))
        new = list(runs.runs_of(runs.difference(bits, self.bits), self.subject.chunks))
        records = []
        check = self._check
        for part in _parts(new):
            values = [leaves(first, count) for first, count in part]
            for (first, count), piece in zip(part, values, strict=True):
                if len(piece) != count:
                    raise ValueError(f"{len(piece)} leaves for {count} chunks")
                self.leaves[first : first + count] = piece
            record, check = _pack(part, values, check)
            records.append(record)
        if not records:
            return 0
        data = b"".join(records)
        try:
            _write(self._descriptor, data, self._end)
        except OSError:
            # Half a record would end what a reader believes, also of what is appended behind it.
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._end)
            raise
        try:
            os.fdatasync(self._descriptor)
        except OSError:
            # The kernel may have dropped the pages; another sync would then say that all is well.
            self._failed = True
            raise
        self._end += len(data)
        self._check = check
        return sum(runs.set_run(self.bits, first, count) for first, count in new)

    def close(self) -> None:
        """Harmless when repeated."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _read(self) -> None:
        """Take what is there, up to the first thing that is not right."""
        with open(self._descriptor, "rb", closefd=False) as file:
            head = file.read(_HEAD.size + _CHECK.size)
            self._check = self._take_head(head)
            self._end = len(head)
            while True:
                prefix = file.read(_PREFIX.size + _CHECK.size)
                if len(prefix) < _PREFIX.size + _CHECK.size:
                    return
                size, runs_size = _PREFIX.unpack_from(prefix)
                if not runs_size < size <= _MAX_BODY:
                    return
                body = file.read(size)
                check = crc32(body, crc32(prefix[: _PREFIX.size], self._check))
                if len(body) != size or _CHECK.unpack_from(prefix, _PREFIX.size) != (check,):
                    return
                if not self._take_body(memoryview(body), runs_size):
                    return
                self._end += len(prefix) + size
                self._check = check

    def _take_head(self, head: bytes) -> int:
        fields = head[: _HEAD.size]
        check = crc32(fields)
        if head != fields + _CHECK.pack(check) or not fields.startswith(_MAGIC):
            raise JournalError(
                "an interrupted transfer cannot be continued",
                why=f"{self.path} is damaged or no journal",
                remedy="start it again; it begins from nothing",
            )
        if fields != self.subject.packed():
            raise JournalError(
                "an interrupted transfer cannot be continued",
                why=f"{self.path} is about another object, or another version of it",
                remedy="start it again; it begins from nothing",
            )
        return check

    def _take_body(self, body: memoryview, runs_size: int) -> bool:
        try:
            part = list(runs.unpack_runs(body[:runs_size], self.subject.chunks))
            # Counted before anything of that size is made.
            if sum(count for _, count in part) * 4 != len(body) - runs_size:
                return False
            runs.place_leaves(body[runs_size:], part, self.leaves)
        except ValueError:
            return False
        for first, count in part:
            runs.set_run(self.bits, first, count)
        return True


def create_journal(
    path: Path, subject: Subject, bits: bytes | None = None, leaves: array[int] | None = None
) -> Journal:
    """A journal that replaces whatever is at *path*, durably, with *bits* on record.

    A crash leaves the old one or the new. To take back chunks that turned out wrong, create the
    journal anew with those that are left.

    Args:
      leaves: One for each chunk of the object.

    Raises:
      OSError: the disk is full, the directory is missing, permission is denied.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    journal = Journal(path, subject, os.open(temporary, flags, 0o600))
    try:
        head = subject.packed()
        journal._check = crc32(head)
        data = head + _CHECK.pack(journal._check)
        _write(journal._descriptor, data, 0)
        journal._end = len(data)
        if bits is not None and leaves is not None:
            known = leaves
            journal.append(bits, lambda first, count: known[first : first + count])
        os.fsync(journal._descriptor)
        os.rename(temporary, path)
        fsync_directory(path.parent)
    except BaseException:
        journal.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    return journal


def open_journal(path: Path, subject: Subject) -> Journal:
    """The journal of an object that was interrupted, ready to be appended to.

    Raises:
      FileNotFoundError: there is none: create it.
      JournalError: it is damaged from its first bytes on, or about something else.
      OSError: it cannot be read, or what follows a torn record cannot be cut off.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    journal = Journal(path, subject, descriptor)
    try:
        journal._read()
        # Otherwise a shorter record written over it could be followed by the old one's rest.
        os.ftruncate(descriptor, journal._end)
    except BaseException:
        journal.close()
        raise
    return journal


def _parts(new: list[runs.Run]) -> list[list[runs.Run]]:
    """*new* cut into records."""
    parts: list[list[runs.Run]] = []
    room = 0
    for first, count in new:
        while count:
            if not room:
                parts.append([])
                room = _RECORD_CHUNKS
            taken = min(count, room)
            parts[-1].append((first, taken))
            first, count, room = first + taken, count - taken, room - taken
    return parts


def _pack(part: list[runs.Run], values: list[array[int]], check: int) -> tuple[bytes, int]:
    packed = runs.pack_runs(part)
    body = packed + b"".join(runs.pack_leaves(leaves) for leaves in values)
    prefix = _PREFIX.pack(len(body), len(packed))
    check = crc32(body, crc32(prefix, check))
    return prefix + _CHECK.pack(check) + body, check


def _write(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(descriptor, view, offset)
        view, offset = view[count:], offset + count
