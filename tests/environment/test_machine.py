from __future__ import annotations

import errno

import pytest

from novacron.environment import machine
from novacron.environment.machine import Machine
from tests.environment.conftest import Tree


def test_a_file_under_the_root_is_read(tree: Tree) -> None:
    tree.put("/proc/x", " text \n")
    assert tree.machine.read("/proc/x") == " text \n"
    assert tree.machine.read_if_there("/proc/x") == "text"


def test_what_is_not_there_is_none_and_what_is_forbidden_is_an_error(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tree.machine.read_if_there("/proc/absent") is None
    assert tree.machine.list("/absent") == []
    assert tree.machine.link_name("/absent") is None

    def refuse(*args: object) -> int:
        raise OSError(errno.EACCES, "Permission denied", "x")

    monkeypatch.setattr(machine.os, "open", refuse)
    with pytest.raises(PermissionError):
        tree.machine.read_if_there("/proc/x")


def test_a_file_that_never_ends_is_given_up() -> None:
    with pytest.raises(OSError, match="too large"):
        Machine().read("/dev/zero")


def test_sysctl_files_are_read_in_pieces_they_can_answer() -> None:
    # One read of 4 MiB fails with ENOMEM: the kernel allocates what it is asked for.
    assert Machine().read("/proc/sys/kernel/osrelease").strip()


def test_bytes_that_are_not_text_are_shown_and_not_refused(tree: Tree) -> None:
    (tree.root / "raw").write_bytes(b"a\xff\0b")
    assert tree.machine.read("/raw") == "a\N{REPLACEMENT CHARACTER}\0b"
