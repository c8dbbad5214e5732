"""Real servers for tests: one of each kind a session, a fresh database for each test."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.servers.postgresql import USER, PostgreSQL
from novacron.config.schema import PostgresqlSettings

CERTIFIED = "certified"
"""The role that logs in by certificate."""

_numbers = itertools.count(1)
_lock = threading.Lock()


class Cluster:
    """One server, and settings that lead to it."""

    def __init__(self, server: PostgreSQL) -> None:
        self.server = server
        self.password = server.directory / "client-password"
        self.password.touch(mode=0o600)
        self.password.write_text(server.password)

    def settings(self, **changes: Any) -> PostgresqlSettings:
        """Verified TLS and a password; *changes* replace what they name."""
        return postgresql_settings(self.server, self.password, **changes)

    def certified(self, **changes: Any) -> PostgresqlSettings:
        """A certificate instead of the password."""
        certificate, key = self.server.certify_user(CERTIFIED)
        login = {
            "user": CERTIFIED,
            "password": None,
            "certificate": str(certificate),
            "private_key": f"file:{key}",
        }
        return self.settings(**login, **changes)

    def new_database(self) -> str:
        """The name of a new, empty database."""
        with _lock:
            name = f"test_{next(_numbers)}"
        self.server.create_database(name)
        return name


def postgresql_settings(
    server: PostgreSQL, password_file: Path, **changes: Any
) -> PostgresqlSettings:
    return PostgresqlSettings(
        **{
            "hosts": (server.address,),
            "user": USER,
            "password": f"file:{password_file}",
            "ca_certificate": str(server.ca),
            "connect_timeout": 5.0,
            "pool_min": 0,
            **changes,
        }
    )


@contextmanager
def postgresql_cluster(**options: Any) -> Iterator[Cluster]:
    """A private server; not durable unless asked, since nothing here cuts the power."""
    with PostgreSQL(**{"durable": False, **options}) as server:
        server.allow(
            f"hostssl all {CERTIFIED} 127.0.0.1/32 cert",
            "hostssl all all 127.0.0.1/32 scram-sha-256",
            "local all all scram-sha-256",
            "hostssl replication all 127.0.0.1/32 scram-sha-256",
        )
        server.reload()
        server.psql(f"CREATE ROLE {CERTIFIED} LOGIN SUPERUSER")
        yield Cluster(server)
