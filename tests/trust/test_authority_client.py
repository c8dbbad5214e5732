"""The first contact: who is told the token, and who is not."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from novacron.errors import NovaCronError
from novacron.security.errors import CertificateError, ClockSetBackError
from novacron.security.inspection import key_hash
from novacron.security.join_token import JoinTokenText
from novacron.trust import authority_client
from novacron.trust.authority_client import ask
from novacron.trust.errors import (
    AuthorityUnreachableError,
    JoinAnswerError,
    JoinRefusedError,
    NotTheInterfaceError,
    WrongAuthorityError,
)
from tests.security.stand_ins import OTHER_ID
from tests.security.tls import SECONDS_A_DAY
from tests.trust.test_issuer import Holder
from tests.trust.test_joining import grant_to, opened, prepared

SECRET = "ncj_0123456789abcdef_" + "s" * 43
REQUEST = b"-----BEGIN CERTIFICATE REQUEST-----"


class Listener:
    """Accepts one connection at a time, and does *converse* with it; keeps what it was told."""

    def __init__(self, converse: Callable[[socket.socket], bytes | None]) -> None:
        self.heard = b""
        self._converse = converse
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(10)
                try:
                    self.heard += self._converse(connection) or b""
                except OSError:
                    continue

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(20)


@pytest.fixture
def listen() -> Iterator[Callable[..., Listener]]:
    made: list[Listener] = []

    def begin(converse: Callable[[socket.socket], bytes | None]) -> Listener:
        made.append(Listener(converse))
        return made[-1]

    yield begin
    for each in made:
        each.close()


@pytest.fixture
def holder(tmp_path: Path) -> Holder:
    found = Holder(tmp_path / "authority")
    found.clock.time = time.time()
    found.certificates.adopt(found.certificates._opened_source().material(force=True))
    return found


def token_of(holder: Holder) -> JoinTokenText:
    authority = holder.issuer.authority.certificate()
    return JoinTokenText("0123456789abcdef", SECRET, key_hash(authority.public_key()))


def context_of(node: Path, authority: Path, alpn: bool = True) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(node)
    context.load_verify_locations(authority)
    if alpn:
        context.set_alpn_protocols(["http/1.1"])
    return context


def over_tls(context: ssl.SSLContext, status: int, body: bytes) -> Callable[..., bytes]:
    def converse(connection: socket.socket) -> bytes:
        with context.wrap_socket(connection, server_side=True) as tls:
            heard = b""
            while not heard.endswith(b"}"):
                more = tls.recv(4096)
                if not more:
                    return heard
                heard += more
            head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n"
            tls.sendall(head.encode() + body)
        return heard

    return converse


def rest(holder: Holder, status: int = 200, body: bytes = b"{}") -> Callable[..., bytes]:
    pki = holder.directory.pki
    return over_tls(context_of(pki / "node.pem", pki / "ca.pem"), status, body)


def contact(
    listener: Listener, token: JoinTokenText, now: Callable[[], float] = time.time
) -> dict[str, Any]:
    return ask("127.0.0.1", listener.port, token, REQUEST, now=now)[0]


def test_the_authority_of_the_token_is_told_the_secret_and_the_request(
    listen: Callable[..., Listener], holder: Holder
) -> None:
    listener = listen(rest(holder, 200, b'{"certificate": "x"}'))
    token = token_of(holder)
    assert contact(listener, token) == {"certificate": "x"}
    assert f"Authorization: Bearer {SECRET}\r\n".encode() in listener.heard
    assert token.authority.encode() not in listener.heard
    assert json.loads(listener.heard.partition(b"\r\n\r\n")[2]) == {"csr": REQUEST.decode()}


def test_another_authority_is_told_nothing(
    listen: Callable[..., Listener], holder: Holder, tmp_path: Path
) -> None:
    impostor = Holder(tmp_path / "impostor")
    impostor.clock.time = time.time()
    impostor.certificates.adopt(impostor.certificates._opened_source().material(force=True))
    listener = listen(rest(impostor))
    with pytest.raises(WrongAuthorityError, match="not the authority the token was made by"):
        contact(listener, token_of(holder))
    assert listener.heard == b""


def test_one_that_shows_the_right_authority_and_has_nothing_from_it_is_told_nothing(
    listen: Callable[..., Listener], holder: Holder, tmp_path: Path
) -> None:
    impostor = Holder(tmp_path / "impostor")
    impostor.clock.time = time.time()
    impostor.certificates.adopt(impostor.certificates._opened_source().material(force=True))
    mixed = tmp_path / "mixed.pem"
    # The authority's certificate is public: anybody can send it along with their own.
    mixed.write_bytes(
        (impostor.directory.pki / "node.pem").read_bytes()
        + (holder.directory.pki / "ca.pem").read_bytes()
    )
    context = context_of(mixed, holder.directory.pki / "ca.pem")
    listener = listen(over_tls(context, 200, b"{}"))
    with pytest.raises(WrongAuthorityError, match="has none issued by it"):
        contact(listener, token_of(holder))
    assert listener.heard == b""


def test_a_node_of_the_cluster_that_does_not_hold_the_authority_is_told_nothing(
    listen: Callable[..., Listener], holder: Holder, tmp_path: Path
) -> None:
    directory = prepared(tmp_path / "member")
    grant_to(holder, directory)
    opened(directory, holder)
    context = context_of(directory.pki / "node.pem", directory.pki / "ca.pem")
    listener = listen(over_tls(context, 200, b"{}"))
    with pytest.raises(WrongAuthorityError, match=f"node {OTHER_ID} is one of the cluster, but"):
        contact(listener, token_of(holder))
    assert listener.heard == b""


def test_a_peer_listener_is_told_nothing(listen: Callable[..., Listener], holder: Holder) -> None:
    pki = holder.directory.pki
    context = context_of(pki / "node.pem", pki / "ca.pem", alpn=False)
    listener = listen(over_tls(context, 200, b"{}"))
    with pytest.raises(NotTheInterfaceError, match="its peer listener"):
        contact(listener, token_of(holder))
    assert listener.heard == b""


def test_without_tls_nothing_is_said(listen: Callable[..., Listener], holder: Holder) -> None:
    def http(connection: socket.socket) -> bytes:
        heard = connection.recv(4096)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        return heard

    listener = listen(http)
    with pytest.raises(NotTheInterfaceError, match="does not speak TLS") as caught:
        contact(listener, token_of(holder))
    assert caught.value.key == "api.tls"
    assert SECRET.encode() not in listener.heard


def test_one_that_hangs_up_or_says_nothing_is_told_apart(
    listen: Callable[..., Listener], holder: Holder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(connection: socket.socket) -> bytes:
        heard = b""
        while more := connection.recv(4096):
            heard += more
        return heard

    with pytest.raises(NotTheInterfaceError):
        contact(listen(lambda connection: None), token_of(holder))
    monkeypatch.setattr(authority_client, "CONNECT_TIMEOUT", 0.2)
    with pytest.raises(AuthorityUnreachableError, match="said nothing within"):
        contact(listen(silent), token_of(holder))


def test_one_that_says_a_byte_now_and_then_holds_nobody_for_ever(
    listen: Callable[..., Listener], holder: Holder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authority_client, "WHOLE_TIMEOUT", 0.2)
    enough = threading.Event()

    def drip(connection: socket.socket) -> bytes:
        # A record of TLS with 16 KiB of handshake, at twenty bytes a second.
        for byte in b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc" + bytes(200):
            connection.sendall(bytes((byte,)))
            if enough.wait(0.05):
                break
        return b""

    listener = listen(drip)
    with pytest.raises(AuthorityUnreachableError, match="was not done within"):
        contact(listener, token_of(holder))
    enough.set()
    assert listener.heard == b""


def test_an_answer_nested_without_end_is_no_answer(
    listen: Callable[..., Listener], holder: Holder
) -> None:
    listener = listen(rest(holder, 200, b"[" * 100_000))
    with pytest.raises(JoinAnswerError, match="it is no JSON object"):
        contact(listener, token_of(holder))


def test_a_host_that_can_have_no_address_is_none(holder: Holder) -> None:
    for host in ("a..example", "a" * 70 + ".example"):
        with pytest.raises(AuthorityUnreachableError, match="it is no host name"):
            ask(host, 7400, token_of(holder), REQUEST, now=time.time)


def test_nobody_there(holder: Holder) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(AuthorityUnreachableError, match="Connection refused"):
        ask("127.0.0.1", port, token_of(holder), REQUEST, now=time.time)


def test_clocks_that_disagree_are_named(listen: Callable[..., Listener], holder: Holder) -> None:
    listener = listen(rest(holder))
    with pytest.raises(ClockSetBackError, match="it is not valid before") as early:
        contact(listener, token_of(holder), lambda: time.time() - SECONDS_A_DAY)
    with pytest.raises(CertificateError, match="it expired at") as late:
        contact(listener, token_of(holder), lambda: time.time() + 91 * SECONDS_A_DAY)
    assert "timedatectl" in early.value.remedy
    assert "timedatectl" in late.value.remedy
    assert listener.heard == b""


@pytest.mark.parametrize(
    ("status", "body", "error", "says"),
    [
        (
            401,
            b'{"detail": "it was used already", "remedy": "r"}',
            JoinRefusedError,
            "used already",
        ),
        (409, b'{"detail": "there is a node"}', JoinRefusedError, "there is a node"),
        (503, b'{"detail": "its disk is full"}', AuthorityUnreachableError, "its disk is full"),
        (429, b'{"detail": "too many calls"}', AuthorityUnreachableError, "too many calls"),
        (404, b'{"detail": "nothing"}', JoinAnswerError, "its version is older"),
        (200, b"[]", JoinAnswerError, "no JSON object"),
        (200, b"<html>", JoinAnswerError, "no JSON object"),
        (200, b"", JoinAnswerError, "no JSON object"),
    ],
)
def test_a_refusal_is_passed_on_in_its_words(
    listen: Callable[..., Listener],
    holder: Holder,
    status: int,
    body: bytes,
    error: type[NovaCronError],
    says: str,
) -> None:
    with pytest.raises(error) as caught:
        contact(listen(rest(holder, status, body)), token_of(holder))
    assert says in str(caught.value)
    assert SECRET not in str(caught.value)


def test_an_answer_that_is_lost_is_asked_for_again(
    listen: Callable[..., Listener], holder: Holder
) -> None:
    pki = holder.directory.pki
    context = context_of(pki / "node.pem", pki / "ca.pem")

    def hang_up(connection: socket.socket) -> bytes:
        with context.wrap_socket(connection, server_side=True) as tls:
            return tls.recv(4096)

    with pytest.raises(AuthorityUnreachableError, match="did not answer the request") as caught:
        contact(listen(hang_up), token_of(holder))
    assert "run the same command again" in caught.value.remedy
