"""Arbitrary rows through a restoration on PostgreSQL, and what comes after its commit."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from novacron.database.copies.tables import Column, Table
from novacron.database.postgresql_session import Session
from novacron.database.schema import revisions
from novacron.errors import DatabaseError
from tests.database.copies.support import Values, quiet
from tests.database.copies.test_postgresql import World
from tests.servers import Cluster

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
REALS = st.floats(allow_nan=False)
ROWS = st.lists(
    st.tuples(TEXT, TEXT, TEXT, REALS, st.none() | REALS).map(list),
    unique_by=lambda row: row[0],
    max_size=12,
)


@pytest.fixture(scope="module")
def shared(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> World:
    made = World(cluster, tmp_path_factory.mktemp("shared"))
    made.operations.migrate(quiet)
    return made


@settings(max_examples=8)
@given(rows=ROWS)
def test_arbitrary_values_are_what_they_were(shared: World, rows: list[list[object]]) -> None:
    names = ("node_id", "boot_id", "addresses", "started", "stopped")
    source = Values({"node_registration": ((), rows)}, revisions()[-1])
    columns = tuple(Column(n, "real" if n.startswith("st") else "text") for n in names)
    source.tables = (Table("node_registration", columns, len(rows)),)
    operations = shared.operations
    with operations.alone("restore", force=True):
        operations.restore(source, quiet, keep=False)
    with contextlib.closing(operations.open_snapshot()) as snapshot:
        (table,) = (t for t in snapshot.tables if t.name == "node_registration")
        found = [list(row) for row in snapshot.rows(table)]
    assert sorted(map(repr, found)) == sorted(map(repr, rows))


def test_what_follows_the_commit_does_not_make_a_restoration_fail(
    shared: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared.fill(10)
    there = shared.count()
    shared.back_up(tmp_path / "b")
    shared.sql("DELETE FROM node_registration")
    plain = Session.execute

    def execute(session: Session, statement: str, parameters: tuple[object, ...] = ()) -> int:
        if statement == "ANALYZE":
            raise DatabaseError("the connection was lost")
        return plain(session, statement, parameters)

    monkeypatch.setattr(Session, "execute", execute)
    shared.restore(tmp_path / "b")
    assert shared.count() == there
