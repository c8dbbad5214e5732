"""A transport that moves nothing and remembers what it was told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from novacron.dwcp.amst.errors import TransferUnknownError


def transfer_view(id: str, **changes: Any) -> dict[str, Any]:
    view: dict[str, Any] = {
        "id": id,
        "direction": "send",
        "role": "sender",
        "peer": "7669cb21-1172-4075-8681-64e18d2a00f6",
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
        "errors": [],
    }
    return view | changes


class DwcpStandIn:
    name = "dwcp"

    def __init__(self, directory: Path) -> None:
        self.directories = (str(directory),)
        self.told: list[tuple[Any, ...]] = []
        self.known = [
            transfer_view("ab54" + "0" * 28),
            transfer_view("ab53" + "0" * 28, state="done", finished_at=1_700_000_016.0),
        ]

    @property
    def transfers(self) -> DwcpStandIn:
        return self

    def views(self) -> list[dict[str, Any]]:
        return self.known

    def view(self, id: str | None = None) -> dict[str, Any]:
        if id is None:
            return {"mode": "auto", "protocol": {"wanted": "auto", "got": "v3", "why": ""}}
        found = [view for view in self.known if view["id"].startswith(id)]
        if len(found) != 1:
            raise TransferUnknownError(f"there is no transfer {id}")
        return found[0]

    async def start(self, wanted: Any, *, confined: bool) -> dict[str, Any]:
        self.told.append(("start", wanted, confined))
        self.known.insert(0, transfer_view(f"{len(self.told):032x}", state="waiting"))
        return self.known[0]

    async def pause(self, id: str) -> dict[str, Any]:
        return self._tell("pause", id, state="paused")

    async def resume(self, id: str) -> dict[str, Any]:
        return self._tell("resume", id, state="moving")

    async def cancel(self, id: str) -> dict[str, Any]:
        return self._tell("cancel", id, state="cancelled")

    async def limit(self, id: str, limit_bps: int) -> dict[str, Any]:
        return self._tell("limit", id, limit_bps=limit_bps)

    def _tell(self, action: str, id: str, **changes: Any) -> dict[str, Any]:
        self.told.append((action, id, changes))
        view = self.view(id)
        view.update(changes)
        return view
