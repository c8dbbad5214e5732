"""The boot engine: four phases under cancel scopes, checkpoints, READY, supervision, stop.

It knows no concrete component. Build it from definitions and options, and ``await run()``.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence

import trio

from novacron.boot import events, exits
from novacron.boot.checkpoint import (
    AFTER_PHASE,
    INIT_START,
    ROLLED_BACK,
    STOPPED,
    BootState,
    StateWriteError,
)
from novacron.boot.events import Event, describe_error
from novacron.boot.health import HealthMonitor, UnhealthyError
from novacron.boot.node_view import EngineView
from novacron.boot.options import EngineOptions, HealthOptions
from novacron.boot.phase import PhaseRun
from novacron.boot.registry import PHASES, Definition
from novacron.boot.runtime import Runtime
from novacron.boot.stop import OrderedStop, drain
from novacron.boot.supervisor import Supervisor
from novacron.boot.undo import UndoFailedError, handlers_of, undo
from novacron.boot.unit import Unit
from novacron.component import Announcer, Criticality, HealthDepth, JsonObject, NodeState, Phase

_log = logging.getLogger("novacron.boot")

REMEMBER_DEADLINE = 5.0
"""Seconds a stop waits for the boot's report to be kept; a disk that hangs must not hold it up."""

SaveReport = Callable[[JsonObject], str | None]
"""Keeps a report durably and returns where, or None; blocks on the disk."""


def _elapsed_zero() -> float:
    return 0.0


