"""Logging is global: each test gives it back as it was."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from novacron.log import early
from novacron.log.formatters import unbind


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    level = root.level
    yield
    early.restore()
    root.setLevel(level)
    unbind("boot_id", "node_id")
