"""Components whose behaviour the tests choose, and an engine around them that keeps a diary."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

import trio

from novacron.boot.engine import Engine
from novacron.boot.events import Event
from novacron.boot.node_view import BootRecord, EngineView
from novacron.boot.options import EngineOptions
from novacron.boot.registry import Definition
from novacron.boot.retry import RetryPolicy
from novacron.component import Component, Criticality, DegradableComponent, Phase
from novacron.errors import BootError, InvalidError, TransientError

Behaviour = Callable[["Fake", trio.Nursery], Awaitable[None]]


EXACT = RetryPolicy(jitter=0.0)
QUICK = EngineOptions(health=None, retry=EXACT)
Diary = list[tuple[str, str]]


class Flaky(BootError, TransientError):
    code = "test.flaky"


class Broken(BootError, InvalidError):
    code = "test.broken"


class Fake(Component):
    """Starts in *seconds*, or as *start* says; writes what happens to it into *diary*."""

    phase = Phase.CORE
    criticality = Criticality.CRITICAL

    def __init__(
        self,
        name: str,
        diary: list[tuple[str, str]],
        seconds: float = 0.0,
        start: Behaviour | None = None,
        stop: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.name = name  # type: ignore[misc]  # a class variable for everyone else
        self.diary = diary
        self.seconds = seconds
        self.start = start
        self.stop = stop
        self.entered = 0
        self.stopped = 0

    async def initialize(self, nursery: trio.Nursery) -> None:
        self.entered += 1
        self.diary.append(("enter", self.name))
        if self.start is not None:
            await self.start(self, nursery)
        else:
            await trio.sleep(self.seconds)
        self.diary.append(("ready", self.name))

    async def shutdown(self) -> None:
        self.stopped += 1
        self.diary.append(("stop", self.name))
        try:
            if self.stop is not None:
                await self.stop()
        finally:
            self.diary.append(("gone", self.name))


class FakeWithFallback(Fake, DegradableComponent):
    """Counts how often its fallback was entered and left."""

    criticality = Criticality.DEGRADED
    fallback_entered = 0
    fallback_stopped = 0

    async def initialize_fallback(self, nursery: trio.Nursery) -> None:
        self.fallback_entered += 1
        self.diary.append(("fallback", self.name))

    async def shutdown_fallback(self) -> None:
        self.fallback_stopped += 1
        self.diary.append(("fallback gone", self.name))


def define(
    component: Fake,
    requires: Iterable[str] = (),
    wants: Iterable[str] = (),
    criticality: Criticality | None = None,
    phase: Phase | None = None,
) -> Definition:
    return Definition(
        component.name,
        phase or component.phase,
        criticality or component.criticality,
        tuple(requires),
        tuple(wants),
        component,
    )


class Stage:
    """An engine over *definitions* whose events are kept in ``events``.

    *on_event* sees each event as it happens, with the engine, and may steer it.
    """

    def __init__(
        self,
        definitions: list[Definition],
        options: EngineOptions | None = None,
        on_event: Callable[[Engine, Event], None] | None = None,
        **engine_arguments: object,
    ) -> None:
        self.events: list[Event] = []
        self.view = EngineView(BootRecord("test", 1, 0.0))

        def publish(event: Event) -> None:
            self.events.append(event)
            if on_event is not None:
                on_event(self.engine, event)

        self.engine = Engine(
            definitions,
            options or EngineOptions(health=None),
            self.view,
            publish=publish,
            **engine_arguments,  # type: ignore[arg-type]
        )

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]

    def find(self, kind: str) -> list[Event]:
        return [event for event in self.events if event.kind == kind]


def stop_when_ready(engine: Engine, event: Event) -> None:
    if event.kind == "node_ready":
        engine.request_stop("test")


def failing(times: int, error: type[Exception] = Flaky) -> Behaviour:
    """A start that fails *times* times, then succeeds."""

    async def start(fake: Fake, nursery: trio.Nursery) -> None:
        await trio.sleep(fake.seconds)
        if fake.entered <= times:
            raise error(f"{fake.name} failed")

    return start
