from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.backends import Backends


@pytest.fixture(scope="session")
def backends(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backends]:
    """Both servers behind their proxies, healthy; a test mends what it breaks."""
    directory = tmp_path_factory.mktemp("backends")
    with Backends(directory) as found:
        yield found
