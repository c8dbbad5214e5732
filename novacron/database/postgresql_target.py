"""Which servers to connect to and how, from the settings; and the secrets that takes.

Everything libpq would otherwise take from the environment or the user's files is set here: a node
connects to what its configuration says, and to nothing that ``PGHOST`` or ``~/.pgpass`` say.
Parameters: https://www.postgresql.org/docs/15/libpq-connect.html.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from pathlib import Path

from novacron.config.schema import PostgresqlSettings
from novacron.database.postgresql_lineage import Lineages
from novacron.database.store import DatabaseInvalidError, DatabaseUnavailableError
from novacron.record import Record
from novacron.security.references import read_secret, secret_path

KEY = "database.postgresql"
DEFAULT_PORT = 5432

KEEPALIVE_SECONDS = 10
"""Silence after which the kernel asks whether the server's machine is there; three answers missing,
three seconds apart, and the connection is gone."""
UNACKNOWLEDGED_MILLISECONDS = 10_000
"""Time the kernel keeps trying to deliver what was sent (``TCP_USER_TIMEOUT``). A server's machine
that lost its power is noticed after this and not after the kernel's quarter of an hour."""


WITNESS = {"IntervalStyle": "iso_8601"}
"""A setting that matters to nobody, is not the server's default, and is reported by it unasked: it
tells whether those that matter have arrived, which a pooler in between drops if it is told to."""


class Endpoint(Record):
    """One server as the configuration names it."""

    host: str
    """Name, address, or the absolute directory of a Unix socket."""
    port: int

    @property
    def is_socket(self) -> bool:
        return self.host.startswith("/")

    @property
    def is_here(self) -> bool:
        """Whether what is sent to it stays on this machine."""
        if self.is_socket or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def address(self) -> str:
        if self.is_socket:
            return f"{self.host}/.s.PGSQL.{self.port}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_endpoint(text: str) -> Endpoint:
    """``host:port``, ``[address]:port``, ``host`` or ``/directory`` (``/directory:port``).

    Raises:
      DatabaseInvalidError: it is none of these.
    """
    host, colon, port = text.rpartition(":")
    if not colon or (text.startswith("[") and text.endswith("]")):
        host, port = text, str(DEFAULT_PORT)
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise DatabaseInvalidError(
            f"{text!r} names no PostgreSQL server",
            why="it is neither host:port nor the absolute directory of a Unix socket",
            remedy="write for example db1.example.org:5432",
            key=f"{KEY}.hosts",
        )
    return Endpoint(host, int(port))


