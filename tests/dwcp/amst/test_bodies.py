"""Messages between two nodes: encoded once both said which dictionary they hold, and never before."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from novacron.dwcp.amst import bodies
from novacron.dwcp.amst.bodies import DICTIONARIES, Bodies, DictionariesAnswer, Held
from novacron.dwcp.amst.errors import MessageError
from novacron.dwcp.amst.messages import pack, unpack
from novacron.dwcp.hde.dictionary import file_of, retrained_id, shipped_paths
from novacron.dwcp.hde.errors import CodedMessageError
from novacron.dwcp.hde.messages import MessageCodec, is_encoded
from novacron.dwcp.hde.samples import messages
from novacron.dwcp.hde.training import train
from novacron.network.session import PeerSession
from novacron.observe import Counter
from tests.dwcp.amst.pair import pair, random_file
from tests.network.authority import Certificates
from tests.network.conftest import Node, until

LONG = max(messages(50), key=len)


@pytest.fixture(autouse=True)
def methods_of_the_tests(peer_methods: Callable[..., None]) -> None:
    peer_methods("test.echo")


def counted(counter: Counter, direction: str) -> float:
    return counter.values.get((direction,), 0.0)


async def parrot(session: PeerSession, body: bytes) -> bytes:
    """A node that knows nothing of dictionaries."""
    return body


class End:
    """A node with its bodies; what arrives for the method ``test.echo`` is decoded, and answered."""

    def __init__(self, node: Node, found: Bodies) -> None:
        self.node = node
        self.bodies = found
        self.arrived: list[bytes] = []
        node.network.register_handler(DICTIONARIES, found.take_ask)
        node.network.register_handler("test.echo", self._echo)

    async def _echo(self, session: PeerSession, body: bytes) -> bytes:
        self.arrived.append(body)
        return self.bodies.encode(session, await self.bodies.decode(body))

    def session(self, other: End) -> PeerSession:
        found = self.node.network.session(other.node.id)
        assert found is not None
        return found

    async def ask(self, other: End, message: bytes = LONG) -> bytes:
        """Returns the answer as it came."""
        session = self.session(other)
        return await session.request("test.echo", self.bodies.encode(session, message), within=10)

    def agreed(self, other: End) -> int:
        peers: dict[str, int] = self.bodies.statistics()["peers"]
        return peers.get(other.node.id, 0)


@asynccontextmanager
async def ends(
    certificates: Callable[[int], Certificates],
    one: Bodies | None = None,
    two: Bodies | None = None,
) -> AsyncIterator[tuple[End, End]]:
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            first = await Node(1, certificates(1)).start(nursery)
            second = await Node(2, certificates(2), seeds=(first.address,)).start(nursery)
            await first.wait_session(second)
            await second.wait_session(first)
            a, b = End(first, one or Bodies()), End(second, two or Bodies())
            for end in (a, b):
                nursery.start_soon(end.bodies.run)
            yield a, b
            nursery.cancel_scope.cancel()


async def test_the_first_message_goes_as_it_is_and_those_after_the_agreement_do_not(
    certificates: Callable[[int], Certificates],
) -> None:
    async with ends(certificates) as (a, b):
        await a.ask(b)
        assert b.arrived == [LONG]
        await until(lambda: a.agreed(b) == b.agreed(a) == 1)
        answer = await a.ask(b)
        assert is_encoded(b.arrived[1])
        assert is_encoded(answer)
        assert await a.bodies.decode(answer) == LONG


async def test_what_was_saved_is_counted(certificates: Callable[[int], Certificates]) -> None:
    async with ends(certificates) as (a, b):
        await a.ask(b)
        await until(lambda: a.agreed(b) == 1)
        before = counted(bodies.MESSAGE_BYTES, "sent"), counted(bodies.SAVED_BYTES, "sent")
        session = a.session(b)
        body = a.bodies.encode(session, LONG)
        assert counted(bodies.MESSAGE_BYTES, "sent") - before[0] == len(LONG)
        assert counted(bodies.SAVED_BYTES, "sent") - before[1] == len(LONG) - len(body) > 0


async def test_a_retrained_dictionary_is_used_where_both_hold_it(
    certificates: Callable[[int], Certificates], tmp_path: Path
) -> None:
    made = train(messages(1500, seed=4)).dictionary
    path = tmp_path / "own.zdict"
    path.write_bytes(file_of(made.id, made.content))
    own = [Bodies(MessageCodec(str(path))) for _ in range(2)]
    async with ends(certificates, *own) as (a, b):
        await a.ask(b)
        await until(lambda: a.agreed(b) == b.agreed(a) == made.id)
    async with ends(certificates, Bodies(MessageCodec(str(path)))) as (a, b):
        await b.ask(a)
        await until(lambda: a.agreed(b) == b.agreed(a) == 1)


async def test_one_of_the_same_id_and_another_content_is_not_used(
    certificates: Callable[[int], Certificates],
) -> None:
    other = MessageCodec()
    other.load()
    (one,) = other.dictionaries
    other.add(train(messages(1500, seed=4)).dictionary._replace(id=one.id))
    async with ends(certificates, Bodies(other)) as (a, b):
        await a.ask(b)
        await b.ask(a)
        await trio.testing.wait_all_tasks_blocked(0.2)
        assert a.agreed(b) == b.agreed(a) == 0
        assert not is_encoded(await a.ask(b))


async def test_a_node_with_a_damaged_dictionary_says_so_and_goes_on_without(
    certificates: Callable[[int], Certificates],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = tmp_path / "short.zdict"
    path.write_bytes(next(shipped_paths()).read_bytes()[:3000])
    async with ends(certificates, Bodies(MessageCodec(str(path)))) as (a, b):
        await until(lambda: "dwcp.hde.dictionary" in caplog.text)
        assert str(path) in caplog.text
        await a.ask(b)
        await until(lambda: a.agreed(b) == 1)


async def test_an_older_node_is_spoken_to_as_before(
    certificates: Callable[[int], Certificates],
) -> None:
    async with ends(certificates) as (a, b):
        for method in (DICTIONARIES, "test.echo"):
            b.node.network.remove_handler(method)
        b.node.network.register_handler("test.echo", parrot)
        for _ in range(3):
            assert await a.ask(b) == LONG
            await trio.testing.wait_all_tasks_blocked(0.05)


async def test_a_peer_that_chooses_what_was_not_offered_is_not_believed(
    certificates: Callable[[int], Certificates],
) -> None:
    async with ends(certificates) as (a, b):

        async def choose(session: PeerSession, body: bytes) -> bytes:
            return pack(DictionariesAnswer(4711))

        for method in (DICTIONARIES, "test.echo"):
            b.node.network.remove_handler(method)
        b.node.network.register_handler(DICTIONARIES, choose)
        b.node.network.register_handler("test.echo", parrot)
        await a.ask(b)
        await trio.testing.wait_all_tasks_blocked(0.2)
        assert a.agreed(b) == 0


async def test_what_cannot_be_decoded_is_refused_to_the_peer_that_sent_it(
    certificates: Callable[[int], Certificates],
) -> None:
    async with ends(certificates) as (a, b):
        session = a.session(b)
        with pytest.raises(Exception, match="badly encoded message"):
            await session.request("test.echo", b"\xc1\x01\x00\x01" + bytes(50), within=10)
        # The session goes on.
        assert await a.ask(b)
    with pytest.raises(CodedMessageError):
        await Bodies().decode(b"\xc1\x07\x00\x01")


async def test_messages_are_kept_where_that_is_wanted_for_their_owner_alone(
    certificates: Callable[[int], Certificates],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bodies, "KEPT_MESSAGES", 3)
    directory = tmp_path / "dwcp" / "messages"
    async with ends(certificates, Bodies(keep=directory)) as (a, b):
        found = messages(10, seed=9)
        for message in found:
            await a.ask(b, message)
        await until(lambda: directory.is_dir() and len(list(directory.iterdir())) == 3)
        await a.ask(b, bytes(bodies.KEPT_BYTES + 1))
        await until(lambda: {path.read_bytes() for path in directory.iterdir()} <= set(found))
        assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o600}
        assert directory.stat().st_mode & 0o777 == 0o700


async def test_transfers_speak_so_and_their_files_arrive(
    certificates: Callable[[int], Certificates], tmp_path: Path
) -> None:
    async with pair(tmp_path, certificates) as both:
        before = counted(bodies.SAVED_BYTES, "received")
        files = [random_file(tmp_path / "in" / f"disk-{n}.raw", 1000) for n in range(30)]
        for path in files:
            await (await both.send(path)).wait()
        assert counted(bodies.SAVED_BYTES, "received") > before
        for path in files:
            assert (both.b.files / path.name).read_bytes() == path.read_bytes()


def test_a_list_of_dictionaries_is_held_to_its_form() -> None:
    with pytest.raises(MessageError, match="digest"):
        pack(bodies.DictionariesAsk([Held(1, b"short")]))
    with pytest.raises(MessageError, match="dictionary"):
        unpack(DictionariesAnswer, b"\x81\xaadictionary\xce\x00\x01\x00\x00")
    assert retrained_id(b"x") >= 0x8000
