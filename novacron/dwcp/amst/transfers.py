"""Transfers between this node and others, and byte streams: what programs of the node use.

Example::

    transfer = await transfers.send(
        SendRequest(node=other_id, paths=("/var/lib/vm/disk.img",), path="images/")
    )
    while not transfer.ended:
        view = transfer.view()
        print(f"{view.bytes_done} of {view.bytes_total}, {view.rate_bps:.0f} B/s")
        await transfer.wait_changed()
    await transfer.wait()  # raises what it failed with

Interruptions are not the caller's business: a transfer whose link or node went away waits, and goes
on from what the receiver has; it fails when that took longer than ``dwcp.amst.retry_for``, or when
trying again is of no use. One that this node sends goes on by itself after the node was restarted.
"""

from __future__ import annotations

import logging
import random as _random
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import trio

from novacron.boot.retry import RetryPolicy
from novacron.dwcp.amst.answering import Answering
from novacron.dwcp.amst.asking import Asking, Links, Sessions
from novacron.dwcp.amst.bodies import Bodies
from novacron.dwcp.amst.byte_streams import (
    DEFAULT_WINDOW,
    ByteStream,
    ByteStreams,
    StreamHandler,
)
from novacron.dwcp.amst.errors import (
    SourceInvalidError,
    TransferRefusedError,
)
from novacron.dwcp.amst.host import RETRY, Host, TransferSettings
from novacron.dwcp.amst.paths import Confinement
from novacron.dwcp.amst.pulling import Pulled
from novacron.dwcp.amst.receiving import Incoming
from novacron.dwcp.amst.roster import Roster
from novacron.dwcp.amst.sending import Outgoing, resolve
from novacron.dwcp.amst.store import (
    KEPT_ENDED,
    IncomingRecord,
    IncomingStore,
    OutgoingRecord,
    OutgoingStore,
)
from novacron.dwcp.amst.transfer import (
    PRIORITIES,
    ReceiveRequest,
    SendRequest,
    Transfer,
    TransferView,
)
from novacron.dwcp.amst.transfer_messages import (
    MAX_PATH_BYTES,
    MAX_PATHS,
)
from novacron.dwcp.amst.transport import PLAIN, Coding
from novacron.dwcp.hde import choice
from novacron.dwcp.hde.blocks.core import POLICIES, fault_of_tenant
from novacron.dwcp.hde.blocks.library import BlockLibrary
from novacron.errors import NetworkError

logger = logging.getLogger("novacron.dwcp.transfers")

_TICK: Final = 0.5
_SWEEP_EVERY: Final = 600.0
_STOP_TIMEOUT: Final = 10.0
"""Seconds to record what came. What is not recorded by then is sent again, no more."""


