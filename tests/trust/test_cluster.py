"""What goes from node to node: renewal, revocation, the authority's certificate."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from cryptography.hazmat.primitives.serialization import Encoding

from novacron.component import HealthDepth, HealthState
from novacron.errors import NovaCronError
from novacron.network.errors import RequestFailedError
from novacron.protocol.frames import encode_payload
from novacron.security.errors import PeerRejectedError
from novacron.security.inspection import load_certificates
from novacron.trust import renewal
from novacron.trust.errors import RenewalError
from novacron.trust.messages import SIGN, STATE, pack
from tests.network.conftest import until
from tests.trust.cluster import TrustNode

Cluster = tuple[TrustNode, TrustNode, TrustNode]


@asynccontextmanager
async def running(*nodes: TrustNode) -> AsyncIterator[trio.Nursery]:
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            yield nursery
            for node in nodes:
                if node.network is not None:
                    await node.stop()
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def chain(tmp_path: Path, **settings: Any) -> AsyncIterator[tuple[Cluster, trio.Nursery]]:
    """Three nodes of one authority, the first: the third has a session with the second alone."""
    first = TrustNode(1, tmp_path / "a", **settings)
    second, third = TrustNode(2, tmp_path / "b"), TrustNode(3, tmp_path / "c")
    async with running(third, second, first) as nursery:
        await first.start(nursery)
        await second.join(first)
        await third.join(first)
        await second.start(nursery, first)
        await third.start(nursery, second)
        await third.session(second)
        await second.session(first)
        yield (first, second, third), nursery


async def test_a_revoked_node_is_refused_also_where_only_another_passed_it_on(
    tmp_path: Path,
) -> None:
    stranger = TrustNode(4, tmp_path / "d")
    async with chain(tmp_path) as ((first, second, third), nursery):
        await stranger.join(first)
        await stranger.start(nursery, third)
        session = await third.session(stranger)
        ended: list[tuple[str, NovaCronError]] = []
        third.network.watch_expulsions(lambda node, why: ended.append((node, why)))
        await first.revoke(stranger)
        await until(lambda: (first.number, second.number, third.number) == (1, 1, 1))
        await session.ended.wait()
        assert "was revoked" in str(session.outcome.error)  # type: ignore[union-attr]
        assert [node for node, _ in ended] == [stranger.id]
        with pytest.raises(PeerRejectedError, match="was revoked at"):
            third.security.certificates.identify(session.stream.peer_certificate)
        # It knocks again, at the third by its seed and at the second by hand, and is not let in.
        with pytest.raises(NovaCronError):
            await stranger.network.reach(second.address)
            await stranger.network.session(second.id).request("trust.state", b"", within=5)
        assert second.network.session(stranger.id) is None
        assert third.network.session(stranger.id) is None
        # Whoever is not on the list goes on.
        assert third.network.session(second.id) is not None
        await stranger.stop()


async def test_a_node_that_was_away_learns_of_it_when_it_comes_back(tmp_path: Path) -> None:
    stranger = TrustNode(4, tmp_path / "d")
    async with chain(tmp_path) as ((first, second, third), nursery):
        await stranger.join(first)
        await third.stop()
        await first.revoke(stranger)
        await until(lambda: second.number == 1)
        await third.start(nursery, second)
        await until(lambda: third.number == 1)
        assert (third.directory.pki / "crl.pem").read_bytes() == (
            first.directory.pki / "crl.pem"
        ).read_bytes()


@pytest.mark.parametrize("since", [1, 2])
async def test_an_authority_restored_from_a_backup_forgets_nothing_that_was_revoked(
    tmp_path: Path, since: int
) -> None:
    lost = TrustNode(4, tmp_path / "d")
    revoked = [TrustNode(5 + number, tmp_path / f"e{number}") for number in range(since)]
    first, second = TrustNode(1, tmp_path / "a"), TrustNode(2, tmp_path / "b")
    async with running(second, first) as nursery:
        await first.start(nursery)
        for node in (second, lost, *revoked):
            await node.join(first)
        await second.start(nursery, first)
        await second.session(first)
        ledger = first.directory.pki / "issued.json"
        backup = ledger.read_bytes()
        await first.revoke(lost)
        await until(lambda: second.number == 1)
        await second.stop()
        await first.stop()
        # The disk is lost, and with it the list. Before any peer is met others are revoked, in
        # lists that have the number of the first, or a higher one.
        ledger.write_bytes(backup)
        for name in ("crl.pem", "crl.json"):
            (first.directory.pki / name).unlink()
        await first.start(nursery)
        for node in revoked:
            await first.revoke(node)
        await until(lambda: first.number == since)
        await second.start(nursery, first)
        for node in (first, second):
            await until(lambda node=node: len(node.revoked) == 1 + since)
            assert node.number == 1 + since
        states = {entry.node_id: entry.revoked for entry in first.security.issuer().ledger.read()}
        assert states[second.id] is None
        assert None not in [states[node.id] for node in (lost, *revoked)]


async def test_a_list_that_is_older_or_forged_is_not_taken(tmp_path: Path) -> None:
    async with chain(tmp_path) as ((first, second, third), _):
        stranger, other = TrustNode(4, tmp_path / "d"), TrustNode(5, tmp_path / "e")
        await stranger.join(first)
        await other.join(first)
        await first.revoke(stranger)
        await until(lambda: third.number == 1)
        old = third.security.certificates.revocations.current.pem
        await first.revoke(other)
        await until(lambda: third.number == 2)

        async def old_list(session: Any, body: bytes) -> bytes:
            return old

        async def garbage(session: Any, body: bytes) -> bytes:
            return b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"

        said = {"number": 99, "issues": False, "authority_ends": 0, "roots": 0, "issuer": ""}
        state = encode_payload(said)
        for lie in (old_list, garbage):
            second.network.remove_handler("trust.crl")
            second.network.register_handler("trust.crl", lie)
            session = await second.session(third)
            await session.request(STATE, state, within=10)
            await until(lambda: not third.trust._pulling.locked())
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert third.number == 2


async def test_a_node_without_a_session_with_the_authority_is_renewed_by_way_of_another(
    tmp_path: Path,
) -> None:
    async with chain(tmp_path) as ((first, second, third), _):
        await until(lambda: second.trust._issuers == {first.id})
        before = third.security.certificates.material
        session = await third.session(second)
        await third.trust.renew()
        after = third.security.certificates.material
        assert after.serial != before.serial
        assert (third.directory.pki / "node.pem").stat().st_mode & 0o777 == 0o600
        # The session goes on, and the new certificate is what new ones see.
        assert third.network.session(second.id) is session
        assert session.outcome is None
        issued = first.security.issuer().ledger.read()
        assert [entry.serial for entry in issued if entry.node_id == third.id] == [
            before.serial,
            after.serial,
        ]


async def test_nobody_valid_is_refused_while_certificates_are_renewed_again_and_again(
    tmp_path: Path,
) -> None:
    knocking = TrustNode(4, tmp_path / "d")
    async with chain(tmp_path) as ((first, second, _), nursery):
        await knocking.join(first)
        await knocking.start(nursery, first)
        await knocking.session(first)
        host, _, port = second.address.rpartition(":")
        made, stop = 0, trio.Event()

        async def knock() -> None:
            """A new session each time, as of a node that has just started; an error fails the test."""
            nonlocal made
            while not stop.is_set():
                session = await knocking.network._contacts.connect(host, int(port))
                await session.request(STATE, pack(knocking.trust._state()), within=10)
                made += 1

        async with trio.open_nursery() as knockers:
            knockers.start_soon(knock)
            for node in (second, knocking, second, knocking, second):
                reached = made
                await node.trust.renew()
                await until(lambda reached=reached: made > reached + 2)  # type: ignore[misc]
            stop.set()
        entries = first.security.issuer().ledger.read()
        assert len({entry.serial for entry in entries}) == 3 + 5
        await knocking.stop()


async def test_a_certificate_that_is_due_is_renewed_by_itself(tmp_path: Path) -> None:
    # A name that the configuration has since makes it due.
    async with chain(tmp_path) as ((_, second, third), nursery):
        await third.stop()
        third.security.certificates._names = (*third.security.certificates._names, "c.example")
        await third.start(nursery, second)
        await until(lambda: "c.example" in third.security.certificates.material.names)


async def test_a_renewal_that_nobody_grants_says_who_was_asked_and_is_no_alarm_at_first(
    tmp_path: Path,
) -> None:
    async with chain(tmp_path) as ((first, second, third), _):
        await first.stop()
        first.network = None
        await until(lambda: second.network.session(first.id) is None)
        with pytest.raises(RenewalError, match="has no session with the one that does"):
            await third.trust.renew()
        assert (await third.trust.health_check(HealthDepth.SHALLOW)).state is HealthState.HEALTHY
        material = third.security.certificates.material
        third.security._now = lambda: material.not_after - 3600.0
        health = await third.trust.health_check(HealthDepth.SHALLOW)
        assert health.state is HealthState.DEGRADED
        assert "is not renewed" in health.message


async def test_one_node_cannot_be_renewed_as_another(tmp_path: Path) -> None:
    async with chain(tmp_path) as ((first, second, third), _):
        joined = second.security.certificates.joined
        assert joined is not None
        sign, _ = await trio.to_thread.run_sync(renewal._prepare, joined, b"")
        # What the third node shows to everybody it meets.
        pem = (third.directory.pki / "node.pem").read_bytes()
        der = load_certificates(pem, "", "")[0].public_bytes(Encoding.DER)
        session = await second.session(first)
        with pytest.raises(RequestFailedError, match="not signed by the key of node"):
            await session.request(SIGN, pack(sign._replace(certificate=der)), within=10)
        # With its own certificate and proof, but a request for the other's name.
        foreign = cast(Any, type(joined))(
            joined.directory, joined.settings, third.id, (), joined.joined
        )
        sign, _ = await trio.to_thread.run_sync(renewal._prepare, foreign, b"")
        with pytest.raises(RequestFailedError, match=f"for node {third.id}"):
            await session.request(SIGN, pack(sign), within=10)


async def test_a_renewed_certificate_of_the_authority_reaches_every_node(tmp_path: Path) -> None:
    async with chain(tmp_path) as ((first, second, third), _):
        ends = third.security.certificates.material.ca_not_after
        authority = first.security.issuer().authority
        now = first.security.now() + 30 * 86400.0

        def renew() -> bytes:
            # As upkeep does when it is due: the same key, a later end.
            return authority.ensure(first.id, now, 36500 * 86400.0, 31 * 86400.0)

        await trio.to_thread.run_sync(renew)
        await first.security.renew_certificate(force=False)
        await until(lambda: third.security.certificates.material.ca_not_after > ends)
        assert third.security.certificates.authority_hashes() == (
            first.security.certificates.authority_hashes()
        )
        assert (await third.session(second)).outcome is None
