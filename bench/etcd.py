"""etcd as a peer: a maintained node daemon with a database, from process start to healthy."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from pathlib import Path

from bench.harness import BenchError, child_environment
from bench.processes import free_port

_DEADLINE = 60.0
_POLL_SECONDS = 0.002


def program() -> str:
    """Where etcd is.

    Raises:
      BenchError: it is not installed; the text names Debian's package.
    """
    found = shutil.which("etcd")
    if found is None:
        raise BenchError("etcd is not installed (Debian: apt-get install etcd-server)")
    return found


def version() -> str:
    result = subprocess.run([program(), "--version"], capture_output=True, text=True, check=True)
    return result.stdout.splitlines()[0].partition(":")[2].strip()


def start_seconds(data_dir: Path) -> float:
    """Start etcd on *data_dir* with its defaults, on free ports, wait until ``/health`` says so,
    stop it; seconds from just before the fork to healthy.

    Raises:
      BenchError: it did not become healthy.
    """
    client, peer = free_port(), free_port()
    log = data_dir.parent / "etcd.log"
    with log.open("wb") as output:
        began = time.monotonic()
        process = subprocess.Popen(
            [
                program(),
                "--name=bench",
                f"--data-dir={data_dir}",
                f"--listen-client-urls=http://127.0.0.1:{client}",
                f"--advertise-client-urls=http://127.0.0.1:{client}",
                f"--listen-peer-urls=http://127.0.0.1:{peer}",
                f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
                f"--initial-cluster=bench=http://127.0.0.1:{peer}",
            ],
            env=child_environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            while not _healthy(client):
                if process.poll() is not None or time.monotonic() - began > _DEADLINE:
                    raise BenchError(f"etcd did not become healthy:\n{log.read_text()[-2000:]}")
                time.sleep(_POLL_SECONDS)
            return time.monotonic() - began
        finally:
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _healthy(port: int) -> bool:
    with (
        contextlib.suppress(OSError),
        socket.create_connection(("127.0.0.1", port), timeout=1) as connection,
    ):
        connection.sendall(b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n")
        answer = b""
        while chunk := connection.recv(4096):
            answer += chunk
        return b'"health":"true"' in answer
    return False
