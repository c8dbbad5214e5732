"""The logger component."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from novacron.component import HealthDepth, HealthState
from novacron.config.schema import SystemSettings
from novacron.data_directory import DataDirectory
from novacron.log import Logger, early, register_secret
from novacron.log.component import FILE_NAME

DEADLINE = 30

log = logging.getLogger("novacron.test")


class Node:
    """The two things the logger asks of its node."""

    boot_id = "boot-1"

    def __init__(self) -> None:
        self.warned: list[str] = []

    def warn(self, message: str) -> None:
        self.warned.append(message)


@asynccontextmanager
async def running(
    settings: SystemSettings, data: DataDirectory, node: Node
) -> AsyncIterator[Logger]:
    logger = Logger(settings, data, node)  # type: ignore[arg-type]
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            await logger.initialize(nursery)
            yield logger
            await logger.shutdown()
            nursery.cancel_scope.cancel()


def written(data: DataDirectory) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (data.log / FILE_NAME).read_text().splitlines()]


async def test_early_and_later_records_reach_the_file_in_order(
    data_directory: DataDirectory, no_leaks: None
) -> None:
    early.configure("info", "plain")
    log.info("early")
    async with running(SystemSettings(), data_directory, Node()):
        log.info("later", extra={"peer": "p1"})
    log.info("too late")
    found = written(data_directory)
    assert [line["message"] for line in found] == ["early", "later"]
    assert found[1]["peer"] == "p1"
    assert found[1]["boot_id"] == "boot-1"


async def test_nothing_registered_reaches_the_file(data_directory: DataDirectory) -> None:
    early.configure("info", "plain")
    log.info("early %s", "planted-secret")
    register_secret("planted-secret")
    async with running(SystemSettings(), data_directory, Node()):
        log.info("later %s", "planted-secret")
    assert "planted-secret" not in (data_directory.log / FILE_NAME).read_text()


async def test_the_file_can_be_switched_off(data_directory: DataDirectory) -> None:
    early.configure("info", "plain")
    log.info("early")
    async with running(SystemSettings(log_file=False), data_directory, Node()) as logger:
        log.info("later")
        assert (await logger.health_check(HealthDepth.DEEP)).state is HealthState.HEALTHY
        assert logger.statistics()["file"] is None
    assert not data_directory.log.exists()


async def test_the_level_is_reloaded(data_directory: DataDirectory) -> None:
    early.configure("error", "plain")
    async with running(SystemSettings(log_level="error"), data_directory, Node()) as logger:
        log.info("not yet")
        await logger.reload(SystemSettings(log_level="info"))
        log.info("now")
    assert [line["message"] for line in written(data_directory)] == ["now"]
    assert Logger.reloadable_keys == {"system.log_level"}


async def test_an_unwritable_directory_is_said_and_standard_error_goes_on(
    data_directory: DataDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    data_directory.log.write_text("a file, not a directory")
    node = Node()
    early.configure("info", "plain")
    async with running(SystemSettings(), data_directory, node) as logger:
        log.info("still heard")
        with trio.fail_after(DEADLINE):
            while not node.warned:
                await trio.lowlevel.checkpoint()
        health = await logger.health_check(HealthDepth.SHALLOW)
    assert len(node.warned) == 1
    assert str(data_directory.log / FILE_NAME) in node.warned[0]
    assert "standard error alone" in node.warned[0]
    assert health.state is HealthState.DEGRADED
    assert "cannot be written" in health.message
    assert "still heard" in capsys.readouterr().err


async def test_the_same_object_starts_again(data_directory: DataDirectory, no_leaks: None) -> None:
    early.configure("info", "plain")
    logger = Logger(SystemSettings(), data_directory, Node())  # type: ignore[arg-type]
    for message in ("first", "second"):
        async with trio.open_nursery() as nursery:
            await logger.initialize(nursery)
            log.info(message)
            await logger.shutdown()
    assert [line["message"] for line in written(data_directory)] == ["first", "second"]


async def test_shutting_down_without_having_started_is_harmless(
    data_directory: DataDirectory,
) -> None:
    await Logger(SystemSettings(), data_directory, Node()).shutdown()  # type: ignore[arg-type]


async def test_lost_early_records_are_said_in_the_file(
    data_directory: DataDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(early, "MAX_EARLY", 1)
    early.configure("info", "plain")
    log.info("kept")
    log.info("lost")
    async with running(SystemSettings(), data_directory, Node()):
        pass
    found = written(data_directory)
    assert [line["message"] for line in found] == [
        "kept",
        "early records did not reach the log file",
    ]
    assert found[1]["lost"] == 1


async def test_rotation_follows_the_settings(data_directory: DataDirectory) -> None:
    early.configure("info", "plain")
    settings = SystemSettings(log_file_bytes=65536, log_file_count=1)
    async with running(settings, data_directory, Node()):
        for _ in range(100):
            log.info("x" * 2000)
    sizes = {path.name: path.stat().st_size for path in Path(data_directory.log).iterdir()}
    assert set(sizes) == {FILE_NAME, f"{FILE_NAME}.1"}
    assert all(size <= 65536 for size in sizes.values())
