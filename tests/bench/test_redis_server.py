"""The private Redis of the tests and benches."""

from __future__ import annotations

import os
import socket
import ssl

import pytest

from bench.harness import BenchError
from bench.servers.redis import RedisServer
from bench.servers.tls import NAMES


def asked(server: RedisServer, *lines: bytes, tls: ssl.SSLContext | None = None) -> bytes:
    """What it answers to inline commands, over TCP as a client would."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as plain:
        connection = plain if tls is None else tls.wrap_socket(plain, server_hostname="localhost")
        with connection:
            connection.sendall(b"".join(line + b"\r\n" for line in (*lines, b"QUIT")))
            answer = b""
            while chunk := connection.recv(65536):
                answer += chunk
            return answer


def test_it_answers_and_leaves_nothing() -> None:
    with RedisServer() as server:
        pid, directory = server.pid, server.directory
        assert asked(server, b"SET a 1", b"GET a") == b"+OK\r\n$1\r\n1\r\n+OK\r\n"
        assert server.command("GET", "a") == b"1"
        with pytest.raises(BenchError, match="unknown command"):
            server.command("NONSENSE")
    assert not directory.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_after_a_restart_it_has_its_port_and_only_what_was_durable() -> None:
    for durable, left in ((False, None), (True, b"1")):
        with RedisServer(durable=durable) as server:
            port, pid = server.port, server.pid
            server.command("SET", "a", "1")
            server.restart()
            assert server.port == port
            assert server.pid != pid
            assert server.command("GET", "a") == left
            server.stop()
            server.stop()
            with pytest.raises(BenchError, match="does not run"):
                server.pause()
            server.start()
            assert server.command("GET", "a") == left


def test_a_paused_one_answers_when_it_is_resumed() -> None:
    with (
        RedisServer() as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection,
    ):
        server.pause()
        connection.sendall(b"PING\r\n")
        connection.setblocking(False)
        with pytest.raises(BlockingIOError):
            connection.recv(64)
        server.resume()
        connection.settimeout(20)
        assert connection.recv(64) == b"+PONG\r\n"


def test_only_its_users_get_in() -> None:
    with RedisServer(users={"node": ("secret", "~a:* +get +set")}) as server:
        assert asked(server, b"GET a:1").startswith(b"-NOAUTH")
        answer = asked(server, b"AUTH node wrong", b"AUTH node secret", b"GET a:1", b"GET b:1")
        assert [line[:6] for line in answer.split(b"\r\n")[:4]] == [
            b"-WRONG",
            b"+OK",
            b"$-1",
            b"-NOPER",
        ]


def test_its_certificate_is_of_its_own_authority_and_can_be_replaced() -> None:
    with RedisServer(tls=True) as server:
        assert server.tls is not None
        context = ssl.create_default_context(cafile=str(server.tls.ca_certificate))
        assert asked(server, b"PING", tls=context) == b"+PONG\r\n+OK\r\n"
        for names, days, reason in (
            (NAMES, -0.1, "expired"),
            (("elsewhere.example",), 1.0, "Hostname mismatch"),
        ):
            server.tls.issue("server", names=names, days=days)
            server.restart()
            with pytest.raises(ssl.SSLCertVerificationError, match=reason):
                asked(server, b"PING", tls=context)
