"""What a node does with a request or a session that it denies, between two nodes over real connections."""

from __future__ import annotations

import contextlib
import socket
import ssl
from pathlib import Path

import pytest
import trio

from novacron.network.errors import RequestFailedError
from novacron.network.session import STATUS_DENIED, PeerSession
from novacron.security import Role, Rule
from novacron.security.policy import RULES
from tests.network.authority import Authority, Certificates, node_id
from tests.network.conftest import MakeNode, Node, until


async def test_a_denied_request_is_answered_with_a_status_of_its_own_and_recorded(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bytes] = []

    async def handler(_: PeerSession, body: bytes) -> bytes:
        asked.append(body)
        return b"done"

    monkeypatch.setitem(RULES, "test.change", Rule(None, node=True, changes=True))
    with trio.fail_after(15):
        async with trio.open_nursery() as nursery:
            first = await make_node(1).start(nursery)
            second = await make_node(2, seeds=(first.address,)).start(nursery)
            session = await second.wait_session(first)
            first.network.register_handler("test.change", handler)
            assert await session.request("test.change", b"x", within=5) == b"done"
            monkeypatch.setitem(RULES, "test.change", Rule(Role.ADMIN, changes=True))
            with pytest.raises(RequestFailedError, match=r"test\.change is denied") as caught:
                await session.request("test.change", b"y", within=5)
            # The session goes on: a peer of another version may ask for what it may no more.
            assert second.network.session(first.id) is session
            nursery.cancel_scope.cancel()
    assert caught.value.status == STATUS_DENIED
    assert asked == [b"x"]
    records = first.security.audit.records
    assert [record["outcome"] for record in records] == ["started", "success", "denied"]
    assert {record["actor"] for record in records} == {f"node:{second.id}"}
    assert all(record["source"].startswith("127.0.0.1:") for record in records)
    assert "not allowed for the role node" in records[-1]["details"]["why"]


async def test_a_peer_that_is_no_node_of_the_cluster_is_recorded(
    make_node: MakeNode, authority: Authority
) -> None:
    with trio.fail_after(15):
        async with trio.open_nursery() as nursery:
            first = await make_node(1).start(nursery)
            nameless = Certificates(authority, "nobody", named=False)
            stranger = await Node(2, nameless, seeds=(first.address,)).start(nursery)
            records = first.security.audit.records
            await until(lambda: records)
            assert stranger.network.session(first.id) is None
            nursery.cancel_scope.cancel()
    assert records[0]["action"] == "peer.session"
    assert records[0]["outcome"] == "denied"
    assert records[0]["source"].startswith("127.0.0.1:")
    assert records[0]["details"]["reason"]


def knock(address: str, shown: tuple[Path, Path] | None) -> None:
    """Come to *address* with a certificate and its key, and take whatever is there for good."""
    host, _, port = address.rpartition(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if shown is not None:
        context.load_cert_chain(*shown)
    # The other side's word on it comes with the first read, or is lost with the connection.
    with (
        socket.create_connection((host, int(port)), 10) as connection,
        contextlib.suppress(OSError),
        context.wrap_socket(connection) as tls,
    ):
        tls.recv(1)


@pytest.mark.parametrize("kind", ["foreign", "expired", "none"])
async def test_a_peer_that_tls_turns_away_is_recorded_as_well(
    make_node: MakeNode, authority: Authority, tmp_path: Path, kind: str
) -> None:
    shown = {
        "foreign": lambda: Authority(tmp_path, "foreign").issue(node_id(2)),
        "expired": lambda: authority.issue(node_id(2), expired=True),
        "none": lambda: None,
    }[kind]()
    with trio.fail_after(15):
        async with trio.open_nursery() as nursery:
            first = await make_node(1).start(nursery)
            await trio.to_thread.run_sync(knock, first.address, shown)
            records = first.security.audit.records
            await until(lambda: records)
            nursery.cancel_scope.cancel()
    assert (records[0]["action"], records[0]["outcome"]) == ("peer.session", "denied")
    assert records[0]["details"]["reason"] == "network.tls"
    assert records[0]["details"]["why"]


def test_no_rule_is_left_of_a_method_that_no_component_answers(repository: Path) -> None:
    """The other way round a component that answers without a rule does not start."""
    asked_by_peers = {name for name, rule in RULES.items() if rule.role is None}
    assert all(RULES[name].node for name in asked_by_peers)
    sources = "\n".join(
        path.read_text()
        for package in ("dwcp", "security", "network", "trust")
        for path in sorted((repository / "novacron" / package).rglob("*.py"))
        if path.name != "policy.py"
    )
    assert {name for name in asked_by_peers if f'"{name}"' not in sources} == set()
