"""The guest kernel is fetched once, completely or not at all, and what is missing is named."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

IMAGE = "linux-image-6.1.0-1-amd64"
VERSION = "6.1.0-1-amd64"
DEPENDS = f'echo linux-image-amd64; echo "  Depends: {IMAGE}"'

UNPACK = f"""
mkdir -p "$3/boot" "$3/lib/modules/{VERSION}"
touch "$3/boot/vmlinuz-{VERSION}"
"""


class Machine:
    """A checkout with the script, and stand-ins for the package tools, ahead of the real ones."""

    def __init__(self, root: Path, script: Path) -> None:
        self.root = root
        self.commands = root / "commands"
        self.commands.mkdir()
        (root / "tests/lab").mkdir(parents=True)
        shutil.copy(script, root / "tests/lab/prepare")
        listed = re.search(r"^packages=\((.*?)^\)", script.read_text(), re.DOTALL | re.MULTILINE)
        assert listed is not None
        self.packages = re.findall(r"^  ([a-z0-9-]+)", listed[1], re.MULTILINE)
        self.command("id", "echo 0")
        self.installed(*self.packages)
        self.command("apt-cache", DEPENDS)
        self.command(
            "apt-get", f'echo "$@" >>{root}/calls; case "$*" in *download*) touch k.deb;; esac'
        )
        self.command("dpkg", UNPACK)
        self.command("depmod", 'touch "$2/lib/modules/$3/modules.dep"')

    def command(self, name: str, script: str) -> None:
        (self.commands / name).write_text(f"#!/bin/sh\n{script}\n")
        (self.commands / name).chmod(0o755)

    def installed(self, *packages: str) -> None:
        self.command("dpkg-query", "\n".join(f"echo {name} installed" for name in packages))

    @property
    def calls(self) -> list[str]:
        path = self.root / "calls"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def kernel(self) -> Path:
        return self.root / ".lab/kernel"

    def prepare(self, path: str = "/usr/bin:/bin") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/bash", str(self.root / "tests/lab/prepare")],
            env={"PATH": f"{self.commands}:{path}"},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )


@pytest.fixture
def machine(tmp_path: Path, repository: Path) -> Machine:
    return Machine(tmp_path, repository / "tests/lab/prepare")


def test_the_script_may_be_run(repository: Path) -> None:
    assert os.access(repository / "tests/lab/prepare", os.X_OK)


def test_a_kernel_is_fetched_once(machine: Machine) -> None:
    done = machine.prepare()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"Fetching the guest kernel: {IMAGE}\n"
    assert machine.calls == [f"-q download {IMAGE}"]
    assert (machine.kernel / f"boot/vmlinuz-{VERSION}").exists()
    assert not list(machine.root.glob(".lab/**/*.deb"))
    again = machine.prepare()
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert len(machine.calls) == 1


def test_as_root_it_installs_exactly_what_is_missing(machine: Machine) -> None:
    machine.installed(*(set(machine.packages) - {"kmod", "perftest"}))
    done = machine.prepare()
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Installing for the guest kernel: kmod perftest\n")
    assert machine.calls[0] == "-q update"
    assert machine.calls[1].endswith("--no-install-recommends kmod perftest")


def test_without_root_it_names_the_missing_packages_and_fails(machine: Machine) -> None:
    machine.command("id", "echo 1000")
    machine.installed(*(set(machine.packages) - {"qemu-system-x86"}))
    done = machine.prepare()
    assert done.returncode == 1
    assert "missing: qemu-system-x86. Install them, or run this as root" in done.stderr
    assert machine.calls == []


def test_without_root_a_kernel_is_fetched_where_the_packages_are_there(machine: Machine) -> None:
    machine.command("id", "echo 1000")
    assert machine.prepare().returncode == 0
    assert machine.calls == [f"-q download {IMAGE}"]


def test_a_machine_that_never_asked_for_packages_asks_first(machine: Machine) -> None:
    machine.command(
        "apt-cache", f"grep -q update {machine.root}/calls 2>/dev/null && {{ {DEPENDS}; }}"
    )
    done = machine.prepare()
    assert done.returncode == 0, done.stderr
    assert machine.calls == ["-q update", f"-q download {IMAGE}"]


def test_a_source_without_the_kernel_is_named(machine: Machine) -> None:
    machine.command("apt-cache", "exit 100")
    done = machine.prepare()
    assert done.returncode == 1
    assert "apt knows no linux-image-amd64" in done.stderr


def test_a_list_older_than_the_mirror_is_fetched_anew(machine: Machine) -> None:
    machine.command(
        "apt-get",
        f'echo "$@" >>{machine.root}/calls\n'
        f'case "$*" in *download*) grep -q update {machine.root}/calls && touch k.deb;; esac',
    )
    done = machine.prepare()
    assert done.returncode == 0, done.stderr
    assert machine.calls == [f"-q download {IMAGE}", "-q update", f"-q download {IMAGE}"]


@pytest.mark.parametrize("tool", ["apt-get", "dpkg", "depmod"])
def test_a_kernel_that_is_not_complete_gets_no_name(machine: Machine, tool: str) -> None:
    machine.command(tool, "echo the disk is full; exit 1")
    done = machine.prepare()
    assert done.returncode == 1
    assert "the disk is full" in done.stderr
    assert not machine.kernel.exists()
    assert not list(machine.root.glob(".lab/*"))


def test_a_machine_without_debians_tools_is_told_so(machine: Machine) -> None:
    (machine.commands / "dpkg-query").unlink()
    (machine.commands / "dirname").symlink_to("/usr/bin/dirname")
    done = machine.prepare(path=str(machine.commands))
    assert done.returncode == 1
    assert "this machine has no dpkg" in done.stderr
