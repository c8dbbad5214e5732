"""Tables as both engines and a backup file have them, and where they come from and go to."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

import msgpack  # type: ignore[import-untyped]

from novacron.errors import ConflictError, DatabaseError, InvalidError
from novacron.record import Record

KINDS: Final = ("integer", "real", "text", "blob", "number")
"""What a column holds by its declaration. ``number`` is SQLite's own: whole or not."""

OWNER_TABLES: Final = frozenset(("node_identity", "cluster_identity"))
"""Whose the database is. Their rows stay behind: what is restored belongs to who restores it, and
whose it was stands in a backup's header."""

STAMP_TABLE: Final = "alembic_version"
"""The revision; written by the migrations that make the tables."""

_MODULUS: Final = 1 << 128


class BackupInvalidError(DatabaseError, InvalidError):
    """The file is no backup, or not all of what was written."""

    code = "database.backup_invalid"


class BackupExistsError(DatabaseError, ConflictError):
    """A backup is never written over another file."""

    code = "database.backup_exists"


class DatabaseInUseError(DatabaseError, ConflictError):
    """A node runs on it."""

    code = "database.in_use"


class DatabaseNotEmptyError(DatabaseError, ConflictError):
    """Something would be replaced, and nobody said that it may be."""

    code = "database.not_empty"


class Column(Record):
    name: str
    kind: str
    """One of :data:`KINDS`."""


class Table(Record):
    name: str
    columns: tuple[Column, ...]
    rows: int

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(column.kind for column in self.columns)


class Owner(Record):
    """Whose a database is: a node's (its ID) or a cluster's (the SHA-256 of its authority's key)."""

    kind: str
    """``node`` or ``cluster``."""
    id: str

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"


Row = Sequence[Any]


class Report(Protocol):
    """Told how far it is, at every batch; it must be quick."""

    def __call__(self, step: str, rows: int, total: int, size: int, /) -> None:
        """*step*: what is being done; *rows* of *total* are; *size*: bytes written or read."""
        ...


class Snapshot(Protocol):
    """A database as it was at one moment. Whoever opened it calls :meth:`close`."""

    place: str
    """For messages."""
    engine: str
    revision: str
    owner: Owner | None
    tables: tuple[Table, ...]
    """Without the owner's and the revision's; what others refer to comes first."""

    def rows(self, table: Table) -> Iterator[Row]:
        """All rows of *table*. Tables are read one after the other, in the order of
        :attr:`tables`, each to its end."""
        ...

    def close(self) -> None: ...


class Destination(Protocol):
    """A database that is being filled. Nothing of it is seen by anybody until it is committed."""

    place: str
    engine: str

    def prepare(self, revision: str) -> dict[str, Table]:
        """Make the empty tables of *revision*; by name."""
        ...

    def load(self, table: Table, rows: Iterable[Row]) -> None:
        """Add *rows* to the table of that name, columns in the order of *table*."""
        ...

    def rows(self, table: Table) -> Iterator[Row]:
        """What was added, in the columns of *table*."""
        ...


class Sum:
    """Count and checksum of rows in whatever order: engines sort text differently.

    The sum modulo 2^128 of the rows' BLAKE2b hashes (a multiset hash, as of Bellare and Micciancio,
    "A New Paradigm for Collision-Free Hashing", 1997). It is against loss and damage, not against
    people.
    """

    __slots__ = ("_kinds", "_pack", "rows", "value")

    def __init__(self, kinds: Sequence[str]) -> None:
        self._kinds = tuple(kinds)
        self._pack: Callable[[object], bytes] = msgpack.Packer(autoreset=True).pack
        self.rows = 0
        self.value = 0

    def add(self, row: Row) -> None:
        data = self._pack([alike(v, kind) for v, kind in zip(row, self._kinds, strict=True)])
        hashed = hashlib.blake2b(data, digest_size=16).digest()
        self.rows += 1
        self.value = (self.value + int.from_bytes(hashed, "big")) % _MODULUS

    def over(self, rows: Iterable[Row]) -> Iterator[Row]:
        """*rows*, each added on its way."""
        for row in rows:
            self.add(row)
            yield row

    @property
    def text(self) -> str:
        return f"{self.value:032x}"


def alike(value: Any, kind: str) -> Any:
    """*value* as either engine would return it from a column of *kind*: SQLite keeps a whole number
    in a column of reals as it was given."""
    if kind == "real" and isinstance(value, int):
        return float(value)
    if isinstance(value, float):
        if value == 0.0:
            # -0.0 and 0.0 are equal to a database, which may keep either.
            return 0.0
        if kind in ("integer", "number") and value.is_integer() and abs(value) < 2**63:
            return int(value)
    return value


def ordered(tables: Iterable[Table], refers: Mapping[str, Iterable[str]]) -> tuple[Table, ...]:
    """*tables*, each after those it *refers* to, otherwise by name.

    Raises:
      BackupInvalidError: they refer to each other in a circle.
    """
    left = {table.name: table for table in sorted(tables)}
    found: list[Table] = []
    while left:
        ready = [
            name
            for name in left
            if not any(other in left and other != name for other in refers.get(name, ()))
        ]
        if not ready:
            raise BackupInvalidError(
                "the tables cannot be put in an order",
                why="they refer to each other in a circle: " + ", ".join(sorted(left)),
                remedy="this is a defect in NovaCron; report it with this message",
            )
        found += [left.pop(name) for name in ready]
    return tuple(found)


def quoted(name: str) -> str:
    """*name* as an identifier, in both engines."""
    return '"' + name.replace('"', '""') + '"'


def column_list(table: Table) -> str:
    return ", ".join(quoted(column.name) for column in table.columns)
