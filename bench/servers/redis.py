"""A private redis-server (Debian: redis-server) on the loopback, for a measurement or a test.

    with RedisServer(users={"novacron": ("secret", "~nc:* &nc:* +@all")}) as server:
        connect_to(server.port)
        server.pause()      # SIGSTOP: accepts into the kernel's backlog, answers nothing
        server.resume()
        server.restart()    # SIGKILL, then a new process on the same port

It keeps nothing unless *durable*, and has a control connection of its own on a Unix socket, which
neither TLS, nor users, nor the network's faults concern: :meth:`command`.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from bench.harness import BenchError, child_environment
from bench.processes import free_port, program
from bench.servers.tls import Tls

Reply = str | int | bytes | None | list["Reply"]

_DEADLINE = 20.0
_POLL_SECONDS = 0.002
_TURNS = 5
"""Another process may take the port that was free a moment ago: then another one is tried."""


class RedisServer:
    """The process, as a context manager whose end is the process's and its directory's.

    Args:
      tls: serve TLS alone on :attr:`port`, with :attr:`tls`'s certificate; a client needs none.
      users: ACL users by name: password and rules (``~keys &channels +commands``). With any, the
        default user is off, so that nobody gets in without credentials.
      durable: append-only file, synced before each answer, kept over :meth:`restart`.
      config: further directives, one a line: ``"maxmemory 2mb"``.
    """

    def __init__(
        self,
        *,
        tls: bool = False,
        users: Mapping[str, tuple[str, str]] | None = None,
        durable: bool = False,
        config: Sequence[str] = (),
    ) -> None:
        """Starts it; returns when it answers.

        Raises:
          BenchError: it is not installed, or did not start.
        """
        self._program = program("redis-server", "redis-server")
        self.directory = Path(tempfile.mkdtemp(prefix="redis-"))
        self.tls = Tls(self.directory / "tls") if tls else None
        self._users = dict(users or {})
        self._durable = durable
        self._config = list(config)
        self._control = secrets.token_hex(16)
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False
        self.port = 0
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Raises :class:`BenchError` while it does not run."""
        if self._process is None:
            raise BenchError("redis-server does not run")
        return self._process.pid

    def start(self) -> None:
        """Start it, on the port it had before, and wait until it answers. Harmless while it runs.

        Raises:
          BenchError: it did not start.
        """
        if self._process is not None:
            return
        again = self.port
        for turn in range(1, _TURNS + 1):
            self.port = again or free_port()
            self._launch()
            try:
                self._wait_ready()
            except BenchError:
                self.kill()
                if again or turn == _TURNS or "Address already in use" not in self.log():
                    raise
            else:
                return

    def _launch(self) -> None:
        configuration = self.directory / "redis.conf"
        configuration.touch(mode=0o600)
        configuration.write_text("\n".join(self._directives()) + "\n")
        with (self.directory / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, str(configuration)],
                cwd=self.directory,
                env=child_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _directives(self) -> list[str]:
        lines = [
            "bind 127.0.0.1",
            "daemonize no",
            f"dir {self.directory}",
            f"unixsocket {self.directory}/control",
            "unixsocketperm 700",
            'save ""',
            f"appendonly {'yes' if self._durable else 'no'}",
            "appendfsync always",
            f"user control on >{self._control} ~* &* +@all",
        ]
        if self.tls is None:
            lines.append(f"port {self.port}")
        else:
            lines += [
                "port 0",
                f"tls-port {self.port}",
                f"tls-ca-cert-file {self.tls.ca_certificate}",
                f"tls-cert-file {self.tls.certificate}",
                f"tls-key-file {self.tls.private_key}",
                "tls-auth-clients optional",
            ]
        if self._users:
            lines.append("user default off")
        lines += [
            f"user {name} on >{password} {rules}" for name, (password, rules) in self._users.items()
        ]
        return lines + self._config

    def _wait_ready(self) -> None:
        give_up = time.monotonic() + _DEADLINE
        while True:
            assert self._process is not None
            if self._process.poll() is not None or time.monotonic() > give_up:
                raise BenchError(f"redis-server did not start:\n{self.log()[-2000:]}")
            with contextlib.suppress(OSError, BenchError):
                # While it reads its append-only file it answers LOADING.
                if self.command("PING") == "PONG":
                    return
            time.sleep(_POLL_SECONDS)

    def stop(self) -> None:
        """End it in order (SIGTERM). Harmless while it does not run."""
        if self._process is None:
            return
        self.resume()
        self._process.terminate()
        try:
            self._process.wait(_DEADLINE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def kill(self) -> None:
        """End it at once (SIGKILL). Harmless while it does not run."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        self._process = None
        self._stopped = False

    def pause(self) -> None:
        """SIGSTOP: the kernel goes on accepting connections and bytes, and nobody answers."""
        os.kill(self.pid, signal.SIGSTOP)
        self._stopped = True

    def resume(self) -> None:
        """SIGCONT. Harmless while it is not paused."""
        if self._process is not None and self._stopped:
            os.kill(self.pid, signal.SIGCONT)
        self._stopped = False

    def restart(self) -> None:
        """Kill it, and start it on the same port."""
        self.kill()
        self.start()

    def log(self) -> str:
        """What it has written."""
        path = self.directory / "redis.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def command(self, *words: str | bytes | int) -> Reply:
        """Send one command over the control connection, as a user that may do everything.

        Status lines are text, values bytes. Raises :class:`BenchError` for an error's answer, OSError
        where it does not answer within some seconds.
        """
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_DEADLINE)
            connection.connect(str(self.directory / "control"))
            connection.sendall(_encode("AUTH", "control", self._control) + _encode(*words))
            with connection.makefile("rb") as stream:
                _decode(stream)
                return _decode(stream)

    def close(self) -> None:
        """End the process and remove its directory. Harmless when repeated."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _encode(*words: str | bytes | int) -> bytes:
    """A command in RESP, https://redis.io/docs/latest/develop/reference/protocol-spec/."""
    packed = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(packed) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in packed)


def _decode(stream: BinaryIO) -> Reply:
    line = stream.readline()
    if not line.endswith(b"\r\n"):
        raise BenchError("redis-server closed the control connection")
    kind, rest = line[:1], line[1:-2]
    match kind:
        case b"+":
            return rest.decode()
        case b"-":
            raise BenchError(f"redis-server: {rest.decode()}")
        case b":":
            return int(rest)
        case b"$":
            return None if rest == b"-1" else stream.read(int(rest) + 2)[:-2]
        case b"*":
            return [_decode(stream) for _ in range(int(rest))]
    raise BenchError(f"redis-server answered {line!r}")
