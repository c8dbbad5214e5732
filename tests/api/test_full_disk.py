"""A disk that is really full under the audit log: changes are refused, or made and said to be missing."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from novacron.component import HealthDepth, HealthState
from novacron.data_directory import DataDirectory
from novacron.security import Role
from tests.api.calling import calling, records
from tests.api.conftest import running

PAGE = 4096
"""What is left of a file's last page takes records though the disk is full."""


class Filler:
    """Takes what room is left, and gives it back."""

    def __init__(self, disk: Path) -> None:
        self._path = disk / "filler"

    def fill(self) -> None:
        with self._path.open("wb", buffering=0) as file:
            for size in (1 << 16, PAGE, 1):
                try:
                    while True:
                        file.write(b"x" * size)
                except OSError:
                    continue

    def free(self) -> None:
        self._path.unlink()


async def change(client: httpx.AsyncClient) -> httpx.Response:
    return await client.post("/api/v1/environment/refresh")


async def changes_until_full(client: httpx.AsyncClient) -> httpx.Response:
    for _ in range(PAGE // 256):
        answer = await change(client)
        if answer.status_code != 200:
            break
    return answer


@pytest.fixture
def filler(small_disk: Path) -> Filler:
    return Filler(small_disk)


@pytest.fixture
def full(small_disk: Path) -> DataDirectory:
    """A data directory on a disk of a mebibyte."""
    root = small_disk / "data"
    root.mkdir(mode=0o700)
    return DataDirectory(root)


async def test_with_stop_changes_are_refused_and_reads_answered_until_there_is_room(
    full: DataDirectory, filler: Filler
) -> None:
    async with running(full, audit_on_failure="stop") as node, calling(node, Role.ADMIN) as client:
        assert (await change(client)).status_code == 200
        filler.fill()
        refused = await changes_until_full(client)
        assert refused.status_code == 503
        problem = refused.json()
        assert problem["code"] == "security.audit"
        assert problem["key"] == "security.audit_on_failure"
        assert "full" in problem["detail"]
        assert "free" in problem["remedy"]
        refreshed = node.environment.refreshed
        assert (await change(client)).status_code == 503
        assert node.environment.refreshed == refreshed
        assert (await client.get("/api/v1/status")).status_code == 200
        # Denied all the same, though it cannot be recorded.
        async with calling(node) as nobody:
            assert (await nobody.get("/api/v1/status")).status_code == 401
        health = await node.security.health_check(HealthDepth.SHALLOW)
        assert health.state is HealthState.DEGRADED
        assert "audit log" in health.message
        filler.free()
        assert (await change(client)).status_code == 200
        assert (await node.security.health_check(HealthDepth.SHALLOW)).state is HealthState.HEALTHY
        assert node.security.audit.verify().ok


async def test_with_continue_changes_are_made_and_the_log_says_how_many_records_it_lacks(
    full: DataDirectory, filler: Filler
) -> None:
    async with (
        running(full, audit_on_failure="continue") as node,
        calling(node, Role.ADMIN) as client,
    ):
        filler.fill()
        for _ in range(2 * PAGE // 256):
            assert (await change(client)).status_code == 200
        health = await node.security.health_check(HealthDepth.SHALLOW)
        assert health.state is HealthState.DEGRADED
        missing = node.security.audit.status()["lost"]
        assert missing > 0
        filler.free()
        assert (await change(client)).status_code == 200
        (lost,) = [entry for entry in records(node) if entry["action"] == "audit.lost"]
        assert lost["details"] == {"records": missing}
        assert node.security.audit.verify().ok


async def test_a_node_stopped_on_a_full_disk_starts_again_with_a_log_that_verifies(
    full: DataDirectory, filler: Filler
) -> None:
    async with running(full) as node, calling(node, Role.ADMIN) as client:
        filler.fill()
        assert (await changes_until_full(client)).status_code == 503
    filler.free()
    async with running(full) as node, calling(node, Role.ADMIN) as client:
        assert (await change(client)).status_code == 200
        assert node.security.audit.verify().ok
