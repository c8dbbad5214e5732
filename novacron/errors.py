"""The error taxonomy: where something failed, and what the caller can do about it.

Every error NovaCron raises on purpose derives from :class:`NovaCronError` and combines two axes by
inheritance: *where* (``DatabaseError``, ``NetworkError``, …) and *what the caller can do*
(``TransientError`` retry, ``InvalidError`` fix the input, …). Boot retries on the second axis
alone; the API maps the second axis to status codes in one table. Foreign exceptions are mapped
once, in the file that imports the foreign library.
"""

from __future__ import annotations

from typing import ClassVar


class NovaCronError(Exception):
    """Root of the taxonomy; carries what an operator needs at three in the morning.

    Args:
      what: What failed, one clause, no trailing full stop ("cannot listen on 127.0.0.1:7400").
      why: The cause as far as it is known ("the port is in use by pid 4711 (nginx)").
      remedy: What to do about it, imperative ("stop that process or set api.port").
      key: The configuration key concerned, dotted ("api.port").

    No argument may hold a secret: all four reach logs, reports and API answers.
    """

    code: ClassVar[str] = "novacron.error"
    """Stable dotted identifier; part of the public interface."""

    retryable: ClassVar[bool] = False
    """Whether trying the same thing again later may succeed."""

    def __init__(self, what: str, *, why: str = "", remedy: str = "", key: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.remedy = remedy
        self.key = key

    def __str__(self) -> str:
        text = self.what
        if self.why:
            text += f": {self.why}"
        if self.remedy:
            text += f". {self.remedy[0].upper()}{self.remedy[1:]}"
        if self.key:
            text += f" [{self.key}]"
        return text


# --- What the caller can do -------------------------------------------------------------------


class TransientError(NovaCronError):
    """Retry: the same call may succeed later."""

    code = "novacron.transient"
    retryable = True


class UnavailableError(NovaCronError):
    """Degrade: the thing is not there on this machine or at this time."""

    code = "novacron.unavailable"


class InvalidError(NovaCronError):
    """Fix the input: the same call will fail again."""

    code = "novacron.invalid"


class DeniedError(NovaCronError):
    """Not allowed for this caller."""

    code = "novacron.denied"


class NotFoundError(NovaCronError):
    """The named thing does not exist."""

    code = "novacron.not_found"


class ConflictError(NovaCronError):
    """The state changed under the caller, or somebody else holds the thing."""

    code = "novacron.conflict"


class LimitError(NovaCronError):
    """Slow down or send less; the message names the limit."""

    code = "novacron.limit"


class LocalProtocolError(NovaCronError):
    """Our bug: we were about to say something the protocol forbids."""

    code = "novacron.local_protocol"


class RemoteProtocolError(NovaCronError):
    """Drop the peer: it said something the protocol forbids."""

    code = "novacron.remote_protocol"


# --- Where ------------------------------------------------------------------------------------


class ConfigError(NovaCronError):
    """In the configuration."""

    code = "config"


class BootError(NovaCronError):
    """In the boot engine."""

    code = "boot"


class EnvironmentProbeError(NovaCronError):
    """While finding out what machine this is."""

    code = "environment"


class SecurityError(NovaCronError):
    """In secrets, certificates, tokens or the audit log."""

    code = "security"


class DatabaseError(NovaCronError):
    """In the database."""

    code = "database"


class CacheError(NovaCronError):
    """In the cache."""

    code = "cache"


class NetworkError(NovaCronError):
    """In listeners and peer sessions."""

    code = "network"


class DwcpError(NovaCronError):
    """In moving data between nodes."""

    code = "dwcp"


class ApiError(NovaCronError):
    """In the REST interface."""

    code = "api"


class MonitoringError(NovaCronError):
    """In metrics."""

    code = "monitoring"


class NativeError(NovaCronError):
    """In the C extension."""

    code = "native"
