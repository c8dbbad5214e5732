"""What stops a boot at the file itself: permission, read-only, a directory, no space."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from novacron.data_directory import DataDirectory
from novacron.database.store import (
    DatabaseFullError,
    DatabaseTransientError,
    DatabaseUnavailableError,
)
from novacron.errors import DatabaseError
from tests.database.support import kept, open_and_close, rows

AS_NOBODY = """
import os, sys
from pathlib import Path
from novacron.errors import DatabaseError
from tests.database.support import open_and_close
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    open_and_close(Path(sys.argv[1]))
except DatabaseError as error:
    print(type(error).__name__, error)
else:
    print("opened")
"""


def file_of(root: Path) -> Path:
    return DataDirectory(root).database / "novacron.db"


@pytest.fixture
def public(root: Path) -> Path:
    """A copy of the data directory that other users can reach, and of the code that they run:
    the checkout may lie where they cannot."""
    place = Path("/tmp") / f"novacron-access-{os.getpid()}-{root.parent.name}"
    place.mkdir(mode=0o755)
    place.chmod(0o755)
    checkout = Path(__file__).parents[2]
    try:
        shutil.copytree(checkout / "novacron", place / "novacron")
        shutil.copytree(checkout / "tests/database", place / "tests/database")
        shutil.copy(checkout / "tests/__init__.py", place / "tests")
        for path in place.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        shutil.copytree(root, place / "data")
        for path in (place / "data", place / "data" / "database"):
            path.chmod(0o777)
        file_of(place / "data").chmod(0o666)
        yield place / "data"
    finally:
        shutil.rmtree(place)


def boot_as_nobody(root: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, str(root)],
        cwd=root.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_another_user_with_access_can_boot(public: Path) -> None:
    assert boot_as_nobody(public) == "opened\n"


@pytest.mark.parametrize("mode", [0o000, 0o444, 0o222])
def test_a_file_without_access_names_user_owner_and_mode(public: Path, mode: int) -> None:
    file_of(public).chmod(mode)
    before = file_of(public).read_bytes()
    said = boot_as_nobody(public)
    assert said.startswith("DatabaseUnavailableError")
    assert f"has mode {mode:04o}" in said
    assert "this process runs as" in said
    assert "chown" in said
    assert "[database.path]" in said
    assert file_of(public).read_bytes() == before
    assert kept(public) == [], "what cannot be read is not damaged"


def test_a_directory_without_access_is_named(public: Path) -> None:
    file_of(public).parent.chmod(0o555)
    said = boot_as_nobody(public)
    assert said.startswith("DatabaseUnavailableError")
    assert "permission denied" in said.lower()
    file_of(public).parent.chmod(0o000)
    said = boot_as_nobody(public)
    assert said.startswith("DatabaseUnavailableError")
    assert "ermission denied" in said


def test_a_read_only_file_system_is_named(root: Path, small_disk: Path) -> None:
    shutil.copytree(root, small_disk / "data")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(DatabaseUnavailableError) as caught:
        open_and_close(small_disk / "data")
    assert "mounted read-only" in str(caught.value)
    assert "Remount it writable" in str(caught.value)


def test_a_missing_file_on_a_read_only_file_system_is_named(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(DatabaseUnavailableError) as caught:
        open_and_close(small_disk / "data")
    assert "mounted read-only" in str(caught.value)


def test_a_directory_in_the_place_of_the_file_is_named(tmp_path: Path) -> None:
    file_of(tmp_path).mkdir(parents=True)
    with pytest.raises(DatabaseUnavailableError) as caught:
        open_and_close(tmp_path)
    assert "it is a directory" in str(caught.value)


@pytest.mark.parametrize("room", [0, 4096, 16_384])
def test_no_space_for_the_first_database_is_named_and_leaves_nothing(
    small_disk: Path, room: int
) -> None:
    place = os.statvfs(small_disk)
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * (place.f_bavail * place.f_bsize - room))
    with pytest.raises(DatabaseFullError) as caught:
        open_and_close(small_disk / "data")
    assert "no space is left" in str(caught.value)
    assert "Free some space on the file system of" in str(caught.value)
    assert str(file_of(small_disk / "data")) in str(caught.value)
    assert not caught.value.retryable
    left = list((small_disk / "data").rglob("*"))
    assert [path for path in left if path.is_file()] == []
    filler.unlink()
    assert open_and_close(small_disk / "data") == []


def test_no_space_to_serve_from_the_first_database_is_named_and_harms_nothing(
    small_disk: Path, template: Path
) -> None:
    place = os.statvfs(small_disk)
    filler = small_disk / "filler"
    # Enough for the file, and not for the index of its log, which serving needs.
    tables = max(page for (page,) in rows(file_of(template), "SELECT rootpage FROM sqlite_schema"))
    filler.write_bytes(b"x" * (place.f_bavail * place.f_bsize - (tables + 2) * 4096))
    for _ in range(2):
        with pytest.raises(DatabaseFullError) as caught:
            open_and_close(small_disk / "data")
        assert "no space is left" in str(caught.value)
        assert "Free space below" in str(caught.value)
        assert str(file_of(small_disk / "data")) in str(caught.value)
    filler.unlink()
    assert open_and_close(small_disk / "data") == []
    assert not (small_disk / "data" / "quarantine").exists()


def test_no_space_for_a_repair_keeps_what_was_found(root: Path, small_disk: Path) -> None:
    shutil.copytree(root, small_disk / "data")
    damaged = b"junk" * 1000
    file_of(small_disk / "data").write_bytes(damaged)
    place = os.statvfs(small_disk)
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * (place.f_bavail * place.f_bsize - 8192))
    with pytest.raises(DatabaseFullError):
        open_and_close(small_disk / "data")
    assert file_of(small_disk / "data").read_bytes() == damaged, "nothing moves before it can"
    assert kept(small_disk / "data") == []
    filler.unlink()
    open_and_close(small_disk / "data")
    (box,) = kept(small_disk / "data")
    assert (box / "novacron.db").read_bytes() == damaged


def test_a_database_that_another_process_keeps_locked_is_named(root: Path) -> None:
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sqlite3, sys\n"
            "raw = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
            "raw.execute('PRAGMA locking_mode=EXCLUSIVE')\n"
            "raw.execute('BEGIN EXCLUSIVE')\n"
            "print('held', flush=True)\n"
            "sys.stdin.read()\n",
            str(file_of(root)),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(DatabaseError) as caught:
            open_and_close(root)
        assert isinstance(caught.value, DatabaseTransientError)
        assert caught.value.retryable
        assert "is locked" in str(caught.value)
        assert "fuser" in str(caught.value)
    assert open_and_close(root) == []
