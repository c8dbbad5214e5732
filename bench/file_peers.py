"""What else moves a file on one machine: rsync, through its daemon or alone, and cp."""

from __future__ import annotations

import filecmp
import os
import socket
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from bench.harness import BenchError
from bench.processes import GIB, Measured, first_line, free_port, program

_START_SECONDS = 30.0
_POLL_SECONDS = 0.005


@dataclass(frozen=True, slots=True)
class Move:
    gbps: float
    """10^9 bits of the file a second, holes counted as bytes."""
    seconds: float
    cpu_s_per_gib: float
    """User and system time of all processes that took part."""

    @classmethod
    def of(cls, source: Path, seconds: float, cpu_seconds: float) -> Self:
        size = source.stat().st_size
        if size == 0:
            raise BenchError(f"{source} is empty: it has no throughput")
        return cls(size * 8 / 1e9 / seconds, seconds, cpu_seconds / (size / GIB))


def same_bytes(source: Path, target: Path, who: str) -> None:
    """Compare, outside of what is timed.

    Raises:
      BenchError: the files differ, or *target* is not there.
    """
    try:
        same = filecmp.cmp(source, target, shallow=False)
    except OSError as exc:
        raise BenchError(f"{who} left nothing to compare: {exc}") from exc
    if not same:
        raise BenchError(f"{who} changed bytes: {source} and {target} differ")


def cp_version() -> str:
    return first_line([program("cp", "coreutils"), "--version"])


def rsync_version() -> str:
    return first_line([program("rsync", "rsync"), "--version"])


def cp(source: Path, target: Path, *, timeout: float = 300.0) -> Move:
    """``cp``, reading and writing every byte: neither shared extents nor holes are used.

    Raises:
      BenchError: it failed, took more than *timeout* seconds or changed bytes.
    """
    copy = [program("cp", "coreutils"), "--reflink=never", "--sparse=never"]
    return _alone([*copy, str(source), str(target)], source, target, timeout)


def rsync(source: Path, target: Path, *, timeout: float = 300.0) -> Move:
    """``rsync`` between two local paths: its processes talk through a socket pair, the whole file is
    sent, and its own checksum of it is verified as always.

    Raises:
      BenchError: it is missing, failed, took more than *timeout* seconds or changed bytes.
    """
    copy = [program("rsync", "rsync"), "--whole-file", "--ignore-times"]
    return _alone([*copy, str(source), str(target)], source, target, timeout)


def _alone(argv: list[str], source: Path, target: Path, timeout: float) -> Move:
    with Measured(argv) as process:
        finished = process.wait(timeout)
    same_bytes(source, target, argv[0])
    return Move.of(source, finished.seconds, finished.cpu_seconds)


def rsync_daemon(source: Path, target: Path, *, timeout: float = 300.0) -> Move:
    """``rsync`` from a daemon on the loopback: one TCP connection, the whole file.

    Raises:
      BenchError: it is missing, failed, took more than *timeout* seconds or changed bytes.
    """
    rsync_program = program("rsync", "rsync")
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        settings = Path(folder, "rsyncd.conf")
        # As root it would serve as nobody, who need not be able to read the file.
        owner = "uid = 0\ngid = 0\n" if os.geteuid() == 0 else ""
        settings.write_text(
            f"use chroot = no\nlog file = {folder}/log\n{owner}"
            f"[files]\npath = {source.resolve().parent}\nread only = yes\n"
        )
        served = [rsync_program, "--daemon", "--no-detach", f"--config={settings}"]
        with Measured([*served, "--address=127.0.0.1", f"--port={port}"]) as server:
            _wait_listening(port, server)
            url = f"rsync://127.0.0.1:{port}/files/{source.name}"
            copied = [rsync_program, "--whole-file", "--ignore-times", url, str(target)]
            with Measured(copied) as client:
                received = client.wait(timeout)
            server.wait_childless(_START_SECONDS)
            sent = server.stop(_START_SECONDS)
    same_bytes(source, target, "rsync")
    return Move.of(source, received.seconds, received.cpu_seconds + sent.cpu_seconds)


def _wait_listening(port: int, server: Measured) -> None:
    give_up = time.monotonic() + _START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError as exc:
            if server.ended() or time.monotonic() > give_up:
                raise BenchError(f"rsync's daemon does not listen:\n{server.output()}") from exc
            time.sleep(_POLL_SECONDS)
        else:
            return
