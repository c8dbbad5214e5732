"""Each way SQLite can fail, as the operator and the caller meet it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
import trio

from novacron.database.connection import open_writer
from novacron.database.sqlite import SqliteStore
from novacron.database.sqlite_errors import map_error, primary_code
from novacron.database.store import (
    DatabaseConflictError,
    DatabaseCorruptError,
    DatabaseFullError,
    DatabaseInvalidError,
    DatabaseLimitError,
    DatabaseTransientError,
    DatabaseUnavailableError,
)
from novacron.errors import DatabaseError


def failure(name: str, text: str = "text") -> sqlite3.Error:
    error = sqlite3.OperationalError(text)
    error.sqlite_errorcode = getattr(sqlite3, name)
    error.sqlite_errorname = name
    return error


@pytest.mark.parametrize(
    ("name", "kind", "says", "key"),
    [
        ("SQLITE_BUSY", DatabaseTransientError, "is locked", "database.busy_timeout"),
        ("SQLITE_LOCKED_SHAREDCACHE", DatabaseTransientError, "fuser", "database.busy_timeout"),
        ("SQLITE_PROTOCOL", DatabaseTransientError, "is locked", "database.busy_timeout"),
        ("SQLITE_FULL", DatabaseFullError, "cannot grow", "database.path"),
        ("SQLITE_CORRUPT", DatabaseCorruptError, "is damaged", "database.path"),
        ("SQLITE_CORRUPT_INDEX", DatabaseCorruptError, "is damaged", "database.path"),
        ("SQLITE_NOTADB", DatabaseCorruptError, "is damaged", "database.path"),
        ("SQLITE_READONLY", DatabaseUnavailableError, "cannot be written", "database.path"),
        ("SQLITE_CANTOPEN", DatabaseUnavailableError, "cannot be opened", "database.path"),
        ("SQLITE_PERM", DatabaseUnavailableError, "cannot be opened", "database.path"),
        ("SQLITE_IOERR_READ", DatabaseUnavailableError, "kernel's log", "database.path"),
        ("SQLITE_CONSTRAINT_UNIQUE", DatabaseConflictError, "refused a change", ""),
        ("SQLITE_CONSTRAINT_FOREIGNKEY", DatabaseConflictError, "refused a change", ""),
        ("SQLITE_CONSTRAINT_NOTNULL", DatabaseInvalidError, "refused a change", ""),
        ("SQLITE_TOOBIG", DatabaseLimitError, "too large", ""),
        ("SQLITE_NOMEM", DatabaseLimitError, "too large", ""),
        ("SQLITE_SCHEMA", DatabaseTransientError, "schema changed", ""),
        ("SQLITE_ERROR", DatabaseInvalidError, "refused a statement", ""),
    ],
)
def test_every_code_has_a_class_a_message_and_a_key(
    name: str, kind: type[DatabaseError], says: str, key: str, tmp_path: Path
) -> None:
    mapped = map_error(failure(name), tmp_path / "state.db")
    assert type(mapped) is kind
    assert says in str(mapped)
    assert mapped.key == key
    assert mapped.retryable is (kind is DatabaseTransientError)
    if key == "database.path":
        assert str(tmp_path / "state.db") in str(mapped)
        assert mapped.remedy


def test_a_write_through_a_read_is_our_defect_and_not_the_disks(tmp_path: Path) -> None:
    mapped = map_error(failure("SQLITE_READONLY"), tmp_path / "state.db", read_only=True)
    assert type(mapped) is DatabaseInvalidError
    assert "defect" in str(mapped)


def test_an_input_output_error_on_a_full_disk_is_a_full_disk(small_disk: Path) -> None:
    (small_disk / "filler").write_bytes(b"x" * 1_000_000)
    mapped = map_error(failure("SQLITE_IOERR_SHMSIZE"), small_disk / "state.db")
    assert type(mapped) is DatabaseFullError


def test_every_code_sqlite_has_is_mapped(tmp_path: Path) -> None:
    kinds = (
        "ABORT",
        "AUTH",
        "BUSY",
        "CANTOPEN",
        "CONSTRAINT",
        "CORRUPT",
        "EMPTY",
        "ERROR",
        "FORMAT",
    )
    kinds += ("FULL", "INTERNAL", "INTERRUPT", "IOERR", "LOCKED", "MISMATCH", "MISUSE", "NOLFS")
    kinds += (
        "NOMEM",
        "NOTADB",
        "NOTFOUND",
        "PERM",
        "PROTOCOL",
        "RANGE",
        "READONLY",
        "SCHEMA",
        "TOOBIG",
    )
    names = [
        name for name in dir(sqlite3) if name.startswith(tuple(f"SQLITE_{kind}" for kind in kinds))
    ]
    assert len(names) > 50
    for name in names:
        mapped = map_error(failure(name), tmp_path / "state.db")
        assert isinstance(mapped, DatabaseError)
        assert primary_code(failure(name)) == getattr(sqlite3, name) & 0xFF


async def test_a_disk_that_turns_read_only_while_serving_is_named(small_disk: Path) -> None:
    path = small_disk / "state.db"
    path.touch()
    open_writer(path).close()
    store = SqliteStore(path, readers=1, busy_timeout=1.0, query_timeout=5.0)
    await trio.run_process(["mount", "-o", "remount,ro", str(small_disk)])
    with pytest.raises(DatabaseUnavailableError) as caught:
        await store.execute("CREATE TABLE item (id INTEGER)")
    assert caught.value.key == "database.path"
    assert "read" in str(caught.value)
    await trio.run_process(["mount", "-o", "remount,rw", str(small_disk)])
    await store.execute("CREATE TABLE item (id INTEGER)")
    await store.close()


async def test_text_that_is_not_text_any_more_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.touch()
    raw = open_writer(path)
    raw.execute("CREATE TABLE item (name TEXT)")
    raw.execute("INSERT INTO item VALUES (CAST(x'66ff6f' AS TEXT))")
    raw.close()
    store = SqliteStore(path, readers=1, busy_timeout=1.0, query_timeout=5.0)
    with pytest.raises(DatabaseCorruptError) as caught:
        await store.fetch_all("SELECT name FROM item")
    assert "text that cannot be read" in str(caught.value)
    assert store.damaged
    await store.close()


async def test_text_that_never_was_text_is_refused_and_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.touch()
    store = SqliteStore(path, readers=1, busy_timeout=1.0, query_timeout=5.0)
    with pytest.raises(DatabaseInvalidError):
        await store.fetch_all("SELECT :text", {"text": "\ud800"})
    assert not store.damaged
    await store.close()
