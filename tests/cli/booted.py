"""A data directory as a node leaves it, and the command run on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from novacron.cli import main
from novacron.data_directory import DataDirectory
from novacron.durable import write_durably
from novacron.environment.identity import encode_identity
from novacron.units import NodeId
from tests.security.stand_ins import NODE_ID, make_security


class Booted:
    """One node's data, and ``novacron`` with its ``--data-dir``."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.directory = DataDirectory(root)
        self.capsys = capsys
        root.mkdir(mode=0o700, exist_ok=True)
        write_durably(self.directory.identity, encode_identity(NodeId(NODE_ID), 1_800_000_000.0))
        security, _ = make_security(root)
        security._open(NODE_ID)
        security.audit.append_blocking("node.start", f"node:{NODE_ID}", "node")
        security.audit.close_blocking()
        self.security = security

    def run(self, *arguments: str, fails: int = 0) -> str:
        """What the command prints on standard output; on standard error when it *fails*."""
        status = main([*arguments, "--data-dir", str(self.directory.root)])
        shown = self.capsys.readouterr()
        assert status == fails, shown.err
        if fails and shown.err:
            return shown.err + shown.out
        assert shown.err == ""
        return shown.out

    def json(self, *arguments: str, fails: int = 0) -> Any:
        return json.loads(self.run(*arguments, "--json", fails=fails))

    def actions(self) -> list[str]:
        return [record["action"] for record in self.json("audit", "show")["records"]]
