"""Certificates of joined nodes that really come to their end while the authority's node is away.

Two nodes lose it: of one the certificate is due and has a while to go, that of the other ends
before anybody can renew it. Between them nothing must break."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from novacron.data_directory import DataDirectory
from novacron.durable import write_durably
from novacron.security.authority import Authority
from novacron.security.keyring import Keyring
from tests.integration.joining_nodes import Machine
from tests.integration.node_process import wait_until

DUE = 120.0
"""Seconds a certificate is still valid whose time to be renewed has come."""


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[list[Machine]]:
    """The first is the authority's, and away; the others have joined, and do not run yet."""
    made = [Machine(tmp_path, name) for name in ("authority", "late", "expired")]
    authority = made[0]
    authority.run("pki", "init")
    authority.start()
    try:
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda machine: machine.join(authority), made[1:]))
        authority.kill()
        yield made
    finally:
        for machine in made:
            machine.kill()


def certify(authority: Machine, machine: Machine, seconds: float) -> float:
    """Give *machine* a certificate that ends in so many seconds, in place of that it has; when it ends,
    in seconds since the epoch."""
    directory = DataDirectory(authority.data)
    keyring = Keyring(directory)
    keyring.open()
    key = ec.generate_private_key(ec.SECP256R1())
    now = time.time()
    certificate = Authority(directory, keyring, 365).certify(
        key.public_key(),
        machine.id,
        ["localhost", "127.0.0.1", "::1"],
        seconds / 86400.0,
        now,
        # A certificate is due for the last third of its validity.
        3 * seconds,
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = certificate.public_bytes(serialization.Encoding.PEM)
    write_durably(machine.data / "pki" / "node.pem", private + public, mode=0o600)
    return certificate.not_valid_after_utc.timestamp()


def start_before_its_end(authority: Machine, machine: Machine, peer: Machine) -> float:
    """Boot the machine with a certificate that ends a moment after it has met *peer*; when it ends."""
    seconds = 4.0
    while True:
        ends = certify(authority, machine, seconds)
        try:
            machine.start(authority, peer)
            wait_until(lambda: machine.peers() == {peer.id: "open"}, every=0.2)
        except AssertionError:
            assert time.time() > ends, "it was not for its certificate"
        else:
            return ends
        machine.kill()
        # On a machine that is busy; the time is not what is tested here.
        seconds *= 2


def serial(machine: Machine) -> str:
    found: str = machine.json("certificate", "show")["serial"]
    return found


def test_a_late_renewal_is_made_up_for_and_what_has_expired_joins_again(
    machines: list[Machine],
) -> None:
    authority, late, expired = machines
    certify(authority, late, DUE)
    before = serial(late)
    running = late.start(authority)
    running.wait_log("the node's certificate is not renewed yet")
    ends = start_before_its_end(authority, expired, late)
    assert expired.process is not None
    expired.process.wait_log("the node's certificate is not renewed yet")
    while time.time() <= ends:
        time.sleep(0.05)
    # What was open stays open, on both sides, though the certificate has ended.
    assert late.peers() == {expired.id: "open"}
    # Its own interface is not believed any more, and the command says where to look instead.
    said = expired.run("certificate", "renew", fails=1)
    assert "certificate has expired" in said
    assert "`novacron certificate show`" in said

    authority.start(late)
    assert authority.process is not None
    # The one is renewed the moment it meets the authority's node again.
    running.wait_log("A new certificate is in use")
    assert serial(late) != before
    # The other is let in nowhere new, and loses nothing of what it has.
    expired.process.wait_log("does not accept this node's certificate")
    authority.process.wait_log("the peer's certificate is not accepted: certificate has expired")
    wait_until(lambda: late.peers() == {authority.id: "open", expired.id: "open"}, every=0.2)
    # Nobody whose certificate was valid has been refused, nor lost a session for it.
    assert "does not accept" not in running.text()
    ended = [record for record in running.log() if record["message"] == "session ended"]
    assert expired.id not in {record["peer"] for record in ended}

    expired.kill()
    again = expired.json(
        "join", authority.rest, "--token", authority.token("--node-id", expired.id)
    )
    assert again["node_id"] == expired.id
    expired.start(authority, late)
    wait_until(lambda: expired.peers() == {authority.id: "open", late.id: "open"}, every=0.2)
