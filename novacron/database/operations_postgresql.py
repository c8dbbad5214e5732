"""An operator's work on the PostgreSQL database of a cluster."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from novacron.database.copies.outcome import Occupant, Restored
from novacron.database.copies.postgresql_tables import PostgresqlSnapshot, table_names
from novacron.database.copies.replacing_postgresql import (
    check_nobody_runs,
    postgresql_occupant,
    restore_database,
)
from novacron.database.copies.tables import STAMP_TABLE, Owner, Report, Snapshot
from novacron.database.copies.writing import unused_name
from novacron.database.inspection import (
    Migration,
    Verification,
    list_copies,
    migrations_after,
)
from novacron.database.operations import Migrated
from novacron.database.postgresql_inspection import postgresql_status, verify_postgresql
from novacron.database.postgresql_migrating import Migrator, lock_schema
from novacron.database.postgresql_owner import read_owner, read_revision, write_owner
from novacron.database.postgresql_session import Session, open_session
from novacron.database.postgresql_target import Target
from novacron.database.schema import revisions
from novacron.database.store import DatabaseSchemaError
from novacron.errors import NovaCronError

if TYPE_CHECKING:
    from novacron.config.schema import DatabaseSettings
    from novacron.data_directory import DataDirectory
    from novacron.units import NodeId


class PostgresqlOperations:
    engine = "postgresql"
    key = "database.postgresql.name"

    def __init__(
        self,
        settings: DatabaseSettings,
        data: DataDirectory,
        node_id: NodeId,
        authorities: Callable[[], tuple[str, ...]],
    ) -> None:
        """
        Args:
          authorities: what names the cluster, then hashes of the keys of the authorities it has or had.
        """
        self._settings = settings
        self._node_id = node_id
        self._authorities = authorities
        self._target = Target(settings.postgresql, query_timeout=settings.query_timeout)
        hosts = ", ".join(endpoint.address for endpoint in self._target.endpoints)
        self.place = f"PostgreSQL database {settings.postgresql.name} at {hosts}"
        self.backups = data.database / "backups"
        self._session: Session | None = None
        self._force = False

    @property
    def owner(self) -> Owner:
        return Owner("cluster", self._authorities()[0])

    def owns(self, owner: Owner) -> bool:
        if owner.kind == "node":
            return owner.id == self._node_id
        return owner.id in self._authorities()

    def status(self) -> dict[str, Any]:
        try:
            with self._open(changing=False) as session:
                return postgresql_status(session, self.place, self.backups, self.owns)
        except NovaCronError as error:
            # Also where a secret cannot be read: an answer all the same.
            return {
                "engine": "postgresql",
                "place": self.place,
                "state": "unusable",
                "fault": str(error),
                "revision": None,
                "newest_revision": revisions()[-1],
                "owner": None,
                "size": None,
                "tables": [],
                "pending": [],
                "backups": list_copies(self.backups),
            }

    def verify(self, *, full: bool) -> Verification:
        with self._open(changing=False) as session:
            return verify_postgresql(session, self.place, self.owns, full=full)

    def pending(self) -> list[Migration]:
        with self._open(changing=False) as session:
            return migrations_after(self._revision(session))

    def migrate(self, report: Report) -> Migrated:
        """In one transaction, as a boot does, and like a boot's it is waited for by others."""
        newest = revisions()[-1]
        with self._open(changing=True) as session:
            migrator = Migrator(session)
            session.begin("ISOLATION LEVEL READ COMMITTED, READ WRITE")
            report("waiting for others that migrate", 0, 0, 0)
            lock_schema(session, self._settings.postgresql.migrate_timeout)
            revision = self._revision(session)
            owner = read_owner(session, self.place) if revision is not None else None
            if owner is not None and not self.owns(owner):
                raise DatabaseSchemaError(
                    f"the {self.place} belongs to another cluster",
                    why=f"it was made by the authority {owner.id}, this node trusts "
                    f"{self.owner.id}",
                    remedy="set database.postgresql.name to this cluster's database",
                    key="database.postgresql.name",
                )
            if revision != newest:
                report(f"migrating from version {revision or 'none'} to {newest}", 0, 0, 0)
                migrator.upgrade()
                if owner is None:
                    write_owner(session, self.owner.id, time.time())
                session.commit()
        return Migrated(revision, newest, None)

    def open_snapshot(self) -> Snapshot:
        return PostgresqlSnapshot(self._open(changing=False), self.place)

    @contextmanager
    def alone(self, what: str, *, force: bool) -> Iterator[None]:
        with self._open(changing=True) as session:
            if not force:
                check_nobody_runs(session, what)
            self._session, self._force = session, force
            try:
                yield
            finally:
                self._session = None

    def occupant(self) -> Occupant | None:
        return postgresql_occupant(self._alone(), self.place)

    def restore(self, snapshot: Snapshot, report: Report, *, keep: bool) -> Restored:
        from novacron import __version__

        session = self._alone()

        def check() -> None:
            # Once more, now that no node can register.
            if not self._force:
                check_nobody_runs(session, "restore")

        return restore_database(
            snapshot,
            session,
            self.place,
            self.owner.id,
            (lambda: unused_name(self.backups, "replaced")) if keep else None,
            __version__,
            self._settings.postgresql.migrate_timeout,
            report,
            check,
        )

    def _revision(self, session: Session) -> str | None:
        names = table_names(session)
        if not names:
            return None
        if STAMP_TABLE not in names:
            raise DatabaseSchemaError(
                f"{self.place} is not a NovaCron database",
                why="it holds other tables: " + ", ".join(names[:3]),
                remedy="set database.postgresql.name to another database",
                key="database.postgresql.name",
            )
        return read_revision(session, self.place)

    def _open(self, *, changing: bool) -> Session:
        return open_session(self._target, self._settings.query_timeout, changing=changing)

    def _alone(self) -> Session:
        assert self._session is not None, "within alone()"
        return self._session
