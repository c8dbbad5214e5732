"""AMST as a whole: the engine, the listener, the links and the transfers of a node."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

import trio

from novacron._native import hde
from novacron.config.schema import AcpSettings, AmstSettings, HdeSettings
from novacron.data_directory import DataDirectory
from novacron.dwcp.amst.address_book import AddressBook
from novacron.dwcp.amst.bodies import Bodies
from novacron.dwcp.amst.congestion import Congestion
from novacron.dwcp.amst.links import Links
from novacron.dwcp.amst.listener import DataListener, open_data_listener
from novacron.dwcp.amst.native import NativeEngine, NativeLink
from novacron.dwcp.amst.negotiation import V1, V3
from novacron.dwcp.amst.rdma import Rdma
from novacron.dwcp.amst.supervision import Supervisor
from novacron.dwcp.amst.transfers import Transfers
from novacron.dwcp.hde import choice
from novacron.dwcp.hde.blocks.cutting import find_cut
from novacron.dwcp.hde.blocks.library import BlockLibrary
from novacron.dwcp.hde.messages import MessageCodec
from novacron.environment.path import PathMeasure
from novacron.network import Network
from novacron.record import Record
from novacron.security import Security

if TYPE_CHECKING:
    from novacron.dwcp.amst.v1_connections import V1Connections


class Wanted(Record):
    v1_only: bool
    why: str
    """Why version 1 only, where that is not what the configuration asks for."""


class Amst:
    """Call :meth:`open_engine` unless only version 1 is wanted, then :meth:`open`; end with
    :meth:`aclose`, which copes with a half-opened one."""

    def __init__(
        self,
        *,
        security: Security,
        network: Network,
        node_id: str,
        directory: DataDirectory,
        settings: AmstSettings,
        encoding: HdeSettings,
        acp: AcpSettings,
        mode: str,
        mode_of: Callable[[str], str],
        path: Callable[[str], PathMeasure | None],
        listen_address: str,
        threads: int,
        wanted: Wanted,
    ) -> None:
        self._security = security
        self._network = network
        self._node_id = node_id
        self._directory = directory
        self._settings = settings
        self._encoding = encoding
        self._acp = acp
        self._mode = mode
        self._mode_of = mode_of
        self._listen_address = listen_address
        self._threads = threads
        self._wanted = wanted
        self._engine: NativeEngine | None = None
        self._listener: DataListener | None = None
        self._congestion = Congestion(
            settings.congestion, dctcp=acp.dctcp, path=path, mode_of=mode_of
        )
        self._rdma = Rdma(
            wanted=settings.rdma == "auto" and not wanted.v1_only, device=settings.rdma_device
        )
        self._links: Links | None = None
        self._nursery: trio.Nursery | None = None
        self._v1_connections: V1Connections | None = None
        self._transfers: Transfers | None = None
        self.listening = False
        self.address = ""
        self.port = 0

    @property
    def links(self) -> Links:
        assert self._links is not None
        return self._links

    @property
    def transfers(self) -> Transfers:
        assert self._transfers is not None
        return self._transfers

    def limit(self, bytes_per_second: int) -> None:
        if self._engine is not None:
            self._engine.limit(bytes_per_second)

    async def open_engine(self, nursery: trio.Nursery) -> None:
        """Raises NativeError: the extension or libcrypto cannot be used."""
        if not self._wanted.v1_only:
            self._engine = await NativeEngine.open(
                nursery,
                threads=self._threads,
                limit_bps=self._settings.limit_bps,
                encode_cpu=self._encoding.cpu,
            )
            # Beside the rest: drivers can take long, and links that come meanwhile use TCP.
            nursery.start_soon(self._rdma.run)

    async def open(self, nursery: trio.Nursery, *, again: int) -> None:
        """Raises what :func:`~novacron.dwcp.amst.listener.open_data_listener` does."""
        listener = self._listener = await open_data_listener(
            self._listen_address, self._settings.port, again=again
        )
        self.address, self.port = listener.address, listener.port
        if self._engine is not None:
            self._congestion.listen(listener.fileno())
        self._nursery = nursery
        links = self._links = Links(
            self._network,
            self._settings,
            mode=self._mode,
            node_id=self._node_id,
            engine=self._engine,
            congestion=self._congestion,
            book=AddressBook(self._directory.root / "dwcp" / "peers.json"),
            rdma=self._rdma,
            versions=self._versions(),
            codecs=self._codecs(),
            open_v1=self._keep_v1,
            mode_of=self._mode_of,
            acp=self._acp,
        )
        self._network.watch_expulsions(links.expel)
        await links.start(nursery, listener.port)
        cut, why = find_cut()
        blocks = BlockLibrary(self._directory.root / "dwcp" / "blocks", self._encoding, cut, why)
        self._transfers = Transfers(
            self._network,
            links,
            self._directory.root,
            self._settings,
            coding=choice.default(self._encoding),
            bodies=Bodies(
                MessageCodec(self._encoding.dictionary),
                keep=self._directory.root / "dwcp" / "messages"
                if self._encoding.keep_messages
                else None,
            ),
            blocks=blocks,
        )
        await nursery.start(self._serve, listener)
        await self._transfers.start(nursery)

    def _versions(self) -> tuple[int, ...]:
        if self._engine is None:
            return (V1,)
        return (V3,) if self._settings.protocol == "v3" else (V3, V1)

    def _codecs(self) -> tuple[str, ...]:
        """What this node can decode, whatever it sends."""
        return ("raw",) if self._engine is None else (*hde.available(), "delta")

    async def _v1(self) -> V1Connections:
        """Made when the first link of version 1 is: a node that has none does without its code."""
        if self._v1_connections is None:
            module = await trio.to_thread.run_sync(
                import_module, "novacron.dwcp.amst.v1_connections"
            )
            assert self._nursery is not None
            self._v1_connections = module.V1Connections(
                self._security.certificates, self._congestion, self._nursery
            )
        assert self._v1_connections is not None
        return self._v1_connections

    async def _keep_v1(self, *arguments: Any) -> Supervisor:
        return await (await self._v1()).keeper(*arguments)

    async def _accept_v1(self, connection: trio.socket.SocketType, address: Any) -> None:
        await (await self._v1()).accept(connection, address)

    def _find_native(self, link_id: bytes) -> NativeLink | None:
        """What the data listener may hand greetings of the engine to."""
        link = self.links.find(link_id)
        return link if isinstance(link, NativeLink) else None

    async def _serve(self, listener: DataListener, *, task_status: trio.TaskStatus[None]) -> None:
        self.listening = True
        try:
            await listener.run(
                find_link=self._find_native,
                serve_tls=self._accept_v1,
                prepare=self._congestion.apply,
                prepare_stream=self.links.accept,
                task_status=task_status,
            )
        finally:
            self.listening = False

    async def aclose(self) -> None:
        if self._listener is not None:
            self._listener.close()
        if self._transfers is not None:
            await self._transfers.stop()
        if self._links is not None:
            self._network.unwatch_expulsions(self._links.expel)
            await self._links.aclose()
        if self._engine is not None:
            await self._engine.aclose()
        await self._rdma.aclose()

    def _encryption(self, version: int) -> dict[str, str]:
        wanted = self._settings.encryption
        if wanted == "off" and version == V1:
            return {"wanted": wanted, "got": "on", "why": "protocol version 1 is TLS"}
        why = "with nodes that have it off as well" if wanted == "off" else ""
        return {"wanted": wanted, "got": wanted, "why": why}

    def statistics(self) -> dict[str, Any]:
        settings = self._settings
        got = max(self._versions())
        congestion = self._congestion.last
        return {
            "address": self.address,
            "protocol": {
                "wanted": settings.protocol,
                "got": f"v{got}",
                "why": self._wanted.why,
            },
            "encryption": self._encryption(got),
            "rdma": {
                "wanted": settings.rdma,
                "got": self._rdma.device or "off",
                "why": self._rdma.why,
            },
            "congestion": congestion._asdict() if congestion is not None else None,
            "blocks": self._transfers.blocks.statistics()
            if self._transfers is not None and self._transfers.blocks is not None
            else None,
            "links": self._links.statistics() if self._links is not None else [],
        }
