"""What is kept of transfers across restarts: one file for each outgoing one, one directory for each
incoming one.

::

    dwcp/outgoing/<id>.json             the request and how far it came
    dwcp/incoming/<id>/transfer.json    what the receiver agreed to
    dwcp/incoming/<id>/entries          files opened and finished so far, a line each
    dwcp/incoming/<id>/<name>.journal   chunks of one file (:mod:`~novacron.dwcp.amst.journal`)

Everything here blocks on the disk: call it in a worker thread.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

from novacron.durable import fsync_directory, remove_leftovers, write_durably
from novacron.dwcp.hde import choice
from novacron.dwcp.hde.report import CodingReport
from novacron.record import Record

logger = logging.getLogger("novacron.dwcp.transfers")

FORMAT: Final = 1
KEPT_ENDED: Final = 100
"""Outgoing transfers that are over and still told of."""
_MAX_FILE_BYTES: Final = 1 << 20
_ID_DIGITS: Final = 32


class OutgoingRecord(Record):
    """A transfer that this node sends. Times are seconds since the epoch."""

    id: str
    peer: str
    paths: list[str]
    path: str
    priority: str
    limit_bps: int
    overwrite: bool
    on_change: str
    recursive: bool
    chunk_bytes: int
    created_at: float
    pulled: bool = False
    """The other node asked for it: confined to the directories this node allows."""
    confined: bool = False
    """Likewise, because who asked for it here may not read elsewhere."""
    deadline_at: float | None = None
    paused: bool = False
    state: str = "waiting"
    why: str = ""
    remedy: str = ""
    started_at: float | None = None
    finished_at: float | None = None
    destination: str = ""
    files_total: int = 0
    files_done: int = 0
    bytes_total: int = 0
    bytes_done: int = 0
    bytes_moved: int = 0
    bytes_zero: int = 0
    bytes_resent: int = 0
    wire_bytes: int = 0
    files_skipped: int = 0
    codec: str = ""
    """How it is to be encoded, see :mod:`~novacron.dwcp.hde.choice`."""
    coding: dict[str, Any] = {}  # noqa: RUF012  never changed
    """How it was, as :meth:`~novacron.dwcp.hde.report.CodingReport.as_json` says it."""
    tenant: str = ""
    """Whose files these are; empty: the node's default."""
    dedup: str = ""
    """``auto``, ``always``, ``never``; empty: as the node is configured."""
    bytes_deduplicated: int = 0

    @property
    def same(self) -> tuple[object, ...]:
        """Equal for requests that ask for the same thing."""
        return (self.peer, tuple(self.paths), self.path, self.pulled, self.tenant)


class IncomingRecord(Record):
    """A transfer that this node receives."""

    id: str
    peer: str
    path: str
    """As the operator wrote it, of this node for a pull and of the other one else."""
    into: bool
    overwrite: bool
    on_change: str
    priority: str
    created_at: float
    prefix: str | None = None
    """What the first part of every entry's path is replaced by; empty: it is kept, and lies in the
    directory *path*. None: not yet decided."""
    root: str = ""
    """A directory allowed for this transfer alone."""
    paths: list[str] = []  # noqa: RUF012  never changed
    """Of the other node, for a pull; empty for a push."""
    recursive: bool = True
    limit_bps: int = 0
    deadline_at: float | None = None
    state: str = "waiting"
    why: str = ""
    remedy: str = ""
    started_at: float | None = None
    finished_at: float | None = None
    files_total: int = 0
    bytes_total: int = 0
    tenant: str = ""
    """Of a pull, as is the next: of those that are sent here the sender says."""
    dedup: str = ""

    @property
    def same(self) -> tuple[object, ...]:
        """Equal for requests that ask for the same thing."""
        return (self.peer, tuple(self.paths), self.path, self.tenant)


R = TypeVar("R", OutgoingRecord, IncomingRecord)


