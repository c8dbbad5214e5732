"""Comparing what the receiver has of a file with the source, before the rest of it is sent."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import TYPE_CHECKING

import trio

from novacron.dwcp.amst import runs
from novacron.dwcp.amst.asking import ASK_TIMEOUT, check
from novacron.dwcp.amst.chunks import batches, wrong_chunks
from novacron.dwcp.amst.errors import MessageError
from novacron.dwcp.amst.naming import DISK_BPS
from novacron.dwcp.amst.sources import Entry, SourceFile
from novacron.dwcp.amst.transfer_messages import (
    MAX_RUNS_BYTES,
    AskHave,
    HavePage,
    Outcome,
    Start,
)
from novacron.dwcp.amst.transport import Have, chunk_count
from novacron.dwcp.hde.blocks.cutting import Checksums
from novacron.record import Record

if TYPE_CHECKING:
    from novacron.dwcp.amst.sending import Outgoing


class Compared(Record):
    have: Have | None
    """What the receiver has and keeps."""
    told: bytes
    """Chunks that it said it has; those that turned out wrong are among them."""


async def compare_held(
    transfer: Outgoing,
    entry: Entry,
    chunk_bytes: int,
    file: SourceFile,
    known: Checksums | None = None,
) -> Compared:
    """Ask for the checksums of what the receiver has, compare them with the source's, and have it
    expect the rest.

    Args:
      known: Checksums of the source, from when it was read last; chunks that are not among them are
        read for this.

    Raises:
      NovaCronError: the receiver cannot be asked, or says why not.
      OSError: the source cannot be read.
    """
    host = transfer.host
    chunks = chunk_count(entry.size, chunk_bytes)
    bits = bytearray(runs.bitmap_bytes(chunks))
    leaves = array("I", bytes(4)) * chunks
    wrong: list[int] = []
    first = 0
    while True:
        page = await host.asking.ask(
            transfer.peer, "amst.have", AskHave(transfer.id, entry.position, first), HavePage
        )
        check(page.trouble, transfer.peer)
        try:
            found = list(runs.unpack_runs(page.runs, chunks))
            runs.place_leaves(page.leaves, found, leaves)
        except ValueError as exc:
            raise MessageError("the receiver told of no set of chunks", why=str(exc)) from exc
        unknown = found
        if known is not None:
            wrong += _differing(found, leaves, known)
            unknown = list(_without(found, known))
        for run in batches(unknown, chunk_bytes):
            wrong += await trio.to_thread.run_sync(
                wrong_chunks,
                file.descriptor,
                entry.size,
                chunk_bytes,
                run,
                leaves,
                limiter=host.checks,
            )
        for start, count in found:
            runs.set_run(bits, start, count)
        if not first < page.next < chunks:
            break
        first = page.next
    wrong.sort()
    told = bytes(bits)
    packed = runs.pack_runs(_runs_of_list(wrong))
    drop_all = len(packed) > MAX_RUNS_BYTES
    answer = await host.asking.ask(
        transfer.peer,
        "amst.start",
        Start(transfer.id, entry.position, drop_all, b"" if drop_all else packed),
        Outcome,
        within=ASK_TIMEOUT + entry.size / DISK_BPS,
    )
    check(answer.trouble, transfer.peer)
    if drop_all:
        return Compared(None, told)
    for index in wrong:
        runs.clear_run(bits, index, 1)
    return Compared(Have(bytes(bits), leaves), told)


def _differing(found: list[runs.Run], leaves: array[int], known: Checksums) -> list[int]:
    return [
        index
        for first, count in found
        for index in range(first, first + count)
        if runs.is_set(known.bits, index) and leaves[index] != known.leaves[index]
    ]


def _without(found: list[runs.Run], known: Checksums) -> Iterator[runs.Run]:
    for first, count in found:
        yield from runs.missing_runs(known.bits, first, count)


def _runs_of_list(indices: list[int]) -> Iterator[runs.Run]:
    """Of ascending numbers."""
    first = count = 0
    for index in indices:
        if count and index == first + count:
            count += 1
            continue
        if count:
            yield first, count
        first, count = index, 1
    if count:
        yield first, count