class Transfers:
    """The transfers of a node.

    Args:
      network: The node's network component, for sessions and requests.
      links: Where links are had.
      data: The node's data directory; state is kept in ``dwcp`` below.
      settings: ``dwcp.amst``.
      coding: How what is sent is encoded.
      bodies: How messages are; the package's dictionary alone unless given.
      random: In [0, 1); spreads retries.
      retry: When an interrupted transfer tries again.
      blocks: What received files hold; run and closed by this. None: nothing is deduplicated.
    """

    def __init__(
        self,
        network: Sessions,
        links: Links,
        data: Path,
        settings: TransferSettings,
        *,
        coding: Coding = PLAIN,
        bodies: Bodies | None = None,
        random: Callable[[], float] = _random.random,
        retry: RetryPolicy = RETRY,
        blocks: BlockLibrary | None = None,
    ) -> None:
        self._network = network
        self._settings = settings
        self._bodies = bodies or Bodies()
        self._own_directory = data / "transfers" if not settings.directories else None
        directories = settings.directories or (str(data / "transfers"),)
        self._host = Host(
            Asking(network, self._bodies),
            links,
            settings,
            Confinement([Path(directory) for directory in directories]),
            OutgoingStore(data / "dwcp" / "outgoing"),
            IncomingStore(data / "dwcp" / "incoming"),
            lambda: self._roster.changed(),
            random,
            retry,
            coding,
            blocks,
        )
        self._roster = Roster(self._host, settings.max_transfers)
        self._streams = ByteStreams(self._host)
        self._answering = Answering(self._host, self._roster, self._streams, self._bodies)
        self._scope: trio.CancelScope | None = None
        self._stopped = trio.Event()

    # Start and stop --------------------------------------------------------------------------

    async def start(self, nursery: trio.Nursery) -> None:
        """Take requests of other nodes, and go on with what an earlier life left unfinished.

        Raises:
          OSError: the data directory cannot be used.
        """
        outgoing, incoming = await trio.to_thread.run_sync(self._load)
        await nursery.start(self._run)
        self._host.start(self._bodies.run)
        for record in incoming:
            kind = Pulled if record.paths else Incoming
            found = kind(self._host, record, known=True)
            if record.finished_at is not None:
                found.state, found.why, found.remedy = record.state, record.why, record.remedy
                found.finished_at = record.finished_at
                found.close_before(TransferRefusedError(record.why, remedy=record.remedy))
            else:
                found.why = "the sender has not gone on with it yet"
                if isinstance(found, Pulled):
                    self._host.start(found.run)
            self._roster.add(found)
        for kept in outgoing:
            if kept.finished_at is not None:
                sent = Outgoing.ended_before(self._host, kept)
                self._roster.add(sent)
            else:
                self._roster.launch(Outgoing(self._host, kept))
        for method, handler in self._answering.methods().items():
            self._network.register_handler(method, handler)
        self._host.start(self._sweep)
        if self._host.blocks is not None:
            self._host.start(self._host.blocks.run)

    def _load(self) -> tuple[list[OutgoingRecord], list[IncomingRecord]]:
        if self._own_directory is not None:
            self._own_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self._host.outgoing.load(), self._host.incoming.load()

    async def _run(self, *, task_status: trio.TaskStatus[None]) -> None:
        self._stopped = trio.Event()
        try:
            async with trio.open_nursery() as nursery:
                self._scope = nursery.cancel_scope
                self._host.nursery = nursery
                nursery.start_soon(self._tick)
                task_status.started()
        finally:
            self._host.nursery = None
            self._stopped.set()

    async def stop(self) -> None:
        """Record what came, and let go of everything. Nothing is lost but what is on its way; the
        links are not closed. Harmless when repeated."""
        for method in self._answering.methods():
            self._network.remove_handler(method)
        scope, self._scope = self._scope, None
        if scope is None:
            return
        with trio.move_on_after(_STOP_TIMEOUT, shield=True):
            async with trio.open_nursery() as nursery:
                for transfer in self._roster:
                    if isinstance(transfer, Incoming) and transfer.link is not None:
                        nursery.start_soon(transfer.suspend, "the node stops")
        scope.cancel()
        with trio.CancelScope(shield=True):
            await self._stopped.wait()
            if self._host.blocks is not None:
                await trio.to_thread.run_sync(self._host.blocks.close)
        for transfer in self._roster:
            if isinstance(transfer, Outgoing) and not transfer.ended:
                await transfer.save()

    # For programs ----------------------------------------------------------------------------

    async def send(self, request: SendRequest) -> Transfer:
        """Begin to send, or go on with what an equal request began and did not finish.

        Raises:
          SourceInvalidError, SourceReadError: a path cannot be sent.
          NotFoundError, InvalidError: there is no such node, or it is not named clearly.
        """
        if not request.paths or len(request.paths) > MAX_PATHS:
            raise SourceInvalidError(
                f"cannot send {len(request.paths)} paths", remedy=f"name one to {MAX_PATHS}"
            )
        _check_request(request)
        fault = choice.fault_of(request.codec)
        if fault:
            raise SourceInvalidError(f"cannot encode with {request.codec[:32]!r}", why=fault)
        peer = await self._resolve_node(request.node)
        now = time.time()
        record = OutgoingRecord(
            id=secrets.token_hex(16),
            peer=peer,
            paths=await trio.to_thread.run_sync(resolve, request.paths),
            path=request.path,
            priority=request.priority,
            limit_bps=request.limit_bps,
            overwrite=request.overwrite,
            on_change=request.on_change,
            recursive=request.recursive,
            chunk_bytes=self._settings.chunk_bytes,
            created_at=now,
            confined=not request.anywhere,
            codec=request.codec,
            deadline_at=now + request.deadline_seconds if request.deadline_seconds else None,
            tenant=self.tenant_of(request.tenant),
            dedup=request.dedup,
        )
        return await self._roster.launch_new(record)

    async def receive(self, request: ReceiveRequest) -> Transfer:
        """Have another node send, or go on with what an equal request began and did not finish.

        Raises:
          PathDeniedError: the path is outside of the directories that transfers may write to.
          NotFoundError, InvalidError: there is no such node, or it is not named clearly.
        """
        if not request.paths or len(request.paths) > MAX_PATHS:
            raise SourceInvalidError(
                f"cannot receive {len(request.paths)} paths", remedy=f"name one to {MAX_PATHS}"
            )
        _check_request(request)
        peer = await self._resolve_node(request.node)
        root = ""
        path = request.path
        if not self._host.confinement.contains(path):
            if not request.anywhere or not path.startswith("/"):
                # Raises with the reason.
                await trio.to_thread.run_sync(self._open_and_close, path)
            root = await trio.to_thread.run_sync(_existing_directory, path)
        now = time.time()
        record = IncomingRecord(
            id=secrets.token_hex(16),
            peer=peer,
            path=path,
            into=path.endswith("/") or len(request.paths) > 1,
            overwrite=request.overwrite,
            on_change=request.on_change,
            priority=request.priority,
            created_at=now,
            root=root,
            paths=list(request.paths),
            recursive=request.recursive,
            limit_bps=request.limit_bps,
            deadline_at=now + request.deadline_seconds if request.deadline_seconds else None,
            tenant=self.tenant_of(request.tenant),
            dedup=request.dedup,
        )
        known = False
        for found in self.transfers():
            if isinstance(found, Pulled) and found.record.same == record.same:
                if not found.ended:
                    return found
                if found.state == "failed":
                    # What came of it is still there.
                    known = True
                    record = record._replace(id=found.record.id, prefix=found.record.prefix)
                break
        pulled = Pulled(self._host, record, known=known)
        await trio.to_thread.run_sync(self._host.incoming.save, record)
        self._roster.add(pulled)
        self._host.start(pulled.run)
        return pulled

    def tenant_of(self, name: str) -> str:
        """Whose a transfer is that was asked for with *name*; empty where nothing is deduplicated and
        none was given."""
        return name or (self._host.blocks.settings.tenant if self._host.blocks is not None else "")

    @property
    def blocks(self) -> BlockLibrary | None:
        """What received files hold."""
        return self._host.blocks

    def _open_and_close(self, path: str) -> None:
        self._host.confinement.open_target(path, into=False).close()

    def find(self, id: str) -> Transfer:
        """By its id, or four or more digits of its beginning.

        Raises:
          TransferUnknownError: there is none, or it is not the only one.
        """
        return self._roster.find(id)

    def transfers(self) -> list[Transfer]:
        """Those under way and the last that are over; the newest first."""
        return self._roster.newest_first()

    def list(self) -> list[TransferView]:
        return [transfer.view() for transfer in self.transfers()]

    async def wait_changed(self) -> None:
        """Return when a transfer came, or changed its state."""
        await self._roster.wait_changed()

    def allows(self, path: str) -> bool:
        """Whether *path* lies in the directories of this node that transfers may use."""
        return self._host.confinement.contains(path)

    def absolute(self, path: str) -> str:
        """Where *path* of this node lies, going by its text."""
        return self._host.confinement.absolute(path)

    async def open_stream(
        self, node: str, service: str, *, window_bytes: int = DEFAULT_WINDOW
    ) -> ByteStream:
        """A byte stream to whatever serves *service* on *node*. The caller closes it.

        Args:
          window_bytes: What may be unread at the other end, in each direction; bounds the rate to
            this much in each round trip.

        Raises:
          TransferRefusedError: that node has no such service.
          NovaCronError: it cannot be reached.

        Example::

            async with await transfers.open_stream(node, "vm.migration") as stream:
                await stream.send_all(state)
                await stream.send_eof()
                answer = await stream.receive_some()
        """
        return await self._streams.open(await self._resolve_node(node), service, window_bytes)

    def serve_streams(self, service: str, handler: StreamHandler) -> None:
        """Let other nodes open byte streams for *service*: letters, digits, dots and dashes.

        Raises:
          ValueError: the name is taken, or is none.
        """
        self._streams.register(service, handler)

    def stop_streams(self, service: str) -> None:
        """No more of them; those that are open go on."""
        self._streams.remove(service)

    # Underneath ------------------------------------------------------------------------------

    async def _resolve_node(self, node: str) -> str:
        session = self._network.session(node)
        if session is not None:
            return session.node_id
        try:
            return (await self._network.reach(node)).node_id
        except NetworkError as exc:
            if exc.retryable and _is_node_id(node):
                return node  # it may be back before the transfer gives up
            raise

    async def _tick(self) -> None:
        while True:
            await trio.sleep(_TICK)
            for transfer in self._roster:
                if transfer.link is not None:
                    transfer.tick()

    async def _sweep(self) -> None:
        """Forget partial files that nobody continues, and records past the last hundred."""
        while True:
            for transfer in self._roster:
                if isinstance(transfer, Incoming) and transfer.link is None:
                    age = await trio.to_thread.run_sync(self._host.incoming.age, transfer.record.id)
                    if age > self._settings.keep_partial:
                        await transfer.sweep()
                        logger.info(
                            "partial files that nobody went on with are removed",
                            extra={"transfer": transfer.record.id, "peer": transfer.peer},
                        )
            records = sorted(
                (found.record for found in self._roster if isinstance(found, Outgoing)),
                key=lambda record: record.created_at,
            )
            if len(records) > KEPT_ENDED:
                await trio.to_thread.run_sync(self._host.outgoing.prune, records)
            await trio.sleep(_SWEEP_EVERY)


