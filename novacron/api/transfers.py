"""The handlers of ``/api/v1/transfers`` and ``/api/v1/dwcp``. Imports FastAPI, as ``routes.py``.

Who may move which files is decided here: the policy knows routes, and the path is in the body.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import trio
from fastapi import Request

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
from novacron.api.services import DataMover, Services
from novacron.component import JsonObject
from novacron.security import Principal, Role

ENDED = frozenset({"done", "failed", "cancelled"})
"""States in which a transfer moves nothing any more."""

MAX_PATH_BYTES = 4095
"""PATH_MAX of Linux, without the zero at the end."""


class TransferRoutes:
    def __init__(self, services: Services) -> None:
        self._services = services

    async def dwcp(self) -> JsonObject:
        """What this node moves data with: protocol, encryption and RDMA as wanted and as they are
        and why, and each link with its streams."""
        return self._dwcp.view()

    async def transfers(self, request: Request) -> JsonObject:
        """Transfers under way and those that ended lately, newest first."""
        state = TRANSFER_STATE.read(request)
        found = self._dwcp.transfers.views()
        if state != "all":
            found = [view for view in found if (view["state"] in ENDED) == (state == "ended")]
        return {"transfers": found}

    async def transfer(self, request: Request) -> JsonObject:
        """One transfer: how far it is, how fast, and what went wrong."""
        return self._dwcp.transfers.view(TRANSFER_ID.read(request))

    async def start(self, request: Request) -> JsonObject:
        """Send files to another node, or have it send some here. Answers once the transfer is on
        record, before it has moved anything. Files of this node outside of dwcp.amst.directories
        take the role admin."""
        wanted = read_body(TransferRequest, await request.body())
        _check_paths(wanted)
        principal: Principal = request.state.principal
        local = wanted.paths if wanted.direction == "send" else [wanted.path]
        anywhere = principal.role.allows(Role.ADMIN)
        if not anywhere:
            directories = self._dwcp.directories
            await trio.to_thread.run_sync(check_confined, local, directories)
        view = await self._dwcp.transfers.start(wanted, confined=not anywhere)
        request.state.target = view["id"]
        return view

    async def pause(self, request: Request) -> JsonObject:
        """Stop moving data, and keep what is there."""
        return await self._dwcp.transfers.pause(self._named(request))

    async def resume(self, request: Request) -> JsonObject:
        """Go on with a paused transfer."""
        return await self._dwcp.transfers.resume(self._named(request))

    async def cancel(self, request: Request) -> JsonObject:
        """End a transfer for good. Partial files are removed, complete ones stay."""
        return await self._dwcp.transfers.cancel(self._named(request))

    async def limit(self, request: Request) -> JsonObject:
        """Set how fast a transfer may be, from now on."""
        id = self._named(request)
        wanted = read_body(LimitRequest, await request.body())
        return await self._dwcp.transfers.limit(id, wanted.limit_bps)

    def table(self) -> list[Entry]:
        by_id = (TRANSFER_ID,)
        return [
            Entry("GET", "/dwcp", self.dwcp),
            Entry("GET", "/transfers", self.transfers, (TRANSFER_STATE,)),
            Entry("GET", "/transfers/{id}", self.transfer, by_id),
            Entry("POST", "/transfers", self.start, body=TRANSFER_REQUEST, status=201),
            Entry("POST", "/transfers/{id}/pause", self.pause, by_id),
            Entry("POST", "/transfers/{id}/resume", self.resume, by_id),
            Entry("POST", "/transfers/{id}/cancel", self.cancel, by_id),
            Entry("POST", "/transfers/{id}/limit", self.limit, by_id, body=LIMIT_REQUEST),
        ]

    @property
    def _dwcp(self) -> DataMover:
        dwcp = self._services.dwcp
        if dwcp is None:
            raise NotHereError(
                "there are no transfers",
                why="DWCP did not start on this node",
                remedy="`novacron components` says why",
            )
        return dwcp

    def _named(self, request: Request) -> str:
        """The whole id of the transfer a call names, which from here on is the call's target."""
        id = str(self._dwcp.transfers.view(TRANSFER_ID.read(request))["id"])
        request.state.target = id
        return id


def _check_paths(wanted: TransferRequest) -> None:
    """Raises:
    InvalidRequestError: a path cannot be one, or one of this node is not absolute."""
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
    if faults:
        raise InvalidRequestError(faults)


def check_confined(paths: Sequence[str], directories: Sequence[str]) -> None:
    """Whether all *paths* lead into *directories*, links followed. Blocks on the disk.

    A first look that gives a good answer early: what opens the files holds them to the same
    directories again, since links can change in between.

    Raises:
      ForbiddenError: one does not.
    """
    roots = [os.path.realpath(directory) for directory in directories]
    for path in paths:
        found = os.path.realpath(path)
        if not any(os.path.commonpath((root, found)) == root for root in roots):
            raise ForbiddenError(
                f"{path[:200]} may not be moved by the role operator",
                why="it leads outside of the directories for transfers",
                remedy="use a token with the role admin, or name its directory in the configuration",
                key="dwcp.amst.directories",
            )
