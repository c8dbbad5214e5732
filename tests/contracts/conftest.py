"""The servers these tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.servers.redis import RedisServer


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """Tests that stop or change a server start one of their own."""
    with RedisServer() as server:
        yield server
