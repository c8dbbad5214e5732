"""The first contact of a node with the authority it joins: one TLS connection, one request.

Nothing is known of the other side but the hash in the token. So the connection is made without
checking anything, what the other side has shown is checked by hand, and only then is something sent,
on that same connection: the certificate request and the token.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from novacron.errors import NovaCronError, SecurityError
from novacron.security import inspection
from novacron.security.errors import CertificateError, ClockSetBackError
from novacron.security.join_token import JoinTokenText
from novacron.trust.errors import (
    AuthorityUnreachableError,
    JoinAnswerError,
    JoinRefusedError,
    NotTheInterfaceError,
    WrongAuthorityError,
)

if TYPE_CHECKING:
    from cryptography import x509

CONNECT_TIMEOUT: Final = 10.0
"""Seconds for the connection and for TLS, each."""
ANSWER_TIMEOUT: Final = 35.0
"""Seconds for the answer: ``api.request_timeout`` of the other side, and a little."""
WHOLE_TIMEOUT: Final = 60.0
"""Seconds for all that comes after the connection. The others count from byte to byte, and whoever sends
one now and then would hold this command, and the data directory with it, for ever."""
MAX_ANSWER: Final = 2 * 1024 * 1024
"""Bytes: certificates are 2 KiB; the list of revoked ones may be 650 KiB as PEM."""
_ALPN: Final = "http/1.1"
_LOOK: Final = (
    "compare the token's end with what `novacron pki show` prints there. If its authority's key was "
    "replaced since the token was made, make another; if that is the right node and the two are the "
    "same, somebody between the two answers in its place"
)


def ask(
    host: str,
    port: int,
    token: JoinTokenText,
    request: bytes,
    *,
    now: Callable[[], float],
    agree: Callable[[Sequence[x509.Certificate]], None] = lambda presented: None,
) -> tuple[dict[str, Any], x509.Certificate]:
    """Show *token* and *request* (PEM) to the authority at *host*:*port*; its answer, and the
    certificate by which it was known. Blocks.

    Args:
      agree: Called with what the other side has shown, once it is known to be the authority and
        before it is told anything; what it raises ends the attempt.

    Raises:
      AuthorityUnreachableError: nobody answers; the same call may succeed later.
      NotTheInterfaceError: something else listens there.
      WrongAuthorityError: it is not the authority of the token; nothing was sent.
      ClockSetBackError, CertificateError: by this machine's clock its certificate is not valid.
      JoinRefusedError: it refuses; its reason is in the message.
      JoinAnswerError: it answers something else.
    """
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    with _connect(host, port, where) as connection, _ended_in_time(connection, where):
        tls = _secure(connection, where)
        with tls:
            presented = _presented(tls)
            authority = check_presented(presented, token.authority, where, now())
            if tls.selected_alpn_protocol() != _ALPN:
                raise NotTheInterfaceError(
                    f"cannot join by way of {where}",
                    why="what listens there is the right node, but not its REST interface: perhaps "
                    "its peer listener (network.port)",
                    remedy="name the REST interface, by default port 7400 (api.port there)",
                    key="api.port",
                )
            agree(_loaded(presented))
            return _exchange(tls, where, token, request), authority


def _connect(host: str, port: int, where: str) -> socket.socket:
    try:
        return socket.create_connection((host, port), CONNECT_TIMEOUT)
    except TimeoutError as exc:
        raise AuthorityUnreachableError(
            f"cannot reach {where}",
            why=f"no connection came about within {CONNECT_TIMEOUT:g} s",
            remedy="look for a firewall between the two machines, and at the address",
        ) from exc
    except (OSError, UnicodeError) as exc:
        # The latter: a part of the name is empty or too long, and was not even looked up.
        raise AuthorityUnreachableError(
            f"cannot reach {where}",
            why=(exc.strerror or str(exc)) if isinstance(exc, OSError) else "it is no host name",
            remedy="check the address, that the node runs there, and that its api.listen_address "
            "can be reached from here (the default is loopback)",
            key="api.listen_address",
        ) from exc


@contextlib.contextmanager
def _ended_in_time(connection: socket.socket, where: str) -> Iterator[None]:
    late = threading.Event()
    # Of its own: TLS takes the other one over.
    ending = connection.dup()

    def end() -> None:
        late.set()
        with contextlib.suppress(OSError):
            ending.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(WHOLE_TIMEOUT, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    except NovaCronError as exc:
        if not late.is_set():
            raise
        raise AuthorityUnreachableError(
            f"{where} takes too long",
            why=f"it was not done within {WHOLE_TIMEOUT:g} s, though it says something now and then",
            remedy="see that nobody between the two machines answers in its place, and run the same "
            "command again",
        ) from exc
    finally:
        timer.cancel()
        timer.join()
        ending.close()


def _secure(connection: socket.socket, where: str) -> ssl.SSLSocket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # By hand instead, in check_presented: the library can check a chain, not a hash.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols([_ALPN])
    try:
        return context.wrap_socket(connection)
    except TimeoutError as exc:
        raise AuthorityUnreachableError(
            f"no TLS connection with {where}",
            why=f"it said nothing within {CONNECT_TIMEOUT:g} s",
            remedy="look at the log of the node there",
        ) from exc
    except ssl.SSLError as exc:
        not_tls = exc.reason in (
            "WRONG_VERSION_NUMBER",
            "RECORD_LAYER_FAILURE",
            "PACKET_LENGTH_TOO_LONG",
            "HTTP_REQUEST",
        )
        raise NotTheInterfaceError(
            f"no TLS connection with {where}",
            why="it does not speak TLS, over which alone a node may join"
            if not_tls
            else (exc.reason or str(exc)).lower().replace("_", " "),
            remedy="set api.tls to on (or api.listen_address to one that is not loopback) on the "
            "authority's node and start it again; or the port is another service's",
            key="api.tls",
        ) from exc
    except OSError as exc:
        raise NotTheInterfaceError(
            f"no TLS connection with {where}",
            why=f"it closed the connection ({exc.strerror or type(exc).__name__})",
            remedy="name the REST interface of the authority's node (api.port there); its api.tls "
            "must be on",
            key="api.tls",
        ) from exc


def _presented(tls: ssl.SSLSocket) -> list[bytes]:
    """The certificates (DER) the other side has sent, its own first, nothing of them checked but
    that it holds the first one's key: TLS itself has seen to that."""
    if hasattr(tls, "get_unverified_chain"):  # Python 3.13
        return [bytes(each) for each in tls.get_unverified_chain()]
    # Before it there is the same without a public name.
    inner: Any = cast(Any, tls)._sslobj
    return [bytes(each.public_bytes(_DER)) for each in inner.get_unverified_chain() or ()]


