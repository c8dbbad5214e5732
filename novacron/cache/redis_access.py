"""How Redis is reached: the settings, with the secrets and files they refer to."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

from novacron.cache.redis_link import Target
from novacron.cache.store import CacheDeniedError, CacheIdentityError
from novacron.config.schema import RedisSettings
from novacron.errors import SecurityError
from novacron.security.references import read_secret

_KEY = "cache.redis"


def read_target(settings: RedisSettings) -> Target:
    """What *settings* lead to now; read for each connection, so that what was renewed is used. Blocks
    on the disk.

    Raises:
      CacheDeniedError: the password cannot be read.
      CacheIdentityError: a file that TLS needs cannot be used.
    """
    host, _, port = settings.address.rpartition(":")
    password = None
    if settings.password is not None:
        try:
            secret = read_secret(settings.password, key=f"{_KEY}.password")
        except SecurityError as error:
            raise CacheDeniedError(
                error.what, why=error.why, remedy=error.remedy, key=error.key
            ) from error
        try:
            password = secret.strip().decode()
        except UnicodeDecodeError as error:
            raise CacheDeniedError(
                "cannot use the password for Redis",
                why="it is not UTF-8",
                remedy="give the user another one, here and in its ACL",
                key=f"{_KEY}.password",
            ) from error
    return Target(
        host.strip("[]"),
        int(port),
        settings.user,
        password,
        None if settings.tls == "off" else _context(settings),
    )


def _context(settings: RedisSettings) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.ca_certificate is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        try:
            context.load_verify_locations(settings.ca_certificate)
        except (ssl.SSLError, OSError) as error:
            raise _unusable(settings.ca_certificate, error, "ca_certificate") from error
    if settings.certificate is not None:
        _load_own(context, settings.certificate, settings.private_key)
    return context


def _load_own(context: ssl.SSLContext, certificate: str, reference: str | None) -> None:
    if reference is None:
        raise CacheIdentityError(
            f"cannot use the certificate {certificate}",
            why="its private key is not set",
            remedy="set the key as well, or neither",
            key=f"{_KEY}.private_key",
        )
    try:
        key = read_secret(reference, key=f"{_KEY}.private_key")
    except SecurityError as error:
        raise CacheIdentityError(
            error.what, why=error.why, remedy=error.remedy, key=error.key
        ) from error
    # OpenSSL takes keys from files alone. This one has no name and never touches a disk.
    descriptor = os.memfd_create("novacron-redis-key", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, key)
        context.load_cert_chain(
            Path(certificate), f"/proc/self/fd/{descriptor}", password=_no_password
        )
    except (ssl.SSLError, OSError) as error:
        raise _unusable(certificate, error, "certificate") from error
    finally:
        os.close(descriptor)


def _no_password() -> str:
    # Without this OpenSSL would ask on the terminal, and wait for an answer.
    return ""


def _unusable(path: str, error: OSError, key: str) -> CacheIdentityError:
    why = getattr(error, "reason", None) or error.strerror or type(error).__name__
    return CacheIdentityError(
        f"cannot use the certificate {path}",
        why=str(why).replace("_", " ").lower(),
        remedy="correct the path, or put a PEM file there that belongs to its key",
        key=f"{_KEY}.{key}",
    )
