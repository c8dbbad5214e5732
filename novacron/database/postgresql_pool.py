"""A bounded number of connections, and what is known of the server behind them.

While the server is away nobody waits for it: the first call that cannot connect says so, and from
then on every call fails at once, until the keeper, which goes on trying in the background, has found
the server again. A server that is there but silent (stopped, or behind a dead path) is noticed by
the keeper too: what has been under way for a while without a sign of life has it connect once more,
and if that fails, everything under way is given up.

Where several servers are named, one more task is the :class:`Lookout` for the others.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio

from novacron.database.metrics import WAITING
from novacron.database.postgresql_connection import Connection
from novacron.database.postgresql_dial import dial
from novacron.database.postgresql_errors import away
from novacron.database.postgresql_lookout import Lookout
from novacron.database.postgresql_mode import Mode
from novacron.database.postgresql_target import Endpoint, Target
from novacron.database.store import (
    MAX_WAITING,
    DatabaseAwayError,
    DatabaseCredentialsError,
    DatabaseLimitError,
    DatabaseStaleError,
    DatabaseUnavailableError,
)
from novacron.errors import DatabaseError, NovaCronError
from novacron.observe import Gauge

AcquireFunction = Callable[[], Awaitable[None]]

logger = logging.getLogger("novacron.database")

AWAY = Gauge("novacron_database_away", "1 while the database server is away, else 0.")
CONNECTIONS = Gauge("novacron_database_connections", "Connections to the database server.")

FIRST_DELAY, LONGEST_DELAY = 0.1, 5.0
"""Seconds between two attempts to find a server that is away; doubled each time. The longest is what
a node may be behind when the server is back; ten thousand nodes make two thousand attempts a second
of it, which a server that starts can bear."""
TICK = 0.5
"""Seconds between two looks at what is under way."""
SILENT_AFTER = 1.0
"""Seconds without a sign of life after which the keeper looks whether the server still answers.
Longer statements are rare, and the look costs them nothing."""
LOOK_AGAIN_AFTER = 10.0
"""Seconds after which a server that did answer is looked at again for the same statement."""
IDLE_SECONDS = 300.0
"""After which a connection above ``pool_min`` is closed."""


class Absence:
    """Since when the server is away, and why."""

    __slots__ = ("error", "since")

    def __init__(self, error: NovaCronError) -> None:
        self.error = error
        self.since = time.time()

    def describe(self) -> str:
        stamp = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(self.since))
        return f"PostgreSQL is away since {stamp}: {self.error}"


class Pool:
    """Connections to *target*. :meth:`keep` runs as long as the pool is used."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._free = trio.Semaphore(target.settings.pool_max, max_value=target.settings.pool_max)
        self._idle: list[Connection] = []
        self._used: set[Connection] = set()
        self._looked_at: dict[Connection, float] = {}
        self._waiters: set[trio.CancelScope] = set()
        self._preferred: Endpoint | None = None
        self._absence: Absence | None = None
        self._lost = trio.Event()
        self._scope = trio.CancelScope()
        self._keeping = False
        self._closed = False
        self._unused = trio.Event()
        self._returned = trio.lowlevel.ParkingLot()
        self._refusal: NovaCronError | None = None
        self._dial_after = 0.0
        """Trio's time before which that is not asked again."""
        self.waiting = 0
        """Calls that wait for a connection, or for their turn to write."""
        self.lookout = Lookout(target, self._in_use, self.adopt)
        AWAY.set(0.0)

    @property
    def absence(self) -> Absence | None:
        return self._absence

    @property
    def refusal(self) -> NovaCronError | None:
        """Why the server lets nobody else in, although what is open serves; None: it does."""
        return self._refusal

    @property
    def connections(self) -> int:
        return len(self._idle) + len(self._used)

    @property
    def server(self) -> str:
        """``host:port`` of the server in use, as far as it is known."""
        return (self._preferred or self.target.endpoints[0]).address

    def _in_use(self) -> Endpoint | None:
        return None if self._closed or self._absence is not None else self._preferred

    def check(self) -> None:
        """Raise what a call would fail with now."""
        if self._closed:
            raise closed_error()
        if self._absence is not None:
            raise self._error_of(self._absence)

    def adopt(self, connection: Connection) -> None:
        """Take over a connection that was opened elsewhere."""
        if self._closed:
            connection.close()
            return
        self._settle_on(connection)
        self._put(connection)

    # --- One connection --------------------------------------------------------------------------

    @asynccontextmanager
    async def connection(self, mode: Mode | None, deadline: float) -> AsyncIterator[Connection]:
        """A connection for the block, one that was last used for *mode* if there is one."""
        connection = await self.take(mode, deadline)
        try:
            yield connection
        finally:
            self.give_back(connection)

    async def take(self, mode: Mode | None, deadline: float) -> Connection:
        """A connection that looks alive; :meth:`give_back` returns it.

        Raises:
          DatabaseAwayError: the server is away; at once if that is known.
          DatabaseLimitError: none became free until *deadline* (Trio's clock), or too many wait.
          DatabaseError: as :func:`~novacron.database.postgresql_dial.dial`.
        """
        self.check()
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            self._free.acquire_nowait()
        except trio.WouldBlock:
            await self.wait(self._free.acquire, deadline, "database.postgresql.pool_max")
        try:
            self.check()
            connection = self._take_idle(mode) or await self._open_or_wait(mode, deadline)
        except BaseException:
            self._free.release()
            raise
        self._used.add(connection)
        return connection

    def give_back(self, connection: Connection) -> None:
        self._used.discard(connection)
        self._looked_at.pop(connection, None)
        if connection.usable and not self._closed and self._absence is None:
            self._put(connection)
        else:
            connection.close()
            # Those who wait for one in use may have to open one after all.
            self._returned.unpark_all()
        if self._closed and not self._used:
            self._unused.set()
        self._free.release()

    def _put(self, connection: Connection) -> None:
        connection.idle_since = trio.current_time()
        self._idle.append(connection)
        self._returned.unpark()

    def _take_idle(self, mode: Mode | None) -> Connection | None:
        idle = self._idle
        while idle:
            # The latest first: what is not needed becomes old.
            place = len(idle) - 1
            if idle[place].mode != mode:
                place = next((n for n, each in enumerate(idle) if each.mode == mode), place)
            connection = idle.pop(place)
            if connection.looks_alive():
                return connection
            connection.close()
        return None

    async def _open_or_wait(self, mode: Mode | None, deadline: float) -> Connection:
        """A new connection; where the server lets nobody else in, the next that comes free: it is
        full, or a password was changed there that is not changed here yet, and what is open serves."""
        while True:
            now = trio.current_time()
            if self._refusal is None or not self.connections or now >= self._dial_after:
                self._dial_after = now + TICK
                try:
                    connection = await self._open(deadline)
                except NovaCronError as error:
                    if not self._goes_on(error):
                        raise
                    self._refusal = error
                else:
                    return connection
            # Those who wait ask anew one at a time, now and then.
            with trio.move_on_at(min(deadline, self._dial_after)):
                await self.wait(self._returned.park, math.inf, "database.postgresql.pool_max")
            self.check()
            idle = self._take_idle(mode)
            if idle is not None:
                return idle
            if self._refusal is not None and trio.current_time() >= deadline:
                raise _again(self._refusal)

    def _goes_on(self, error: NovaCronError) -> bool:
        """Whether what is open serves although nothing more can be opened. Where all servers say that
        they take no changes, what is open is told so too, by its next change."""
        return bool(self.connections) and not isinstance(
            error, DatabaseAwayError | DatabaseStaleError | DatabaseLimitError
        )

    async def _open(self, deadline: float) -> Connection:
        with trio.CancelScope(deadline=deadline) as scope:
            try:
                connection = await dial(self.target, self._preferred)
            except DatabaseError as error:
                self._note_failure(error)
                raise
            except NovaCronError as error:
                # A secret cannot be read: callers know errors of the database only.
                self._note_failure(error)
                raise DatabaseCredentialsError(
                    error.what, why=error.why, remedy=error.remedy, key=error.key
                ) from error
            self._settle_on(connection)
            self._refusal = None
            if self._closed:
                connection.close()
                raise closed_error()
            return connection
        assert scope.cancelled_caught
        raise busy_error("a new connection was not open in time", "database.query_timeout")

    async def wait(self, acquire: AcquireFunction, deadline: float, key: str) -> None:
        """Wait for *acquire*, in a line of bounded length; at once over when the server is lost."""
        if self.waiting >= MAX_WAITING:
            raise busy_error(f"{MAX_WAITING} calls wait for a connection already", key)
        self.waiting += 1
        WAITING.set(self.waiting)
        seconds = deadline - trio.current_time()
        given_up = trio.CancelScope()
        self._waiters.add(given_up)
        acquired = False
        try:
            with given_up, trio.CancelScope(deadline=deadline):
                await acquire()
                acquired = True
        finally:
            self._waiters.discard(given_up)
            self.waiting -= 1
            WAITING.set(self.waiting)
        if not acquired:
            self.check()
            raise busy_error(f"no connection became free within {seconds:.3g} s", key)

    # --- The server ------------------------------------------------------------------------------

    def note_read_only(self, connection: Connection) -> None:
        """The server of *connection* takes no changes any more: its connections are of no use."""
        if self._preferred == connection.endpoint:
            self._preferred = None
        connection.close()
        for other in [each for each in self._idle if each.endpoint == connection.endpoint]:
            self._idle.remove(other)
            other.close()

    def _settle_on(self, connection: Connection) -> None:
        """What is under way on a server that this one has replaced is not to be acknowledged, should
        that one find its voice again."""
        self._preferred = connection.endpoint
        if connection.lineage is None:
            return
        for other in (*self._idle, *self._used):
            if other.lineage is not None and other.lineage.is_older(connection.lineage):
                other.close()

    def _note_failure(self, error: NovaCronError) -> None:
        if self._goes_on(error):
            if self._refusal is None:
                logger.warning(
                    "PostgreSQL lets nobody else in; the connections that are open go on",
                    extra={"server": self.server, "why": str(error)},
                )
            self._refusal = error
            self._dial_after = trio.current_time() + TICK
            return
        if self._absence is None and not self._closed:
            self._absence = Absence(error)
            self._refusal = None
            AWAY.set(1.0)
            logger.warning(
                "PostgreSQL is away; it is looked for in the background",
                extra={"server": self.server, "why": str(error)},
            )
            self._abandon()
            self._lost.set()

    def _abandon(self) -> None:
        """End everything that waits for the server."""
        for connection in (*self._idle, *self._used):
            connection.close()
        self._idle.clear()
        for scope in self._waiters:
            scope.cancel()

    def _error_of(self, absence: Absence) -> NovaCronError:
        error = absence.error
        stamp = time.strftime("%H:%M:%SZ", time.gmtime(absence.since))
        if isinstance(error, DatabaseError):
            return _again(error, f" (since {stamp})")
        return away(self.server, f"{error.what}: {error.why} (since {stamp})")

    # --- The keeper ------------------------------------------------------------------------------

    async def keep(self) -> None:
        """Look after the pool until it is closed. One task runs it."""
        with self._scope:
            async with trio.open_nursery() as nursery:
                if len(self.target.endpoints) > 1:
                    # Beside the other: a server that is silent must not keep it waiting.
                    nursery.start_soon(self.lookout.keep)
                await self._keep_server()
                nursery.cancel_scope.cancel()

    async def _keep_server(self) -> None:
        while not self._closed:
            if self._absence is not None:
                await self._find_again()
            else:
                with trio.move_on_after(TICK):
                    await self._lost.wait()
                if self._absence is None:
                    await self._look_after()

    async def _find_again(self) -> None:
        delay = FIRST_DELAY
        while self._absence is not None:
            await trio.sleep(delay * random.uniform(0.75, 1.25))
            delay = min(2 * delay, LONGEST_DELAY)
            try:
                connection = await dial(self.target)
            except NovaCronError as error:
                self._absence.error = error
                continue
            self._lost = trio.Event()
            seconds = round(time.time() - self._absence.since, 3)
            self._absence = None
            AWAY.set(0.0)
            self.adopt(connection)
            logger.info(
                "PostgreSQL is back", extra={"server": connection.where, "away_seconds": seconds}
            )

    async def _look_after(self) -> None:
        now = trio.current_time()
        for connection in [each for each in self._idle if not each.looks_alive()]:
            self._idle.remove(connection)
            connection.close()
        CONNECTIONS.set(float(self.connections))
        spare = self.connections - self.target.settings.pool_min
        for connection in self._idle[: max(spare, 0)]:
            # From the front: the oldest.
            if now - connection.idle_since > IDLE_SECONDS:
                self._idle.remove(connection)
                connection.close()
        if any(self._is_silent(connection, now) for connection in self._used):
            await self._look_whether_it_answers(now)
        elif self.connections < self.target.settings.pool_min:
            # Also how a server is missed that nobody asks for anything.
            await self._add_one()
        elif self._refusal is not None and now - self._dial_after > LONGEST_DELAY:
            await self._add_one()

    def _is_silent(self, connection: Connection, now: float) -> bool:
        since = connection.busy_since
        return since is not None and (
            now - since > SILENT_AFTER
            and now - self._looked_at.get(connection, since - LOOK_AGAIN_AFTER) > LOOK_AGAIN_AFTER
        )

    async def _look_whether_it_answers(self, now: float) -> None:
        for connection in self._used:
            if connection.busy_since is not None:
                self._looked_at[connection] = now
        await self._add_one()

    async def _add_one(self) -> None:
        try:
            connection = await dial(self.target, self._preferred)
        except NovaCronError as error:
            self._note_failure(error)
            return
        self._refusal = None
        if self._closed or self.connections >= self.target.settings.pool_max:
            connection.close()
        else:
            self.adopt(connection)

    # --- The end ---------------------------------------------------------------------------------

    def refuse(self) -> None:
        """From now on nobody gets a connection."""
        self._closed = True
        self._scope.cancel()
        for scope in self._waiters:
            scope.cancel()

    async def close(self, grace: float) -> None:
        """Give what is under way *grace* seconds, then end it."""
        self.refuse()
        with trio.move_on_after(grace):
            if self._used:
                await self._unused.wait()
        self._abandon()
        self.target.close()
        AWAY.remove()
        CONNECTIONS.remove()


def _again(error: NovaCronError, more: str = "") -> NovaCronError:
    """A new one each time: an exception that is raised twice keeps both tracebacks."""
    return type(error)(error.what, why=f"{error.why}{more}", remedy=error.remedy, key=error.key)


def busy_error(why: str, key: str) -> DatabaseLimitError:
    return DatabaseLimitError(
        "the database is busy", why=why, remedy="slow down and try again", key=key
    )


def closed_error() -> DatabaseUnavailableError:
    return DatabaseUnavailableError(
        "the database is closed",
        why="the node is stopping, or its database component is not running",
        remedy="try again when the node is ready",
    )
