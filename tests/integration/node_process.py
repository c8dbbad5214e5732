"""A node as a process of its own, started as its user would start it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

DEADLINE = 60.0
"""Seconds for anything a node is waited for; a hundred times what it takes on a quiet machine."""
FREE_PORTS = tuple(
    argument
    for key in ("api.port", "network.port", "monitoring.port", "dwcp.amst.port")
    for argument in ("--set", f"{key}=0")
)
# With a configuration file a host below the minimum is refused, and this one may be.
ANY_HOST = ("--set", "resources.enforce=warn")
PHASES = ["pre_init", "core", "services", "post_init"]
REPOSITORY = Path(__file__).resolve().parents[2]

Event = dict[str, Any]


class NodeProcess:
    """``python -m novacron.boot`` on *data*, its output collected as it comes.

    *on_event* is called in another thread with each event the moment it is printed; it needs
    ``--log-format json``, which is the default here. *module* is run instead, with its own first
    arguments. Leaving the context kills what still runs.
    """

    def __init__(
        self,
        data: Path,
        *arguments: str,
        ports: tuple[str, ...] = FREE_PORTS,
        log_format: str | None = "json",
        environment: Mapping[str, str] | None = None,
        repository: Path = REPOSITORY,
        module: tuple[str, ...] = ("novacron.boot",),
        on_event: Callable[[NodeProcess, Event], None] | None = None,
    ) -> None:
        self.data = data
        self.stdout: list[str] = []
        self.stderr: list[str] = []
        self._on_event = on_event
        self._changed = threading.Condition()
        command = [sys.executable, "-m", *module, "--data-dir", str(data), *ports]
        if log_format is not None:
            command += ["--log-format", log_format]
        self.process = subprocess.Popen(
            [*command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=repository,
            env={**os.environ, "HOME": str(data.parent), **(environment or {})},
        )
        self._readers = [
            threading.Thread(target=self._read, args=(stream, lines))
            for stream, lines in (
                (self.process.stdout, self.stdout),
                (self.process.stderr, self.stderr),
            )
        ]
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> NodeProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._join()

    @property
    def pid(self) -> int:
        return self.process.pid

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def events(self, kind: str | None = None) -> list[Event]:
        with self._changed:
            events = [json.loads(line) for line in self.stdout if line.startswith("{")]
        return [event for event in events if kind in (None, event.get("event"))]

    def log(self) -> list[Event]:
        """The log records on standard error."""
        with self._changed:
            return [json.loads(line) for line in self.stderr if line.startswith("{")]

    def text(self) -> str:
        """Everything on standard error."""
        with self._changed:
            return "".join(self.stderr)

    def output(self) -> str:
        with self._changed:
            return "".join(self.stdout)

    def wait_event(self, kind: str, **fields: Any) -> Event:
        """The first event of that kind with those fields."""

        def found() -> list[Event]:
            return [e for e in self.events(kind) if all(e.get(k) == v for k, v in fields.items())]

        return self._wait(found, f"event {kind} {fields}")[0]

    def wait_log(self, text: str, count: int = 1) -> Event:
        """The log record number *count* whose message holds *text*."""

        def found() -> list[Event]:
            records = [record for record in self.log() if text in record["message"]]
            return records[count - 1 :]

        return self._wait(found, f"log {text!r}")[0]

    def wait_ready(self) -> Event:
        return self.wait_event("node_ready")

    def wait_exit(self) -> int:
        """The exit status; negative, a signal's number."""
        try:
            code = self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the node does not end:\n{self.text()}{self.output()}") from None
        self._join()
        return code

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.send(number)
        return self.wait_exit()

    def _wait(self, found: Callable[[], list[Event]], what: str) -> list[Event]:
        give_up = time.monotonic() + DEADLINE
        while not (result := found()):
            ended = not any(reader.is_alive() for reader in self._readers)
            if (ended and not found()) or time.monotonic() > give_up:
                raise AssertionError(
                    f"no {what}; exit {self.process.poll()}:\n{self.text()}{self.output()}"
                )
            with self._changed:
                self._changed.wait(0.1)
        return result

    def _read(self, stream: Any, lines: list[str]) -> None:
        for line in stream:
            if self._on_event is not None and line.startswith('{"time"') and '"event"' in line:
                self._on_event(self, json.loads(line))
            with self._changed:
                lines.append(line)
                self._changed.notify_all()

    def _join(self) -> None:
        for reader in self._readers:
            reader.join(DEADLINE)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()


def boot_once(data: Path, *arguments: str, **options: Any) -> NodeProcess:
    """A node that was booted, stopped once READY, and has ended."""
    with NodeProcess(data, "--exit-when-ready", *arguments, **options) as node:
        node.wait_exit()
    return node


def kept_report(data: Path) -> Event:
    """The newest boot report in the data directory."""
    newest = max((data / "boot" / "reports").glob("*.json"), key=lambda path: path.name)
    report: Event = json.loads(newest.read_bytes())
    return report


def checkpoint_of(data: Path) -> dict[str, Any]:
    """The newest checkpoint."""
    return body_of(data / "boot" / "checkpoint.json")


def known_good(data: Path) -> dict[str, Any]:
    return body_of(data / "boot" / "last-known-good.json")


def body_of(path: Path) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(path.read_bytes())["body"]
    return body


def tree(root: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path): (path.stat().st_mtime_ns, path.stat().st_size)
        for path in [root, *root.rglob("*")]
    }


def contents(data: Path) -> dict[str, bytes]:
    """What a second node might spoil; a running node itself goes on writing log and database."""
    kept = [data / "lock", data / "identity.json"]
    for name in ("boot", "run", "secrets", "pki"):
        kept += [path for path in (data / name).rglob("*") if path.is_file()]
    return {str(path): path.read_bytes() for path in kept}


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end; for the modes that boot nothing."""
    return subprocess.run(
        [sys.executable, "-m", "novacron.boot", *arguments],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        check=False,
    )


@contextmanager
def taken_port() -> Iterator[int]:
    """A port that this process listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def ask(address: str, path: str) -> tuple[int, Any]:
    with urllib.request.urlopen(f"http://{address}{path}", timeout=DEADLINE) as answer:
        return answer.status, answer.read()


def wait_until(condition: Callable[[], bool], *, every: float = 0.01) -> None:
    """*every*: seconds; more than the default where a node is asked, which limits its callers."""
    give_up = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(every)
