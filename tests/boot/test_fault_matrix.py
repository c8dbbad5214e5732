"""Every kind of component, in every phase, at every point of its life, with every fault.

The subject of a cell stands between a component it requires and one that depends on it. Whatever
happens to it: what was entered is stopped once, in reverse; nothing is left running; exit status and
report are the documented ones.
"""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass, field

import pytest
import trio
from trio.testing import MockClock

from novacron.boot.engine import Engine
from novacron.boot.events import Event
from novacron.boot.options import EngineOptions, HealthOptions, StopBudget
from novacron.boot.retry import RetryPolicy
from novacron.component import Criticality, Phase
from novacron.errors import BootError, ConflictError, TransientError
from tests.boot.fakes import Fake, Stage, define
from tests.leaks import leak_check

PHASES = tuple(Phase)
POINTS = ("before", "during", "after_ready", "in_stop")
FAULTS = (
    "raises",
    "hangs_await",
    "hangs_thread",
    "dies",
    "flaps",
    "slow",
    "sigterm",
    "second_sigterm",
    "cancel",
)
SIGNALS = ("sigterm", "second_sigterm", "cancel")
RUN_SECONDS = 300.0
"""Virtual seconds the node runs after READY before the cell stops it."""


class Fault(BootError, ConflictError):
    """Neither retryable nor a matter of configuration."""

    code = "test.fault"


class Passing(BootError, TransientError):
    code = "test.passing"


