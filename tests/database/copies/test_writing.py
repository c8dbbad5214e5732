"""A backup file is there whole or not at all, whatever the file system can and whoever interrupts."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from novacron.database.copies import writing
from novacron.database.copies.tables import BackupExistsError, BackupInvalidError
from novacron.database.copies.writing import unused_name, write_backup
from novacron.database.store import DatabaseFullError, DatabaseUnavailableError
from tests.database.copies.support import Values, quiet, read_all

ROWS = [[n, "x" * 2000] for n in range(2000)]
CONTENT: dict[str, Any] = {"a": (("integer", "text"), ROWS)}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    directory = tmp_path / "place"
    directory.mkdir()
    return directory


@pytest.fixture(params=["anonymous", "named", "without links"])
def file_system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the file system can: files without a name; links; neither."""
    real_open, real_link = os.open, os.link

    def without_anonymous(path: Any, flags: int, *arguments: Any, **named: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP), str(path))
        return real_open(path, flags, *arguments, **named)

    def no_link(*arguments: Any, **named: Any) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    if request.param != "anonymous":
        monkeypatch.setattr(writing.os, "open", without_anonymous)
    monkeypatch.setattr(writing.os, "link", no_link if "links" in request.param else real_link)
    return str(request.param)


def test_a_backup_is_the_only_file_that_appears(place: Path, file_system: str) -> None:
    write_backup(Values(CONTENT), place / "b", "1", quiet)
    assert [path.name for path in place.iterdir()] == ["b"]
    assert (place / "b").stat().st_mode & 0o7777 == 0o600
    assert read_all(place / "b") == {"a": ROWS}


# Where there are no links, nothing refuses to replace.
@pytest.mark.parametrize("file_system", ["anonymous", "named"], indirect=True)
def test_a_file_that_appears_meanwhile_is_not_replaced(place: Path, file_system: str) -> None:
    def interfere(step: str, rows: int, total: int, size: int) -> None:
        (place / "b").write_text("precious")

    with pytest.raises(BackupExistsError):
        write_backup(Values(CONTENT), place / "b", "1", interfere)
    assert (place / "b").read_text() == "precious"
    assert [path.name for path in place.iterdir()] == ["b"]


def test_whatever_stops_it_nothing_stays(place: Path, file_system: str) -> None:
    def stop(step: str, rows: int, total: int, size: int) -> None:
        if rows > 500:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_backup(Values(CONTENT), place / "b", "1", stop)
    assert list(place.iterdir()) == []


def test_killed_it_leaves_nothing(place: Path) -> None:
    def kill(step: str, rows: int, total: int, size: int) -> None:
        if rows > 500:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        try:
            write_backup(Values(CONTENT), place / "b", "1", kill)
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert list(place.iterdir()) == []


def test_a_full_disk_is_named_and_nothing_stays(small_disk: Path) -> None:
    rows = [[os.urandom(4000)] for _ in range(500)]
    with pytest.raises(DatabaseFullError, match="nothing of it stays"):
        write_backup(Values({"a": (("blob",), rows)}), small_disk / "b", "1", quiet)
    assert list(small_disk.iterdir()) == []


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnavailableError, match="gone/b cannot be written"):
        write_backup(Values(CONTENT), tmp_path / "gone" / "b", "1", quiet)


def test_a_snapshot_that_does_not_hold_is_noticed(place: Path) -> None:
    source = Values(CONTENT)
    source.content = {"a": (("integer", "text"), ROWS[:-1])}
    with pytest.raises(BackupInvalidError, match="had 2000 rows and now has 1999"):
        write_backup(source, place / "b", "1", quiet)
    assert list(place.iterdir()) == []


def test_a_value_that_is_too_large_for_the_format_is_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "MAX_CONTENT", 2000)
    with pytest.raises(BackupInvalidError, match="a row of a cannot be put into a backup"):
        write_backup(Values(CONTENT), place / "b", "1", quiet)
    assert list(place.iterdir()) == []


def test_a_name_is_unused(place: Path) -> None:
    first = unused_name(place / "new", "novacron")
    first.touch()
    second = unused_name(place / "new", "novacron")
    assert not second.exists()
    assert (first.parent, first.suffix) == (second.parent, ".ncb")
    assert first.parent.stat().st_mode & 0o777 == 0o700
