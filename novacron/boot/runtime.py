"""Carries components through their lives: attempts, retries, fallbacks. Decides no policy.

One task, a *host*, carries a component from its first attempt until it has been shut down. Whoever
launches it (a phase of the boot, or the supervisor) is told once, through ``settled``, when the
start is over, whatever the outcome; ``unit.state`` says which.
"""

from __future__ import annotations

import random as random_module
from collections.abc import Awaitable, Callable, Sequence

import trio

from novacron.boot import events
from novacron.boot.events import Event, describe_error
from novacron.boot.life import Life, StartTimeoutError
from novacron.boot.options import EngineOptions
from novacron.boot.registry import Definition
from novacron.boot.retry import Backoff
from novacron.boot.unit import Unit, link
from novacron.component import ComponentState, Criticality, DegradableComponent
from novacron.errors import BootError, UnavailableError

PATIENCE = 2 / 3
"""The part of what is left of a phase that a component may use which the node can do without. The
rest is for its fallback and for those that wait for it: a dispensable component that hangs must not
take indispensable ones down with it."""

Settled = Callable[[Unit], None]


class StoppedError(BootError, UnavailableError):
    """A start was given up because the node stops or rolls back."""

    code = "boot.stopped"


class Runtime:
    """The units of one node and the nursery they live in.

    *origin* is the kernel's start of this process on Trio's clock; every recorded time counts from
    it. ``on_lost`` is called when a component that was ready ended unasked.
    """

    def __init__(
        self,
        definitions: Sequence[Definition],
        options: EngineOptions,
        publish: Callable[[Event], None],
        random: Callable[[], float] = random_module.random,
    ) -> None:
        self.options = options
        self.publish = publish
        self.units = link(list(definitions), lambda: Backoff(options.retry, random))
        self.root: trio.Nursery | None = None
        self.origin = 0.0
        self.booting = True
        self.closing = False
        """The boot was given up or the node stops: phases launch nothing more."""
        self.on_lost: Callable[[Unit, BaseException], None] = lambda unit, error: None
        self.on_ended: Callable[[Unit], None] | None = None

    def at(self) -> float:
        """Seconds since process start."""
        return trio.current_time() - self.origin

    def start_timeout(self, unit: Unit) -> float:
        return self.options.start_timeouts.get(unit.name, unit.component.start_timeout)

    def spawn(self, task: Callable[..., Awaitable[object]], *arguments: object) -> None:
        assert self.root is not None
        self.root.start_soon(task, *arguments)

    def launch(self, unit: Unit, deadline: float, attempts: int, settled: Settled) -> None:
        """Start *unit* in a host of its own: at most *attempts* tries before *deadline* (absolute,
        Trio's clock)."""
        unit.hosts += 1
        unit.stop_asked = False
        unit.stop_error = None
        self.spawn(self._host, unit, deadline, attempts, settled)

    def launch_fallback(self, unit: Unit, deadline: float, settled: Settled) -> None:
        """Serve *unit*'s dependents with less, in a host of its own."""
        unit.hosts += 1
        self.spawn(self._host_fallback, unit, deadline, settled)

    async def _host(self, unit: Unit, deadline: float, attempts: int, settled: Settled) -> None:
        try:
            await self._carry(unit, deadline, attempts, settled)
        finally:
            life, unit.life = unit.life, None
            self._end_host(unit, life)

    async def _carry(self, unit: Unit, deadline: float, attempts: int, settled: Settled) -> None:
        if unit.stop_asked:
            settled(unit)
            return
        component = unit.component
        latest = deadline
        if unit.criticality is not Criticality.CRITICAL and self.booting:
            now = trio.current_time()
            latest = now + PATIENCE * (deadline - now)
        for number in range(1, attempts + 1):
            unit.tries = number
            began = self.at()
            if number == 1:
                unit.entered = began
                if self.booting:
                    unit.started = began
            if unit.fallback_life is None:
                unit.move(ComponentState.STARTING)
            self.publish(events.ComponentEntered(unit.name, unit.phase, number, began))
            life = unit.life = Life(
                unit.name, component.initialize, component.shutdown, component.stop_timeout
            )

            def ready(life: Life = life, number: int = number, began: float = began) -> None:
                self._note_attempt(unit, number, began, "ready", None)
                self._become_ready(unit)
                settled(unit)

            await life.run(min(trio.current_time() + self.start_timeout(unit), latest), ready)
            if life.was_ready:
                if life.error is not None:
                    self._lose(unit, life)
                return
            error = life.error or StoppedError(f"{unit.name} was stopped while it started")
            unit.note_failure(error, self.at())
            self._note_attempt(unit, number, began, _outcome(life), error)
            if life.cancel_reason is not None:
                break
            if number < attempts and await self._sleep_before_retry(unit, error, latest):
                continue
            break
        self._give_up(unit, deadline, settled)

    async def _sleep_before_retry(self, unit: Unit, error: BaseException, latest: float) -> bool:
        """Whether to try again; sleeps first. A delay past the deadline is not worth sleeping."""
        if not getattr(error, "retryable", False):
            return False
        delay = unit.backoff.next_delay(trio.current_time())
        if trio.current_time() + delay >= latest:
            return False
        if unit.fallback_life is None:
            unit.move(ComponentState.RETRYING)
        self.publish(events.ComponentRetry(unit.name, unit.tries, delay, error, self.at()))
        began = self.at()
        with trio.CancelScope() as unit.sleep_scope:
            await trio.sleep(delay)
        cancelled = unit.sleep_scope.cancelled_caught
        unit.sleep_scope = None
        unit.retry_sleep += self.at() - began
        return not cancelled

    def _become_ready(self, unit: Unit) -> None:
        unit.backoff.note_ready(trio.current_time())
        now = self.at()
        unit.start_seconds = now - unit.entered
        if self.booting:
            unit.ready = now
        unit.note_ready()
        self.publish(events.ComponentReady(unit.name, now, unit.start_seconds, False))

    def _give_up(self, unit: Unit, deadline: float, settled: Settled) -> None:
        assert unit.failure_error is not None
        if unit.fallback_life is not None:
            # A restoration attempt failed; the fallback goes on serving.
            settled(unit)
            return
        unit.move(ComponentState.FAILED)
        if unit.stop_asked:
            settled(unit)
            return
        self.publish(events.ComponentFailed(unit.name, self.at(), unit.failure_error))
        if self.has_fallback(unit):
            self.launch_fallback(unit, deadline, settled)
        else:
            if unit.lost_at is None:
                unit.lost_at = self.at()
            settled(unit)

    def _lose(self, unit: Unit, life: Life) -> None:
        assert life.error is not None
        if unit.stop_asked:
            # What breaks while it is being stopped is a flaw of its stop, not a loss.
            life.stop_error = life.stop_error or life.error
            return
        unit.note_failure(life.error, self.at())
        unit.start_seconds = None
        unit.lost_at = self.at()
        unit.move(ComponentState.FAILED)
        self.publish(events.ComponentLost(unit.name, self.at(), life.error))
        self.on_lost(unit, life.error)

    async def _host_fallback(self, unit: Unit, deadline: float, settled: Settled) -> None:
        component = unit.component
        assert isinstance(component, DegradableComponent)
        life = unit.fallback_life = Life(
            unit.name,
            component.initialize_fallback,
            component.shutdown_fallback,
            component.stop_timeout,
        )
        began = self.at()

        def ready() -> None:
            if unit.lost_at is None:
                unit.lost_at = began
            unit.start_seconds = None
            unit.fell_back = unit.fell_back or self.booting
            unit.move(ComponentState.DEGRADED)
            self.publish(events.ComponentReady(unit.name, self.at(), self.at() - began, True))
            settled(unit)

        try:
            limit = min(trio.current_time() + self.start_timeout(unit), deadline)
            await life.run(limit, ready)
            unit.fallback_life = None
            if life.was_ready:
                if life.error is not None and not unit.stop_asked:
                    unit.note_failure(life.error, self.at())
                    unit.move(ComponentState.FAILED)
                    self.publish(events.ComponentLost(unit.name, self.at(), life.error))
                    self.on_lost(unit, life.error)
            else:
                if life.error is not None:
                    unit.note_failure(life.error, self.at())
                    self.publish(events.ComponentFailed(unit.name, self.at(), life.error))
                if unit.lost_at is None:
                    unit.lost_at = began
                unit.move(ComponentState.FAILED)
                settled(unit)
        finally:
            unit.fallback_life = None
            self._end_host(unit, life)

    def has_fallback(self, unit: Unit) -> bool:
        return unit.criticality is Criticality.DEGRADED and isinstance(
            unit.component, DegradableComponent
        )

    def _note_attempt(
        self, unit: Unit, number: int, began: float, outcome: str, error: BaseException | None
    ) -> None:
        if self.booting:
            unit.attempts.append(
                {
                    "number": number,
                    "start": round(began, 6),
                    "end": round(self.at(), 6),
                    "outcome": outcome,
                    "error": None if error is None else describe_error(error),
                }
            )

    def _end_host(self, unit: Unit, life: Life | None) -> None:
        unit.hosts -= 1
        if life is not None and life.stop_error is not None:
            unit.stop_error = life.stop_error
        if unit.hosts == 0:
            if unit.stop_asked:
                unit.stopped = self.at()
                if unit.state is not ComponentState.FAILED:
                    unit.move(ComponentState.STOPPED)
                self.publish(events.ComponentStopped(unit.name, unit.stopped, unit.stop_error))
            if self.on_ended is not None:
                self.on_ended(unit)


def _outcome(life: Life) -> str:
    if life.cancel_reason is not None:
        return "cancelled"
    return "timeout" if isinstance(life.error, StartTimeoutError) else "failed"
