"""Two PostgreSQL servers, one of which follows the other, and what an operator does with them.

    with PostgresqlPair(synchronous=True) as pair:
        pair.primary.kill()
        pair.promote()       # the standby is the primary now, and alone
        pair.rejoin()        # and the other one follows it

Who is allowed to write is not decided here: no server is stopped by another's promotion.
"""

from __future__ import annotations

import contextlib
import time
from types import TracebackType
from typing import Self

from bench.harness import BenchError
from bench.proxy import Proxy
from bench.servers.postgresql import PostgreSQL

_DEADLINE = 60.0
_POLL_SECONDS = 0.02
_SETTINGS = {
    # So that a former primary can be taken back to where the two parted (pg_rewind).
    "wal_log_hints": "on",
    "wal_keep_size": "'256MB'",
    "hot_standby": "on",
    # A standby looks for its primary again soon: five seconds would be most of a round.
    "wal_retrieve_retry_interval": "'200ms'",
}
_NAMES = "synchronous_standby_names"


class PostgresqlPair:
    """As a context manager. *rtt*: round trip between the two, in seconds.

    Args:
      synchronous: a commit is answered when both have it, as long as both are there.
    """

    def __init__(self, *, synchronous: bool, rtt: float = 0.0, durable: bool = True) -> None:
        self.synchronous = synchronous
        self._rtt = rtt
        self._durable = durable
        self._stack = contextlib.ExitStack()
        self._ways: dict[int, Proxy] = {}
        """To each server's port, for the other server."""
        self.is_apart = False
        """Whether :meth:`rejoin` is needed before one follows the other again."""

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self.primary = stack.enter_context(
                PostgreSQL(settings=_SETTINGS, durable=self._durable)
            )
            self._make_way(stack, self.primary)
            self.standby = stack.enter_context(
                PostgreSQL(
                    settings=_SETTINGS,
                    durable=self._durable,
                    standby_of=self.primary,
                    through=self._ways[self.primary.port].port,
                )
            )
            self._make_way(stack, self.standby)
            self._wait_following()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _make_way(self, stack: contextlib.ExitStack, server: PostgreSQL) -> None:
        way = Proxy(("127.0.0.1", server.port), rtt=self._rtt)
        self._ways[server.port] = stack.enter_context(way)

    def promote(self) -> None:
        """The standby takes changes from now on, without waiting for another; returns when it does."""
        self.is_apart = True
        self.standby.promote()
        self.primary, self.standby = self.standby, self.primary
        if self.synchronous:
            self.primary.set(_NAMES, "")

    def stall(self) -> None:
        """What is sent between the two is held on the way, until it is lost or :meth:`part`."""
        for way in self._ways.values():
            way.mode("silent")

    def lose(self) -> None:
        """What is on the way is lost; the way is free again."""
        for way in self._ways.values():
            way.cut()
            way.mode("pass")

    def part(self) -> None:
        """Nothing passes between the two any more, until :meth:`rejoin`."""
        self.is_apart = True
        for way in self._ways.values():
            way.mode("refuse")
            way.cut()

    def rejoin(self) -> None:
        """The former primary follows the present one; returns when it has all, and when commits wait
        for it where they shall.

        Raises:
          BenchError: it does not.
        """
        for way in self._ways.values():
            way.mode("pass")
        self.standby.kill()
        self.standby.follow(self.primary, through=self._ways[self.primary.port].port)
        self.standby.start()
        self._wait_following()
        self.is_apart = False

    def _wait_following(self) -> None:
        self._wait("state = 'streaming'")
        if self.synchronous:
            self.primary.set(_NAMES, "*")
            self._wait("sync_state = 'sync'")

    def _wait(self, condition: str) -> None:
        give_up = time.monotonic() + _DEADLINE
        query = f"SELECT count(*) FROM pg_stat_replication WHERE {condition}"
        while self.primary.psql(query, database="postgres") != "1":
            if time.monotonic() > give_up or not self.standby.running:
                raise BenchError(f"no standby follows:\n{self.standby.log.read_text()[-2000:]}")
            time.sleep(_POLL_SECONDS)

    def return_alone(self) -> None:
        """Start the former primary as it was left: it takes changes, and waits for nobody to have them
        too. Two servers take changes then."""
        self.standby.set_at_rest(_NAMES, "")
        self.standby.start()
