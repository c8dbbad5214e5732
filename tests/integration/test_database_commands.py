"""``novacron database`` beside real nodes: backed up while they run, moved to the other engine, restored."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.node_process import ANY_HOST, REPOSITORY, NodeProcess
from tests.servers import Cluster, postgresql_cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with postgresql_cluster() as cluster:
        yield cluster


class Installation:
    """One node's directory and configuration, its process and the operator's command."""

    def __init__(self, root: Path, cluster: Cluster) -> None:
        self.data, self.file = root / "data", root / "node.json"
        settings = cluster.settings(name=cluster.new_database()).model_dump(exclude_none=True)
        self.database: dict[str, Any] = {"engine": "sqlite", "postgresql": settings}
        self.configure("sqlite")

    def configure(self, engine: str) -> None:
        self.file.write_text(
            json.dumps({"database": self.database | {"engine": engine}}, default=list)
        )

    def node(self) -> NodeProcess:
        return NodeProcess(self.data, *ANY_HOST, "--config", str(self.file))

    def command(self, *arguments: str, exits: int = 0) -> Any:
        """The document that the command prints, or standard error where it fails."""
        where = ("--config", str(self.file), "--data-dir", str(self.data), "--json")
        done = subprocess.run(
            [sys.executable, "-m", "novacron", "database", *arguments, *where],
            capture_output=True,
            text=True,
            cwd=REPOSITORY,
            timeout=120,
            check=False,
        )
        assert done.returncode == exits, done.stderr + done.stdout
        return json.loads(done.stdout) if done.stdout else done.stderr


def test_a_database_goes_from_sqlite_to_postgresql_and_back_between_boots(
    tmp_path: Path, cluster: Cluster
) -> None:
    one = Installation(tmp_path, cluster)
    backup = tmp_path / f"{uuid.uuid4()}.ncb"
    with one.node() as node:
        node.wait_ready()
        assert one.command("backup", str(backup))["rows"] >= 1
        assert one.command("verify")["ok"]
        assert "while a node runs" in one.command("restore", str(backup), "--yes", exits=1)
        copy = ("copy", "--from", "sqlite:", "--to", "postgresql")
        assert "while a node runs" in one.command(*copy, exits=1)
        assert one.command("verify", str(backup))["ok"]
        assert node.stop() == 0, node.text()
    assert one.command("restore", str(backup), "--yes")["kept"]

    moved = one.command(*copy)
    assert {"node_heartbeat", "node_registration"} <= {t["table"] for t in moved["tables"]}
    one.configure("postgresql")
    with one.node() as node:
        node.wait_ready()
        assert one.command("status")["nodes"] == 1
        back = tmp_path / "back.ncb"
        assert one.command("backup", str(back))["engine"] == "postgresql"
        assert one.command("verify")["ok"]
        assert "are registered as running" in one.command("restore", str(back), "--yes", exits=1)
        assert node.stop() == 0, node.text()
    assert one.command("restore", str(backup), "--yes")["kept"]

    one.configure("sqlite")
    one.command("restore", str(back), "--yes", "--force")
    with one.node() as node:
        node.wait_ready()
        assert one.command("status")["place"].endswith("novacron.db")
        assert node.stop() == 0, node.text()
