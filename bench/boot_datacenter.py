"""A node of the datacenter profile from process start to READY, with every service a way off.

PostgreSQL, Redis and two peers lie behind a delay proxy each; the same node boots under each
schedule in turn. ``speedup`` compares the time spent in the four phases, ``speedup_total`` whole
boots, interpreter and imports included. ``limit`` is the most that any schedule could gain: the
sum of what the components took one after the other, over the longest chain of them.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import tempfile
import uuid
from pathlib import Path
from typing import Any

from bench.authority import Authority
from bench.harness import BenchError, interleaved, percentile, percentiles, say
from bench.node import Boot
from bench.parallel import SCHEDULES
from bench.proxy import Proxy
from bench.servers.postgresql import DATABASE, USER, PostgreSQL
from bench.servers.redis import RedisServer
from novacron.boot.report import Report

_WARM_UP = 2
_PEERS = 2
_PROFILE = Path(__file__).resolve().parent.parent / "configs" / "datacenter.yaml"


class _Series:
    def __init__(self) -> None:
        self.total: list[float] = []
        self.phases: list[float] = []
        self.components: dict[str, list[float]] = {}
        self.paths: list[list[str]] = []

    def add(self, seconds: float, report: Report) -> None:
        self.total.append(seconds)
        self.phases.append(
            sum(phase["end"] - phase["start"] for phase in report.phases if phase["end"])
        )
        for component in report.components:
            if component["ready"] is not None and component["started"] is not None:
                seconds = component["ready"] - component["started"]
                self.components.setdefault(component["name"], []).append(seconds)
        self.paths.append(list(report.data["critical_path"]))

    def median(self, name: str) -> float:
        return percentile(self.components[name][_WARM_UP:], 0.5)


def measure(runs: int, rtt_ms: float) -> dict[str, Any]:
    """Raises BenchError."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="novacron-bench-")))
        subject = _Subject(stack, directory, rtt_ms / 1000)
        say("first boot ")
        subject.boot("dataflow", _Series())
        series = {schedule: _Series() for schedule in SCHEDULES}
        say("\nboots, the schedules in turn ")
        interleaved(
            [
                lambda schedule=schedule: subject.boot(schedule, series[schedule])  # type: ignore[misc]
                for schedule in SCHEDULES
            ],
            runs,
            _WARM_UP,
            lambda done, of: say("."),
        )
        say("\n")
    return {"runs": runs, "rtt_ms": rtt_ms, **_figures(series, rtt_ms / 1000)}


def _figures(series: dict[str, _Series], rtt: float) -> dict[str, Any]:
    result: dict[str, Any] = {
        schedule: {
            **percentiles(found.total[_WARM_UP:]),
            "phases_p50": round(percentile(found.phases[_WARM_UP:], 0.5), 6),
        }
        for schedule, found in series.items()
    }
    one, all_at_once = result["sequential"], result["dataflow"]
    result["speedup"] = round(one["phases_p50"] / all_at_once["phases_p50"], 4)
    result["speedup_total"] = round(one["p50"] / all_at_once["p50"], 4)
    sequential, dataflow = series["sequential"], series["dataflow"]
    took = {name: sequential.median(name) for name in sequential.components}
    # The path that most boots had: single ones differ in what takes no time.
    paths = [tuple(path) for path in dataflow.paths[_WARM_UP:]]
    path = max(set(paths), key=paths.count)
    result["limit"] = round(sum(took.values()) / sum(took[name] for name in path), 4)
    result["critical_path"] = [
        {
            "name": name,
            "seconds": round(took[name], 6),
            "round_trips": round(took[name] / rtt, 1) if rtt else None,
        }
        for name in path
    ]
    result["components"] = {name: round(seconds, 6) for name, seconds in took.items()}
    return result


