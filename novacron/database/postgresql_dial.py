"""Opening a connection: look up the name, log in, and see whether the server takes changes.

libpq looks names up in a way that blocks, so that is done before. The secrets are read anew each
time: a password that was rotated is used from the next connection on.
"""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Sequence

import trio
from psycopg import Error as DriverError
from psycopg import pq

from novacron.database.postgresql_connection import (
    Connection,
    LostError,
    OverdueError,
    Step,
)
from novacron.database.postgresql_errors import (
    NO_NAME,
    away,
    map_failed_login,
    pooled,
    read_only,
    wrong_encoding,
)
from novacron.database.postgresql_lineage import LINEAGE, read_lineage
from novacron.database.postgresql_mode import Mode
from novacron.database.postgresql_target import (
    WITNESS,
    Endpoint,
    Target,
    conninfo,
    milliseconds,
)
from novacron.database.store import (
    DatabaseAwayError,
    DatabaseReadOnlyError,
    DatabaseStaleError,
    DatabaseTlsError,
    DatabaseUnavailableError,
)
from novacron.errors import DatabaseError, NovaCronError

OLDEST_SERVER = 140000
"""From 14 on a server reports by itself whether it is a standby, which saves a round trip."""
OLDEST_LIBRARY = 170000
"""From 17 on libpq cancels without blocking and over TLS."""

SECOND_GRACE = 0.25
"""Seconds the other servers get to say that they take changes, too, once one has. A standby says that it
is none with the last packet of its login, which was begun at the same moment; this much is only
waited for a server that is silent, or far away."""

_SSL_REQUEST = struct.pack("!ii", 8, 80877103)
"""https://www.postgresql.org/docs/15/protocol-message-formats.html"""
_UNTRUSTED = frozenset((2, 18, 19, 20, 21))
"""X509_V_ERR_*: no issuer found, self-signed, no chain to an authority that is trusted."""


async def dial(target: Target, preferred: Endpoint | None = None) -> Connection:
    """Connect to the server that takes changes: the *preferred* one if it does, else whichever of all
    of them. Where several do, it is the one whose timeline is the newest.

    A server that this node knows to be replaced is none of them. A node that has not used any server
    yet has nothing to compare with: of a single one the lineage is not looked at here, which would
    be a round trip, but with the rest of what a boot reads.

    Raises:
      DatabaseStaleError: a server takes changes, and is not to.
      DatabaseReadOnlyError: servers were reached, and all of them are standbys or read-only.
      DatabaseError: of the first server that had another reason, or of the first, where none was
        reached; see :mod:`novacron.database.store`.
      SecretReferenceError: a secret cannot be read.
    """
    if pq.version() < OLDEST_LIBRARY:
        raise DatabaseUnavailableError(
            "the PostgreSQL driver is too old",
            why=f"its libpq is {pq.version() // 10000}, and {OLDEST_LIBRARY // 10000} is needed",
            remedy="install psycopg[binary] as requirements.lock has it",
        )
    if preferred is None:
        return await _dial_any(target, target.endpoints)
    try:
        return await dial_one(target, preferred)
    except DatabaseError:
        others = [endpoint for endpoint in target.endpoints if endpoint != preferred]
        if not others:
            raise
    # With the preferred one: it may be there again, or say best what is wrong.
    return await _dial_any(target, [preferred, *others])


async def _dial_any(target: Target, endpoints: Sequence[Endpoint]) -> Connection:
    """All at once: one that is silent delays none of the others."""
    if len(endpoints) == 1:
        return await dial_one(target, endpoints[0])
    found: dict[Endpoint, Connection] = {}
    failures: dict[Endpoint, NovaCronError] = {}

    async def one(endpoint: Endpoint) -> None:
        try:
            found[endpoint] = await dial_one(target, endpoint)
        except NovaCronError as error:
            failures[endpoint] = error
        else:
            nursery.cancel_scope.deadline = trio.current_time() + SECOND_GRACE

    try:
        async with trio.open_nursery() as nursery:
            for endpoint in endpoints:
                nursery.start_soon(one, endpoint)
        if len(found) > 1:
            await _keep_newest(found, target.settings.connect_timeout)
    except BaseException:
        for connection in found.values():
            connection.close()
        raise
    if found:
        return next(found[endpoint] for endpoint in endpoints if endpoint in found)
    raise _choose([failures[endpoint] for endpoint in endpoints], target)


