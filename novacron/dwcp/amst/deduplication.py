"""The receiving end of deduplication: whose files arrive, and which of them may be here in part.

Which tenant a file belongs to is marked on the file itself, in an extended attribute, where it is not
the node's default one. Indexes keep tenants apart by their names; the mark keeps them apart also where
one overwrites what another has received, which is looked at without an index.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from typing import Final

import trio

from novacron.dwcp.amst.arriving import Arriving
from novacron.dwcp.amst.block_messages import NO_SCHEME, AskDedup, Blocks, BlocksHeld, Dedup
from novacron.dwcp.amst.errors import MessageError
from novacron.dwcp.amst.filling import Filling
from novacron.dwcp.amst.host import Host
from novacron.dwcp.amst.transfer import Transfer
from novacron.dwcp.amst.transport import Link
from novacron.dwcp.hde.blocks.core import SCHEME
from novacron.dwcp.hde.blocks.library import BlockLibrary
from novacron.errors import NovaCronError

_MARK: Final = "user.novacron.tenant"
_NO_MARKS: Final = frozenset({errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM})
"""What file systems without extended attributes answer."""


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
            with contextlib.suppress(OSError):
                os.setxattr(arriving.part.descriptor, _MARK, mark_of(self._tenant))

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
        old = arriving.part.open_old()
        if old is None:
            return None
        indexed = False
        with library.index_of(self._tenant) as index:
            path = os.fsencode(os.path.abspath(arriving.part.path))
            indexed = index is not None and index.has_path(path)
        if is_of(old, self._tenant, default=library.settings.tenant, indexed=indexed):
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
        if self._library is not None:
            self._library.offer(self._tenant, arriving.part.path, arriving.entry.size)


def mark_of(tenant: str) -> bytes:
    """What stands on a file of *tenant*: whoever reads it learns no name."""
    return hashlib.sha256(b"novacron tenant mark" + tenant.encode()).hexdigest()[:32].encode()


def is_of(descriptor: int, tenant: str, *, default: str, indexed: bool) -> bool:
    """Whether *tenant* may learn what is in a file that it overwrites.

    Args:
      default: Whose files without a mark are.
      indexed: It was indexed for *tenant*, which is what is left to go by where the file system
        takes no marks.
    """
    try:
        return os.getxattr(descriptor, _MARK) == mark_of(tenant)
    except OSError as exc:
        if exc.errno == errno.ENODATA:
            return tenant == default
        return exc.errno in _NO_MARKS and indexed
