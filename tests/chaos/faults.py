"""Each way in which a server fails a node, and how it is mended: the rows of the fault matrix.

``docs/internals/faults.md`` lists them with what a node does; a test holds the page to this table.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from bench.backends import Backends
from bench.proxy import Proxy
from bench.servers.postgresql import USER
from bench.servers.tls import NAMES

SLOW = 0.5
"""Seconds of a round trip over a path that is slow; a client's own deadlines are ten times that."""
ELSEWHERE = ("elsewhere.example",)

Action = Callable[[Backends], object]


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


def _path_faults(way: Callable[[Backends], Proxy]) -> tuple[Fault, ...]:
    """What goes wrong on the way to a server, whichever it is."""

    def switch(mode: str) -> Action:
        return lambda backends: way(backends).mode(mode)  # type: ignore[arg-type]

    def cut(backends: Backends) -> object:
        return way(backends).cut()

    def refuse(backends: Backends) -> None:
        way(backends).mode("refuse")
        way(backends).cut()

    def forget_garbage(backends: Backends) -> None:
        way(backends).mode("pass")
        way(backends).cut()

    return (
        Fault(
            "slowed",
            f"a round trip takes {SLOW:g} s",
            lambda backends: way(backends).delay(SLOW),
            lambda backends: way(backends).delay(0.0),
            serves=True,
        ),
        Fault("refusing", "nobody listens", refuse, switch("pass")),
        Fault("cut", "every connection is reset once", cut, lambda _: None, ends=True),
        Fault(
            "silent",
            "what is sent arrives nowhere, on old connections and new ones",
            switch("silent"),
            switch("pass"),
        ),
        Fault("garbage", "bytes come that are no protocol", switch("garbage"), forget_garbage),
    )


def _certificate_faults(
    show: Callable[[Backends, Sequence[str], float], object],
) -> tuple[Fault, ...]:
    def mend(backends: Backends) -> object:
        return show(backends, NAMES, 1.0)

    return (
        Fault(
            "certificate expired",
            "the server shows a certificate of yesterday",
            lambda backends: show(backends, NAMES, -1.0),
            mend,
        ),
        Fault(
            "certificate of another",
            "the server's certificate names another host",
            lambda backends: show(backends, ELSEWHERE, 1.0),
            mend,
        ),
    )


# --- PostgreSQL ------------------------------------------------------------------------------------


def _show_postgresql(backends: Backends, names: Sequence[str], days: float) -> None:
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


POSTGRESQL = (
    Fault(
        "killed",
        "SIGKILL to every process of the server",
        lambda backends: backends.postgresql.kill(),
        lambda backends: backends.postgresql.start(),
    ),
    Fault(
        "paused",
        "SIGSTOP: the kernel accepts, nobody answers",
        lambda backends: backends.postgresql.pause(),
        lambda backends: backends.postgresql.resume(),
    ),
    *_path_faults(lambda backends: backends.to_postgresql),
    *_certificate_faults(_show_postgresql),
    Fault(
        "credentials refused",
        "the server's rules reject the node's role",
        _refuse_logins,
        _allow_logins,
    ),
)


# --- Redis -----------------------------------------------------------------------------------------


def _show_redis(backends: Backends, names: Sequence[str], days: float) -> None:
    tls = backends.redis.tls
    assert tls is not None
    certificate, key = tls.issue("server", names=names, days=days)
    shown = ("tls-cert-file", str(certificate), "tls-key-file", str(key))
    backends.redis.command("CONFIG", "SET", *shown)
    backends.to_redis.cut()


def _switch_user_off(backends: Backends) -> None:
    backends.redis.command("ACL", "SETUSER", USER, "off")
    backends.to_redis.cut()


REDIS = (
    Fault(
        "killed",
        "SIGKILL to the server",
        lambda backends: backends.redis.kill(),
        lambda backends: backends.redis.start(),
    ),
    Fault(
        "paused",
        "SIGSTOP: the kernel accepts, nobody answers",
        lambda backends: backends.redis.pause(),
        lambda backends: backends.redis.resume(),
    ),
    *_path_faults(lambda backends: backends.to_redis),
    *_certificate_faults(_show_redis),
    Fault(
        "credentials refused",
        "the node's user is switched off",
        _switch_user_off,
        lambda backends: backends.redis.command("ACL", "SETUSER", USER, "on"),
    ),
    Fault(
        "full",
        "no memory is left, and nothing is evicted",
        lambda backends: backends.redis.command(
            "CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", "1"
        ),
        lambda backends: backends.redis.command("CONFIG", "SET", "maxmemory", "0"),
    ),
)


@contextmanager
def no_room(directory: Path) -> Iterator[None]:
    """Fills the file system *directory* lies on. Only for one that is there for this."""
    filler = directory / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (65536, 4096):  # the last page, too
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
        os.fsync(file.fileno())
    try:
        yield
    finally:
        filler.unlink()
