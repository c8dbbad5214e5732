"""``python -m bench SUBJECT``: measure, print, draw."""

from __future__ import annotations

import argparse
import importlib
import json
import signal
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

SUBJECTS = {
    "boot": "a whole node from process start to READY, against the floor of its imports",
    "parallel": "what the schedules get out of a graph, against what the graph allows",
    "stress": "the engine's own cost with many components",
    "cluster": "three nodes on one PostgreSQL and one Redis, while each of these is killed",
    "failover": "three nodes on two PostgreSQL servers that change places",
    "amst": "AMST through the loopback, memory to memory, against iperf3",
    "amst-files": "AMST from file to file, against GridFTP, rsync and cp",
    "amst-wan": "AMST on wide-area paths, its controller against fixed numbers of streams",
    "database": "the database component against the bare driver of its engine",
    "cache": "the cache component: hits in memory, Redis against the bare driver, invalidations",
    "hde": "encoding: an adaptive node against each codec alone and zstd --adapt, by data and link",
    "acp": "congestion prevention: queues, goodput and fairness of nodes at a bottleneck, on and off",
}


def _module(subject: str) -> ModuleType:
    return importlib.import_module(f"bench.{subject.replace('-', '_')}")


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        prog="python -m bench", description="Measure NovaCron.", allow_abbrev=False
    )
    subjects = result.add_subparsers(dest="subject", required=True, metavar="SUBJECT")
    for name, words in SUBJECTS.items():
        subject = subjects.add_parser(name, help=words, description=words, allow_abbrev=False)
        subject.add_argument(
            "--json", action="store_true", help="one JSON object on standard output, nothing else"
        )
        subject.add_argument(
            "--plot", metavar="FILE", type=Path, help="draw the result (.png or .svg)"
        )
        subject.add_argument("--save", metavar="FILE", type=Path, help="also write the JSON here")
        module = _module(name)
        module.add_arguments(subject)
    return result


def main(arguments: list[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    module = _module(args.subject)
    from bench.harness import BenchError, environment

    try:
        result: dict[str, Any] = module.measure(args)
    except BenchError as exc:
        sys.stderr.write(f"bench {args.subject}: {exc}\n")
        return 1
    result["environment"] = environment()
    text = json.dumps(result, indent=2)
    if args.save is not None:
        args.save.write_text(text + "\n")
    print(text if args.json else module.as_text(result))
    if args.plot is not None:
        module.plot(result, args.plot)
    return 0


if __name__ == "__main__":
    # Asked to end, it ends what it started and removes its files as after an error: some are
    # gigabytes in shared memory.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    sys.exit(main())
