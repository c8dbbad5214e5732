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

import contextlib
import logging
import random as _random
import secrets
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import trio

from novacron.boot.retry import RetryPolicy
from novacron.dwcp.amst.asking import Asking, BusyError, Links, Sessions
from novacron.dwcp.amst.byte_streams import (
    DEFAULT_WINDOW,
    ByteStream,
    ByteStreams,
    StreamHandler,
)
from novacron.dwcp.amst.errors import (
    LinkLostError,
    SourceInvalidError,
    TransferRefusedError,
    TransferUnknownError,
)
from novacron.dwcp.amst.host import RETRY, Host, TransferSettings
from novacron.dwcp.amst.messages import Message
from novacron.dwcp.amst.paths import Confinement
from novacron.dwcp.amst.receiving import Incoming
from novacron.dwcp.amst.sending import Outgoing, resolve
from novacron.dwcp.amst.store import (
    KEPT_ENDED,
    IncomingRecord,
    IncomingStore,
    OutgoingRecord,
    OutgoingStore,
)
from novacron.dwcp.amst.transfer import (
    ENDED,
    PRIORITIES,
    ReceiveRequest,
    SendRequest,
    Transfer,
    TransferView,
    count_states,
)
from novacron.dwcp.amst.transfer_messages import (
    MAX_PATH_BYTES,
    MAX_PATHS,
    AskHave,
    Begin,
    Begun,
    Control,
    Drop,
    End,
    Entries,
    EntriesTaken,
    Finish,
    Finished,
    HavePage,
    OpenStream,
    Outcome,
    Pause,
    Pull,
    Start,
    Trouble,
    pack,
    unpack,
)
from novacron.errors import NetworkError, NovaCronError
from novacron.network.session import PeerSession

logger = logging.getLogger("novacron.dwcp.transfers")