async def _keep_newest(found: dict[Endpoint, Connection], seconds: float) -> None:
    for endpoint, connection in list(found.items()):
        if connection.lineage is None:
            try:
                await look_at_lineage(connection, seconds)
            except DatabaseError:
                if len(found) == 1:
                    raise
                found.pop(endpoint).close()
    lineages = [connection.lineage for connection in found.values()]
    for endpoint, connection in list(found.items()):
        lineage = connection.lineage
        if lineage is not None and any(lineage.is_older(other) for other in lineages):
            found.pop(endpoint).close()


def _choose(failures: list[NovaCronError], target: Target) -> NovaCronError:
    # What says most: a server that is not to take changes and does; one that has its own reason; one
    # that takes none; and last one that is down.
    less = (DatabaseAwayError, DatabaseReadOnlyError)
    for kinds, wanted in ((DatabaseStaleError, True), (less, False), (DatabaseReadOnlyError, True)):
        for failure in failures:
            if isinstance(failure, kinds) is wanted:
                return _beside_others(failure, failures)
    if all(isinstance(each, DatabaseAwayError) for each in failures):
        names = ", ".join(endpoint.address for endpoint in target.endpoints)
        return away(names, "; ".join(each.why for each in failures))
    return failures[0]


def _beside_others(failure: NovaCronError, failures: list[NovaCronError]) -> NovaCronError:
    """A standby alone is told to be promoted, which is wrong while its primary is only restarted: so say
    what is with the others, too."""
    others = "; ".join(
        f"{each.what}: {each.why}" for each in failures if isinstance(each, DatabaseAwayError)
    )
    if not others or not isinstance(failure, DatabaseReadOnlyError):
        return failure
    return type(failure)(
        failure.what, why=f"{failure.why}; {others}", remedy=failure.remedy, key=failure.key
    )


async def dial_one(target: Target, endpoint: Endpoint) -> Connection:
    """Connect to this server.

    Raises:
      DatabaseStaleError: it takes changes, and is not to.
      DatabaseError, SecretReferenceError: as :func:`dial`.
    """
    connection = await _dial_one(target, endpoint)
    if target.lineages.newest is not None:
        try:
            await look_at_lineage(connection, target.settings.connect_timeout)
            target.lineages.check(connection.lineage, connection.where)
        except BaseException:
            connection.close()
            raise
    return connection


async def look_at_lineage(connection: Connection, seconds: float) -> None:
    """Set :attr:`Connection.lineage`, in one round trip.

    Raises:
      DatabaseAwayError: the connection was lost, or *seconds* passed.
    """
    where = connection.where
    step = Step(LINEAGE, 1, optional=True)
    try:
        answer = await connection.exchange([step], trio.current_time() + seconds)
    except OverdueError:
        raise away(where, f"it did not answer within {seconds:g} s") from None
    except LostError as error:
        raise away(where, error.why) from error
    if answer.rows:
        connection.lineage = read_lineage(answer.rows[0])


async def _dial_one(target: Target, endpoint: Endpoint) -> Connection:
    timeout = target.settings.connect_timeout
    with trio.move_on_after(timeout):
        failure: DatabaseError | None = None
        for address in await _addresses(endpoint):
            try:
                return await _open(target, endpoint, address)
            except (DatabaseAwayError, DatabaseReadOnlyError) as error:
                # A name may stand for several servers; that one of them is a standby says more.
                if not isinstance(failure, DatabaseReadOnlyError):
                    failure = error
        assert failure is not None
        raise failure
    raise away(endpoint.address, f"it did not answer within {timeout:g} s")


async def _addresses(endpoint: Endpoint) -> list[str | None]:
    if endpoint.is_socket:
        return [None]
    try:
        found = await trio.socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise away(endpoint.address, f"its name cannot be looked up: {error.strerror}") from error
    except UnicodeError as error:
        # What the rules of host names forbid, such as two dots in a row, is not even asked for.
        raise away(endpoint.address, NO_NAME) from error
    return [str(entry[4][0]) for entry in found]


