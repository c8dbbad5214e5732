"""What every test shares: isolation from the caller's environment, and a look for leaks."""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from novacron.data_directory import DataDirectory

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

# No deadline: two cores shared by two workers make any single example slow now and then.
settings.register_profile("developer", deadline=None)
settings.register_profile("gate", deadline=None, derandomize=True, database=None, print_blob=True)
settings.load_profile("gate" if os.environ.get("CI") else "developer")

SETTLE_SECONDS = 5.0
"""Longest wait for a thread or descriptor that is already on its way out."""


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


def _descriptors() -> dict[int, str]:
    """Open descriptors of this process and what they lead to."""
    found = {}
    for entry in os.listdir("/proc/self/fd"):
        try:
            found[int(entry)] = os.readlink(f"/proc/self/fd/{entry}")
        except FileNotFoundError:  # the descriptor that listed the directory
            continue
    return found


def _threads() -> set[threading.Thread]:
    """Live threads, without Trio's idle workers: it keeps those for reuse and ends them itself."""
    return {thread for thread in threading.enumerate() if not thread.name.startswith("Trio thread")}


def _children() -> set[str]:
    """Process ids of this process's children, whichever thread started them."""
    return {
        child
        for listing in Path("/proc/self/task").glob("*/children")
        for child in listing.read_text().split()
    }


@pytest.fixture
def no_leaks() -> Iterator[None]:
    """Fails the test if it leaves a thread, a descriptor or a child process behind."""
    gc.collect()
    threads, descriptors, children = _threads(), _descriptors(), _children()
    yield
    give_up = time.monotonic() + SETTLE_SECONDS
    while True:
        gc.collect()
        left = {
            number: target
            for number, target in _descriptors().items()
            if descriptors.get(number) != target
        }
        running = sorted(thread.name for thread in _threads() - threads)
        orphans = _children() - children
        if not (left or running or orphans) or time.monotonic() > give_up:
            break
        time.sleep(0.01)
    assert not running, f"threads left behind: {running}"
    assert not left, f"descriptors left behind: {left}"
    assert not orphans, f"child processes left behind: {orphans}"


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout the tests run from."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def node_python() -> str:
    """The interpreter to start node processes with: the one the tests run on."""
    return sys.executable
