"""Whose turn it is to write: transactions one at a time, single statements side by side.

A transaction that has its turn meets no other writer of this process, so that it fails for none of
them. Single statements need no such care: each is whole by itself.
"""

from __future__ import annotations

import trio


class Turns:
    """First come, first served: a transaction that waits lets no statement overtake it."""

    def __init__(self) -> None:
        self._gate = trio.Semaphore(1, max_value=1)
        self._sharing = 0
        self._alone: trio.Event | None = None
        self.owner: trio.lowlevel.Task | None = None
        """The task whose transaction has the turn."""

    def share_nowait(self) -> bool:
        """Take a share if that needs no wait."""
        if self._gate.value == 0:
            return False
        self._sharing += 1
        return True

    async def share(self) -> None:
        """Wait for a share; :meth:`leave` gives it back."""
        await self._gate.acquire()
        self._sharing += 1
        self._gate.release()

    def leave(self) -> None:
        self._sharing -= 1
        if self._sharing == 0 and self._alone is not None:
            self._alone.set()

    async def take(self) -> None:
        """Wait until nobody else writes; :meth:`give_back` lets the next one."""
        await self._gate.acquire()
        try:
            while self._sharing:
                self._alone = trio.Event()
                await self._alone.wait()
        except BaseException:
            self._gate.release()
            raise
        finally:
            self._alone = None
        self.owner = trio.lowlevel.current_task()

    def give_back(self) -> None:
        self.owner = None
        self._gate.release()