_DER: Final = 2
"""What Python calls ``_ssl.ENCODING_DER``: X509_FILETYPE_ASN1 of OpenSSL."""


def _loaded(presented: Sequence[bytes]) -> list[x509.Certificate]:
    from cryptography import x509

    return [x509.load_der_x509_certificate(der) for der in presented]


def check_presented(
    presented: Sequence[bytes], pin: str, where: str, now: float
) -> x509.Certificate:
    """The authority's certificate among those *presented*, once it is certain that the other side is
    the node that holds its key: the hash of its public key is *pin*, it has issued the first
    certificate, and it says there that this is its own node.

    Raises:
      WrongAuthorityError, ClockSetBackError, CertificateError: see :func:`ask`.
    """
    try:
        chain = _loaded(presented)
        hashes = [inspection.key_hash(each.public_key()) for each in chain]
        for each in chain:
            inspection.look_through(each)
    except inspection.faults() as exc:
        raise _wrong(where, "what it showed is no certificate of ours", _LOOK) from exc
    matching = [
        each for each, hash in zip(chain, hashes, strict=True) if hmac.compare_digest(hash, pin)
    ]
    if not matching:
        raise _wrong(
            where,
            "this is not the authority the token was made by: the token is of the authority "
            f"{pin[:16]}…, and there answers {hashes[-1][:16] + '…' if hashes else 'none'}",
            _LOOK,
        )
    # Several have that key where it was handed over: the one that signed itself counts.
    authority = next(
        (each for each in matching if inspection.issued_by(each, [each], (), now)), None
    )
    authority, leaf = authority or matching[0], chain[0]
    try:
        for certificate, whose in ((authority, "the authority's certificate"), (leaf, where)):
            inspection.check_dates(certificate, whose, "", now)
    except (ClockSetBackError, CertificateError) as exc:
        raise type(exc)(
            f"cannot believe {where}",
            why=exc.why,
            remedy="compare the clocks of both machines (timedatectl); where they are right, the "
            "authority's node has to renew its certificate: `novacron certificate renew` there",
        ) from exc
    # Between the two may be the handover to an authority that has followed this one.
    handovers = [each for each in chain[1:] if inspection.is_handover(each)]
    if not inspection.is_authority(authority) or not inspection.issued_by(
        leaf, [authority], handovers, now
    ):
        raise _wrong(
            where, "it shows the authority's certificate, and has none issued by it", _LOOK
        )
    if not inspection.holds_authority(leaf):
        node = inspection.node_name(leaf)
        raise _wrong(
            where,
            f"node {node} is one of the cluster, but not the one that holds the authority's key",
            "name the node where the token was made",
        )
    return authority


