"""Nodes on this machine that make an authority and join it by the command, as their users would."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

from bench.processes import free_port
from tests.integration.node_process import ANY_HOST, DEADLINE, REPOSITORY, NodeProcess
from tests.integration.two_nodes import SECTIONS


class Machine:
    """A data directory, ports that stay, and the node while it runs."""

    def __init__(self, root: Path, name: str, **settings: str) -> None:
        self.data = root / name
        self.ports = {section: free_port() for section in SECTIONS}
        self.settings = {"api.tls": "on", **settings}
        self.process: NodeProcess | None = None

    @property
    def peer(self) -> str:
        return f"127.0.0.1:{self.ports['network']}"

    @property
    def rest(self) -> str:
        return f"127.0.0.1:{self.ports['api']}"

    @property
    def id(self) -> str:
        found: str = json.loads((self.data / "identity.json").read_bytes())["node_id"]
        return found

    def _options(self) -> list[str]:
        settings = {f"{section}.port": str(port) for section, port in self.ports.items()}
        pairs = {**settings, **self.settings}.items()
        return [part for key, value in pairs for part in ("--set", f"{key}={value}")]

    def start(self, *seeds: Machine) -> NodeProcess:
        options = self._options()
        if seeds:
            listed = json.dumps([seed.peer for seed in seeds])
            options += ["--set", f"network.seeds={listed}"]
        self.process = NodeProcess(self.data, *ANY_HOST, *options, ports=())
        self.process.wait_ready()
        return self.process

    def kill(self) -> None:
        if self.process is not None:
            self.process.__exit__(None, None, None)
            self.process = None

    def command(self, *arguments: str) -> list[str]:
        options = ["--data-dir", str(self.data), *self._options()]
        return [sys.executable, "-m", "novacron", *arguments, *options]

    def run(self, *arguments: str, fails: int = 0) -> str:
        """What the command prints on standard output; on standard error where it *fails*."""
        done = subprocess.run(
            self.command(*arguments),
            capture_output=True,
            text=True,
            cwd=REPOSITORY,
            timeout=DEADLINE,
        )
        assert done.returncode == fails, (done.stdout, done.stderr)
        return done.stderr if fails else done.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "--json"))

    def token(self, *options: str) -> str:
        return self.run("token", "create", "--role", "node", "--ttl", "10m", *options).strip()

    def join(self, authority: Machine, *options: str) -> Any:
        return self.json("join", authority.rest, "--token", authority.token(), *options)

    def ask(self, path: str) -> Any:
        """The answer of its REST interface, for what is asked often."""
        token = (self.data / "secrets" / "admin.token").read_text().strip()
        request = urllib.request.Request(
            f"https://{self.rest}/api/v1/{path}", headers={"Authorization": f"Bearer {token}"}
        )
        context = ssl.create_default_context(cafile=self.data / "pki" / "ca.pem")
        with urllib.request.urlopen(request, timeout=DEADLINE, context=context) as answer:
            return json.loads(answer.read())

    def peers(self) -> dict[str, str]:
        """Node to state of its session."""
        return {peer["node_id"]: peer["state"] for peer in self.json("peers")["peers"]}
