"""``novacron database`` on a PostgreSQL server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from novacron.database.schema import revisions, seal
from novacron.units import NodeId
from tests.cli.booted import Booted
from tests.database.copies.support import add_migration, content
from tests.database.support import change, open_and_close, rows
from tests.security.stand_ins import NODE_ID, OTHER_ID
from tests.servers import Cluster, postgresql_cluster

COPY = ("copy", "--from", "sqlite:", "--to", "postgresql")
REGISTERED = "INSERT INTO node_registration VALUES ('{}', 'b', '{{}}', 1.5, {})"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with postgresql_cluster() as cluster:
        yield cluster


class Shared(Booted):
    """A node whose configuration names a new, empty PostgreSQL database."""

    def __init__(
        self, root: Path, capsys: pytest.CaptureFixture[str], cluster: Cluster, **changes: object
    ) -> None:
        super().__init__(root, capsys)
        self.server = cluster.server
        self.name = cluster.new_database()
        settings = cluster.settings(name=self.name, **changes).model_dump(exclude_none=True)
        self.config = root / "node.yaml"
        document = {"database": {"engine": "postgresql", "postgresql": settings}}
        self.config.write_text(json.dumps(document, default=list))
        open_and_close(root, node_id=NodeId(NODE_ID))
        self.path = self.directory.database / "novacron.db"

    def run(self, *arguments: str, fails: int = 0) -> str:
        return super().run(*arguments, "--config", str(self.config), fails=fails)

    def sql(self, statement: str) -> str:
        return self.server.psql(statement, database=self.name)

    def registered(self) -> list[str]:
        return self.sql("SELECT node_id FROM node_registration ORDER BY 1").split()


@pytest.fixture
def node(tmp_path: Path, capsys: pytest.CaptureFixture[str], cluster: Cluster) -> Shared:
    return Shared(tmp_path / "node", capsys, cluster)


@pytest.fixture
def made(node: Shared) -> Shared:
    """With the newest schema and two nodes that have stopped."""
    node.json("database", "migrate")
    for name in ("n1", "n2"):
        node.sql(REGISTERED.format(name, "2.5"))
    return node


def test_an_empty_database_is_migrated_and_claimed_for_the_cluster(node: Shared) -> None:
    found = node.json("database", "status", fails=3)
    assert found["state"] == "absent"
    assert len(node.json("database", "migrate", "--dry-run", fails=3)["pending"]) == len(
        revisions()
    )
    done = node.json("database", "migrate")
    assert (done["from"], done["to"], done["backup"]) == (None, revisions()[-1], None)
    found = node.json("database", "status")
    (authority,) = node.security.certificates.authority_hashes()
    assert found["state"] == "current"
    assert found["owner"] == f"cluster {authority}"
    assert found["server"]["role"] == "primary"
    assert found["server"]["tls"].startswith("TLSv1.")
    assert found["server"]["version"].split(".")[0].isdigit()
    assert found["server"]["connections"] >= 1
    assert found["nodes"] == 0
    assert "There are no backups" in node.run("database", "status")
    assert "The schema is the newest" in node.run("database", "migrate")
    assert node.actions().count("database.migrate") == 1


def test_a_server_that_is_away_is_unusable_and_named(node: Shared) -> None:
    node.config.write_text(node.config.read_text().replace(str(node.server.port), "1"))
    found = node.json("database", "status", fails=1)
    assert "PostgreSQL at 127.0.0.1:1 is away" in found["fault"]
    assert "is away" in node.run("database", "backup", "x", fails=1)


def test_a_certificate_for_another_name_is_named(made: Shared, tmp_path: Path) -> None:
    made.server.certify(["elsewhere.example"])
    made.server.reload()
    try:
        shown = made.run("database", "backup", str(tmp_path / "b"), fails=1)
    finally:
        made.server.certify(["localhost", "127.0.0.1"])
        made.server.reload()
    assert "certificate is not for 127.0.0.1" in shown
    assert made.server.password not in shown


def test_a_wrong_password_is_named_and_not_shown(made: Shared, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("a wrong password")
    wrong.chmod(0o600)
    shown = made.run(
        "database", "backup", "x", "--set", f"database.postgresql.password=file:{wrong}", fails=1
    )
    assert "does not let novacron in" in shown
    assert "a wrong password" not in shown


def test_a_backup_is_made_checked_and_restored(made: Shared, tmp_path: Path) -> None:
    file = tmp_path / "cluster.ncb"
    backup = made.json("database", "backup", str(file))
    assert (backup["engine"], backup["rows"]) == ("postgresql", 2)
    assert made.json("database", "verify", str(file))["ok"]
    made.sql("DELETE FROM node_registration; INSERT INTO node_heartbeat VALUES ('new', 'b', 1)")
    assert "nobody to ask" in made.run("database", "restore", str(file), fails=1)
    done = made.json("database", "restore", str(file), "--yes")
    assert made.registered() == ["n1", "n2"]
    assert made.sql("SELECT count(*) FROM node_heartbeat") == "0"
    # What was replaced can be brought back.
    made.json("database", "restore", done["kept"], "--yes")
    assert made.registered() == []
    assert made.sql("SELECT node_id FROM node_heartbeat") == "new"
    assert made.json("database", "verify")["ok"]
    assert made.actions()[-1] == "database.restore"


def test_a_restoration_is_refused_while_nodes_are_registered_as_running(
    made: Shared, tmp_path: Path
) -> None:
    made.json("database", "backup", str(tmp_path / "b"))
    made.sql(REGISTERED.format("alive", "NULL"))
    shown = made.run("database", "restore", str(tmp_path / "b"), "--yes", fails=1)
    assert "alive (no heartbeat)" in shown
    assert made.registered() == ["alive", "n1", "n2"]
    made.json("database", "restore", str(tmp_path / "b"), "--yes", "--force")
    assert made.registered() == ["n1", "n2"]


def test_backups_fit_the_other_engine(made: Shared, tmp_path: Path) -> None:
    made.json("database", "backup", str(tmp_path / "from-postgresql"))
    set_sqlite = ("--set", "database.engine=sqlite")
    made.json("database", "restore", str(tmp_path / "from-postgresql"), "--yes", *set_sqlite)
    assert [row[0] for row in content(made.path)["node_registration"]] == ["n1", "n2"]
    assert rows(made.path, "SELECT node_id FROM node_identity") == [(NODE_ID,)]
    assert rows(made.path, "SELECT count(*) FROM cluster_identity") == [(0,)]
    change(made.path, "INSERT INTO node_registration VALUES ('n3', '“b”\n', '\\N', 3, NULL)")
    made.json("database", "backup", str(tmp_path / "from-sqlite"), *set_sqlite)
    made.json("database", "restore", str(tmp_path / "from-sqlite"), "--yes")
    assert made.registered() == ["n1", "n2", "n3"]
    assert made.sql("SELECT boot_id || addresses FROM node_registration WHERE node_id = 'n3'") == (
        "“b”\n\\N"
    )
    assert made.sql("SELECT count(*) FROM node_identity") == "0"
    made.json("database", "verify")


def test_a_sqlite_database_is_copied_and_becomes_the_clusters(node: Shared) -> None:
    change(
        node.path,
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)"
        " INSERT INTO node_registration SELECT 'n' || i, hex(randomblob(20)), '{}', i, i / 7.0 FROM n",
    )
    before = node.path.read_bytes()
    shown = node.run("database", "copy", "--from", "sqlite:", "--to", "postgresql")
    assert "Counts and checksums are the same" in shown
    assert node.sql("SELECT count(*), sum(started) FROM node_registration") == "3000|4501500"
    (authority,) = node.security.certificates.authority_hashes()
    assert node.json("database", "status")["owner"] == f"cluster {authority}"
    assert node.path.read_bytes() == before
    refused = node.run("database", "copy", "--from", "sqlite:", "--to", "postgresql", fails=1)
    assert "is not empty" in refused
    assert "3000 rows" in refused
    change(node.path, "DELETE FROM node_registration WHERE node_id <> 'n1'")
    done = node.json(
        "database", "copy", "--from", f"sqlite:{node.path}", "--to", "postgresql", "--force"
    )
    assert node.registered() == ["n1"]
    assert done["replaced"]["rows"] == 3000
    assert node.json("database", "verify", done["kept"])["rows"] == 3000
    assert node.actions().count("database.copy") == 2


def test_only_a_sqlite_file_can_be_copied(node: Shared) -> None:
    for source in ("postgresql:x", node.path.name):
        shown = node.run("database", "copy", "--from", source, "--to", "postgresql", fails=1)
        assert "sqlite:PATH" in shown


def test_a_value_that_postgresql_cannot_keep_is_refused_and_nothing_changes(
    made: Shared, tmp_path: Path
) -> None:
    change(made.path, "INSERT INTO node_registration VALUES ('n' || char(0), 'b', '{}', 1, NULL)")
    copy = ("database", "copy", "--from", "sqlite:", "--to", "postgresql", "--force")
    shown = made.run(*copy, fails=1)
    assert "node_registration" in shown
    assert "does not fit" in shown
    change(
        made.path,
        "DELETE FROM node_registration",
        "INSERT INTO node_registration VALUES ('secret', 'b', '{}', 'sesame', NULL)",
    )
    shown = made.run(*copy, fails=1)
    assert "node_registration, line 1" in shown
    assert "sesame" not in shown
    assert made.registered() == ["n1", "n2"]


def test_an_older_backup_is_migrated_and_counters_go_on(
    made: Shared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.json("database", "backup", str(tmp_path / "old"))
    after = add_migration(tmp_path / "migrations", monkeypatch)
    done = made.json("database", "restore", str(tmp_path / "old"), "--yes")
    assert done["revision"] == after
    assert made.sql("SELECT version_num FROM alembic_version") == after
    assert made.registered() == ["n1", "n2"]
    # The row of the migration has number 7.
    assert made.sql("INSERT INTO second DEFAULT VALUES RETURNING id") == "8"
    made.json("database", "backup", str(tmp_path / "new"))
    made.json("database", "restore", str(tmp_path / "new"), "--yes")
    assert made.sql("SELECT id FROM second ORDER BY id") == "7\n8"
    assert made.sql("INSERT INTO second DEFAULT VALUES RETURNING id") == "9"


def test_another_programs_database_is_refused(node: Shared, tmp_path: Path) -> None:
    node.json("database", "backup", str(tmp_path / "b"), "--set", "database.engine=sqlite")
    node.sql("CREATE TABLE orders (id int)")
    assert node.json("database", "status", fails=1)["state"] == "unusable"
    for arguments in (("migrate",), ("restore", str(tmp_path / "b"), "--yes"), ("backup",)):
        assert "orders" in node.run("database", *arguments, fails=1) or arguments == ("backup",)
    assert node.sql("SELECT count(*) FROM orders") == "0"


def test_another_clusters_database_and_backup_are_refused(made: Shared, tmp_path: Path) -> None:
    other = "ab" * 32
    made.sql(
        f"UPDATE cluster_identity SET authority = '{other}', created = 1.5,"
        f" seal = '{seal(other, 1.5)}'"
    )
    (found,) = made.json("database", "verify", fails=1)["findings"]
    assert other in found["what"]
    made.json("database", "backup", str(tmp_path / "b"))
    shown = made.run("database", "restore", str(tmp_path / "b"), "--yes", fails=1)
    assert other in shown
    made.json("database", "restore", str(tmp_path / "b"), "--yes", "--adopt")
    assert made.json("database", "verify")["ok"]


def test_another_clusters_database_is_not_replaced_unless_told_so(
    made: Shared, tmp_path: Path
) -> None:
    made.json("database", "backup", str(tmp_path / "b"))
    other = "ab" * 32
    made.sql(
        f"UPDATE cluster_identity SET authority = '{other}', created = 1.5,"
        f" seal = '{seal(other, 1.5)}'"
    )
    found = made.json("database", "status", fails=1)
    assert found["state"] == "unusable"
    assert other in found["fault"]
    made.sql("DELETE FROM node_registration WHERE node_id = 'n1'")
    for restore in (("restore", str(tmp_path / "b"), "--yes"), (*COPY, "--force")):
        shown = made.run("database", *restore, fails=1)
        assert "belongs to another cluster" in shown
        assert "database.postgresql.name" in shown
        assert made.registered() == ["n2"]
    made.json("database", "restore", str(tmp_path / "b"), "--yes", "--adopt")
    assert made.registered() == ["n1", "n2"]


def test_the_status_answers_also_where_nothing_can_be_asked(made: Shared, tmp_path: Path) -> None:
    made.json("database", "backup")
    for changed, said in (
        ({"password": f"file:{tmp_path}/gone"}, "cannot read the secret file"),
        ({"password": None, "hosts": ["db..example:5432"]}, "its name cannot be one of a host"),
        ({"hosts": ["/nowhere"]}, "No such file or directory"),
    ):
        document = json.loads(made.config.read_text())
        document["database"]["postgresql"] |= changed
        made.config.write_text(json.dumps(document))
        found = made.json("database", "status", fails=1)
        assert found["state"] == "unusable"
        assert said in found["fault"]
        assert len(found["backups"]) == 1, "they are needed now"


def test_a_database_without_a_schema_is_no_defect(node: Shared) -> None:
    node.sql("DROP SCHEMA public")
    shown = node.run("database", "migrate", fails=1)
    assert "CREATE SCHEMA" in shown
    assert "defect" not in shown


def test_another_nodes_file_is_copied_only_if_told_so(node: Shared) -> None:
    node.path.unlink()
    open_and_close(node.directory.root, node_id=NodeId(OTHER_ID))
    copy = ("database", "copy", "--from", "sqlite:", "--to", "postgresql")
    assert OTHER_ID in node.run(*copy, fails=1)
    node.run(*copy, "--adopt")


def test_verify_names_everything_that_was_changed_by_hand(made: Shared) -> None:
    assert made.json("database", "verify")["ok"]
    made.sql(
        "CREATE TABLE notes (x text);"
        "CREATE INDEX fast ON node_registration (started);"
        "ALTER TABLE node_heartbeat ADD COLUMN more text;"
        "ALTER TABLE node_registration DROP CONSTRAINT node_registration_pkey;"
        "ALTER TABLE node_registration ADD CONSTRAINT fit CHECK (started > 9) NOT VALID"
    )
    found = "\n".join(f["what"] for f in made.json("database", "verify", fails=1)["findings"])
    assert "has column notes.x, which is not NovaCron's" in found
    assert "index fast" in found
    assert "column node_heartbeat.more" in found
    assert "no key of node_registration" in found
    assert "constraint fit of node_registration is not valid" in found


def test_verify_finds_a_broken_seal(made: Shared) -> None:
    made.sql("UPDATE cluster_identity SET authority = 'x' || authority")
    (found,) = made.json("database", "verify", fails=1)["findings"]
    assert "seal" in found["what"]
    assert made.json("database", "status", fails=1)["state"] == "unusable"


def test_verify_finds_a_damaged_index_with_amcheck(made: Shared) -> None:
    notes = made.json("database", "verify")["notes"]
    assert any("amcheck" in note for note in notes)
    made.sql("CREATE EXTENSION amcheck")
    assert not any("amcheck" in note for note in made.json("database", "verify")["notes"])
    made.sql("CHECKPOINT")
    place = made.sql("SELECT pg_relation_filepath('node_registration_pkey')")
    made.server.stop()
    file = made.server.data / place
    data = bytearray(file.read_bytes())
    # The second page is the only leaf: its first item, which lies at the end.
    data[2 * 8192 - 40 : 2 * 8192 - 16] = bytes(range(24))
    file.write_bytes(data)
    made.server.start()
    found = "\n".join(f["what"] for f in made.json("database", "verify", fails=1)["findings"])
    assert "node_registration_pkey is damaged" in found


def test_a_full_disk_leaves_neither_a_backup_nor_a_change(made: Shared, tmp_path: Path) -> None:
    import subprocess

    made.sql(
        "INSERT INTO node_registration SELECT 'x' || i, repeat(md5(i::text), 40), '{}', i, 1"
        " FROM generate_series(1, 20000) i"
    )
    made.json("database", "backup", str(tmp_path / "b"))
    disk = made.directory.database / "backups"
    disk.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], check=True)
    try:
        assert "no space is left" in made.run("database", "backup", fails=1)
        shown = made.run("database", "restore", str(tmp_path / "b"), "--yes", fails=1)
        assert "--discard" in shown
        assert list(disk.iterdir()) == []
        made.json("database", "restore", str(tmp_path / "b"), "--yes", "--discard")
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
    assert made.sql("SELECT count(*) FROM node_registration") == "20002"