@dataclass
class Cell:
    criticality: Criticality
    phase: Phase
    point: str
    fault: str
    diary: list[tuple[str, str]] = field(default_factory=list)
    fired: bool = False
    ready: bool = False
    release: threading.Event = field(default_factory=threading.Event)
    hard_exits: list[int] = field(default_factory=list)
    engine: Engine | None = None
    outer: trio.CancelScope = field(default_factory=trio.CancelScope)

    # --- the subject ---

    async def start(self, fake: Fake, nursery: trio.Nursery) -> None:
        if self.point == "during":
            await trio.sleep(0.5)
        if self.point in ("before", "during"):
            await self.misbehave(fake, nursery)
        elif self.point == "after_ready" and self.fault not in SIGNALS:
            nursery.start_soon(self.later, fake, nursery)
        elif self.point == "in_stop" and self.fault in ("dies", "flaps"):
            nursery.start_soon(self.die_while_stopping)

    async def later(self, fake: Fake, nursery: trio.Nursery) -> None:
        while not self.ready:
            await trio.sleep(0.25)
        await trio.sleep(1)
        if self.fault == "raises" and fake.entered > 1:
            return
        await self.misbehave(fake, nursery)

    async def die_while_stopping(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise Fault("torn while it was stopped")

    async def misbehave(self, fake: Fake, nursery: trio.Nursery) -> None:
        once = not self.fired
        self.fired = True
        match self.fault:
            case "raises":
                raise Fault("it raised")
            case "hangs_await":
                await trio.sleep_forever()
            case "hangs_thread":
                # What a well-behaved component does with a call that may hang.
                await trio.to_thread.run_sync(self.release.wait, abandon_on_cancel=True)
            case "dies" if once:
                nursery.start_soon(self.die, 0.0)
            case "flaps":
                nursery.start_soon(self.die, 0.1)
            case "slow":
                await self.crawl(fake)
            case "sigterm" | "second_sigterm" | "cancel":
                self.signal()
                await trio.sleep(1)

    async def die(self, after: float) -> None:
        await trio.sleep(after)
        raise Passing("it died")

    async def crawl(self, fake: Fake) -> None:
        for step in range(6):
            await trio.sleep(1)
            if self.engine is not None:
                self.engine.progress(fake.name, f"step {step}", 2.0)

    def signal(self) -> None:
        assert self.engine is not None
        if self.fault == "cancel":
            self.outer.cancel()
        else:
            self.engine.request_stop("SIGTERM")
            if self.fault == "second_sigterm":
                self.engine.request_force()

    async def stop(self) -> None:
        if self.point != "in_stop":
            return
        match self.fault:
            case "raises":
                raise Fault("it raised while it stopped")
            case "hangs_await":
                await trio.sleep_forever()
            case "hangs_thread":
                # The worst there is: a thread that nothing can interrupt.
                await trio.to_thread.run_sync(self.release.wait)
            case "slow":
                await trio.sleep(3)
            case "second_sigterm":
                assert self.engine is not None
                self.engine.request_force()
                await trio.sleep(0.1)
            case "sigterm":
                assert self.engine is not None
                self.engine.request_stop("SIGTERM")
            case "cancel":
                self.outer.cancel()

    # --- the run ---

    def listen(self, engine: Engine, event: Event) -> None:
        if event.kind != "node_ready":
            return
        self.ready = True
        engine.runtime.spawn(self.run_its_course, engine)

    async def run_its_course(self, engine: Engine) -> None:
        if self.point == "after_ready" and self.fault in SIGNALS:
            await trio.sleep(1)
            self.signal()
            return
        await trio.sleep(RUN_SECONDS)
        engine.request_stop("SIGTERM")

    def hard_exit(self, code: int) -> None:
        self.hard_exits.append(code)
        self.release.set()

    def run(self) -> tuple[int | None, Stage, dict[str, Fake]]:
        fakes = {
            "base": Fake("base", self.diary),
            "subject": Fake("subject", self.diary, start=self.start, stop=self.stop),
            "user": Fake("user", self.diary),
            **{f"other_{phase}": Fake(f"other_{phase}", self.diary) for phase in PHASES},
        }
        fakes["subject"].start_timeout = 2.5  # type: ignore[misc]
        wish = self.criticality is not Criticality.CRITICAL
        definitions = [
            define(fakes["base"], phase=self.phase),
            define(fakes["subject"], ["base"], criticality=self.criticality, phase=self.phase),
            define(
                fakes["user"],
                [] if wish else ["subject"],
                ["subject"] if wish else [],
                phase=self.phase,
            ),
            *(define(fakes[f"other_{phase}"], phase=phase) for phase in PHASES),
        ]
        options = EngineOptions(
            retry=RetryPolicy(jitter=0.0),
            stop=StopBudget(drain=3.0, cleanup=8.0, force=3.0),
            health=HealthOptions(),
        )
        stage = Stage(definitions, options, self.listen, hard_exit=self.hard_exit)
        self.engine = stage.engine

        async def main() -> int | None:
            before = trio.lowlevel.current_statistics().tasks_living
            code: int | None = None
            with self.outer:
                code = await stage.engine.run()
            self.release.set()
            assert trio.lowlevel.current_statistics().tasks_living == before
            return code

        code = trio.run(main, clock=MockClock(autojump_threshold=0))
        return code, stage, fakes


def expected_code(cell: Cell) -> int | None:
    """The documented exit status; None where ``run`` was cancelled instead of returning."""
    if cell.fault == "dies" and cell.phase is Phase.POST_INIT and cell.point == "before":
        # It dies as the last phase ends: a failure of the boot or, a moment later, a loss.
        return 0 if cell.ready else 1 if cell.criticality is Criticality.CRITICAL else 0
    if cell.fault == "cancel":
        return None
    if cell.fault in ("sigterm", "second_sigterm", "slow"):
        return 0
    if cell.fault == "hangs_thread" and cell.point == "in_stop":
        return 1
    if cell.criticality is not Criticality.CRITICAL or cell.point == "in_stop":
        return 0
    if cell.fault == "flaps":
        return 1
    if cell.point in ("before", "during"):
        # Death in the boot is a failure of the boot: nothing serves yet that a restart would save.
        return 1
    # After READY: a hang in a background task harms nobody, a death is restarted.
    return 0


def check_order(cell: Cell, fakes: dict[str, Fake]) -> None:
    """Reverse order: whoever depends on a component is gone when its stop begins."""
    alive: set[str] = set()
    # One that ignores cancellation is left behind, so that the others still stop in order.
    left_behind = cell.point == "in_stop" and cell.fault == "hangs_thread"
    above = {"base": set() if left_behind else {"subject"}}
    # A component that is only a wish may come and go under those that wish for it.
    if cell.criticality is Criticality.CRITICAL or cell.fault in ("slow", *SIGNALS):
        above["subject"] = {"user"}
    for what, name in cell.diary:
        if what == "enter":
            assert name not in alive
            alive.add(name)
        elif what == "stop":
            died = cell.fault in ("dies", "flaps", "raises") and name == "subject"
            if not died:
                assert not above.get(name, set()) & alive, f"{name} was stopped under a dependent"
        elif what == "gone":
            alive.discard(name)
    for name, fake in fakes.items():
        assert fake.entered == fake.stopped, f"{name} was not stopped once for each entering"


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("criticality", tuple(Criticality))
def test_every_cell_of_the_matrix_ends_as_documented(
    criticality: Criticality, phase: Phase
) -> None:
    with leak_check():
        for point, fault in itertools.product(POINTS, FAULTS):
            check_cell(Cell(criticality, phase, point, fault))


def check_cell(cell: Cell) -> None:
    code, stage, fakes = cell.run()
    try:
        assert (cell.hard_exits or [code])[0] == expected_code(cell), "exit status"
        check_order(cell, fakes)
        check_report(cell, code, stage.view.report(), stage)
    except AssertionError as exc:
        exc.add_note(f"{cell.criticality} {cell.phase} {cell.point} {cell.fault}")
        raise


def check_report(cell: Cell, code: int | None, report: dict, stage: Stage) -> None:
    started = cell.ready
    if cell.fault not in SIGNALS and code == 1 and not started:
        assert report["state"] == "failed"
        assert report["failure"]["component"] == "subject"
        assert report["failure"]["phase"] == str(cell.phase)
        assert report["rollback"] is not None
        assert len(stage.find("boot_failed")) == 1
    elif not started:
        assert report["failure"] is None
        assert report["state"] == "stopped"
        assert report["rollback"]["reason"] in ("SIGTERM", "cancelled")
    else:
        assert report["failure"] is None
        assert report["rollback"] is None
        assert len(stage.find("node_ready")) == 1
    stopping = [e.name for e in stage.find("component_stopped")]
    if cell.fault in ("sigterm", "second_sigterm", "cancel"):
        assert len(stopping) == len(set(stopping))
    if (
        cell.point in ("before", "during")
        and started
        and cell.fault
        in (
            "raises",
            "hangs_await",
            "hangs_thread",
        )
    ):
        [ready] = stage.find("node_ready")
        assert [entry["name"] for entry in ready.degraded] == ["subject"]
        assert ready.state == "degraded"
