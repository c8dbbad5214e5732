"""The links of a node, at most one with each other node.

Whoever needs one first asks for it. The asking node dials the connections and decides how many there
are; both may send. A link outlives the loss of any connection, and of all for a while; it ends when
nothing moves on it any more, when no connection could be had for too long, or when the other node says
so or asks for a new one, which only a node that lost the old one does.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

import trio

from novacron.config.schema import AcpSettings, AmstSettings
from novacron.dwcp.amst import negotiation
from novacron.dwcp.amst.address_book import AddressBook, data_host, dialled_at
from novacron.dwcp.amst.congestion import Congestion, is_same_host
from novacron.dwcp.amst.errors import (
    CONFLICT,
    DwcpUnavailableError,
    LinkConflictError,
    LinkLostError,
    LinkRefusedError,
    PeerUnreachableError,
    no_link,
    started_again,
)
from novacron.dwcp.amst.link_entry import LinkEntry
from novacron.dwcp.amst.messages import from_wire, pack, unpack
from novacron.dwcp.amst.metrics import LINKS, LINKS_ENDED, LINKS_OPENED
from novacron.dwcp.amst.native import NativeEngine, NativeLink
from novacron.dwcp.amst.negotiation import (
    Abilities,
    Agreement,
    LinkAnswer,
    LinkAsk,
    LinkClose,
    RdmaAsk,
    RdmaOffer,
)
from novacron.dwcp.amst.rdma import Rdma, connect, offer_of
from novacron.dwcp.amst.returns import Returns
from novacron.dwcp.amst.supervision import NativeSupervisor, Supervisor
from novacron.errors import DwcpError, NetworkError, NovaCronError
from novacron.network import Network
from novacron.network.errors import PeerUnknownError
from novacron.network.session import PeerSession

logger = logging.getLogger("novacron.dwcp")

ASK_TIMEOUT: Final = 15.0
"""Seconds for the other node to answer an ask."""
CROSSING: Final = 2.0
"""Seconds in which an ask of the other node may have been sent before it knew of this one's link."""
CONFLICT_WAIT: Final = 5.0
"""Seconds for the other node's link, whose ask stands."""
NODE_ID_LENGTH: Final = 36
SAME_HOST_BPS: Final = 4 << 30
"""What a link on one host is expected to take, in bytes a second, until it was measured: memory."""
CLOSE_TIMEOUT: Final = 1.0
"""For telling it that a link is closed, which it would find out anyway."""


