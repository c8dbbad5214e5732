"""What happens when a component that was ready fails at run time.

=========  =====================================================================================
class      reaction
=========  =====================================================================================
critical   stopped together with all that requires it, restarted in order after a back-off; when
           its retry budget is used up, or a critical dependent does not come back, the node stops
           in order with exit status 1
degraded   serves on its fallback, if it has one, and is restored in the background
warning    is down, and is restored in the background
=========  =====================================================================================

Objects stay the same through all of this; whoever depends on one is told by
``dependency_changed``.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import trio

from novacron.boot import events
from novacron.boot.health import UnhealthyError
from novacron.boot.runtime import Runtime
from novacron.boot.stop import OrderedStop
from novacron.boot.unit import Unit
from novacron.component import Component, ComponentState, Criticality
from novacron.errors import InvalidError

_log = logging.getLogger("novacron.boot")

NOTICE_DEADLINE = 5.0
"""Seconds a component may take to react to a dependency that came or went."""


class Supervisor:
    """*stop_node* is called with a reason when the node cannot go on, *on_restored* with a unit
    that serves in full again, before its dependents are told."""

    def __init__(
        self,
        runtime: Runtime,
        stop_node: Callable[[str], None],
        on_restored: Callable[[Unit], Awaitable[None]],
    ) -> None:
        self._runtime = runtime
        self._stop_node = stop_node
        self._on_restored = on_restored
        self._restart_turn = trio.Lock()
        self._nursery: trio.Nursery | None = None

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        """The boot is over: until cancelled, losses are handled here, and what the boot left behind
        is restored. Restarts under way end with this; components live on elsewhere."""
        async with trio.open_nursery() as self._nursery:
            self._runtime.booting = False
            self._runtime.on_lost = self.lost
            task_status.started()
            for unit in self._runtime.units.values():
                if unit.state in (ComponentState.DEGRADED, ComponentState.FAILED):
                    self._restore_later(unit)
            await trio.sleep_forever()

    def _spawn(self, task: Callable[..., Awaitable[object]], *arguments: object) -> None:
        # A fallback may still report itself after the stop has begun; nobody cares then.
        if self._nursery is not None and not self._nursery.cancel_scope.cancel_called:
            self._nursery.start_soon(task, *arguments)

    def lost(self, unit: Unit, error: BaseException) -> None:
        _log.error(
            "component failed at run time: %s",
            error,
            extra={"component": unit.name},
            exc_info=error,
        )
        if unit.criticality is Criticality.CRITICAL:
            self._spawn(self._restart, unit)
            return
        if self._runtime.has_fallback(unit):
            deadline = trio.current_time() + self._runtime.start_timeout(unit)
            self._runtime.launch_fallback(unit, deadline, self._notice_soon)
        else:
            self._notice_soon(unit)
        self._restore_later(unit)

    def unhealthy(self, unit: Unit, error: UnhealthyError) -> None:
        life = unit.life or unit.fallback_life
        if life is not None:
            life.fail(error)

    def _notice_soon(self, unit: Unit) -> None:
        self._spawn(self._notify, unit)

    def _restore_later(self, unit: Unit, *, at_once: bool = False) -> None:
        if unit.restoring:
            return
        if isinstance(unit.failure_error, InvalidError):
            _log.warning(
                "not restored until its configuration changes and the node restarts",
                extra={"component": unit.name},
            )
            return
        unit.restoring = True
        self._spawn(self._restore, unit, at_once)

    async def _restore(self, unit: Unit, at_once: bool) -> None:
        try:
            while True:
                if not at_once:
                    await trio.sleep(unit.backoff.next_delay(trio.current_time()))
                at_once = False
                if any(not dependency.serving for dependency in unit.requires):
                    # Whoever restores that dependency starts this one right after it.
                    return
                if await self._start(unit, attempts=1):
                    break
        finally:
            unit.restoring = False
        await self._welcome_back(unit)

    async def _start(self, unit: Unit, attempts: int) -> bool:
        """Whether *unit* serves in full afterwards."""
        settled = trio.Event()
        budget = attempts * self._runtime.start_timeout(unit) + sum(
            self._runtime.options.retry.schedule()[: attempts - 1]
        )
        self._runtime.launch(
            unit,
            trio.current_time() + 1.25 * budget,
            attempts,
            lambda _: settled.set(),
        )
        await settled.wait()
        return unit.state is ComponentState.READY

    async def _welcome_back(self, unit: Unit) -> None:
        now = self._runtime.at()
        seconds = now - unit.lost_at if unit.lost_at is not None else 0.0
        unit.lost_at = None
        unit.restorations += 1
        if unit.fallback_life is not None:
            unit.fallback_life.stop_requested.set()
        self._runtime.publish(events.ComponentRestored(unit.name, now, seconds))
        _log.info("component restored", extra={"component": unit.name, "seconds": seconds})
        await self._on_restored(unit)
        await self._notify(unit)
        for dependent in unit.dependents:
            if (
                dependent.state
                in (ComponentState.SKIPPED, ComponentState.FAILED, ComponentState.DEGRADED)
                and dependent.criticality is not Criticality.CRITICAL
                and all(dependency.serving for dependency in dependent.requires)
            ):
                self._restore_later(dependent, at_once=True)

    async def _notify(self, unit: Unit) -> None:
        for neighbour in (*unit.dependents, *unit.wishers):
            component = neighbour.component
            if (
                not neighbour.serving
                or type(component).dependency_changed is Component.dependency_changed
            ):
                continue
            try:
                with trio.fail_after(NOTICE_DEADLINE):
                    await component.dependency_changed(unit.component)
            except Exception:
                _log.exception(
                    "a dependency's change was not taken in",
                    extra={"component": neighbour.name, "dependency": unit.name},
                )

    async def _restart(self, unit: Unit) -> None:
        unit.restoring = True
        try:
            async with self._restart_turn:
                if not unit.serving:
                    await self._restart_with_dependents(unit)
        finally:
            unit.restoring = False

    async def _restart_with_dependents(self, unit: Unit) -> None:
        affected = self._requiring(unit)
        stop = OrderedStop(self._runtime, f"{unit.name} failed", affected)
        await stop.run()
        if stop.abandoned:
            self._end(unit, f"{stop.abandoned[0].name} could not be stopped for the restart")
            return
        while True:
            delay = unit.backoff.next_delay(trio.current_time())
            if unit.backoff.exhausted:
                self._end(unit, "its retry budget is used up")
                return
            await trio.sleep(delay)
            if await self._start(unit, attempts=1):
                break
        await self._welcome_back(unit)
        for dependent in affected:
            await self._start_again(dependent)

    async def _start_again(self, unit: Unit) -> None:
        if any(not dependency.serving for dependency in unit.requires):
            started = False
        else:
            started = await self._start(unit, self._runtime.options.retry.attempts)
        if started:
            await self._on_restored(unit)
            await self._notify(unit)
        elif unit.criticality is Criticality.CRITICAL:
            self._end(unit, "it did not come back after the restart of what it requires")
        else:
            self._restore_later(unit)

    def _end(self, unit: Unit, why: str) -> None:
        _log.critical("the node stops: %s failed and %s", unit.name, why)
        self._stop_node(f"critical component lost: {unit.name} ({why})")

    def _requiring(self, unit: Unit) -> list[Unit]:
        """Every running unit that requires *unit*, directly or not, dependencies first."""
        found: set[Unit] = set()
        pending = [unit]
        while pending:
            for dependent in pending.pop().dependents:
                if dependent not in found and dependent.hosts:
                    found.add(dependent)
                    pending.append(dependent)
        order: list[Unit] = []
        placed: set[Unit] = set()

        def place(member: Unit) -> None:
            if member in placed:
                return
            placed.add(member)
            for dependency in (*member.requires, *member.wants):
                if dependency in found:
                    place(dependency)
            order.append(member)

        for member in self._runtime.units.values():
            if member in found:
                place(member)
        return order
