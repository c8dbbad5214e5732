"""Asking for the names of files that were sent whole, many in one request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from novacron.dwcp.amst.asking import check
from novacron.dwcp.amst.errors import MessageError
from novacron.dwcp.amst.sources import Entry
from novacron.dwcp.amst.transfer_messages import (
    MAX_ENTRIES,
    Finish,
    Finished,
    FinishObject,
    Trouble,
)
from novacron.errors import NovaCronError

if TYPE_CHECKING:
    from novacron.dwcp.amst.sending import Outgoing

_ASKERS: Final = 4
"""Requests that are under way at once. While they are, others gather for the next."""
_SLOW_BYTES: Final = 64 << 20
"""From here on a file's name is asked for alone, since others would wait for its disk."""
_TIMEOUT: Final = 600.0
DISK_BPS: Final = 50_000_000
"""What a slow disk syncs or reads in a second."""


class _Waiting:
    """A file that waits for its name."""

    def __init__(self, entry: Entry, root: bytes) -> None:
        self.entry = entry
        self.root = root
        self.trouble: Trouble | None = None
        self.failure: NovaCronError | None = None
        self.done = trio.Event()


class Names:
    def __init__(self, transfer: Outgoing) -> None:
        self._transfer = transfer
        self._gathered: list[_Waiting] = []
        self._askers = 0
        self._moved_on = trio.lowlevel.ParkingLot()

    async def ask(self, entry: Entry, root: bytes) -> Trouble | None:
        """Have the receiver check *entry* against *root* and give it its name; what stood against
        that.

        Raises:
          NovaCronError: it cannot be asked.
        """
        waiting = _Waiting(entry, root)
        if entry.size >= _SLOW_BYTES:
            await self._request([waiting])
            return waiting.trouble
        self._gathered.append(waiting)
        # Those that are sent in this very moment come along.
        await trio.lowlevel.checkpoint()
        while not waiting.done.is_set():
            if self._askers >= _ASKERS or waiting not in self._gathered:
                await self._moved_on.park()
                continue
            self._askers += 1
            batch, self._gathered = self._gathered[:MAX_ENTRIES], self._gathered[MAX_ENTRIES:]
            try:
                await self._request(batch)
            except NovaCronError as exc:
                for each in batch:
                    each.failure = exc
                    each.done.set()
            finally:
                self._askers -= 1
                self._moved_on.unpark_all()
        if waiting.failure is not None:
            raise waiting.failure
        return waiting.trouble

    async def _request(self, batch: list[_Waiting]) -> None:
        transfer = self._transfer
        size = sum(waiting.entry.size for waiting in batch)
        answer = await transfer.host.asking.ask(
            transfer.peer,
            "amst.finish",
            Finish(
                transfer.id,
                [FinishObject(waiting.entry.position, waiting.root) for waiting in batch],
            ),
            Finished,
            within=_TIMEOUT + size / DISK_BPS,
        )
        check(answer.trouble, transfer.peer)
        troubles = {found.entry: found.trouble for found in answer.objects}
        for waiting in batch:
            if waiting.entry.position not in troubles:
                raise MessageError("the receiver did not answer for an entry")
            waiting.trouble = troubles[waiting.entry.position]
            waiting.done.set()
