"""What SQLite does not say about a damaged write-ahead log: that it dropped committed changes.

Recovery reads the log up to the first frame whose checksum is wrong and silently ignores the rest.
After a crash that is right: the rest is the torn tail of one commit. But a bit that rotted in the
middle of the log also ends it there, and then *whole commits* follow. Since every commit is synced
before the next begins, two commit frames of the same generation behind the point where SQLite
stopped mean damage and never a torn tail.

Formats: https://sqlite.org/fileformat2.html#the_write_ahead_log and
https://sqlite.org/walformat.html (the index in the ``-shm`` file, of which ``mxFrame`` is read).
"""

from __future__ import annotations

import struct
from pathlib import Path

from novacron.record import Record

_HEADER = struct.Struct(">IIIIIIII")
_FRAME = struct.Struct(">IIIIII")
_MAGIC = (0x377F0682, 0x377F0683)
_MXFRAME_OFFSET = 16


class LogDamage(Record):
    frames_used: int
    """Frames that SQLite recovered."""
    commits_lost: int
    """Commits behind them that it ignored."""


def find_log_damage(database: Path) -> LogDamage | None:
    """Compare the log of *database* with what SQLite recovered from it; None if they agree.

    Call while a connection is open that has read something, so that the index is built. Blocks.
    """
    try:
        log = open(f"{database}-wal", "rb")  # noqa: SIM115
    except FileNotFoundError:
        return None
    with log:
        header = log.read(_HEADER.size)
        if len(header) < _HEADER.size:
            return None
        magic, _version, page_size, _sequence, salt1, salt2, check1, check2 = _HEADER.unpack(header)
        intact = magic in _MAGIC and _checksum(header[:24], magic & 1 == 1) == (check1, check2)
        if not intact:
            page_size = _page_size_of(database)
        used = _recovered_frames(database) if intact else 0
        commits: dict[tuple[int, int], int] = {}
        step = _FRAME.size + page_size
        position = _HEADER.size + used * step
        while True:
            log.seek(position)
            frame = log.read(_FRAME.size)
            if len(frame) < _FRAME.size:
                break
            _page, size, frame_salt1, frame_salt2, _c1, _c2 = _FRAME.unpack(frame)
            if size:
                generation = (frame_salt1, frame_salt2)
                commits[generation] = commits.get(generation, 0) + 1
            position += step
    if intact:
        # Frames of an older generation are leftovers of a log that was folded in and restarted.
        lost = commits.get((salt1, salt2), 0)
        return LogDamage(used, lost) if lost >= 2 else None
    # Without a header nothing was recovered; a torn header can only be followed by old frames
    # that were folded in before, which cannot be told apart, so this errs towards reporting.
    lost = max(commits.values(), default=0)
    return LogDamage(0, lost) if lost else None


def _recovered_frames(database: Path) -> int:
    try:
        with open(f"{database}-shm", "rb") as index:
            index.seek(_MXFRAME_OFFSET)
            field = index.read(4)
    except FileNotFoundError:
        return 0
    return int(struct.unpack("=I", field)[0]) if len(field) == 4 else 0


def _page_size_of(database: Path) -> int:
    try:
        with open(database, "rb") as file:
            file.seek(16)
            field = file.read(2)
    except FileNotFoundError:
        field = b""
    size: int = struct.unpack(">H", field)[0] if len(field) == 2 else 0
    size = 65536 if size == 1 else size
    return size if size >= 512 and size & (size - 1) == 0 else 4096


def _checksum(data: bytes, big_endian: bool) -> tuple[int, int]:
    words = struct.unpack(f"{'>' if big_endian else '<'}{len(data) // 4}I", data)
    first = second = 0
    for index in range(0, len(words), 2):
        first = (first + words[index] + second) & 0xFFFFFFFF
        second = (second + words[index + 1] + first) & 0xFFFFFFFF
    return first, second
