"""Each way in which a server fails a node, and how it is mended: the rows of the fault matrix.

``docs/internals/faults.md`` lists them with what a node does; a test holds the page to this table.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

from bench.backends import Backends
from bench.servers.postgresql import USER

SLOW = 0.5
"""Seconds of a round trip over a path that is slow; a client's own deadlines are ten times that."""

Action = Callable[[Backends], None]


class Fault(NamedTuple):
    name: str
    what: str
    """For the page."""
    break_: Action
    mend: Action
    serves: bool = False
    """Whether the server still does its work, only worse."""
    ends: bool = False
    """Whether it is over at once by itself: connections are lost, and new ones work."""


# --- PostgreSQL ------------------------------------------------------------------------------------


def _postgresql_certificate(backends: Backends, names: tuple[str, ...], days: float) -> None:
    backends.postgresql.certify(names, days=days)
    backends.postgresql.reload()
    # A server that reads its configuration again keeps the sessions it has.
    backends.to_postgresql.cut()


def _refuse_logins(backends: Backends) -> None:
    server = backends.postgresql
    server.allow(f"hostssl all {USER} 127.0.0.1/32 reject")
    server.reload()
    backends.to_postgresql.cut()


def _allow_logins(backends: Backends) -> None:
    server = backends.postgresql
    server.allow("hostssl all all 127.0.0.1/32 scram-sha-256")
    server.reload()


NAMES = ("localhost", "127.0.0.1")

POSTGRESQL = (
    Fault(
        "killed",
        "SIGKILL to every process of the server",
        lambda b: b.postgresql.kill(),
        lambda b: b.postgresql.start(),
    ),
    Fault(
        "paused",
        "SIGSTOP: the kernel accepts, nobody answers",
        lambda b: b.postgresql.pause(),
        lambda b: b.postgresql.resume(),
    ),
    Fault(
        "slowed",
        f"a round trip takes {SLOW:g} s",
        lambda b: b.to_postgresql.delay(SLOW),
        lambda b: b.to_postgresql.delay(0.0),
        serves=True,
    ),
    Fault(
        "refusing",
        "nobody listens",
        lambda b: (b.to_postgresql.mode("refuse"), b.to_postgresql.cut())[0],
        lambda b: b.to_postgresql.mode("pass"),
    ),
    Fault(
        "cut",
        "every connection is reset once",
        lambda b: b.to_postgresql.cut() and None,
        lambda b: None,
        ends=True,
    ),
    Fault(
        "silent",
        "what is sent arrives nowhere, on old connections and new ones",
        lambda b: b.to_postgresql.mode("silent"),
        lambda b: b.to_postgresql.mode("pass"),
    ),
    Fault(
        "garbage",
        "bytes come that are no protocol",
        lambda b: b.to_postgresql.mode("garbage"),
        lambda b: (b.to_postgresql.mode("pass"), b.to_postgresql.cut())[0],
    ),
    Fault(
        "certificate expired",
        "the server shows a certificate of yesterday",
        lambda b: _postgresql_certificate(b, NAMES, -1.0),
        lambda b: _postgresql_certificate(b, NAMES, 1.0),
    ),
    Fault(
        "certificate of another",
        "the server's certificate names another host",
        lambda b: _postgresql_certificate(b, ("elsewhere.example",), 1.0),
        lambda b: _postgresql_certificate(b, NAMES, 1.0),
    ),
    Fault(
        "credentials refused",
        "the server's rules reject the node's role",
        _refuse_logins,
        _allow_logins,
    ),
)


# --- Redis -----------------------------------------------------------------------------------------


def _redis_certificate(backends: Backends, names: tuple[str, ...], days: float) -> None:
    tls = backends.redis.tls
    assert tls is not None
    certificate, key = tls.issue("server", names=names, valid=timedelta(days=days))
    backends.redis.command(
        "CONFIG", "SET", "tls-cert-file", str(certificate), "tls-key-file", str(key)
    )
    backends.to_redis.cut()


def _drop_user(backends: Backends) -> None:
    backends.redis.command("ACL", "SETUSER", USER, "off")
    backends.to_redis.cut()


def _fill_memory(backends: Backends) -> None:
    backends.redis.command("CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", "1")


REDIS = (
    Fault(
        "killed",
        "SIGKILL to the server",
        lambda b: b.redis.kill(),
        lambda b: b.redis.start(),
    ),
    Fault(
        "paused",
        "SIGSTOP: the kernel accepts, nobody answers",
        lambda b: b.redis.pause(),
        lambda b: b.redis.resume(),
    ),
    Fault(
        "slowed",
        f"a round trip takes {SLOW:g} s",
        lambda b: b.to_redis.delay(SLOW),
        lambda b: b.to_redis.delay(0.0),
        serves=True,
    ),
    Fault(
        "refusing",
        "nobody listens",
        lambda b: (b.to_redis.mode("refuse"), b.to_redis.cut())[0],
        lambda b: b.to_redis.mode("pass"),
    ),
    Fault(
        "cut",
        "every connection is reset once",
        lambda b: b.to_redis.cut() and None,
        lambda b: None,
        ends=True,
    ),
    Fault(
        "silent",
        "what is sent arrives nowhere, on old connections and new ones",
        lambda b: b.to_redis.mode("silent"),
        lambda b: b.to_redis.mode("pass"),
    ),
    Fault(
        "garbage",
        "bytes come that are no protocol",
        lambda b: b.to_redis.mode("garbage"),
        lambda b: (b.to_redis.mode("pass"), b.to_redis.cut())[0],
    ),
    Fault(
        "certificate expired",
        "the server shows a certificate of yesterday",
        lambda b: _redis_certificate(b, NAMES, -1.0),
        lambda b: _redis_certificate(b, NAMES, 1.0),
    ),
    Fault(
        "certificate of another",
        "the server's certificate names another host",
        lambda b: _redis_certificate(b, ("elsewhere.example",), 1.0),
        lambda b: _redis_certificate(b, NAMES, 1.0),
    ),
    Fault(
        "credentials refused",
        "the node's user is switched off",
        _drop_user,
        lambda b: b.redis.command("ACL", "SETUSER", USER, "on") and None,
    ),
    Fault(
        "full",
        "no memory is left, and nothing is evicted",
        _fill_memory,
        lambda b: b.redis.command("CONFIG", "SET", "maxmemory", "0") and None,
    ),
)


@contextmanager
def no_room(directory: Path) -> Iterator[None]:
    """Fills the file system *directory* lies on. Only for one that is there for this."""
    filler = directory / "filler"
    with filler.open("wb", buffering=0) as file:
        block = bytes(65536)
        try:
            while True:
                file.write(block)
        except OSError:
            # The last page, too.
            for _ in range(20):
                try:
                    file.write(bytes(4096))
                except OSError:
                    break
        os.fsync(file.fileno())
    try:
        yield
    finally:
        filler.unlink()
