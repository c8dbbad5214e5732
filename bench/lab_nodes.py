"""Whole nodes in namespaces of a laboratory, which trust each other, and their REST interfaces."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench.authority import Authority
from bench.harness import ROOT, BenchError, child_environment, python
from bench.lab.netns import Namespace

_DEADLINE = 60.0
"""Seconds for a start, many times what it takes; and for what a node is asked."""
_POLL_SECONDS = 0.05
_FIRST_PORT = 7400
_PORTS = ("api", "network", "monitoring", "dwcp.amst")


@dataclass(frozen=True, slots=True)
class Site:
    """Where a node lives. Nodes of one namespace need different numbers."""

    namespace: Namespace
    address: str
    number: int = 0
    settings: Mapping[str, str] = field(default_factory=dict)
    """Configuration keys and what they are set to."""


class LabNode:
    """A node that has become READY; a context manager, whose end is the node's."""

    def __init__(self, root: Path, authority: Authority, site: Site) -> None:
        """Starts it, without waiting, with its files in *root*, a directory of its own."""
        self._site = site
        self.id = str(uuid.uuid4())
        self.data = root / "data"
        first = _FIRST_PORT + 10 * site.number
        self._ports = {name: first + number for number, name in enumerate(_PORTS)}
        certificate, key = authority.issue(f"urn:novacron:node:{self.id}")
        for name, content in (
            ("ca.pem", authority.certificate),
            ("node.pem", certificate),
            ("node.key", key),
        ):
            (root / name).write_bytes(content)
            (root / name).chmod(0o600)
        configuration = {
            "system": {"node_id": self.id, "data_dir": str(self.data)},
            "security": {
                "ca_certificate": str(root / "ca.pem"),
                "certificate": str(root / "node.pem"),
                "private_key": f"file:{root / 'node.key'}",
            },
        }
        (root / "node.json").write_text(json.dumps(configuration))
        settings = {
            "network.listen_address": site.address,
            "resources.enforce": "warn",
            **{f"{name}.port": str(port) for name, port in self._ports.items()},
            **site.settings,
        }
        self._ready_file = root / "ready.json"
        command = python("-m", "novacron.boot", "--config", str(root / "node.json"))
        command += ["--ready-file", str(self._ready_file)]
        for key_name, value in settings.items():
            command += ["--set", f"{key_name}={value}"]
        self._log = (root / "node.log").open("wb")
        self._process = subprocess.Popen(
            site.namespace.command(command),
            cwd=ROOT,
            env=child_environment(HOME=str(root)),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()

    @property
    def data_port(self) -> int:
        """Where others' data connections come in."""
        return self._ports["dwcp.amst"]

    @property
    def peer(self) -> str:
        """Its peer listener, as other nodes dial it."""
        return f"{self._site.address}:{self._ports['network']}"

    def wait_ready(self) -> None:
        """Raises BenchError where it does not become READY."""
        give_up = time.monotonic() + _DEADLINE
        while not self._ready_file.exists():
            if self._process.poll() is not None or time.monotonic() > give_up:
                raise BenchError(f"a node did not become READY:\n{self._said()}")
            time.sleep(_POLL_SECONDS)

    def ask(self, path: str, body: object = None) -> Any:
        """What its REST interface answers: to GET, or to POST where there is a *body*.

        Raises:
          BenchError: it refuses, or does not answer.
        """
        token = (self.data / "secrets" / "admin.token").read_text().strip()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        text = None if body is None else json.dumps(body)
        # Connected here, since only a socket that is made in the namespace belongs to it.
        client = http.client.HTTPConnection("127.0.0.1", self._ports["api"], timeout=_DEADLINE)
        try:
            with self._site.namespace.entered():
                client.connect()
            client.request("GET" if body is None else "POST", f"/api/v1/{path}", text, headers)
            answer = client.getresponse()
            content = answer.read()
        except OSError as exc:
            raise BenchError(f"a node does not answer: {path}: {exc}\n{self._said()}") from exc
        finally:
            client.close()
        if answer.status >= 300:
            raise BenchError(f"a node refused {path}: {content.decode(errors='replace')}")
        return json.loads(content)

    def send(self, path: Path, other: LabNode, name: str) -> str:
        """Begin to send a file to *other*; the transfer's id."""
        wanted = {"direction": "send", "node": other.peer, "paths": [str(path)], "path": name}
        return str(self.ask("transfers", wanted)["id"])

    def received_bytes(self) -> int:
        """What came in over all its links so far, counted as it is read, with headers and tags (below
        0.1 %) and without what came twice."""
        counters = [link["counters"] for link in self.links()]
        return sum(one["wire_received_bytes"] - one["duplicate_bytes"] for one in counters)

    def links(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask("dwcp")["links"]
        return found

    def _said(self) -> str:
        return Path(self._log.name).read_text(errors="replace")[-3000:]


@contextlib.contextmanager
def nodes(directory: Path, *sites: Site) -> Iterator[list[LabNode]]:
    """A fresh node at each of *sites*, READY, with its files below *directory*; killed and its files
    removed at the end.

    Raises:
      BenchError: one does not start.
    """
    authority = Authority()
    with contextlib.ExitStack() as stack:
        started = []
        for site in sites:
            root = stack.enter_context(tempfile.TemporaryDirectory(prefix="node-", dir=directory))
            started.append(stack.enter_context(LabNode(Path(root), authority, site)))
        for node in started:
            node.wait_ready()
        yield started