async def _open(target: Target, endpoint: Endpoint, address: str | None) -> Connection:
    if target.has_secrets:
        parameters = await trio.to_thread.run_sync(target.parameters, endpoint, address)
    else:
        parameters = target.parameters(endpoint, address)
    raw = pq.PGconn.connect_start(conninfo(parameters))
    descriptor = -1
    try:
        try:
            status = pq.PollingStatus.WRITING
            while status != pq.PollingStatus.OK:
                # Before its socket is asked for: a Unix socket that is not there, or an address
                # without a way to it, has failed already and has none.
                if raw.status == pq.ConnStatus.BAD or status == pq.PollingStatus.FAILED:
                    raise await _explain(target, endpoint, address, raw)
                descriptor = raw.socket
                if status == pq.PollingStatus.READING:
                    await trio.lowlevel.wait_readable(descriptor)
                else:
                    await trio.lowlevel.wait_writable(descriptor)
                status = pq.PollingStatus(raw.connect_poll())
        except (DriverError, OSError) as error:
            raise away(endpoint.address, str(error)) from error
        connection = Connection(raw, endpoint)
        connection.mode = Mode(True, milliseconds(target.query_timeout))
    except BaseException:
        if descriptor >= 0:
            trio.lowlevel.notify_closing(descriptor)
        raw.finish()
        raise
    try:
        _check_server(connection, target.settings.name)
    except BaseException:
        connection.close()
        raise
    return connection


def _check_server(connection: Connection, name: str) -> None:
    where = connection.where
    if connection.version < OLDEST_SERVER:
        raise DatabaseUnavailableError(
            f"PostgreSQL at {where} is too old",
            why=f"it is version {connection.version // 10000}, and "
            f"{OLDEST_SERVER // 10000} is needed",
            remedy="upgrade the server",
            key="database.postgresql.hosts",
        )
    for name, value in WITNESS.items():
        if connection.parameter(name) != value:
            raise pooled(where, "it drops the settings that a connection begins with")
    unfit = wrong_encoding(where, name, connection.parameter("server_encoding"))
    if unfit is not None:
        raise unfit
    if connection.parameter("in_hot_standby") == "on":
        raise read_only(where, "it is a standby that follows another server")
    if connection.parameter("default_transaction_read_only") == "on":
        raise read_only(where, "its default_transaction_read_only is on")


async def _explain(
    target: Target, endpoint: Endpoint, address: str | None, raw: pq.abc.PGconn
) -> DatabaseError:
    """Why there is no connection. libpq says “certificate verify failed” whatever is wrong with a
    certificate; then TLS is tried once more, with a library that says what."""
    error = map_failed_login(
        raw.get_error_message(),
        endpoint.address,
        user=target.settings.user,
        used_password=raw.used_password,
    )
    if isinstance(error, DatabaseTlsError) and address is not None:
        why = ""
        with trio.move_on_after(target.settings.connect_timeout / 2):
            why = await _what_is_wrong(target, endpoint, address)
        if why:
            return DatabaseTlsError(error.what, why=why, remedy=error.remedy, key=error.key)
    return error


async def _what_is_wrong(target: Target, endpoint: Endpoint, address: str) -> str:
    """What is wrong with the server's certificate, or nothing."""
    settings = target.settings
    try:
        context = ssl.create_default_context(cafile=settings.ca_certificate)
        context.check_hostname = settings.tls == "verify-full"
        stream = await trio.open_tcp_stream(address, endpoint.port)
        async with stream:
            await stream.send_all(_SSL_REQUEST)
            if await stream.receive_some(1) != b"S":
                return "the server has no TLS"
            tls = trio.SSLStream(stream, context, server_hostname=endpoint.host)
            await tls.do_handshake()
    except (OSError, trio.BrokenResourceError) as error:
        cause = error if isinstance(error, ssl.SSLError) else error.__cause__
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _certificate_fault(cause, endpoint)
    return ""


def _certificate_fault(error: ssl.SSLCertVerificationError, endpoint: Endpoint) -> str:
    if error.verify_code == 10:
        return "the server's certificate has expired"
    if error.verify_code == 9:
        return "the server's certificate is not valid yet; one of the two clocks may be wrong"
    if error.verify_code in _UNTRUSTED:
        return "the server's certificate was not issued by an authority that is trusted here"
    if error.verify_code in (62, 64):
        return f"the server's certificate is not for {endpoint.host}"
    return f"the server's certificate is not accepted: {error.verify_message}"