class Links:
    """Made, started with :meth:`start` and ended with :meth:`aclose` by the component."""

    def __init__(
        self,
        network: Network,
        settings: AmstSettings,
        *,
        mode: str,
        node_id: str,
        engine: NativeEngine | None,
        congestion: Congestion,
        book: AddressBook,
        rdma: Rdma,
        versions: tuple[int, ...],
        codecs: tuple[str, ...] = ("raw",),
        open_v1: Callable[..., Any] | None = None,
        mode_of: Callable[[str], str] | None = None,
        acp: AcpSettings | None = None,
    ) -> None:
        """Args:
        acp: None: what links send is not paced.
        mode: As configured: what a node leaves out because of its mode takes an operator's word.
        mode_of: The mode of the path to a peer as it is now, for what may be wrong without harm.
        """
        self._network = network
        self._settings = settings
        self._node_id = node_id
        self._engine = engine
        self._congestion = congestion
        self._book = book
        self._rdma = rdma
        self._open_v1 = open_v1
        self._acp = acp
        self._mode_of = mode_of or (lambda peer: mode)
        self._abilities = Abilities(
            versions=versions,
            encryption=settings.encryption == "on",
            mode=mode,
            max_streams=settings.streams_max,
            chunk_bytes=settings.chunk_bytes,
            window_bytes=settings.window_bytes,
            codecs=codecs,
        )
        self._by_peer: dict[str, LinkEntry] = {}
        self._by_id: dict[bytes, LinkEntry] = {}
        self._asking: dict[str, trio.Event] = {}
        self._opened = trio.lowlevel.ParkingLot()
        self._nursery: trio.Nursery | None = None
        self._port = 0
        self._closed = False

    # For those who move something -------------------------------------------------------------

    async def session_with(self, node: str) -> PeerSession:
        """The session with *node*: an id, a unique prefix of one, or ``host:port``.

        Raises:
          PeerUnreachableError: there is none with that node now; there may be later.
          NetworkError: see :meth:`novacron.network.Network.reach`.
        """
        try:
            return await self._network.reach(node)
        except PeerUnknownError as exc:
            address = self._book.find(node)
            if len(node) != NODE_ID_LENGTH:
                raise
            if address is None:
                # A whole id is not mistyped: it is a node that is not here at the moment.
                raise PeerUnreachableError(f"no session with node {node}", why=exc.why) from exc
        session = await self._network.reach(address)
        if session.node_id != node:
            raise PeerUnreachableError(
                f"no session with node {node}",
                why=f"where it was last, at {address}, is node {session.node_id} now",
            )
        return session

    async def link_to(self, node: str) -> Any:
        """The link with *node*, agreed on now if there is none. It stays this registry's.

        Raises:
          NetworkError: the node cannot be reached.
          LinkRefusedError: it does not want a link.
          PeerUnreachableError: it did not answer.
          LimitError: there are ``dwcp.amst.max_links`` already.
        """
        session = await self.session_with(node)
        peer = session.node_id
        while True:
            entry = self._by_peer.get(peer)
            if entry is not None and entry.keeper.over:
                await entry.ended.wait()
                continue
            if entry is not None and self._current(entry, session):
                return await entry.keeper.ready()
            pending = self._asking.get(peer)
            if pending is None:
                break
            await pending.wait()
        return await (await self._ask(session)).keeper.ready()

    def find(self, link_id: bytes) -> Any | None:
        """The link of that id, while it is open."""
        entry = self._by_id.get(link_id)
        return entry.keeper.link if entry is not None else None

    def accept(self, fd: int, host: str, link_id: bytes, stream_id: int) -> None:
        """A connection to the data listener that says it is that stream."""
        entry = self._by_id.get(link_id)
        if entry is not None and isinstance(entry.keeper, NativeSupervisor):
            entry.keeper.accept(fd, host, stream_id)

    def __iter__(self) -> Iterator[Supervisor]:
        return (entry.keeper for entry in list(self._by_id.values()))

    def __len__(self) -> int:
        return len(self._by_id)

    # Life ------------------------------------------------------------------------------------

    async def start(self, nursery: trio.Nursery, port: int) -> None:
        """From now on other nodes may ask for links, to the data listener on *port*."""
        await trio.to_thread.run_sync(self._book.load)
        self._nursery = nursery
        self._port = port
        self._network.register_handler("amst.link", self._answer)
        self._network.register_handler("amst.close", self._hear_close)
        self._network.register_handler("amst.rdma", self._answer_rdma)
        returns = Returns(self._network, self.session_with, nursery)
        nursery.start_soon(returns.run, lambda: list(self._by_peer), self._see)

    async def aclose(self) -> None:
        """End every link. Harmless when repeated."""
        self._closed = True
        for method in ("amst.link", "amst.close", "amst.rdma"):
            self._network.remove_handler(method)
        for entry in list(self._by_id.values()):
            entry.keeper.end(LinkLostError("the link was closed", why="the node stops"))
        for entry in list(self._by_id.values()):
            await entry.ended.wait()

    def statistics(self) -> list[dict[str, Any]]:
        return [
            {
                "peer": entry.peer,
                "protocol": entry.agreement.version,
                "encrypted": entry.agreement.version == negotiation.V1
                or entry.agreement.encryption,
                "mover": entry.keeper.link.mover if entry.keeper.link is not None else None,
                "chunk_bytes": entry.agreement.chunk_bytes,
                "send_window_bytes": entry.agreement.send_window,
                "why": entry.agreement.why,
                "rdma": {
                    "wanted": self._settings.rdma,
                    "got": "off",
                    "why": "protocol version 1 has none",
                },
                **entry.keeper.statistics(),
            }
            for entry in self._by_id.values()
        ]

    # Agreeing ----------------------------------------------------------------------------------

    def _current(self, entry: LinkEntry, session: PeerSession) -> bool:
        """A link with an earlier run of the other node is none."""
        return session.peer is None or entry.boot_id == session.peer.boot_id

    async def _ask(self, session: PeerSession) -> LinkEntry:
        peer = session.node_id
        self._check_room()
        done = self._asking[peer] = trio.Event()
        try:
            asked = negotiation.ask(self._able(session))
            try:
                body = await session.request("amst.link", pack(asked), within=ASK_TIMEOUT)
            except NetworkError as exc:
                entry = await self._their_link(session, exc)
                if entry is not None:
                    return entry
                raise no_link(peer, exc) from exc
            answered = unpack(LinkAnswer, body)
            agreement = negotiation.agreed_by_asker(asked, answered)
            entry = await self._open(session, asked, answered, agreement, initiator=True)
        finally:
            del self._asking[peer]
            done.set()
        return entry

    async def _their_link(self, session: PeerSession, refusal: NetworkError) -> LinkEntry | None:
        """The link the other node asked for at the same time, where that is why it refused this
        node's ask. The refusal may be here before its own ask is."""
        if refusal.why != CONFLICT:
            return None
        with trio.move_on_after(CONFLICT_WAIT):
            while True:
                entry = self._by_peer.get(session.node_id)
                if entry is not None and self._current(entry, session):
                    return entry
                await self._opened.park()
        return None

    def _crosses(self, session: PeerSession, old: LinkEntry | None) -> bool:
        """Whether the other node sent its ask when this one's was on the way or just answered. The
        node with the smaller id has its way, as with sessions."""
        peer = session.node_id
        if self._node_id > peer:
            return False
        return peer in self._asking or (
            old is not None
            and old.asked
            and self._current(old, session)
            and trio.current_time() - old.opened_at < CROSSING
        )

    async def _answer(self, session: PeerSession, body: bytes) -> bytes:
        asked = unpack(LinkAsk, body)
        peer = session.node_id
        if self._closed:
            raise LinkRefusedError("the node stops")
        old = self._by_peer.get(peer)
        if self._crosses(session, old):
            raise LinkConflictError(CONFLICT, why="this one's ask stands")
        if old is not None:
            old.keeper.end(
                LinkLostError("the link was lost", why="the other node opened a new one")
            )
            await old.ended.wait()
        self._check_room()
        answered = negotiation.answer(asked, self._able(session, asked.congestion), port=self._port)
        agreement = negotiation.agreed_by_answerer(asked, answered)
        await self._open(session, asked, answered, agreement, initiator=False)
        return pack(answered)

    def _able(self, session: PeerSession, asked: str | None = None) -> Abilities:
        """*asked*: the congestion control that the other end uses, where it asked."""
        peer, host = session.node_id, data_host(session)
        able = self._abilities._replace(
            congestion=self._congestion.classify(peer, host).congestion
            if asked is None
            else self._congestion.answer(asked, peer, host)[0]
        )
        return able._replace(movers=("rdma", "tcp")) if self._rdma.usable else able

    def _check_room(self) -> None:
        if len(self._by_id) >= self._settings.max_links:
            raise LinkRefusedError(
                "no room for another link",
                why=f"there are {len(self._by_id)} already",
                key="dwcp.amst.max_links",
            )

    async def _open(
        self,
        session: PeerSession,
        asked: LinkAsk,
        answered: LinkAnswer,
        agreement: Agreement,
        *,
        initiator: bool,
    ) -> LinkEntry:
        assert self._nursery is not None
        peer = session.node_id
        host = data_host(session)
        version_1 = agreement.version == negotiation.V1
        if version_1:
            keeper = await self._open_v1_keeper(session, agreement, host, answered.port, initiator)
        else:
            keeper = self._open_v3_keeper(
                peer, asked, answered, agreement, host, initiator=initiator
            )
        boot_id = session.peer.boot_id if session.peer is not None else ""
        entry = LinkEntry(peer, boot_id, agreement, keeper, asked=initiator)
        old = self._by_peer.get(peer)
        if old is not None:
            old.keeper.end(started_again())
        self._by_peer[peer] = entry
        self._by_id[agreement.link_id] = entry
        LINKS_OPENED.inc(str(agreement.version), "initiator" if initiator else "acceptor")
        self._count()
        logger.info(
            "link with %s: version %d, %s",
            peer,
            agreement.version,
            "encrypted" if version_1 or agreement.encryption else "not encrypted",
            extra={"peer": peer, "why": agreement.why},
        )
        self._nursery.start_soon(self._keep, entry)
        self._opened.unpark_all()
        address = dialled_at(session)
        if address is not None and self._book.note(peer, address):
            try:
                await trio.to_thread.run_sync(self._book.save)
            except OSError as exc:
                logger.warning("the address of node %s cannot be kept: %s", peer, exc)
        return entry

    def _open_v3_keeper(
        self,
        peer: str,
        asked: LinkAsk,
        answered: LinkAnswer,
        agreement: Agreement,
        host: str,
        *,
        initiator: bool,
    ) -> Supervisor:
        if self._engine is None:
            raise DwcpUnavailableError("this node speaks protocol version 1 only")
        asker, answerer = (self._node_id, peer) if initiator else (peer, self._node_id)
        secret = negotiation.link_secret(asked, answered)
        try:
            link = self._engine.open_link(
                peer=peer,
                link_id=agreement.link_id,
                secret=secret,
                context=negotiation.link_context(agreement.link_id, asker, answerer),
                initiator=initiator,
                encrypt=agreement.encryption,
                max_chunk_bytes=agreement.chunk_bytes,
                send_window=agreement.send_window,
                receive_window=agreement.receive_window,
                codecs=agreement.codecs,
                link_bps=SAME_HOST_BPS if is_same_host(host) else self._congestion.rate(peer),
            )
        finally:
            negotiation.wipe(secret)
        return NativeSupervisor(
            link,
            host=host,
            port=answered.port,
            initiator=initiator,
            settings=self._settings,
            max_streams=agreement.max_streams,
            start=negotiation.first_streams(
                self._settings.streams_start, self._mode_of(peer), same_host=is_same_host(host)
            ),
            congestion=self._congestion,
            acp=self._acp,
            peer_congestion=agreement.congestion,
            dial_rdma=self._rdma_dialler(peer, link) if "rdma" in agreement.movers else None,
            rdma_why=self._rdma.why or "the other node has none",
        )

    async def _open_v1_keeper(
        self, session: PeerSession, agreement: Agreement, host: str, port: int, initiator: bool
    ) -> Supervisor:
        if self._open_v1 is None:
            raise DwcpUnavailableError("this node does not speak protocol version 1")
        keeper: Supervisor = await self._open_v1(session.node_id, agreement, host, port, initiator)
        return keeper

    def _rdma_dialler(self, peer: str, link: NativeLink) -> Callable[[int], Awaitable[None]]:
        async def dial(stream_id: int) -> None:
            """Raises NovaCronError: RDMA cannot be used with this node."""
            await self._rdma.dial(await self.session_with(peer), link, stream_id)

        return dial

    async def _answer_rdma(self, session: PeerSession, body: bytes) -> bytes:
        asked = unpack(RdmaAsk, body)
        entry = self._by_id.get(asked.link)
        keeper = entry.keeper if entry is not None and entry.peer == session.node_id else None
        if not isinstance(keeper, NativeSupervisor):
            raise LinkRefusedError("there is no such link")
        try:
            channel = await self._rdma.open_channel(keeper.link.max_chunk_bytes)
            try:
                answer = pack(offer_of(channel))
                await connect(channel, from_wire(RdmaOffer, asked.offer))
            except BaseException:
                channel.close()
                raise
            keeper.expect_rdma(asked.stream)
            keeper.link.add_rdma(channel, asked.stream)
        except NovaCronError as exc:
            keeper.lose_rdma(str(exc))
            raise
        return answer

    # Keeping -----------------------------------------------------------------------------------

    async def _keep(self, entry: LinkEntry) -> None:
        reason: DwcpError = LinkLostError("the link was closed")
        try:
            reason = await entry.keeper.run()
        finally:
            with trio.CancelScope(shield=True):
                await entry.keeper.aclose()
            if self._by_peer.get(entry.peer) is entry:
                del self._by_peer[entry.peer]
            self._by_id.pop(entry.agreement.link_id, None)
            self._count()
            entry.ended.set()
        LINKS_ENDED.inc(reason.code.rpartition(".")[2])
        logger.info("link with %s ended: %s", entry.peer, reason, extra={"peer": entry.peer})
        await self._tell_closed(entry, str(reason))

    def _see(self, session: PeerSession) -> None:
        """A link with a node that was started again since cannot go on, and what moves on it should
        not wait for its time to run out."""
        entry = self._by_peer.get(session.node_id)
        if entry is not None and not self._current(entry, session):
            entry.keeper.end(started_again())

    def expel(self, peer: str, error: NovaCronError) -> None:
        """End the link with a node that is not to be served any more."""
        entry = self._by_peer.get(peer)
        if entry is not None:
            entry.keeper.end(LinkLostError("the link was closed", why=str(error)))

    async def _tell_closed(self, entry: LinkEntry, why: str) -> None:
        session = self._network.session(entry.peer)
        if session is None or entry.keeper.heard_close:
            return
        try:
            message = LinkClose(link=entry.agreement.link_id, why=why[:200])
            await session.request("amst.close", pack(message), within=CLOSE_TIMEOUT)
        except NovaCronError:
            return  # it notices by itself

    async def _hear_close(self, session: PeerSession, body: bytes) -> bytes:
        message = unpack(LinkClose, body)
        entry = self._by_id.get(message.link)
        if entry is not None and entry.peer == session.node_id:
            entry.keeper.heard_close = True
            entry.keeper.end(LinkLostError("the other node closed the link", why=message.why))
        return b""

    def _count(self) -> None:
        versions = [entry.agreement.version for entry in self._by_id.values()]
        for version in (negotiation.V1, negotiation.V3):
            LINKS.set(versions.count(version), str(version))