class _Subject:
    """The services, and the node that boots against them again and again."""

    def __init__(self, stack: contextlib.ExitStack, directory: Path, rtt: float) -> None:
        self._authority = Authority()
        self._directory = directory
        postgresql = stack.enter_context(PostgreSQL(authority=self._authority))
        # Who connects shows a certificate: two round trips less than a password takes.
        postgresql.allow(
            f"hostssl all {USER} 127.0.0.1/32 cert",
            "hostssl all all 127.0.0.1/32 scram-sha-256",
        )
        postgresql.reload()
        password = secrets.token_hex(16)
        redis = stack.enter_context(
            RedisServer(tls=True, users={USER: (password, "~* &* +@all")}),
        )
        assert redis.tls is not None
        peers = [
            stack.enter_context(
                Boot(self._node(f"peer-{number}") / "data", *self._configured(f"peer-{number}"))
            )
            for number in range(_PEERS)
        ]
        ways = {
            "postgresql": ("127.0.0.1", postgresql.port),
            "redis": ("127.0.0.1", redis.port),
            **{
                f"peer-{number}": ("127.0.0.1", int(peer.address("peer").rpartition(":")[2]))
                for number, peer in enumerate(peers)
            },
        }
        self._ways = {
            name: stack.enter_context(Proxy(target, rtt=rtt)).address
            for name, target in ways.items()
        }
        certificate, key = self._authority.issue_names(["client"], common_name=USER)
        self._node("subject")
        self._write("subject/client.pem", certificate)
        self._write("subject/client.key", key)
        self._write("subject/redis-password", password.encode())
        self._services = {
            "database": {
                "engine": "postgresql",
                "postgresql": {
                    "hosts": [self._ways["postgresql"]],
                    "name": DATABASE,
                    "user": USER,
                    "ca_certificate": str(directory / "subject/ca.pem"),
                    "certificate": str(directory / "subject/client.pem"),
                    "private_key": f"file:{directory / 'subject/client.key'}",
                },
            },
            "cache": {
                "engine": "redis",
                "redis": {
                    "address": self._ways["redis"],
                    "user": USER,
                    "password": f"file:{directory / 'subject/redis-password'}",
                    "ca_certificate": str(redis.tls.ca_certificate),
                },
            },
            "network": {"seeds": [self._ways[f"peer-{number}"] for number in range(_PEERS)]},
        }
        self._write("subject/services.json", json.dumps(self._services).encode())

    def boot(self, schedule: str, series: _Series) -> None:
        with Boot(
            self._directory / "subject/data",
            "--config",
            str(_PROFILE),
            *self._configured("subject"),
            "--config",
            str(self._directory / "subject/services.json"),
            *("--set", f"boot.schedule={schedule}"),
        ) as node:
            report = node.report()
            node.stop()
        if report.data["degraded"]:
            raise BenchError(f"the node booted degraded: {report.data['degraded']}")
        series.add(node.seconds, report)

    def _node(self, name: str) -> Path:
        """The files of a node that trusts this measurement's authority."""
        directory = self._directory / name
        directory.mkdir()
        node_id = str(uuid.uuid4())
        certificate, key = self._authority.issue(f"urn:novacron:node:{node_id}")
        self._write(f"{name}/ca.pem", self._authority.certificate)
        self._write(f"{name}/node.pem", certificate)
        self._write(f"{name}/node.key", key)
        configuration = {
            "system": {"node_id": node_id},
            "security": {
                "ca_certificate": str(directory / "ca.pem"),
                "certificate": str(directory / "node.pem"),
                "private_key": f"file:{directory / 'node.key'}",
            },
            "network": {"listen_address": "127.0.0.1"},
            # The machine of a measurement is no host of a datacenter.
            "resources": {"enforce": "warn"},
        }
        self._write(f"{name}/node.json", json.dumps(configuration).encode())
        return directory

    def _configured(self, name: str) -> tuple[str, ...]:
        return ("--config", str(self._directory / name / "node.json"))

    def _write(self, name: str, data: bytes) -> None:
        path = self._directory / name
        path.write_bytes(data)
        path.chmod(0o600)


def as_text(result: dict[str, Any]) -> str:
    lines = [
        f"{result['runs']} runs of each schedule in turn, {result['rtt_ms']:g} ms to each service",
        "",
        f"{'':<12} {'p50':>9} {'p95':>9} {'p99':>9} {'phases':>9}   ms",
    ]
    for schedule in SCHEDULES:
        figures = result[schedule]
        values = "".join(
            f" {figures[name] * 1000:9.1f}" for name in ("p50", "p95", "p99", "phases_p50")
        )
        lines.append(f"{schedule:<12}{values}")
    lines += [
        "",
        f"speedup {result['speedup']:.2f}, of whole boots {result['speedup_total']:.2f}; "
        f"the graph allows {result['limit']:.2f}",
        "",
        "critical path, seconds and round trips:",
        *(
            f"  {step['name']:<18} {step['seconds'] * 1000:8.1f} ms {step['round_trips'] or 0:6.1f}"
            for step in result["critical_path"]
        ),
    ]
    return "\n".join(lines)


def plot(result: dict[str, Any], path: Path) -> None:
    from bench.plotting import save, subplots

    figure, (left, right) = subplots(1, 2, width=11.0, height=4.2)
    positions = range(len(SCHEDULES))
    for index, schedule in enumerate(SCHEDULES):
        figures = result[schedule]
        left.barh(index, figures["p50"] * 1000, color="#8fb4d8")
        left.barh(index, figures["phases_p50"] * 1000, color="#2f6fab")
    left.set_yticks(positions, SCHEDULES)
    left.invert_yaxis()
    left.set_xlabel("ms to READY, p50 (dark: in the four phases)")
    left.set_title(f"speed-up {result['speedup']:.2f}, limit {result['limit']:.2f}")
    shown = sorted(result["components"].items(), key=lambda item: item[1])[-8:]
    right.barh(range(len(shown)), [seconds * 1000 for _, seconds in shown], color="#2f6fab")
    right.set_yticks(range(len(shown)), [name for name, _ in shown])
    right.set_xlabel("ms, one after the other")
    right.set_title(f"{result['rtt_ms']:g} ms to each service")
    save(figure, path, result["environment"])
