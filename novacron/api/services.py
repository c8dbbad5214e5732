"""What the handlers work with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from novacron.boot.report_store import ReportStore
from novacron.cache import Cache
from novacron.component import Component, NodeView
from novacron.config import LoadedConfiguration
from novacron.database import Database
from novacron.dwcp import Dwcp
from novacron.environment import Environment, Identity
from novacron.network import Network
from novacron.record import Record
from novacron.security import Security
from novacron.trust import Trust

if TYPE_CHECKING:
    from novacron.api.cluster_tokens import ClusterTokens


class Services(Record):
    node: NodeView
    identity: Identity
    security: Security
    database: Database
    cache: Cache | None
    network: Network | None
    trust: Trust | None
    dwcp: Dwcp | None
    environment: Environment
    configuration: LoadedConfiguration
    reports: ReportStore
    api: Component
    cluster_tokens: ClusterTokens | None = None
    """None: the nodes share no database."""
