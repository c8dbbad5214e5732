"""What PostgreSQL answers, mapped once onto the taxonomy.

SQLSTATE codes: https://www.postgresql.org/docs/15/errcodes-appendix.html. No message repeats a
parameter's value: values may be secrets. So of what the server says only the primary text is
repeated, never the detail, and not even that in the classes whose texts quote values.
"""

from __future__ import annotations

from psycopg import pq

from novacron.database.store import (
    DatabaseAwayError,
    DatabaseConflictError,
    DatabaseConnectionsError,
    DatabaseCorruptError,
    DatabaseCredentialsError,
    DatabaseFullError,
    DatabaseInvalidError,
    DatabaseLimitError,
    DatabaseOutcomeUnknownError,
    DatabaseReadOnlyError,
    DatabaseTlsError,
    DatabaseTransientError,
    DatabaseUnavailableError,
)
from novacron.errors import DatabaseError

SERIALIZATION_FAILURE, DEADLOCK = "40001", "40P01"
READ_ONLY = "25006"
CANCELLED = "57014"
UNDEFINED_TABLE = "42P01"
STALE_STATEMENT = frozenset(("0A000", "26000"))
"""Of what was prepared: its tables have changed, or the server knows it no more."""
TOO_MANY_CONNECTIONS = "53300"
WARNING = "01000"

_CONFLICTS = frozenset(("23505", "23503", "23P01", "23001"))
"""Unique, foreign key, exclusion, restrict. Of class 23 the others speak of the value itself."""
_ENDING = frozenset(("57P01", "57P02", "57P03", "57P05"))
"""Shutdown, crash, starting up or in recovery, idle for too long."""
_QUOTED = ("22", "P0", "XX", "HV", "39", "38")
"""Classes whose primary text may hold data: conversions, RAISE, extensions."""


class ConflictingTransactionsError(DatabaseTransientError):
    """Another transaction wanted the same at the same time. Nothing of this one was kept."""


class SchemaChangedError(DatabaseTransientError):
    """A migration changed a table below a prepared statement, or the server knows it no more.
    Nothing was done."""


class ConnectionLostError(DatabaseTransientError):
    """The connection broke. Nothing of what was not committed is kept."""


