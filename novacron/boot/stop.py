"""Stopping in reverse dependency order: drain, clean up, force.

Phases stop last to first; inside a phase a component stops the moment everything that depends on
it has stopped, so that B is never gone while A still needs it. One that overruns its own deadline
does not hold up the next. A boot that failed is rolled back the same way, without draining.
"""

from __future__ import annotations

import heapq
import itertools
import logging
from collections.abc import Iterable

import trio

from novacron.boot import events
from novacron.boot.life import FORCED_STOP, StopTimeoutError
from novacron.boot.registry import PHASES
from novacron.boot.runtime import Runtime, StoppedError
from novacron.boot.unit import Unit
from novacron.component import Component, ComponentState, Phase

_log = logging.getLogger("novacron.boot")

GRACE = 0.25
"""Seconds past a component's stop deadline before the order goes on without it. The deadline
itself cancels ``shutdown``; only code that ignores cancellation is still there after this."""


class OrderedStop:
    """Stops every live unit of *runtime*, or of *units*; :meth:`run` may be cancelled and run
    again, and goes on where it was."""

    def __init__(self, runtime: Runtime, reason: str, units: Iterable[Unit] | None = None) -> None:
        self._runtime = runtime
        self._reason = StoppedError(
            "the start was given up", why=reason, remedy="start it again when the node is up"
        )
        members = list(runtime.units.values() if units is None else units)
        self._live = {unit for unit in members if unit.hosts}
        self._sequential = runtime.options.schedule == "sequential"
        self._waiting: dict[Unit, int] = {}
        self._asked: set[Unit] = set()
        self._deadlines: list[tuple[float, int, Unit]] = []
        self._tie = itertools.count()
        self._progress = trio.Event()
        self._forced = False
        self.stopped: list[str] = []
        """Names in the order their stop was over."""
        self.abandoned: list[Unit] = []

    async def run(self) -> None:
        previous, self._runtime.on_ended = self._runtime.on_ended, self._ended
        try:
            for phase in reversed(PHASES):
                await self._stop_phase(phase)
        finally:
            self._runtime.on_ended = previous

    def force(self) -> None:
        """Cut short the stops under way and leave the others little time; the order holds."""
        self._forced = True
        for unit in self._live:
            unit.force_stop()
        cut = trio.current_time() + FORCED_STOP + GRACE
        self._deadlines = [(min(at, cut), n, unit) for at, n, unit in self._deadlines]
        heapq.heapify(self._deadlines)

    async def _stop_phase(self, phase: Phase) -> None:
        group = [unit for unit in self._live if unit.phase is phase]
        if self._sequential:
            await self._stop_one_by_one(group)
            return
        members = set(group)
        for unit in group:
            if unit not in self._waiting:
                self._waiting[unit] = sum(
                    1 for d in {*unit.dependents, *unit.wishers} if d in members
                )
        for unit in group:
            if self._waiting[unit] == 0 and unit not in self._asked:
                self._ask(unit)
        await self._wait_gone(members)

    async def _stop_one_by_one(self, group: list[Unit]) -> None:
        group.sort(key=lambda unit: unit.started or 0.0)
        while group:
            unit = group.pop()
            if unit in self._live:
                self._waiting[unit] = 0
                self._ask(unit)
                await self._wait_gone({unit})

    def _ask(self, unit: Unit) -> None:
        self._asked.add(unit)
        if not unit.stop_asked:
            if unit.serving:
                unit.move(ComponentState.STOPPING)
            self._runtime.publish(events.ComponentStopping(unit.name, self._runtime.at()))
            unit.request_stop(self._reason)
        if self._forced:
            unit.force_stop()
        allowed = FORCED_STOP if self._forced else unit.component.stop_timeout
        if unit.fallback_life is not None and unit.life is not None:
            allowed *= 2
        heapq.heappush(
            self._deadlines, (trio.current_time() + allowed + GRACE, next(self._tie), unit)
        )

    def _ended(self, unit: Unit) -> None:
        if unit in self._live:
            self._release(unit)

    def _release(self, unit: Unit) -> None:
        self._live.discard(unit)
        self.stopped.append(unit.name)
        for dependency in {*unit.requires, *unit.wants}:
            if dependency in self._live and dependency in self._waiting:
                self._waiting[dependency] -= 1
                if self._waiting[dependency] == 0 and not self._sequential:
                    self._ask(dependency)
        self._progress.set()

    async def _wait_gone(self, members: set[Unit]) -> None:
        while not members.isdisjoint(self._live):
            overdue = self._deadlines[0][0] if self._deadlines else trio.current_time() + 60
            with trio.CancelScope(deadline=overdue):
                # Checked again: a unit may have ended between the test above and here.
                if not self._progress.is_set():
                    await self._progress.wait()
            self._progress = trio.Event()
            self._give_up_overdue()

    def _give_up_overdue(self) -> None:
        now = trio.current_time()
        while self._deadlines and (
            self._deadlines[0][0] <= now or self._deadlines[0][2] not in self._live
        ):
            _, _, unit = heapq.heappop(self._deadlines)
            if unit not in self._live:
                continue
            unit.stop_error = StopTimeoutError(
                f"{unit.name} did not stop",
                why="it does not react to cancellation, probably a thread that hangs",
                remedy="the process ends without it; report what it was doing",
            )
            self.abandoned.append(unit)
            _log.error("%s", unit.stop_error, extra={"component": unit.name})
            self._runtime.publish(
                events.ComponentStopped(unit.name, self._runtime.at(), unit.stop_error)
            )
            self._release(unit)


async def drain(runtime: Runtime) -> None:
    """Let components finish what is in flight, last phase first; each phase's at once.

    Those that overrun are cancelled by the caller's scope. What a drain raises is logged.
    """
    for phase in reversed(PHASES):
        units = [
            unit
            for unit in runtime.units.values()
            if unit.phase is phase
            and unit.serving
            and type(unit.component).drain is not Component.drain
        ]
        async with trio.open_nursery() as nursery:
            for unit in units:
                nursery.start_soon(_drain_one, unit)


async def _drain_one(unit: Unit) -> None:
    try:
        await unit.component.drain()
    except Exception:
        _log.exception("drain failed", extra={"component": unit.name})
