"""What the data directory holds: the database, the identity, the state of the boot."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing

from tests.integration.failing_node import ANOTHER_ID, NODE_ID, Cause, Scene


def database_corrupt(scene: Scene) -> None:
    path = scene.booted_before() / "database/novacron.db"
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xa5" * (len(data) - 4096)
    path.write_bytes(data)


def database_is_something_else(scene: Scene) -> None:
    path = scene.booted_before() / "database/novacron.db"
    path.write_text("-- a dump\nCREATE TABLE node (id);\n" * 100)


def database_lost(scene: Scene) -> None:
    (scene.booted_before() / "database/novacron.db").unlink()


def database_of_another_node(scene: Scene) -> None:
    shutil.rmtree(scene.booted_before() / "database")
    shutil.copytree(scene.another_booted_before() / "database", scene.data / "database")


def database_newer(scene: Scene) -> None:
    path = scene.booted_before() / "database/novacron.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '0999'")
        connection.execute("PRAGMA user_version = 999")


def database_is_a_directory(scene: Scene) -> None:
    scene.settings["database.path"] = str(scene.root)


def database_locked(scene: Scene) -> None:
    path = scene.booted_before() / "database/novacron.db"
    connection = scene.stack.enter_context(closing(sqlite3.connect(path, isolation_level=None)))
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("BEGIN EXCLUSIVE")
    scene.settings["database.busy_timeout"] = "0.05"
    scene.settings["boot.retry.attempts"] = "1"


def identity_damaged(scene: Scene) -> None:
    path = scene.booted_before() / "identity.json"
    path.write_bytes(path.read_bytes().replace(b"5f0c9e1a", b"5f0c9e1b"))


def identity_zeroed(scene: Scene) -> None:
    path = scene.booted_before() / "identity.json"
    path.write_bytes(bytes(183))


def identity_lost(scene: Scene) -> None:
    (scene.booted_before() / "identity.json").unlink()


def identity_differs(scene: Scene) -> None:
    scene.booted_before()
    scene.settings["system.node_id"] = "11111111-2222-4333-8444-555555555555"


def checkpoint_damaged(scene: Scene) -> None:
    path = scene.booted_before() / "boot/checkpoint.json"
    path.write_bytes(path.read_bytes()[:-40])


def journal_damaged(scene: Scene) -> None:
    (scene.booted_before() / "boot/undo.journal").write_bytes(b"\0" * 64 + b"\n")


def checkpoint_is_a_directory(scene: Scene) -> None:
    path = scene.booted_before() / "boot/checkpoint.json"
    path.unlink()
    path.mkdir()


def quarantine_is_a_file(scene: Scene) -> None:
    """There is something to set aside and nowhere to put it."""
    checkpoint_damaged(scene)
    shutil.rmtree(scene.data / "quarantine", ignore_errors=True)
    (scene.data / "quarantine").write_text("notes")


def log_is_a_file(scene: Scene) -> None:
    shutil.rmtree(scene.booted_before() / "log")
    (scene.data / "log").write_text("notes")


def log_file_is_a_directory(scene: Scene) -> None:
    path = scene.booted_before() / "log/novacron.log"
    path.unlink()
    path.mkdir()


def known_good_damaged(scene: Scene) -> None:
    path = scene.booted_before() / "boot/last-known-good.json"
    path.write_bytes(bytes(path.stat().st_size))


def known_good_damaged_and_wanted(scene: Scene) -> None:
    known_good_damaged(scene)
    scene.arguments.append("--last-known-good")


def no_known_good(scene: Scene) -> None:
    scene.arguments.append("--last-known-good")


CAUSES = (
    Cause(
        "the database is damaged",
        database_corrupt,
        3,
        "the database {data}/database/novacron.db was damaged (",
        "it is kept unchanged in {data}/quarantine/novacron.db.damaged.",
        "There was no good backup: the node started with an empty database; see the runbook "
        "database-corrupt",
    ),
    Cause(
        "the database is something else",
        database_is_something_else,
        3,
        "the database {data}/database/novacron.db was damaged (it is not a SQLite file)",
        "it is kept unchanged in {data}/quarantine/novacron.db.damaged.",
        "see the runbook database-corrupt",
    ),
    Cause(
        "the database is gone",
        database_lost,
        3,
        "the database {data}/database/novacron.db was there at an earlier boot and is gone",
        "the node started with an empty one",
        "(backups: {data}/database/backups)",
    ),
    Cause(
        "the database of another node",
        database_of_another_node,
        1,
        "the database {data}/database/novacron.db belongs to another node",
        f"it was made by node {ANOTHER_ID}, this is node {NODE_ID}",
        "give this node its own database.path, or bring back the identity.json that belongs to",
        "database.path",
    ),
    Cause(
        "the database of a newer release",
        database_newer,
        1,
        "the database {data}/database/novacron.db is newer than this NovaCron",
        "0999",
        "start the NovaCron that wrote it or a later one, or restore the backup from before the "
        "upgrade",
        "database.path",
    ),
    Cause(
        "the database is a directory",
        database_is_a_directory,
        1,
        "the database {root} cannot be opened",
        "it is a directory",
        "set database.path to a file",
        "database.path",
    ),
    Cause(
        "the database is locked",
        database_locked,
        1,
        "the database {data}/database/novacron.db is locked",
        "another process kept its lock longer than database.busy_timeout",
        "find it with “fuser {data}/database/novacron.db” and end it, or raise the timeout",
        "database.busy_timeout",
    ),
    Cause(
        "the identity is damaged",
        identity_damaged,
        1,
        "the node's identity in {data}/identity.json cannot be used",
        "its checksum does not fit its content",
        "restore the file from a backup; or, to go on with the UUID this node had, move the file "
        "away and set system.node_id to it",
        "system.node_id",
    ),
    Cause(
        "the identity is all zeros",
        identity_zeroed,
        1,
        "the node's identity in {data}/identity.json cannot be used",
        "it is empty or all zeros, as after a power cut",
        "restore the file from a backup",
        "system.node_id",
    ),
    Cause(
        "the identity is lost",
        identity_lost,
        1,
        "there is no {data}/identity.json",
        "a node has lived in this data directory ({data}/database/novacron.db is there)",
        "restore the file from a backup, set system.node_id to the UUID the node had, or start a "
        "new node in another directory",
        "system.node_id",
    ),
    Cause(
        "another identity is configured than is stored",
        identity_differs,
        1,
        "this data directory belongs to node " + NODE_ID,
        "the configuration asks for node 11111111-2222-4333-8444-555555555555",
        "remove system.node_id to go on as the stored node, or give the other node a data directory",
        "system.node_id",
    ),
    Cause(
        "a broken node with a changed configuration",
        identity_differs,
        1,
        "this data directory belongs to node",
        "the configuration asks for node",
        "if the cause is in the configuration, which has changed since the last boot that became "
        "READY: --last-known-good boots that one",
        "system.node_id",
    ),
    Cause(
        "the checkpoint is damaged",
        checkpoint_damaged,
        0,
        "checkpoint.json was damaged (",
        "it lies in {data}/quarantine/checkpoint.json.",
        "How the last run ended is not known; if it crashed, look whether it left something behind",
    ),
    Cause(
        "the undo journal is damaged",
        journal_damaged,
        0,
        "undo.journal was damaged (",
        "it lies in {data}/quarantine/undo.journal.",
        "look whether the last run left something behind",
    ),
    Cause(
        "the checkpoint is a directory",
        checkpoint_is_a_directory,
        1,
        "the boot state {data}/boot/checkpoint.json cannot be used",
        "Is a directory",
        "move {data}/boot/checkpoint.json away",
        "system.data_dir",
    ),
    Cause(
        "the quarantine is a file",
        quarantine_is_a_file,
        1,
        "the boot state {data}/boot/checkpoint.json cannot be used",
        "File exists",
        "move {data}/quarantine away",
        "system.data_dir",
    ),
    Cause(
        "the directory of the logs is a file",
        log_is_a_file,
        1,
        "cannot make the directory {data}/log",
        "a part of the path is not a directory",
        "move away what is in its place",
        "system.data_dir",
    ),
    Cause(
        "the log file is a directory",
        log_file_is_a_directory,
        3,
        "the log file {data}/log/novacron.log cannot be written",
        "Is a directory",
        "Make it writable for this user, or set system.log_file to false [system.log_file]",
        "system.log_file",
    ),
    Cause(
        "the last known good configuration is damaged",
        known_good_damaged,
        0,
        "last-known-good.json was damaged (",
        "it lies in {data}/quarantine/last-known-good.json.",
        "There is nothing for --last-known-good until this boot is READY",
    ),
    Cause(
        "the last known good configuration is damaged and wanted",
        known_good_damaged_and_wanted,
        78,
        "there is no last known good configuration in {data}/boot/last-known-good.json",
        "the file is damaged: ",
        "correct the present configuration, or name the right --data-dir",
        "system.data_dir",
    ),
    Cause(
        "there is no last known good configuration",
        no_known_good,
        78,
        "there is no last known good configuration in {data}/boot/last-known-good.json",
        "no boot with this data directory has become READY yet",
        "correct the present configuration, or name the right --data-dir",
        "system.data_dir",
    ),
)
