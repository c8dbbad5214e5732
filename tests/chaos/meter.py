"""The event loop's worst stall in a node's process, watched from another one.

:class:`Instrument` runs inside the node (see ``metered_node.py``) and notes each new worst in a file
that both processes map; :class:`Meter` is the watching side. Two things are told apart:

* *step*: one task ran this long without letting others run. A blocking call, or too much work.
* *late*: the loop was due to wake this long ago. A step before it, a thread that held the
  interpreter, or a machine that gave this process no turn.
"""

from __future__ import annotations

import mmap
import struct
import time
from pathlib import Path
from typing import NamedTuple

import trio

_LAYOUT = struct.Struct("<QQ120sQ")
"""Worst step (ns), worst lateness (ns), name of the task of the worst step, steps."""


class Worst(NamedTuple):
    step: float
    """Seconds."""
    late: float
    """Seconds."""
    task: str
    steps: int
    """Steps since the reset: none means that the loop stood still all the while."""


class Instrument(trio.abc.Instrument):
    """Writes to *path*, which :class:`Meter` has made."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _LAYOUT.size)
        self._began = 0
        self._due = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._began = time.perf_counter_ns()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        took = time.perf_counter_ns() - self._began
        step, late, name, steps = _LAYOUT.unpack_from(self._map)
        if took > step:
            step, name = took, task.name.encode()[:120]
        _LAYOUT.pack_into(self._map, 0, step, late, name, steps + 1)

    def before_io_wait(self, timeout: float) -> None:
        # A wait without end, or for longer than anybody measures, has no time it is due at.
        self._due = time.perf_counter_ns() + int(timeout * 1e9) if timeout < 60 else 0

    def after_io_wait(self, timeout: float) -> None:
        if not self._due:
            return
        behind = time.perf_counter_ns() - self._due
        step, late, name, steps = _LAYOUT.unpack_from(self._map)
        if behind > late:
            _LAYOUT.pack_into(self._map, 0, step, behind, name, steps)


class Meter:
    """The file, zeroed. One node at a time writes to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(bytes(_LAYOUT.size))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _LAYOUT.size)

    def reset(self) -> None:
        """Begin anew. A step that ends just now may still count."""
        self._map[:] = bytes(_LAYOUT.size)

    def worst(self) -> Worst:
        step, late, name, steps = _LAYOUT.unpack_from(self._map)
        return Worst(step / 1e9, late / 1e9, name.rstrip(b"\0").decode(errors="replace"), steps)

    def close(self) -> None:
        self._map.close()
