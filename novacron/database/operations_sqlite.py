"""An operator's work on the SQLite file of a node."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from novacron.database.backup import backup_directory, make_backup, prune_backups
from novacron.database.connection import open_reader
from novacron.database.copies.outcome import Occupant, Restored
from novacron.database.copies.replacing import occupant, restore_file, stopped_node
from novacron.database.copies.sqlite_tables import SqliteSnapshot, explain
from novacron.database.copies.tables import Owner, Report, Snapshot
from novacron.database.inspection import (
    Migration,
    Verification,
    migrations_after,
    sqlite_status,
    verify_sqlite,
)
from novacron.database.integrity import check_pages
from novacron.database.opening import explain_os_error
from novacron.database.operations import Migrated
from novacron.database.schema import check_owner, read_state, revisions
from novacron.database.store import DatabaseUnavailableError

if TYPE_CHECKING:
    from novacron.config.schema import DatabaseSettings
    from novacron.data_directory import DataDirectory
    from novacron.units import NodeId


class SqliteOperations:
    engine = "sqlite"
    key = "database.path"

    def __init__(
        self,
        settings: DatabaseSettings,
        data: DataDirectory,
        node_id: NodeId,
        authorities: Callable[[], tuple[str, ...]],
    ) -> None:
        self._authorities = authorities
        self._settings = settings
        self._data = data
        self._node_id = node_id
        configured = settings.path
        self._path = Path(configured) if configured else data.database / "novacron.db"
        self.place = str(self._path)
        self.backups = backup_directory(self._path)
        self.owner = Owner("node", node_id)

    def status(self) -> dict[str, Any]:
        return sqlite_status(self._path, self._data, self._settings.busy_timeout, self.owns)

    def owns(self, owner: Owner) -> bool:
        return owner == self.owner or (owner.kind == "cluster" and owner.id in self._authorities())

    def verify(self, *, full: bool) -> Verification:
        self._must_be_there()
        return verify_sqlite(
            self._path,
            self._data,
            self._node_id,
            full=full,
            busy_timeout=self._settings.busy_timeout,
        )

    def pending(self) -> list[Migration]:
        self._must_be_there()
        snapshot = self.open_snapshot()
        try:
            return migrations_after(snapshot.revision)
        finally:
            snapshot.close()

    def migrate(self, report: Report) -> Migrated:
        from novacron.database.migrate import upgrade

        self._must_be_there()
        with self.alone("migrate", force=False):
            path, newest = self._path, revisions()[-1]
            try:
                raw = open_reader(path)
                try:
                    state = read_state(raw, path, revisions())
                    check_owner(state, path, self._node_id)
                    if state.revision in (None, newest):
                        return Migrated(state.revision, newest, None)
                    # As the boot does: what is damaged is neither worth a backup nor safe to change.
                    report("checking the database file", 0, 0, 0)
                    check_pages(raw, path, full=False, progress=None)
                    assert state.revision is not None
                    backup = make_backup(
                        raw, path, state.revision, progress=lambda text: report(text, 0, 0, 0)
                    )
                finally:
                    raw.close()
                report(f"migrating from version {state.revision} to {newest}", 0, 0, 0)
                upgrade(path)
                prune_backups(path, max(1, self._settings.backups))
            except (sqlite3.Error, UnicodeDecodeError) as error:
                raise explain(error, path) from error
            except OSError as error:
                raise explain_os_error(error, path) from error
        return Migrated(state.revision, newest, backup)

    def open_snapshot(self) -> Snapshot:
        self._must_be_there()
        return SqliteSnapshot(self._path, busy_timeout=self._settings.busy_timeout)

    def alone(self, what: str, *, force: bool) -> AbstractContextManager[None]:
        """*force* changes nothing here: a node would go on writing to the file that was replaced."""
        return stopped_node(self._data, what)

    def occupant(self) -> Occupant | None:
        return occupant(self._path)

    def restore(self, snapshot: Snapshot, report: Report, *, keep: bool) -> Restored:
        """The old file is kept in any case: it costs nothing until it is removed."""
        return restore_file(
            snapshot, self._path, self._data, self._node_id, self._settings.busy_timeout, report
        )

    def _must_be_there(self) -> None:
        if not self._path.exists():
            raise DatabaseUnavailableError(
                f"there is no database {self._path}",
                why="the node has not booted yet, or the file was moved",
                remedy="start the node, which makes one; or name the node's configuration with --config, "
                "or the file with database.path",
                key="database.path",
            )
