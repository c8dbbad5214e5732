"""What the security component does while the node runs, and what it says about itself."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from novacron.component import HealthDepth, HealthState
from novacron.data_directory import DataDirectory
from novacron.security import Security
from novacron.security.audit import AuditLog
from novacron.security.clock import ClockRecord
from novacron.security.component import FILES_INTERVAL, UPKEEP_INTERVAL
from novacron.security.errors import ClockSetBackError, StorageFailedError
from tests.security.stand_ins import StandInNode, make_security

DAY = 86400.0


class WallClock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.time = 1_800_000_000.0
        monkeypatch.setattr(time, "time", lambda: self.time)


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> WallClock:
    return WallClock(monkeypatch)


@asynccontextmanager
async def running(root: Path, **settings: Any) -> AsyncIterator[tuple[Security, StandInNode]]:
    security, node = make_security(root, **settings)
    async with trio.open_nursery() as nursery:
        await security.initialize(nursery)
        await security._boot_recorded.wait()
        yield security, node
        await security.shutdown()
        nursery.cancel_scope.cancel()


def actions(security: Security) -> list[str]:
    import json

    return [
        json.loads(line)["action"]
        for path in sorted(security.audit.directory.glob("*.jsonl"))
        for line in path.read_bytes().splitlines()
    ]


async def health(security: Security) -> HealthState:
    return (await security.health_check(HealthDepth.DEEP)).state


async def eventually(condition: Any) -> None:
    """Wait in real time for worker threads; the component's own clock stands still meanwhile."""
    for _ in range(5000):
        if condition():
            return
        await trio.to_thread.run_sync(time.sleep, 0.002)
    pytest.fail("it never happened")


async def test_a_certificate_is_renewed_and_a_key_rotated_while_the_node_runs(
    tmp_path: Path, wall: WallClock, mock_clock: MockClock
) -> None:
    async with running(tmp_path) as (security, node):
        serial = security.certificates.material.serial
        key = security.keyring.status()["active"]
        context = security.certificates.server_context()
        wall.time += 91 * DAY
        assert await health(security) is HealthState.DEGRADED
        mock_clock.jump(UPKEEP_INTERVAL + 1)
        await eventually(lambda: security.certificates.material.serial != serial)
        await eventually(lambda: "certificate.renew" in actions(security))
        assert security.certificates.server_context() is context
        assert security.keyring.status()["active"] != key
        assert await health(security) is HealthState.HEALTHY
    assert node.said == []
    assert actions(security) == ["node.start", "key.rotate", "certificate.renew", "node.stop"]
    assert security.audit.verify().ok


async def test_a_certificate_that_somebody_else_renewed_is_taken_within_a_minute(
    tmp_path: Path, wall: WallClock, mock_clock: MockClock
) -> None:
    async with running(tmp_path) as (security, _):
        other, _ = make_security(tmp_path)
        other.keyring.open()
        other.certificates.open("0b0f6a5e-3c56-4d1c-9f0e-2f6a3f3d7c11")
        material, _ = other.certificates.examine(force=True)
        assert material is not None
        mock_clock.jump(FILES_INTERVAL + 1)
        await eventually(lambda: security.certificates.material.serial == material.serial)


async def test_a_failed_renewal_is_reported_once_and_tried_again(
    tmp_path: Path,
    wall: WallClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(*, force: bool = False) -> None:
        raise StorageFailedError("cannot write it", why="the disk is full")

    async with running(tmp_path) as (security, _):
        with monkeypatch.context() as patch:
            patch.setattr(security.certificates, "examine", refuse)
            await security.look_after()
            await security.look_after()
            assert await health(security) is HealthState.DEGRADED
        await security.look_after()
        assert await health(security) is HealthState.HEALTHY
    assert [r.message for r in caplog.records if r.levelno == logging.ERROR] == [
        "Cannot renew keys and certificates; it is tried again every minute."
    ]


async def test_a_clock_set_back_a_little_is_a_warning(tmp_path: Path, wall: WallClock) -> None:
    async with running(tmp_path):
        wall.time += 3 * DAY
        await trio.to_thread.run_sync(ClockRecord(DataDirectory(tmp_path)).advance)
    wall.time -= 2 * DAY
    async with running(tmp_path) as (security, node):
        assert await health(security) is HealthState.HEALTHY
    (said,) = node.said
    assert said.startswith("The clock was set back: it is 2 days behind the newest time")
    assert "clock-set-back" in said


async def test_a_clock_within_its_tolerance_is_nothing_to_talk_about(
    tmp_path: Path, wall: WallClock
) -> None:
    async with running(tmp_path):
        pass
    wall.time -= 200
    async with running(tmp_path) as (_, node):
        assert node.said == []


async def test_a_clock_so_far_back_that_certificates_are_not_valid_yet_halts_the_boot(
    tmp_path: Path, wall: WallClock
) -> None:
    async with running(tmp_path):
        pass
    wall.time -= 400 * DAY
    security, _ = make_security(tmp_path)
    async with trio.open_nursery() as nursery:
        with pytest.raises(ClockSetBackError) as caught:
            await security.initialize(nursery)
        await security.shutdown()
    assert caught.value.what == "the clock was set back"
    assert "400 days behind" in caught.value.why
    assert "timedatectl" in caught.value.remedy
    assert caught.value.key == "security.clock_tolerance"


async def test_an_audit_log_that_cannot_be_written_degrades_the_node_and_does_not_end_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(AuditLog, "_append", full)
    async with running(tmp_path) as (security, _):
        found = await security.health_check(HealthDepth.SHALLOW)
        assert found.state is HealthState.DEGRADED
        assert "the disk is full" in found.message
    assert "Cannot keep a record of this boot." in caplog.messages


async def test_the_component_starts_again_after_a_stop(tmp_path: Path) -> None:
    security, _ = make_security(tmp_path)
    for _ in range(2):
        assert await health(security) is HealthState.UNKNOWN
        assert security.statistics() == {}
        async with trio.open_nursery() as nursery:
            await security.initialize(nursery)
            assert await health(security) is HealthState.HEALTHY
            statistics = security.statistics()
            assert statistics["data_keys"] == 1
            assert statistics["certificate"]["days_left"] > 80
            await security.shutdown()
            nursery.cancel_scope.cancel()
    assert actions(security) == ["node.start", "node.stop"] * 2


async def test_a_stop_before_the_start_has_begun_is_harmless(tmp_path: Path) -> None:
    security, _ = make_security(tmp_path)
    await security.shutdown()
    assert list(tmp_path.iterdir()) == []


async def test_temporary_files_of_a_killed_writer_are_removed_once_nobody_can_own_them(
    tmp_path: Path,
) -> None:
    async with running(tmp_path):
        pass
    old, new = tmp_path / "secrets" / ".a.1234.tmp", tmp_path / "secrets" / ".b.1234.tmp"
    old.write_bytes(b"half a key")
    new.write_bytes(b"being written")
    os.utime(old, (1, 1))
    async with running(tmp_path):
        pass
    assert not old.exists()
    assert new.exists()