class Engine:
    """Boots, supervises and stops one node.

    Args:
      definitions: from :meth:`Registry.resolve`.
      view: the object the components were given as their :class:`NodeView`.
      publish: called synchronously with every event.
      state: durable boot state; None (benches, tests) keeps nothing.
      elapsed: seconds since the kernel started this process.
      hard_exit: ends the process at once; called when tasks that ignore cancellation are left
        after the force deadline.
    """

    def __init__(
        self,
        definitions: Sequence[Definition],
        options: EngineOptions,
        view: EngineView,
        *,
        publish: Callable[[Event], None],
        state: BootState | None = None,
        save_report: SaveReport | None = None,
        elapsed: Callable[[], float] = _elapsed_zero,
        hard_exit: Callable[[int], object] = os._exit,
        data_dir: str = "",
        log_file: str | None = None,
    ) -> None:
        self.runtime = Runtime(definitions, options, publish)
        self.view = view
        self._options = options
        self._record = view.record
        self._state = state
        self._save_report = save_report
        self._elapsed = elapsed
        self._hard_exit = hard_exit
        self._data_dir = data_dir
        self._log_file = log_file
        self._publish = publish
        self._undo_handlers = handlers_of(definitions)
        self.supervisor = Supervisor(self.runtime, self._stop_failed, self._take_stock)
        self._monitor = HealthMonitor(
            self.runtime, options.health or HealthOptions(), self._on_unhealthy
        )
        self.runtime.on_lost = self._lost_in_boot
        view.bind(self.runtime, self._monitor)
        self._boot_scope = trio.CancelScope()
        self._supervision_scope = trio.CancelScope()
        self._drain_scope = trio.CancelScope()
        self._cleanup_scope = trio.CancelScope()
        self._stop_wanted = trio.Event()
        self._remembered = trio.Event()
        self._stop_reason: str | None = None
        self._forced = False
        self._phase_deadline = float("inf")
        self._code = exits.OK

    # --- asked from outside -------------------------------------------------------------------

    def request_stop(self, reason: str) -> None:
        """Stop in order; during the boot, roll back. A second call changes nothing."""
        if self._stop_reason is None:
            self._stop_reason = reason
            self._stop_wanted.set()
            self._give_up_boot()

    def request_force(self) -> None:
        """Skip what is left of draining and cleaning up."""
        self._forced = True
        self._drain_scope.cancel()
        self._cleanup_scope.cancel()

    def progress(self, component: str, message: str, extend: float) -> None:
        """A component's sign of life: moves the deadline of the attempt it is in."""
        unit = self.runtime.units[component]
        life = unit.life or unit.fallback_life
        if life is not None:
            limit = self._phase_deadline if self.runtime.booting else float("inf")
            life.extend(min(trio.current_time() + extend, limit))
        self._publish(events.ComponentProgress(component, message, self.runtime.at()))

    def change_health(self, options: HealthOptions) -> None:
        """Take new intervals and limits for the continuous checks; the next checks follow them."""
        self._monitor.options = options

    async def run(self) -> int:
        """Returns the exit status once everything has ended. Cancelling it stops in order too."""
        self.runtime.origin = trio.current_time() - self._elapsed()
        async with trio.open_nursery() as outer:
            outer.start_soon(self._stop_when_cancelled)
            # Components must not see a cancellation from outside before their turn to stop.
            with trio.CancelScope(shield=True):
                async with trio.open_nursery() as root:
                    self.runtime.root = root
                    self._code = await self._live(root)
                    root.cancel_scope.cancel()
            outer.cancel_scope.cancel()
        self._publish(events.NodeStopped(self.runtime.at(), self._code))
        return self._code

    async def _stop_when_cancelled(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self.request_stop("cancelled")

    async def _live(self, root: trio.Nursery) -> int:
        await self._boot()
        if self._record.failure is None and self._stop_reason is None:
            # From here on a loss is handled, not a failure of the boot.
            await root.start(self._supervise)
            if self._record.failure is None:
                await self._announce()
        if self._record.failure is not None or self._record.ready_seconds is None:
            self._supervision_scope.cancel()
            return await self._roll_back()
        root.start_soon(self._remember_boot, self.view.report())
        await self._stop_wanted.wait()
        return await self._stop()

    # --- boot ---------------------------------------------------------------------------------

    async def _boot(self) -> None:
        components: dict[str, list[str]] = {str(phase): [] for phase in PHASES}
        for unit in self.runtime.units.values():
            components[str(unit.phase)].append(unit.name)
        self._publish(events.BootStarted(self._record.boot_id, self.runtime.at(), components))
        with self._boot_scope:
            total = trio.current_time() + self._options.total
            try:
                await self._recover()
                await self._checkpoint(INIT_START)
                for phase in PHASES:
                    await self._run_phase(phase, total)
                    if self._record.failure is not None:
                        return
                    if phase is PHASES[-1]:
                        await self._final_checkpoint(AFTER_PHASE[phase])
                    else:
                        await self._checkpoint(AFTER_PHASE[phase])
            except Exception as exc:
                self._fail(None, exc)

    async def _recover(self) -> None:
        """Undo what a crashed boot or run left behind."""
        if self._state is None:
            return
        for text in self._state.quarantined:
            self.view.warn(text)
        previous = self._state.previous
        owed = self._state.journal.owed
        crashed = previous is not None and not self._state.stopped_in_order
        if not crashed and not owed:
            return
        undone, failed = await undo(
            self._state, owed, self._undo_handlers, self._publish, self.runtime.at
        )
        self._record.recovered = {
            "boot_id": previous["boot_id"] if previous else None,
            "checkpoint": previous["checkpoint"] if previous else None,
            "undone": undone,
            "failures": failed,
        }
        if failed:
            raise UndoFailedError(
                "what the previous run left behind cannot be undone",
                why="; ".join(f"{f['component']}: {f['what']}" for f in failed),
                remedy="repair it by hand, or boot once with the version that made it",
                key="system.data_dir",
            )
        if crashed:
            _log.warning("the previous run ended without a stop", extra=self._record.recovered)

    async def _checkpoint(self, name: str) -> None:
        """Have *name* written while the boot goes on; a failure to write it fails the boot.

        The next checkpoint, and every undo step, waits until this one is durable (ADR 13).
        """
        if self._state is not None:
            await self._state.turn.acquire()
            self.runtime.spawn(self._write_behind, self._state, name)

    async def _write_behind(self, state: BootState, name: str) -> None:
        try:
            await self._write_checkpoint(state, name)
        except Exception as exc:
            self._fail(None, exc)
        finally:
            state.turn.release()

    async def _final_checkpoint(self, name: str) -> None:
        """Return when *name* is durable. Raises StateWriteError."""
        if self._state is not None:
            async with self._state.turn:
                await self._write_checkpoint(self._state, name)

    async def _write_checkpoint(self, state: BootState, name: str) -> None:
        began = trio.current_time()
        started = [unit.name for unit in self.runtime.units.values() if unit.serving]
        await trio.to_thread.run_sync(state.write_checkpoint, name, started)
        took = trio.current_time() - began
        self._record.checkpoints.append(
            {"name": name, "at": round(self.runtime.at(), 6), "took": round(took, 6)}
        )
        self._publish(events.CheckpointWritten(name, self.runtime.at(), took))

    async def _run_phase(self, phase: Phase, total: float) -> None:
        units = [unit for unit in self.runtime.units.values() if unit.phase is phase]
        now = trio.current_time()
        deadline = self._phase_deadline = min(now + self._options.deadlines[phase], total)
        entry: JsonObject = {
            "name": str(phase),
            "start": round(self.runtime.at(), 6),
            "end": None,
            "deadline": round(deadline - self.runtime.origin, 6),
            "outcome": "cancelled",
        }
        self._record.phases.append(entry)
        self._publish(events.PhaseStarted(phase, self.runtime.at(), deadline - self.runtime.origin))
        run = PhaseRun(self.runtime, phase, units, deadline, self._fail)
        try:
            run.begin()
            with trio.CancelScope(deadline=deadline) as scope:
                await run.done.wait()
            if scope.cancelled_caught:
                # Starts have this deadline too; what they need now is time to shut down.
                with trio.move_on_after(run.longest_stop + 0.5):
                    await run.done.wait()
                run.expire()
            entry["outcome"] = "timeout" if scope.cancelled_caught else "ready"
        finally:
            entry["end"] = round(self.runtime.at(), 6)
            if self._record.failure is not None:
                entry["outcome"] = "failed"
            self._publish(events.PhaseFinished(phase, self.runtime.at(), entry["outcome"]))

    def _fail(self, unit: Unit | None, error: BaseException) -> None:
        """A critical unit cannot serve, or the engine itself failed: give the boot up."""
        if self._record.failure is not None:
            return
        failure = (unit.failure if unit is not None else None) or describe_error(error)
        self._record.failure = {
            "component": unit.name if unit is not None else None,
            "phase": str(unit.phase) if unit is not None else None,
            "attempt": unit.tries if unit is not None else None,
            "elapsed": round(self.runtime.at(), 6),
            **failure,
        }
        self._give_up_boot()

    def _give_up_boot(self) -> None:
        self.runtime.closing = True
        self._boot_scope.cancel()

    def _lost_in_boot(self, unit: Unit, error: BaseException) -> None:
        if unit.criticality is Criticality.CRITICAL:
            self._fail(unit, error)
        elif self.runtime.has_fallback(unit) and unit.fallback_life is None:
            deadline = trio.current_time() + self.runtime.start_timeout(unit)
            self.runtime.launch_fallback(unit, deadline, lambda _: None)

    async def _announce(self) -> None:
        self._record.seconds = round(self.runtime.at(), 6)
        self._record.state = NodeState.READY
        for unit in self.runtime.units.values():
            if unit.serving and isinstance(unit.component, Announcer):
                try:
                    await unit.component.announce()
                except Exception as exc:
                    unit.note_failure(exc, self.runtime.at())
                    self._fail(unit, exc)
                    return
        self._record.ready_seconds = self._record.seconds
        state = self.view.state
        _log.info(
            "%s in %.3f s",
            state.upper(),
            self._record.seconds,
            extra={"state": str(state), "shown": True},
        )
        self._publish(
            events.NodeReady(
                str(state),
                self.runtime.at(),
                self._record.seconds,
                self.view.degraded(),
                self.view.addresses,
                self._data_dir,
                self._log_file,
                list(self.view.warnings()),
            )
        )

    # --- run ----------------------------------------------------------------------------------

    async def _supervise(self, task_status: trio.TaskStatus[None]) -> None:
        with self._supervision_scope:
            async with trio.open_nursery() as nursery:
                await nursery.start(self.supervisor.run)
                task_status.started()
                if self._options.health is not None:
                    nursery.start_soon(self._monitor.run)

    async def _remember_boot(self, report: JsonObject) -> None:
        """Keep the report and the configuration. READY does not wait for this, the stop does."""
        try:
            await self._keep_report(report)
            if self._state is not None:
                await trio.to_thread.run_sync(self._state.remember_known_good)
        except StateWriteError as exc:
            self.view.warn(str(exc))
        finally:
            self._remembered.set()

    async def _take_stock(self, unit: Unit) -> None:
        """*unit* is back: look at it before saying that all is well, and say where it is now."""
        await self._monitor.check(unit, HealthDepth.DEEP, fresh=True)
        for announcer in self.runtime.units.values():
            if announcer.serving and isinstance(announcer.component, Announcer):
                try:
                    with trio.fail_after(REMEMBER_DEADLINE):
                        await announcer.component.announce()
                except Exception:
                    _log.exception("not announced anew", extra={"component": announcer.name})

    async def _keep_report(self, report: JsonObject) -> str | None:
        if self._save_report is None:
            return None
        try:
            return await trio.to_thread.run_sync(self._save_report, report)
        except OSError as exc:
            self.view.warn(f"the boot report was not kept: {exc}")
            return None

    def _on_unhealthy(self, unit: Unit, error: UnhealthyError) -> None:
        self.supervisor.unhealthy(unit, error)

    def _stop_failed(self, reason: str) -> None:
        self._code = exits.FAILED
        self.request_stop(reason)

    # --- stop ---------------------------------------------------------------------------------

    async def _stop(self) -> int:
        assert self._stop_reason is not None
        self._record.state = NodeState.STOPPING
        self._publish(events.NodeStopping(self._stop_reason, self.runtime.at()))
        self._supervision_scope.cancel()
        self.runtime.on_lost = lambda unit, error: None
        with trio.move_on_after(REMEMBER_DEADLINE):
            await self._remembered.wait()
        if not self._forced:
            self._drain_scope.deadline = trio.current_time() + self._options.stop.drain
            with self._drain_scope:
                await drain(self.runtime)
        await self._take_down(self._stop_reason)
        await self._settle_debts(STOPPED)
        self._record.state = NodeState.STOPPED
        return self._code

    async def _roll_back(self) -> int:
        failure = self._record.failure
        failed = failure is not None
        reason = f"{failure['component'] or 'boot'} failed" if failure else str(self._stop_reason)
        began = self.runtime.at()
        self._record.state = NodeState.FAILED if failed else NodeState.STOPPING
        self._publish(events.RollbackStarted(reason, began))
        self.runtime.on_lost = lambda unit, error: None
        # A signal during the rollback must find the scopes below, not the boot's.
        self._stop_reason = self._stop_reason or reason
        stopped, failures = await self._take_down(reason)
        undone, undo_failures = await self._settle_debts(ROLLED_BACK)
        self._record.rollback = {
            "reason": reason,
            "stopped": stopped,
            "undone": undone,
            "failures": [*failures, *undo_failures],
            "took": round(self.runtime.at() - began, 6),
        }
        self._record.seconds = round(self.runtime.at(), 6)
        if not failed:
            self._record.state = NodeState.STOPPED
            await self._keep_report(self.view.report())
            return self._code
        assert failure is not None
        if self._state is not None and self._state.differs_from_known_good():
            failure["remedy"] = "; ".join(
                filter(
                    None,
                    (
                        failure["remedy"],
                        "if the cause is in the configuration, which has changed since the last "
                        "boot that became READY: --last-known-good boots that one",
                    ),
                )
            )
        path = await self._keep_report(self.view.report())
        _log.error("boot failed: %s", failure["what"], extra={"failure": failure, "shown": True})
        self._publish(events.BootFailed(self.runtime.at(), failure, self._record.rollback, path))
        return exits.FAILED

    async def _take_down(self, reason: str) -> tuple[list[str], list[JsonObject]]:
        """Stop everything in reverse; names in order, and what went wrong."""
        stop = OrderedStop(self.runtime, reason)
        if not self._forced:
            self._cleanup_scope.deadline = trio.current_time() + self._options.stop.cleanup
            with self._cleanup_scope:
                await stop.run()
        if any(unit.hosts for unit in self.runtime.units.values()):
            with trio.move_on_after(self._options.stop.force):
                stop.force()
                await stop.run()
        left = [unit for unit in self.runtime.units.values() if unit.hosts]
        failures = [
            {"component": unit.name, **describe_error(unit.stop_error)}
            for unit in self.runtime.units.values()
            if unit.stop_error is not None
        ]
        for failure in failures:
            _log.error("stop failed: %s", failure["what"], extra=failure)
        if left:
            self._code = exits.FAILED
            await self._leave_behind(left)
        return stop.stopped, failures

    async def _leave_behind(self, left: Sequence[Unit]) -> None:
        """Tasks that ignore cancellation would keep Trio from ending: end the process."""
        _log.critical("components that do not stop: %s", ", ".join(unit.name for unit in left))
        await self._settle_debts(ROLLED_BACK if self._record.ready_seconds is None else STOPPED)
        await self._keep_report(self.view.report())
        self._publish(events.NodeStopped(self.runtime.at(), self._code))
        self._hard_exit(self._code)

    async def _settle_debts(self, checkpoint: str) -> tuple[list[JsonObject], list[JsonObject]]:
        if self._state is None:
            return [], []
        async with self._state.turn:
            undone, failed = await undo(
                self._state,
                self._state.journal.owed,
                self._undo_handlers,
                self._publish,
                self.runtime.at,
            )
        try:
            await self._final_checkpoint(checkpoint)
        except StateWriteError as exc:
            failed.append({"component": None, "kind": checkpoint, **describe_error(exc)})
        return undone, failed
