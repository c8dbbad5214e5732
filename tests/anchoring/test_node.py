"""A real node whose audit log is anchored in a real PostgreSQL, and root of its machine."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.harness import BenchError
from novacron.cli import main
from novacron.data_directory import DataDirectory
from tests.integration.node_process import ANY_HOST, REPOSITORY, NodeProcess, wait_until
from tests.security.rewriting import cut, records, rewrite
from tests.servers import Cluster

NODES = "novacron_nodes"
"""The role of the nodes here: in the tests' server novacron is the superuser."""
GUIDE = REPOSITORY / "docs" / "guide" / "security.md"


class Machine:
    """A node that may only add anchors, and the command beside it."""

    def __init__(
        self, server: Cluster, directory: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.server = server.server
        self.name = server.new_database()
        self.capsys = capsys
        self.data = directory / "data"
        self.superuser = self._configure(directory / "superuser.json", server, user="novacron")
        self.owner = self._configure(directory / "owner.json", server, user="novacron_owner")
        self.config = self._configure(directory / "node.json", server, user=NODES)

    def _configure(self, path: Path, server: Cluster, user: str) -> Path:
        login = server.settings(name=self.name, user=user)
        database = {
            "hosts": list(login.hosts),
            "name": login.name,
            "user": login.user,
            "password": login.password,
            "ca_certificate": login.ca_certificate,
        }
        content = {
            "database": {"engine": "postgresql", "postgresql": database},
            "security": {"audit_anchor_seconds": 0.1},
            "boot": {"health": {"cache": 0.05}},
        }
        path.write_text(json.dumps(content))
        return path

    def start(self) -> NodeProcess:
        return NodeProcess(self.data, *ANY_HOST, "--config", str(self.config))

    def run(
        self,
        *arguments: str,
        fails: int = 0,
        data: Path | None = None,
        config: Path | None = None,
    ) -> str:
        where = ("--data-dir", str(data or self.data), "--config", str(config or self.config))
        status = main([*arguments, *where])
        shown = self.capsys.readouterr()
        assert status == fails, shown.err + shown.out
        return shown.err + shown.out

    def psql(self, sql: str) -> str:
        return self.server.psql(sql, database=self.name)

    def anchored(self) -> int:
        return int(self.psql("SELECT COALESCE(max(seq), 0) FROM audit_anchor"))

    def last_seq(self) -> int:
        return int(records(DataDirectory(self.data))[-1]["seq"])


def documented_rights(database: str) -> str:
    """The statements of the guide, for *database* and the roles of these tests."""
    block = GUIDE.read_text().split("runs this -->", 1)[1]
    lines = re.findall(r"^    (.+;)$", block.split("\nFrom then on", 1)[0], re.MULTILINE)
    assert len(lines) > 10
    text = "\n".join(lines)
    text = text.replace("DATABASE novacron ", f'DATABASE "{database}" ')
    text = re.sub(r"\b(TO|FROM) novacron;", rf"\1 {NODES};", text)
    return re.sub("^CREATE ROLE .*$", "", text, flags=re.MULTILINE)


@pytest.fixture
def machine(cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Machine:
    made = Machine(cluster, tmp_path, capsys)
    made.run("pki", "init")
    made.run("database", "migrate", config=made.superuser)
    for role in (NODES, "novacron_owner"):
        if not made.psql(f"SELECT 1 FROM pg_roles WHERE rolname = '{role}'"):
            made.psql(f"CREATE ROLE {role} LOGIN PASSWORD '{made.server.password}'")
    made.psql(documented_rights(made.name))
    return made


def scrub(record: dict[str, Any]) -> None:
    if record["action"] == "token.create":
        record["target"] = "token:nobody"


def test_a_rewritten_or_shortened_log_is_found_by_its_anchors_and_an_untouched_one_passes(
    machine: Machine, tmp_path: Path
) -> None:
    anchors = tmp_path / "anchors.json"
    with machine.start() as node:
        node.wait_ready()
        machine.run("token", "create", "secretly", "--role", "viewer")
        wait_until(lambda: machine.anchored() == machine.last_seq())
        shown = machine.run("audit", "verify", "--anchors")
        assert "up to there nobody has rewritten the log" in shown
        listed = machine.run("audit", "anchors")
        assert str(machine.anchored()) in listed
        assert "lets the nodes" not in listed
        anchors.write_text(machine.run("audit", "anchors", "--json"))
        newest = json.loads(anchors.read_text())["anchors"][0]
        machine.run("token", "create", "later", "--role", "viewer")
        assert node.stop() == 0
    # The record of the stop itself follows the last anchor.
    assert machine.anchored() == machine.last_seq() - 1 > newest["seq"]

    def copied(change: Callable[[DataDirectory], None]) -> Path:
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(machine.data, copy)
        change(DataDirectory(copy))
        return copy

    held = ("--anchors", str(anchors))
    assert "Nothing was changed" in machine.run("audit", "verify", *held)
    copy = copied(lambda directory: rewrite(directory, scrub))
    assert "Nothing was changed" in machine.run("audit", "verify", data=copy)
    shown = machine.run("audit", "verify", *held, data=copy, fails=1)
    assert f"anchor of record {newest['seq']}: the log has the hash " in shown
    assert f"{newest['hash']} was anchored at {newest['recorded']}" in shown
    evidence = ("audit", "verify", "--path", str(copy / "audit"))
    assert newest["hash"] in machine.run(*evidence, *held, fails=1)
    copy = copied(lambda directory: cut(directory, 2))
    assert "Nothing was changed" in machine.run("audit", "verify", data=copy)
    shown = machine.run("audit", "verify", *held, data=copy, fails=1)
    assert "the log ends with record 2" in shown

    before = machine.psql("SELECT * FROM audit_anchor ORDER BY seq")
    rewrite(DataDirectory(machine.data), scrub)
    with machine.start() as node:
        node.wait_ready()
        assert node.wait_log("The audit log does not fit what was anchored")["level"] == "error"
        wait_until(lambda: "does not fit its anchor" in machine.run("health"), every=0.2)
        wait_until(lambda: machine.anchored() == machine.last_seq())
        machine.run("audit", "verify", "--anchors", fails=1)
        assert node.stop() == 0
    found = [r for r in records(DataDirectory(machine.data)) if "conflict" in r["action"]]
    assert [record["outcome"] for record in found] == ["failure"]
    assert machine.psql("SELECT * FROM audit_anchor ORDER BY seq").startswith(before)


def test_a_node_goes_on_while_the_database_is_away_and_anchors_again_afterwards(
    machine: Machine,
) -> None:
    with machine.start() as node:
        node.wait_ready()
        wait_until(lambda: machine.anchored() > 0)
        anchored = machine.anchored()
        machine.server.kill()
        # A token of the node's own; the change is recorded by the node, and would be anchored.
        machine.run("certificate", "renew")
        node.wait_log("The audit log is not anchored in the database")
        assert "degraded" in machine.run("status")
        machine.server.start()
        node.wait_log("The audit log is anchored in the database again")
        assert machine.anchored() > anchored
        machine.server.kill()
        machine.run("certificate", "renew")
        assert node.stop() == 0
        machine.server.start()


def test_with_the_documented_rights_the_nodes_role_adds_anchors_and_nothing_else(
    machine: Machine,
) -> None:
    machine.psql(f"SET ROLE {NODES}; INSERT INTO audit_anchor VALUES ('node', 7, 'hash', 1.0)")
    for statement in (
        "UPDATE audit_anchor SET hash = 'x'",
        "DELETE FROM audit_anchor",
        "TRUNCATE audit_anchor",
        "DROP TABLE audit_anchor",
        "ALTER TABLE audit_anchor DISABLE TRIGGER ALL",
        "INSERT INTO audit_anchor VALUES ('node', 7, 'hash', 1.0)"
        " ON CONFLICT (node_id, seq, hash) DO UPDATE SET hash = 'x'",
        "DROP SCHEMA public CASCADE",
    ):
        with pytest.raises(BenchError, match=r"permission denied|must be owner"):
            machine.psql(f"SET ROLE {NODES}; {statement}")
    machine.psql(f"SET ROLE {NODES}; GRANT DELETE ON audit_anchor TO {NODES}")
    may = f"SELECT has_table_privilege('{NODES}', 'audit_anchor', 'UPDATE, DELETE, TRUNCATE')"
    assert machine.psql(may) == "f"
    assert machine.psql("SELECT hash FROM audit_anchor") == "hash"


def test_backup_migration_and_restoration_are_the_owners_and_anchors_survive_them(
    machine: Machine, tmp_path: Path
) -> None:
    machine.psql("INSERT INTO audit_anchor VALUES ('node', 5000000000, 'hash', 1.5)")
    backup = tmp_path / "backup.ncb"
    machine.run("database", "backup", str(backup))
    machine.psql("DROP TABLE audit_anchor; UPDATE alembic_version SET version_num = '0003'")
    refused = machine.run("database", "migrate", fails=1)
    assert "permission denied" in refused
    assert "have it run what changes tables" in refused
    machine.run("database", "migrate", config=machine.owner)
    assert machine.psql("SELECT count(*) FROM audit_anchor") == "0"
    assert "permission denied" in machine.run("database", "restore", str(backup), "--yes", fails=1)
    machine.run("database", "restore", str(backup), "--yes", config=machine.owner)
    assert machine.psql("SELECT * FROM audit_anchor") == "node|5000000000|hash|1.5"
    machine.run("database", "verify", config=machine.owner)
    # As the guide says, the tables were made anew; the default privileges gave too much again.
    may = f"SELECT has_table_privilege('{NODES}', 'audit_anchor', 'DELETE')"
    assert machine.psql(may) == "t"
    machine.psql("\n".join(documented_rights(machine.name).splitlines()[-3:]))
    assert machine.psql(may) == "f"