def _exchange(
    tls: ssl.SSLSocket, where: str, token: JoinTokenText, request: bytes
) -> dict[str, Any]:
    import http.client

    tls.settimeout(ANSWER_TIMEOUT)
    connection = http.client.HTTPConnection(where)
    connection.sock = tls
    try:
        connection.request(
            "POST",
            "/api/v1/join",
            json.dumps({"csr": request.decode()}),
            {
                "Authorization": f"Bearer {token.secret}",
                "Content-Type": "application/json",
                "Accept": "application/json",
                "Connection": "close",
            },
        )
        answer = connection.getresponse()
        status, body = answer.status, answer.read(MAX_ANSWER + 1)
    except (OSError, http.client.HTTPException) as exc:
        raise AuthorityUnreachableError(
            f"{where} did not answer the request to join",
            why=(exc.strerror if isinstance(exc, OSError) else "") or type(exc).__name__,
            remedy="run the same command again: if it was granted, the same is granted again",
        ) from exc
    try:
        found = json.loads(body) if len(body) <= MAX_ANSWER else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise JoinAnswerError(
            f"cannot understand the answer of {where}",
            why=f"status {status}, and it is no JSON object",
            remedy="check that both nodes run the same version",
        )
    if status >= 400:
        raise _refusal(where, status, found)
    return found


def _refusal(where: str, status: int, problem: dict[str, Any]) -> SecurityError | Any:
    why = str(problem.get("detail") or problem.get("title") or f"status {status}")
    remedy, key = str(problem.get("remedy") or ""), str(problem.get("key") or "")
    if status == 404:
        return JoinAnswerError(
            f"{where} lets nobody join",
            why="it does not know that request: its version is older",
            remedy="upgrade it",
        )
    if status in (429, 503):
        return AuthorityUnreachableError(
            f"{where} cannot let this node join now",
            why=why,
            remedy=remedy or "run the same command again in a minute",
            key=key,
        )
    return JoinRefusedError(
        f"{where} does not let this node join",
        why=why,
        remedy=remedy or "look at the log of the node there",
        key=key,
    )


def _wrong(where: str, why: str, remedy: str) -> WrongAuthorityError:
    return WrongAuthorityError(f"refusing to join by way of {where}", why=why, remedy=remedy)
