"""A look at the servers that are not in use, where several are named.

A server that takes changes on a newer timeline has been promoted beside the one in use, which nobody has
stopped, and is used from then on.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable

import trio

from novacron.database.postgresql_connection import Connection
from novacron.database.postgresql_dial import dial_one
from novacron.database.postgresql_lineage import Lineage, beside
from novacron.database.postgresql_target import Endpoint, Target
from novacron.database.store import DatabaseStaleError
from novacron.errors import NovaCronError

logger = logging.getLogger("novacron.database")

LOOK_EVERY = 10.0
"""Seconds between two looks at the servers that are not in use. Each is a login there; a thousand nodes
make a hundred a second, half a core of a server that has little else to do. As long may a node write
to a server that was replaced and lives on; where commits wait for a standby, none of that is taken for
written, and the node looks at once."""
LOOK_PAUSE = 1.0
"""Least seconds between two such looks."""


class Lookout:
    """
    Args:
      present: The server in use; None while there is none, and no look makes sense.
      adopt: Takes over a connection to a server that is to be used from now on.
    """

    def __init__(
        self,
        target: Target,
        present: Callable[[], Endpoint | None],
        adopt: Callable[[Connection], None],
    ) -> None:
        self._target = target
        self._present = present
        self._adopt = adopt
        self._doubt = trio.Event()
        self.rival: DatabaseStaleError | None = None
        """Another server that takes changes, as of the last look."""

    def hurry(self) -> None:
        """There is doubt that the server in use is still the one to use: look soon."""
        self._doubt.set()

    async def keep(self) -> None:
        """Look now and then, until cancelled."""
        while True:
            await trio.sleep(LOOK_PAUSE)
            with trio.move_on_after(LOOK_EVERY * random.uniform(0.75, 1.25)):
                await self._doubt.wait()
            self._doubt = trio.Event()
            present = self._present()
            if present is not None:
                await self._look(present)

    async def _look(self, present: Endpoint) -> None:
        rival: DatabaseStaleError | None = None
        for endpoint in self._target.endpoints:
            used = self._target.lineages.newest
            if endpoint == present or used is None:
                continue
            try:
                connection = await dial_one(self._target, endpoint)
            except DatabaseStaleError as error:
                rival = error
                continue
            except NovaCronError:
                continue
            found = connection.lineage
            if found is not None and used.is_older(found) and self._present() is not None:
                self._move(connection, present)
                rival = None
                break
            connection.close()
            if found is not None and await self._is_beside(found, present):
                rival = beside(connection.where, found)
        if rival is not None and self.rival is None:
            logger.warning("another PostgreSQL takes changes", extra={"why": str(rival)})
        self.rival = rival

    async def _is_beside(self, found: Lineage, present: Endpoint) -> bool:
        """Whether that is another server than the one in use, which may have several names. That one is
        asked as well: it may have been restarted since."""
        try:
            connection = await dial_one(self._target, present)
        except NovaCronError:
            return False
        connection.close()
        return connection.lineage is not None and connection.lineage.is_beside(found)

    def _move(self, connection: Connection, present: Endpoint) -> None:
        logger.warning(
            "another PostgreSQL was promoted; it is used from now on",
            extra={"server": connection.where, "was": present.address},
        )
        self._adopt(connection)