class Target:
    """The servers of one database.

    Args:
      settings: ``database.postgresql``.
      query_timeout: seconds the server lets one statement run; a statement's own deadline may be
        shorter, and is then this node's to keep.
      lineages: what is known of the servers from before.

    Raises:
      DatabaseInvalidError: the settings contradict each other; the message names the key.
    """

    def __init__(
        self,
        settings: PostgresqlSettings,
        *,
        query_timeout: float,
        lineages: Lineages | None = None,
    ) -> None:
        self.settings = settings
        self.lineages = lineages or Lineages()
        self.query_timeout = query_timeout
        self.endpoints = tuple(parse_endpoint(text) for text in settings.hosts)
        self._key_descriptor: int | None = None
        self._check(settings)

    def _check(self, settings: PostgresqlSettings) -> None:
        if settings.tls == "off" and not settings.plaintext:
            for endpoint in self.endpoints:
                if not endpoint.is_here:
                    raise DatabaseInvalidError(
                        f"refusing to talk to {endpoint.address} in the clear",
                        why=f"{KEY}.tls is off, and that is another machine",
                        remedy=f"set {KEY}.tls to verify-full and {KEY}.ca_certificate, or allow "
                        f"it with {KEY}.plaintext",
                        key=f"{KEY}.tls",
                    )
        if (settings.certificate is None) != (settings.private_key is None):
            missing = "private_key" if settings.private_key is None else "certificate"
            raise DatabaseInvalidError(
                "a certificate for PostgreSQL needs its private key",
                why=f"{KEY}.{missing} is not set",
                remedy="set both or neither",
                key=f"{KEY}.{missing}",
            )
        if settings.pool_min > settings.pool_max:
            raise DatabaseInvalidError(
                "the pool of PostgreSQL connections cannot be kept",
                why=f"{KEY}.pool_min ({settings.pool_min}) is more than pool_max "
                f"({settings.pool_max})",
                remedy="lower pool_min or raise pool_max",
                key=f"{KEY}.pool_min",
            )

    @property
    def has_secrets(self) -> bool:
        return self.settings.password is not None or self.settings.private_key is not None

    def parameters(self, endpoint: Endpoint, address: str | None) -> dict[str, str]:
        """What libpq needs for one attempt, secrets included. Blocks on the files of secrets.

        Args:
          address: of :attr:`Endpoint.host`, looked up already; libpq would block for that.

        Raises:
          SecretReferenceError: a secret cannot be read.
          DatabaseUnavailableError: a certificate file is missing.
        """
        settings = self.settings
        found = {
            "host": endpoint.host,
            "port": str(endpoint.port),
            "dbname": settings.name,
            "user": settings.user,
            "options": self._options(),
            "client_encoding": "UTF8",
            "application_name": "novacron",
            # No such file can be: libpq warns of a device.
            "passfile": f"{os.devnull}/none",
            "gssencmode": "disable",
            "target_session_attrs": "any",
            "load_balance_hosts": "disable",
            # This node keeps the deadline itself.
            "connect_timeout": "0",
            "keepalives": "1",
            "keepalives_idle": str(KEEPALIVE_SECONDS),
            "keepalives_interval": "3",
            "keepalives_count": "3",
            "tcp_user_timeout": str(UNACKNOWLEDGED_MILLISECONDS),
        }
        if address is not None:
            found["hostaddr"] = address
        if settings.password is not None:
            secret = read_secret(settings.password, key=f"{KEY}.password")
            found["password"] = secret.strip(b"\r\n").decode("utf-8", "surrogateescape")
        if endpoint.is_socket or settings.tls == "off":
            found["sslmode"] = "disable"
            # Otherwise a client looks for a certificate even where there is no TLS.
            found["sslcertmode"] = "disable"
        else:
            found |= self._tls()
        return found

    def _options(self) -> str:
        """Session settings travel with the first packet, so that they cost no round trip."""
        idle = max(60.0, 2 * self.query_timeout)
        return " ".join(
            f"-c {name}={value}"
            for name, value in {
                "default_transaction_isolation": "serializable",
                "statement_timeout": milliseconds(self.query_timeout),
                # A node that froze inside a transaction must not hold its locks for ever.
                "idle_in_transaction_session_timeout": milliseconds(idle),
                # A statement whose caller died goes on to no purpose otherwise.
                "client_connection_check_interval": 2000,
                # So much that a commit which no standby has says so.
                "client_min_messages": "warning",
                # Nor must one whose machine lost its power hold them, or the lock of who migrates,
                # for the two hours that are the kernel's default. No effect on a Unix socket.
                "tcp_keepalives_idle": KEEPALIVE_SECONDS,
                "tcp_keepalives_interval": 3,
                "tcp_keepalives_count": 3,
                "tcp_user_timeout": UNACKNOWLEDGED_MILLISECONDS,
                "TimeZone": "UTC",
                **WITNESS,
            }.items()
        )

    def _tls(self) -> dict[str, str]:
        settings = self.settings
        found = {
            "sslmode": settings.tls,
            "sslrootcert": _existing(settings.ca_certificate, "ca_certificate"),
            "ssl_min_protocol_version": "TLSv1.2",
            "sslcertmode": "disable" if settings.certificate is None else "allow",
        }
        if settings.ca_certificate is None:
            if settings.tls == "verify-ca":
                raise DatabaseInvalidError(
                    "any certificate would do for PostgreSQL",
                    why=f"{KEY}.tls is verify-ca and {KEY}.ca_certificate is not set: everyone "
                    "can have a certificate of an authority the system trusts",
                    remedy="set ca_certificate, or tls to verify-full",
                    key=f"{KEY}.ca_certificate",
                )
            found["sslrootcert"] = _system_authorities()
        if settings.certificate is not None and settings.private_key is not None:
            found["sslcert"] = _existing(settings.certificate, "certificate")
            found["sslkey"] = self._private_key(settings.private_key)
            # Without one the TLS library asks for a passphrase on the terminal, and everything waits
            # for the answer. Keys of a node have none; this is as wrong as any.
            found["sslpassword"] = "none"
        return found

    def _private_key(self, reference: str) -> str:
        """A path that libpq takes: it wants a file, private to this user."""
        if reference.startswith("file:"):
            # Checked as every secret is; then libpq reads it itself.
            read_secret(reference, key=f"{KEY}.private_key")
            return str(secret_path(reference, key=f"{KEY}.private_key"))
        # From the environment, or a credential whose mode libpq does not like: in memory only.
        secret = read_secret(reference, key=f"{KEY}.private_key")
        self.close()
        self._key_descriptor = os.memfd_create("novacron-postgresql-key", os.MFD_CLOEXEC)
        os.fchmod(self._key_descriptor, 0o600)
        os.write(self._key_descriptor, secret)
        return f"/proc/self/fd/{self._key_descriptor}"

    def close(self) -> None:
        """Forget the copy of the private key, if there is one. Harmless when repeated."""
        descriptor, self._key_descriptor = self._key_descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def milliseconds(seconds: float) -> int:
    """As the server's settings count; 0 would mean no limit."""
    return max(1, min(int(seconds * 1000), 2**31 - 1))


def conninfo(parameters: Mapping[str, str]) -> bytes:
    """A libpq connection string."""
    quoted = (
        (name, value.replace("\\", "\\\\").replace("'", "\\'"))
        for name, value in parameters.items()
    )
    return " ".join(f"{name}='{value}'" for name, value in quoted).encode(
        "utf-8", "surrogateescape"
    )


def _system_authorities() -> str:
    """The TLS library that comes with the driver was built elsewhere and looks elsewhere, so it is
    told where this system keeps them."""
    import ssl

    default = ssl.get_default_verify_paths().cafile or ""
    for path in (default, "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/cert.pem"):
        if path and Path(path).is_file():
            return path
    return "system"


def _existing(path: str | None, key: str) -> str:
    if path is not None and not Path(path).is_file():
        raise DatabaseUnavailableError(
            f"cannot read {path}",
            why="it is no file" if Path(path).exists() else "there is no such file",
            remedy="put it there, or correct the path",
            key=f"{KEY}.{key}",
        )
    return path or ""