def _check_request(request: SendRequest | ReceiveRequest) -> None:
    priority, on_change, path = request.priority, request.on_change, request.path
    if request.tenant and (fault := fault_of_tenant(request.tenant)):
        raise SourceInvalidError("that is no name of a tenant", why=fault)
    if request.dedup and request.dedup not in POLICIES:
        raise SourceInvalidError(
            f"no way to deduplicate {request.dedup!r}",
            remedy=f"choose one of {', '.join(POLICIES)}",
        )
    if priority not in PRIORITIES:
        raise SourceInvalidError(
            f"no priority {priority!r}", remedy=f"choose one of {', '.join(PRIORITIES)}"
        )
    if on_change not in ("refuse", "restart"):
        raise SourceInvalidError(
            f"cannot {on_change!r} where a source changes", remedy="choose refuse or restart"
        )
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        size = MAX_PATH_BYTES + 1
    if not path or size > MAX_PATH_BYTES:
        raise SourceInvalidError(
            "the destination is no path",
            why=f"it is empty, longer than {MAX_PATH_BYTES} bytes or not UTF-8",
        )


def _existing_directory(path: str) -> str:
    """The nearest one above *path*."""
    found = Path(path).parent
    while not found.is_dir():
        found = found.parent
    return str(found)


def _is_node_id(text: str) -> bool:
    return len(text) == 36 and [len(part) for part in text.split("-")] == [8, 4, 4, 4, 12]


__all__ = [
    "ByteStream",
    "ReceiveRequest",
    "SendRequest",
    "Transfer",
    "TransferView",
    "Transfers",
]
