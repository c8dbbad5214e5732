"""The authority's key is replaced while nodes of its cluster meet, come back, and stay away."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from novacron.component import HealthDepth, HealthState
from novacron.errors import NovaCronError
from novacron.network.errors import RequestFailedError
from novacron.network.metrics import HANDSHAKE_FAILURES
from novacron.security import roots
from novacron.security.errors import CertificateError, PeerRejectedError, RotationError
from novacron.security.revocations import check_list
from novacron.trust import component
from novacron.trust.messages import REPORT, ROOTS, STATE, pack
from novacron.trust.reports import _prepare
from tests.network.conftest import until
from tests.security.stand_ins import make_security
from tests.trust.cluster import TrustNode, join_directory
from tests.trust.rotating import ready, rotation_of, step, trusting
from tests.trust.test_cluster import chain, running


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(component, "WATCH_EVERY", 0.05)


def failures() -> dict[Any, float]:
    """Handshakes that failed, of both sides, but for connections that nobody took up."""
    return {key: count for key, count in HANDSHAKE_FAILURES.values.items() if "connect" not in key}


@asynccontextmanager
async def knocking(visitor: TrustNode, *hosts: TrustNode) -> AsyncIterator[None]:
    """All the time *visitor* makes a new session with each of *hosts*, as a node that has just started
    does, and asks something; an error fails the test, and so does a handshake that failed."""
    before, stop = failures(), trio.Event()

    async def knock(host: TrustNode) -> None:
        name, _, port = host.address.rpartition(":")
        while not stop.is_set():
            session = await visitor.network._contacts.connect(name, int(port))
            with trio.move_on_after(5):
                try:
                    await session.request(STATE, pack(visitor.trust._state()), within=4)
                except NovaCronError as exc:
                    if "Goodbye" not in exc.why:  # by which another one takes its place
                        raise
            await trio.sleep(0.02)

    async with trio.open_nursery() as knockers:
        for host in hosts:
            knockers.start_soon(knock, host)
        yield
        stop.set()
    assert failures() == before


def issuers(node: TrustNode) -> set[str]:
    """Of the certificates with which the others have come to *node*."""
    return {session.issuer for session in node.network.sessions()}


async def test_no_valid_peer_is_refused_while_one_authority_takes_the_place_of_another(
    tmp_path: Path,
) -> None:
    visitor = TrustNode(4, tmp_path / "d")
    async with chain(tmp_path) as ((first, second, third), nursery):
        every = (first, second, third, visitor)
        await visitor.join(first)
        await visitor.start(nursery, first)
        stolen = (third.directory.pki / "node.pem").read_bytes()
        (old,) = first.security.certificates.authority_hashes()
        stranger = TrustNode(5, tmp_path / "e")
        await stranger.join(first)
        await first.revoke(stranger)
        await until(lambda: third.number == 1)
        async with knocking(visitor, first, second, third):
            await step(first, "begin")
            new = (await ready(first)).new
            await trusting(1, *every)
            assert all(n.security.certificates.authority_hashes() == (old, new) for n in every)
            await step(first, "issue")
            progress = await ready(first)
            assert {node.certificate for node in progress.nodes} == {"new"}
            assert {node.node_id for node in progress.nodes} == {second.id, third.id, visitor.id}
            # What was revoked stays so, by the word of the new authority.
            await until(lambda: [n.number for n in every] == [2] * 4)
            # Sessions were made anew while both are trusted, and nobody is without one.
            assert issuers(third) == {new}
            ended = [(await third.session(second)).ended, (await second.session(first)).ended]
            await step(first, "finish")
            await trusting(3, *every)
            await trio.sleep(0.3)
            assert not any(event.is_set() for event in ended)
        assert all(n.security.certificates.authority_hashes() == (new,) for n in every)
        assert all(n.security.certificates.material.issuer == new for n in every)
        assert all(n.security.certificates.cluster_hashes()[0] == old for n in every)
        # Whoever kept a certificate of the old one is let in nowhere.
        from novacron.security.inspection import load_certificates
        from tests.security.issuing import der

        for node in (first, second, visitor):
            with pytest.raises(PeerRejectedError, match="one that this cluster had before"):
                node.security.certificates.identify(der(load_certificates(stolen, "", "")[0]))
        assert not list(first.directory.pki.glob("ca-*.key"))
        assert not (first.directory.pki / "rotation.json").exists()
        data = third.security.certificates.revocations.current.pem
        assert check_list(data, first.security.issuer().authority.certificates()).number == 2
        # All of it outlives a restart, without a check of anything.
        before = (third.directory.pki / "verified.json").read_bytes()
        await third.stop()
        await third.start(nursery, second)
        await third.session(second)
        assert (third.directory.pki / "verified.json").read_bytes() == before
        await visitor.stop()


async def test_a_node_that_missed_all_but_the_end_is_served_and_catches_up(tmp_path: Path) -> None:
    async with chain(tmp_path) as ((first, second, third), nursery):
        await third.stop()
        before = failures()
        await step(first, "begin")
        await trusting(1, second)
        await step(first, "issue")
        new = (await trusting(2, first, second))[0]
        await until(lambda: issuers(second) == issuers(first) == {new})
        with pytest.raises(RotationError, match=f"node {third.id}: it has not said that it trusts"):
            await step(first, "finish")
        # It knows the old authority alone, and everybody shows certificates of the new one.
        await third.start(nursery, second)
        progress = await ready(first)
        assert {node.certificate for node in progress.nodes} == {"new"}
        await step(first, "finish")
        await trusting(3, first, second, third)
        await until(lambda: third.network.session(second.id) is not None)
        assert failures() == before


async def test_a_node_that_missed_it_all_is_told_to_join_again_and_can(tmp_path: Path) -> None:
    async with chain(tmp_path) as ((first, second, third), nursery):
        await third.stop()
        await step(first, "begin")
        await step(first, "issue")
        await trusting(2, second)
        await until(lambda: second.security.certificates.issuer() == _new(first))
        await step(first, "finish", force=True)
        await trusting(3, first, second)
        await third.start(nursery, second)
        await until(lambda: bool(third.network.replaced))
        health = await third.trust.health_check(HealthDepth.SHALLOW)
        assert health.state is HealthState.DEGRADED
        assert "was replaced while this node was away" in health.message
        assert f"--node-id {third.id}" in health.message
        (seed,) = third.network._seeds
        await until(lambda: "novacron join HOST" in (seed.last_error or ""))
        await third.stop()
        await third.join(first)
        await third.start(nursery, second)
        await third.session(second)
        assert not third.network.replaced


async def test_a_running_node_that_was_left_behind_is_shut_out_and_told_so(
    tmp_path: Path,
) -> None:
    async with chain(tmp_path) as ((first, second, third), _):
        await step(first, "begin")
        await trusting(1, third)
        # It cannot have itself renewed.
        third.security.certificates.joined.install = _refuse  # type: ignore[union-attr,method-assign]
        await step(first, "issue")
        await trusting(2, third, second)
        await until(lambda: second.security.certificates.material.issuer == _new(first))
        with pytest.raises(RotationError, match=f"node {third.id}: it "):
            await step(first, "finish")
        await step(first, "finish", force=True)
        await trusting(3, first, second)
        await until(lambda: third.network.session(second.id) is None)
        await until(lambda: bool(third.network.replaced))
        health = await third.trust.health_check(HealthDepth.SHALLOW)
        assert health.state is HealthState.DEGRADED
        assert "was replaced while this node was away" in health.message


def _new(node: TrustNode) -> str:
    return node.security.certificates.authority_hashes()[0]


def _refuse(*arguments: Any) -> None:
    raise CertificateError("cannot install it", why="this is a test")


async def test_an_aborted_rotation_leaves_everything_as_it_was(tmp_path: Path) -> None:
    async with chain(tmp_path) as ((first, second, third), _):
        (old,) = first.security.certificates.authority_hashes()
        serial = third.security.certificates.material.serial
        with pytest.raises(RotationError, match="no replacement is going on"):
            await step(first, "issue")
        await step(first, "begin")
        await trusting(1, third)
        progress = await step(first, "abort")
        assert (progress.stage, progress.number) == ("none", 2)
        await trusting(2, first, second, third)
        assert all(
            n.security.certificates.authority_hashes() == (old,) for n in (first, second, third)
        )
        assert third.security.certificates.material.serial == serial
        assert not list(first.directory.pki.glob("ca-*.key"))
        # A whole one after it, and another after that.
        for finished in (5, 8):
            await step(first, "begin")
            await step(first, "issue")
            await ready(first)
            session = await third.session(second)
            await step(first, "finish")
            await trusting(finished, first, second, third)
            assert third.network.session(second.id) is session
        assert third.security.certificates.cluster_hashes()[0] == old
        with pytest.raises(RotationError, match="no replacement is going on"):
            await step(first, "finish")


async def test_an_authority_restored_from_within_the_rotation_takes_the_last_steps_again(
    tmp_path: Path,
) -> None:
    async with chain(tmp_path) as ((first, second, third), nursery):
        await step(first, "begin")
        await ready(first)
        pki = first.directory.pki
        shutil.copytree(pki, tmp_path / "backup")
        await step(first, "issue")
        await ready(first)
        await step(first, "finish")
        await trusting(3, second, third)
        await first.stop()
        shutil.rmtree(pki)
        shutil.copytree(tmp_path / "backup", pki)
        first.security, _ = make_security(first.directory.root, first.id)
        first.security.keyring.open()
        await step(first, "issue")
        await step(first, "finish", force=True)
        await first.start(nursery, second)
        await first.session(second)
        await until(lambda: second.trust._issuers == {first.id})
        await third.trust.renew()
        assert first.security.certificates.material.roots_number == 3


async def test_nobody_reports_for_another_node_nor_takes_a_report_back(tmp_path: Path) -> None:
    async with chain(tmp_path) as ((first, second, third), _):
        await step(first, "begin")
        await ready(first)
        holdings = first.security.holdings()
        before = holdings.read()
        session = await second.session(first)
        path = second.directory.pki / "node.pem"
        mine = await trio.to_thread.run_sync(_prepare, path, 1)
        theirs = await trio.to_thread.run_sync(_prepare, third.directory.pki / "node.pem", 1)
        for forged in (
            mine._replace(certificate=theirs.certificate),
            theirs._replace(number=0),
            theirs._replace(proof=mine.proof),
        ):
            with pytest.raises(RequestFailedError, match="is not signed by the key of node"):
                await session.request(REPORT, pack(forged), within=10)
        old = await trio.to_thread.run_sync(_prepare, path, 0)
        await session.request(REPORT, pack(old), within=10)
        ahead = await trio.to_thread.run_sync(_prepare, path, 99)
        with pytest.raises(RequestFailedError, match="there is no list of authorities 99 yet"):
            await session.request(REPORT, pack(ahead), within=10)
        assert holdings.read() == before
        # By way of another it is the same; from a node that holds no key it goes on once.
        holdings.forget()
        await (await third.session(second)).request(REPORT, pack(theirs), within=10)
        assert holdings.read()[third.id].number == 1
        with pytest.raises(RequestFailedError, match="does not hold the authority's key"):
            passed = pack(theirs._replace(passed_on=True))
            await (await third.session(second)).request(REPORT, passed, within=10)
        kept = await trio.to_thread.run_sync(_prepare, path, 2)
        await step(first, "issue")
        await ready(first)
        before = holdings.read()
        await (await second.session(first)).request(REPORT, pack(kept), within=10)
        assert holdings.read() == before
        holdings.path.write_bytes(b"{")
        assert holdings.read() == {}


async def test_lists_that_are_older_foreign_unsigned_or_cut_off_change_nothing(
    tmp_path: Path,
) -> None:
    other = TrustNode(9, tmp_path / "other")
    async with chain(tmp_path) as ((first, second, third), nursery), running(other):
        await other.start(nursery)
        await step(other, "begin")
        foreign = rotation_of(other)._authority.document()
        await step(first, "begin")
        await trusting(1, third)
        old = third.security.certificates.material.document
        await step(first, "issue")
        await ready(first)
        path = third.directory.pki / "ca.pem"
        present = path.read_bytes()
        document = third.security.certificates.material.document
        assert document is not None
        assert foreign is not None
        assert old is not None
        one_key = dict(list(document.signatures.items())[:1])
        ahead = document._replace(number=99)
        for lie, why in (
            (old.block(), ""),
            (foreign._replace(number=99).block(), "has not signed"),
            (ahead.block(), "has not signed"),
            (document._replace(signatures={}).block(), "has not signed"),
            (document._replace(signatures=one_key).block(), "has not signed"),
            (document.block()[:-40], "cut off"),
            (document.block()[:200] + b"!" + document.block()[201:], "damaged"),
            (b"", "there is none"),
            (b"-----BEGIN NOVACRON ROOTS-----\n" + b"A" * 70_000, "too large"),
        ):
            second.network.remove_handler(ROOTS)

            async def say(session: Any, body: bytes, lie: bytes = lie) -> bytes:
                return lie

            second.network.register_handler(ROOTS, say)
            session = await second.session(third)
            state = second.trust._state()._replace(roots=99)
            await session.request(STATE, pack(state), within=10)
            await until(lambda: not third.trust._latest)
            assert path.read_bytes() == present, why
            assert third.security.certificates.material.document == document
            joined = third.security.certificates.joined
            assert joined is not None
            if why:
                with pytest.raises(NovaCronError, match=why):
                    joined.install_roots(lie)
            else:
                assert joined.install_roots(lie) is False
        assert roots.read(present) == document


async def test_a_token_of_the_old_authority_is_good_until_the_rotation_is_finished(
    tmp_path: Path,
) -> None:
    node = TrustNode(2, tmp_path / "b")
    first = TrustNode(1, tmp_path / "a")
    async with running(first) as nursery:
        await first.start(nursery)
        tokens = first.security.join_tokens
        before = [
            (await trio.to_thread.run_sync(tokens.create_blocking, "x", 600.0, None))[1]
            for _ in range(2)
        ]
        await step(first, "begin")
        await step(first, "issue")
        _, after = await trio.to_thread.run_sync(tokens.create_blocking, "x", 600.0, None)
        issuer = first.security.issuer()
        join_directory(node.directory, issuer, before[0].split("_")[1], node.id)
        await ready_or_forced(first)
        states = {entry["id"]: entry["state"] for entry in tokens.list()}
        assert states[before[1].split("_")[1]] == "revoked"
        assert states[after.split("_")[1]] == "active"


async def ready_or_forced(node: TrustNode) -> None:
    await step(node, "finish", force=True)
