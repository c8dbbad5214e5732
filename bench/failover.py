"""Three nodes, two of them joined by token, on two PostgreSQL servers that change places under load.

Each round the primary is killed (SIGKILL, every process at once), every other time while the standby has
not heard of it for a moment, and the standby is promoted a moment later; the nodes, which name both, go on with that one. Then the killed one comes back as a standby, and
the next round changes the roles back. Afterwards two servers take changes at once: the old primary
comes back as it was while the new one is restarted and a node boots, and then a standby is promoted
beside a primary that lives. Every acknowledged write is looked for at the end of each part.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.backends import Backends
from bench.cluster import Cluster
from bench.harness import BenchError, percentile, say
from bench.rest_load import Load, Outcome, longest_silence, statuses
from bench.servers.postgresql import PostgreSQL
from bench.servers.postgresql_pair import PostgresqlPair

MODES = ("synchronous", "asynchronous")
_DEADLINE = 60.0
_POLL_SECONDS = 0.01
_RESTART = 1.0
"""Seconds the new primary is away while the old one could be taken for it."""
_WRITES = "/api/v1/tokens"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--replication", choices=(*MODES, "both"), default="both", help="(default: both)"
    )
    parser.add_argument(
        "--rounds", type=int, default=4, help="times the primary is killed (default: 4)"
    )
    parser.add_argument(
        "--outage",
        type=float,
        default=1.0,
        metavar="S",
        help="seconds from its end to the promotion (default: 1)",
    )
    parser.add_argument(
        "--lag",
        type=float,
        default=0.5,
        metavar="S",
        help="seconds that the standby is behind at every other kill (default: 0.5)",
    )
    parser.add_argument(
        "--calm", type=float, default=3.0, metavar="S", help="seconds between (default: 3)"
    )
    parser.add_argument(
        "--rtt-ms", type=float, default=10.0, help="between the two servers (default: 10)"
    )


def measure(args: argparse.Namespace) -> dict[str, Any]:
    if args.rounds < 1 or args.calm <= 0 or min(args.outage, args.lag, args.rtt_ms) < 0:
        raise BenchError(
            "--rounds must be at least 1, --calm above 0, --outage, --lag and --rtt-ms not below"
        )
    found: dict[str, Any] = {
        "rounds": args.rounds,
        "outage_s": args.outage,
        "lag_s": args.lag,
        "rtt_ms": args.rtt_ms,
    }
    for mode in MODES if args.replication == "both" else (args.replication,):
        with tempfile.TemporaryDirectory(prefix="novacron-failover-") as directory:
            found[mode] = run(
                Path(directory),
                synchronous=mode == "synchronous",
                rounds=args.rounds,
                outage=args.outage,
                lag=args.lag,
                calm=args.calm,
                rtt=args.rtt_ms / 1000,
            )
    return found


def run(
    directory: Path,
    *,
    synchronous: bool,
    rounds: int,
    outage: float,
    lag: float,
    calm: float,
    rtt: float = 0.0,
    durable: bool = True,
    two_primaries: bool = True,
) -> dict[str, Any]:
    """*two_primaries*: whether to go on with two servers that take changes at once.

    Raises BenchError: the cluster could not be made, or a node did not write again."""
    directory.chmod(0o755)
    with contextlib.ExitStack() as stack:
        pair = stack.enter_context(
            PostgresqlPair(synchronous=synchronous, rtt=rtt, durable=durable)
        )
        hosts = [server.address for server in (pair.primary, pair.standby)]
        backends = stack.enter_context(Backends(directory, postgresql=pair.primary, hosts=hosts))
        cluster = stack.enter_context(Cluster(backends))
        say(f"cluster of three, replication {'' if synchronous else 'a'}synchronous; ")
        with contextlib.ExitStack() as under_load:
            loads = [under_load.enter_context(Load(client)) for client in cluster.clients]
            time.sleep(calm)
            parts = _Parts(pair, loads, outage, calm)
            found = parts.fail_over(rounds, lag)
            if two_primaries:
                found["old_primary_returns"] = parts.old_primary_returns()
                found["promoted_beside"] = parts.promoted_beside()
        if two_primaries:
            found["node_boots_with_both"] = _boot_with_both(pair, cluster)
        say("\n")
    return found


class _Parts:
    """What is done to the servers, and what became of the nodes' writes meanwhile."""

    def __init__(self, pair: PostgresqlPair, loads: list[Load], outage: float, calm: float) -> None:
        self._pair = pair
        self._loads = loads
        self._outage = outage
        self._calm = calm

    def fail_over(self, rounds: int, lag: float) -> dict[str, Any]:
        until_each: list[float] = []
        until_all: list[float] = []
        for number in range(rounds):
            say(f"\nprimary killed ({number + 1} of {rounds}) ")
            if number % 2 == 0:
                self._pair.stall()
                time.sleep(lag)
            took = self._change_places()
            until_each += took
            until_all.append(max(took))
            say(f"all nodes write {until_all[-1]:.2f} s after the promotion")
            time.sleep(self._calm)
            self._pair.rejoin()
            time.sleep(self._calm)
        return {
            **self._account(self._pair.primary),
            "write_again_s": {
                "median": round(percentile(until_each, 0.5), 3),
                "all_nodes_median": round(percentile(until_all, 0.5), 3),
                "worst": round(max(until_all), 3),
            },
        }

    def _change_places(self) -> list[float]:
        """Seconds from the order to promote until each node has written again."""
        self._pair.primary.kill()
        self._pair.lose()
        time.sleep(self._outage)
        ordered = time.monotonic()
        self._pair.promote()
        return [self._wait_write(load, ordered) - ordered for load in self._loads]

    def _wait_write(self, load: Load, since: float) -> float:
        give_up = time.monotonic() + _DEADLINE
        while (found := load.first_write(since)) is None:
            if time.monotonic() > give_up:
                raise BenchError("a node did not write again after a promotion")
            time.sleep(_POLL_SECONDS)
        return found

    def old_primary_returns(self) -> dict[str, Any]:
        """The old primary takes changes again, as it was left, and the new one is restarted: for a
        moment the wrong one is the only one."""
        say("\nthe old primary returns ")
        self._change_places()
        self._pair.return_alone()
        time.sleep(self._calm)
        self._pair.primary.stop()
        time.sleep(_RESTART)
        self._pair.primary.start()
        started = time.monotonic()
        took = [self._wait_write(load, started) - started for load in self._loads]
        time.sleep(self._calm)
        found = self._account(self._pair.primary, self._pair.standby)
        self._pair.rejoin()
        return found | {"write_again_s": {"worst": round(max(took), 3)}}

    def promoted_beside(self) -> dict[str, Any]:
        """The standby is promoted while the primary lives, cut off from it and not from the nodes."""
        say("\na standby is promoted beside its primary ")
        self._pair.part()
        ordered = time.monotonic()
        promoted = time.time()
        self._pair.promote()
        self._wait_beats(promoted)
        moved = time.monotonic() - ordered
        say(f"all nodes write to it {moved:.2f} s later")
        time.sleep(self._calm)
        found = self._account(self._pair.primary, self._pair.standby)
        self._pair.rejoin()
        return found | {"moved_s": round(moved, 3)}

    def _wait_beats(self, promoted: float) -> None:
        """Until every node's health has written to the server that was promoted."""
        give_up = time.monotonic() + _DEADLINE
        query = f"SELECT count(*) FROM node_heartbeat WHERE beat > {promoted}"
        while int(self._pair.primary.psql(query)) < len(self._loads):
            if time.monotonic() > give_up:
                raise BenchError("a node goes on with the old primary")
            time.sleep(10 * _POLL_SECONDS)

    def _account(self, primary: PostgreSQL, old: PostgreSQL | None = None) -> dict[str, Any]:
        """What became of the calls since the last account. *old*: a server besides the primary that
        took changes: what it alone has is named."""
        outcomes = [load.take() for load in self._loads]
        acknowledged = {
            outcome.document["id"]
            for outcome in _flat(outcomes)
            if outcome.path == _WRITES and outcome.status == 201
        }
        kept = _tokens(primary)
        by_path = statuses(_flat(outcomes))
        found: dict[str, Any] = {
            "writes_acknowledged": len(acknowledged),
            "writes_refused": sum(by_path[_WRITES].values()) - by_path[_WRITES][201],
            "writes_lost": len(acknowledged - kept),
            "calls_without_answer": sum(count[0] for count in by_path.values()),
            "longest_silence_s": round(max(map(longest_silence, outcomes)), 3),
            "slowest_call_s": round(max(outcome.seconds for outcome in _flat(outcomes)), 3),
            "statuses": {
                path: {str(status): count for status, count in sorted(counts.items())}
                for path, counts in sorted(by_path.items())
            },
        }
        if old is not None:
            found["writes_to_the_old_one"] = len(_tokens(old) - kept)
        return found


