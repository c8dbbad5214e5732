"""The links of a node, at most one with each other node.

Whoever needs one first asks for it. The asking node dials the connections and decides how many there
are; both may send. A link outlives the loss of any connection, and of all for a while; it ends when
nothing moves on it any more, when no connection could be had for too long, or when the other node says
so or asks for a new one, which only a node that lost the old one does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import trio

from novacron.config.schema import AmstSettings
from novacron.dwcp.amst import negotiation
from novacron.dwcp.amst.address_book import AddressBook
from novacron.dwcp.amst.congestion import Congestion, is_same_host
from novacron.dwcp.amst.errors import (
    DwcpUnavailableError,
    LinkLostError,
    LinkRefusedError,
    PeerUnreachableError,
)
from novacron.dwcp.amst.messages import pack, unpack
from novacron.dwcp.amst.metrics import LINKS, LINKS_ENDED, LINKS_OPENED
from novacron.dwcp.amst.native import NativeEngine
from novacron.dwcp.amst.negotiation import (
    Abilities,
    Agreement,
    LinkAnswer,
    LinkAsk,
    LinkClose,
)
from novacron.dwcp.amst.supervision import NativeSupervisor, Supervisor
from novacron.errors import ConflictError, DwcpError, NetworkError, NovaCronError
from novacron.network import Network
from novacron.network.errors import PeerUnknownError
from novacron.network.session import PeerSession
from novacron.network.transport import split_address

logger = logging.getLogger("novacron.dwcp")

ASK_TIMEOUT: Final = 15.0
"""Seconds for the other node to answer an ask."""
NODE_ID_LENGTH: Final = 36
CLOSE_TIMEOUT: Final = 1.0
"""For telling it that a link is closed, which it would find out anyway."""


class LinkConflictError(DwcpError, ConflictError):
    """Both nodes asked at once; the other one's ask stands."""

    code = "dwcp.link_conflict"


