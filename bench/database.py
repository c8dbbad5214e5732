"""The database component against the bare driver of its engine: operations a second, and how long one
takes.

Each sample is a process of its own; in each round all take their turn. SQLite's driver is ``sqlite3``
in one thread, PostgreSQL's is psycopg in one thread with one connection, on the same server, over the
same TLS, waiting for the disk as the store does. Ratios are to that one thread, whatever the number of
tasks: it is what a program gets that does nothing but call the driver. Beside it stand the driver in
Trio's worker threads, a hop for each operation (``hops``), which is what the store is an alternative to,
and for many tasks on PostgreSQL the driver in as many threads of its own.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.harness import BenchError, interleaved, run_worker, say
from bench.series import Series
from bench.servers.postgresql import DATABASE, USER, PostgreSQL, program

MANY = 16
_FIGURES = ("rate", "p50_us", "p99_us")
WORKS = {
    "sqlite": ("read", "write", "transaction"),
    "postgresql": ("read", "write", "transaction", "run"),
}
"""``run`` is a transaction that may be repeated, and so needs no turn within a node."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--engine",
        choices=[*WORKS, "both"],
        default="both",
        help="the engine to measure (default: both)",
    )
    parser.add_argument(
        "--rounds", type=int, default=5, help="samples of each, interleaved (default: 5)"
    )
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="length of a sample (default: 1)"
    )
    parser.add_argument(
        "--no-sync", action="store_true", help="let PostgreSQL not wait for the disk"
    )


def measure(args: argparse.Namespace) -> dict[str, Any]:
    if args.rounds < 1 or args.seconds <= 0:
        raise BenchError("--rounds and --seconds must be positive")
    engines = list(WORKS) if args.engine == "both" else [args.engine]
    found: dict[str, Any] = {
        "rounds": args.rounds,
        "seconds": args.seconds,
        "tasks": [1, MANY],
        "postgresql_syncs": not args.no_sync,
        "engines": {},
    }
    with tempfile.TemporaryDirectory(prefix="novacron-bench-") as directory:
        os.chmod(directory, 0o700)
        for engine in engines:
            with _place(engine, Path(directory), durable=not args.no_sync) as place:
                found["engines"][engine] = _measured(engine, place, args.rounds, args.seconds)
    return found


@contextmanager
def _place(engine: str, directory: Path, *, durable: bool) -> Iterator[dict[str, Any]]:
    """A database with its rows, and how to get there."""
    about: dict[str, Any] = {"engine": engine, "directory": str(directory)}
    if engine == "sqlite":
        about["path"] = str(directory / "bench.db")
        run_worker("bench.database_worker", _request(about, "store", "fill", 1, 1.0), timeout=120)
        yield about
        return
    program("postgres")
    with PostgreSQL(durable=durable) as server:
        password = directory / "password"
        password.touch(mode=0o600)
        password.write_text(server.password)
        about["dsn"] = f"{server.dsn()} password='{server.password}'"
        about["postgresql"] = {
            "hosts": [server.address],
            "name": DATABASE,
            "user": USER,
            "password": f"file:{password}",
            "ca_certificate": str(server.ca),
            "pool_max": MANY,
        }
        run_worker("bench.database_worker", _request(about, "store", "fill", 1, 1.0), timeout=120)
        server.psql("VACUUM ANALYZE item")
        yield about


def _request(
    place: dict[str, Any], subject: str, work: str, tasks: int, seconds: float
) -> dict[str, Any]:
    return {**place, "subject": subject, "work": work, "tasks": tasks, "seconds": seconds}


def _measured(engine: str, place: dict[str, Any], rounds: int, seconds: float) -> dict[str, Any]:
    series = Series(warm_up=1)
    wanted: list[tuple[str, str, int]] = []
    for work in WORKS[engine]:
        wanted.append(("driver", work, 1))
        wanted += [(subject, work, n) for n in (1, MANY) for subject in ("store", "hops")]
        if engine == "postgresql":
            wanted.append(("driver", work, MANY))

    def sample(subject: str, work: str, tasks: int) -> None:
        request = _request(place, subject, work, tasks, seconds)
        figures = run_worker("bench.database_worker", request, timeout=60 + 10 * seconds)
        series.add((subject, work, tasks), **figures)

    say(f"{engine} ")
    subjects = [lambda each=each: sample(*each) for each in wanted]
    interleaved(subjects, rounds, warm_up=1, progress=lambda done, of: say("."))
    say("\n")
    return {work: _figures(series, engine, work) for work in WORKS[engine]}


def _figures(series: Series, engine: str, work: str) -> dict[str, Any]:
    def of(subject: str, tasks: int) -> dict[str, float]:
        key = (subject, work, tasks)
        return {
            **{name: round(series.median(name, key), 1) for name in _FIGURES},
            "rate_iqr": round(series.iqr("rate", key), 1),
        }

    driver = of("driver", 1)
    found: dict[str, Any] = {"driver": driver}
    for tasks in (1, MANY):
        store = of("store", tasks)
        hops = of("hops", tasks)
        store["ratio"] = round(store["rate"] / driver["rate"], 3)
        store["ratio_to_hops"] = round(store["rate"] / hops["rate"], 3)
        found[f"store_{tasks}"] = store
        found[f"hops_{tasks}"] = hops
    if engine == "postgresql":
        threads = found[f"driver_{MANY}_threads"] = of("driver", MANY)
        found[f"store_{MANY}"]["ratio_to_threads"] = round(
            found[f"store_{MANY}"]["rate"] / threads["rate"], 3
        )
    return found


def as_text(result: dict[str, Any]) -> str:
    lines = [
        f"{'':<12}{'':<13}{'':<19}{'a second':>10} {'P50 us':>9} {'P99 us':>9} {'ratio':>6} "
        f"{'to hops':>8}",
    ]
    for engine, works in result["engines"].items():
        for work, subjects in works.items():
            for subject, figures in subjects.items():
                ratio = (
                    f"{figures['ratio']:>6.2f} {figures['ratio_to_hops']:>8.2f}"
                    if "ratio" in figures
                    else ""
                )
                lines.append(
                    f"{engine:<12}{work:<13}{subject.replace('_', ' '):<19}"
                    f"{figures['rate']:>10.0f} {figures['p50_us']:>9.0f} {figures['p99_us']:>9.0f} "
                    f"{ratio}"
                )
    return "\n".join(
        [
            *lines,
            "",
            "ratio: to the driver in one thread; to hops: to the driver in Trio's threads; medians",
        ]
    )


def plot(result: dict[str, Any], path: Path) -> None:
    from bench.plotting import save, subplots

    engines = result["engines"]
    figure, axes = subplots(1, len(engines), width=5.0 * len(engines), height=3.8)
    colours = {"driver": "#66717f", "store_1": "#2f6fab", f"store_{MANY}": "#1b7f4b"}
    for axis, (engine, works) in zip(
        axes.flat if len(engines) > 1 else [axes], engines.items(), strict=True
    ):
        for place, (subject, colour) in enumerate(colours.items()):
            axis.bar(
                [n + 0.25 * (place - 1) for n in range(len(works))],
                [figures[subject]["rate"] for figures in works.values()],
                width=0.23,
                color=colour,
                label=subject.replace("_", ", tasks: "),
            )
        axis.set_xticks(range(len(works)), list(works))
        axis.set_ylabel("operations a second")
        axis.set_title(engine)
        axis.legend(frameon=False)
    save(figure, path, result["environment"])
