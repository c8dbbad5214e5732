from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from novacron.environment import ports
from novacron.environment.machine import Machine
from novacron.environment.ports import (
    AddressInvalidError,
    AddressUnavailableError,
    Listener,
    PortDeniedError,
    PortTakenError,
    check_ports,
    holders,
)
from novacron.errors import ConflictError, DeniedError, TransientError

MACHINE = Machine()

SERVER = """
import socket, sys
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other_process() -> Iterator[tuple[int, int]]:
    """Another process that listens: its pid and port."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        try:
            yield process.pid, int(process.stdout.readline())
        finally:
            process.kill()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_free_ports_and_port_zero_pass() -> None:
    check_ports(
        [
            Listener("api", "127.0.0.1", free_port()),
            Listener("network", "127.0.0.1", 0),
            Listener("monitoring", "::1", 0),
            Listener("api", "localhost", 0),
        ],
        MACHINE,
    )


def test_a_taken_port_names_the_process_and_the_key(other_process: tuple[int, int]) -> None:
    pid, port = other_process
    with pytest.raises(PortTakenError) as caught:
        check_ports([Listener("api", "127.0.0.1", port)], MACHINE)
    error = caught.value
    assert isinstance(error, ConflictError)
    assert error.what == f"cannot listen on 127.0.0.1:{port}"
    assert f"pid {pid} (python" in error.why
    assert "stop that process, or set api.port" in error.remedy
    assert error.key == "api.port"


def test_all_taken_ports_are_in_one_error(other_process: tuple[int, int]) -> None:
    _, port = other_process
    listeners = [Listener("api", "127.0.0.1", port), Listener("monitoring", "0.0.0.0", port)]
    with pytest.raises(PortTakenError) as caught:
        check_ports(listeners, MACHINE)
    assert caught.value.key == "api.port, monitoring.port"
    assert f"127.0.0.1:{port}" in caught.value.what
    assert f"0.0.0.0:{port}" in caught.value.what


def test_a_holder_that_cannot_be_seen_is_said_to_be_one(
    other_process: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports, "holders", lambda port, machine: [])
    with pytest.raises(PortTakenError, match=r"another process \(as root, `ss -ltnp"):
        check_ports([Listener("api", "127.0.0.1", other_process[1])], MACHINE)


def test_a_port_this_process_serves_on_is_not_in_its_own_way() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert [holder.pid for holder in holders(port, MACHINE)] == [os.getpid()]
        check_ports([Listener("api", "127.0.0.1", port)], MACHINE)


def test_the_check_leaves_no_socket_behind(no_leaks: None) -> None:
    check_ports([Listener("api", "127.0.0.1", 0)], MACHINE)


def test_an_address_of_another_host_is_refused() -> None:
    with pytest.raises(AddressUnavailableError) as caught:
        check_ports([Listener("network", "192.0.2.77", 0)], MACHINE)
    assert isinstance(caught.value, TransientError)
    assert "no network interface of this host has the address 192.0.2.77" in caught.value.why
    assert caught.value.key == "network.listen_address"


@pytest.mark.parametrize("address", ["300.1.2.3.4.invalid", "a..b", "x" * 300])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(AddressInvalidError, match="neither an address nor a name"):
        check_ports([Listener("api", address, 0)], MACHINE)


def test_a_port_this_user_may_not_bind_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(ports, "_bind", refuse)
    with pytest.raises(PortDeniedError) as caught:
        check_ports([Listener("api", "127.0.0.1", 443)], MACHINE)
    assert isinstance(caught.value, DeniedError)
    assert f"user {os.geteuid()} may not bind port 443" in caught.value.why
    assert "1024 or more" in caught.value.remedy


def test_a_name_with_an_address_family_this_host_lacks_still_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def only_ipv4(family: int, *rest: object) -> None:
        if family == socket.AF_INET6:
            raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")

    def both(*args: object, **options: object) -> list[object]:
        return [
            (socket.AF_INET6, 1, 6, "", ("::1", 0, 0, 0)),
            (socket.AF_INET, 1, 6, "", ("127.0.0.1", 0)),
        ]

    monkeypatch.setattr(ports, "_bind", only_ipv4)
    monkeypatch.setattr(ports.socket, "getaddrinfo", both)
    check_ports([Listener("api", "localhost", 7400)], MACHINE)


def test_a_port_nobody_listens_on_has_no_holder() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        assert holders(bound.getsockname()[1], MACHINE) == []


def test_a_holder_that_may_not_be_seen_is_not_guessed(tmp_path: Path) -> None:
    (tmp_path / "proc/net").mkdir(parents=True)
    line = "   0: 0100007F:1CE9 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 4711 1"
    (tmp_path / "proc/net/tcp").write_text(f"  sl  local_address\n{line}\n")
    (tmp_path / "proc/17").mkdir()  # a process whose descriptors cannot be listed
    machine = Machine(root=str(tmp_path))
    assert holders(7401, machine) == []
    (tmp_path / "proc/18/fd").mkdir(parents=True)
    (tmp_path / "proc/18/fd/3").symlink_to("socket:[4711]")
    (tmp_path / "proc/18/comm").write_text("nginx\n")
    assert holders(7401, machine) == [(18, "nginx")]


def test_without_proc_there_is_no_holder(tmp_path: Path) -> None:
    assert holders(7401, Machine(root=str(tmp_path))) == []