class _Entry:
    """A link and what keeps it."""

    def __init__(self, peer: str, boot_id: str, agreement: Agreement, keeper: Supervisor) -> None:
        self.peer = peer
        self.boot_id = boot_id
        self.agreement = agreement
        self.keeper = keeper
        self.ended = trio.Event()


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
        versions: tuple[int, ...],
        open_v1: Callable[..., Any] | None = None,
    ) -> None:
        self._network = network
        self._settings = settings
        self._node_id = node_id
        self._engine = engine
        self._congestion = congestion
        self._book = book
        self._open_v1 = open_v1
        self._abilities = Abilities(
            versions=versions,
            encryption=settings.encryption == "on",
            mode=mode,
            max_streams=settings.streams_max,
            chunk_bytes=settings.chunk_bytes,
            window_bytes=settings.window_bytes,
        )
        self._by_peer: dict[str, _Entry] = {}
        self._by_id: dict[bytes, _Entry] = {}
        self._asking: dict[str, trio.Event] = {}
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
            if entry is not None and self._current(entry, session):
                return entry.keeper.link
            pending = self._asking.get(peer)
            if pending is None:
                break
            await pending.wait()
        return (await self._ask(session)).keeper.link

    def find(self, link_id: bytes) -> Any | None:
        """The link of that id, while it is open."""
        entry = self._by_id.get(link_id)
        return entry.keeper.link if entry is not None else None

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

    async def aclose(self) -> None:
        """End every link. Harmless when repeated."""
        self._closed = True
        self._network.remove_handler("amst.link")
        self._network.remove_handler("amst.close")
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
                **entry.keeper.statistics(),
            }
            for entry in self._by_id.values()
        ]

    # Agreeing ----------------------------------------------------------------------------------

    def _current(self, entry: _Entry, session: PeerSession) -> bool:
        """A link with an earlier run of the other node is none."""
        return session.peer is None or entry.boot_id == session.peer.boot_id

    async def _ask(self, session: PeerSession) -> _Entry:
        peer = session.node_id
        self._check_room()
        done = self._asking[peer] = trio.Event()
        try:
            asked = negotiation.ask(self._abilities)
            try:
                body = await session.request("amst.link", pack(asked), within=ASK_TIMEOUT)
            except NetworkError as exc:
                entry = self._by_peer.get(peer)
                if entry is not None and self._current(entry, session):
                    return entry  # both asked at once, and theirs stood
                raise _no_link(peer, exc) from exc
            answered = unpack(LinkAnswer, body)
            agreement = negotiation.agreed_by_asker(asked, answered)
            entry = await self._open(session, asked, answered, agreement, initiator=True)
        finally:
            del self._asking[peer]
            done.set()
        return entry

    async def _answer(self, session: PeerSession, body: bytes) -> bytes:
        asked = unpack(LinkAsk, body)
        peer = session.node_id
        if self._closed:
            raise LinkRefusedError("the node stops")
        if peer in self._asking and self._node_id < peer:
            raise LinkConflictError("both nodes asked at once", why="this one's ask stands")
        old = self._by_peer.get(peer)
        if old is not None:
            old.keeper.end(
                LinkLostError("the link was lost", why="the other node opened a new one")
            )
            await old.ended.wait()
        self._check_room()
        answered = negotiation.answer(asked, self._abilities, port=self._port)
        agreement = negotiation.agreed_by_answerer(asked, answered)
        await self._open(session, asked, answered, agreement, initiator=False)
        return pack(answered)

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
    ) -> _Entry:
        assert self._nursery is not None
        peer = session.node_id
        host = _data_host(session)
        version_1 = agreement.version == negotiation.V1
        if version_1:
            keeper = await self._open_v1_keeper(session, agreement, host, answered.port, initiator)
        else:
            keeper = self._open_v3_keeper(
                peer, asked, answered, agreement, host, initiator=initiator
            )
        entry = _Entry(
            peer, session.peer.boot_id if session.peer is not None else "", agreement, keeper
        )
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
        if self._book.note(peer, _dialled_at(session)):
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
            start=self._start_with(host),
            congestion=self._congestion,
        )

    async def _open_v1_keeper(
        self, session: PeerSession, agreement: Agreement, host: str, port: int, initiator: bool
    ) -> Supervisor:
        if self._open_v1 is None:
            raise DwcpUnavailableError("this node does not speak protocol version 1")
        keeper: Supervisor = await self._open_v1(session.node_id, agreement, host, port, initiator)
        return keeper

    def _start_with(self, host: str) -> int:
        if self._settings.streams_start:
            return self._settings.streams_start
        if is_same_host(host):
            return 1
        return 4 if self._abilities.mode == "datacenter" else 8

    # Keeping -----------------------------------------------------------------------------------

    async def _keep(self, entry: _Entry) -> None:
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

    async def _tell_closed(self, entry: _Entry, why: str) -> None:
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
        counts: Mapping[str, int] = {"1": 0, "3": 0}
        totals = dict(counts)
        for entry in self._by_id.values():
            totals[str(entry.agreement.version)] += 1
        for version, count in totals.items():
            LINKS.set(count, version)


def _dialled_at(session: PeerSession) -> str:
    """Where this node reaches the other one: how it dialled it, or what the other says of itself."""
    if session.role == "acceptor" and session.peer is not None and session.peer.address:
        return session.peer.address
    return session.stream.peer_address


def _data_host(session: PeerSession) -> str:
    address = _dialled_at(session)
    try:
        return split_address(address, "network.advertise_address")[0]
    except NetworkError:
        return address.rpartition(":")[0].strip("[]")


def _no_link(peer: str, exc: NetworkError) -> DwcpError:
    status = getattr(exc, "status", None)
    if status == 1:  # STATUS_UNKNOWN_METHOD
        return LinkRefusedError(
            f"node {peer} does not move data",
            why="its DWCP component does not run",
            remedy="see `novacron components` there",
        )
    if status is not None:
        return LinkRefusedError(f"node {peer} does not want a link", why=exc.why)
    return PeerUnreachableError(f"no link with node {peer}", why=str(exc))
