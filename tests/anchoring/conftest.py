"""The server these tests share; one that kills it starts it again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers import Cluster, postgresql_cluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    with postgresql_cluster() as made:
        yield made


@pytest.fixture(scope="session")
def database_name(cluster: Cluster) -> str:
    """For tests that make the one table they need anew."""
    return cluster.new_database()
