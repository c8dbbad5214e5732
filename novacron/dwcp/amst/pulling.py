"""A transfer that this node asked another one for: it receives, and sees to it that the other sends."""

from __future__ import annotations

import time
from typing import Final

import trio

from novacron.boot.retry import Backoff
from novacron.dwcp.amst.asking import error_of, is_passing
from novacron.dwcp.amst.errors import DeadlineError
from novacron.dwcp.amst.host import Host
from novacron.dwcp.amst.receiving import Incoming
from novacron.dwcp.amst.store import IncomingRecord
from novacron.dwcp.amst.transfer import PRIORITIES
from novacron.dwcp.amst.transfer_messages import Outcome, Pull
from novacron.errors import NovaCronError

DEADLINE_GRACE: Final = 5.0
"""Seconds."""


class Pulled(Incoming):
    """Made by :class:`~novacron.dwcp.amst.transfers.Transfers`, which calls :meth:`run`."""

    def __init__(self, host: Host, record: IncomingRecord, *, known: bool) -> None:
        super().__init__(host, record, known=known)
        self._again = True

    async def run(self) -> None:
        """Ask the other node until it sends, and again where it ceased to."""
        record = self.record
        remaining = None if record.deadline_at is None else record.deadline_at - time.time()
        with trio.CancelScope() as scope:
            if remaining is not None:
                # The sender has the same deadline and tells when it has passed; this is for one
                # that is not there.
                scope.deadline = trio.current_time() + remaining + DEADLINE_GRACE
            try:
                await self._ask_until_over()
            except NovaCronError as exc:
                async with self._turn:
                    await self._suspend(record=True)
                    if not self.ended:
                        await self.fail(exc)
        if scope.cancelled_caught and not self.ended:
            async with self._turn:
                await self._suspend(record=True)
                await self.fail(
                    DeadlineError("the transfer was not done by its deadline", remedy="ask again")
                )

    async def _ask_until_over(self) -> None:
        backoff = Backoff(self._host.retry, self._host.random)
        interrupted_at: float | None = None
        while not self.ended:
            if self.link is not None:
                interrupted_at = None
                backoff.failures = 0
                await self._changes.park()
                continue
            now = trio.current_time()
            interrupted_at = now if interrupted_at is None else interrupted_at
            why = ""
            try:
                await self._ask()
            except NovaCronError as exc:
                if not is_passing(exc):
                    raise
                if now - interrupted_at > self._host.settings.retry_for:
                    raise
                why = str(exc)
            if self.link is None:
                self.change("waiting" if why else "connecting", why)
                with trio.move_on_after(backoff.next_delay(now)):
                    while self.link is None and not self.ended:
                        await self._changes.park()

    async def _ask(self) -> None:
        record = self.record
        left = 0 if record.deadline_at is None else max(0.001, record.deadline_at - time.time())
        answer = await self._host.asking.ask(
            self.peer,
            "amst.pull",
            Pull(
                self.id,
                list(record.paths),
                record.recursive,
                record.on_change,
                PRIORITIES.index(record.priority),
                record.limit_bps,
                int(left * 1000),
                self._again,
            ),
            Outcome,
        )
        if answer.trouble is not None:
            raise error_of(answer.trouble, self.peer)
        self._again = False
