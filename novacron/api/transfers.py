"""The handlers of ``/api/v1/transfers`` and ``/api/v1/dwcp``. Imports FastAPI, as ``routes.py``.

The gate has decided by the caller's role. Whose transfers and which files it may touch is asked of the
same table here, where they are known: the path is in the body, the tenant in the transfer.
"""

from __future__ import annotations

from typing import Any

from fastapi import Request

from novacron.api.access import allow, caller
from novacron.api.answers import TRANSFER
from novacron.api.entry import Entry, NotHereError
from novacron.api.parameters import (
    LIMIT_REQUEST,
    TRANSFER_ID,
    TRANSFER_REQUEST,
    TRANSFER_STATE,
    LimitRequest,
    TransferRequest,
    read_body,
)
from novacron.api.problems import ForbiddenError, InvalidRequestError
from novacron.api.services import Services
from novacron.component import JsonObject
from novacron.dwcp import Dwcp
from novacron.dwcp.amst.transfer import ReceiveRequest, SendRequest, Transfer, view_as_dict
from novacron.dwcp.hde import choice
from novacron.security import Role, resources
from novacron.security.policy import decide

MAX_PATH_BYTES = 4095
"""PATH_MAX of Linux, without the zero at the end."""


class TransferRoutes:
    def __init__(self, services: Services) -> None:
        self._services = services

    async def dwcp(self) -> JsonObject:
        """What this node moves data with: protocol, encryption and RDMA as wanted and as they are
        and why, and each link with its streams."""
        return dict(self._dwcp.statistics())

    async def transfers(self, request: Request) -> JsonObject:
        """Transfers under way and those that ended lately, newest first; of a narrowed caller, its
        own."""
        state = TRANSFER_STATE.read(request)
        principal = caller(request)
        found = [
            transfer
            for transfer in self._dwcp.transfers.transfers()
            if decide(principal, "transfer.read", self._concerned(transfer)).allowed
        ]
        if state != "all":
            found = [transfer for transfer in found if transfer.ended == (state == "ended")]
        return {"transfers": [_view(transfer) for transfer in found]}

    async def transfer(self, request: Request) -> JsonObject:
        """One transfer: how far it is, how fast, how its content was encoded and why, and what went
        wrong."""
        return _view(self._named(request, "transfer.read"))

    async def start(self, request: Request) -> JsonObject:
        """Send files to another node, or have it send some here. Answers once the transfer is on
        record, before it has moved anything; with one that is under way already if it was asked for
        the same. Files of this node outside of dwcp.amst.directories take the role admin, and a token
        that is not narrowed to directories."""
        wanted = read_body(TransferRequest, await request.body())
        _check(wanted)
        transfers = self._dwcp.transfers
        tenant = transfers.tenant_of(wanted.tenant or "")
        local = wanted.paths if wanted.direction == "send" else [wanted.path]
        allow(
            request,
            "transfer.start",
            [resources.tenant(tenant), *map(resources.directory, local)],
            f"a transfer for the tenant {tenant or 'without a name'}",
        )
        principal = caller(request)
        # A narrowed caller's directories were compared by the text of the path. That holds only
        # where no link is followed, which is so in the configured directories.
        anywhere = principal.role.allows(Role.ADMIN) and not resources.is_narrowed(
            principal.resources, "directory"
        )
        if not anywhere:
            for path in local:
                if not transfers.allows(path):
                    raise _outside(path, principal.role)
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
            "tenant": wanted.tenant or "",
            "dedup": wanted.dedup or "",
        }
        # That the path reads as one inside is no more than a good answer early: what opens the
        # files follows no link, and so cannot be led outside afterwards.
        started: Transfer
        if wanted.direction == "send":
            started = await transfers.send(
                SendRequest(**common, anywhere=anywhere, codec=wanted.codec)
            )
        else:
            started = await transfers.receive(ReceiveRequest(**common, anywhere=anywhere))
        request.state.target = started.id.hex()
        return _view(started)

    async def pause(self, request: Request) -> JsonObject:
        """Stop moving data, and keep what is there."""
        transfer = self._named(request, "transfer.pause")
        await transfer.pause()
        return _view(transfer)

    async def resume(self, request: Request) -> JsonObject:
        """Go on with a paused transfer."""
        transfer = self._named(request, "transfer.resume")
        await transfer.resume()
        return _view(transfer)

    async def cancel(self, request: Request) -> JsonObject:
        """End a transfer for good. Partial files are removed, complete ones stay."""
        transfer = self._named(request, "transfer.cancel")
        await transfer.cancel()
        return _view(transfer)

    async def limit(self, request: Request) -> JsonObject:
        """Set how fast a transfer may be, from now on."""
        transfer = self._named(request, "transfer.limit")
        wanted = read_body(LimitRequest, await request.body())
        await transfer.limit(wanted.limit_bps)
        return _view(transfer)

    def table(self) -> list[Entry]:
        by_id = (TRANSFER_ID,)
        return [
            Entry("GET", "/dwcp", self.dwcp),
            Entry("GET", "/transfers", self.transfers, (TRANSFER_STATE,)),
            Entry("GET", "/transfers/{id}", self.transfer, by_id, answer=TRANSFER),
            Entry(
                "POST",
                "/transfers",
                self.start,
                body=TRANSFER_REQUEST,
                status=201,
                answer=TRANSFER,
            ),
            Entry("POST", "/transfers/{id}/pause", self.pause, by_id, answer=TRANSFER),
            Entry("POST", "/transfers/{id}/resume", self.resume, by_id, answer=TRANSFER),
            Entry("POST", "/transfers/{id}/cancel", self.cancel, by_id, answer=TRANSFER),
            Entry(
                "POST",
                "/transfers/{id}/limit",
                self.limit,
                by_id,
                body=LIMIT_REQUEST,
                answer=TRANSFER,
            ),
        ]

    @property
    def _dwcp(self) -> Dwcp:
        dwcp = self._services.dwcp
        if dwcp is None:
            raise NotHereError(
                "there are no transfers",
                why="this node runs without DWCP",
                remedy="`novacron components` says why",
            )
        return dwcp

    def _named(self, request: Request, action: str) -> Transfer:
        """The transfer a call names, if its caller may do *action* to it; its whole id is the call's
        target from here on."""
        transfer = self._dwcp.transfers.find(TRANSFER_ID.read(request))
        request.state.target = transfer.id.hex()
        allow(request, action, self._concerned(transfer), f"{action} of {transfer.id.hex()}")
        return transfer

    def _concerned(self, transfer: Transfer) -> list[str]:
        """What *transfer* is about, for the decision who may see and steer it."""
        local = transfer.paths if transfer.role == "sender" else [transfer.destination]
        absolute = self._dwcp.transfers.absolute
        found = [resources.directory(absolute(path)) for path in local if path]
        if transfer.tenant:
            found.append(resources.tenant(transfer.tenant))
        return found


