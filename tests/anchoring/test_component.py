"""When the component anchors, what it says of a database that is away, and what its stop takes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from novacron.anchoring import Anchoring
from novacron.anchoring.component import AGAIN, FIRST, OVERDUE
from novacron.component import HealthDepth, HealthState
from novacron.config.schema import DatabaseSettings, SecuritySettings
from novacron.database import Database
from novacron.database.store import DatabaseUnavailableError, Row
from novacron.environment import Identity
from novacron.security import Security
from tests.security.stand_ins import StandInIdentity, make_security

INTERVAL = 300.0


class Table:
    """A database of nothing but anchors, which can be away or never answer."""

    engine = "postgresql"

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.tried = 0
        self.away = False
        self.hangs = False

    async def execute(self, sql: str, parameters: Any = None, **options: Any) -> int:
        await trio.lowlevel.checkpoint()
        self.rows.append(dict(parameters))
        return 1

    async def fetch_all(self, sql: str, parameters: Any = None, **options: Any) -> list[Row]:
        self.tried += 1
        await trio.lowlevel.checkpoint()
        if self.hangs:
            await trio.sleep_forever()
        if self.away:
            raise DatabaseUnavailableError("PostgreSQL is away", why="connection refused")
        return []

    async def fetch_one(self, sql: str, parameters: Any = None, **options: Any) -> Row | None:
        await trio.lowlevel.checkpoint()
        return (0,)


class Node:
    def __init__(self, root: Path, engine: str) -> None:
        self.security: Security = make_security(root)[0]
        for path in (root / "secrets", root / "audit"):
            path.mkdir(parents=True)
        self.security.audit.open_blocking()
        self.table = Table()
        settings = {} if engine == "sqlite" else {"postgresql": {"hosts": ("127.0.0.1:1",)}}
        self.component = Anchoring(
            self.security,
            cast(Database, self.table),
            cast(Identity, StandInIdentity()),
            SecuritySettings(audit_anchor_seconds=INTERVAL),
            DatabaseSettings(engine=cast(Any, engine), **cast(Any, settings)),
        )

    def record(self) -> None:
        self.security.audit.append_blocking("test.action", "tester", "something")

    async def health(self) -> tuple[HealthState, str]:
        found = await self.component.health_check(HealthDepth.DEEP)
        return found.state, found.message


@asynccontextmanager
async def running(root: Path, engine: str = "postgresql") -> AsyncIterator[Node]:
    node = Node(root, engine)
    async with trio.open_nursery() as nursery:
        await node.component.initialize(nursery)
        yield node
        nursery.cancel_scope.cancel()
    node.security.audit.close_blocking()


@pytest.fixture(autouse=True)
def _no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that jumps when every task waits would not wait for a thread."""

    async def inline(work: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return work(*arguments)

    monkeypatch.setattr(trio.to_thread, "run_sync", inline)


async def pass_seconds(seconds: float) -> None:
    """To a little after *seconds* from now, so that what is due by then is done."""
    await trio.sleep(seconds + 0.5)


async def test_the_first_anchor_waits_for_the_boot_and_the_others_for_the_interval(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with running(tmp_path / "node") as node:
        node.record()
        await pass_seconds(FIRST - 2)
        assert node.table.rows == []
        await pass_seconds(2)
        assert len(node.table.rows) == 1
        node.record()
        await pass_seconds(INTERVAL)
        assert [row["seq"] for row in node.table.rows] == [1, 2]
        assert node.component.statistics()["last_seq"] == 2
        assert await node.health() == (HealthState.HEALTHY, "")


async def test_a_database_that_is_away_is_warned_of_once_and_degrades_after_three_intervals(
    tmp_path: Path, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path / "node") as node:
        node.table.away = True
        node.record()
        await pass_seconds(FIRST + 3 * AGAIN)
        assert node.table.tried >= 3
        assert await node.health() == (HealthState.HEALTHY, "")
        await pass_seconds(OVERDUE * INTERVAL)
        state, message = await node.health()
        assert state is HealthState.DEGRADED
        assert "was not anchored for" in message
        assert "connection refused" in message
        assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 1
        node.table.away = False
        await pass_seconds(AGAIN)
        assert await node.health() == (HealthState.HEALTHY, "")
        assert [row["seq"] for row in node.table.rows] == [1]


async def test_the_stop_anchors_what_was_recorded_since(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with running(tmp_path / "node") as node:
        node.record()
        await node.component.shutdown()
        assert [row["seq"] for row in node.table.rows] == [1]


async def test_a_database_that_never_answers_does_not_keep_the_node_from_stopping(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with running(tmp_path / "node") as node:
        node.table.hangs = True
        node.record()
        with trio.fail_after(Anchoring.stop_timeout):
            await node.component.shutdown()
        assert node.table.tried == 1
        assert node.table.rows == []


async def test_a_node_that_shares_no_database_anchors_nothing(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with running(tmp_path / "node", "sqlite") as node:
        node.record()
        await pass_seconds(2 * INTERVAL)
        await node.component.shutdown()
        assert node.table.tried == 0
        assert node.component.statistics() == {"anchored": False, "failure": None}
        assert await node.health() == (HealthState.HEALTHY, "")
