from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
import trio

from novacron.api import Api
from novacron.api.cluster_tokens import ClusterTokens
from novacron.component import NodeView
from novacron.config import LoadedConfiguration
from novacron.config.schema import ApiSettings, NetworkSettings, SecuritySettings, Settings
from novacron.data_directory import DataDirectory
from novacron.environment import Identity
from novacron.security import Role, Security
from tests.api.dwcp_stand_in import DwcpStandIn
from tests.api.stand_ins import (
    EnvironmentStandIn,
    IdentityStandIn,
    NamedStandIn,
    NetworkStandIn,
    NodeStandIn,
)


class Node:
    """A node's real security and API around stand-ins for the rest."""

    def __init__(self, directory: DataDirectory) -> None:
        self.directory = directory
        self.view = NodeStandIn()
        self.environment = EnvironmentStandIn()
        self.network: NetworkStandIn | None = NetworkStandIn()
        self.dwcp: DwcpStandIn | None = DwcpStandIn(directory.root / "transfers")
        self.settings = ApiSettings(port=0)
        self.configuration = LoadedConfiguration(Settings(), "d1ge57")
        self.cluster_tokens: ClusterTokens | None = None
        self.security = Security(
            cast(Identity, IdentityStandIn()),
            SecuritySettings(),
            NetworkSettings(),
            self.settings,
            directory,
            cast(NodeView, self.view),
        )

    def api(self, **settings: Any) -> Api:
        if settings:
            self.settings = ApiSettings(**{"port": 0} | settings)
        stand_in: Any = NamedStandIn
        api = Api(
            self.security,
            stand_in("database"),
            stand_in("cache"),
            cast(Any, self.network),
            None,
            cast(Any, self.dwcp),
            cast(Any, self.environment),
            cast(Any, IdentityStandIn()),
            self.configuration,
            self.settings,
            self.directory,
            cast(NodeView, self.view),
        )
        api._services = api._services._replace(cluster_tokens=self.cluster_tokens)
        return api

    async def token(self, role: Role | str) -> str:
        created = await self.security.tokens.create("for a test", role, None)
        return created.secret


@pytest.fixture
async def node(data_directory: DataDirectory) -> AsyncIterator[Node]:
    made = Node(data_directory)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            await made.security.initialize(nursery)
            yield made
            await made.security.shutdown()
            nursery.cancel_scope.cancel()
