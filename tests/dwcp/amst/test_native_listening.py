"""Who waits for a word of the engine gets it, whichever task it was that listened."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, cast

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from novacron._native.amst import Event
from novacron.dwcp.amst.native import NativeEngine


class Spoken:
    """An engine that says what a test wants it to, about objects 1 to 9."""

    def __init__(self) -> None:
        self.event_fd = os.eventfd(0, os.EFD_NONBLOCK)
        self._events: list[Event] = []

    def say(self, *objects: int) -> None:
        self._events += [Event("object_ended", "OK", 0, False, 0, 0, tag) for tag in objects]
        os.eventfd_write(self.event_fd, 1)

    def poll(self) -> list[Event]:
        os.eventfd_read(self.event_fd)
        events, self._events = self._events, []
        return events


class Listener:
    def __init__(self) -> None:
        self.said = trio.Event()

    def _take(self, event: Event) -> None:
        self.said.set()


@pytest.fixture
def spoken() -> Iterator[Spoken]:
    engine = Spoken()
    yield engine
    os.close(engine.event_fd)


async def test_two_that_wait_are_both_told_though_a_third_listens_next(spoken: Spoken) -> None:
    engine = NativeEngine(cast(Any, spoken))
    objects = {tag: Listener() for tag in range(1, 10)}
    engine._objects = cast(Any, objects)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            await nursery.start(engine._pump)
            await wait_all_tasks_blocked()
            nursery.start_soon(engine._until, objects[1].said)
            await wait_all_tasks_blocked()
            spoken.say(9)
            await wait_all_tasks_blocked()

            async def wait_for_both() -> None:
                await engine._until(objects[2].said)
                engine._pumping.cancel()

            nursery.start_soon(wait_for_both)
            await wait_all_tasks_blocked()
            spoken.say(1, 2)


async def test_somebody_listens_when_the_one_who_did_is_cancelled(spoken: Spoken) -> None:
    engine = NativeEngine(cast(Any, spoken))
    objects = {tag: Listener() for tag in range(1, 10)}
    engine._objects = cast(Any, objects)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            await nursery.start(engine._pump)
            await wait_all_tasks_blocked()
            nursery.start_soon(engine._until, objects[1].said)
            await wait_all_tasks_blocked()
            engine._pumping.cancel()
            await wait_all_tasks_blocked()
            spoken.say(1)
