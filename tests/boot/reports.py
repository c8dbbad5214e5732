"""Boot reports for tests: built in one place, so that a change of layout is made once."""

from __future__ import annotations

import random
from typing import Any

from novacron.boot.report import PHASES, Report

ERROR = {
    "error": "CacheUnavailable",
    "what": "cannot reach the cache",
    "why": "connection refused",
    "remedy": "start the server or set cache.kind to memory",
    "key": "cache.kind",
}


def component(
    name: str,
    phase: str,
    phase_started: float,
    started: float,
    ready: float | None,
    *,
    requires: tuple[str, ...] = (),
    wants: tuple[str, ...] = (),
    criticality: str = "critical",
    **fields: Any,
) -> dict[str, Any]:
    """One component that started at its first attempt, unless *fields* say otherwise."""
    record = {
        "name": name,
        "phase": phase,
        "criticality": criticality,
        "requires": list(requires),
        "wants": list(wants),
        "state": "ready" if ready is not None else "failed",
        "phase_started": phase_started,
        "eligible": started,
        "started": started,
        "ready": ready,
        "attempts": [
            {"number": 1, "start": started, "end": ready, "outcome": "ready", "error": None}
        ],
        "fallback": False,
        "retry_sleep": 0.0,
        "stopped": None,
    }
    record.update(fields)
    return record


def phase(name: str, start: float, end: float, outcome: str = "ready") -> dict[str, Any]:
    return {"name": name, "start": start, "end": end, "deadline": start + 10, "outcome": outcome}


def small_report(boot_id: str = "0b6e3a52c1d74c8e9f10a2b3c4d5e6f7", **fields: Any) -> Report:
    """A node on embedded defaults: eleven components, everything ready at 0.251 s."""
    data: dict[str, Any] = {
        "version": 1,
        "boot_id": boot_id,
        "pid": 4711,
        "started": 1_790_000_000.125,
        "state": "ready",
        "schedule": "dataflow",
        "max_concurrency": 64,
        "seconds": 0.251,
        "prelude": [
            {"name": "interpreter", "start": 0.0, "end": 0.021},
            {"name": "imports", "start": 0.021, "end": 0.171},
            {"name": "configuration", "start": 0.171, "end": 0.180},
        ],
        "phases": [
            phase("pre_init", 0.181, 0.200),
            phase("core", 0.202, 0.224),
            phase("services", 0.226, 0.242),
            phase("post_init", 0.243, 0.250),
        ],
        "components": [
            component("environment", "pre_init", 0.181, 0.181, 0.195),
            component("identity", "pre_init", 0.181, 0.181, 0.184),
            component("configuration", "pre_init", 0.181, 0.181, 0.182),
            component("logger", "pre_init", 0.181, 0.182, 0.184, requires=("configuration",)),
            component("resources", "pre_init", 0.181, 0.195, 0.200, requires=("environment",)),
            component("security", "core", 0.202, 0.202, 0.211),
            component("database", "core", 0.202, 0.211, 0.224, requires=("security",)),
            component("cache", "core", 0.202, 0.211, 0.212, requires=("security",)),
            component("network", "core", 0.202, 0.211, 0.217, requires=("security",)),
            component("monitoring", "services", 0.226, 0.226, 0.229, requires=("network",)),
            component("api", "services", 0.226, 0.226, 0.242, requires=("database",)),
            component("ready_signal", "post_init", 0.243, 0.243, 0.250),
        ],
        "checkpoints": [
            {"name": "init_start", "at": 0.181, "took": 0.0009},
            {"name": "pre_init_complete", "at": 0.2015, "took": 0.0012},
            {"name": "core_init_complete", "at": 0.2255, "took": 0.0011},
            {"name": "service_init_complete", "at": 0.2428, "took": 0.0007},
            {"name": "init_complete", "at": 0.2508, "took": 0.0006},
        ],
        "rollback": None,
        "recovered": None,
        "warnings": [],
        "degraded": [],
        "failure": None,
        "critical_path": [],
        "efficiency": None,
        "addresses": {"rest": "127.0.0.1:7400"},
    }
    data.update(fields)
    return Report.from_json(data)


