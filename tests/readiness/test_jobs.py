from __future__ import annotations

from typing import Any

import trio

from novacron import observe
from novacron.readiness.jobs import BackgroundJobs
from tests.readiness.stand_ins import Store


class Machine:
    def __init__(self) -> None:
        self.asked = 0

    async def refresh(self) -> None:
        self.asked += 1
        if self.asked == 1:
            raise OSError("the first time it fails")


def runs(job: str, outcome: str) -> float:
    [family] = [f for f in observe.collect() if f.name == "novacron_job_runs_total"]
    values: dict[Any, float] = family.values  # type: ignore[attr-defined]
    return values.get((job, outcome), 0.0)


async def test_a_job_that_fails_is_counted_and_runs_again(autojump_clock: object) -> None:
    machine, store = Machine(), Store()
    jobs = BackgroundJobs(machine, store, None)  # type: ignore[arg-type]
    failed, done = (runs("environment_refresh", o) for o in ("failed", "done"))
    async with trio.open_nursery() as nursery:
        await jobs.initialize(nursery)
        await trio.sleep(1000)
        assert machine.asked == 3
        assert jobs.statistics() == {
            "jobs": {"database_optimize": "waiting", "environment_refresh": "done"}
        }
        await trio.sleep(4 * 3600)
        assert [sql for sql, _ in store.statements] == ["PRAGMA optimize"]
        nursery.cancel_scope.cancel()

    assert runs("environment_refresh", "failed") - failed == 1
    assert runs("environment_refresh", "done") - done > 2


async def test_another_engine_is_not_sent_sqlites_statements() -> None:
    store = Store()
    store.engine = "postgresql"

    assert BackgroundJobs(None, store, None).jobs() == []  # type: ignore[arg-type]
