"""The bodies of requests about transfers, encoded with a dictionary once a peer said which it holds.

Nobody waits for that: what is said to a peer first goes as it is, and asks it beside. The agreement
lasts as long as the session.
"""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Final
from weakref import WeakKeyDictionary

import trio

from novacron.dwcp.amst.errors import MessageError
from novacron.dwcp.amst.messages import (
    Check,
    Message,
    binary,
    from_wire,
    integer,
    list_of,
    nested,
    pack,
    unpack,
)
from novacron.dwcp.hde.messages import MessageCodec, is_encoded
from novacron.errors import NetworkError
from novacron.network.session import PeerSession
from novacron.observe import Counter

logger = logging.getLogger("novacron.dwcp.hde")

DICTIONARIES: Final = "amst.dictionaries"
MAX_HELD: Final = 64
KEPT_MESSAGES: Final = 1024
KEPT_BYTES: Final = 16 * 1024
"""Of a message that is kept. In a longer one nearly everything is checksums."""
_TIMEOUT: Final = 30.0
_ASK_AGAIN: Final = 60.0
_QUEUED: Final = 64
"""Sessions to be asked and messages to be kept that wait; past it they are left out."""

MESSAGE_BYTES: Final = Counter(
    "novacron_dwcp_message_bytes_total",
    "Bytes of requests about transfers and of their answers, before encoding.",
    ("direction",),
)
SAVED_BYTES: Final = Counter(
    "novacron_dwcp_message_saved_bytes_total",
    "Bytes of those that the dictionary saved.",
    ("direction",),
)


class Held(Message):
    checks: ClassVar[Mapping[str, Check]] = {"id": integer(1, 0xFFFF), "digest": binary(32)}
    id: int
    digest: bytes


class DictionariesAsk(Message):
    """The dictionaries that the asking node holds."""

    checks: ClassVar[Mapping[str, Check]] = {"held": list_of(nested(Held), MAX_HELD)}
    held: list[Held]


class DictionariesAnswer(Message):
    """``dictionary``: the one both use from now on; 0: none."""

    checks: ClassVar[Mapping[str, Check]] = {"dictionary": integer(0, 0xFFFF)}
    dictionary: int


class Bodies:
    """Args:
    codec: With the dictionaries of this node; loaded when the first peer is met.
    keep: Directory to keep messages in, for training; None: they are not kept.
    """

    def __init__(self, codec: MessageCodec | None = None, keep: Path | None = None) -> None:
        self.codec = codec if codec is not None else MessageCodec()
        self._keep = keep
        self._names = itertools.cycle(range(KEPT_MESSAGES))
        self._agreed: WeakKeyDictionary[PeerSession, int] = WeakKeyDictionary()
        self._send, self._receive = trio.open_memory_channel[PeerSession | bytes](_QUEUED)
        self._loading = trio.Lock()

    async def run(self) -> None:
        """Ask peers which dictionaries they hold, and keep messages, until cancelled."""
        if self.codec.retrained is not None:
            # Its operator is to read of a damaged one in the log of the boot, not of a transfer.
            await self._load()
        async with trio.open_nursery() as nursery:
            async for item in self._receive:
                if isinstance(item, bytes):
                    await self._write(item)
                else:
                    # One that is slow to answer holds up no other; there are as many as sessions.
                    nursery.start_soon(self._ask, item)

    async def _load(self) -> None:
        async with self._loading:
            if not self.codec.loaded:
                await trio.to_thread.run_sync(self.codec.load)
                for fault in self.codec.faults:
                    logger.warning("%s", fault)

    # Agreeing --------------------------------------------------------------------------------

    async def _ask(self, session: PeerSession) -> None:
        await self._load()
        held = [Held(one.id, one.digest) for one in self.codec.dictionaries]
        if not held:
            return
        try:
            body = await session.request(DICTIONARIES, pack(DictionariesAsk(held)), within=_TIMEOUT)
            chosen = unpack(DictionariesAnswer, body).dictionary
            if chosen and chosen not in {one.id for one in held}:
                raise MessageError("a peer chose a dictionary that this node does not hold")
        except (NetworkError, MessageError) as exc:
            # An older node has no such request, and one whose DWCP is not up has none yet.
            logger.debug("no dictionary was agreed on: %s", exc, extra={"peer": session.node_id})
            await trio.sleep(_ASK_AGAIN)
            if not session.ended.is_set() and self._agreed.get(session) == 0:
                del self._agreed[session]
            return
        self._agreed[session] = chosen

    async def take_ask(self, session: PeerSession, body: bytes) -> bytes:
        """The handler of :data:`DICTIONARIES`."""
        asked = unpack(DictionariesAsk, body)
        await self._load()
        held = {one.id: one.digest for one in (from_wire(Held, each) for each in asked.held)}
        chosen = self._agreed[session] = self.codec.common(held)
        return pack(DictionariesAnswer(chosen))

    # Bodies ----------------------------------------------------------------------------------

    def encode(self, session: PeerSession, message: bytes) -> bytes:
        """*message* as *session*'s peer can read it."""
        agreed = self._agreed.get(session)
        if agreed is None:
            self._agreed[session] = 0
            self._queue(session)
        body = self.codec.encode(message, agreed or 0)
        self._count("sent", message, body)
        return body

    async def decode(self, body: bytes) -> bytes:
        """Raises:
        CodedMessageError: it is not what it says it is."""
        if is_encoded(body) and not self.codec.loaded:
            # Sessions outlive this component: it was restarted, and the peer goes on as agreed.
            await self._load()
        message = self.codec.decode(body)
        self._count("received", message, body)
        return message

    def _count(self, direction: str, message: bytes, body: bytes) -> None:
        MESSAGE_BYTES.inc(direction, by=len(message))
        SAVED_BYTES.inc(direction, by=len(message) - len(body))
        if self._keep is not None and len(message) <= KEPT_BYTES:
            self._queue(message)

    def _queue(self, item: PeerSession | bytes) -> None:
        try:
            self._send.send_nowait(item)
        except trio.WouldBlock:
            if not isinstance(item, bytes):
                self._agreed.pop(item, None)  # with the next message, then

    async def _write(self, message: bytes) -> None:
        assert self._keep is not None
        try:
            await trio.to_thread.run_sync(_keep, self._keep, next(self._names), message)
        except OSError as exc:
            logger.warning("messages are no longer kept: %s", exc.strerror)
            self._keep = None

    def statistics(self) -> dict[str, Any]:
        return {
            "dictionaries": [one.id for one in self.codec.dictionaries],
            "peers": {session.node_id: id for session, id in self._agreed.items()},
            "why": "; ".join(str(fault) for fault in self.codec.faults),
        }


def _keep(directory: Path, number: int, message: bytes) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = directory / f"{number:04}.msg"
    path.unlink(missing_ok=True)  # so that the mode holds whatever stood there
    with open(path, "xb", opener=_opener) as file:
        file.write(message)


def _opener(name: str, flags: int) -> int:
    return os.open(name, flags | os.O_CLOEXEC, 0o600)