def retried_report() -> Report:
    """The cache needs three attempts and ends on its fallback; the node is degraded."""
    report = small_report("11111111aaaa4bbb8cccddddeeeeffff", state="degraded", seconds=3.42)
    records = {record["name"]: record for record in report.components}
    cache: Any = records["cache"]
    cache.update(
        state="degraded",
        criticality="degraded",
        fallback=True,
        ready=3.371,
        retry_sleep=3.0,
        attempts=[
            {"number": 1, "start": 0.211, "end": 0.261, "outcome": "failed", "error": ERROR},
            {"number": 2, "start": 1.261, "end": 1.311, "outcome": "failed", "error": ERROR},
            {"number": 3, "start": 3.311, "end": 3.361, "outcome": "timeout", "error": ERROR},
        ],
    )
    shift = 3.371 - 0.224
    report.phases[1]["end"] = 3.371
    for record in report.phases[2:]:
        record["start"] += shift
        record["end"] = (record["end"] or 0.0) + shift
    for later in report.components:
        if later["phase"] in ("services", "post_init"):
            for field in ("phase_started", "eligible", "started", "ready"):
                later[field] = (later[field] or 0.0) + shift  # type: ignore[literal-required]
            for attempt in later["attempts"]:
                attempt["start"] += shift
                attempt["end"] = (attempt["end"] or 0.0) + shift
    for checkpoint in report.checkpoints[2:]:
        checkpoint["at"] += shift
    report.data["degraded"] = [{"name": "cache", "why": "cannot reach the cache"}]
    return Report.from_json(report.to_json())


def failed_report() -> Report:
    """The database cannot be opened: core fails, services are never entered, all is rolled back."""
    report = small_report("22222222aaaa4bbb8cccddddeeeeffff", state="failed", seconds=0.262)
    error = {
        "error": "CorruptDatabase",
        "what": "cannot open the database",
        "why": "the file is damaged (integrity check: row 7 missing)",
        "remedy": "restore a backup",
        "key": "database.path",
    }
    data = report.data
    data["failure"] = error | {
        "component": "database",
        "phase": "core",
        "attempt": 1,
        "elapsed": 0.013,
    }
    data["rollback"] = {
        "reason": "database failed",
        "stopped": ["network", "cache", "database", "security"],
        "undone": ["database: schema_backup"],
        "took": 0.021,
        "failures": [],
    }
    data["phases"] = data["phases"][:2]
    data["phases"][1].update(outcome="failed", end=0.225)
    data["checkpoints"] = data["checkpoints"][:2]
    for record in data["components"]:
        if record["phase"] in ("services", "post_init"):
            record.update(
                state="skipped",
                phase_started=None,
                eligible=None,
                started=None,
                ready=None,
                attempts=[],
            )
        elif record["name"] == "database":
            record.update(state="stopped", ready=None, stopped=0.240)
            record["attempts"] = [
                {"number": 1, "start": 0.211, "end": 0.224, "outcome": "failed", "error": error}
            ]
        else:
            record.update(state="stopped", stopped=0.255)
    return Report.from_json(data)


def random_report(components: int, seed: int) -> Report:
    """A dataflow boot of *components* components with the times their dependencies force."""
    source = random.Random(seed)
    now = 0.2
    records: list[dict[str, Any]] = []
    phases = []
    for position, name in enumerate(PHASES):
        members = components // 4 + (1 if position < components % 4 else 0)
        ends: dict[str, float] = {}
        for index in range(members):
            requires = tuple(source.sample(sorted(ends), min(len(ends), source.randrange(3))))
            started = max([now, *(ends[other] for other in requires)])
            label = f"{name}_component_{index:02d}"
            if index % 7 == 3:
                label = f"{name}_component_with_a_rather_long_name_{index:02d}"
            ends[label] = started + source.uniform(0.001, 0.03)
            records.append(component(label, name, now, started, ends[label], requires=requires))
        end = max(ends.values(), default=now)
        phases.append(phase(name, now, end))
        now = end + 0.0015
    report = small_report(f"{seed:032x}")
    report.data.update(components=records, phases=phases, seconds=now, checkpoints=[])
    report.data["prelude"] = [
        {"name": "interpreter", "start": 0.0, "end": 0.021},
        {"name": "imports", "start": 0.021, "end": 0.19},
        {"name": "configuration", "start": 0.19, "end": 0.2},
    ]
    return Report.from_json(report.to_json())
