"""Alembic on an operator's own connection to PostgreSQL, inside the transaction that is open there."""

from __future__ import annotations

import threading
from typing import Any

from novacron.database import schema
from novacron.database.postgresql_schema import LOCK_KEY
from novacron.database.postgresql_session import Session
from novacron.database.store import DatabaseLimitError

_one_at_a_time = threading.Lock()
"""Alembic keeps the migration that runs in a module-level proxy."""


class Migrator:
    """Make it before the transaction begins: SQLAlchemy asks the server about itself first, and ends
    what is open then."""

    def __init__(self, session: Session) -> None:
        from sqlalchemy import create_engine
        from sqlalchemy.pool import StaticPool

        self._session = session
        engine = create_engine(
            "postgresql+psycopg://",
            creator=lambda: session.raw,
            poolclass=StaticPool,
            pool_reset_on_return=None,
        )
        with session.guarded():
            self._connection: Any = engine.connect()
        # Never ended: it tells Alembic that whoever began commits. The connection is in autocommit,
        # so that nothing is sent for it.
        self._connection.begin()

    def upgrade(self, revision: str = "head") -> None:
        """Bring the schema to *revision* without committing it.

        Raises:
          DatabaseError: mapped from PostgreSQL; nothing of the transaction can be kept.
        """
        from alembic import command
        from alembic.config import Config
        from sqlalchemy.exc import DBAPIError

        config = Config()
        config.set_main_option("script_location", str(schema.MIGRATIONS).replace("%", "%%"))
        config.set_main_option("path_separator", "os")
        config.attributes["connection"] = self._connection
        with _one_at_a_time, self._session.guarded():
            try:
                command.upgrade(config, revision)
            except DBAPIError as error:
                if isinstance(error.orig, Exception):
                    raise error.orig from error
                raise


def lock_schema(session: Session, seconds: float) -> None:
    """Keep every node and every other command from migrating until the transaction ends.

    Raises:
      DatabaseLimitError: somebody else was at it for *seconds*.
    """
    session.execute(f"SET LOCAL lock_timeout = {max(1, round(seconds * 1000))}")
    try:
        session.fetch("SELECT pg_advisory_xact_lock(%s)", (LOCK_KEY,))
    except DatabaseLimitError as error:
        raise DatabaseLimitError(
            f"the schema of the database at {session.where} is locked",
            why=f"a node or another command has been changing it for {seconds:g} s",
            remedy="wait for it; if it is gone, end its session: SELECT pid FROM pg_locks WHERE "
            "locktype = 'advisory'",
            key="database.postgresql.migrate_timeout",
        ) from error
