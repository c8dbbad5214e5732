"""What goes wrong with Redis, in words that say what to do about it."""

from __future__ import annotations

import os
import ssl
from collections.abc import Sequence
from typing import Final

from coredis.exceptions import (
    AuthenticationError,
    AuthenticationRequiredError,
    AuthorizationError,
    BusyLoadingError,
    NoScriptError,
    ProtocolError,
    ReadOnlyError,
    ResponseError,
    UnknownCommandError,
)
from coredis.exceptions import ConnectionError as LostError

from novacron.cache.store import (
    CacheAwayError,
    CacheDeniedError,
    CacheFrozenError,
    CacheFullError,
    CacheIdentityError,
    CacheProtocolError,
    CacheReadOnlyError,
    CacheRefusedError,
    CacheUnavailableError,
)

KEY: Final = "cache.redis"
"""Where the configuration keys are."""

RIGHTS: Final = (
    "+get +set +pttl +pexpire +exists +unlink +scan +evalsha +script|load +publish +subscribe "
    "+role +info +select +client|info +client|kill +client|setname +client|tracking"
)
"""What the node's user has to be allowed, on the keys and channels of the prefix."""


def causes_of(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    pending: list[BaseException | None] = [error]
    while pending:
        one = pending.pop()
        if one is None or one in found:
            continue
        found.append(one)
        if isinstance(one, BaseExceptionGroup):
            pending.extend(one.exceptions)
        pending += [one.__context__, one.__cause__]
    return found


def read_only(address: str) -> CacheReadOnlyError:
    return CacheReadOnlyError(
        f"cannot use Redis at {address}",
        why="it is a replica, which takes no changes and may lag behind",
        remedy="name the primary, or an address that follows it",
        key=f"{KEY}.address",
    )


def mapped(error: BaseException, address: str) -> CacheUnavailableError:
    """What *error* of coredis, TLS or the network means here."""
    what = f"cannot use Redis at {address}"
    causes = causes_of(error)
    for cause in causes:
        if isinstance(cause, ssl.SSLError):
            return _tls_failure(cause, what)
    if isinstance(error, AuthenticationRequiredError):
        return CacheDeniedError(
            what,
            why="it asks for credentials, and none are set",
            remedy="set user and password",
            key=f"{KEY}.password",
        )
    if isinstance(error, AuthenticationError):
        return CacheDeniedError(
            what,
            why=f"it refuses the credentials ({_text(error)})",
            remedy="correct user and password here, or the ACL user there",
            key=f"{KEY}.password",
        )
    if isinstance(error, AuthorizationError):
        return CacheDeniedError(
            what,
            why=f"the user may not do what the node needs ({_text(error)})",
            remedy=f"give it these rights on keys and channels of the prefix: {RIGHTS}",
            key=f"{KEY}.user",
        )
    if isinstance(error, ReadOnlyError):
        return read_only(address)
    if isinstance(error, UnknownCommandError):
        return CacheProtocolError(
            what,
            # Of its text the command alone, which is quoted: behind it are values.
            why="it does not know the command " + [*str(error).split("'"), ""][1],
            remedy="the node needs Redis 7 or newer, with these commands enabled",
            key=f"{KEY}.address",
        )
    if isinstance(error, BusyLoadingError):
        return CacheAwayError(
            what,
            why="it is still loading its data",
            remedy="wait; the node goes on trying",
            key=f"{KEY}.address",
        )
    if isinstance(error, NoScriptError):
        return CacheAwayError(
            what,
            why="its scripts were flushed",
            remedy="nothing: the node connects anew and loads them again",
            key=f"{KEY}.address",
        )
    if isinstance(error, ResponseError):
        return _refusal(error, address)
    if isinstance(error, ProtocolError) or any(
        isinstance(cause, ProtocolError | ValueError | AssertionError | TypeError | AttributeError)
        for cause in causes
    ):
        return CacheProtocolError(
            what,
            why="what answers there does not speak Redis's protocol, or a part of it was lost",
            remedy="see what listens on that address, and whether it expects TLS",
            key=f"{KEY}.address",
        )
    return _away(causes, what)


def _tls_failure(error: ssl.SSLError, what: str) -> CacheIdentityError:
    if isinstance(error, ssl.SSLCertVerificationError):
        message = error.verify_message
        key = "address" if "mismatch" in message else "ca_certificate"
        return CacheIdentityError(
            what,
            why=f"its certificate is not accepted: {message.rstrip('.')}",
            remedy="renew it, or correct the name in the address or the authority that is trusted",
            key=f"{KEY}.{key}",
        )
    return CacheIdentityError(
        what,
        why=f"TLS failed: {(error.reason or str(error)).replace('_', ' ').lower()}",
        remedy="see whether the server expects TLS, and a certificate of its clients",
        key=f"{KEY}.tls",
    )


def _refusal(error: ResponseError, address: str) -> CacheUnavailableError:
    text = _text(error)
    if text.startswith("OOM"):
        return CacheFullError(
            f"Redis at {address} takes no more values",
            why=text,
            remedy="give it more memory or a maxmemory-policy that evicts",
            key=f"{KEY}.address",
        )
    if text.startswith(("MISCONF", "NOREPLICAS")):
        return CacheFrozenError(
            f"Redis at {address} takes no changes",
            why=text,
            remedy="free or mend the disk it saves to, or bring back its replicas; the node goes on "
            "in memory and tells it then what changed",
            key=f"{KEY}.address",
        )
    if text.startswith(("DENIED", "AUTH ", "Client sent AUTH")):
        return CacheDeniedError(
            f"cannot use Redis at {address}",
            why=text,
            remedy="correct user and password here, or protected-mode and the ACL users there",
            key=f"{KEY}.password",
        )
    if text.startswith("MASTERDOWN"):
        return read_only(address)
    return CacheRefusedError(
        f"Redis at {address} refused a command",
        why=text,
        remedy="see whether something else uses the same keys",
        key=f"{KEY}.prefix",
    )


def _away(causes: Sequence[BaseException], what: str) -> CacheAwayError:
    why = ""
    for cause in causes:
        if isinstance(cause, OSError) and cause.strerror:
            # Not its own text, where there is a number: Trio's has the address as a Python value in it.
            number = cause.errno or 0
            why = os.strerror(number) if number > 0 else cause.strerror
        elif isinstance(cause, TimeoutError):
            why = why or "no answer in time"
        elif isinstance(cause, LostError) and "max number" in str(cause):
            why = "it has as many clients as it takes (maxclients)"
    return CacheAwayError(
        what,
        why=why or "the connection was closed",
        remedy="see whether the server runs, can be reached, and expects TLS as set here",
        key=f"{KEY}.address",
    )


def _text(error: Exception) -> str:
    return str(error).partition(" script: ")[0].strip().rstrip(".")[:200]
