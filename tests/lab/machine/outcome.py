"""What a finished guest run means: decided from its exit status, its end and its console."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from tests.lab.machine.command import STATUS_BASE

TAIL_LINES = 60
"""A panic with its registers and call trace is about fifty lines long."""

PYTEST_STATUSES = range(6)

PANIC = re.compile(r"Kernel panic - not syncing: *(.*)")
COMPLAINT = re.compile(
    r"WARNING: CPU|BUG: |Oops: |blocked for more than \d+ seconds|rcu: INFO: .*stall"
)


class End(Enum):
    """Why the guest is gone."""

    BY_ITSELF = "by itself"
    OVERDUE = "overdue"
    SILENT = "silent"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class Outcome:
    status: int
    """What the run ends with: pytest's status, or 1 where the guest failed, 130 after Ctrl-C."""
    failure: str
    """What went wrong with the guest itself; empty where it ran to its end."""
    tail: tuple[str, ...]
    """The end of the console, where the failure needs it."""
    complaints: tuple[str, ...]
    """What the guest's kernel complained about although the run went on."""


def judge(status: int, end: End, limit: float, console: Sequence[str]) -> Outcome:
    """*status* is the boot command's, *limit* the seconds of the deadline that passed, if one did."""
    tail = tuple(console[-TAIL_LINES:])
    if end is End.INTERRUPTED:
        return Outcome(130, "interrupted", (), ())
    if end is End.OVERDUE:
        text = f"did not end within {limit:g} s, and was killed"
        return Outcome(1, text, tail, ())
    if end is End.SILENT:
        text = f"said nothing for {limit:g} s, longer than any test may take, and was killed"
        return Outcome(1, text, tail, ())
    panics = [match[1] for line in console if (match := PANIC.search(line))]
    if panics:
        return Outcome(1, f"panicked: {panics[0]}", tail, ())
    complaints = tuple(line for line in console if COMPLAINT.search(line))
    if status - STATUS_BASE in PYTEST_STATUSES:
        return Outcome(status - STATUS_BASE, "", (), complaints)
    return Outcome(1, f"ended without a result (exit status {status})", tail, complaints)
