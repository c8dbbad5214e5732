"""What an operator does with a database from outside of the node, whichever engine it is."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from novacron.database.copies.outcome import Occupant, Restored
from novacron.database.copies.tables import Owner, Report, Snapshot
from novacron.database.inspection import Migration, Verification
from novacron.database.store import DatabaseSchemaError
from novacron.record import Record

if TYPE_CHECKING:
    from novacron.config.schema import DatabaseSettings
    from novacron.data_directory import DataDirectory
    from novacron.units import NodeId


class Migrated(Record):
    before: str | None
    after: str
    backup: Path | None
    """Made before; None where nothing was to be done or nothing was there."""


class Operations(Protocol):
    """All methods block, and raise :class:`~novacron.errors.DatabaseError`."""

    engine: str
    place: str
    """For messages and the audit log."""
    key: str
    """Which key of the configuration says where it is."""
    backups: Path
    """Where backups go that are given no name."""

    @property
    def owner(self) -> Owner:
        """Whose it is, or will be."""
        ...

    def owns(self, owner: Owner) -> bool:
        """Whether *owner*'s data are this database's own."""
        ...

    def status(self) -> dict[str, Any]: ...

    def verify(self, *, full: bool) -> Verification: ...

    def pending(self) -> list[Migration]:
        """The migrations that are to be run, oldest first."""
        ...

    def migrate(self, report: Report) -> Migrated: ...

    def open_snapshot(self) -> Snapshot: ...

    def alone(self, what: str, *, force: bool) -> AbstractContextManager[None]:
        """Make sure that no node works on it while *what* is done."""
        ...

    def occupant(self) -> Occupant | None:
        """What a restoration would replace; None if nothing is there."""
        ...

    def restore(self, snapshot: Snapshot, report: Report, *, keep: bool) -> Restored:
        """Replace everything by *snapshot*, within :meth:`alone`. *keep*: what was there."""
        ...


def operations(
    settings: DatabaseSettings,
    data: DataDirectory,
    node_id: NodeId,
    authorities: Callable[[], tuple[str, ...]],
    engine: str | None = None,
) -> Operations:
    """Those of the configured *engine*, or of the one that is named.

    Args:
      authorities: hashes of the keys of the authorities the node trusts, its own first; asked only
        where a cluster's database is concerned.
    """
    if (engine or settings.engine) == "postgresql":
        from novacron.database.operations_postgresql import PostgresqlOperations

        return PostgresqlOperations(settings, data, node_id, authorities)
    from novacron.database.operations_sqlite import SqliteOperations

    return SqliteOperations(settings, data, node_id, authorities)


def check_adoption(snapshot: Snapshot, target: Operations) -> None:
    """Refuse another node's or cluster's data.

    Raises:
      DatabaseSchemaError: names both.
    """
    owner = snapshot.owner
    if owner is None or target.owns(owner):
        return
    raise DatabaseSchemaError(
        f"{snapshot.place} belongs to another {owner.kind}",
        why=f"it was made by {owner}, {target.place} is that of {target.owner}",
        remedy="add --adopt if its data are to become this one's",
    )


def check_occupant(there: Occupant | None, target: Operations) -> None:
    """Refuse to replace what is another node's or cluster's: *target* was configured by mistake.

    Raises:
      DatabaseSchemaError: names both.
    """
    kind = target.owner.kind
    if there is None or there.owner is None or target.owns(Owner(kind, there.owner)):
        return
    raise DatabaseSchemaError(
        f"{target.place} belongs to another {kind}",
        why=f"it was made by {kind} {there.owner}, this is {target.owner}",
        remedy=f"correct {target.key}; or add --adopt if what is there is to be replaced",
        key=target.key,
    )
