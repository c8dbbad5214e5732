"""Keeps a Redis cache connected: connects, beats, notices the end, connects again."""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio

from novacron.cache.redis import RedisCache
from novacron.cache.redis_errors import read_only
from novacron.cache.redis_link import Link, Target, now
from novacron.cache.store import (
    CacheAwayError,
    CacheFrozenError,
    CacheFullError,
    CacheRefusedError,
    CacheUnavailableError,
)

BEATS: Final = 4
"""Calls in the time after which memory is not asked any more without one. Two may be late."""
FIRST_DELAY: Final = 0.05
LONGEST_DELAY: Final = 1.0
"""Seconds between attempts to connect again. Short, because what other nodes may read after an
outage hangs on each node's having paid what it owes; see :mod:`novacron.cache.redis`."""

_log = logging.getLogger("novacron.cache")


class Keeper:
    """One run keeps *cache* connected to what *target* says at each attempt.

    *settle*: others have used Redis while this node could not; read only after a while.
    """

    def __init__(
        self,
        cache: RedisCache,
        target: Callable[[], Awaitable[Target]],
        *,
        database: int = 0,
        connect_timeout: float = 1.0,
        settle: bool = False,
    ) -> None:
        self._cache = cache
        self._target = target
        self._database = database
        self._connect_timeout = connect_timeout
        self._settle = settle
        self._interval = cache.max_staleness / BEATS
        self._silence = max(cache.max_staleness, 2 * cache.timeout)
        """Seconds without an answer after which a connection is given up."""
        self._former: tuple[int, str] | None = None
        self.error: CacheUnavailableError | None = None
        """Why there is no connection now, or none that answers."""
        self.connections = 0

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Connect, say so, and keep connected until cancelled.

        Raises:
          CacheUnavailableError: the first connection could not be made.
        """
        failure: CacheUnavailableError | None = None
        async with trio.open_nursery() as nursery:
            try:
                link = await self._connect(nursery)
            except CacheUnavailableError as error:
                # Raised from outside of the nursery, which would wrap it.
                failure = error
                nursery.cancel_scope.cancel()
            else:
                await self._keep(link, nursery, task_status)
        if failure is not None:
            raise failure

    async def _keep(
        self, link: Link, nursery: trio.Nursery, task_status: trio.TaskStatus[None]
    ) -> None:
        reading_from = now()
        if self._settle:
            reading_from += self._cache.max_staleness
        else:
            self._cache.begin_reading(link)
        task_status.started()
        while True:
            try:
                await self._stay(link, reading_from)
            finally:
                self._cache.detach(link)
                link.close()
            self.error = link.error
            _log.warning("The cache goes on in memory: %s", link.error)
            link = await self._connect_again(nursery)
            reading_from = now() + self._cache.max_staleness
            _log.info("The cache is connected to Redis at %s again", link.target.address)

    async def _connect(self, nursery: trio.Nursery) -> Link:
        link = Link(
            await self._target(),
            set_up=self._cache.language.prepare(self._database, self._former),
            on_push=self._cache.pushed,
            on_proof=self._cache.proven,
        )
        await link.open(nursery, within=self._connect_timeout)
        self._former = (link.client_id, link.peer)
        try:
            await self._cache.use(link)
        except BaseException:
            link.close()
            raise
        self.error = None
        self.connections += 1
        return link

    async def _connect_again(self, nursery: trio.Nursery) -> Link:
        delay = FIRST_DELAY
        longest = min(LONGEST_DELAY, self._cache.max_staleness / 2)
        while True:
            try:
                return await self._connect(nursery)
            except CacheUnavailableError as error:
                self.error = error
            # A cluster's nodes lose a server at the same moment; they need not all come back at one.
            await trio.sleep(delay * random.uniform(0.5, 1.0))
            delay = min(delay * 2, longest)

    async def _stay(self, link: Link, reading_from: float) -> None:
        """Beat until *link* is lost."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._beats, link, reading_from)
            await link.closed.wait()
            nursery.cancel_scope.cancel()

    async def _beats(self, link: Link, reading_from: float) -> None:
        while True:
            if now() >= reading_from:
                self._cache.begin_reading(link)
            await trio.sleep(self._interval)
            try:
                await self._beat(link)
                if not self._cache.uses(link):
                    # It was slow, and what was changed meanwhile is owed.
                    reading_from = now() + self._cache.max_staleness
                    await self._cache.use(link)
                    self.error = None
                elif self._cache.debts:
                    await self._cache.debts.pay(link)
            except CacheAwayError as error:
                self._late(link, error)
            except (CacheFrozenError, CacheFullError) as error:
                # What is owed is owed on, and the connection stands.
                self._cache.trouble = error
                if not self._cache.uses(link):
                    if self.error is None:
                        _log.warning("The cache goes on in memory for a while: %s", error)
                    self.error = error
            except CacheRefusedError as error:
                self._cache.trouble = error
            except CacheUnavailableError:
                return  # the link is closed

    async def _beat(self, link: Link) -> None:
        """One call that is answered, or the end of *link*."""
        try:
            answers = await link.calls((b"ROLE",), within=self._cache.timeout)
        except CacheAwayError as error:
            self._late(link, error)
            try:
                answers = await link.calls((b"ROLE",), within=self._silence)
            except CacheAwayError as silence:
                link.close(silence)
                raise
        role: Any = answers[0]
        if role[0] != b"master":
            # Demoted: it says nothing of what is changed at the new primary.
            link.close(read_only(link.target.address))
            return
        # Apart: a key that something else spoils must not keep the rest from being said.
        try:
            answers = await link.calls(*self._cache.beat(), within=self._cache.timeout)
            self._cache.beaten(link, answers[0])
        except (CacheFrozenError, CacheFullError, CacheRefusedError) as error:
            self._cache.trouble = error
        else:
            if isinstance(self._cache.trouble, CacheRefusedError):
                self._cache.trouble = None

    def _late(self, link: Link, error: CacheUnavailableError) -> None:
        if self._cache.uses(link):
            _log.warning("The cache goes on in memory for a while: %s", error)
        self.error = error
        self._cache.detach(link)
