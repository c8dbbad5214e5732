"""What this node knows of others: how they are named, where they were reached, and how to again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import trio

from novacron.environment.ports import AddressInvalidError
from novacron.errors import NovaCronError
from novacron.network.errors import PeerAmbiguousError, PeerIsSelfError, PeerUnknownError
from novacron.network.peers import Seed, SelfDialledError
from novacron.network.registry import SessionRegistry
from novacron.network.session import PeerSession
from novacron.network.transport import join_address, split_address
from novacron.protocol.states import State

MIN_PREFIX: Final = 4
"""Characters of a node's id. Fewer would mean another node as soon as the cluster has grown."""
MAX_NODES: Final = 1024
"""Whose addresses are remembered; the ones not met for the longest time are forgotten."""
MAX_ADDRESSES: Final = 3
"""Of one node; a node has an address that it advertises and one or two it is dialled at."""
MAX_NAMED: Final = 8
"""Nodes that an error names."""
_LOOKS_LIKE_ADDRESS: Final = ":"
"""In ``host:port`` and never in a node's id."""
_ID_CHARACTERS: Final = frozenset("0123456789abcdef-")
"""A name with any other is a host's. A host that is called by these alone needs its port."""
DEFAULT_PORT: Final = 7401
"""Of a host that is named without one: where nodes listen unless ``network.port`` says otherwise."""

Dial = Callable[[str, int], Awaitable[PeerSession]]
"""Connects and does both handshakes; the caller has the session served."""
Serve = Callable[[PeerSession, str], None]
"""Puts a session that was dialled at an address into the registry, at once, and starts the task
that runs it to its end."""


