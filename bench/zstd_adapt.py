"""`zstd --adapt` as a peer: one thread that compresses into a connection, whose other end
decompresses into a file."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import subprocess
import time
from pathlib import Path
from typing import IO

from bench.harness import BenchError, child_environment
from bench.hde_data import Dataset
from bench.hde_link import Place, within
from bench.hde_pair import Moved
from bench.hde_worker import same_bytes
from bench.processes import first_line, program

_CONNECT_SECONDS = 10.0
_BYTES_RECEIVED = 128
"""Offset of tcpi_bytes_received in the kernel's struct tcp_info (linux/tcp.h), which only grows at
its end."""


def version() -> str:
    return first_line([program("zstd", "zstd"), "--version"])


def move(data: Dataset, place: Place, target: Path, congestion: str, timeout: float) -> Moved:
    """Move *data* to *target*, a new file, and compare what arrived; *congestion* is for both ends.

    zstd writes into the connection and reads from it itself, so that nothing stands between. In the
    time is its start, some milliseconds; in the way is no encryption, which the other ways have.

    Raises:
      BenchError: zstd is not installed, failed, took more than *timeout* seconds, or changed bytes.
    """
    zstd = program("zstd", "zstd")
    with contextlib.ExitStack() as stack:
        near, far = (stack.enter_context(end) for end in _connected(place, congestion))
        sent = [zstd, "-q", "-T1", "--adapt", "-c", str(data.source)]
        received = [zstd, "-q", "-d", "-f", "-o", str(target)]
        receiver = stack.enter_context(_Child(received, stdin=far))
        began = time.monotonic()
        sender = stack.enter_context(_Child(sent, stdout=near))
        near.close()  # so that the connection ends with the sender
        give_up = began + timeout
        cpu = sender.wait(give_up)
        cpu += receiver.wait(give_up)
        seconds = time.monotonic() - began
        info = far.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        (wire,) = struct.unpack_from("=Q", info, _BYTES_RECEIVED)
    same = same_bytes(str(target), str(data.source))
    target.unlink()
    if not same:
        raise BenchError(f"zstd changed bytes of {data.name}")
    return Moved(seconds, wire, cpu)


def _connected(place: Place, congestion: str) -> tuple[socket.socket, socket.socket]:
    """The sender's end of a new connection, and the receiver's."""
    with within(place.b):
        listener = socket.create_server((place.host, 0))
    with listener:
        listener.settimeout(_CONNECT_SECONDS)
        with within(place.a):
            near = socket.socket()
        near.settimeout(_CONNECT_SECONDS)
        if congestion:
            near.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, congestion.encode())
        near.connect(listener.getsockname())
        far, _ = listener.accept()
    for end in (near, far):
        end.setblocking(True)  # of the description, which the children share
    return near, far


class _Child:
    """A process that is killed at the end of the block if it still runs."""

    def __init__(
        self,
        argv: list[str],
        *,
        stdin: socket.socket | None = None,
        stdout: socket.socket | None = None,
    ) -> None:
        self._argv = argv
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL if stdin is None else stdin.fileno(),
            stdout=subprocess.DEVNULL if stdout is None else stdout.fileno(),
            stderr=subprocess.PIPE,
            env=child_environment(),
        )

    def __enter__(self) -> _Child:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._process.returncode is None:
            self._process.kill()
            self._process.wait()
        self._errors.close()

    @property
    def _errors(self) -> IO[bytes]:
        assert self._process.stderr is not None
        return self._process.stderr

    def wait(self, give_up: float) -> float:
        """CPU seconds it took, user and system."""
        descriptor = os.pidfd_open(self._process.pid)
        try:
            left = max(0.0, give_up - time.monotonic())
            if not select.select([descriptor], [], [], left)[0]:
                raise BenchError(f"{' '.join(self._argv)} did not end in time")
        finally:
            os.close(descriptor)
        _, status, usage = os.wait4(self._process.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        if self._process.returncode != 0:
            said = self._errors.read(2000).decode(errors="replace").strip()
            raise BenchError(f"{' '.join(self._argv)} failed: {said or self._process.returncode}")
        return usage.ru_utime + usage.ru_stime
