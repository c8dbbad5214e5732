"""The transfers that a node knows: under way, interrupted, and the last that are over."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import trio

from novacron.dwcp.amst.errors import TransferUnknownError
from novacron.dwcp.amst.host import Host
from novacron.dwcp.amst.receiving import Incoming
from novacron.dwcp.amst.sending import Outgoing
from novacron.dwcp.amst.store import OutgoingRecord
from novacron.dwcp.amst.transfer import Transfer, count_states

KEPT: Final = 100
"""Transfers that are over and still told of, in memory."""
MIN_PREFIX: Final = 4
"""Digits of an id that name a transfer."""


class Roster:
    """*slots*: as many transfers are sent at once; the others wait."""

    def __init__(self, host: Host, slots: int) -> None:
        self._host = host
        self._slots = trio.CapacityLimiter(slots)
        self._transfers: dict[bytes, Transfer] = {}
        self._changes = trio.lowlevel.ParkingLot()

    def __iter__(self) -> Iterator[Transfer]:
        return iter(list(self._transfers.values()))

    def newest_first(self) -> list[Transfer]:
        return sorted(self, key=lambda found: found.created_at, reverse=True)

    def get(self, id: bytes) -> Transfer | None:
        return self._transfers.get(id)

    def incoming(self, peer: str, id: bytes) -> Incoming:
        """Raises TransferUnknownError: *peer* sends no such transfer to this node."""
        found = self._transfers.get(id)
        if not isinstance(found, Incoming) or found.peer != peer:
            raise TransferUnknownError("the receiver does not know the transfer")
        return found

    def outgoing(self, peer: str, id: bytes) -> Outgoing:
        """Raises TransferUnknownError: this node sends no such transfer to *peer*."""
        found = self._transfers.get(id)
        if not isinstance(found, Outgoing) or found.peer != peer:
            raise TransferUnknownError("the sender does not know the transfer")
        return found

    def find(self, text: str) -> Transfer:
        """By its id, or four or more digits of its beginning.

        Raises:
          TransferUnknownError: there is none, or it is not the only one.
        """
        beginning = text.lower()
        found = [
            transfer
            for transfer in self
            if len(beginning) >= MIN_PREFIX and transfer.id.hex().startswith(beginning)
        ]
        if len(found) != 1:
            raise TransferUnknownError(
                f"{text!r} may be any of {len(found)} transfers"
                if found
                else f"no transfer {text!r}",
                remedy=f"give {MIN_PREFIX} or more digits of the id of one of those that are listed",
            )
        return found[0]

    def add(self, transfer: Transfer) -> None:
        """In place of one of the same id that failed, if there is one."""
        self._transfers[transfer.id] = transfer
        self.changed()

    def remove(self, transfer: Transfer) -> None:
        if self._transfers.get(transfer.id) is transfer:
            del self._transfers[transfer.id]
        self.changed()

    async def launch_new(self, record: OutgoingRecord) -> Outgoing:
        """Send what *record* says, or go on with what an equal one began and did not finish.

        Raises:
          SourceInvalidError, SourceReadError, PathDeniedError: a path cannot be sent.
          OSError: the record cannot be kept.
        """
        for found in self.newest_first():
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
        self.launch(transfer)
        return transfer

    def launch(self, transfer: Outgoing) -> None:
        self.add(transfer)
        self._host.start(transfer.run, self._slots)

    def changed(self) -> None:
        """A transfer came, went, or changed its state."""
        self._changes.unpark_all()
        count_states(iter(self._transfers.values()))
        ended = [found for found in self._transfers.values() if found.ended]
        if len(ended) > KEPT:
            ended.sort(key=lambda found: found.finished_at or 0.0)
            for found in ended[: len(ended) - KEPT]:
                del self._transfers[found.id]

    async def wait_changed(self) -> None:
        await self._changes.park()
