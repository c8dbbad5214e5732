"""The configuration component: directories, files that change, reloading."""

from __future__ import annotations

import errno
import logging
import os
import stat
from pathlib import Path

import pytest
import trio

from novacron.component import HealthDepth, HealthState
from novacron.config import ConfigInvalidError, Configuration, load, restore
from novacron.config.component import RestoredConfigurationError, changes, merged
from novacron.data_directory import DataDirectory
from novacron.errors import ConfigError, DeniedError, InvalidError, TransientError, UnavailableError

DEADLINE = 30


async def start(configuration: Configuration) -> None:
    """Initialise as the engine does, an error as it is and not in the nursery's group."""
    failure = None
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            try:
                await configuration.initialize(nursery)
            except ConfigError as error:
                failure = error
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "node.yaml"
    path.write_text("system: {log_level: debug}\napi: {port: 1}\n")
    return path


async def test_the_skeleton_is_made_for_the_owner_alone(tmp_path: Path) -> None:
    data = DataDirectory(tmp_path / "a" / "b" / "node")
    await start(Configuration(load(environ={}), data))
    for name in ("boot", "secrets", "pki", "audit", "database", "log", "run", "quarantine"):
        assert stat.S_IMODE((data.root / name).stat().st_mode) == 0o700
    assert stat.S_IMODE(data.root.stat().st_mode) == 0o700


async def test_a_directory_open_to_others_is_closed_and_said(
    data_directory: DataDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    data_directory.root.chmod(0o755)
    data_directory.secrets.mkdir()
    data_directory.secrets.chmod(0o755)
    with caplog.at_level(logging.WARNING, "novacron.config"):
        await start(Configuration(load(environ={}), data_directory))
    assert stat.S_IMODE(data_directory.secrets.stat().st_mode) == 0o700
    assert "open to other users" in caplog.text
    # The root may be a directory that was shared on purpose, or by mistake: it is left alone.
    assert stat.S_IMODE(data_directory.root.stat().st_mode) == 0o755


async def test_starting_again_changes_nothing(data_directory: DataDirectory) -> None:
    configuration = Configuration(load(environ={}), data_directory)
    await start(configuration)
    before = sorted(os.listdir(data_directory.root))
    await configuration.shutdown()
    await start(configuration)
    assert sorted(os.listdir(data_directory.root)) == before


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (errno.EACCES, DeniedError, "permission is denied"),
        (errno.EROFS, DeniedError, "read-only"),
        (errno.ENOSPC, TransientError, "the disk is full"),
        (errno.EDQUOT, TransientError, "the quota is used up"),
        (errno.ELOOP, InvalidError, "symbolic links"),
        (errno.EIO, UnavailableError, "Input/output error"),
    ],
)
async def test_a_disk_that_refuses_is_explained(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    kind: type[Exception],
    words: str,
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(ConfigError) as caught:
        await start(Configuration(load(environ={}), DataDirectory(tmp_path / "node")))
    error = caught.value
    assert isinstance(error, kind)
    assert words in str(error)
    assert error.key == "system.data_dir"
    assert error.remedy


async def test_a_file_in_place_of_the_directory_is_explained(tmp_path: Path) -> None:
    (tmp_path / "node").write_text("")
    with pytest.raises(ConfigError, match="not a directory") as caught:
        await start(Configuration(load(environ={}), DataDirectory(tmp_path / "node")))
    assert isinstance(caught.value, InvalidError)


async def test_a_file_that_changed_while_starting_is_reported(
    file: Path, data_directory: DataDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    loaded = load([file], environ={})
    file.write_text("api: {port: 2}\n")
    with caplog.at_level(logging.WARNING, "novacron.config"):
        await start(Configuration(loaded, data_directory))
    assert "changed while the node was starting" in caplog.text


async def test_deep_health_says_when_the_file_differs_from_what_runs(
    file: Path, data_directory: DataDirectory
) -> None:
    configuration = Configuration(load([file], environ={}), data_directory)
    assert (await configuration.health_check(HealthDepth.DEEP)).message == ""
    file.write_text("api: {port: 2}\n")
    health = await configuration.health_check(HealthDepth.DEEP)
    assert health.state is HealthState.HEALTHY
    assert f"{file} was changed" in health.message
    assert (await configuration.health_check(HealthDepth.SHALLOW)).message == ""
    file.unlink()
    health = await configuration.health_check(HealthDepth.DEEP)
    assert f"{file} cannot be read (it does not exist)" in health.message


async def test_rereading_sees_the_new_file_and_the_old_flags(
    file: Path, data_directory: DataDirectory
) -> None:
    old = load([file], {"api.rate_burst": "7"}, {"NOVACRON_CACHE__TTL": "5"})
    configuration = Configuration(old, data_directory)
    file.write_text("system: {log_level: error}\napi: {port: 2}\n")
    new = await configuration.reread()
    assert new.settings.api.rate_burst == 7
    assert new.settings.cache.ttl == 5
    assert configuration.loaded is old
    found = {change.key: change for change in changes(old, new)}
    assert set(found) == {"system.log_level", "api.port"}
    assert found["system.log_level"].reloadable
    assert (found["system.log_level"].old, found["system.log_level"].new) == ("debug", "error")
    assert not found["api.port"].reloadable
    configuration.adopt(new)
    assert (await configuration.health_check(HealthDepth.DEEP)).message == ""


async def test_a_file_that_became_invalid_is_refused_on_rereading(
    file: Path, data_directory: DataDirectory
) -> None:
    configuration = Configuration(load([file], environ={}), data_directory)
    file.write_text("api: {port: x}\n")
    with pytest.raises(ConfigInvalidError):
        await configuration.reread()


async def test_a_restored_copy_cannot_be_reread(data_directory: DataDirectory) -> None:
    configuration = Configuration(restore(load(environ={}).as_dict()), data_directory)
    with pytest.raises(RestoredConfigurationError, match="--last-known-good"):
        await configuration.reread()


def test_a_partly_refused_reload_leaves_a_configuration_that_says_what_runs() -> None:
    old = load((), {"system.log_level": "info", "cache.ttl": 300}, {})
    new = load((), {"system.log_level": "debug", "cache.ttl": 60, "api.rate_limit": 7}, {})
    runs = merged(old, new, ["system.log_level", "api.rate_limit"])

    assert runs.value("system.log_level") == "debug"
    assert runs.value("api.rate_limit") == 7
    assert runs.value("cache.ttl") == 300
    assert runs.source("api.rate_limit") == new.source("api.rate_limit")
    assert [change.key for change in changes(runs, new)] == ["cache.ttl"]
    assert runs.digest not in (old.digest, new.digest)


def test_equal_configurations_have_no_changes() -> None:
    assert changes(load(environ={}), load(overrides={"api.port": "7400"}, environ={})) == []


def test_a_changed_reference_is_shown_as_one() -> None:
    old = load(environ={})
    new = load(overrides={"security.master_key": "env:KEY"}, environ={})
    (change,) = changes(old, new)
    assert (change.old, change.new, change.reloadable) == ("file:", "env:KEY", True)
