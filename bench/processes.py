"""Programs measured from outside: what they printed, how long they took, what CPU they used."""

from __future__ import annotations

import errno
import os
import secrets
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.harness import BenchError, child_environment

GIB = 1024**3
_POLL_SECONDS = 0.002
_FIRST_PORT, _LAST_PORT = 10_000, 32_000
_told_ports: set[int] = set()


@dataclass(frozen=True, slots=True)
class Finished:
    output: str
    seconds: float
    """From just before the fork to the end."""
    cpu_seconds: float
    """User and system time, of its children too as far as it waited for them."""


def program(name: str, package: str) -> str:
    """Where the program *name* is.

    Raises:
      BenchError: it is not installed; the text names Debian's *package*.
    """
    found = shutil.which(name)
    if found is None:
        raise BenchError(f"{name} is not installed (Debian: apt-get install {package})")
    return found


def first_line(argv: Sequence[str]) -> str:
    """The first line a program prints, on whichever of its outputs: its version, mostly."""
    result = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    return (result.stdout or result.stderr).partition("\n")[0].strip()


def free_port(address: str = "127.0.0.1") -> int:
    """For a server that takes no port 0, or is to have the same again: one that nobody has now.

    It is let go of before it is used, so it is none that the kernel gives to whoever connects or
    binds to port 0 (ip_local_port_range, from 32768), and none that this process was told before.
    """
    while True:
        # Not from random, which tests give the same seed in each of their processes.
        port = _FIRST_PORT + secrets.randbelow(_LAST_PORT - _FIRST_PORT)
        if port in _told_ports:
            continue
        with socket.socket() as listener:
            try:
                listener.bind((address, port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                continue
        _told_ports.add(port)
        return port


class Measured:
    """A process in a group of its own, as a context manager whose end is the group's, killed if
    need be. *prefix* goes before the program: that of another network namespace, for instance.
    """

    def __init__(self, argv: Sequence[str], *, prefix: Sequence[str] = ()) -> None:
        """Starts it, without input, both outputs into one unnamed file.

        Raises:
          BenchError: it cannot be started.
        """
        self.argv = [*prefix, *argv]
        # A file takes what a pipe nobody reads would make the subject wait for.
        self._output = tempfile.TemporaryFile()  # noqa: SIM115  (closed in __exit__)
        self._began = time.monotonic()
        self._finished: Finished | None = None
        try:
            self._process = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=child_environment(),
            )
        except OSError as exc:
            self._output.close()
            raise BenchError(f"{self.argv[0]} cannot be started: {exc}") from exc

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()
        self._output.close()

    def kill(self) -> None:
        """End the process and every descendant that stayed in its group."""
        # While the process is not reaped its number, and the group's, are nobody else's.
        if self._finished is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._reap()

    def _reap(self) -> Finished:
        _, status, usage = os.wait4(self._process.pid, 0)
        seconds = time.monotonic() - self._began
        self._process.returncode = os.waitstatus_to_exitcode(status)
        self._finished = Finished(self.output(), seconds, usage.ru_utime + usage.ru_stime)
        return self._finished

    def output(self) -> str:
        """What it has printed so far."""
        return os.pread(self._output.fileno(), 1 << 24, 0).decode(errors="replace")

    def wait(self, timeout: float, *, successful: bool = True) -> Finished:
        """Wait for its end.

        Raises:
          BenchError: it took more than *timeout* seconds, or failed (if *successful*).
        """
        ready = self._finished is not None or self.ended(timeout)
        if not ready:
            self.kill()
            raise BenchError(f"{self._name} took more than {timeout:g} s:\n{self._last_words}")
        finished = self._finished or self._reap()
        if successful and self._process.returncode != 0:
            raise BenchError(
                f"{self._name} failed ({self._process.returncode}):\n{self._last_words}"
            )
        return finished

    def stop(self, timeout: float) -> Finished:
        """Ask it to end (SIGTERM), and wait; the measurements are as good as after its own end."""
        if self._finished is None:
            self._process.send_signal(signal.SIGTERM)
        return self.wait(timeout, successful=False)

    def wait_output(self, word: str, timeout: float) -> str:
        """Wait until it has printed *word*, and return all it has printed.

        Raises:
          BenchError: it ended before, or did not within *timeout* seconds.
        """
        give_up = time.monotonic() + timeout
        while word not in (said := self.output()):
            if self.ended(_POLL_SECONDS) or time.monotonic() > give_up:
                raise BenchError(f"{self._name} did not say {word!r}:\n{self._last_words}")
        return said

    def wait_childless(self, timeout: float) -> None:
        """Wait until it has waited for all its children, which then count as its CPU time.

        Raises:
          BenchError: one still lives after *timeout* seconds.
        """
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        give_up = time.monotonic() + timeout
        while children.read_text():
            if time.monotonic() > give_up:
                raise BenchError(f"{self._name} keeps a child:\n{self._last_words}")
            time.sleep(_POLL_SECONDS)

    def ended(self, timeout: float = 0.0) -> bool:
        """Whether it ends within *timeout* seconds."""
        descriptor = os.pidfd_open(self._process.pid)
        try:
            return bool(select.select([descriptor], [], [], timeout)[0])
        finally:
            os.close(descriptor)

    @property
    def _name(self) -> str:
        return " ".join(self.argv)

    @property
    def _last_words(self) -> str:
        return self.output()[-2000:]
