"""The fixture that other tests trust notices what it is for."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable

import pytest
import trio

from tests.leaks import leak_check


async def test_what_is_given_back_is_no_leak(no_leaks: None) -> None:
    with trio.fail_after(10):
        await trio.to_thread.run_sync(lambda: None)
        for listener in await trio.open_tcp_listeners(0, host="127.0.0.1"):
            await listener.aclose()
        await trio.run_process(["true"])


def test_a_thread_left_behind_is_named() -> None:
    end = threading.Event()
    thread = threading.Thread(target=end.wait, name="forgotten")
    with pytest.raises(AssertionError, match="forgotten"), leak_check(settle=0):
        thread.start()
    end.set()
    thread.join()


def test_a_descriptor_left_behind_is_named() -> None:
    opened: list[int] = []
    with pytest.raises(AssertionError, match="/dev/null"), leak_check(settle=0):
        opened.append(os.open("/dev/null", os.O_RDONLY))
    os.close(opened[0])


def test_a_child_left_behind_is_noticed() -> None:
    started: list[subprocess.Popen[bytes]] = []
    with pytest.raises(AssertionError, match="child processes"), leak_check(settle=0):
        started.append(subprocess.Popen(["sleep", "60"]))
    started[0].kill()
    started[0].wait(10)


def test_what_ends_shortly_after_is_no_leak() -> None:
    end = threading.Event()
    stop: Callable[[], None] = end.set
    with leak_check():
        threading.Thread(target=end.wait).start()
        threading.Timer(0.05, stop).start()
