"""Run by Alembic for each migration; the connection comes from :mod:`novacron.database.migrate`."""

from alembic import context
from sqlalchemy import text

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    # One transaction for all steps: a kill leaves the old schema or the new, nothing between.
    transaction_per_migration=False,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
    if connection.dialect.name == "sqlite":
        # A second copy of the revision, in the file's header: a flipped bit in either is told
        # apart from a newer schema.
        revision = context.get_context().get_current_revision()
        connection.execute(text(f"PRAGMA user_version={int(revision or '0')}"))