def sqlstate(result: pq.abc.PGresult) -> str:
    """Five characters, or none where the client library made the result itself."""
    return (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode("ascii", "replace")


def is_fatal(result: pq.abc.PGresult) -> bool:
    """Whether the server ended the session with it; then nothing is known of a commit."""
    severity = result.error_field(pq.DiagnosticField.SEVERITY_NONLOCALIZED)
    return severity in (b"FATAL", b"PANIC") or not sqlstate(result)


def says_unreplicated(result: pq.abc.PGresult) -> bool:
    """Whether this notice may be that of a commit that was not waited for to the end
    (``SyncRepWaitForLSN``). It has no code of its own, and its text is in the server's language; no
    other warning without a code comes with what a node runs, and one that did would only make an
    outcome uncertain."""
    severity = result.error_field(pq.DiagnosticField.SEVERITY_NONLOCALIZED)
    return severity == b"WARNING" and sqlstate(result) == WARNING


def conflict(why: str) -> ConflictingTransactionsError:
    return ConflictingTransactionsError(
        "the transaction conflicts with another one",
        why=why,
        remedy="repeat it from the start; Store.run does",
    )


def schema_changed() -> SchemaChangedError:
    return SchemaChangedError(
        "the schema changed while a statement ran",
        why="its tables are not what they were when it was prepared",
        remedy="repeat it",
    )


def lost(where: str, why: str = "") -> ConnectionLostError:
    return ConnectionLostError(
        f"the connection to PostgreSQL at {where} was lost",
        why=why or "the server or the way to it went away",
        remedy="repeat what was not committed",
    )


def outcome_unknown(where: str, why: str = "") -> DatabaseOutcomeUnknownError:
    return DatabaseOutcomeUnknownError(
        f"whether PostgreSQL at {where} committed is not known",
        why=(why or "the connection was lost after the commit was sent and before its answer came"),
        remedy="read whether the change is there before repeating it; it is there whole or not at "
        "all",
    )


def unreplicated(where: str) -> DatabaseOutcomeUnknownError:
    return DatabaseOutcomeUnknownError(
        f"PostgreSQL at {where} has committed, and its standby has not",
        why="no standby has confirmed the change in time, and commits are to wait for one "
        "(synchronous_standby_names)",
        remedy="see whether the standby runs and follows. The change is there unless the standby is "
        "promoted: read before repeating it",
    )


def away(where: str, why: str) -> DatabaseAwayError:
    return DatabaseAwayError(
        f"PostgreSQL at {where} is away",
        why=why,
        remedy="look at the server and the way to it; this node goes on trying, and needs no "
        "restart",
        key="database.postgresql.hosts",
    )


def read_only(where: str, why: str) -> DatabaseReadOnlyError:
    return DatabaseReadOnlyError(
        f"PostgreSQL at {where} takes no changes",
        why=why,
        remedy="promote it, or name the server that takes changes in database.postgresql.hosts; "
        "during a fail-over, wait",
        key="database.postgresql.hosts",
    )


def too_many(where: str, why: str) -> DatabaseConnectionsError:
    return DatabaseConnectionsError(
        f"PostgreSQL at {where} has too many connections",
        why=why,
        remedy="raise max_connections of the server, or lower database.postgresql.pool_max of "
        "the nodes that share it",
        key="database.postgresql.pool_max",
    )


def pooled(where: str, why: str) -> DatabaseUnavailableError:
    return DatabaseUnavailableError(
        f"what answers at {where} is not PostgreSQL itself",
        why=why,
        remedy="name the server in database.postgresql.hosts, and no pooler such as PgBouncer: a "
        "node has a pool of its own, and relies on the settings of its sessions",
        key="database.postgresql.hosts",
    )


def wrong_encoding(where: str, name: str, encoding: str) -> DatabaseUnavailableError | None:
    """None where every text fits into a database of *encoding*."""
    if encoding in ("UTF8", "SQL_ASCII"):
        return None
    return DatabaseUnavailableError(
        f"the database {name} at {where} cannot keep every text",
        why=f"its encoding is {encoding}",
        remedy="make one with ENCODING 'UTF8' TEMPLATE template0, and copy what is in this one by a "
        "backup",
        key="database.postgresql.name",
    )


def timed_out(seconds: float) -> DatabaseLimitError:
    return DatabaseLimitError(
        "a statement took too long",
        why=f"it was interrupted after {seconds:g} s",
        remedy="narrow it, or allow it more time",
        key="database.query_timeout",
    )


def map_result(
    result: pq.abc.PGresult, where: str, *, reading: bool, within: float
) -> DatabaseError:
    """The error to raise for *result*, a statement that failed and left nothing.

    Args:
      reading: the statement was not allowed to change anything.
      within: seconds it was allowed, for the message.
    """
    code = sqlstate(result)
    why = _why(result, code)
    kind = code[:2]
    if code in (SERIALIZATION_FAILURE, DEADLOCK):
        return conflict(why)
    if code in _ENDING or kind == "08" or is_fatal(result):
        return lost(where, why)
    if code == READ_ONLY:
        if reading:
            return DatabaseInvalidError("a read wanted to write", why=why, remedy=_DEFECT)
        return read_only(where, why)
    if code == CANCELLED:
        if "user request" in why:
            # Not this node's: what it cancels itself is not asked about.
            return DatabaseTransientError(
                "a statement was ended at the server",
                why=why,
                remedy="try again; see there who called pg_cancel_backend",
            )
        return timed_out(within)
    if kind == "23":
        error = DatabaseConflictError if code in _CONFLICTS else DatabaseInvalidError
        return error("the database refused a change", why=why)
    if code == "55P03":
        return DatabaseLimitError("a lock was not to be had in time", why=why)
    return _map_condition(code, why, where)


def _map_condition(code: str, why: str, where: str) -> DatabaseError:
    kind = code[:2]
    if code == TOO_MANY_CONNECTIONS:
        return too_many(where, why)
    if code == "53100" or code == "53200":
        if code == "53200":
            return DatabaseLimitError(
                "PostgreSQL has not enough memory for a statement", why=why, remedy="send less"
            )
        return DatabaseFullError(
            f"PostgreSQL at {where} has no space left",
            why=why,
            remedy="free some where the server keeps its data; nothing of the change was kept",
        )
    if kind == "53":
        return DatabaseUnavailableError(f"PostgreSQL at {where} is out of a resource", why=why)
    if code in ("XX001", "XX002"):
        return DatabaseCorruptError(
            f"PostgreSQL at {where} finds its own data damaged",
            why=why,
            remedy="stop the server, keep its data directory, restore a backup; see the runbook "
            "database-away",
        )
    if kind == "58":
        return DatabaseUnavailableError(
            f"PostgreSQL at {where} cannot read or write its data",
            why=why,
            remedy="look at the server's log and at the disk below it",
        )
    if code == "42501":
        return DatabaseUnavailableError(
            f"PostgreSQL at {where} does not allow a statement",
            why=why,
            remedy="make the role the owner of the database: ALTER DATABASE … OWNER TO …; or, where the "
            "owner is to be another role, have it run what changes tables (novacron database migrate), "
            "see docs/guide/security.md",
            key="database.postgresql.user",
        )
    if code == "3F000":
        return DatabaseUnavailableError(
            f"PostgreSQL at {where} has no schema for the role's tables",
            why=why,
            remedy="CREATE SCHEMA … AUTHORIZATION the role, in that database, or set its search_path",
            key="database.postgresql.user",
        )
    if kind == "54":
        return DatabaseLimitError("a value or a result is too large for the database", why=why)
    return DatabaseInvalidError("the database refused a statement", why=why, remedy=_DEFECT)


def map_failed_login(text: str, where: str, *, user: str, used_password: bool) -> DatabaseError:
    """The error for a connection that the server, or libpq, gave up with *text*.

    libpq hands over no SQLSTATE here, only the server's text, which may be in another language:
    then it is *away*, with that text, and looked for further.
    """
    why = first_line(text)
    lower = why.lower()
    if (
        "too many clients" in lower
        or "connection slots" in lower
        or "too many connections" in lower
    ):
        return too_many(where, why)
    if any(sign in lower for sign in _STARTING):
        return away(where, why)
    if "unsupported startup parameter" in lower:
        return pooled(where, why)
    if "database" in lower and "does not exist" in lower:
        return DatabaseUnavailableError(
            f"PostgreSQL at {where} has no such database",
            why=why,
            remedy="create it, owned by the role: CREATE DATABASE … OWNER …",
            key="database.postgresql.name",
        )
    for signs, what, remedy, key in _CERTIFICATES:
        if all(sign in lower for sign in signs):
            return DatabaseTlsError(
                what.format(where=where), why=why, remedy=remedy, key=f"database.postgresql.{key}"
            )
    broke = any(sign in lower for sign in _BROKE)
    if not broke and (used_password or any(sign in lower for sign in _REFUSED)):
        return DatabaseCredentialsError(
            f"PostgreSQL at {where} does not let {user} in",
            why=why,
            remedy="correct the role, its password or certificate, or pg_hba.conf of the server",
            key="database.postgresql.user"
            if "password" not in lower
            else "database.postgresql.password",
        )
    if not broke and any(sign in lower for sign in _TLS):
        return DatabaseTlsError(
            f"there is no TLS with PostgreSQL at {where}",
            why=why,
            remedy="give the server a certificate for its name by an authority in "
            "database.postgresql.ca_certificate",
            key="database.postgresql.tls",
        )
    return away(where, why)


NO_NAME = "its name cannot be one of a host"

_STARTING = (
    "starting up",
    "shutting down",
    "in recovery mode",
    "not yet accepting",
    "not accepting connections",
    "recovery state",
)
_REFUSED = (
    "password authentication failed",
    "no password supplied",
    "pg_hba.conf",
    "authentication failed",
    "is not permitted to log in",
    "permission denied for database",
    "peer authentication",
)
_BROKE = (
    "closed the connection",
    "could not receive",
    "could not send",
    "syscall",
    "timeout",
    # The TLS library's words for a connection that ended in the middle of the handshake.
    "unexpected eof",
)
_OURS = "this node's certificate for PostgreSQL cannot be used"
_REFUSED_OURS = "PostgreSQL at {where} does not accept this node's certificate"
_RENEW = "renew it, by an authority that the server's ssl_ca_file has"
_CERTIFICATES = (
    (
        ("could not load private key",),
        _OURS,
        "put the key there that belongs to the certificate, as PEM and without a passphrase",
        "private_key",
    ),
    (("could not read certificate file",), _OURS, "put it there as PEM", "certificate"),
    (
        ("could not read root certificate",),
        "the authority of PostgreSQL's certificate cannot be used",
        "put the authority's certificate there as PEM",
        "ca_certificate",
    ),
    (
        ("requires a valid client certificate",),
        "PostgreSQL at {where} wants a certificate of this node",
        "set certificate and private_key, or correct pg_hba.conf of the server",
        "certificate",
    ),
    # An alert is what the other side says about what it was shown.
    (("alert", "certificate"), _REFUSED_OURS, _RENEW, "certificate"),
    (("alert", "unknown ca"), _REFUSED_OURS, _RENEW, "certificate"),
)
"""What must be in the text; what failed, what to do, and the key. The first that fits."""
_TLS = ("certificate", "does not support ssl", "ssl error", "tls", "server name")
_DEFECT = "this is a defect in NovaCron; report it with this message"


def first_line(text: str) -> str:
    """libpq names host and port before what it says, which the error does already."""
    # What it adds, whether a server runs there, is asked by the error as well.
    line = " ".join(text.split()).partition(" Is the server running")[0]
    for mark in ("FATAL: ", "failed: "):
        if mark in line:
            line = line.rpartition(mark)[2]
    return line.strip()[:300]


def _why(result: pq.abc.PGresult, code: str) -> str:
    if not code:
        return first_line(result.get_error_message())
    if code.startswith(_QUOTED) and code not in ("XX001", "XX002"):
        return f"PostgreSQL answers {code}"
    text = result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b""
    return f"PostgreSQL says “{text.decode('utf-8', 'replace')}” ({code})"
