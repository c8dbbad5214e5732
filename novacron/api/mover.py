"""The DWCP component as the API's handlers see it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from novacron.component import JsonObject
from novacron.dwcp import Dwcp
from novacron.dwcp.amst.transfer import ReceiveRequest, SendRequest, Transfer, TransferView

if TYPE_CHECKING:
    from novacron.api.parameters import TransferRequest


class Mover:
    """A :class:`~novacron.api.services.DataMover`."""

    def __init__(self, dwcp: Dwcp) -> None:
        self._dwcp = dwcp
        self.transfers = Desk(dwcp)

    @property
    def directories(self) -> Sequence[str]:
        return self._dwcp.directories

    def view(self) -> JsonObject:
        return dict(self._dwcp.statistics())


class Desk:
    """A :class:`~novacron.api.services.TransferDesk`."""

    def __init__(self, dwcp: Dwcp) -> None:
        self._dwcp = dwcp

    def views(self) -> Sequence[JsonObject]:
        return [view_of(found) for found in self._dwcp.transfers.list()]

    def view(self, id: str) -> JsonObject:
        return view_of(self._find(id).view())

    async def start(self, wanted: TransferRequest, *, confined: bool) -> JsonObject:
        transfers = self._dwcp.transfers
        common: dict[str, Any] = {
            "node": wanted.node,
            "paths": tuple(wanted.paths),
            "path": wanted.path,
            "priority": wanted.priority,
            "limit_bps": wanted.limit_bps,
            "deadline_seconds": wanted.deadline_seconds or 0.0,
            "overwrite": wanted.overwrite,
            "on_change": wanted.on_change,
            "recursive": wanted.recursive,
        }
        if wanted.direction == "send":
            transfer = await transfers.send(SendRequest(**common, anywhere=not confined))
        else:
            transfer = await transfers.receive(ReceiveRequest(**common, anywhere=not confined))
        return view_of(transfer.view())

    async def pause(self, id: str) -> JsonObject:
        transfer = self._find(id)
        await transfer.pause()
        return view_of(transfer.view())

    async def resume(self, id: str) -> JsonObject:
        transfer = self._find(id)
        await transfer.resume()
        return view_of(transfer.view())

    async def cancel(self, id: str) -> JsonObject:
        transfer = self._find(id)
        await transfer.cancel()
        return view_of(transfer.view())

    async def limit(self, id: str, limit_bps: int) -> JsonObject:
        transfer = self._find(id)
        await transfer.limit(limit_bps)
        return view_of(transfer.view())

    def _find(self, id: str) -> Transfer:
        return self._dwcp.transfers.find(id)


def view_of(found: TransferView) -> JsonObject:
    return {**found._asdict(), "errors": [error._asdict() for error in found.errors]}
