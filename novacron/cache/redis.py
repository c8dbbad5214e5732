"""The cache that the nodes of a cluster share: Redis, with this process's memory before it.

**The bound.** Once a change has been made in Redis, no node serves what it replaced for more than
*max_staleness* seconds, whatever happens to the server and to connections. Why that holds:

1. Memory holds what was *read* from Redis, over the connection on which Redis tells of changes, and
   nothing else. Reading is what makes the server remember to tell (``CLIENT TRACKING``; with
   publish/subscribe it tells everybody anyway). What this node writes itself is not kept in memory:
   a write ends the server's memory of who read the key, the writer's own included.
2. A change that Redis executes after the read is told on the same connection, behind the answer.
   Every read registers a :class:`_Watch` before it is sent; word of a change that arrives before
   the value is stored marks the watch, and the value is not stored. Word that arrives later finds
   the value and removes it. There is no order of the two in which it stays.
3. Redis answers in order. When a call sent at time *t* is answered, word of every change executed
   before the server came to that call has arrived and been acted on. So memory is at most as old as
   the newest answered call was when it was sent, and is asked for ``t + max_staleness`` at most.
   Calls are the proof, and a heartbeat makes some when there are none. No clock is compared
   with another machine's; the clock here goes on while the machine sleeps.
4. A connection that is lost, or that does not answer in time, takes memory with it (*doubt*). What is
   kept while there is no Redis to ask is this node's alone, and lives for *max_staleness* at most,
   counted from when its loader began.

**A server that was started anew, or a replica that was promoted,** may have keys as they were before a
change that was acknowledged. So a key names the process of the server that the others were written in;
no process has the name of another. Who connects and finds another name there removes everything before
it reads, and then sets the name.

**What was changed while Redis could not be told** (or without knowing whether it was) is *owed*: the
keys are remembered, and deleted in Redis before anything else once it answers. A node that comes back
from doubt does so, then goes on alone for another *max_staleness*, while its changes reach Redis
already. Other nodes pay what they owe meanwhile, so that nobody reads from Redis what somebody has
replaced during an outage. Until its node is back, a change made alone is seen by that node alone:
:attr:`RedisCache.shared` says whether changes reach the others now.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable
from typing import Any, Final

import trio

from novacron.cache.flights import Flight, Flights
from novacron.cache.memory import HITS, LOADS, MISSES, MemoryCache, too_large
from novacron.cache.redis_debts import Debts
from novacron.cache.redis_language import Language, Words
from novacron.cache.redis_link import Link, now
from novacron.cache.store import (
    CacheAwayError,
    CacheFrozenError,
    CacheFullError,
    CacheStatistics,
    CacheUnavailableError,
    Loader,
)
from novacron.cache.watches import Watch, Watches
from novacron.observe import Counter

ENGINE: Final = "redis"

LEASE_SECONDS: Final = 4.0
"""How long a lease outlives its last renewal, so that a late beat does not lose it."""
LOAD_WAIT: Final = 5.0
"""Seconds to wait for another node that loads the same value, before loading it here as well."""

CHANGES = Counter("novacron_cache_changes_total", "Keys that Redis said have changed.")
FAILURES = Counter(
    "novacron_cache_failures_total", "Calls to Redis that failed, by kind of failure.", ("kind",)
)
DOUBTS = Counter(
    "novacron_cache_doubts_total",
    "Times the memory was emptied because changes may not have been heard of.",
)


class RedisCache:
    """A :class:`~novacron.cache.store.CacheStore`; see the module's text for what it promises.

    It makes no connection: :class:`~novacron.cache.redis_keeper.Keeper` hands it one. Without one it
    keeps values for this node alone. No method raises because Redis fails: reads miss, changes are
    owed, loads load. *ttl*, *max_staleness* and *timeout* are seconds; *lifetimes* is the clock that
    entries in memory live by.
    """

    def __init__(
        self,
        language: Language,
        *,
        max_bytes: int,
        ttl: float,
        max_staleness: float,
        timeout: float,
        lifetimes: Callable[[], float] = now,
    ) -> None:
        self.language = language
        self.max_staleness = max_staleness
        self.timeout = timeout
        self.debts = Debts(language, timeout)
        self.trouble: CacheUnavailableError | None = None
        """Why Redis did not take the last value, although it answers."""
        self._max_bytes = max_bytes
        self._ttl = ttl
        self._memory = MemoryCache(max_bytes=max_bytes, ttl=ttl, clock=lifetimes)
        self._flights = Flights(max_staleness)
        self._watches = Watches()
        self._leases: dict[bytes, str] = {}
        self._link: Link | None = None
        """Where changes go; None: they are owed."""
        self._reading = False
        """Values come from Redis too, and memory holds nothing else: nothing is in doubt."""
        self._until = math.inf
        """When memory must not be asked any more, see 3. above. Alone, entries have an end each."""
        self._remote_hits = 0
        self._misses = 0
        self._sets = 0
        self._deletes = 0
        self._loads = 0
        self._load_failures = 0

    # The seam -------------------------------------------------------------------------------------

    def get_nowait(self, key: str) -> bytes | None:
        if now() < self._until:
            return self._memory.get_nowait(key)
        return None

    async def get(self, key: str) -> bytes | None:
        value = self.get_nowait(key)
        if value is None and self._reading and self._link is not None:
            value = await self._read(self._link, key)
        if value is None:
            self._misses += 1
        return value

    async def set(self, key: str, value: bytes, *, ttl: float | None = None) -> None:
        size = self._memory.size(key, value, ttl)
        if size > self._max_bytes:
            await self._change(key, self.language.delete(key))
            self._memory.keep(key, value, self._ttl)  # is counted as refused
            raise too_large(size, self._max_bytes)
        self._sets += 1
        seconds = self._ttl if ttl is None else ttl
        await self._change(key, self.language.write(key, value, seconds))
        if not self._reading:
            self._memory.keep(key, value, min(seconds, self.max_staleness))

    async def delete(self, key: str) -> bool:
        there = self._memory.forget(key)
        there = bool(await self._change(key, self.language.delete(key))) or there
        self._deletes += there
        return there

    async def get_or_load(self, key: str, loader: Loader, *, ttl: float | None = None) -> bytes:
        await trio.lowlevel.checkpoint()

        async def fill(flight: Flight) -> bytes:
            return await self._fill(key, loader, ttl, flight)

        return await self._flights.run(key, self.get_nowait, fill)

    async def clear(self) -> None:
        self._flights.clear()
        self._forget_all()
        link = self._link
        if link is None:
            self.debts.owe_everything()
            return
        try:
            await self.debts.clear(link)
        except CacheUnavailableError as error:
            self._failed(link, error)
            self.debts.owe_everything()
            if isinstance(error, CacheFrozenError):
                self.detach(link)
        except BaseException:
            self.debts.owe_everything()
            raise
        finally:
            self._forget_all()

    def statistics(self) -> CacheStatistics:
        """Entries, bytes and evictions are those of this process's memory."""
        memory = self._memory.statistics()
        return memory._replace(
            hits=memory.hits + self._remote_hits,
            misses=self._misses,
            sets=self._sets,
            deletes=self._deletes,
            loads=self._loads,
            load_failures=self._load_failures,
        )

    @property
    def shared(self) -> bool:
        """Whether what this node changes now reaches the other nodes at once."""
        return self._link is not None and not self.debts

    @property
    def reading(self) -> bool:
        """Whether this node sees the other nodes' values."""
        return self._reading

    # Reading --------------------------------------------------------------------------------------

    async def _read(self, link: Link, key: str) -> bytes | None:
        watch = self._watches.open(key)
        sent = now()
        try:
            value, left = await link.calls(*self.language.read(key), within=self.timeout)
            if not isinstance(value, bytes):
                MISSES.inc(ENGINE)
                return None
            return self._found(link, key, value, left, sent, watch)
        except CacheUnavailableError as error:
            self._failed(link, error)
            return None
        finally:
            self._watches.close(key, watch)

    def _found(
        self, link: Link, key: str, value: bytes, left: int, sent: float, watch: Watch
    ) -> bytes:
        """What a read brought; kept in memory unless it has changed since."""
        self._remote_hits += 1
        HITS.inc(ENGINE)
        if self._reading and self._link is link and not watch.changed:
            # The server counted from when it answered, which was after *sent*. A value without an
            # end (-1) was written by something else than a node; one that has ended (-2) is 0 s.
            seconds = (self._ttl if left == -1 else left / 1000) - (now() - sent)
            if seconds > 0:
                self._memory.keep(key, value, seconds)
        return value

    # Loading --------------------------------------------------------------------------------------

    async def _fill(self, key: str, loader: Loader, ttl: float | None, flight: Flight) -> bytes:
        token: bytes | None = None
        if self._reading:
            found, token = await self._find_or_claim(key)
            if found is not None:
                return found
        self._misses += 1
        self._loads += 1
        LOADS.inc(ENGINE)
        try:
            began = now()
            try:
                value = await loader()
                size = self._memory.size(key, value, ttl)
            except Exception:
                self._load_failures += 1
                raise
            if size > self._max_bytes:
                self._memory.keep(key, value, self._ttl)  # is counted as refused
            elif self._flights.current(key, flight):
                seconds = self._ttl if ttl is None else ttl
                if token is not None and self._link is not None:
                    await self._keep(self._link, key, value, seconds, token)
                    token = None
                left = min(seconds, self.max_staleness) - (now() - began)
                if not self._reading and self._flights.current(key, flight) and left > 0:
                    self._memory.keep(key, value, left)
            return value
        finally:
            if token is not None:
                self._release(self._link, key, token)

    async def _find_or_claim(self, key: str) -> tuple[bytes | None, bytes | None]:
        """The value, or the token of a lease to load it with, or neither: then what is loaded cannot
        be kept for others, because there is no asking Redis, or another node takes too long."""
        give_up = trio.current_time() + LOAD_WAIT
        asked = False
        while (link := self._link) is not None and self._reading:
            watch = self._watches.open(key)
            token = os.urandom(12)
            # A beat renews it from now on: the answer may be late.
            self._leases[token] = key
            answer: Any = None
            try:
                sent = now()
                answer = await link.call(
                    *self.language.claim(key, token, LEASE_SECONDS), within=self.timeout
                )
                if isinstance(answer, list):
                    return self._found(link, key, answer[0], answer[1], sent, watch), None
                if not asked:
                    asked = True
                    MISSES.inc(ENGINE)
                if answer == 1:
                    return None, token
                with trio.move_on_at(give_up) as patience:
                    await watch.wait()
                if patience.cancelled_caught:
                    break
            except CacheUnavailableError as error:
                self._failed(link, error)
                break
            finally:
                self._watches.close(key, watch)
                if answer is None:
                    # It may have been given all the same.
                    self._release(link, key, token)
                elif answer != 1:
                    del self._leases[token]
        return None, None

    async def _keep(self, link: Link, key: str, value: bytes, seconds: float, token: bytes) -> None:
        """Store for all what was loaded, unless the key has changed since."""
        try:
            await link.call(*self.language.keep(key, token, value, seconds), within=self.timeout)
            self.trouble = None
        except CacheUnavailableError as error:
            self._failed(link, error)
        finally:
            self._leases.pop(token, None)

    def _release(self, link: Link | None, key: str, token: bytes) -> None:
        """Let others load, whether or not the lease was ever given."""
        self._leases.pop(token, None)
        if link is not None:
            link.post(*self.language.release(key, token))

    def beat(self) -> list[Words]:
        """Commands for each beat; :meth:`beaten` takes the first one's answer. They keep the mark
        from being evicted, and the leases of loads under way."""
        renewals = [
            self.language.renew(key, token, LEASE_SECONDS) for token, key in self._leases.items()
        ]
        return [self.language.marked(), *renewals]

    def beaten(self, link: Link, marked: bytes | None) -> None:
        """Set the mark again where somebody removed all keys: what is there is of this process."""
        run = self.language.run_of(link.answers)
        if run and marked != run and self._link is link:
            link.post(*self.language.mark(run))

    # Changing -------------------------------------------------------------------------------------

    async def _change(self, key: str, words: Words) -> Any:
        """Forget *key* here and execute *words* in Redis; the answer, or None: it is owed."""
        self._forget(key)
        link = self._link
        if link is None:
            self.debts.owe(key)
            return None
        try:
            answer = await link.call(*words, within=self.timeout)
        except CacheUnavailableError as error:
            self._failed(link, error)
            if not isinstance(error, CacheFullError):
                # Full: what was there before is gone, see the script.
                self.debts.owe(key)
            if isinstance(error, CacheFrozenError):
                # It is still there. Who has replaced it must not read it; alone it does not.
                self.detach(link)
            return None
        except BaseException:
            # Cancelled: nobody knows whether it happened.
            self.debts.owe(key)
            raise
        self.trouble = None
        return answer

    # The connection, for the keeper ---------------------------------------------------------------

    async def use(self, link: Link) -> None:
        """Pay what is owed, then have changes go to *link*.

        Raises:
          CacheUnavailableError: it failed meanwhile.
        """
        marked, run = self.language.marked(), self.language.run_of(link.answers)
        if not run or link.answers[marked] != run:
            await self.debts.clear(link)
            with contextlib.suppress(CacheFullError, CacheFrozenError):
                # Without the mark whoever comes next clears it again.
                await link.call(*self.language.mark(run), within=self.timeout)
            link.answers[marked] = run
        await self.debts.pay(link)
        self.trouble = None
        self._link = link

    def uses(self, link: Link) -> bool:
        return self._link is link

    def begin_reading(self, link: Link) -> None:
        """Nothing is in doubt: read from Redis. Harmless unless *link* is in use."""
        if self._link is link and not self._reading:
            self._forget_all()
            self._reading = True
            # Empty, it holds nothing that has changed.
            self._until = now() + self.max_staleness

    def detach(self, link: Link) -> None:
        """Go on alone, if *link* is in use: it is lost, or does not answer in time."""
        if self._link is not link:
            return
        self._link = None
        if self._reading:
            DOUBTS.inc()
        self._reading = False
        self._forget_all()
        self._until = math.inf

    def proven(self, link: Link, sent: float) -> None:
        """A call that was sent then has been answered; see 3. above."""
        if self._link is link and self._reading:
            self._until = max(self._until, sent + self.max_staleness)

    def pushed(self, link: Link, message: list[Any]) -> None:
        """What Redis says has changed."""
        changes = self.language.changes(message)
        if changes is None:
            self._flights.clear()
            self._forget_all()
            return
        for change in changes:
            if change.value:
                CHANGES.inc()
                self._forget(change.key)
            else:
                self._watches.note(change.key)

    def _forget(self, key: str) -> None:
        self._flights.forget(key)
        self._memory.forget(key)
        self._watches.note(key)

    def _forget_all(self) -> None:
        self._memory.empty()
        self._watches.note_all()

    def _failed(self, link: Link, error: CacheUnavailableError) -> None:
        FAILURES.inc(error.code.rpartition(".")[2])
        if isinstance(error, CacheFullError | CacheFrozenError):
            self.trouble = error
        elif isinstance(error, CacheAwayError):
            # Not every caller has to wait in vain: those who come after this one do not ask.
            self.detach(link)
