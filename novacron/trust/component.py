"""The component that keeps a node trusted: renewal of its certificate by way of its peers, and the
list of revoked certificates that they pass on to each other."""

from __future__ import annotations

from typing import ClassVar

import trio

from novacron.component import Component, Criticality, Phase
from novacron.network import Network
from novacron.security import Security


class Trust(Component):
    name: ClassVar[str] = "trust"
    phase: ClassVar[Phase] = Phase.CORE
    criticality: ClassVar[Criticality] = Criticality.WARNING

    def __init__(self, security: Security, network: Network) -> None:
        self._security = security
        self._network = network

    async def initialize(self, nursery: trio.Nursery) -> None:
        pass

    async def renew(self) -> None:
        await self._security.renew_certificate()

    async def shutdown(self) -> None:
        pass
