"""The proxy that stands in for the way to a server."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from bench.proxy import Proxy


class Echo:
    """Answers what it is sent, on a thread for each connection."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listener.getsockname()[:2]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(65536):
                    connection.sendall(data)
            except OSError:
                return

    def close(self) -> None:
        # A close alone leaves the thread in accept().
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    try:
        yield server
    finally:
        server.close()


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=20)


def asked(connection: socket.socket, data: bytes) -> bytes:
    connection.sendall(data)
    received = b""
    while len(received) < len(data):
        chunk = connection.recv(65536)
        if not chunk:
            break
        received += chunk
    return received


def test_what_is_sent_arrives_whole_and_in_order(echo: Echo) -> None:
    with Proxy(echo.address, rtt=0.002) as proxy, connect(proxy) as connection:
        data = bytes(range(256)) * 4096
        assert asked(connection, data) == data
        assert proxy.connections() == 1


def test_a_round_trip_takes_no_less_than_was_said_and_the_first_one_twice_that(echo: Echo) -> None:
    with Proxy(echo.address, rtt=0.05) as proxy, connect(proxy) as connection:
        began = time.monotonic()
        asked(connection, b"first")
        first = time.monotonic() - began
        began = time.monotonic()
        asked(connection, b"second")
        second = time.monotonic() - began
    # Only ever longer: a sleep does not end before its time. Clocks differ by a rounding.
    assert first >= 0.099
    assert second >= 0.049


def test_silence_keeps_what_was_sent(echo: Echo) -> None:
    with Proxy(echo.address) as proxy, connect(proxy) as connection:
        assert asked(connection, b"before") == b"before"
        proxy.mode("silent")
        connection.sendall(b"meanwhile")
        connection.settimeout(0.2)
        with pytest.raises(TimeoutError):
            connection.recv(100)
        connection.settimeout(20)
        proxy.mode("pass")
        assert connection.recv(100) == b"meanwhile"


def test_a_cut_resets_and_new_connections_are_taken(echo: Echo) -> None:
    with Proxy(echo.address) as proxy, connect(proxy) as connection:
        assert asked(connection, b"before") == b"before"
        assert proxy.cut() == 1
        with pytest.raises(ConnectionResetError):
            connection.recv(100)
        with connect(proxy) as again:
            assert asked(again, b"after") == b"after"


def test_refusing_is_not_listening_and_the_port_comes_back(echo: Echo) -> None:
    with Proxy(echo.address) as proxy:
        port = proxy.port
        proxy.mode("refuse")
        with pytest.raises(ConnectionRefusedError):
            connect(proxy)
        proxy.mode("pass")
        assert proxy.port == port
        with connect(proxy) as connection:
            assert asked(connection, b"back") == b"back"


def test_garbage_comes_instead_of_answers_on_old_connections_and_new_ones(echo: Echo) -> None:
    with Proxy(echo.address) as proxy, connect(proxy) as old:
        assert asked(old, b"question") == b"question"
        proxy.mode("garbage")
        for connection in (old, connect(proxy)):
            with connection:
                connection.sendall(b"question")
                assert connection.recv(8) == bytes(range(255, 247, -1))


def test_a_throttled_path_takes_the_time_its_rate_needs(echo: Echo) -> None:
    with Proxy(echo.address) as proxy, connect(proxy) as connection:
        proxy.throttle(100_000)
        data = bytes(20_000)
        began = time.monotonic()
        assert asked(connection, data) == data
        asked(connection, b"x")
        assert time.monotonic() - began >= 0.19
