from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from novacron.network.port_holder import find_port_holder


@pytest.mark.parametrize(
    ("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
)
def test_the_process_that_listens_is_named(family: socket.AddressFamily, address: str) -> None:
    with socket.socket(family) as listening:
        listening.bind((address, 0))
        listening.listen()
        name = Path("/proc/self/comm").read_text().strip()
        assert find_port_holder(listening.getsockname()[1]) == f"pid {os.getpid()} ({name})"


def test_a_port_nobody_listens_on_has_no_holder() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        assert find_port_holder(bound.getsockname()[1]) == ""


def test_a_holder_that_may_not_be_seen_is_not_guessed(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    line = "   0: 0100007F:1CE9 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 4711 1"
    (tmp_path / "net" / "tcp").write_text(f"  sl  local_address\n{line}\n")
    (tmp_path / "17").mkdir()  # a process whose descriptors cannot be listed
    assert find_port_holder(7401, tmp_path) == ""
    (tmp_path / "18" / "fd").mkdir(parents=True)
    (tmp_path / "18" / "fd" / "3").symlink_to("socket:[4711]")
    assert find_port_holder(7401, tmp_path) == "pid 18 (unknown)"


def test_without_proc_there_is_no_holder(tmp_path: Path) -> None:
    assert find_port_holder(7401, tmp_path) == ""
