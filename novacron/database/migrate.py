"""Runs Alembic. Imported, and importing it, only where a migration is pending."""

from __future__ import annotations

import threading
from pathlib import Path

from novacron.database import schema
from novacron.database.connection import open_writer
from novacron.database.sqlite_errors import map_error

_one_at_a_time = threading.Lock()
"""Alembic keeps the migration that runs in a module-level proxy."""


def upgrade(path: Path, revision: str = "head") -> None:
    """Bring the SQLite database at *path* to *revision*, by default the newest, in one transaction.
    Blocks.

    Raises:
      DatabaseError: mapped from SQLite; the schema is as it was.
    """
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import create_engine, event
    from sqlalchemy.engine import Connection
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.pool import StaticPool

    config = Config()
    config.set_main_option("script_location", str(schema.MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    engine = create_engine(
        "sqlite://",
        creator=lambda: open_writer(path),
        poolclass=StaticPool,
    )

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # The driver would open a transaction at the first change only, and leave the statements
        # that alter the schema outside of it.
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    try:
        with _one_at_a_time, engine.connect() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
    except DBAPIError as error:
        if isinstance(error.orig, Exception):
            raise map_error(error.orig, path) from error
        raise
    finally:
        engine.dispose()


def head() -> str:
    """The newest revision as Alembic itself sees it."""
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(schema.MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    newest = ScriptDirectory.from_config(config).get_current_head()
    if newest is None:
        raise LookupError(f"no migration in {schema.MIGRATIONS}")
    return newest
