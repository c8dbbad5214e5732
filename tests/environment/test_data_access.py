"""The data directory on disks that refuse it. Real file systems: a tmpfs in a mount namespace of
its own, so that nothing is left mounted and no other test sees it."""

from __future__ import annotations

import errno
import json
import os
import pwd
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from novacron.environment.data_access import (
    DataDirectoryBrokenError,
    DataDirectoryFullError,
    DataDirectoryMissingError,
    check_writable,
    data_directory_error,
)
from novacron.errors import NovaCronError

REPORT = """
import json, os, sys
from pathlib import Path
from novacron.environment.data_access import check_writable
from novacron.errors import NovaCronError
directory = Path(sys.argv[1])
if len(sys.argv) > 2:
    os.setegid(int(sys.argv[2]))
    os.seteuid(int(sys.argv[2]))
try:
    check_writable(directory)
except NovaCronError as exc:
    print(json.dumps({"code": exc.code, "why": exc.why, "remedy": exc.remedy, "key": exc.key}))
else:
    print(json.dumps({}))
"""


def on_tmpfs(directory: Path, options: str, prepare: str) -> dict[str, Any]:
    """What the check says about a tmpfs mounted on *directory*."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    script = f'mount -t tmpfs -o {options} tmpfs "$1" && {prepare}; exec "$2" -c "$3" "$1"'
    answer = subprocess.run(
        ["unshare", *user, "--mount", "sh", "-c", script, "sh", directory, sys.executable, REPORT],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    value: dict[str, Any] = json.loads(answer.stdout)
    return value


def test_a_good_directory_passes_and_nothing_is_left_in_it(tmp_path: Path) -> None:
    check_writable(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_with_what_is_free(tmp_path: Path) -> None:
    report = on_tmpfs(tmp_path, "size=64k", 'head -c 65536 /dev/zero > "$1/filler"')
    assert report["code"] == "environment.data_directory_full"
    assert report["why"] == "no space left on its file system (0 bytes free)"
    assert "free some space" in report["remedy"]
    assert report["key"] == "system.data_dir"


def test_a_file_system_without_inodes_is_told_from_a_full_one(tmp_path: Path) -> None:
    report = on_tmpfs(tmp_path, "size=1m,nr_inodes=2", 'touch "$1/last"')
    assert report["why"] == "its file system has no inodes left"


def test_a_read_only_file_system_is_told(tmp_path: Path) -> None:
    report = on_tmpfs(tmp_path, "size=64k,ro", "true")
    assert report["code"] == "environment.data_directory_read_only"
    assert "dmesg" in report["remedy"]


def test_a_writable_tmpfs_passes(tmp_path: Path) -> None:
    assert on_tmpfs(tmp_path, "size=64k", "true") == {}


def test_a_directory_of_another_user_is_told_with_owner_and_mode() -> None:
    # Below /tmp, which every user may enter; as root the check gives up its rights first.
    with tempfile.TemporaryDirectory(prefix="novacron-test-") as name:
        directory = Path(name)
        directory.chmod(0o555)
        arguments = ["65534"] if os.geteuid() == 0 else []
        user = 65534 if os.geteuid() == 0 else os.geteuid()
        answer = subprocess.run(
            [sys.executable, "-c", REPORT, name, *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        report = json.loads(answer.stdout)
        status = directory.stat()
        directory.chmod(0o755)
    assert report["code"] == "environment.data_directory_denied"
    assert report["why"] == (
        f"permission denied to user {user}; {name} belongs to user "
        f"{pwd.getpwuid(status.st_uid).pw_name} and has mode 0555"
    )
    assert "chown" in report["remedy"]


def test_a_missing_directory_and_a_file_in_its_place_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataDirectoryMissingError, match="does not exist"):
        check_writable(tmp_path / "absent")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataDirectoryMissingError, match="a parent is a file"):
        check_writable(tmp_path / "file")


def test_a_quota_and_a_broken_disk_have_their_own_words(tmp_path: Path) -> None:
    quota = data_directory_error("write", tmp_path, OSError(errno.EDQUOT, "Quota exceeded"))
    assert isinstance(quota, DataDirectoryFullError)
    assert "quota" in quota.why
    broken = data_directory_error("write", tmp_path, OSError(errno.EIO, "Input/output error"))
    assert isinstance(broken, DataDirectoryBrokenError)
    assert (broken.why, "dmesg" in broken.remedy) == ("Input/output error", True)


def test_each_class_of_refusal_has_a_code_of_its_own(tmp_path: Path) -> None:
    numbers = (errno.EACCES, errno.EROFS, errno.ENOSPC, errno.ENOENT, errno.EIO)
    errors = [data_directory_error("write", tmp_path, OSError(number, "x")) for number in numbers]
    assert len({error.code for error in errors}) == len(numbers)
    assert all(isinstance(error, NovaCronError) and error.remedy for error in errors)