KEPT: Final = 100
"""Transfers that are over and still told of, in memory."""
MIN_PREFIX: Final = 4
"""Digits of an id that name a transfer."""
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
      random: In [0, 1); spreads retries.
      retry: When an interrupted transfer tries again.
    """

    def __init__(
        self,
        network: Sessions,
        links: Links,
        data: Path,
        settings: TransferSettings,
        *,
        random: Callable[[], float] = _random.random,
        retry: RetryPolicy = RETRY,
    ) -> None:
        self._network = network
        self._settings = settings
        self._own_directory = data / "transfers" if not settings.directories else None
        directories = settings.directories or (str(data / "transfers"),)
        self._host = Host(
            Asking(network),
            links,
            settings,
            Confinement([Path(directory) for directory in directories]),
            OutgoingStore(data / "dwcp" / "outgoing"),
            IncomingStore(data / "dwcp" / "incoming"),
            self._changed,
            random,
            retry,
        )
        self._transfers: dict[bytes, Transfer] = {}
        self._streams = ByteStreams(self._host)
        self._slots = trio.CapacityLimiter(settings.max_transfers)
        self._changes = trio.lowlevel.ParkingLot()
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
        for record in incoming:
            found = Incoming(self._host, record, known=True)
            if record.finished_at is not None:
                found.state, found.why, found.remedy = record.state, record.why, record.remedy
                found.finished_at = record.finished_at
                found._error = TransferRefusedError(record.why, remedy=record.remedy)
                found._over.set()
            else:
                found.why = "the sender has not gone on with it yet"
                if record.paths:
                    self._host.start(found.run_pull)
            self._transfers[found.id] = found
        for kept in outgoing:
            if kept.finished_at is not None:
                sent = Outgoing.ended_before(self._host, kept)
                self._transfers[sent.id] = sent
            else:
                self._launch(Outgoing(self._host, kept))
        for method, handler in self._methods().items():
            self._network.register_handler(method, handler)
        self._host.start(self._sweep)

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
        for method in self._methods():
            self._network.remove_handler(method)
        scope, self._scope = self._scope, None
        if scope is None:
            return
        with trio.move_on_after(_STOP_TIMEOUT, shield=True):
            async with trio.open_nursery() as nursery:
                for transfer in self._transfers.values():
                    if isinstance(transfer, Incoming) and transfer.link is not None:
                        nursery.start_soon(transfer.suspend, "the node stops")
        scope.cancel()
        with trio.CancelScope(shield=True):
            await self._stopped.wait()
        for transfer in self._transfers.values():
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
        _check_request(request.priority, request.on_change, request.path)
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
            deadline_at=now + request.deadline_seconds if request.deadline_seconds else None,
        )
        return await self._launch_new(record)

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
        _check_request(request.priority, request.on_change, request.path)
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
        )
        incoming = self._find_same(record)
        if incoming is not None and not incoming.ended:
            return incoming
        if incoming is not None:
            record = record._replace(id=incoming.record.id)
            incoming = incoming.revive(record)
        else:
            incoming = Incoming(self._host, record, known=False)
        await trio.to_thread.run_sync(self._host.incoming.save, incoming.record)
        self._transfers[incoming.id] = incoming
        self._host.start(incoming.run_pull)
        self._changed()
        return incoming

    def _open_and_close(self, path: str) -> None:
        self._host.confinement.open_target(path, into=False).close()

    def _find_same(self, record: IncomingRecord) -> Incoming | None:
        for found in self._transfers.values():
            if (
                isinstance(found, Incoming)
                and found.state in ("waiting", "connecting", "moving", "paused", "failed")
                and (found.peer, found.record.paths, found.record.path)
                == (record.peer, record.paths, record.path)
            ):
                return found
        return None

    def find(self, id: str) -> Transfer:
        """By its id, or four or more digits of its beginning.

        Raises:
          TransferUnknownError: there is none, or it is not the only one.
        """
        text = id.lower()
        found = [
            transfer
            for transfer in self._transfers.values()
            if len(text) >= MIN_PREFIX and transfer.id.hex().startswith(text)
        ]
        if len(found) != 1:
            raise TransferUnknownError(
                f"no transfer {id!r}"
                if not found
                else f"{id!r} may be any of {len(found)} transfers",
                remedy=f"give {MIN_PREFIX} or more digits of the id of one of those that are listed",
            )
        return found[0]

    def transfers(self) -> list[Transfer]:
        """Those under way and the last that are over; the newest first."""
        return sorted(self._transfers.values(), key=lambda found: found.created_at, reverse=True)

    def list(self) -> list[TransferView]:
        return [transfer.view() for transfer in self.transfers()]

    async def wait_changed(self) -> None:
        """Return when a transfer came, or changed its state."""
        await self._changes.park()

    def allows(self, path: str) -> bool:
        """Whether *path* lies in the directories of this node that transfers may use."""
        return self._host.confinement.contains(path)

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

    async def _launch_new(self, record: OutgoingRecord) -> Outgoing:
        for found in self.transfers():
            if isinstance(found, Outgoing) and found.record.same == record.same:
                if not found.ended:
                    return found
                if found.state == "failed":
                    # The receiver has kept what came of it.
                    record = record._replace(id=found.record.id)
                break
        transfer = Outgoing(self._host, record)
        sources = await trio.to_thread.run_sync(transfer.open_sources)
        await trio.to_thread.run_sync(sources.close)
        await trio.to_thread.run_sync(self._host.outgoing.save, record)
        self._launch(transfer)
        return transfer

    def _launch(self, transfer: Outgoing) -> None:
        self._transfers[transfer.id] = transfer
        self._host.start(transfer.run, self._slots)
        self._changed()

    def _changed(self) -> None:
        self._changes.unpark_all()
        count_states(iter(self._transfers.values()))
        self._forget_old()

    def _forget_old(self) -> None:
        ended = [found for found in self._transfers.values() if found.ended]
        if len(ended) > KEPT:
            ended.sort(key=lambda found: found.finished_at or 0.0)
            for found in ended[: len(ended) - KEPT]:
                del self._transfers[found.id]

    async def _tick(self) -> None:
        while True:
            await trio.sleep(_TICK)
            for transfer in list(self._transfers.values()):
                if transfer.link is not None:
                    transfer.tick()

    async def _sweep(self) -> None:
        """Forget partial files that nobody continues, and records past the last hundred."""
        while True:
            for transfer in list(self._transfers.values()):
                if isinstance(transfer, Incoming) and transfer.link is None:
                    age = await trio.to_thread.run_sync(self._host.incoming.age, transfer.record.id)
                    if age > self._settings.keep_partial:
                        await transfer.sweep()
                        logger.info(
                            "partial files that nobody went on with are removed",
                            extra={"transfer": transfer.record.id, "peer": transfer.peer},
                        )
            records = sorted(
                (found.record for found in self._transfers.values() if isinstance(found, Outgoing)),
                key=lambda record: record.created_at,
            )
            if len(records) > KEPT_ENDED:
                await trio.to_thread.run_sync(self._host.outgoing.prune, records)
            await trio.sleep(_SWEEP_EVERY)

    # Requests of other nodes -----------------------------------------------------------------

    def _methods(self) -> dict[str, Callable[[PeerSession, bytes], Awaitable[bytes]]]:
        return {
            "amst.begin": self._answer(Begin, self._take_begin, _no_begin),
            "amst.entries": self._answer(
                Entries,
                lambda peer, message: self._incoming(peer, message.transfer).take_entries(message),
                lambda trouble: EntriesTaken(trouble, []),
            ),
            "amst.have": self._answer(
                AskHave,
                lambda peer, message: self._incoming(peer, message.transfer).have(message),
                lambda trouble: HavePage(trouble, b"", b"", 0),
            ),
            "amst.start": self._answer(
                Start,
                lambda peer, message: self._incoming(peer, message.transfer).start(message),
                Outcome,
            ),
            "amst.drop": self._answer(
                Drop,
                lambda peer, message: self._incoming(peer, message.transfer).drop(message),
                Outcome,
            ),
            "amst.finish": self._answer(
                Finish,
                lambda peer, message: self._incoming(peer, message.transfer).finish(message),
                lambda trouble: Finished(trouble, []),
            ),
            "amst.end": self._answer(
                End,
                lambda peer, message: self._incoming(peer, message.transfer).finish_transfer(
                    message
                ),
                Outcome,
            ),
            "amst.pause": self._answer(Pause, self._take_pause, Outcome),
            "amst.control": self._answer(Control, self._take_control, Outcome),
            "amst.pull": self._answer(Pull, self._take_pull, Outcome),
            "amst.stream": self._answer(OpenStream, self._take_stream, Outcome),
        }

    def _answer(
        self,
        kind: type[Any],
        serve: Callable[[str, Any], Awaitable[Message]],
        tell: Callable[[Trouble], Message],
    ) -> Callable[[PeerSession, bytes], Awaitable[bytes]]:
        async def handle(session: PeerSession, body: bytes) -> bytes:
            message = unpack(kind, body)

            async def work() -> Message:
                return await serve(session.node_id, message)

            try:
                answer = await self._host.shelter(work)
            except NovaCronError as exc:
                answer = tell(Trouble.of(exc))
            return pack(answer)

        return handle

    def _incoming(self, peer: str, id: bytes) -> Incoming:
        found = self._transfers.get(id)
        if not isinstance(found, Incoming) or found.peer != peer:
            raise TransferUnknownError("the receiver does not know the transfer")
        return found

    def _outgoing(self, peer: str, id: bytes) -> Outgoing:
        found = self._transfers.get(id)
        if not isinstance(found, Outgoing) or found.peer != peer:
            raise TransferUnknownError("the sender does not know the transfer")
        return found

    async def _take_begin(self, peer: str, message: Begin) -> Message:
        link = self._host.links.find(message.link)
        if link is None or link.peer != peer:
            raise LinkLostError(
                "the transfer cannot begin", why="its link has ended at the receiver"
            )
        incoming = self._admit(peer, message)
        try:
            return await incoming.begin(link, message)
        except NovaCronError as exc:
            if incoming.known or incoming.record.paths:
                if incoming.link is None:
                    incoming.change("waiting", str(exc))
            else:
                self._transfers.pop(incoming.id, None)
                with contextlib.suppress(OSError):
                    await trio.to_thread.run_sync(self._host.incoming.remove, incoming.record.id)
                self._changed()
            raise

    def _admit(self, peer: str, message: Begin) -> Incoming:
        found = self._transfers.get(message.transfer)
        if found is not None and (not isinstance(found, Incoming) or found.peer != peer):
            raise TransferRefusedError("the transfer's id is another one's")
        if message.expected is not None and (
            message.expected != message.transfer or found is None or not found.record.paths
        ):
            raise TransferRefusedError("this node has not asked for that")
        if found is not None and found.record.paths and message.expected is None:
            raise TransferRefusedError("the transfer's id is that of another, which was asked for")
        if found is None or (found.state == "failed" and not found.record.paths):
            running = sum(
                isinstance(each, Incoming) and each.state not in ("waiting", *ENDED)
                for each in self._transfers.values()
            )
            if running >= self._settings.max_transfers:
                raise BusyError(
                    "the receiver has as many transfers as it takes",
                    why=f"{running} are under way",
                    key="dwcp.amst.max_transfers",
                )
            record = IncomingRecord(
                id=message.transfer.hex(),
                peer=peer,
                path=message.path,
                into=message.into,
                overwrite=message.overwrite,
                on_change=message.on_change,
                priority=PRIORITIES[min(message.priority, len(PRIORITIES) - 1)],
                created_at=time.time(),
            )
            found = (
                Incoming(self._host, record, known=False) if found is None else found.revive(record)
            )
            self._transfers[found.id] = found
            found.change("connecting")  # it counts from now on
        return found

    async def _take_pause(self, peer: str, message: Pause) -> Message:
        self._incoming(peer, message.transfer).take_pause(message.paused)
        return Outcome(None)

    async def _take_control(self, peer: str, message: Control) -> Message:
        outgoing = self._outgoing(peer, message.transfer)
        if message.action == "pause":
            self._host.start(outgoing.pause)
        elif message.action == "resume":
            self._host.start(outgoing.resume)
        elif message.action == "limit":
            self._host.start(outgoing.limit, message.limit_bps)
        else:
            # Not waited for: it ends by telling the node that asks.
            self._host.start(outgoing.cancel)
        return Outcome(None)

    async def _take_pull(self, peer: str, message: Pull) -> Message:
        found = self._transfers.get(message.transfer)
        if found is not None and (not isinstance(found, Outgoing) or found.peer != peer):
            raise TransferRefusedError("the transfer's id is another one's")
        if found is not None and found.leaving:
            await found.wait_ended()
        if found is not None and not (found.ended and message.again):
            if found.ended and found.state != "done":
                raise found._error or TransferRefusedError("the sender gave the transfer up")
            return Outcome(None)
        now = time.time()
        record = OutgoingRecord(
            id=message.transfer.hex(),
            peer=peer,
            paths=list(message.paths),
            path="",
            priority=PRIORITIES[min(message.priority, len(PRIORITIES) - 1)],
            limit_bps=message.limit_bps,
            overwrite=False,
            on_change=message.on_change,
            recursive=message.recursive,
            chunk_bytes=self._settings.chunk_bytes,
            created_at=now,
            pulled=True,
            deadline_at=now + message.deadline_ms / 1000 if message.deadline_ms else None,
        )
        await self._launch_new(record)
        return Outcome(None)

    async def _take_stream(self, peer: str, message: OpenStream) -> Message:
        link = self._host.links.find(message.link)
        if link is None or link.peer != peer:
            raise LinkLostError("the byte stream cannot begin", why="its link has ended here")
        return await self._streams.take(link, message)


def _no_begin(trouble: Trouble) -> Begun:
    return Begun(trouble, "crc32", False, "")


def _check_request(priority: str, on_change: str, path: str) -> None:
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
