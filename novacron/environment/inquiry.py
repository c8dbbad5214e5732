"""One round of asking probes: all at once if need be, in one thread if that is as fast.

All probes together take a few milliseconds on a healthy machine, less than starting a thread for
each and passing the interpreter's lock around among them. So one thread begins with them all, and
only when it has not come to the end within :data:`GRACE` does each probe that still waits get a
thread of its own. A probe that hangs thus holds up the others by that much, and no more.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable

import trio

from novacron.environment.fact import Fact, Probe
from novacron.environment.machine import Machine
from novacron.errors import NovaCronError

GRACE = 0.02
"""Seconds. Five times what one thread needs for all probes, and a hundredth of their deadline."""

Record = Callable[[str, Fact], None]


class Inquirer:
    """Asks probes of one machine and remembers which of them still hang."""

    def __init__(self, machine: Machine, timeout: float) -> None:
        self._machine = machine
        self._timeout = timeout
        self._hanging: dict[str, float] = {}

    @property
    def hanging(self) -> list[str]:
        """Probes whose thread has not returned."""
        return sorted(self._hanging)

    async def ask(self, probes: Iterable[Probe], record: Record) -> None:
        """Call *record* with a fact for each probe, and return when all have one: after the
        deadline, and :data:`GRACE`, at the latest.

        *record* is called once a probe, from worker threads too.
        """
        now = trio.current_time()
        waiting: list[Probe] = []
        for probe in probes:
            since = self._hanging.get(probe.name)
            if since is None:
                waiting.append(probe)
            else:
                # Another thread on the same obstacle would only hang beside the first.
                reason = f"an earlier probe has been hanging for {now - since:.0f} s"
                record(probe.name, Fact("unknown", reason=reason))
        if not waiting:
            return
        inquiry = _Inquiry(self._machine, waiting, record, self._hanging, now, self._timeout)
        try:
            await inquiry.run()
        finally:
            late = inquiry.close()
        for name in late:
            reason = f"no answer within {self._timeout:g} s"
            record(name, Fact("unknown", None, reason, self._timeout * 1000))


class _Inquiry:
    """One round; its threads may outlive it."""

    def __init__(
        self,
        machine: Machine,
        probes: list[Probe],
        record: Record,
        hanging: dict[str, float],
        began: float,
        timeout: float,
    ) -> None:
        self._machine = machine
        self._waiting = deque(probes)
        self._open = {probe.name for probe in probes}
        self._record = record
        self._hanging = hanging
        self._began = began
        self._timeout = timeout
        self._closed = False
        self._lock = threading.Lock()

    async def run(self) -> None:
        # Of this round alone: threads that hang since an earlier one must not starve it.
        limiter = trio.CapacityLimiter(len(self._waiting) + 1)
        ended = trio.Event()

        async def thread() -> None:
            with trio.move_on_after(self._timeout):
                await trio.to_thread.run_sync(self._work, abandon_on_cancel=True, limiter=limiter)
            ended.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(thread)
            with trio.move_on_after(min(GRACE, self._timeout / 2)):
                await ended.wait()
            for _ in range(len(self._waiting)):
                nursery.start_soon(thread)

    def close(self) -> list[str]:
        """End the round: what a thread finds out from now on is lost. Returns who has no answer."""
        with self._lock:
            self._closed = True
            self._waiting.clear()
            return sorted(self._open)

    def _work(self) -> None:
        while True:
            try:
                probe = self._waiting.popleft()
            except IndexError:
                return
            self._hanging[probe.name] = self._began
            began = time.perf_counter()
            try:
                fact = _answer(probe, self._machine)
            finally:
                # Also when nobody waits any more: from here on it may be asked again.
                self._hanging.pop(probe.name, None)
            took = round((time.perf_counter() - began) * 1000, 3)
            with self._lock:
                if not self._closed:
                    self._open.discard(probe.name)
                    self._record(probe.name, fact._replace(took_ms=took))


def _answer(probe: Probe, machine: Machine) -> Fact:
    try:
        return Fact("known", probe.ask(machine))
    except NovaCronError as exc:
        return Fact("unknown", reason=str(exc))
    except OSError as exc:
        where = f": {exc.filename}" if exc.filename else ""
        return Fact("unknown", reason=f"{exc.strerror or exc}{where}")
    except Exception as exc:
        # A probe parses what a kernel of the future, or a broken container, shows it. Whatever it
        # trips over must not stop a boot; the reason shows in the fact.
        return Fact("unknown", reason=f"{type(exc).__name__}: {exc}")
