"""Continuous health: cached answers at three depths, and the count that makes a failure of them."""

from __future__ import annotations

from collections.abc import Callable

import trio

from novacron.boot.options import HealthOptions
from novacron.boot.runtime import Runtime
from novacron.boot.unit import Unit
from novacron.component import Health, HealthDepth, HealthState
from novacron.errors import BootError, TransientError


class UnhealthyError(BootError, TransientError):
    """A component that was ready failed its deep checks several times in a row."""

    code = "boot.unhealthy"


class HealthMonitor:
    """Checks every serving unit, each in a task of its own, so that one that hangs delays no other.

    *on_unhealthy* is called when ``failures`` deep checks in a row failed.
    """

    def __init__(
        self,
        runtime: Runtime,
        options: HealthOptions,
        on_unhealthy: Callable[[Unit, UnhealthyError], None],
    ) -> None:
        self._runtime = runtime
        self.options = options
        self._on_unhealthy = on_unhealthy
        self._cached: dict[tuple[Unit, HealthDepth], tuple[float, Health]] = {}
        self._failures: dict[Unit, int] = {}

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            for unit in self._runtime.units.values():
                nursery.start_soon(self._watch, unit)

    async def _watch(self, unit: Unit) -> None:
        next_deep = trio.current_time() + self.options.deep_interval
        while True:
            await trio.sleep(min(self.options.interval, self.options.deep_interval))
            if not unit.serving:
                self._failures.pop(unit, None)
                continue
            if trio.current_time() >= next_deep:
                next_deep = trio.current_time() + self.options.deep_interval
                health = await self.check(unit, HealthDepth.DEEP, fresh=True)
                self._count(unit, health)
            else:
                await self.check(unit, HealthDepth.SHALLOW, fresh=True)

    def _count(self, unit: Unit, health: Health) -> None:
        if health.state is not HealthState.UNHEALTHY or not unit.serving:
            self._failures.pop(unit, None)
            return
        count = self._failures.get(unit, 0) + 1
        if count < self.options.failures:
            self._failures[unit] = count
            return
        self._failures.pop(unit, None)
        self._on_unhealthy(
            unit,
            UnhealthyError(
                f"{unit.name} is unhealthy",
                why=f"{count} deep checks in a row failed, the last one: {health.message}",
                remedy="the node restarts it; see the log if it comes back",
            ),
        )

    async def check(self, unit: Unit, depth: HealthDepth, *, fresh: bool = False) -> Health:
        """One unit's health; an answer at most ``cache`` seconds old unless *fresh*."""
        if not unit.serving:
            message = f"component is {unit.state}"
            if unit.failure is not None:
                message += f": {unit.failure['what']}"
            state = HealthState.UNKNOWN if unit.failure is None else HealthState.UNHEALTHY
            return Health(state, message)
        key = (unit, depth)
        now = trio.current_time()
        if not fresh and key in self._cached:
            asked, health = self._cached[key]
            if now - asked <= self.options.cache:
                return health
        health = await self._ask(unit, depth)
        self._cached[key] = (trio.current_time(), health)
        unit.note_health(depth, health)
        return health

    async def _ask(self, unit: Unit, depth: HealthDepth) -> Health:
        try:
            with trio.fail_after(depth.deadline):
                return await unit.component.health_check(depth)
        except trio.TooSlowError:
            # Hung is not dead: only a deep check that hangs counts towards a failure.
            state = HealthState.UNKNOWN if depth is HealthDepth.SHALLOW else HealthState.UNHEALTHY
            return Health(state, f"no answer in {depth.deadline:g} s")
        except Exception as exc:
            return Health(HealthState.UNHEALTHY, f"the check failed: {exc}")

    async def check_all(self, depth: HealthDepth) -> dict[str, Health]:
        """Every unit's health by name, asked at once."""
        answers: dict[str, Health] = {}

        async def one(unit: Unit) -> None:
            answers[unit.name] = await self.check(unit, depth)

        async with trio.open_nursery() as nursery:
            for unit in self._runtime.units.values():
                nursery.start_soon(one, unit)
        return {name: answers[name] for name in self._runtime.units}