class _Attempt:
    """A connection that is being made, for all who want one to that address."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.session: PeerSession | None = None
        self.error: NovaCronError | SelfDialledError | None = None


class Contacts:
    """Finds sessions by the names operators use, and makes those that are not there."""

    def __init__(self, own_id: str, registry: SessionRegistry, dial: Dial, serve: Serve) -> None:
        self.seeds: list[Seed] = []
        self._own_id = own_id
        self._registry = registry
        self._dial = dial
        self._serve = serve
        self._attempts: dict[str, _Attempt] = {}
        self._addresses: dict[str, list[str]] = {}
        # Only what was dialled: an address that a node merely advertises may be another node's,
        # and whoever names that address means the other one.
        self._dialled: dict[str, str] = {}

    def learn(self, session: PeerSession, dialled: str | None) -> None:
        """Remember where the node of *session* can be reached: at *dialled*, where this node
        reached it, or where it says."""
        addresses = self._addresses.pop(session.node_id, [])
        self._addresses[session.node_id] = addresses
        advertised = session.peer.address if session.peer is not None else ""
        for address in (advertised, dialled):
            if address and _is_address(address):
                if address in addresses:
                    addresses.remove(address)
                addresses.insert(0, address)
        del addresses[MAX_ADDRESSES:]
        if dialled is not None:
            self._dialled.pop(dialled, None)
            self._dialled[dialled] = session.node_id
        while len(self._addresses) > MAX_NODES:
            del self._addresses[next(iter(self._addresses))]
        while len(self._dialled) > MAX_NODES:
            del self._dialled[next(iter(self._dialled))]

    async def connect(self, host: str, port: int) -> PeerSession:
        """A new session with whoever is there, which is served already. Who asks while it is being
        made gets the same one, or the same error.

        Raises:
          NetworkError, SecurityError: none could be made.
          SelfDialledError: this node is there.
        """
        address = join_address(host, port)
        while (attempt := self._attempts.get(address)) is not None:
            await attempt.done.wait()
            if attempt.session is not None:
                return attempt.session
            if attempt.error is not None:
                raise attempt.error
            # Who made the attempt was cancelled, which is no answer for the others.
        attempt = self._attempts[address] = _Attempt()
        try:
            attempt.session = await self._dial(host, port)
            self._serve(attempt.session, address)
        except (NovaCronError, SelfDialledError) as exc:
            attempt.error = exc
            raise
        finally:
            del self._attempts[address]
            attempt.done.set()
        return attempt.session

    async def again(self, session: PeerSession) -> PeerSession:
        """Another session with the node of *session*, in whose place it comes. Raises as
        :meth:`reach`."""
        failure: NovaCronError | None = None
        for address in list(self._addresses.get(session.node_id, ())):
            try:
                return await self.connect(*split_address(address, ""))
            except SelfDialledError:
                continue
            except NovaCronError as exc:
                failure = exc
        raise failure or PeerUnknownError(
            f"cannot reach node {session.node_id}", why="it is not known where it listens"
        )

    async def reach(self, node: str) -> PeerSession:
        """See :meth:`novacron.network.component.Network.reach`."""
        if node.startswith("[") and node.endswith("]"):
            return await self._reach_address(f"{node}:{DEFAULT_PORT}")
        if _LOOKS_LIKE_ADDRESS in node:
            return await self._reach_address(node)
        if not set(node.lower()) <= _ID_CHARACTERS:
            return await self._reach_address(f"{node}:{DEFAULT_PORT}")
        return await self._reach_node(self._resolve(node), node)

    async def _reach_address(self, text: str) -> PeerSession:
        host, port = split_address(text, "")
        address = join_address(host, port)
        seeds = [seed for seed in self.seeds if seed.address == address]
        known = [seed.node_id for seed in seeds] + [self._dialled.get(address)]
        for node_id in known:
            if node_id is not None and (session := self._live(node_id)) is not None:
                return session
        try:
            session = await self.connect(host, port)
        except SelfDialledError:
            raise _self_error(text) from None
        for seed in seeds:
            # So that the seed holds this session instead of making another one.
            seed.node_id = session.node_id
        return self._live(session.node_id) or session

    async def _reach_node(self, node_id: str, text: str) -> PeerSession:
        session = self._live(node_id)
        if session is not None:
            return session
        failure: NovaCronError | None = None
        found = ""
        for address in list(self._addresses.get(node_id, ())):
            try:
                session = await self.connect(*split_address(address, ""))
            except SelfDialledError:
                found = f"{address} is this node now"
            except NovaCronError as exc:
                failure = exc
            else:
                if session.node_id == node_id:
                    return self._live(node_id) or session
                found = f"{address} is node {session.node_id} now"
        if failure is not None:
            raise failure
        raise PeerUnknownError(
            f"cannot reach node {text}",
            why=found or "there is no session with it, and it said no address to reach it by",
            remedy="name it as host:port, or put that into network.seeds",
            key="network.seeds",
        )

    def _resolve(self, text: str) -> str:
        """The id of the node that *text* names, by all of it or by its beginning."""
        name = text.lower()
        # A dict keeps the order; sessions come first, as what an operator sees as "the" nodes.
        known = dict.fromkeys(self._known())
        if name in known:
            return name
        if len(name) >= MIN_PREFIX:
            if self._own_id.startswith(name):
                raise _self_error(text)
            matches = [node_id for node_id in known if node_id.startswith(name)]
            if len(matches) == 1:
                return matches[0]
            if matches:
                raise PeerAmbiguousError(
                    f"{text!r} may be any of several nodes",
                    why=_listed(matches),
                    remedy="give more of its id",
                )
        raise PeerUnknownError(
            f"no node is known as {text!r}",
            why=f"known are {_listed(list(known))}" if known else "this node knows no other yet",
            remedy=f"give a node's id, {MIN_PREFIX} or more characters of its beginning, or "
            "host:port",
        )

    def _known(self) -> list[str]:
        seeds = [seed.node_id for seed in self.seeds if seed.node_id is not None]
        return [session.node_id for session in self._registry] + list(self._addresses) + seeds

    def _live(self, node_id: str) -> PeerSession | None:
        """Its session, unless that is about to end and takes no requests."""
        session = self._registry.find(node_id)
        return session if session is not None and session.machine.state is State.OPEN else None


def _is_address(text: str) -> bool:
    try:
        split_address(text, "")
    except AddressInvalidError:
        return False
    return True


def _listed(nodes: list[str]) -> str:
    more = len(nodes) - MAX_NAMED
    return ", ".join(nodes[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")


def _self_error(text: str) -> PeerIsSelfError:
    return PeerIsSelfError(
        f"{text} is this node itself", remedy="name another node; a local copy needs no transfer"
    )