def _flat(outcomes: list[list[Outcome]]) -> list[Outcome]:
    return [outcome for each in outcomes for outcome in each]


def _tokens(server: PostgreSQL) -> set[str]:
    return set(server.psql("SELECT id FROM api_token").split())


def _boot_with_both(pair: PostgresqlPair, cluster: Cluster) -> dict[str, Any]:
    """A node that has stopped before a promotion is started after it; the old primary is there too,
    takes changes, and stands first in the node's list every other time."""
    say("\na node boots with both ")
    found = {"boots": 0, "on_the_old_one": 0}
    for _ in range(2):
        cluster.nodes[-1].stop()
        pair.primary.kill()
        pair.promote()
        pair.return_alone()
        node = cluster.start_again(len(cluster.nodes) - 1)
        query = f"SELECT count(*) FROM node_registration WHERE boot_id = '{node.ready['boot_id']}'"
        found["boots"] += 1
        found["on_the_old_one"] += int(pair.standby.psql(query))
        pair.rejoin()
    return found


def as_text(result: dict[str, Any]) -> str:
    lines = [
        f"{result['rounds']} kills of the primary, half of them with the standby {result['lag_s']:g} s "
        f"behind; promoted {result['outage_s']:g} s later, {result['rtt_ms']:g} ms between them",
    ]
    for mode in MODES:
        if mode in result:
            lines += ["", mode, *_lines(result[mode])]
    return "\n".join(lines)


