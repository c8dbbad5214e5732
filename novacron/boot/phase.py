"""One phase of the boot: starts its units as the schedule allows and knows when all are settled."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import trio

from novacron.boot import events
from novacron.boot.runtime import Runtime
from novacron.boot.schedule import SCHEDULES
from novacron.boot.unit import Unit
from novacron.component import ComponentState, Criticality, Phase
from novacron.errors import BootError, TransientError, UnavailableError


class DependencyFailedError(BootError, UnavailableError):
    code = "boot.dependency_failed"


class PhaseTimeoutError(BootError, TransientError):
    code = "boot.phase_timeout"


Abort = Callable[[Unit, BaseException], None]


class PhaseRun:
    """Call :meth:`begin`, then wait for ``done``.

    *abort* is called, perhaps more than once, for a critical unit that cannot serve; nothing more
    is launched after the first call.
    """

    def __init__(
        self,
        runtime: Runtime,
        phase: Phase,
        units: Sequence[Unit],
        deadline: float,
        abort: Abort,
    ) -> None:
        """*deadline* is absolute, in Trio's clock."""
        self._runtime = runtime
        self._phase = phase
        self._units = {unit.name: unit for unit in units}
        self._deadline = deadline
        self._abort = abort
        self._aborted = False
        self._schedule = SCHEDULES[runtime.options.schedule](
            {u.name: [d.name for d in (*u.requires, *u.wants)] for u in units}
        )
        self._queue: deque[Unit] = deque()
        self._starting: set[Unit] = set()
        self._unsettled = len(units)
        self._pumping = False
        self.started_at = 0.0
        self.done = trio.Event()

    def begin(self) -> None:
        self.started_at = self._runtime.at()
        self._queue.extend(self._units[name] for name in self._schedule.begin())
        self._pump()
        if self._unsettled == 0:
            self.done.set()

    def _pump(self) -> None:
        """Launch what may start; re-entered by units that settle at once, hence the flag."""
        if self._pumping:
            return
        self._pumping = True
        limit = self._runtime.options.max_concurrency
        while self._queue and len(self._starting) < limit:
            if self._aborted or self._runtime.closing:
                break
            unit = self._queue.popleft()
            unit.eligible = self._runtime.at()
            missing = next((d for d in unit.requires if not d.serving), None)
            self._starting.add(unit)
            if missing is None:
                self._runtime.launch(
                    unit, self._deadline, self._runtime.options.retry.attempts, self.settled
                )
            else:
                self._skip(unit, missing)
        self._pumping = False

    def _skip(self, unit: Unit, missing: Unit) -> None:
        error = DependencyFailedError(
            f"{unit.name} was not started",
            why=f"it requires {missing.name}, which is not available",
            remedy=f"see why {missing.name} failed",
        )
        unit.note_failure(error, self._runtime.at())
        if self._runtime.has_fallback(unit):
            self._runtime.launch_fallback(unit, self._deadline, self.settled)
            return
        unit.move(ComponentState.SKIPPED)
        self._runtime.publish(
            events.ComponentSkipped(unit.name, f"{missing.name} failed", self._runtime.at())
        )
        self.settled(unit)

    def settled(self, unit: Unit) -> None:
        """The start of *unit* is over."""
        self._starting.discard(unit)
        self._unsettled -= 1
        if not unit.serving and unit.criticality is Criticality.CRITICAL and not unit.stop_asked:
            self._aborted = True
            assert unit.failure_error is not None
            self._abort(unit, unit.failure_error)
        self._queue.extend(self._units[name] for name in self._schedule.settle(unit.name))
        self._pump()
        if self._unsettled == 0:
            self.done.set()

    def expire(self) -> None:
        """The deadline passed: nothing more is launched, and what never got its turn has failed.

        What is starting has the same deadline and ends by itself, unless it does not react to
        cancellation; a critical one of those aborts the boot here.
        """
        self._aborted = True
        error_for = self._timeout_of
        for unit in self._units.values():
            if unit in self._starting or unit.state is ComponentState.PENDING:
                error = error_for(unit)
                if unit.failure_error is None:
                    unit.note_failure(error, self._runtime.at())
                if unit.state is ComponentState.PENDING:
                    unit.move(ComponentState.SKIPPED)
                    self._runtime.publish(
                        events.ComponentSkipped(
                            unit.name, f"phase {self._phase} ran out of time", self._runtime.at()
                        )
                    )
                if unit.criticality is Criticality.CRITICAL:
                    self._abort(unit, unit.failure_error or error)

    def _timeout_of(self, unit: Unit) -> PhaseTimeoutError:
        entered = unit in self._starting
        why = (
            "it was still starting and does not react to cancellation"
            if entered
            else "it was still waiting for its dependencies or for a free slot"
        )
        return PhaseTimeoutError(
            f"{unit.name} did not become ready before the deadline of phase {self._phase}",
            why=why,
            remedy="see what took the time with --analyze blame, or allow the phase longer",
            key=f"boot.deadlines.{self._phase}",
        )

    @property
    def longest_stop(self) -> float:
        """Seconds that units cut off by the deadline may need to shut down."""
        return max((u.component.stop_timeout for u in self._starting), default=0.0)
