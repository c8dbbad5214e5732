"""Runs Alembic. Imported, and importing it, only where a migration is pending."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from novacron.database import schema

if TYPE_CHECKING:
    from alembic.config import Config

_one_at_a_time = threading.Lock()
"""Alembic keeps the migration that runs in a module-level proxy."""


def upgrade(path: Path, revision: str = "head") -> None:
    """Bring the SQLite database at *path* to *revision*, by default the newest, in one transaction.
    Blocks.

    Raises:
      DatabaseError: mapped from SQLite; the schema is as it was.
    """
    from novacron.database.connection import open_writer
    from novacron.database.sqlite_errors import map_error

    try:
        # The driver would open a transaction at the first change only, and leave the statements
        # that alter the schema outside of it.
        run_migrations("sqlite://", lambda: open_writer(path), revision, begin="BEGIN IMMEDIATE")
    except sqlite3.Error as error:
        raise map_error(error, path) from error


def run_migrations(
    url: str,
    connect: Callable[[], Any],
    revision: str = "head",
    *,
    begin: str = "",
    keep: bool = False,
) -> None:
    """Run what is pending up to *revision* on what *connect* returns, for the dialect of *url*.

    Args:
      begin: what is sent where SQLAlchemy thinks that a transaction begins.
      keep: leave what *connect* returned open.

    Raises what the driver raises.
    """
    from alembic import command
    from sqlalchemy import create_engine, event
    from sqlalchemy.engine import Connection
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.pool import StaticPool

    config = _config()
    engine = create_engine(url, creator=connect, poolclass=StaticPool)
    if begin:

        @event.listens_for(engine, "begin")
        def send_begin(connection: Connection) -> None:
            connection.exec_driver_sql(begin)

    try:
        with _one_at_a_time, engine.connect() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
    except DBAPIError as error:
        if isinstance(error.orig, Exception):
            raise error.orig from error
        raise
    finally:
        engine.dispose(close=not keep)


def head() -> str:
    """The newest revision as Alembic itself sees it."""
    from alembic.script import ScriptDirectory

    newest = ScriptDirectory.from_config(_config()).get_current_head()
    if newest is None:
        raise LookupError(f"no migration in {schema.MIGRATIONS}")
    return newest


def _config() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(schema.MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
