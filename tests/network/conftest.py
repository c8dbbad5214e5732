"""A cluster in one process: an authority, nodes with real sockets, all on loopback."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
import trio

from novacron.config.schema import NetworkSettings
from novacron.network.component import Network
from tests.network.authority import Authority, Certificates, Identity, Security, node_id


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def other_authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("other"), "other")


@pytest.fixture(scope="session")
def certificates(authority: Authority) -> Callable[[int], Certificates]:
    made: dict[int, Certificates] = {}

    def certificates_of(number: int) -> Certificates:
        if number not in made:
            made[number] = Certificates(authority, node_id(number))
        return made[number]

    return certificates_of


@pytest.fixture
def reserved_port() -> Iterator[int]:
    """A port that is free for a listener with SO_REUSEADDR and for nobody else, because this
    socket holds it without listening."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


async def until(condition: Callable[[], Any], within: float = 10) -> Any:
    """What *condition* returns once it is true. For states that have no event to wait for."""
    with trio.fail_after(within):
        while not (value := condition()):
            await trio.sleep(0.002)
    return value


class View:
    """What the network sees of its node."""

    def __init__(self, boot_id: str) -> None:
        self.boot_id = boot_id
        self.published: dict[str, str] = {}
        self.warnings: list[str] = []

    def publish_address(self, kind: str, address: str) -> None:
        self.published[kind] = address

    def warn(self, message: str) -> None:
        self.warnings.append(message)


class Node:
    """A network component and what surrounds it."""

    def __init__(self, number: int, certificates: Certificates, **settings: Any) -> None:
        self.id = node_id(number)
        self.view = View(f"boot-{number}")
        settings.setdefault("port", 0)
        self.security = Security(certificates)
        self.network = Network(
            cast(Any, self.security),
            cast(Any, Identity(self.id)),
            NetworkSettings(**settings),
            cast(Any, self.view),
        )

    @property
    def address(self) -> str:
        return self.view.published["peer"]

    @property
    def host_port(self) -> tuple[str, int]:
        host, _, port = self.address.rpartition(":")
        return host, int(port)

    async def start(self, nursery: trio.Nursery) -> Node:
        await self.network.initialize(nursery)
        return self

    async def wait_session(self, other: Node) -> Any:
        return await until(lambda: self.network.session(other.id))

    async def wait_sessions(self, count: int) -> None:
        await until(lambda: self.network.statistics()["sessions"] == count)

    @property
    def seed(self) -> dict[str, Any]:
        """The statistics of the only seed."""
        (seed,) = self.network.statistics()["seeds"]
        return dict(seed)


MakeNode = Callable[..., Node]


@pytest.fixture
def make_node(certificates: Callable[[int], Certificates]) -> MakeNode:
    def make(number: int, **settings: Any) -> Node:
        return Node(number, certificates(number), **settings)

    return make
