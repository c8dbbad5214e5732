"""What the handlers work with."""

from __future__ import annotations

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
    from novacron.dwcp.amst.transfers import Transfers


class DataMover(Protocol):
    """What the API needs of the component that moves data between nodes."""

    @property
    def transfers(self) -> Transfers: ...

    def view(self) -> JsonObject:
        """``mode``; ``protocol``, ``encryption`` and ``rdma``, each with ``wanted``, ``got`` and
        ``why``; ``links``, each with its ``streams``."""
        ...


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
