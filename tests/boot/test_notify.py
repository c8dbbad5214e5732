from __future__ import annotations

import os
import secrets
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from novacron.boot import events
from novacron.boot.notify import Notifier, watchdog_seconds
from novacron.errors import TransientError


class Manager:
    """A fake service manager: what it heard, datagram by datagram."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)

    def heard(self) -> list[str]:
        messages = []
        while True:
            try:
                messages.append(self.socket.recv(65536).decode())
            except BlockingIOError:
                return messages


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest) -> Iterator[Manager]:
    # Not tmp_path: a socket's path may have 107 bytes, and pytest's can be longer.
    with tempfile.TemporaryDirectory() as directory:
        name = f"@novacron-{secrets.token_hex(8)}"
        manager = Manager(name if request.param == "abstract" else f"{directory}/notify")
        with manager.socket:
            yield manager


@pytest.fixture
def notifier(manager: Manager) -> Iterator[Notifier]:
    notifier = Notifier(manager.address, pid=4711)
    yield notifier
    notifier.close()


def test_the_transcript_of_a_boot_a_run_and_a_stop(manager: Manager, notifier: Notifier) -> None:
    error = TransientError("cannot connect")
    for event in [
        events.BootStarted("b", 0.2, {}),
        events.PhaseStarted("core", 0.5, 20.5),
        events.ComponentEntered("cache", "core", 1, 0.5),
        events.ComponentRetry("cache", 1, 1.04, error, 0.6),
        events.ComponentProgress("database", "migration 2 of 7", 0.7),
        events.NodeReady(
            "degraded",
            0.9,
            0.9,
            [{"name": "cache", "why": "x"}],
            {"rest": "[::1]:1"},
            "/d",
            None,
            [],
        ),
        events.ComponentLost("database", 5.0, error),
        events.ComponentRestored("database", 6.0, 1.0),
        events.NodeStopping("SIGTERM", 9.0),
        events.NodeStopped(9.1, 0),
    ]:
        notifier.listen(event)
    assert manager.heard() == [
        "EXTEND_TIMEOUT_USEC=20000000\nSTATUS=Booting: core",
        "STATUS=Booting: cache failed, next attempt in 1.0 s",
        "EXTEND_TIMEOUT_USEC=10000000\nSTATUS=Booting: database: migration 2 of 7",
        "READY=1\nSTATUS=Ready in 0.900 s, degraded: cache; rest [::1]:1",
        "STATUS=Degraded: database is down",
        "STATUS=database is back. Ready in 0.900 s, degraded: cache; rest [::1]:1",
        "STOPPING=1\nSTATUS=Stopping: SIGTERM",
        "STATUS=Stopped with exit code 0",
    ]


def test_a_failed_boot_leaves_its_reason_as_the_status(
    manager: Manager, notifier: Notifier
) -> None:
    notifier.listen(events.BootFailed(0.3, {"what": "cannot listen on port 1"}))
    assert manager.heard() == ["STATUS=Boot failed: cannot listen on port 1"]


def test_a_reload_is_bracketed_by_reloading_and_ready(manager: Manager, notifier: Notifier) -> None:
    notifier.reloading()
    notifier.ready()
    reloading, ready = manager.heard()
    first, second = reloading.splitlines()
    assert first == "RELOADING=1"
    name, _, microseconds = second.partition("=")
    assert name == "MONOTONIC_USEC"
    assert int(microseconds) > 0
    assert ready == "READY=1"


def test_a_status_is_one_line_and_always_text(manager: Manager, notifier: Notifier) -> None:
    notifier.status("two\nlines\nREADY=1 \udcff")
    assert manager.heard() == ["STATUS=two lines READY=1 ?"]


def test_the_main_process_is_named(manager: Manager, notifier: Notifier) -> None:
    notifier.main_pid()
    assert manager.heard() == ["MAINPID=4711"]


def test_a_timeout_is_extended_in_whole_microseconds(manager: Manager, notifier: Notifier) -> None:
    notifier.extend_timeout(0.0000015)
    assert manager.heard() == ["EXTEND_TIMEOUT_USEC=2"]


async def test_the_watchdog_is_pinged_at_half_its_time_and_only_while_alive(
    manager: Manager, autojump_clock: trio.testing.MockClock
) -> None:
    alive = True
    notifier = Notifier(manager.address, watchdog_seconds=30.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(notifier.run, lambda: alive)
        await trio.sleep(60.5)
        assert manager.heard() == ["WATCHDOG=1"] * 5
        alive = False
        await trio.sleep(60)
        assert manager.heard() == []
        nursery.cancel_scope.cancel()
    notifier.close()


async def test_without_a_watchdog_nothing_is_pinged(
    manager: Manager, notifier: Notifier, autojump_clock: trio.testing.MockClock
) -> None:
    with trio.move_on_after(3600):
        await notifier.run(lambda: True)
    assert manager.heard() == []


async def test_ready_survives_a_full_socket_and_keeps_its_place(
    manager: Manager, notifier: Notifier, autojump_clock: trio.testing.MockClock
) -> None:
    sent = 0
    while notifier._try(b"X=1"):
        sent += 1
    notifier.status("lost, and that is fine")
    notifier.ready()
    notifier.stopping()
    assert manager.heard() == ["X=1"] * sent
    async with trio.open_nursery() as nursery:
        nursery.start_soon(notifier.run, lambda: True)
        await trio.sleep(0.5)
        nursery.cancel_scope.cancel()
    assert manager.heard() == ["READY=1", "STOPPING=1"]


def test_what_is_kept_for_a_full_socket_is_bounded(manager: Manager, notifier: Notifier) -> None:
    while notifier._try(b"X=1"):
        pass
    for _ in range(100):
        notifier.ready()
    manager.heard()
    notifier.status("now there is room")
    assert len(manager.heard()) == 9


def test_a_deaf_manager_is_complained_about_once_and_nothing_fails(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    notifier = Notifier(str(tmp_path / "nobody"))
    notifier.ready()
    notifier.stopping()
    notifier.close()
    assert [record.message for record in caplog.records] == ["systemd cannot be notified"]


async def test_without_a_manager_everything_is_silent() -> None:
    notifier = Notifier.from_environment({})
    assert not notifier.enabled
    notifier.ready()
    notifier.listen(events.NodeStopping("SIGTERM", 1.0))
    with trio.fail_after(5):
        await notifier.run(lambda: True)
    notifier.close()


def test_an_address_of_another_family_is_refused_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    notifier = Notifier("vsock:2:1234", watchdog_seconds=1.0)
    assert not notifier.enabled
    assert notifier.ping_interval is None
    assert "neither a path nor an abstract name" in caplog.text


def test_the_environment_is_taken_over_so_that_children_do_not_inherit_it() -> None:
    environment = {
        "NOTIFY_SOCKET": "@x",
        "WATCHDOG_USEC": "30000000",
        "WATCHDOG_PID": str(os.getpid()),
        "HOME": "/",
    }
    notifier = Notifier.from_environment(environment)
    assert environment == {"HOME": "/"}
    assert notifier.enabled
    assert notifier.ping_interval == 15.0


@pytest.mark.parametrize(
    ("usec", "owner", "seconds"),
    [
        ("30000000", None, 30.0),
        ("30000000", "7", 30.0),
        ("30000000", "8", None),
        ("0", None, None),
        ("-5", None, None),
        ("soon", None, None),
        ("٣", None, None),
        (None, "7", None),
    ],
)
def test_the_watchdog_is_ours_only_if_it_names_us_and_makes_sense(
    usec: str | None, owner: str | None, seconds: float | None
) -> None:
    assert watchdog_seconds(usec, owner, 7) == seconds
