"""The fourth activity: periodic work that nobody waits for."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import trio

from novacron import observe
from novacron.component import Criticality, ObservableComponent, Phase
from novacron.database import Database
from novacron.environment import Environment
from novacron.readiness.discovery import Discovery
from novacron.record import Record

_log = logging.getLogger("novacron.readiness")

_runs = observe.Counter("novacron_job_runs_total", "Runs of background jobs.", ("job", "outcome"))
_seconds = observe.Histogram("novacron_job_seconds", "Duration of background jobs.", ("job",))


class Job(Record):
    name: str
    interval: float
    """Seconds from the end of one run to the start of the next; also the most a run may take."""
    run: Callable[[], Awaitable[object]]


class BackgroundJobs(ObservableComponent):
    """Runs each job in a task of its own; one that fails is logged, counted and run again."""

    name = "background_jobs"
    phase = Phase.POST_INIT
    criticality = Criticality.WARNING

    def __init__(
        self,
        environment: Environment | None,
        database: Database,
        discovery: Discovery | None,
    ) -> None:
        self._environment = environment
        self._database = database
        self._last: dict[str, str] = {}

    def jobs(self) -> list[Job]:
        found = []
        if self._database.engine == "sqlite":
            # SQLite's manual asks for it "every few hours" on connections that live long.
            found.append(Job("database_optimize", 4 * 3600.0, self._optimize))
        if self._environment is not None:
            # Facts such as link speed and clock synchronisation change in minutes, not seconds.
            found.append(Job("environment_refresh", 300.0, self._environment.refresh))
        return found

    async def _optimize(self) -> None:
        await self._database.execute("PRAGMA optimize")

    async def initialize(self, nursery: trio.Nursery) -> None:
        for job in self.jobs():
            nursery.start_soon(self._repeat, job)

    async def shutdown(self) -> None:
        """Its nursery is cancelled; a job must stand that at any await."""

    async def _repeat(self, job: Job) -> None:
        while True:
            await trio.sleep(job.interval)
            began = trio.current_time()
            try:
                with trio.fail_after(job.interval):
                    await job.run()
                outcome = "done"
            except Exception as exc:
                outcome = "failed"
                _log.warning("background job failed: %s", exc, extra={"job": job.name})
            self._last[job.name] = outcome
            _runs.inc(job.name, outcome)
            _seconds.observe(trio.current_time() - began, job.name)

    def statistics(self) -> Mapping[str, Any]:
        return {"jobs": {job.name: self._last.get(job.name, "waiting") for job in self.jobs()}}
