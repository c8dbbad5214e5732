"""The component that anchors the audit log while the node runs, and once more at its orderly stop."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

import trio

from novacron.component import (
    HEALTHY,
    Criticality,
    Health,
    HealthDepth,
    HealthState,
    ObservableComponent,
    Phase,
)
from novacron.config.schema import DatabaseSettings, SecuritySettings
from novacron.database import Database
from novacron.environment import Identity
from novacron.errors import DatabaseError
from novacron.security import Security

if TYPE_CHECKING:
    from novacron.anchoring.anchors import Anchors

logger = logging.getLogger("novacron.anchoring")

FIRST: Final = 10.0
"""Seconds from the start to the first anchor: past the boot, which has better to do."""
AGAIN: Final = 30.0
"""Seconds after which one that failed is tried again, where that is sooner than the next."""
OVERDUE: Final = 3
"""Intervals without an anchor after which health says so. A restart of the server is none of them."""
LAST_TIMEOUT: Final = 2.0
"""Seconds the anchor at the stop may take. A database that is known to be away takes none."""


class Anchoring(ObservableComponent):
    """Notes where the audit log stands in the database that the nodes share; where they share none,
    nothing."""

    name: ClassVar[str] = "anchoring"
    phase: ClassVar[Phase] = Phase.CORE
    criticality: ClassVar[Criticality] = Criticality.WARNING

    def __init__(
        self,
        security: Security,
        database: Database,
        identity: Identity,
        settings: SecuritySettings,
        database_settings: DatabaseSettings,
    ) -> None:
        self._security = security
        self._database = database
        self._identity = identity
        self._interval = settings.audit_anchor_seconds
        self._shared = database_settings.engine == "postgresql"
        self._anchors: Anchors | None = None
        self._running = False
        self._scope = trio.CancelScope()
        self._failure = ""
        self._looked = 0.0

    async def initialize(self, nursery: trio.Nursery) -> None:
        if not self._shared:
            return
        self._scope = trio.CancelScope()
        self._looked = trio.current_time()
        self._running = True
        nursery.start_soon(self._keep)

    def _made(self) -> Anchors:
        """Kept over restarts of the component: what was found wrong stays said. Blocks: it is imported
        when it is needed, which no boot waits for."""
        if self._anchors is None:
            from novacron.anchoring.anchors import Anchors

            self._anchors = Anchors(
                self._database,
                self._security.audit,
                str(self._identity.node_id),
                now=self._security.now,
            )
        return self._anchors

    async def _keep(self) -> None:
        with self._scope:
            await trio.sleep(min(FIRST, self._interval))
            while True:
                await self._anchor()
                await trio.sleep(min(AGAIN, self._interval) if self._failure else self._interval)

    async def _anchor(self) -> None:
        anchors = await trio.to_thread.run_sync(self._made)
        try:
            await anchors.anchor()
        except DatabaseError as exc:
            if not self._failure:
                logger.warning(
                    "The audit log is not anchored in the database, which is tried again: %s", exc
                )
            self._failure = str(exc)
        else:
            if self._failure:
                logger.info("The audit log is anchored in the database again.")
            self._failure = ""
            self._looked = trio.current_time()

    async def shutdown(self) -> None:
        self._scope.cancel()
        running, self._running = self._running, False
        if running:
            with trio.move_on_after(LAST_TIMEOUT):
                await self._anchor()

    async def health_check(self, depth: HealthDepth) -> Health:
        misfits = {} if self._anchors is None else self._anchors.misfits
        if misfits:
            anchor, why = next(iter(misfits.items()))
            return Health(
                HealthState.DEGRADED,
                f"the audit log does not fit its anchor of record {anchor.seq}, made at {anchor.when}: "
                f"{why}; see the runbook audit-broken",
                {"conflicts": len(misfits)},
            )
        since = trio.current_time() - self._looked
        if self._failure and since > OVERDUE * self._interval:
            return Health(
                HealthState.DEGRADED,
                f"the audit log was not anchored for {since:.0f} seconds: {self._failure}",
            )
        return HEALTHY

    def statistics(self) -> Mapping[str, Any]:
        found = {} if self._anchors is None else self._anchors.statistics()
        return {"anchored": self._shared, **found, "failure": self._failure or None}
