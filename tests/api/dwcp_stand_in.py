"""A transport that moves nothing and remembers what it was told."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import trio

from novacron.dwcp.amst.errors import TransferUnknownError
from novacron.dwcp.amst.paths import Confinement
from novacron.dwcp.amst.transfer import (
    ReceiveRequest,
    SendRequest,
    Transfer,
    TransferError,
    TransferView,
    view_as_dict,
)

PEER = "7669cb21-1172-4075-8681-64e18d2a00f6"


def transfer_view(id: str, **changes: Any) -> dict[str, Any]:
    """A view as the node sends it; it has the members of a real one, and no others."""
    errors = [TransferError(**error) for error in changes.pop("errors", ())]
    view: dict[str, Any] = {
        "id": id,
        "direction": "send",
        "role": "sender",
        "peer": PEER,
        "state": "moving",
        "why": "",
        "remedy": "",
        "paths": ["/srv/images/a.qcow2"],
        "destination": "/srv/images/",
        "created_at": 1_700_000_000.0,
        "started_at": 1_700_000_000.5,
        "finished_at": None,
        "files_total": 2,
        "files_done": 1,
        "bytes_total": 4 * 1024**3,
        "bytes_done": 1024**3,
        "bytes_moved": 512 * 1024**2,
        "bytes_zero": 512 * 1024**2,
        "bytes_resent": 0,
        "bytes_deduplicated": 0,
        "wire_bytes": 513 * 1024**2,
        "rate_bps": 256e6,
        "eta_seconds": 12.0,
        "streams": 8,
        "mover": "tcp",
        "protocol": 3,
        "encrypted": True,
        "priority": "normal",
        "limit_bps": 0,
        "deadline_at": None,
        "current": "/srv/images/a.qcow2",
        "errors": errors,
        "files_skipped": 0,
        "skipped": [],
    }
    return view_as_dict(TransferView(**view | changes))


class TransferStandIn(Transfer):
    role = "sender"

    def __init__(self, id: bytes, told: list[tuple[Any, ...]], state: str = "waiting") -> None:
        super().__init__(id, PEER, created_at=1_700_000_000.0, notify=lambda: None)
        self.state = state
        self._told = told

    async def pause(self) -> None:
        await self._tell("pause", "paused")

    async def resume(self) -> None:
        await self._tell("resume", "moving")

    async def cancel(self) -> None:
        await self._tell("cancel", "cancelled")

    async def limit(self, bytes_per_second: int) -> None:
        self.limit_bps = bytes_per_second
        await self._tell("limit", self.state)

    async def _tell(self, action: str, state: str) -> None:
        await trio.lowlevel.checkpoint()
        self._told.append((action, self.id.hex()))
        self.state = state


class DwcpStandIn:
    name = "dwcp"

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._confinement = Confinement([directory])
        self.told: list[tuple[Any, ...]] = []
        self.known = [
            TransferStandIn(bytes.fromhex(start + "0" * 28), self.told, state)
            for start, state in (("ab54", "moving"), ("ab53", "done"))
        ]

    def statistics(self) -> dict[str, Any]:
        return {"mode": "auto", "protocol": {"wanted": "auto", "got": "v3", "why": ""}}

    @property
    def transfers(self) -> TransfersStandIn:
        return TransfersStandIn(self)


class TransfersStandIn:
    def __init__(self, dwcp: DwcpStandIn) -> None:
        self._dwcp = dwcp

    def transfers(self) -> list[TransferStandIn]:
        return self._dwcp.known

    def find(self, id: str) -> TransferStandIn:
        found = [transfer for transfer in self._dwcp.known if transfer.id.hex().startswith(id)]
        if len(found) != 1:
            raise TransferUnknownError(f"no transfer {id!r}")
        return found[0]

    def allows(self, path: str) -> bool:
        return self._dwcp._confinement.contains(path)

    def absolute(self, path: str) -> str:
        return self._dwcp._confinement.absolute(path)

    def tenant_of(self, name: str) -> str:
        return name or "default"

    async def send(self, request: SendRequest) -> TransferStandIn:
        return await self._start(request)

    async def receive(self, request: ReceiveRequest) -> TransferStandIn:
        return await self._start(request)

    async def _start(self, request: SendRequest | ReceiveRequest) -> TransferStandIn:
        await trio.lowlevel.checkpoint()
        self._dwcp.told.append(("start", request))
        transfer = TransferStandIn(secrets.token_bytes(16), self._dwcp.told)
        transfer.paths = list(request.paths)
        transfer.tenant = self.tenant_of(request.tenant)
        self._dwcp.known.insert(0, transfer)
        return transfer
