"""What the handlers work with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from novacron.boot.report_store import ReportStore
from novacron.cache import Cache
from novacron.component import Component, JsonObject, NodeView
from novacron.config import LoadedConfiguration
from novacron.database import Database
from novacron.environment import Environment, Identity
from novacron.network import Network
from novacron.record import Record
from novacron.security import Security

if TYPE_CHECKING:
    from novacron.api.parameters import TransferRequest


class TransferDesk(Protocol):
    """Starts transfers and knows about them. Views are what ``docs/reference/rest.md`` describes.

    *id* may be the first characters of one wherever it is looked up.
    """

    def views(self) -> Sequence[JsonObject]:
        """Newest first."""
        ...

    def view(self, id: str) -> JsonObject:
        """Raises:
        TransferUnknownError: no transfer has the id, or several begin so."""
        ...

    async def start(self, wanted: TransferRequest, *, confined: bool) -> JsonObject:
        """Put a transfer on record and begin with it; returns its view.

        *confined*: files of this node are opened only within ``dwcp.amst.directories``.
        """
        ...

    async def pause(self, id: str) -> JsonObject: ...
    async def resume(self, id: str) -> JsonObject: ...
    async def cancel(self, id: str) -> JsonObject: ...
    async def limit(self, id: str, limit_bps: int) -> JsonObject: ...


class DataMover(Protocol):
    """What the API needs of the component that moves data between nodes."""

    @property
    def directories(self) -> Sequence[str]:
        """Where transfers may read and write without an administrator."""
        ...

    @property
    def transfers(self) -> TransferDesk: ...

    def view(self) -> JsonObject: ...


class Services(Record):
    node: NodeView
    identity: Identity
    security: Security
    database: Database
    cache: Cache | None
    network: Network | None
    dwcp: DataMover | None
    environment: Environment
    configuration: LoadedConfiguration
    reports: ReportStore
    api: Component
