"""Three nodes on one PostgreSQL and one Redis, two of them joined by token, while the servers fail.

All three are loaded over REST: reads, and tokens made in the shared database. Meanwhile tokens are
made on one node, used on a second, revoked on a third and tried on the second until it refuses them.
Each server is killed (SIGKILL, every process at once) and started again in turn. At the end every
write that was acknowledged is looked for in the database.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from bench.backends import MAX_STALENESS, Backends
from bench.harness import ROOT, BenchError, child_environment, percentile, python, say
from bench.node import Boot
from bench.rest_load import Client, Load, admin_token, statuses

NODES = 3
_DEADLINE = 60.0
_POLL_SECONDS = 0.01


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--rounds", type=int, default=3, help="times each server is killed (default: 3)"
    )
    parser.add_argument(
        "--outage", type=float, default=4.0, metavar="S", help="seconds it is away (default: 4)"
    )
    parser.add_argument(
        "--calm", type=float, default=4.0, metavar="S", help="seconds between (default: 4)"
    )


def measure(args: argparse.Namespace) -> dict[str, Any]:
    if args.rounds < 1 or args.outage <= 0 or args.calm <= 0:
        raise BenchError("--rounds must be at least 1, --outage and --calm above 0")
    with tempfile.TemporaryDirectory(prefix="novacron-cluster-") as directory:
        return run(Path(directory), args.rounds, args.outage, args.calm)


def run(directory: Path, rounds: int, outage: float, calm: float) -> dict[str, Any]:
    """Raises BenchError: the cluster could not be made, or did not come back."""
    directory.chmod(0o755)
    with Backends(directory) as backends, Cluster(backends) as cluster:
        say("cluster of three, two joined by token; ")
        with contextlib.ExitStack() as stack:
            loads = [stack.enter_context(Load(client)) for client in cluster.clients]
            watch = stack.enter_context(_Revocations(cluster))
            recoveries: dict[str, list[float]] = {"postgresql": [], "redis": []}
            time.sleep(calm)
            for number in range(rounds):
                for name, server in (
                    ("postgresql", backends.postgresql),
                    ("redis", backends.redis),
                ):
                    say(f"\n{name} killed ({number + 1} of {rounds}) ")
                    server.kill()
                    time.sleep(outage)
                    server.start()
                    recoveries[name].append(cluster.wait_whole())
                    say(f"back after {recoveries[name][-1]:.2f} s")
                    time.sleep(calm)
        say("\n")
        acknowledged = {id for load in loads for id in load.acknowledged}
        kept = set(backends.postgresql.psql("SELECT id FROM api_token").split())
        outcomes = [outcome for load in loads for outcome in load.take()]
        by_path = statuses(outcomes)
        writes = by_path["/api/v1/tokens"]
        return {
            "rounds": rounds,
            "outage_s": outage,
            "stated_staleness_s": MAX_STALENESS,
            "calls": len(outcomes),
            "calls_without_answer": sum(count[0] for count in by_path.values()),
            "calls_frozen": sum(outcome.seconds >= _FROZEN for outcome in outcomes),
            "slowest_call_s": round(max(outcome.seconds for outcome in outcomes), 3),
            "writes_acknowledged": len(acknowledged),
            "writes_refused": sum(writes.values()) - writes[201],
            "writes_lost": len(acknowledged - kept),
            "revocations": len(watch.staleness),
            "worst_staleness_s": round(max(watch.staleness, default=0.0), 3),
            "median_staleness_s": round(percentile(watch.staleness or [0.0], 0.5), 3),
            "recovery_s": {
                name: {
                    "median": round(percentile(values, 0.5), 3),
                    "worst": round(max(values), 3),
                }
                for name, values in recoveries.items()
            },
            "statuses": {
                path: {str(status): count for status, count in sorted(found.items())}
                for path, found in sorted(by_path.items())
            },
        }


_FROZEN = 9.5
"""Seconds; a client gives up after ten."""


class Cluster:
    """Three nodes; leaving it stops them, and a stop that fails is an error."""

    def __init__(self, backends: Backends) -> None:
        self._backends = backends
        self._stack = contextlib.ExitStack()
        self.nodes: list[Boot] = []
        self.clients: list[Client] = []

    def __enter__(self) -> Cluster:
        with contextlib.ExitStack() as stack:
            first = self._directory(0)
            self._novacron(0, "pki", "init")
            self._start(stack, 0)
            rest = self.nodes[0].address("rest")
            for number in range(1, NODES):
                token = self._novacron(0, "token", "create", "--role", "node", "--ttl", "10m")
                self._directory(number)
                self._novacron(number, "join", rest, "--token", token.strip())
                self._start(stack, number)
            self.authority = authority = first / "data" / "pki" / "ca.pem"
            for number, node in enumerate(self.nodes):
                data = self._directory(number) / "data"
                self.clients.append(
                    Client(node.address("rest"), admin_token(data), authority=authority)
                )
            self.wait_whole()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        if exc_info[0] is None:
            for node in self.nodes:
                node.stop()
        self._stack.close()

    def _directory(self, number: int) -> Path:
        directory = self._backends.directory / f"node-{number}"
        directory.mkdir(exist_ok=True)
        return directory

    def _start(self, stack: contextlib.ExitStack, number: int) -> None:
        configuration = self._backends.configuration() | {
            "api": {"tls": "on", "rate_limit": 1_000_000, "rate_burst": 1_000_000},
            "resources": {"enforce": "warn"},
            "network": {"seeds": [node.address("peer") for node in self.nodes]},
        }
        path = self._directory(number) / "node.json"
        path.write_text(json.dumps(configuration))
        node = Boot(self._directory(number) / "data", "--config", str(path))
        self.nodes.append(stack.enter_context(node))

    def start_again(self, number: int) -> Boot:
        """Start the node, which has stopped, on the data it has; its addresses are new ones."""
        path = self._directory(number) / "node.json"
        node = Boot(self._directory(number) / "data", "--config", str(path))
        self.nodes[number] = self._stack.enter_context(node)
        return node

    def _novacron(self, number: int, *arguments: str) -> str:
        command = python("-m", "novacron", *arguments)
        data = self._directory(number) / "data"
        result = subprocess.run(
            [*command, "--data-dir", str(data)],
            cwd=ROOT,
            env=child_environment(),
            capture_output=True,
            text=True,
            timeout=_DEADLINE,
            check=False,
        )
        if result.returncode != 0:
            raise BenchError(f"novacron {' '.join(arguments[:2])} failed:\n{result.stderr}")
        return result.stdout

    def wait_whole(self) -> float:
        """Seconds until every node says that it is ready and nothing degraded.

        Raises:
          BenchError: not within a minute.
        """
        began = time.monotonic()
        waiting = list(self.clients)
        last: Any = None
        while waiting:
            last = waiting[0].call("GET", "/api/v1/status").document
            if isinstance(last, dict) and last.get("state") == "ready":
                waiting.pop(0)
            elif time.monotonic() - began > _DEADLINE:
                raise BenchError(f"a node did not come back: {last}")
            else:
                time.sleep(_POLL_SECONDS)
        return time.monotonic() - began


class _Revocations:
    """How long a revoked token goes on working on another node than the one it was revoked on."""

    def __init__(self, cluster: Cluster) -> None:
        self._clients = cluster.clients
        self._addresses = [node.address("rest") for node in cluster.nodes]
        self._authority = cluster.authority
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.staleness: list[float] = []
        """Seconds from the answer to the revocation to that of the last call that was still let in."""

    def __enter__(self) -> _Revocations:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        number = 0
        while not self._stop.wait(_POLL_SECONDS):
            made_on, used_on, revoked_on = ((number + step) % NODES for step in range(3))
            number += 1
            body = {"name": "to be revoked", "role": "viewer", "ttl": 3600}
            made = self._clients[made_on].call("POST", "/api/v1/tokens", body)
            if made.status != 201:
                continue
            user = Client(
                self._addresses[used_on], made.document["secret"], authority=self._authority
            )
            # Used, so that the node keeps it; with the database away it may not know it at all.
            if user.call("GET", "/api/v1/whoami").status != 200:
                continue
            path = f"/api/v1/tokens/{made.document['id']}"
            if self._clients[revoked_on].call("DELETE", path).status != 200:
                continue
            revoked = accepted = time.monotonic()
            while (answer := user.call("GET", "/api/v1/whoami")).status == 200:
                accepted = time.monotonic()
                time.sleep(_POLL_SECONDS)
            if answer.status == 401:
                self.staleness.append(accepted - revoked)


def as_text(result: dict[str, Any]) -> str:
    lost, worst = result["writes_lost"], result["worst_staleness_s"]
    lines = [
        f"{result['rounds']} kills of each server, {result['outage_s']:g} s each, three nodes",
        "",
        f"writes acknowledged {result['writes_acknowledged']}, refused "
        f"{result['writes_refused']}, lost {lost}",
        f"revoked tokens {result['revocations']}, accepted at most {worst:g} s later "
        f"(median {result['median_staleness_s']:g}; stated {result['stated_staleness_s']:g})",
        f"calls {result['calls']}, without an answer {result['calls_without_answer']}, slowest "
        f"{result['slowest_call_s']:g} s",
    ]
    for name, figures in result["recovery_s"].items():
        lines.append(
            f"{name} back until all nodes whole: median {figures['median']:g} s, worst "
            f"{figures['worst']:g} s"
        )
    return "\n".join(lines)


def plot(result: dict[str, Any], path: Path) -> None:
    from bench.plotting import save, subplots

    figure, axes = subplots(1, 1, width=7.0, height=3.0)
    names = list(result["recovery_s"])
    axes.barh(names, [result["recovery_s"][name]["worst"] for name in names], color="#8fb4d8")
    axes.barh(names, [result["recovery_s"][name]["median"] for name in names], color="#2f6fab")
    axes.set_xlabel("s from the server's start until every node is whole (dark: median)")
    save(figure, path, result["environment"])
