"""The listener against clients that are not ours."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import socket
import ssl
import subprocess
from collections.abc import Callable

import pytest
import trio

from novacron.network.errors import AcceptAbortedError, AcceptExhaustedError, TlsError
from novacron.network.metrics import HANDSHAKE_FAILURES, PAUSES
from novacron.network.tcp_tls import TlsDialer, open_tls_listener
from novacron.protocol.events import ConnectionLostError
from tests.network.authority import Authority, Certificates, node_id
from tests.network.conftest import MakeNode, Node, until


def failures(reason: str) -> float:
    return HANDSHAKE_FAILURES.values.get(("acceptor", reason), 0.0)


async def s_client(node: Node, *arguments: str) -> tuple[bytes, str]:
    """What a foreign client receives inside TLS, and what it says about the handshake."""
    done = await trio.run_process(
        ["openssl", "s_client", "-connect", node.address, "-ign_eof", *arguments],
        stdin=b"NCPP\x01\x01\x00\x00",
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )
    return done.stdout, done.stderr.decode()


async def test_a_foreign_client_without_a_certificate_gets_an_alert_and_no_byte(
    make_node: MakeNode,
) -> None:
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            node = await make_node(1).start(nursery)
            before = failures("no_certificate")
            received, said = await s_client(node, "-quiet")
            assert "tlsv13 alert certificate required" in said
            # With -quiet standard output holds application data alone.
            assert received == b""
            assert failures("no_certificate") == before + 1
            nursery.cancel_scope.cancel()


async def test_a_foreign_client_with_another_authoritys_certificate_learns_no_more(
    make_node: MakeNode, other_authority: Authority
) -> None:
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            node = await make_node(1).start(nursery)
            before = failures("untrusted")
            certificate, key = other_authority.issue(node_id(9))
            received, said = await s_client(
                node, "-quiet", "-cert", str(certificate), "-key", str(key)
            )
            assert "alert unknown ca" in said
            assert received == b""
            assert failures("untrusted") == before + 1
            nursery.cancel_scope.cancel()


async def test_tls_1_2_is_refused(
    make_node: MakeNode, certificates: Callable[[int], Certificates]
) -> None:
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            node = await make_node(1).start(nursery)
            before = failures("tls_version")
            certificate, key = certificates(2).paths
            received, said = await s_client(
                node, "-quiet", "-tls1_2", "-cert", str(certificate), "-key", str(key)
            )
            assert "alert protocol version" in said
            assert received == b""
            assert failures("tls_version") == before + 1
            nursery.cancel_scope.cancel()


async def test_a_foreign_client_with_a_certificate_is_told_what_is_wrong_with_its_bytes(
    make_node: MakeNode, certificates: Callable[[int], Certificates]
) -> None:
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            node = await make_node(1, handshake_timeout=2.0).start(nursery)
            certificate, key = certificates(2).paths
            before = failures("handshake_timeout")
            received, _ = await s_client(
                node, "-quiet", "-cert", str(certificate), "-key", str(key)
            )
            # Eight bytes of a header, then silence.
            assert b"the handshake took longer than 2 s" in received
            assert failures("handshake_timeout") == before + 1
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "greeting", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"NCPP\x01\x01\x00\x00", b"\x00" * 64]
)
async def test_plain_text_gets_at_most_an_alert(make_node: MakeNode, greeting: bytes) -> None:
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            node = await make_node(1).start(nursery)
            before = failures("not_tls")
            stream = await trio.open_tcp_stream(*node.host_port)
            await stream.send_all(greeting)
            answer = b"".join([chunk async for chunk in stream])
            await stream.aclose()
            # A TLS alert record: type 21, two bytes of version, length 2, level, description.
            assert answer == b"" or (len(answer) == 7 and answer[0] == 21)
            await until(lambda: failures("not_tls") == before + 1)
            nursery.cancel_scope.cancel()


async def test_a_client_that_says_nothing_is_dropped_at_the_handshake_deadline(
    make_node: MakeNode,
) -> None:
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            node = await make_node(1, handshake_timeout=0.3).start(nursery)
            before = failures("handshake_timeout")
            stream = await trio.open_tcp_stream(*node.host_port)
            assert await stream.receive_some() == b""
            await stream.aclose()
            assert failures("handshake_timeout") == before + 1
            nursery.cancel_scope.cancel()


async def test_a_client_that_dribbles_its_first_message_is_dropped_at_the_same_deadline(
    make_node: MakeNode, certificates: Callable[[int], Certificates]
) -> None:
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            node = await make_node(1, handshake_timeout=2.0).start(nursery)
            before = failures("handshake_timeout")
            stream = await TlsDialer(certificates(2).client_context).dial(*node.host_port)

            async def dribble() -> None:
                with contextlib.suppress(ConnectionLostError):
                    for byte in b"NCPP\x01\x01" + bytes(1000):
                        await stream.send_all(bytes([byte]))
                        await trio.sleep(0.4)  # a header would take 6.4 s

            nursery.start_soon(dribble)
            await until(lambda: failures("handshake_timeout") == before + 1)
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await stream.aclose()


async def test_running_out_of_descriptors_pauses_accepting_and_then_goes_on(
    make_node: MakeNode,
) -> None:
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            first = await make_node(1).start(nursery)
            second = make_node(2, seeds=(first.address,))
            before = PAUSES.values.get(("exhausted",), 0)
            client = trio.socket.socket()
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            highest = max(int(name) for name in os.listdir("/proc/self/fd"))
            # Every number up to the limit is in use, but for those that closed files left.
            fillers = []
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
                with pytest.raises(OSError, match="Too many open files"):
                    while True:
                        fillers.append(os.dup(0))
                await client.connect(first.host_port)
                await until(lambda: PAUSES.values.get(("exhausted",), 0) > before)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                for filler in fillers:
                    os.close(filler)
                client.close()
            await second.start(nursery)
            await first.wait_session(second)
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (errno.EMFILE, AcceptExhaustedError),
        (errno.ENFILE, AcceptExhaustedError),
        (errno.ENOMEM, AcceptExhaustedError),
        (errno.ECONNABORTED, AcceptAbortedError),
        (errno.EPROTO, AcceptAbortedError),
    ],
)
async def test_what_accept_says_is_told_apart(
    certificates: Callable[[int], Certificates],
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    error: type[Exception],
) -> None:
    listener = await open_tls_listener("127.0.0.1", 0, certificates(1).server_context)

    async def fail(self: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(type(listener._socket), "accept", fail)
    with pytest.raises(error):
        await listener.accept()
    listener.close()


async def test_a_context_that_asks_for_no_certificate_is_not_a_way_in(
    certificates: Callable[[int], Certificates],
) -> None:
    certificate, key = certificates(1).paths
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    with trio.fail_after(10):
        listener = await open_tls_listener("127.0.0.1", 0, lambda: server)
        host, port = listener.address.split(":")

        async def dial() -> None:
            stream = await TlsDialer(lambda: client).dial(host, int(port))
            await stream.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(dial)
            incoming = await listener.accept()
            with pytest.raises(TlsError, match="showed no certificate"):
                await incoming.handshake()
        listener.close()


async def test_an_ipv6_listener_publishes_its_address_in_brackets(
    certificates: Callable[[int], Certificates],
) -> None:
    with socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
    listener = await open_tls_listener("::1", 0, certificates(1).server_context)
    assert listener.address.startswith("[::1]:")
    listener.close()


def test_openssl_is_there() -> None:
    # The tests above are worth nothing if this is not the program they think it is.
    version = subprocess.run(["openssl", "version"], capture_output=True, text=True, check=True)
    assert version.stdout.startswith("OpenSSL 3")
