"""Brings a PostgreSQL database to the newest schema: one node of all, in one transaction.

Runs in a worker thread on a connection of its own, which is the ordinary, blocking kind: Alembic
brings SQLAlchemy, and that wants one. Imported only where a migration is pending.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import psycopg
from psycopg import pq

from novacron.database.migrate import run_migrations
from novacron.database.postgresql_errors import lost, map_failed_login, map_result
from novacron.database.postgresql_schema import LOCK_KEY
from novacron.database.postgresql_session import Watch, ask
from novacron.database.postgresql_target import Endpoint, Target, conninfo
from novacron.database.schema import seal
from novacron.database.store import DatabaseLimitError
from novacron.errors import DatabaseError

LOOK_SECONDS = 0.25
"""Between two attempts to get the lock. Waiting in the server would be quicker by half of that, and
could neither be cancelled nor reported."""


def upgrade(
    target: Target,
    endpoint: Endpoint,
    authority: str,
    *,
    revision: str = "head",
    progress: Callable[[str], None] | None = None,
) -> None:
    """Run what is pending, and note whose database it is where that is not noted. Blocks.

    Nodes that do this at once do it one after the other; who comes later finds it done. Killed at
    any moment, everything is as it was before, or done.

    Args:
      endpoint: the server to do it on.
      authority: of the cluster that claims the database.
      revision: where to stop; from 0003 on there is an owner to note.
      progress: called now and then with what is going on; may raise to give up.

    Raises:
      DatabaseLimitError: another node held the lock longer than
        ``database.postgresql.migrate_timeout``.
      DatabaseError: mapped from PostgreSQL; nothing was changed.
    """
    parameters = target.parameters(endpoint, None)
    parameters["connect_timeout"] = str(max(2, round(target.settings.connect_timeout)))
    try:
        connection = psycopg.connect(conninfo(parameters).decode("utf-8", "surrogateescape"))
    except psycopg.Error as error:
        raise map_failed_login(
            str(error), endpoint.address, user=target.settings.user, used_password=False
        ) from error
    # A migration takes what it takes. What it must not do is wait for a server that is gone: nothing
    # could end this thread then, not even the boot's own deadline.
    watch = Watch(connection, partial(ask, target, endpoint), target.settings.connect_timeout)
    try:
        with watch:
            connection.autocommit = True
            _wait_for_lock(connection, target, endpoint, progress)
            # Nor for a forgotten transaction.
            connection.execute("SET statement_timeout = 0")
            connection.execute("SET lock_timeout = '30s'")
            connection.autocommit = False
            run_migrations("postgresql+psycopg://", lambda: connection, revision, keep=True)
            _claim(connection, authority)
    except psycopg.Error as error:
        raise watch.failure or map_driver_error(error, endpoint) from error
    finally:
        # The server lets go of the lock with the session.
        connection.close()
        watch.close()


def _wait_for_lock(
    connection: psycopg.Connection[tuple[object, ...]],
    target: Target,
    endpoint: Endpoint,
    progress: Callable[[str], None] | None,
) -> None:
    seconds = target.settings.migrate_timeout
    give_up = time.monotonic() + seconds
    while True:
        row = connection.execute("SELECT pg_try_advisory_lock(%s)", (LOCK_KEY,)).fetchone()
        if row == (True,):
            return
        if time.monotonic() > give_up:
            raise DatabaseLimitError(
                f"the database at {endpoint.address} could not be migrated",
                why=f"another node has been at it for {seconds:g} s",
                remedy="look at what that node is doing; if it is gone, end its session: SELECT "
                "pid FROM pg_locks WHERE locktype = 'advisory'",
                key="database.postgresql.migrate_timeout",
            )
        if progress is not None:
            progress("waiting for another node that is migrating the database")
        time.sleep(LOOK_SECONDS)


def _claim(connection: psycopg.Connection[tuple[object, ...]], authority: str) -> None:
    created = time.time()
    connection.execute(
        "INSERT INTO cluster_identity (slot, authority, created, seal) VALUES (1, %s, %s, %s)"
        " ON CONFLICT DO NOTHING",
        (authority, created, seal(authority, created)),
    )
    connection.commit()


def map_driver_error(error: BaseException, endpoint: Endpoint) -> DatabaseError:
    """The error for what the blocking driver raised."""
    result = getattr(error, "pgresult", None)
    if result is not None and result.status == pq.ExecStatus.FATAL_ERROR:
        return map_result(result, endpoint.address, reading=False, within=0.0)
    return lost(endpoint.address, str(error))
