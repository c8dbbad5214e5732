"""The authority's key is replaced under nodes that run, move a file, and share a database."""

from __future__ import annotations

import re
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from novacron.units import MIB
from tests.integration.joining_nodes import Machine
from tests.integration.node_process import DEADLINE, REPOSITORY, ask, wait_until
from tests.integration.two_nodes import digest, sparse_image
from tests.servers import Cluster, postgresql_cluster


@pytest.fixture
def database() -> Iterator[Cluster]:
    with postgresql_cluster() as servers:
        yield servers


@pytest.fixture
def machines(tmp_path: Path, database: Cluster) -> Iterator[list[Machine]]:
    """The first is the authority's, and runs; all use one database."""
    server = database.server
    settings = {
        "database.engine": "postgresql",
        "database.postgresql.hosts": f'["{server.address}"]',
        "database.postgresql.user": database.settings().user,
        "database.postgresql.password": f"file:{database.password}",
        "database.postgresql.ca_certificate": str(server.ca),
        "database.postgresql.name": database.new_database(),
    }
    made = [Machine(tmp_path, name, **settings) for name in ("one", "two", "three", "four")]
    made[0].run("pki", "init", "--name", "a test")
    made[0].start()
    try:
        yield made
    finally:
        for machine in made:
            machine.kill()


def refusals(machine: Machine) -> dict[str, float]:
    """Handshakes that failed for a reason of trust, by reason."""
    _, text = ask(f"127.0.0.1:{machine.ports['monitoring']}", "/metrics")
    found = re.findall(
        r'^novacron_network_handshake_failures_total\{role="\w+",reason="(\w+)"\} (\S+)$',
        text.decode(),
        re.MULTILINE,
    )
    reasons = ("untrusted", "refused", "certificate", "expired", "lost")
    return {reason: float(count) for reason, count in found if reason in reasons}


def is_let_in(machine: Machine, certificate: Path) -> bool:
    """Whether the peer listener goes on after it has seen *certificate*."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.load_cert_chain(certificate)
    with socket.create_connection(("127.0.0.1", machine.ports["network"]), DEADLINE) as plain:
        try:
            with context.wrap_socket(plain) as tls:
                tls.settimeout(0.5)
                return tls.recv(1) != b""
        except TimeoutError:
            return True  # it waits for what a session begins with
        except OSError:
            return False


def sessions(machine: Machine) -> set[str]:
    return {peer["node_id"] for peer in machine.ask("peers")["peers"] if peer["state"] == "open"}


def test_three_nodes_go_over_to_another_authority_while_they_work(
    machines: list[Machine], database: Cluster, tmp_path: Path
) -> None:
    one, two, three, four = machines
    old = two.join(one)["authority"]
    three.join(one)
    unused = one.token()
    two.start(one)
    three.start(two)
    wait_until(lambda: sessions(three) == {two.id}, every=0.05)
    kept = tmp_path / "kept.pem"
    kept.write_bytes((three.data / "pki" / "node.pem").read_bytes())
    assert is_let_in(one, kept)
    image = sparse_image(tmp_path / "disk.img", 24 * MIB, (0, 24 * MIB))
    sending = subprocess.Popen(
        one.command("send", str(image), f"{two.peer}:", "--limit", "1M", "--quiet"),
        stderr=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    )
    try:
        assert one.json("pki", "rotate", "begin")["stage"] == "begun"
        assert one.json("pki", "rotate", "status", "--wait", "30s")["ready"] is True
        issuing = one.json("pki", "rotate", "issue")
        assert (issuing["old_authority"], issuing["ready"]) == (old, False)
        new = issuing["new_authority"]
        ready = one.json("pki", "rotate", "status", "--wait", "30s")
        assert {node["node_id"]: node["certificate"] for node in ready["nodes"]} == {
            two.id: "new",
            three.id: "new",
        }
        finished = one.json("pki", "rotate", "finish")
        assert (finished["stage"], finished["revoked_tokens"]) == ("none", 1)
        for machine in (one, two, three):
            assert machine.process is not None
            machine.process.wait_log("another list of trusted authorities is in use", count=3)
            assert refusals(machine) == {}
        assert (sessions(two), sessions(three)) == ({one.id, three.id}, {two.id})
        # The transfer has gone on all the time, and goes on; it may be fast now.
        assert sending.poll() is None
        (transfer,) = one.ask("transfers")["transfers"]
        assert 0 < transfer["bytes_done"] < 24 * MIB
        one.run("transfers", "limit", transfer["id"], "none")
        # What was issued before is worth nothing, neither to whoever kept it nor to join by.
        assert not any(is_let_in(machine, kept) for machine in (one, two, three))
        said = four.run("join", one.rest, "--token", unused, fails=1)
        assert "was replaced since the token was made" in said
        assert four.join(one)["authority"] == new
        four.start(two)
        wait_until(lambda: sessions(four) == {two.id}, every=0.05)
        _, error = sending.communicate(timeout=DEADLINE)
        assert sending.returncode == 0, error
    finally:
        sending.kill()
        sending.communicate()
    assert digest(two.data / "transfers" / "disk.img") == digest(image)
    actions = {record["action"] for record in one.json("audit", "show")["records"]}
    steps = {"authority.begin", "authority.issue", "authority.finish"}
    assert {*steps, "authority.trust"} <= actions
    # A node that boots finds the same cluster, and its database.
    three.kill()
    three.start(two)
    wait_until(lambda: sessions(three) == {two.id}, every=0.05)
    name = three.settings["database.postgresql.name"]
    claimed = database.server.psql("SELECT authority FROM cluster_identity", database=name)
    assert claimed == old
