"""One node per data directory, whatever becomes of the processes."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from novacron.boot.lock import (
    DataDirectoryBusyError,
    DataDirectoryLock,
    DataDirectoryUnusableError,
)
from novacron.data_directory import DataDirectory

HOLDER = """
import sys
from pathlib import Path
from novacron.boot.lock import DataDirectoryLock
from novacron.data_directory import DataDirectory
held = DataDirectoryLock(DataDirectory(Path(sys.argv[1])), "first")
print("held", flush=True)
sys.stdin.read()
held.release()
"""


@contextmanager
def another_process(data: DataDirectory) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock until its standard input ends."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(data.root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def everything(root: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(root)): (
            path.stat().st_mtime_ns,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in [root, *root.rglob("*")]
    }


def test_a_second_node_changes_nothing_and_names_the_first(data_directory: DataDirectory) -> None:
    with another_process(data_directory) as process:
        before = everything(data_directory.root)
        with pytest.raises(DataDirectoryBusyError) as caught:
            DataDirectoryLock(data_directory, "second")

        assert everything(data_directory.root) == before
    assert caught.value.what == f"the data directory {data_directory.root} is in use"
    assert f"another node runs on it (pid {process.pid}, boot first)" in caught.value.why
    assert "stop that node first" in caught.value.remedy
    assert caught.value.key == "system.data_dir"


def test_a_holder_that_is_killed_frees_the_lock(data_directory: DataDirectory) -> None:
    with another_process(data_directory) as process:
        process.send_signal(signal.SIGKILL)
        assert process.wait(10) == -signal.SIGKILL
        DataDirectoryLock(data_directory, "second").release()

    assert json.loads(data_directory.lock.read_bytes()) == {"pid": os.getpid(), "boot_id": "second"}


def test_a_released_lock_can_be_taken_again(data_directory: DataDirectory) -> None:
    for boot_id in ("a", "b"):
        held = DataDirectoryLock(data_directory, boot_id)
        with pytest.raises(DataDirectoryBusyError):
            DataDirectoryLock(data_directory, "other")
        held.release()


def test_a_shorter_name_leaves_nothing_of_a_longer_one(data_directory: DataDirectory) -> None:
    DataDirectoryLock(data_directory, "a very long boot id").release()
    DataDirectoryLock(data_directory, "b").release()

    assert json.loads(data_directory.lock.read_bytes())["boot_id"] == "b"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"pid": null}', b"\xff\xfe", b"7"])
def test_a_holder_that_left_no_name_is_unknown(
    data_directory: DataDirectory, content: bytes
) -> None:
    held = DataDirectoryLock(data_directory, "first")
    data_directory.lock.write_bytes(content)
    with pytest.raises(DataDirectoryBusyError) as caught:
        DataDirectoryLock(data_directory, "second")
    held.release()

    assert "its process id is unknown" in caught.value.why


def test_the_directory_is_made_for_this_user_alone(tmp_path: Path) -> None:
    data = DataDirectory(tmp_path / "deep" / "data")
    DataDirectoryLock(data, "b").release()

    assert data.root.stat().st_mode & 0o777 == 0o700
    assert data.lock.stat().st_mode & 0o777 == 0o600


def test_a_child_process_does_not_keep_the_lock(data_directory: DataDirectory) -> None:
    held = DataDirectoryLock(data_directory, "b")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        held.release()
        DataDirectoryLock(data_directory, "c").release()
        child.kill()


def test_a_file_in_the_place_of_the_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("x")
    with pytest.raises(DataDirectoryUnusableError) as caught:
        DataDirectoryLock(DataDirectory(tmp_path / "data"), "b")

    assert caught.value.what == f"the data directory {tmp_path / 'data'} cannot be used"
    assert caught.value.why == f"{tmp_path / 'data'} is there and is not a directory"
    assert "move it away, or set system.data_dir" in caught.value.remedy


def test_a_directory_this_user_may_not_write_to_is_named(
    data_directory: DataDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mkdir(path: object, mode: int = 0) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(os, "mkdir", mkdir)
    with pytest.raises(DataDirectoryUnusableError) as caught:
        DataDirectoryLock(data_directory, "b")

    assert f" at {data_directory.boot}; {data_directory.root} belongs to user " in caught.value.why
    assert caught.value.why.endswith(" and has mode 0700")
    assert "(chown -R)" in caught.value.remedy
    assert caught.value.key == "system.data_dir"


def test_a_read_only_file_system_is_named(
    data_directory: DataDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: object, *arguments: object) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(DataDirectoryUnusableError) as caught:
        DataDirectoryLock(data_directory, "b")

    assert caught.value.why == "its file system is mounted read-only"
    assert "see dmesg" in caught.value.remedy


def test_a_full_disk_is_named_and_the_lock_is_free_again(
    data_directory: DataDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", fail)
        with pytest.raises(DataDirectoryUnusableError) as caught:
            DataDirectoryLock(data_directory, "b")

    assert caught.value.what == f"the data directory {data_directory.root} cannot be used"
    assert caught.value.why == "its file system is full"
    assert "free some space" in caught.value.remedy
    DataDirectoryLock(data_directory, "c").release()


def test_a_file_system_without_locks_is_not_taken_for_another_node(
    data_directory: DataDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(DataDirectoryUnusableError) as caught:
        DataDirectoryLock(data_directory, "b")

    assert caught.value.what == f"the data directory {data_directory.root} cannot be locked"
    assert "No locks available" in caught.value.why
    assert "on a file system that has locks" in caught.value.remedy
