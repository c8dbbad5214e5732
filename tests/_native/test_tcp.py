from __future__ import annotations

import socket
from pathlib import Path

import pytest

from novacron._native import tcp
from novacron._native.ffi import (
    NativeDeniedError,
    NativeError,
    NativeInvalidError,
    NativeNotFoundError,
)

PROC = Path("/proc/sys/net/ipv4")


def test_the_lists_are_the_kernels() -> None:
    assert list(tcp.available()) == (PROC / "tcp_available_congestion_control").read_text().split()
    assert list(tcp.allowed()) == (PROC / "tcp_allowed_congestion_control").read_text().split()
    assert tcp.default() == (PROC / "tcp_congestion_control").read_text().strip()


def test_the_default_is_permitted_and_an_invented_algorithm_is_not() -> None:
    assert tcp.permitted(tcp.default())
    assert not tcp.permitted("nonesuch")


def test_what_is_chosen_is_what_the_socket_then_uses() -> None:
    with socket.socket() as sock:
        tcp.choose(sock.fileno(), "reno")
        assert tcp.chosen(sock.fileno()) == "reno"


def test_an_algorithm_the_kernel_does_not_have_is_refused_by_name() -> None:
    with (
        socket.socket() as sock,
        pytest.raises((NativeNotFoundError, NativeDeniedError), match="'nonesuch'"),
    ):
        tcp.choose(sock.fileno(), "nonesuch")


@pytest.mark.parametrize("name", ["", "a" * 16, "re\0no", "réno", "reno\n"])
def test_what_cannot_be_a_name_is_refused_before_the_kernel_sees_part_of_it(name: str) -> None:
    with pytest.raises(NativeInvalidError):
        tcp.permitted(name)


def test_a_descriptor_that_is_no_tcp_socket_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file, pytest.raises(NativeInvalidError):
        tcp.chosen(file.fileno())
    with socket.socket(type=socket.SOCK_DGRAM) as sock, pytest.raises(NativeError):
        tcp.choose(sock.fileno(), "reno")


def test_what_a_connection_did_is_counted_and_timed() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as near,
    ):
        far, _ = server.accept()
        with far:
            for _ in range(5):
                near.sendall(b"x")
                far.recv(1)
                far.sendall(b"y")
                near.recv(1)
            found = tcp.info(near.fileno())
    assert (found.segments_out, found.total_retrans, found.delivered_ce) == (5, 0, 0)
    assert found.delivered >= 5
    assert 0 < found.min_rtt_us <= found.rtt_us
    assert found.app_limited


def test_a_descriptor_that_is_no_tcp_socket_has_no_figures(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file, pytest.raises(NativeInvalidError):
        tcp.info(file.fileno())
    with pytest.raises(NativeInvalidError):
        tcp.info(-1)