class OutgoingStore:
    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def load(self) -> list[OutgoingRecord]:
        """Every record, the oldest first; of those that are over only the last ones, the others
        are removed. What cannot be read is set aside under another name, and logged.

        Raises:
          OSError: the directory cannot be made or read.
        """
        _make_directory(self._directory)
        remove_leftovers(self._directory)
        found = []
        for name in sorted(os.listdir(self._directory)):
            if not name.endswith(".json"):
                continue
            record = _read(self._directory / name, OutgoingRecord)
            if record is not None:
                found.append(record)
        found.sort(key=lambda record: record.created_at)
        self.prune(found)
        ended = [record for record in found if record.finished_at is not None]
        dropped = {record.id for record in ended[:-KEPT_ENDED]}
        return [record for record in found if record.id not in dropped]

    def save(self, record: OutgoingRecord) -> None:
        """Raises OSError: it could not be written; what was there before still is."""
        write_durably(self._directory / f"{record.id}.json", _document(record))

    def prune(self, records: Iterable[OutgoingRecord]) -> None:
        """Forget those of *records*, the oldest first, that are over, but for the last hundred."""
        ended = [record for record in records if record.finished_at is not None]
        for record in ended[:-KEPT_ENDED]:
            self.remove(record.id)

    def remove(self, id: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            (self._directory / f"{id}.json").unlink()


class IncomingStore:
    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def load(self) -> list[IncomingRecord]:
        """Every record, the oldest first. A directory without one that can be read is logged and
        left.

        Raises:
          OSError: the directory cannot be made or read.
        """
        _make_directory(self._directory)
        found = []
        for name in sorted(os.listdir(self._directory)):
            directory = self._directory / name
            if not _is_id(name) or not directory.is_dir():
                continue
            remove_leftovers(directory)
            record = _read(directory / "transfer.json", IncomingRecord)
            if record is not None and record.id == name:
                found.append(record)
        return sorted(found, key=lambda record: record.created_at)

    def age(self, id: str) -> float:
        """Seconds since anything was written there; 0 where there is nothing."""
        directory = self._directory / id
        try:
            times = [directory.stat().st_mtime, *(e.stat().st_mtime for e in os.scandir(directory))]
        except OSError:
            return 0.0
        return max(0.0, time.time() - max(times))

    def directory(self, id: str) -> Path:
        return self._directory / id

    def save(self, record: IncomingRecord) -> None:
        """Raises OSError: it could not be written."""
        directory = self._directory / record.id
        if not directory.is_dir():
            _make_directory(directory)
            fsync_directory(self._directory)
        write_durably(directory / "transfer.json", _document(record))

    def remove(self, id: str) -> None:
        """Raises OSError: something of it is left."""
        directory = self._directory / id
        if directory.is_dir():
            shutil.rmtree(directory)
            fsync_directory(self._directory)


# --- Entries ----------------------------------------------------------------------------------


class Ledger:
    """The files of an incoming transfer: which have a part file, which are finished. A line that
    was torn is as if it had not been written: that file comes again. Several threads may use it."""

    def __init__(self, directory: Path) -> None:
        """*directory*: of the transfer. Raises OSError: what is there cannot be read."""
        self._path = directory / "entries"
        self._descriptor = -1
        self._lock = threading.Lock()
        self.opened: dict[str, str] = {}
        """Path to identity (hex) of those with a part file."""
        self.finished: dict[bytes, bytes] = {}
        """Digest of the path to that of the identity, of those that got their name, or were about
        to when the node stopped."""
        whole = 0
        with contextlib.suppress(FileNotFoundError):
            data = self._path.read_bytes()
            for line in data.splitlines(keepends=True):
                if not line.endswith(b"\n"):
                    break
                whole += len(line)
                self._take(line)
            if whole < len(data):
                os.truncate(self._path, whole)

    def _take(self, line: bytes) -> None:
        try:
            kind, path, identity = json.loads(line)
            identity = str(identity)
            if kind == "open":
                self.opened[str(path)] = identity
            elif kind == "done":
                self.finished[_digest(str(path))] = bytes.fromhex(identity)[:16]
            elif kind == "gone":
                self.opened.pop(str(path), None)
        except (ValueError, TypeError):
            logger.warning("a damaged line was skipped in %s", self._path)

    def note_open(self, files: list[tuple[str, bytes]]) -> None:
        """Paths and identities of part files that were made. Not durable: a power cut at worst
        leaves a part file that nobody removes."""
        with self._lock:
            for path, identity in files:
                self.opened[path] = identity.hex()
            self._append([("open", path, identity.hex()) for path, identity in files])

    def note_finished(self, files: list[tuple[str, bytes]]) -> None:
        """Durable, and so to be called before the files get their names: one that has its name and
        is not on record would be in its own way."""
        with self._lock:
            for path, identity in files:
                self.finished[_digest(path)] = identity[:16]
            self._append([("done", path, identity.hex()) for path, identity in files])
            os.fdatasync(self._descriptor)

    def note_gone(self, paths: list[str]) -> None:
        """They have no part file any more."""
        with self._lock:
            for path in paths:
                self.opened.pop(path, None)
            self._append([("gone", path, "") for path in paths])

    def version(self, path: str) -> bytes | None:
        """First 16 bytes of the identity of what was finished as *path*; None: nothing was."""
        return self.finished.get(_digest(path))

    def close(self) -> None:
        """Harmless when repeated."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _append(self, lines: list[tuple[str, str, str]]) -> None:
        if self._descriptor < 0:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            self._descriptor = os.open(self._path, flags, 0o600)
        data = "".join(json.dumps(line) + "\n" for line in lines).encode()
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]


def journal_path(directory: Path, path: str) -> Path:
    """Where the journal of the entry *path* lies. Named after the path, not its place in the list:
    files that come and go between two attempts must not make all others begin anew."""
    return directory / f"{_digest(path).hex()}.journal"


def journal_index(path: str) -> int:
    return int.from_bytes(_digest(path)[:4], "big")


def _digest(path: str) -> bytes:
    return hashlib.sha256(path.encode("utf-8", "surrogateescape")).digest()[:16]


# --- Underneath -------------------------------------------------------------------------------


def _is_id(name: str) -> bool:
    return len(name) == _ID_DIGITS and not name.strip("0123456789abcdef")


def _make_directory(directory: Path) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)


def _document(record: Record) -> bytes:
    return (json.dumps({"format": FORMAT, **record._asdict()}, indent=1) + "\n").encode()


def _read(path: Path, kind: type[R]) -> R | None:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
        document = json.loads(data)
        if document.pop("format") != FORMAT:
            raise ValueError("another version wrote it")
        record = kind(**document)
        for name, value in _checked(record):
            raise ValueError(f"{name} cannot be {value!r}")
        if isinstance(record, OutgoingRecord):
            CodingReport.of_json(record.coding)
            if choice.fault_of(record.codec):
                raise ValueError(f"codec cannot be {record.codec!r}")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as exc:
        logger.warning(
            "a transfer is forgotten, since its record cannot be read: %s: %s", path, exc
        )
        with contextlib.suppress(OSError):
            path.rename(path.with_name(f"{path.name}.unreadable"))
        return None
    return record


_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "float | None": (int, float, type(None)),
    "str | None": (str, type(None)),
    "list[str]": (list,),
    "dict[str, Any]": (dict,),
}


def _checked(record: OutgoingRecord | IncomingRecord) -> Iterator[tuple[str, Any]]:
    """The fields that are not of their type."""
    for name, value in record._asdict().items():
        kinds = _TYPES[str(type(record).__annotations__[name])]
        items = value if kinds == (list,) and isinstance(value, list) else []
        if not isinstance(value, kinds) or not all(isinstance(item, str) for item in items):
            yield name, value
