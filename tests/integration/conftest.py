"""Data directories of nodes that have booted."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.integration.node_process import boot_once


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