def _view(transfer: Transfer) -> JsonObject:
    return view_as_dict(transfer.view())


def _outside(path: str, role: Role) -> ForbiddenError:
    narrowed = role.allows(Role.ADMIN)
    return ForbiddenError(
        f"{path[:200]!r} may not be moved by "
        + ("a token narrowed to directories" if narrowed else "the role operator"),
        why="it leads outside of the directories for transfers",
        remedy="name its directory in the configuration"
        if narrowed
        else "use a token with the role admin, or name its directory in the configuration",
        key="dwcp.amst.directories",
    )


def _check(wanted: TransferRequest) -> None:
    """Raises:
    InvalidRequestError: a path cannot be one, or one of this node is not absolute; or a codec is
      given for what another node sends."""
    sent = wanted.direction == "send"
    faults = []
    named = [(f"body.paths.{i}", path, sent) for i, path in enumerate(wanted.paths)]
    for where, path, local in (*named, ("body.path", wanted.path, not sent)):
        if not path or len(path.encode("utf-8", "surrogatepass")) > MAX_PATH_BYTES:
            faults.append((where, f"a path has 1 to {MAX_PATH_BYTES} bytes"))
        elif "\0" in path or any("\ud800" <= c <= "\udfff" for c in path):
            faults.append((where, "it holds what no path can"))
        elif local and not path.startswith("/"):
            faults.append((where, "a path of this node is absolute"))
    fault = choice.fault_of(wanted.codec)
    if fault:
        faults.append(("body.codec", fault))
    if wanted.codec and not sent:
        faults.append(("body.codec", "the node that sends decides how it encodes"))
    if faults:
        raise InvalidRequestError(faults)
