"""Two nodes of one authority on this machine, and the command run at either of them."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.processes import free_port
from tests.integration.node_process import ANY_HOST, DEADLINE, REPOSITORY, NodeProcess
from tests.security.issuing import OutsideAuthority, key_pem, pem, write_private

SECTIONS = ("api", "network", "monitoring", "dwcp.amst")


class LocalNode:
    """One of them: files, ports that stay over a restart, and the process while it runs."""

    def __init__(self, root: Path, name: str, authority: OutsideAuthority) -> None:
        self.id = str(uuid.uuid4())
        self.data = root / name
        self.transfers = self.data / "transfers"
        self.process: NodeProcess | None = None
        self.settings: dict[str, str] = {}
        self.repository = REPOSITORY
        certificate, key = authority.issue([f"urn:novacron:node:{self.id}"])
        write_private(root / f"{name}.pem", pem(certificate))
        write_private(root / f"{name}.key", key_pem(key))
        self.ports = {section: free_port() for section in SECTIONS}
        self.configuration = root / f"{name}.json"
        security = {
            "ca_certificate": str(root / "ca.pem"),
            "certificate": str(root / f"{name}.pem"),
            "private_key": f"file:{root / name}.key",
        }
        content = {
            "system": {"node_id": self.id, "data_dir": str(self.data)},
            "security": security,
        }
        self.configuration.write_text(json.dumps(content))

    @property
    def peer(self) -> str:
        return f"127.0.0.1:{self.ports['network']}"

    def start(self) -> NodeProcess:
        process = self.launch()
        process.wait_ready()
        return process

    def launch(self) -> NodeProcess:
        """Begin to start it."""
        changes = {f"{section}.port": str(port) for section, port in self.ports.items()}
        arguments = [
            argument
            for key, value in {**changes, **self.settings}.items()
            for argument in ("--set", f"{key}={value}")
        ]
        self.process = NodeProcess(
            self.data,
            *ANY_HOST,
            *arguments,
            "--config",
            str(self.configuration),
            ports=(),
            repository=self.repository,
        )
        return self.process

    def kill(self) -> None:
        """As a crash would."""
        assert self.process is not None
        self.process.__exit__(None, None, None)

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "novacron", *arguments, "--config", str(self.configuration)]

    def run(self, *arguments: str, fails: int = 0) -> str:
        """What the command prints on standard output; on standard error where it *fails*."""
        done = subprocess.run(
            self.command(*arguments),
            capture_output=True,
            text=True,
            cwd=REPOSITORY,
            timeout=DEADLINE,
        )
        assert done.returncode == fails, (done.stdout, done.stderr, self._said())
        return done.stderr if fails else done.stdout

    def start_command(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
        )

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "--json"))

    def ask(self, path: str) -> Any:
        """The answer of its REST interface, for what is asked often."""
        token = (self.data / "secrets" / "admin.token").read_text().strip()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.ports['api']}/api/v1/{path}",
            headers={"Authorization": f"Bearer {token}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as exc:
            raise AssertionError((path, exc.code, exc.read(), self._said())) from exc

    def wait_transfer(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The newest transfer, once it is as *wanted*."""
        give_up = time.monotonic() + DEADLINE
        while True:
            found: list[dict[str, Any]] = self.ask("transfers")["transfers"]
            if found and wanted(found[0]):
                return found[0]
            assert time.monotonic() < give_up, (found[:1], self._said())
            time.sleep(0.1)

    def _said(self) -> str:
        return self.process.text()[-4000:] if self.process is not None else ""


Pair = tuple[LocalNode, LocalNode]


def start_both(*nodes: LocalNode) -> None:
    for process in [node.launch() for node in nodes]:
        process.wait_ready()


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def left_over(directory: Path) -> list[str]:
    return [path.name for path in directory.rglob("*.novacron-part")]


@contextmanager
def two_nodes(root: Path) -> Iterator[tuple[LocalNode, LocalNode]]:
    """Not started yet; killed at the end."""
    authority = OutsideAuthority("cluster")
    (root / "ca.pem").write_bytes(pem(authority.certificate))
    nodes = LocalNode(root, "one", authority), LocalNode(root, "two", authority)
    try:
        yield nodes
    finally:
        for node in nodes:
            if node.process is not None:
                node.kill()


def sparse_image(path: Path, size: int, *blocks: tuple[int, int]) -> Path:
    """A file of *size* bytes that is empty but for random *blocks* of (offset, length)."""
    with path.open("wb") as file:
        file.truncate(size)
        for offset, length in blocks:
            file.seek(offset)
            file.write(os.urandom(length))
    return path
