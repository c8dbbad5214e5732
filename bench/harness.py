"""What every bench needs: fresh processes, percentiles, the machine's description."""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

Figures = dict[str, float]


class BenchError(Exception):
    """The measurement could not be made; the text says why."""


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which *share* (0 to 1) of the sorted *values* lie, interpolated linearly
    between the two nearest ranks (the definition NumPy and R-7 use)."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def percentiles(values: Sequence[float], digits: int = 6) -> Figures:
    """p50, p95 and p99. With fewer than a hundred values p99 is little more than the worst."""
    return {f"p{share}": round(percentile(values, share / 100), digits) for share in (50, 95, 99)}


def interleaved(
    subjects: Sequence[Callable[[], None]],
    runs: int,
    warm_up: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Call every subject *warm_up* + *runs* times in turn; the caller discards the warm-up's results.

    The order turns around each round: whatever drifts (temperature, a neighbour, the page cache)
    meets all subjects alike, and none profits from always coming second.
    """
    for number in range(warm_up + runs):
        ordered = subjects if number % 2 == 0 else list(reversed(subjects))
        for subject in ordered:
            subject()
        if progress is not None:
            progress(number + 1, warm_up + runs)


def child_environment(**variables: str) -> dict[str, str]:
    """This process's environment without what would change the subject: settings of the node, a
    service manager's socket, and switches that make Python slower than an installation is."""
    drop = ("NOVACRON_", "PYTHON", "NOTIFY_SOCKET", "WATCHDOG_", "COVERAGE_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(drop)}
    # A Python that may not keep byte code compiles everything anew at each start; an installed one
    # does not. Where the byte code goes is the caller's choice.
    if "PYTHONPYCACHEPREFIX" in os.environ:
        kept["PYTHONPYCACHEPREFIX"] = os.environ["PYTHONPYCACHEPREFIX"]
    return kept | variables


def python(*arguments: str) -> list[str]:
    return [sys.executable, *arguments]


def run_worker(module: str, request: object, *, timeout: float) -> Any:
    """Run ``python -m MODULE`` in a fresh process with *request* as JSON on its standard input, and
    return the JSON it prints.

    Raises:
      BenchError: it failed, printed something else, or took longer than *timeout* seconds.
    """
    try:
        result = subprocess.run(
            python("-m", module),
            input=json.dumps(request),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=True,
            cwd=ROOT,
            env=child_environment(),
        )
        return json.loads(result.stdout)
    except subprocess.TimeoutExpired as exc:
        raise BenchError(f"{module} took more than {timeout:.0f} s") from exc
    except subprocess.CalledProcessError as exc:
        raise BenchError(f"{module} failed:\n{exc.stderr}") from exc
    except ValueError as exc:
        raise BenchError(f"{module} did not print JSON") from exc


def environment() -> dict[str, Any]:
    """What the figures were measured on and of."""
    return {
        "commit": _git("rev-parse", "HEAD"),
        "modified": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_mib": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 1024**2,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": [round(value, 2) for value in os.getloadavg()],
    }


def _git(*arguments: str) -> str | None:
    try:
        result = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()


def say(words: str) -> None:
    """Progress, on standard error: standard output is the result's."""
    sys.stderr.write(words)
    sys.stderr.flush()
