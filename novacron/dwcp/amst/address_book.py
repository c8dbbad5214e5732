"""Where the nodes were last reached that this one had links with.

A node started again knows only its seeds by name; a transfer that goes on may be with another one, which
was given by its address once.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Final

from novacron.durable import write_durably
from novacron.environment.ports import AddressInvalidError
from novacron.network.session import PeerSession
from novacron.network.transport import split_address
from novacron.protocol.states import Role

logger = logging.getLogger("novacron.dwcp")

MAX_NODES: Final = 1024
"""The ones used longest ago are forgotten first."""


class AddressBook:
    """Node id to ``host:port``. :meth:`load` and :meth:`save` block."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._addresses: dict[str, str] = {}

    def load(self) -> None:
        """A book that cannot be read is an empty one: all it saves is a question to the operator."""
        try:
            found = json.loads(self._path.read_bytes())
        except FileNotFoundError:
            return
        except (OSError, ValueError) as exc:
            logger.warning(
                "the addresses of other nodes cannot be read from %s: %s", self._path, exc
            )
            return
        if isinstance(found, dict):
            self._addresses = {
                node: address
                for node, address in list(found.items())[-MAX_NODES:]
                if isinstance(node, str) and isinstance(address, str)
            }

    def find(self, node_id: str) -> str | None:
        return self._addresses.get(node_id)

    def note(self, node_id: str, address: str) -> bool:
        """Whether that is news, which :meth:`save` keeps."""
        if self._addresses.pop(node_id, None) == address:
            self._addresses[node_id] = address
            return False
        self._addresses[node_id] = address
        while len(self._addresses) > MAX_NODES:
            del self._addresses[next(iter(self._addresses))]
        return True

    def save(self) -> None:
        """Raises OSError."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_durably(self._path, json.dumps(self._addresses, indent=1).encode())


def dialled_at(session: PeerSession) -> str | None:
    """Where this node reaches the other one: how it dialled it, or what the other says of itself. None
    where the other node dialled and says nothing: the port it did that from is not one to dial."""
    if session.role is Role.INITIATOR:
        return session.stream.peer_address
    return session.peer.address or None if session.peer is not None else None


def data_host(session: PeerSession) -> str:
    """The host to dial for data: that of the same address, or where the session comes from."""
    address = dialled_at(session) or session.stream.peer_address
    try:
        return split_address(address, "network.advertise_address")[0]
    except AddressInvalidError:
        return split_address(session.stream.peer_address, "network.advertise_address")[0]
