"""Runs a command under two deadlines: what it prints is passed on, its console is kept."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, BinaryIO

from tests.lab.machine.outcome import End

READ_BYTES = 65536
CONSOLE_LINES = 20_000
"""More than a boot and a thousand tests say; a driver that fills the console has a bound."""

KILL_SECONDS = 10.0
"""From SIGTERM, at which the temporary files of the boot's tools go, to SIGKILL."""


@dataclass(frozen=True)
class Limits:
    """Seconds. *total* is for everything, *silence* for the time between two pieces of output."""

    total: float
    silence: float


@dataclass
class Watched:
    status: int = -1
    end: End = End.BY_ITSELF
    limit: float = 0.0
    """The deadline that passed, where one did."""
    console: deque[str] = field(default_factory=lambda: deque(maxlen=CONSOLE_LINES))


def watch(
    command: Sequence[str], environment: Mapping[str, str], limits: Limits, output: BinaryIO
) -> Watched:
    """Run *command* to its end or to a deadline. Its standard output goes to *output* as it comes,
    its standard error becomes the console's lines. Nothing it started is left."""
    watched = Watched()
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # the emulator is a grandchild, and has to end with the rest
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        _pass_on(process.stdout, process.stderr, watched, limits, output)
        if watched.end is End.BY_ITSELF:
            watched.status = process.wait(KILL_SECONDS)
    except subprocess.TimeoutExpired:
        watched.end, watched.limit = End.SILENT, KILL_SECONDS
    except KeyboardInterrupt:
        watched.end = End.INTERRUPTED
    finally:
        _end(process)
        process.stdout.close()
        process.stderr.close()
    return watched


def _pass_on(
    stdout: IO[bytes], stderr: IO[bytes], watched: Watched, limits: Limits, output: BinaryIO
) -> None:
    overdue = time.monotonic() + limits.total
    silent = time.monotonic() + limits.silence
    partial = b""
    with selectors.DefaultSelector() as selector:
        selector.register(stdout, selectors.EVENT_READ)
        selector.register(stderr, selectors.EVENT_READ)
        while selector.get_map():
            now = time.monotonic()
            if now >= min(overdue, silent):
                late = overdue <= silent
                watched.end = End.OVERDUE if late else End.SILENT
                watched.limit = limits.total if late else limits.silence
                break
            for key, _ in selector.select(min(overdue, silent) - now):
                chunk = os.read(key.fd, READ_BYTES)
                if not chunk:
                    selector.unregister(key.fileobj)
                elif key.fileobj is stdout:
                    silent = time.monotonic() + limits.silence
                    output.write(chunk)
                    output.flush()
                else:
                    # Also a sign of life, but only of the kernel: a driver that complains without
                    # end must not keep a hung test alive. The boot says nothing else, though.
                    *lines, partial = (partial + chunk).split(b"\n")
                    watched.console.extend(_text(line) for line in lines)
    if partial:
        watched.console.append(_text(partial))


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace").rstrip()


def _end(process: subprocess.Popen[bytes]) -> None:
    """End every process of the group, also where its leader is gone."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(KILL_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
