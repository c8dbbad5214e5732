"""The anchors of one node's audit log: made, held against the log, and reported where they do not fit.

Before an anchor is added the newest ones that are there are looked at. They are this node's own, so each
must be a record of its log. One that is not was either written by somebody else, or the log was: root of
this machine may have made the whole chain anew, with hashes that fit. That is said in the node's log, in the audit log, in the node's health and by a counter, and the next anchor is added beside
the one that does not fit, never over it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import trio

from novacron.anchoring.table import AnchorTable
from novacron.errors import DatabaseError, SecurityError
from novacron.observe import Counter
from novacron.security.audit_anchors import AuditAnchor, stored_hash

if TYPE_CHECKING:
    from novacron.anchoring.table import AnchorStore
    from novacron.security import AuditLog

MISFIT_LIMIT: Final = 100
"""Anchors that are reported one by one: whoever floods the table with false ones fills neither the audit log
nor the memory of the node."""

_LOG: Final = logging.getLogger("novacron.anchoring")
_ANCHORS = Counter(
    "novacron_audit_anchors_total", "Anchors of the audit log, by outcome.", ("outcome",)
)
_MISFITS = Counter(
    "novacron_audit_anchor_conflicts_total", "Anchors that the audit log of this node contradicts."
)


class Anchors:
    """
    Args:
      now: Seconds since the epoch.
    """

    def __init__(
        self,
        database: AnchorStore,
        audit: AuditLog,
        node_id: str,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._table = AnchorTable(database)
        self._audit = audit
        self._node_id = node_id
        self._now = now
        self.last: AuditAnchor | None = None
        """The newest that this process has noted."""
        self.misfits: dict[AuditAnchor, str] = {}
        """Anchors that the log contradicts, and how; kept until the node is started anew."""
        self.append_only: bool | None = None
        """Whether the database keeps the nodes from changing and removing anchors; None: not asked."""

    async def anchor(self) -> bool:
        """Note where the log stands; False where nothing was recorded since the last time.

        Raises:
          DatabaseError: it could not be noted. It is harmless to try again.
        """
        end = await trio.to_thread.run_sync(self._end)
        if end is None or end == self._known:
            return False
        try:
            if await self._look(*end):
                # What was found is on record by now, and belongs to what is anchored.
                end = await trio.to_thread.run_sync(self._end) or end
            seq, hash = end
            anchor = AuditAnchor(self._node_id, seq, hash, self._now())
            await self._table.add(anchor)
        except DatabaseError:
            _ANCHORS.inc("failed")
            raise
        self.last = anchor
        _ANCHORS.inc("anchored")
        await self._tidy()
        return True

    def statistics(self) -> dict[str, Any]:
        last = self.last
        return {
            "last_seq": None if last is None else last.seq,
            "last_time": None if last is None else last.when,
            "append_only": self.append_only,
            "conflicts": [
                {"seq": anchor.seq, "recorded": anchor.when, "why": why}
                for anchor, why in self.misfits.items()
            ],
        }

    @property
    def _known(self) -> tuple[int, str] | None:
        return None if self.last is None else (self.last.seq, self.last.hash)

    def _end(self) -> tuple[int, str] | None:
        """Number and hash of the last record, which is on the disk; None: there is none. Blocks.

        The head's, since the command line writes to the log too."""
        try:
            head = self._audit.head.read()
        except (OSError, ValueError):
            head = None
        if head is not None:
            return (head.seq, head.hash) if head.seq else None
        status = self._audit.status()
        return (status["last_seq"], status["last_hash"]) if status["last_seq"] else None

    async def _look(self, seq: int, hash: str) -> bool:
        """Hold the log, which ends with the record *seq*, against the newest anchors, this process's own
        included; whether there was anything new to report."""
        reported = False
        for anchor in await self._table.around(self._node_id, seq):
            if anchor in self.misfits or len(self.misfits) >= MISFIT_LIMIT:
                continue
            why = await self._contradiction(anchor, seq, hash)
            if why:
                await self._report(anchor, why)
                reported = True
        return reported

    async def _contradiction(self, anchor: AuditAnchor, seq: int, hash: str) -> str:
        """How the log contradicts *anchor*; empty where it does not."""
        if anchor.seq > seq:
            return f"the log ends with record {seq}: its end was cut off, or an older copy put back"
        found: str | None = hash
        if anchor.seq != seq:
            try:
                found = await trio.to_thread.run_sync(
                    partial(stored_hash, self._audit.directory, anchor.seq)
                )
            except OSError as exc:
                _LOG.warning("The audit log cannot be held against its anchors: %s", exc)
                return ""
        # None: nothing can be said. Files that go because they are old take their anchors' records along,
        # and a verification says from where on it verified.
        if found is None or found == anchor.hash:
            return ""
        if not found:
            return "the log has no such record, or a damaged one"
        return f"the log has the hash {found} there: this record, or one before it, was made anew"

    async def _report(self, anchor: AuditAnchor, why: str) -> None:
        self.misfits[anchor] = why
        _MISFITS.inc()
        _LOG.error(
            "The audit log does not fit what was anchored: record %d, anchored at %s with the hash %s; "
            "%s. If nobody put back an older data directory, somebody rewrote the log, or wrote to the "
            "table audit_anchor. Run `novacron audit verify --anchors`, and see the runbook audit-broken.",
            anchor.seq,
            anchor.when,
            anchor.hash,
            why,
        )
        try:
            await self._audit.append(
                "audit.anchor_conflict",
                f"node:{self._node_id}",
                f"audit-record:{anchor.seq}",
                "failure",
                details={"anchored": anchor.hash, "recorded": anchor.when, "why": why},
            )
        except SecurityError as exc:
            _LOG.error("That is not in the audit log: %s", exc)

    async def _tidy(self) -> None:
        try:
            self.append_only = not await self._table.may_change()
            if not self.append_only:
                await self._table.thin(self._node_id)
        except DatabaseError as exc:
            # What matters is noted; the next anchor tries again.
            _LOG.debug("old anchors of the audit log stay: %s", exc)
