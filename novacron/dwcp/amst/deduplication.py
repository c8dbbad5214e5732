"""The receiving end of deduplication: whose files arrive, and which of them may be here in part."""

from __future__ import annotations

import os

import trio

from novacron.dwcp.amst.arriving import Arriving
from novacron.dwcp.amst.block_messages import NO_SCHEME, AskDedup, Blocks, BlocksHeld, Dedup
from novacron.dwcp.amst.errors import MessageError
from novacron.dwcp.amst.filling import Filling
from novacron.dwcp.amst.host import Host
from novacron.dwcp.amst.transfer import Transfer
from novacron.dwcp.amst.transport import Link
from novacron.dwcp.hde.blocks import ownership
from novacron.dwcp.hde.blocks.core import SCHEME
from novacron.dwcp.hde.blocks.library import BlockLibrary
from novacron.errors import NovaCronError


class Deduplication:
    """Of one attempt. Until :meth:`agree` was called everything belongs to the default tenant, and
    nothing is looked for."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._library = host.blocks
        self._tenant = host.blocks.settings.tenant if host.blocks is not None else ""
        self._agreed = False
        self._min_bytes = 0
        self._stocked = False

    async def agree(self, message: AskDedup, *, tenant: str, policy: str) -> Dedup:
        """Args:
        tenant, policy: Of whoever asked for the transfer at this node; empty: nobody did, and the
          sender's are taken.
        """
        library = self._library
        policy = policy or message.policy
        if library is None:
            return Dedup(None, "never", NO_SCHEME)
        self._tenant = tenant or message.tenant
        self._agreed = library.usable and policy != "never" and message.scheme == SCHEME.number
        self._min_bytes = max(1, message.min_bytes, library.settings.dedup_min_bytes)
        if self._agreed:
            await trio.to_thread.run_sync(self._look_up, library, limiter=library.threads)
        return Dedup(None, policy, SCHEME.number if self._agreed else NO_SCHEME)

    def _look_up(self, library: BlockLibrary) -> None:
        with library.index_of(self._tenant) as index:
            self._stocked = index is not None and not index.empty

    def mark(self, arriving: Arriving) -> None:
        """In a thread: whose the file is, for those who overwrite it one day."""
        if self._library is not None and self._tenant != self._library.settings.tenant:
            ownership.mark(arriving.part.descriptor, self._tenant)

    # Of one file -----------------------------------------------------------------------------

    async def look(self, arriving: Arriving, link: Link) -> bool:
        """Whether the sender should tell its blocks, since some may be here. Then *arriving* has a
        filling."""
        library, entry = self._library, arriving.entry
        left = entry.size - arriving.held * entry.chunk_bytes
        if library is None or not self._agreed or left < self._min_bytes:
            return False
        old = await trio.to_thread.run_sync(
            self._open_old, library, arriving, limiter=library.threads
        )
        if old is None and not self._stocked:
            return False
        filling = Filling(arriving, library, self._tenant, old=old, partial="delta" in link.codecs)
        try:
            self._host.start(filling.prepare)
        except NovaCronError:
            if old is not None:
                os.close(old)
            raise
        arriving.filling = filling
        return True

    def _open_old(self, library: BlockLibrary, arriving: Arriving) -> int | None:
        from novacron.dwcp.hde.blocks.index import Stamp

        old = arriving.part.open_old()
        if old is None:
            return None
        indexed = False
        try:
            path = arriving.located = arriving.part.locate()
        except OSError:
            os.close(old)
            return None
        with library.index_of(self._tenant) as index:
            stamp = Stamp.of(os.fstat(old))
            indexed = index is not None and index.knows(os.fsencode(path), stamp)
        if ownership.is_of(old, self._tenant, default=library.settings.tenant, indexed=indexed):
            return old
        os.close(old)
        return None

    async def take(self, arriving: Arriving, message: Blocks) -> BlocksHeld:
        """Raises MessageError, TargetWriteError, LinkLostError."""
        filling = arriving.filling
        if filling is None or arriving.moving is not None:
            raise MessageError("a peer told of blocks that nobody asked for")
        return BlocksHeld(
            None,
            await filling.take(
                message.begin, message.end, message.places, message.digests, message.last
            ),
        )

    def finish(self, arriving: Arriving, transfer: Transfer) -> None:
        """The file has its name now."""
        if arriving.filling is not None:
            transfer.count_parts(arriving.filling.parts_bytes)
        if self._library is not None and arriving.located:
            self._library.offer(self._tenant, arriving.located, arriving.entry.size)
