"""Whether a piece of code gives back what it took from the operating system."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SETTLE_SECONDS = 5.0
"""Longest wait for a thread, descriptor or child that is already on its way out."""


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
    found: set[str] = set()
    for listing in Path("/proc/self/task").glob("*/children"):
        try:
            found.update(listing.read_text().split())
        except (FileNotFoundError, ProcessLookupError):  # that thread has just ended
            continue
    return found


@contextmanager
def leak_check(settle: float = SETTLE_SECONDS) -> Iterator[None]:
    """Raises AssertionError if the block leaves something behind *settle* seconds after its end."""
    gc.collect()
    threads, descriptors, children = _threads(), _descriptors(), _children()
    yield
    give_up = time.monotonic() + settle
    while True:
        gc.collect()
        running = sorted(thread.name for thread in _threads() - threads)
        left = {
            number: target
            for number, target in _descriptors().items()
            if descriptors.get(number) != target
        }
        orphans = sorted(_children() - children)
        if not (running or left or orphans) or time.monotonic() > give_up:
            break
        time.sleep(0.01)
    assert not running, f"threads left behind: {running}"
    assert not left, f"descriptors left behind: {left}"
    assert not orphans, f"child processes left behind: {orphans}"
