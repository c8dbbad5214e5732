"""Data directories of nodes that have booted, and pairs of nodes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.node_process import boot_once
from tests.integration.two_nodes import Pair, start_both, two_nodes


@pytest.fixture(scope="session")
def booted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory of a node that booted and stopped; to be copied, not changed."""
    data = tmp_path_factory.mktemp("booted") / "data"
    assert boot_once(data).process.returncode == 0
    return data


@pytest.fixture
def data(booted: Path, tmp_path: Path) -> Path:
    shutil.copytree(booted, tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def stopped(tmp_path: Path) -> Iterator[Pair]:
    """Two nodes that are not started yet."""
    with two_nodes(tmp_path) as nodes:
        yield nodes


@pytest.fixture
def nodes(stopped: Pair) -> Pair:
    """Two nodes that run."""
    start_both(*stopped)
    return stopped
