"""What every test shares: isolation from the caller's environment, and a look for leaks."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from novacron.data_directory import DataDirectory
from novacron.log import redaction
from novacron.security.policy import RULES, Rule
from tests.leaks import leak_check

# A test reads only the environment it sets itself. Done at import, because a test's own
# subprocesses and session fixtures inherit what is here.
for _name in list(os.environ):
    if _name.startswith("NOVACRON_") or _name in {
        "NOTIFY_SOCKET",
        "WATCHDOG_USEC",
        "WATCHDOG_PID",
        "CREDENTIALS_DIRECTORY",
        "INVOCATION_ID",
    }:
        del os.environ[_name]

# A shell that starts the tests in the background ignores SIGINT, and so would every process they
# start, unless it is caught here: then the children begin with the default again.
signal.signal(signal.SIGINT, signal.default_int_handler)

# No deadline: two cores shared by two workers make any single example slow now and then.
settings.register_profile("developer", deadline=None)
settings.register_profile("gate", deadline=None, derandomize=True, database=None, print_blob=True)
settings.load_profile("gate" if os.environ.get("CI") else "developer")


@pytest.fixture(autouse=True)
def _secrets_as_before() -> Iterator[None]:
    """What a test registers as a secret is masked for the rest of the process: not in other tests.

    Any read of a secret's file registers it, so a test of files that say "second" would otherwise
    mask that word wherever a later test on the same worker logs it.
    """
    before = dict(redaction._forms)
    yield
    if redaction._forms != before:
        redaction._forms.clear()
        redaction._forms.update(before)
        redaction._order()


@pytest.fixture(scope="session")
def new_data_directory(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[], DataDirectory]:
    """Makes a new, empty data directory at each call, with the mode a node gives its own."""

    def make() -> DataDirectory:
        root = tmp_path_factory.mktemp("data")
        root.chmod(0o700)
        return DataDirectory(root)

    return make


@pytest.fixture
def data_directory(new_data_directory: Callable[[], DataDirectory]) -> DataDirectory:
    return new_data_directory()


@pytest.fixture
def peer_methods(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets nodes ask each other for methods that are only a test's."""

    def allow(*methods: str) -> None:
        for method in methods:
            monkeypatch.setitem(RULES, method, Rule(None, node=True))

    return allow


@pytest.fixture
def no_leaks() -> Iterator[None]:
    """Fails the test if it leaves a thread, a descriptor or a child process behind."""
    with leak_check():
        yield


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout the tests run from."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one mebibyte. Mounting needs root, which the tests on CI have."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
