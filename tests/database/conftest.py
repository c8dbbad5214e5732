from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from novacron.data_directory import DataDirectory
from tests.database.support import change, open_and_close
from tests.servers import Cluster, postgresql_cluster


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory whose database was made by a first boot and holds 300 registrations."""
    root = tmp_path_factory.mktemp("template")
    open_and_close(root)
    change(
        DataDirectory(root).database / "novacron.db",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)"
        " INSERT INTO node_registration"
        " SELECT 'node-' || i, 'boot', json_object('rest', '127.0.0.1:' || i), i, NULL FROM n",
    )
    return root


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    with postgresql_cluster() as cluster:
        yield cluster


@pytest.fixture
def root(template: Path, tmp_path: Path) -> Path:
    """A private copy of the template."""
    target = tmp_path / "data"
    shutil.copytree(template, target)
    return target
