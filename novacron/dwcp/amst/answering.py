"""What other nodes ask of this one's transfers: checked, done, and answered.

A refusal is an answer like any other, with the error in it: the sender's operator is to read why,
and what to do, in the receiver's words.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio

from novacron.dwcp.amst.asking import BusyError
from novacron.dwcp.amst.block_messages import (
    NO_SCHEME,
    AskDedup,
    Blocks,
    BlocksHeld,
    Dedup,
)
from novacron.dwcp.amst.bodies import DICTIONARIES, Bodies
from novacron.dwcp.amst.byte_streams import ByteStreams
from novacron.dwcp.amst.errors import LinkLostError, TransferRefusedError
from novacron.dwcp.amst.host import Host
from novacron.dwcp.amst.messages import Message
from novacron.dwcp.amst.pulling import Pulled
from novacron.dwcp.amst.receiving import Incoming
from novacron.dwcp.amst.roster import Roster
from novacron.dwcp.amst.sending import Outgoing
from novacron.dwcp.amst.store import IncomingRecord, OutgoingRecord
from novacron.dwcp.amst.transfer import PRIORITIES
from novacron.dwcp.amst.transfer_messages import (
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
from novacron.errors import NovaCronError
from novacron.network.session import PeerSession, RequestHandler

MAX_INTERRUPTED: Final = 1000
"""Transfers that wait for their senders to come back; each keeps a directory and a line in lists."""


class Answering:
    def __init__(self, host: Host, roster: Roster, streams: ByteStreams, bodies: Bodies) -> None:
        self._host = host
        self._bodies = bodies
        self._roster = roster
        self._streams = streams

    def methods(self) -> dict[str, RequestHandler]:
        """Handlers for :meth:`novacron.network.Network.register_handler`."""
        incoming = self._roster.incoming
        return {
            DICTIONARIES: self._bodies.take_ask,
            "amst.begin": self._answer(Begin, self._take_begin, _no_begin),
            "amst.entries": self._answer(
                Entries,
                lambda peer, message: incoming(peer, message.transfer).reception.take_entries(
                    message
                ),
                lambda trouble: EntriesTaken(trouble, []),
            ),
            "amst.dedup": self._answer(
                AskDedup,
                lambda peer, message: incoming(peer, message.transfer).reception.agree(message),
                lambda trouble: Dedup(trouble, "never", NO_SCHEME),
            ),
            "amst.blocks": self._answer(
                Blocks,
                lambda peer, message: incoming(peer, message.transfer).reception.take_blocks(
                    message
                ),
                lambda trouble: BlocksHeld(trouble, b""),
            ),
            "amst.have": self._answer(
                AskHave,
                lambda peer, message: incoming(peer, message.transfer).reception.have(message),
                lambda trouble: HavePage(trouble, b"", b"", 0),
            ),
            "amst.start": self._answer(
                Start,
                lambda peer, message: incoming(peer, message.transfer).reception.start(message),
                Outcome,
            ),
            "amst.drop": self._answer(
                Drop,
                lambda peer, message: incoming(peer, message.transfer).reception.drop(message),
                Outcome,
            ),
            "amst.finish": self._answer(
                Finish,
                lambda peer, message: incoming(peer, message.transfer).reception.finish(message),
                lambda trouble: Finished(trouble, []),
            ),
            "amst.end": self._answer(
                End,
                lambda peer, message: self._roster.incoming(peer, message.transfer).finish_transfer(
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
            message = unpack(kind, await self._bodies.decode(body))

            async def work() -> Message:
                return await serve(session.node_id, message)

            try:
                answer = await self._host.shelter(work)
            except NovaCronError as exc:
                answer = tell(Trouble.of(exc))
            return self._bodies.encode(session, pack(answer))

        return handle

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
            if incoming.known or isinstance(incoming, Pulled):
                if incoming.link is None:
                    incoming.change("waiting", str(exc))
            else:
                self._roster.remove(incoming)
                with contextlib.suppress(OSError):
                    await trio.to_thread.run_sync(self._host.incoming.remove, incoming.record.id)
            raise

    def _admit(self, peer: str, message: Begin) -> Incoming:
        found = self._roster.get(message.transfer)
        if found is not None and (not isinstance(found, Incoming) or found.peer != peer):
            raise TransferRefusedError("the transfer's id is another one's")
        if message.expected is None and isinstance(found, Pulled):
            raise TransferRefusedError("the transfer's id is that of another, which was asked for")
        if message.expected is not None:
            if not isinstance(found, Pulled) or message.expected != message.transfer:
                raise TransferRefusedError("this node has not asked for that")
            return found
        if found is not None and found.state != "failed":
            return found
        self._check_room()
        record = IncomingRecord(
            id=message.transfer.hex(),
            peer=peer,
            path=message.path,
            into=message.into,
            overwrite=message.overwrite,
            on_change=message.on_change,
            priority=PRIORITIES[min(message.priority, len(PRIORITIES) - 1)],
            created_at=time.time(),
            # Where it was put before it failed.
            prefix=found.record.prefix if found is not None else None,
        )
        incoming = Incoming(self._host, record, known=found is not None)
        self._roster.add(incoming)
        incoming.change("connecting")  # it counts from now on
        return incoming

    def _check_room(self) -> None:
        incoming = [each for each in self._roster if isinstance(each, Incoming) and not each.ended]
        running = sum(each.state != "waiting" for each in incoming)
        if running >= self._host.settings.max_transfers:
            raise BusyError(
                "the receiver has as many transfers as it takes",
                why=f"{running} are under way",
                key="dwcp.amst.max_transfers",
            )
        if len(incoming) >= MAX_INTERRUPTED:
            raise BusyError(
                "the receiver has as many interrupted transfers as it keeps",
                why=f"{len(incoming)} wait for their senders",
                remedy="cancel those there that nobody will go on with",
            )

    async def _take_pause(self, peer: str, message: Pause) -> Message:
        self._roster.incoming(peer, message.transfer).take_pause(message.paused)
        return Outcome(None)

    async def _take_control(self, peer: str, message: Control) -> Message:
        outgoing = self._roster.outgoing(peer, message.transfer)
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
        found = self._roster.get(message.transfer)
        if found is not None and (not isinstance(found, Outgoing) or found.peer != peer):
            raise TransferRefusedError("the transfer's id is another one's")
        if found is not None and found.leaving:
            await found.wait_ended()
        if found is not None and not (found.ended and message.again):
            if found.ended and found.state != "done":
                raise found.error or TransferRefusedError("the sender gave the transfer up")
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
            chunk_bytes=self._host.settings.chunk_bytes,
            created_at=now,
            pulled=True,
            deadline_at=now + message.deadline_ms / 1000 if message.deadline_ms else None,
        )
        await self._roster.launch_new(record)
        return Outcome(None)

    async def _take_stream(self, peer: str, message: OpenStream) -> Message:
        link = self._host.links.find(message.link)
        if link is None or link.peer != peer:
            raise LinkLostError("the byte stream cannot begin", why="its link has ended here")
        return await self._streams.take(link, message)


def _no_begin(trouble: Trouble) -> Begun:
    return Begun(trouble, "crc32", False, "")
