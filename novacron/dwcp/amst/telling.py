"""The sending end of deduplication: telling the receiver which blocks a file has."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from novacron.dwcp.amst.asking import ASK_TIMEOUT, check
from novacron.dwcp.amst.block_messages import (
    NO_SCHEME,
    AskDedup,
    Blocks,
    BlocksHeld,
    Dedup,
)
from novacron.dwcp.amst.errors import MessageError, SourceReadError
from novacron.dwcp.amst.naming import DISK_BPS
from novacron.dwcp.amst.runs import bitmap_bytes
from novacron.dwcp.amst.sources import Entry, SourceFile
from novacron.dwcp.hde.blocks.core import MAX_BLOCKS, SCHEME, Block, Tally, pack_places
from novacron.dwcp.hde.blocks.cutting import Checksums, blocks_of, take
from novacron.errors import NovaCronError

if TYPE_CHECKING:
    from novacron.dwcp.amst.sending import Outgoing

logger = logging.getLogger("novacron.dwcp.transfers")

_GIVE_UP_BYTES: Final = 1 << 30
"""Where nothing of so much of a file is held, the rest is not told of (policy auto): versions and
clones begin alike, and hashing a whole image in vain costs minutes."""
_STEP_BLOCKS: Final = 512
"""Cut in one go, so that a caller who was cancelled need not wait long."""


async def agree_on_dedup(transfer: Outgoing) -> str:
    """Tell the receiver whose files these are, and ask whether it looks for what it holds: the
    policy, ``never`` where it does not.

    Raises:
      NovaCronError: it cannot be asked.
    """
    host, record = transfer.host, transfer.record
    library = host.blocks
    if library is None:
        return "never"
    policy = record.dedup or library.settings.dedup
    # Where this node's operator does not want it, one that pulls cannot have it either.
    usable = library.cut is not None and policy != "never"
    # Between nodes of one host memory is faster than hashing, unless a version of it is there.
    near = host.asking.on_this_host(transfer.peer) and not record.overwrite
    if not usable or (policy == "auto" and near):
        policy = "never"
    if policy == "never" and not record.pulled and record.tenant == library.settings.tenant:
        return "never"  # there is nothing to tell
    answer = await host.asking.ask_newer(
        transfer.peer,
        "amst.dedup",
        AskDedup(
            transfer.id,
            record.tenant or library.settings.tenant,
            policy,
            SCHEME.number if usable else NO_SCHEME,
            library.settings.dedup_min_bytes,
        ),
        Dedup,
    )
    if answer is None:
        return "never"  # a node of an earlier version
    check(answer.trouble, transfer.peer)
    if answer.scheme == NO_SCHEME:
        return "never"
    if not usable or answer.scheme != SCHEME.number:
        raise MessageError("the receiver cuts files in a way that was not offered")
    return answer.policy


class Told:
    """What came of telling the receiver a file's blocks."""

    def __init__(self, entry: Entry, chunk_bytes: int) -> None:
        self.tally = Tally(entry.size, chunk_bytes)
        self.checksums = Checksums(entry.size, chunk_bytes)


async def tell_blocks(
    transfer: Outgoing, entry: Entry, chunk_bytes: int, file: SourceFile, *, patient: bool
) -> Told:
    """Args:
      patient: To the end, also where nothing is held.

    Raises:
      SourceReadError, SourceChangedError: the file cannot be read.
      NovaCronError: the receiver cannot be asked, or says why not.
    """
    library = transfer.host.blocks
    assert library is not None
    assert library.cut is not None
    told = Told(entry, chunk_bytes)
    cutter = _Cutter(
        library.threads,
        blocks_of(file.descriptor, entry.size, library.cut, checksums=told.checksums),
    )
    begin = 0
    # The receiver indexes what it is about to overwrite before it answers the first page.
    within = ASK_TIMEOUT + 2 * entry.size / DISK_BPS
    await cutter.read()
    while True:
        await transfer.wait_unpaused()
        page = cutter.page(file)
        last = len(page) < MAX_BLOCKS
        end = entry.size if last else sum(page[-1][:2])
        message = Blocks(
            transfer.id,
            entry.position,
            begin,
            end,
            pack_places(page, begin),
            b"".join(digest for _, _, digest in page),
            last,
        )
        answer = await cutter.read_while(
            partial(
                transfer.host.asking.ask,
                transfer.peer,
                "amst.blocks",
                message,
                BlocksHeld,
                within=within,
            ),
            more=not last,
        )
        check(answer.trouble, transfer.peer)
        if len(answer.held) != bitmap_bytes(len(page)):
            raise MessageError("the receiver answered for other blocks than it was told of")
        told.tally.add(page, answer.held)
        begin, within = end, ASK_TIMEOUT + MAX_BLOCKS * SCHEME.maximum / DISK_BPS
        if last:
            told.tally.finish(end)
            return told
        if not (patient or told.tally.hits or end < _GIVE_UP_BYTES):
            logger.info("the receiver holds nothing of %s", entry.path)
            return told


class _Cutter:
    """Cuts the next page while the receiver looks for the one before."""

    def __init__(self, limiter: trio.CapacityLimiter, blocks: Iterator[Block]) -> None:
        self._limiter = limiter
        self._blocks = blocks
        self._page: list[Block] = []
        self._failure: OSError | EOFError | None = None

    async def read(self) -> None:
        try:
            while len(self._page) < MAX_BLOCKS:
                count = min(_STEP_BLOCKS, MAX_BLOCKS - len(self._page))
                step = await trio.to_thread.run_sync(
                    take, self._blocks, count, limiter=self._limiter
                )
                self._page += step
                if len(step) < count:
                    return
        except (OSError, EOFError) as exc:
            self._failure = exc

    def page(self, file: SourceFile) -> list[Block]:
        """What was read.

        Raises:
          SourceChangedError, SourceReadError: it could not be.
        """
        if self._failure is not None:
            file.check_unchanged()  # one that was cut off changed, and that is the better reason
            raise SourceReadError(
                f"cannot read {file.path!r}", why=str(self._failure)
            ) from self._failure
        page, self._page = self._page, []
        return page

    async def read_while(
        self, ask: Callable[[], Awaitable[BlocksHeld]], *, more: bool
    ) -> BlocksHeld:
        answers: list[BlocksHeld] = []
        failures: list[NovaCronError] = []

        async def asking() -> None:
            try:
                answers.append(await ask())
            except NovaCronError as exc:
                failures.append(exc)

        async with trio.open_nursery() as nursery:
            if more:
                nursery.start_soon(self.read)
            await asking()
        for failure in failures:
            raise failure
        return answers[0]
