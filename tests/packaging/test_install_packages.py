"""What the tests need of the machine is installed quietly, or named."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path("tests/install-packages")


def run(repository: Path, path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/bash", str(repository / SCRIPT)],
        env={"PATH": str(path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.fixture
def commands(repository: Path, tmp_path: Path) -> Path:
    """A directory with every command the script looks for, and an unprivileged user."""
    names = re.findall(
        r"^  ([a-z0-9-]+):[a-z0-9-]+", (repository / SCRIPT).read_text(), re.MULTILINE
    )
    assert "cc" in names
    for name in (*names, "apt-get"):
        command(tmp_path, name, "exit 1")
    command(tmp_path, "id", "echo 1000")
    return tmp_path


def command(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_it_says_nothing_when_nothing_is_missing(repository: Path, commands: Path) -> None:
    done = run(repository, commands)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_without_root_it_names_the_missing_package_and_fails(
    repository: Path, commands: Path
) -> None:
    (commands / "etcd").unlink()
    done = run(repository, commands)
    assert done.returncode == 1
    assert "missing: etcd-server." in done.stderr


def test_as_root_it_installs_exactly_what_is_missing(repository: Path, commands: Path) -> None:
    (commands / "etcd").unlink()
    (commands / "systemd-analyze").unlink()
    command(commands, "id", "echo 0")
    command(commands, "mktemp", f"echo {commands}/log")
    command(commands, "rm", ":")
    command(commands, "apt-get", f'echo "$@" >> {commands}/calls')
    done = run(repository, commands)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "Installing for the tests: systemd etcd-server\n"
    update, install = (commands / "calls").read_text().splitlines()
    assert "update" in update
    assert install.endswith("systemd etcd-server")


def test_a_failed_installation_shows_what_the_package_tool_said(
    repository: Path, commands: Path
) -> None:
    (commands / "etcd").unlink()
    command(commands, "id", "echo 0")
    command(commands, "mktemp", f"echo {commands}/log")
    command(commands, "rm", ":")
    command(commands, "cat", 'while read -r line; do echo "$line"; done < "$1"')
    command(commands, "apt-get", "echo the mirror is away; exit 100")
    done = run(repository, commands)
    assert done.returncode == 1
    assert "the mirror is away" in done.stderr
