"""The anchors of a node, on both engines: made, held against the log, and reported."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from novacron.anchoring import anchors as anchoring
from novacron.anchoring import table as anchor_table
from novacron.anchoring.anchors import Anchors
from novacron.anchoring.table import AnchorTable
from novacron.database.schema import SQLITE_SNAPSHOT
from novacron.database.store import DatabaseUnavailableError
from novacron.security.audit import AuditLog
from novacron.security.audit_anchors import AuditAnchor
from tests.api.cluster import Clock, Shared, postgresql_store, sqlite_store
from tests.security.rewriting import cut, records, rewrite
from tests.security.stand_ins import NODE_ID, OTHER_ID, prepared
from tests.servers import Cluster

SCHEMA = re.search(r"CREATE TABLE audit_anchor \(.*?\n\)", SQLITE_SNAPSHOT.read_text(), re.DOTALL)


class Database(Shared):
    @property
    def engine(self) -> str:
        return self.store.engine


class Node:
    """An audit log and its anchors; its clock stands still unless it is moved."""

    def __init__(self, database: Database, root: Path) -> None:
        self.database = database
        self.directory = prepared(root)
        self.clock = Clock()
        self.start()

    def start(self) -> None:
        """Open the log, in a new process as far as it can tell."""
        self.log = AuditLog(self.directory, now=self.clock)
        self.log.open_blocking()
        self.anchors = Anchors(self.database, self.log, NODE_ID, now=self.clock)

    def stop(self) -> None:
        self.log.close_blocking()

    def record(self, *targets: str) -> None:
        for target in targets:
            self.log.append_blocking("test.action", "tester", target)

    async def rows(self) -> list[tuple[int, str]]:
        table = AnchorTable(self.database)
        return sorted((anchor.seq, anchor.hash) for anchor in await table.newest(NODE_ID))

    def hashes(self) -> dict[int, str]:
        return {record["seq"]: record["hash"] for record in records(self.directory)}


@asynccontextmanager
async def opened(engine: str, request: pytest.FixtureRequest, path: Path) -> AsyncIterator[Any]:
    if engine == "sqlite":
        async with sqlite_store(path) as store:
            yield store
    else:
        servers: Cluster = request.getfixturevalue("cluster")
        name: str = request.getfixturevalue("database_name")
        async with postgresql_store(servers.settings(name=name)) as store:
            await store.execute("DROP TABLE IF EXISTS audit_anchor")
            yield store


@pytest.fixture(params=["sqlite", "postgresql"])
async def node(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Node]:
    with trio.fail_after(60):
        async with opened(request.param, request, tmp_path) as store:
            assert SCHEMA is not None
            await store.execute(SCHEMA.group().replace("DOUBLE", "DOUBLE PRECISION"))
            made = Node(Database(store), tmp_path / "node")
            yield made
            made.stop()


async def test_the_end_of_the_log_is_noted_when_something_was_recorded(node: Node) -> None:
    assert not await node.anchors.anchor()
    node.record("a", "b")
    assert await node.anchors.anchor()
    assert not await node.anchors.anchor()
    node.record("c")
    assert await node.anchors.anchor()
    hashes = node.hashes()
    assert await node.rows() == [(2, hashes[2]), (3, hashes[3])]
    newest = AuditAnchor(NODE_ID, 3, hashes[3], node.clock.time)
    table = AnchorTable(node.database)
    assert (await table.newest(NODE_ID))[0] == newest
    assert await table.newest("") == [newest]
    assert node.anchors.statistics()["last_seq"] == 3
    assert node.anchors.misfits == {}


async def test_what_another_process_recorded_is_anchored_too(node: Node) -> None:
    node.record("a")
    beside = AuditLog(node.directory)
    beside.append_blocking("token.create", "cli:root", "b")
    beside.close_blocking()
    assert await node.anchors.anchor()
    assert [seq for seq, _ in await node.rows()] == [2]


async def test_a_database_that_is_away_is_told_and_tried_again(node: Node) -> None:
    node.record("a")
    node.database.away = True
    with pytest.raises(DatabaseUnavailableError):
        await node.anchors.anchor()
    node.database.away = False
    assert await node.anchors.anchor()
    assert [seq for seq, _ in await node.rows()] == [1]


async def test_a_log_that_was_made_anew_between_two_starts_is_reported_once(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    node.record("a", "b", "c")
    await node.anchors.anchor()
    before = await node.rows()
    node.stop()
    rewrite(node.directory, lambda record: record.update(actor="somebody"))
    node.start()
    await node.anchors.anchor()
    node.record("d")
    await node.anchors.anchor()
    (told,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "record 3, anchored at 2027" in told.getMessage()
    assert before[0][1] in told.getMessage()
    ((anchor, why),) = node.anchors.misfits.items()
    assert (anchor.seq, anchor.hash) == before[0]
    assert "made anew" in why
    (recorded,) = [r for r in records(node.directory) if r["action"] == "audit.anchor_conflict"]
    assert recorded["outcome"] == "failure"
    assert recorded["details"]["anchored"] == anchor.hash
    hashes = node.hashes()
    # What contradicts stays, and the record that says so is anchored with the rest.
    assert await node.rows() == [*before, (4, hashes[4]), (5, hashes[5])]


async def test_a_log_that_is_made_anew_while_the_node_runs_is_reported(node: Node) -> None:
    node.record("a", "b", "c")
    await node.anchors.anchor()
    rewrite(node.directory, lambda record: record.update(actor="somebody"))
    node.record("d")
    await node.anchors.anchor()
    assert [anchor.seq for anchor in node.anchors.misfits] == [3]


async def test_a_log_that_ends_before_its_newest_anchor_is_reported(node: Node) -> None:
    node.record("a", "b", "c")
    await node.anchors.anchor()
    node.stop()
    cut(node.directory, 1)
    node.start()
    await node.anchors.anchor()
    assert ["its end was cut off" in why for why in node.anchors.misfits.values()] == [True]


async def test_a_record_that_went_because_it_was_old_contradicts_nothing(node: Node) -> None:
    node.record("a")
    await node.anchors.anchor()
    node.stop()
    node.log = AuditLog(node.directory, max_bytes=600, keep_files=1, now=node.clock)
    node.log.open_blocking()
    node.record("b", "c", "d")
    assert records(node.directory)[0]["seq"] > 1
    anchors = Anchors(node.database, node.log, NODE_ID, now=node.clock)
    assert await anchors.anchor()
    assert anchors.misfits == {}


async def test_another_hash_of_the_same_record_is_kept_beside_and_reported(node: Node) -> None:
    node.record("a", "b")
    table = AnchorTable(node.database)
    false = AuditAnchor(NODE_ID, 2, "f" * 64, node.clock.time)
    assert await table.add(false)
    assert not await table.add(false)
    await node.anchors.anchor()
    assert list(node.anchors.misfits) == [false]
    rows = await node.rows()
    assert (2, "f" * 64) in rows
    # The report is a record of its own, and the end of what is anchored.
    assert [seq for seq, _ in rows] == [2, 3]


async def test_a_flood_of_false_anchors_is_reported_up_to_a_limit(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(anchoring, "MISFIT_LIMIT", 2)
    node.record("a")
    for seq in range(10, 15):
        await AnchorTable(node.database).add(AuditAnchor(NODE_ID, seq, "f" * 64, 0.0))
    await node.anchors.anchor()
    await node.anchors.anchor()
    assert [anchor.seq for anchor in node.anchors.misfits] == [10, 11]
    assert [record["seq"] for record in records(node.directory)] == [1, 2, 3]


async def test_the_anchors_of_other_nodes_are_nobodys_business(node: Node) -> None:
    table = AnchorTable(node.database)
    await table.add(AuditAnchor(OTHER_ID, 99, "f" * 64, node.clock.time))
    node.record("a")
    await node.anchors.anchor()
    assert node.anchors.misfits == {}
    assert {anchor.node_id for anchor in await table.newest("")} == {NODE_ID, OTHER_ID}
    assert [anchor.seq for anchor in await table.newest(OTHER_ID)] == [99]


async def test_the_oldest_anchors_of_the_node_go(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(anchor_table, "KEPT", 3)
    await AnchorTable(node.database).add(AuditAnchor(OTHER_ID, 1, "f" * 64, 0.0))
    for target in "abcde":
        node.record(target)
        await node.anchors.anchor()
    assert [seq for seq, _ in await node.rows()] == [3, 4, 5]
    assert len(await AnchorTable(node.database).newest(OTHER_ID)) == 1
    # The role here owns the table: nothing keeps it from more.
    assert node.anchors.append_only is False


async def test_damage_below_an_anchor_is_reported_and_the_log_goes_on(node: Node) -> None:
    node.record("a")
    await node.anchors.anchor()
    (path,) = node.directory.audit.glob("*.jsonl")
    node.record("b")
    lines = path.read_bytes().splitlines(keepends=True)
    spoiled = json.loads(lines[0]) | {"actor": "x"}
    path.write_bytes(
        json.dumps(spoiled).encode().ljust(len(lines[0]) - 1)[: len(lines[0]) - 1]
        + b"\n"
        + lines[1]
    )
    assert await node.anchors.anchor()
    assert ["damaged" in why for why in node.anchors.misfits.values()] == [True]
