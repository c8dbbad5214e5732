"""Which of several servers that take changes is the one to write to.

A promotion begins a new *timeline*, numbered one higher, of the same *system*: the servers that are
copies of one another share its identifier. A primary that was replaced and comes back as it was still
takes changes, and whatever is written to it is lost when it is made a standby again. PostgreSQL leaves
it to others to keep it down ("fencing"); where they fail, its timeline gives it away.

This node remembers the newest timeline it has used, and uses none that is older. Only in memory: a
server that was brought back on purpose, from an older copy, is taken after a restart of the node, and
not after a hunt for files on every host. A node that has just started knows nothing and looks at all
servers it is told of instead, see :func:`~novacron.database.postgresql_dial.dial`.

Timelines: https://www.postgresql.org/docs/15/continuous-archiving.html#BACKUP-TIMELINES.
"""

from __future__ import annotations

from novacron.database.postgresql_parameters import Bound
from novacron.database.store import DatabaseStaleError, Row
from novacron.record import Record

# The first eight digits of a log file's name are its timeline; the control file, which has a function
# that says so in words, learns of a promotion some seconds late. Everybody may call these.
LINEAGE = Bound(
    b"SELECT (pg_control_system()).system_identifier, CASE WHEN NOT pg_is_in_recovery() THEN"
    b" ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint END,"
    b" extract(epoch FROM pg_postmaster_start_time())::float8"
)


class Lineage(Record):
    """What a server that takes changes is a continuation of."""

    system: int
    timeline: int
    started: float
    """When the server was started, in seconds since the epoch, to the microsecond: by this it is known
    again under another name or address."""

    def is_older(self, other: Lineage | None) -> bool:
        """Servers of different systems are neither."""
        return other is not None and self.system == other.system and self.timeline < other.timeline

    def is_beside(self, other: Lineage) -> bool:
        """Whether it is another server, of which nothing says whether it is older or newer."""
        return (self.system, self.timeline) == (other.system, other.timeline) and (
            self.started != other.started
        )


def read_lineage(row: Row) -> Lineage | None:
    """*row*: of :data:`LINEAGE`. None: it is a standby, or does not say."""
    if len(row) != 3 or row[1] is None:
        return None
    return Lineage(*row)


class Lineages:
    """The newest that this node has used."""

    def __init__(self) -> None:
        self.newest: Lineage | None = None

    def check(self, found: Lineage | None, where: str) -> None:
        """Remember *found*, that of the server *where*, which is to be used.

        Raises:
          DatabaseStaleError: a newer one was used already.
        """
        if found is None:
            return
        if found.is_older(self.newest):
            assert self.newest is not None
            raise stale(where, found, self.newest)
        self.newest = found


def stale(where: str, found: Lineage, newest: Lineage) -> DatabaseStaleError:
    return DatabaseStaleError(
        f"PostgreSQL at {where} was replaced and takes changes all the same",
        why=f"it is on timeline {found.timeline}, and another server was promoted to timeline "
        f"{newest.timeline}; what is written to the old one is lost",
        remedy="stop it, then let it follow the new primary (pg_rewind); see the runbook "
        "database-away. If it shall go on in the other's place, stop that one and restart this node",
        key="database.postgresql.hosts",
    )


def beside(where: str, found: Lineage) -> DatabaseStaleError:
    """For a server that takes changes beside the one in use and is no older."""
    return DatabaseStaleError(
        f"PostgreSQL at {where} takes changes beside the one in use",
        why=f"both are on timeline {found.timeline}, so neither is known to be the newer",
        remedy="stop the one that is not to be the primary, then let it follow the other (pg_rewind); "
        "see the runbook database-away",
        key="database.postgresql.hosts",
    )
