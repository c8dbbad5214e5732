"""Certificates of a test's node, and handshakes in memory."""

from __future__ import annotations

import ssl
from typing import Any

from cryptography import x509

from novacron.config.schema import SecuritySettings
from novacron.data_directory import DataDirectory
from novacron.security.certificates import Certificates
from novacron.security.keyring import Keyring
from tests.security.stand_ins import NODE_ID

SECONDS_A_DAY = 86400.0
NAMES = ("localhost", "127.0.0.1")


class Clock:
    def __init__(self) -> None:
        self.time = 1_800_000_000.0

    def __call__(self) -> float:
        return self.time


def certificates(
    directory: DataDirectory,
    clock: Clock | None = None,
    node_id: str = NODE_ID,
    names: tuple[str, ...] = NAMES,
    **settings: Any,
) -> Certificates:
    ring = Keyring(directory)
    ring.open()
    made = Certificates(
        directory,
        SecuritySettings(**settings),
        ring,
        names,
        **({"now": clock} if clock else {}),
    )
    made.open(node_id)
    return made


def present(directory: DataDirectory) -> x509.Certificate:
    return x509.load_pem_x509_certificate((directory.pki / "node.pem").read_bytes())


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[bytes, bytes, str]:
    """A handshake in memory; the certificate each side got, and the protocol."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    serving = server.wrap_bio(to_server, to_client, server_side=True)
    asking = client.wrap_bio(to_client, to_server)
    pending = [asking, serving]
    for _ in range(10):
        for side in list(pending):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            pending.remove(side)
        if not pending:
            break
    assert not pending
    got_by_server, got_by_client = serving.getpeercert(True), asking.getpeercert(True)
    assert got_by_server is not None
    assert got_by_client is not None
    return got_by_server, got_by_client, str(serving.version())
