"""The append-only audit log: who did what, chained so that no change to it goes unnoticed.

``audit/audit-<number of its first record>.jsonl``, continued in a new file at a size limit, and a
head in ``secrets/audit.head``. An append returns when its record is on the disk: a caller records
what it is about to do, then does it. What arrives while a write is under way shares the next one.

The chain finds changes by anybody who cannot write all of it anew. Whoever can (root) is found only
by comparing with a hash kept elsewhere: ``novacron.anchoring`` keeps it in the database that nodes
share, and ``novacron audit verify`` prints it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from novacron.data_directory import DataDirectory
from novacron.durable import fsync_directory
from novacron.observe import Counter
from novacron.security import documents
from novacron.security.audit_denials import DenialBudget
from novacron.security.audit_head import AuditHead
from novacron.security.audit_record import GENESIS, Entry, seal
from novacron.security.audit_recovery import AuditPosition, recover
from novacron.security.audit_retention import ACTION as PRUNED
from novacron.security.audit_retention import find_old
from novacron.security.errors import (
    AuditUnavailableError,
    LockedError,
    StorageFailedError,
    storage_failure,
)
from novacron.security.filelock import held

if TYPE_CHECKING:
    import trio

    from novacron.security.audit_verification import Verification

PENDING_LIMIT = 10_000
"""Records that may wait for the disk. At some 70 µs each that is what a disk takes in 0.7 s."""

_LOG = logging.getLogger("novacron.security")
_RECORDS = Counter("novacron_audit_records_total", "Records written to the audit log.")
_FAILURES = Counter("novacron_audit_failures_total", "Records the audit log could not take.")


class _Pending:
    __slots__ = ("entry", "error", "written")

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.written = False
        self.error: StorageFailedError | None = None


class AuditLog:
    """The audit log of a node. Several processes may append: a lock puts them in order."""

    def __init__(
        self,
        directory: DataDirectory,
        max_bytes: int = 64 * 1024**2,
        on_failure: Literal["stop", "continue"] = "stop",
        *,
        keep_files: int = 0,
        keep_days: int = 0,
        now: Callable[[], float] = time.time,
    ) -> None:
        """*keep_files*, *keep_days*: see :func:`novacron.security.audit_retention.find_old`."""
        self.directory = directory.audit
        self.head = AuditHead(directory.secrets / "audit.head")
        self._data = directory
        self._lock_path = directory.audit / "lock"
        self._max_bytes = max_bytes
        self._on_failure = on_failure
        self._keep_files = keep_files
        self._keep_days = keep_days
        self._now = now
        self._turn: trio.Lock | None = None
        self._waiting: list[_Pending] = []
        self._position: AuditPosition | None = None
        self._descriptor = -1
        self._lost = 0
        self._kept_though_old = ""
        self._denials = DenialBudget()
        self.failure = ""
        """Why the last append failed; empty while the log can be written."""

    # --- Life -----------------------------------------------------------------------------------

    def open_blocking(self) -> list[str]:
        """Find the end of the log and repair what a crash left; returns warnings.

        A log that was changed is left as it is, evidence for whoever looks, and continued in a new
        file whose first record says so.

        Raises:
          StorageFailedError: the disk refuses, and the policy is to stop.
        """
        try:
            with held(self._lock_path):
                return self._recover()
        except (OSError, StorageFailedError, LockedError) as exc:
            failure = self._failed(exc, 0)
            if self._on_failure == "stop":
                raise failure from exc
            return [f"The audit log cannot be written ({failure}); the node goes on without it."]

    def close_blocking(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self._position = None

    # --- Append ---------------------------------------------------------------------------------

    async def append(
        self,
        action: str,
        actor: str,
        target: str = "",
        outcome: str = "success",
        source: str = "",
        details: Mapping[str, Any] | None = None,
    ) -> None:
        """Record that *actor* did (or is about to do) *action* to *target*; durable on return.

        Args:
          action: Dotted, ``token.create``.
          actor: ``token:<id>``, ``node:<id>``, ``system`` or ``cli:<user>``.
          outcome: ``started``, then ``success``, ``denied`` or ``failure``.
          source: Where the request came from, an address; empty for the node itself.
          details: JSON values; registered secrets in them are masked.

        Raises:
          AuditUnavailableError: it could not be written and ``audit_on_failure`` is ``stop``: do
            not do what was to be recorded.
          AuditRecordError: *details* are not JSON.
        """
        import trio

        if self._turn is None:
            self._turn = trio.Lock()
        pending = _Pending(self._entry(action, actor, target, outcome, source, details))
        if len(self._waiting) >= PENDING_LIMIT:
            self.failure = f"{PENDING_LIMIT} records wait for the disk"
            self._refused(AuditUnavailableError("cannot write the audit log", why=self.failure))
            return
        await trio.lowlevel.checkpoint_if_cancelled()
        self._waiting.append(pending)
        try:
            async with self._turn:
                if not pending.written and pending.error is None:
                    batch, self._waiting = self._waiting, []
                    try:
                        await trio.to_thread.run_sync(self._write, batch)
                    except trio.Cancelled:
                        # While it waited for a thread: nothing was written, and the others, who
                        # have not given up, must not be told that it was.
                        self._waiting = batch + self._waiting
                        raise
        except trio.Cancelled:
            # The caller gives up, and will not do what was to be recorded. If the record was taken
            # by then it stays: too much in the log is better than too little.
            if pending in self._waiting:
                self._waiting.remove(pending)
            raise
        if pending.error is not None:
            self._refused(pending.error)

    async def append_denied(
        self,
        action: str,
        actor: str,
        target: str,
        source: str,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        """Record that *action* was denied; past a budget it is counted, and the count recorded.

        Raises:
          AuditUnavailableError: as :meth:`append`. It is denied all the same.
        """
        await self.flush_denials()
        if self._denials.admit(source, time.monotonic()):
            await self.append(action, actor, target, "denied", source, details)

    async def flush_denials(self) -> None:
        """Record the count of the denials that were not recorded one by one, if it is time.

        Raises:
          AuditUnavailableError: as :meth:`append`. They are counted on.
        """
        now = time.monotonic()
        if not self._denials.due(now):
            return
        summary = self._denials.take()
        try:
            await self.append("audit.denials", "system", "audit", "denied", "", summary)
        except BaseException:
            self._denials.put_back(summary, now)
            raise

    def append_blocking(
        self,
        action: str,
        actor: str,
        target: str = "",
        outcome: str = "success",
        source: str = "",
        details: Mapping[str, Any] | None = None,
    ) -> None:
        """:meth:`append` without an event loop, for the command line."""
        pending = _Pending(self._entry(action, actor, target, outcome, source, details))
        self._write([pending])
        if pending.error is not None:
            self._refused(pending.error)

    def flush_denials_blocking(self) -> None:
        """Record that count now: the node stops."""
        if self._denials.left_out:
            self.append_blocking(
                "audit.denials", "system", "audit", "denied", details=self._denials.take()
            )

    def prune_blocking(self) -> None:
        """Remove the files that are older, or more, than are kept.

        Raises:
          StorageFailedError: the disk refuses.
        """
        try:
            with held(self._lock_path):
                if self._elsewhere():
                    self._recover()
                self._prune()
        except OSError as exc:
            raise storage_failure("remove old files from", self.directory, exc) from exc

    def verify(self, path: Path | None = None) -> Verification:
        """Check the log in the directory *path*, by default this node's. Blocks."""
        from novacron.security.audit_verification import verify

        return verify(path or self.directory, self.head if path is None else None)

    def status(self) -> dict[str, Any]:
        position = self._position
        return {
            "last_seq": position.seq if position else None,
            "last_hash": position.hash if position else None,
            "failure": self.failure,
            "lost": self._lost,
            "kept_though_old": self._kept_though_old,
        }

    def _entry(
        self,
        action: str,
        actor: str,
        target: str,
        outcome: str,
        source: str,
        details: Mapping[str, Any] | None,
    ) -> Entry:
        from novacron.log.redaction import mask

        return Entry(
            documents.to_text(self._now()),
            # This and the outcome are words of the product. A weak password that is one of them
            # must not make every record of that kind unfindable.
            action,
            mask(actor),
            mask(target),
            outcome,
            mask(source),
            _masked(dict(details or {}), mask),
        )

    def _refused(self, error: Exception) -> None:
        if self._on_failure == "stop":
            raise AuditUnavailableError(
                "cannot write the audit log",
                why=self.failure,
                remedy="free or repair the disk; until then changing calls are refused "
                "(audit_on_failure: continue allows them); see the runbook audit-broken",
                key="security.audit_on_failure",
            ) from error

    # --- The file -------------------------------------------------------------------------------

    def _write(self, batch: list[_Pending]) -> None:
        """Write *batch* in one go. Sets ``written`` or ``error`` of each, raises nothing."""
        try:
            with held(self._lock_path):
                if self._elsewhere():
                    self._recover()
                entries = [pending.entry for pending in batch]
                if self._lost:
                    entries.insert(0, self._event("audit.lost", {"records": self._lost}))
                before = self._position.path if self._position else None
                self._append(entries)
                self._lost = 0
                if before is not None and self._position and self._position.path != before:
                    self._prune_after_rotation()
        except (OSError, StorageFailedError, LockedError) as exc:
            failure = self._failed(exc, len(batch))
            for pending in batch:
                pending.error = failure
            return
        except BaseException as exc:
            for pending in batch:
                pending.error = StorageFailedError("cannot write the audit log", why=repr(exc))
            raise
        if self.failure:
            _LOG.warning("The audit log can be written again.")
            self.failure = ""
        for pending in batch:
            pending.written = True
        _RECORDS.inc(by=len(batch))

    def _elsewhere(self) -> bool:
        """Whether the end of the log is not where this object left it."""
        position = self._position
        if position is None or position.path is None or position.fresh:
            return True
        try:
            anchor = self.head.read()
            size = os.stat(position.path).st_size
        except (OSError, ValueError):
            return True
        # Compared with the file as it is named now: a descriptor goes on working after the file
        # was removed, and would append to nothing.
        return (
            anchor is None
            or (anchor.seq, anchor.hash) != (position.seq, position.hash)
            or size != position.size
        )

    def _recover(self) -> list[str]:
        self.close_blocking()
        position, warnings, events = recover(self._data, self.directory, self.head)
        self._position = position
        if events:
            self._append([self._event(action, details) for action, details in events])
        return warnings

    def _event(self, action: str, details: dict[str, Any]) -> Entry:
        return Entry(
            documents.to_text(self._now()), action, "system", "audit", "success", "", details
        )

    def _append(self, entries: list[Entry]) -> None:
        position = self._position
        if position is None:
            raise StorageFailedError("cannot write the audit log", why="it is not open")
        lines = []
        seq, hash = position.seq, position.hash
        for entry in entries:
            seq += 1
            line, hash = seal(entry, seq, hash)
            lines.append(line)
        data = b"".join(lines)
        if position.generation == 0 and position.seq == 0:
            # From here on a missing head means that it was removed, not that it is not there yet.
            self.head.write(0, 0, GENESIS)
        path, size = position.path, position.size
        if path is None or position.fresh or (size and size + len(data) > self._max_bytes):
            path, size = self.directory / f"audit-{position.seq + 1:012d}.jsonl", 0
            self.close_blocking()
        if self._descriptor < 0:
            self._descriptor = os.open(
                path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
            if size == 0:
                fsync_directory(self.directory)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._descriptor, view) :]
            os.fdatasync(self._descriptor)
        except OSError:
            # Half a line must not stay: the next record would be glued to it.
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, size)
            raise
        generation = position.generation + 1
        self.head.write(generation, seq, hash)
        self._position = AuditPosition(path, size + len(data), seq, hash, generation)

    def _prune_after_rotation(self) -> None:
        try:
            self._prune()
        except (OSError, StorageFailedError) as exc:
            # What was to be recorded is recorded; the hour's look tries again, and reports.
            _LOG.warning("Old files of the audit log cannot be removed: %s", exc)

    def _prune(self) -> None:
        """The caller holds the lock."""
        if self._keep_files <= 0 and self._keep_days <= 0:
            return
        old, stays = find_old(
            self.directory, self._keep_files, self._keep_days * 86400.0, self._now()
        )
        if old:
            # Noted first: files that are still there though noted harm nobody.
            files = [file.document() for file in old]
            self._append([self._event(PRUNED, {"files": files})])
            for file in old:
                file.path.unlink()
            fsync_directory(self.directory)
            _LOG.info("Old files of the audit log are removed.", extra={"files": len(old)})
        if stays and stays != self._kept_though_old:
            _LOG.warning(
                "Files of the audit log stay though they are old, because the log was changed: %s. "
                "Run `novacron audit verify`, and move the damaged files away.",
                stays,
            )
        self._kept_though_old = stays

    def _failed(
        self, exc: OSError | StorageFailedError | LockedError, records: int
    ) -> StorageFailedError:
        self.close_blocking()
        failure = (
            exc
            if isinstance(exc, StorageFailedError)
            else storage_failure("write to", self.directory, exc)
            if isinstance(exc, OSError)
            else StorageFailedError("cannot write the audit log", why=f"{exc.what}: {exc.why}")
        )
        if not self.failure and self._on_failure == "continue":
            # With `stop` the callers raise; here nobody else would say it. Once, not per record.
            _LOG.error(
                "The audit log cannot be written; records are lost until it can.",
                extra={"why": failure.why, "path": str(self.directory)},
            )
        self.failure = failure.why or failure.what
        if self._on_failure == "continue":
            self._lost += records
        _FAILURES.inc(by=records)
        return failure


def _masked(value: Any, mask: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, dict):
        return {
            mask(name) if isinstance(name, str) else name: _masked(inner, mask)
            for name, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [_masked(inner, mask) for inner in value]
    return value
