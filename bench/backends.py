"""PostgreSQL and Redis, each behind a proxy, and the configuration of a node that uses them."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench.proxy import Proxy
from bench.servers.postgresql import DATABASE, USER, PostgreSQL
from bench.servers.redis import RedisServer

MAX_STALENESS = 2.0
"""Seconds; what ``cache.redis.max_staleness`` is set to here."""


class Backends:
    """The servers, as a context manager. Nodes that are to share the database are of one cluster:
    give them the same authority.

    Args:
      hosts: of the database, in place of the one server's proxy.
    """

    def __init__(
        self,
        directory: Path,
        *,
        postgresql: PostgreSQL | None = None,
        redis: RedisServer | None = None,
        hosts: Sequence[str] = (),
    ) -> None:
        self._hosts = list(hosts)
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._stack = contextlib.ExitStack()
        self._password = secrets.token_hex(16)
        self._given = (postgresql, redis)

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            postgresql, redis = self._given
            self.postgresql = postgresql or stack.enter_context(PostgreSQL())
            self.redis = redis or stack.enter_context(
                RedisServer(
                    tls=True,
                    durable=True,
                    users={USER: (self._password, "~* &* +@all")},
                )
            )
            self.to_postgresql = stack.enter_context(Proxy(("127.0.0.1", self.postgresql.port)))
            self.to_redis = stack.enter_context(Proxy(("127.0.0.1", self.redis.port)))
            self._secret("postgresql.password", self.postgresql.password)
            self._secret("redis.password", self._password)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _secret(self, name: str, value: str) -> None:
        path = self.directory / name
        path.write_text(value)
        path.chmod(0o600)

    def configuration(self) -> dict[str, Any]:
        """For a node that uses both servers through their proxies."""
        assert self.redis.tls is not None
        return {
            "database": {
                "engine": "postgresql",
                "postgresql": {
                    "hosts": self._hosts or [self.to_postgresql.address],
                    "name": DATABASE,
                    "user": USER,
                    "password": f"file:{self.directory / 'postgresql.password'}",
                    "ca_certificate": str(self.postgresql.ca),
                },
            },
            "cache": {
                "engine": "redis",
                "redis": {
                    "address": self.to_redis.address,
                    "user": USER,
                    "password": f"file:{self.directory / 'redis.password'}",
                    "ca_certificate": str(self.redis.tls.ca_certificate),
                    "max_staleness": MAX_STALENESS,
                },
            },
            "boot": {
                "retry": {"delay": 0.2, "max_delay": 1.0},
                "health": {"interval": 1.0, "deep_interval": 2.0, "cache": 0.5},
            },
        }
