"""The report of a boot that failed before there was an engine to report on."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from novacron.boot.events import describe_error
from novacron.boot.node_view import BootRecord, EngineView
from novacron.boot.process_start import ProcessStart
from novacron.component import JsonObject, NodeState
from novacron.durable import write_atomically


def early_report(record: BootRecord, start: ProcessStart, error: Exception) -> JsonObject:
    """*record* completed with *error*, as a whole boot report."""
    record.state = NodeState.FAILED
    record.seconds = round(start.elapsed(), 6)
    record.failure = {
        "component": None,
        "phase": None,
        "attempt": None,
        "elapsed": record.seconds,
        **describe_error(error),
    }
    return EngineView(record).report()


def write_early_report(path: Path, start: ProcessStart, error: Exception) -> None:
    """For failures so early that the boot has no id yet."""
    record = BootRecord(os.urandom(16).hex(), os.getpid(), start.wall)
    write_report(path, early_report(record, start, error))


def write_report(path: Path, report: JsonObject) -> None:
    """``--report``. A failure to write it is said, and changes nothing else."""
    try:
        write_atomically(path, json.dumps(report, indent=2).encode() + b"\n", mode=0o644)
    except OSError as exc:
        sys.stderr.write(f"the report was not written to {path}: {exc.strerror or exc}\n")