def _lines(found: dict[str, Any]) -> list[str]:
    again, boots = found["write_again_s"], found["node_boots_with_both"]
    lines = [
        f"  fail-over: {_writes(found)}; writing again after the promotion: a node "
        f"{again['median']:g} s (median), all {again['all_nodes_median']:g} s, worst "
        f"{again['worst']:g} s",
        f"    without an answer {found['calls_without_answer']} calls, longest silence "
        f"{found['longest_silence_s']:g} s, slowest call {found['slowest_call_s']:g} s",
    ]
    for name, words in (
        ("old_primary_returns", "the old primary returns"),
        ("promoted_beside", "promoted beside it"),
    ):
        part = found[name]
        lines.append(f"  {words}: {_writes(part)}, to the old one {part['writes_to_the_old_one']}")
    lines.append(
        f"    all nodes on the promoted one {found['promoted_beside']['moved_s']:g} s later"
    )
    lines.append(f"  boots with both {boots['boots']}, on the old one {boots['on_the_old_one']}")
    return lines


def _writes(part: dict[str, Any]) -> str:
    return (
        f"writes acknowledged {part['writes_acknowledged']}, refused {part['writes_refused']}, "
        f"lost {part['writes_lost']}"
    )


def plot(result: dict[str, Any], path: Path) -> None:
    from bench.plotting import save, subplots

    figure, axes = subplots(1, 1, width=7.0, height=3.0)
    modes = [mode for mode in MODES if mode in result]

    def of(name: str) -> list[float]:
        return [result[mode]["write_again_s"][name] for mode in modes]

    axes.barh(modes, of("worst"), color="#8fb4d8")
    axes.barh(modes, of("all_nodes_median"), color="#2f6fab")
    axes.set_xlabel("s from the promotion until every node writes again (dark: median)")
    save(figure, path, result["environment"])
