"""A node as a process under measurement, seen from outside."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from bench.harness import ROOT, BenchError, child_environment, python
from novacron.boot.report import Report
from novacron.boot.report_store import ReportStore
from novacron.data_directory import DataDirectory

_DEADLINE = 60.0
"""Seconds a boot or a stop may take before the bench gives up."""


class Boot:
    """One started node that has become READY. Use as a context manager; leaving it stops the node.

    READY is learned from the datagram a service manager would get, so that nothing polls while the
    node boots: on two cores a polling harness is part of what it measures.
    """

    def __init__(self, data_dir: Path, *arguments: str) -> None:
        self.data_dir = data_dir
        ready_file = data_dir.parent / f"ready-{secrets.token_hex(4)}.json"
        address = f"novacron-bench-{secrets.token_hex(8)}"
        manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        manager.bind("\0" + address)
        environment = child_environment(
            NOTIFY_SOCKET="@" + address,
            NOVACRON_API__PORT="0",
            NOVACRON_NETWORK__PORT="0",
            NOVACRON_DWCP__AMST__PORT="0",
            NOVACRON_MONITORING__PORT="0",
        )
        command = python("-m", "novacron.boot", "--data-dir", str(data_dir))
        command += ["--ready-file", str(ready_file), *arguments]
        self.wall_before = time.time()
        self.log = (data_dir.parent / "node.log").open("wb")
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=subprocess.STDOUT,
        )
        self._pidfd = os.pidfd_open(self.process.pid)
        try:
            self._await_ready(manager)
            self.cpu_seconds = cpu_seconds(self.process.pid)
            self.ready: dict[str, Any] = json.loads(ready_file.read_bytes())
            self.ready_mtime = ready_file.stat().st_mtime
        except BaseException:
            self.process.kill()
            self._close()
            raise
        finally:
            manager.close()

    def _await_ready(self, manager: socket.socket) -> None:
        give_up = time.monotonic() + _DEADLINE
        while (left := give_up - time.monotonic()) > 0:
            readable, _, _ = select.select([manager.fileno(), self._pidfd], [], [], left)
            if manager.fileno() in readable and b"READY=1" in manager.recv(65536).split(b"\n"):
                return
            if self._pidfd in readable:
                break
        raise BenchError(f"the node did not become READY:\n{self._output()}")

    def _output(self) -> str:
        return Path(self.log.name).read_text(errors="replace")[-4000:]

    @property
    def seconds(self) -> float:
        """From the kernel's process start to READY, as the node itself found."""
        return float(self.ready["seconds"])

    @property
    def outside_seconds(self) -> float:
        """From just before the fork to the ready file's last change, by clocks the node has no part
        in. A file's time has the granularity of the kernel's tick (1 to 10 ms)."""
        return self.ready_mtime - self.wall_before

    def address(self, kind: str) -> str:
        """``host:port`` the node serves *kind* on: ``rest``, ``peer``, …"""
        return str(self.ready["addresses"][kind])

    def report(self) -> Report:
        """The report of this boot; waits for the node to have kept it.

        Raises:
          BenchError: it keeps none.
        """
        store = ReportStore(DataDirectory(self.data_dir))
        give_up = time.monotonic() + _DEADLINE
        while time.monotonic() < give_up:
            for path in store.paths()[:1]:
                if str(self.ready["boot_id"]) in path.name:
                    return store.read(path)
            time.sleep(0.005)
        raise BenchError("the node kept no report of its boot")

    def resident_mib(self) -> float:
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        raise BenchError("the node has no resident memory")

    def stop(self) -> float:
        """SIGTERM; seconds until the process is gone.

        Raises:
          BenchError: it did not end, or not with exit code 0.
        """
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        readable, _, _ = select.select([self._pidfd], [], [], _DEADLINE)
        took = time.monotonic() - began
        if not readable:
            raise BenchError(f"the node did not stop:\n{self._output()}")
        code = self.process.wait()
        if code != 0:
            raise BenchError(f"the node stopped with exit code {code}:\n{self._output()}")
        return took

    def _close(self) -> None:
        self.process.wait()
        self.log.close()
        with contextlib.suppress(OSError):
            os.close(self._pidfd)

    def __enter__(self) -> Boot:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self._close()


def cpu_seconds(pid: int) -> float:
    """User and system time of *pid*, all its threads, living or dead, to the nanosecond: the
    kernel's CPU clock of another process (clock_getcpuclockid(3) spells its id so)."""
    return time.clock_gettime((~pid << 3) | 2)
