"""Certificates for nodes in one process."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.network.authority import Authority, Certificates, node_id


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Certificates]:
    authority = Authority(tmp_path_factory.mktemp("authority"))
    made: dict[int, Certificates] = {}

    def certificates_of(number: int) -> Certificates:
        if number not in made:
            made[number] = Certificates(authority, node_id(number))
        return made[number]

    return certificates_of
