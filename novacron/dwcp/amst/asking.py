"""Asking another node something about a transfer, and telling errors across."""

from __future__ import annotations

from typing import Final, Protocol, TypeVar

from novacron.dwcp.amst import errors
from novacron.dwcp.amst.address_book import data_host
from novacron.dwcp.amst.bodies import Bodies
from novacron.dwcp.amst.congestion import is_same_host
from novacron.dwcp.amst.errors import (
    PeerUnreachableError,
    TransferRefusedError,
)
from novacron.dwcp.amst.messages import Message
from novacron.dwcp.amst.transfer_messages import Trouble, pack, unpack
from novacron.dwcp.amst.transport import Link
from novacron.errors import DwcpError, NetworkError, NovaCronError, TransientError
from novacron.network.errors import RequestFailedError
from novacron.network.session import (
    STATUS_DENIED,
    STATUS_FAILED,
    STATUS_UNKNOWN_METHOD,
    PeerSession,
    RequestHandler,
)

ASK_TIMEOUT: Final = 60.0
"""Seconds for an answer that needs a few system calls on a disk that may be busy."""
A = TypeVar("A", bound=Message)


class BusyError(DwcpError, TransientError):
    """The other node has as many transfers as it takes."""

    code = "dwcp.busy"


class StoppingError(DwcpError, TransientError):
    """The node, this or the other one, stops; it may be back soon."""

    code = "dwcp.stopping"


_KNOWN: Final = {
    found.code: found
    for found in vars(errors).values()
    if isinstance(found, type) and issubclass(found, DwcpError)
} | {kind.code: kind for kind in (BusyError, StoppingError)}


class Sessions(Protocol):
    """What transfers need of :class:`novacron.network.Network`."""

    def session(self, node_id: str) -> PeerSession | None: ...
    async def reach(self, node: str) -> PeerSession: ...
    def register_handler(self, method: str, handler: RequestHandler) -> None: ...
    def remove_handler(self, method: str) -> None: ...


class Links(Protocol):
    """What transfers need of the registry of links."""

    async def link_to(self, node: str) -> Link:
        """The link with *node*, made where there is none.

        Raises:
          NovaCronError: there is none; whether to try again is on the other axis.
        """
        ...

    def find(self, link_id: bytes) -> Link | None:
        """The link of that id, if it has not ended."""
        ...


class Asking:
    def __init__(self, sessions: Sessions, bodies: Bodies) -> None:
        self._sessions = sessions
        self._bodies = bodies

    async def ask(
        self,
        peer: str,
        method: str,
        message: Message,
        answer: type[A],
        *,
        within: float = ASK_TIMEOUT,
    ) -> A:
        """Raises:
        PeerUnreachableError: no session, or no answer; may work later.
        TransferRefusedError, MessageError, CodedMessageError: it will not.
        """
        try:
            session = self._sessions.session(peer) or await self._sessions.reach(peer)
            asked = self._bodies.encode(session, pack(message))
            answered = await session.request(method, asked, within=within)
        except RequestFailedError as exc:
            raise _refusal(peer, exc) from exc
        except NetworkError as exc:
            raise PeerUnreachableError(f"node {peer} does not answer", why=str(exc)) from exc
        return unpack(answer, await self._bodies.decode(answered))

    async def ask_newer(
        self, peer: str, method: str, message: Message, answer: type[A]
    ) -> A | None:
        """As :meth:`ask`, for what not every version of a node knows: None where *peer* does not."""
        try:
            return await self.ask(peer, method, message, answer)
        except PeerUnreachableError as exc:
            cause = exc.__cause__
            if isinstance(cause, RequestFailedError) and cause.status == STATUS_UNKNOWN_METHOD:
                return None
            raise

    def on_this_host(self, peer: str) -> bool:
        """Whether *peer* is a node of this host, going by its session."""
        session = self._sessions.session(peer)
        return session is not None and is_same_host(data_host(session))


def _refusal(peer: str, exc: RequestFailedError) -> DwcpError:
    if exc.status == STATUS_UNKNOWN_METHOD:
        # As a node does whose network is up already, and its DWCP not yet.
        return PeerUnreachableError(
            f"node {peer} takes no transfers",
            why="its DWCP component does not run",
            remedy="look at its status and log",
        )
    if exc.status in (STATUS_FAILED, STATUS_DENIED):
        return TransferRefusedError(f"node {peer} refused", why=exc.why)
    # It failed in a way that it did not foresee. It may be well after a restart.
    return PeerUnreachableError(f"node {peer} failed to answer", why=exc.why)


def error_of(trouble: Trouble, peer: str) -> DwcpError:
    """The error that *peer* told of; one of a kind this node does not know is permanent."""
    kind: type[DwcpError] = _KNOWN.get(trouble.code, TransferRefusedError)
    return kind(
        trouble.what,
        why=trouble.why,
        remedy=trouble.remedy,
        # It may have come round: a sender tells the receiver why it failed.
        key=f"{trouble.key} of node {peer}"
        if trouble.key and " of node " not in trouble.key
        else trouble.key,
    )


def check(trouble: Trouble | None, peer: str) -> None:
    """Raises the error in *trouble*, if there is any."""
    if trouble is not None:
        raise error_of(trouble, peer)


def is_passing(exc: NovaCronError) -> bool:
    """Whether the same may work later without anybody's doing."""
    return exc.retryable
