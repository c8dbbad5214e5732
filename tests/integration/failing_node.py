"""A node process that is to fail: what is wrong around it, how it is run, what it said.

Everything lies below one directory of the test's own and every port is free or taken by the test
itself, so any number of these run side by side.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

REPOSITORY = Path(__file__).resolve().parents[2]
NODE_ID = "5f0c9e1a-7b3d-4c52-9a41-0d6e8f2b7c35"
"""Of every node here that is not told otherwise."""
ANOTHER_ID = "0b9d3c77-2e1f-4a86-8f5b-6c4a1d7e9023"
NOBODY = 65534
PATIENCE = 60.0
"""Seconds until a node that should have ended is killed: never met, it only ends a broken test."""

_AS_NOBODY = (
    "setpriv",
    "--reuid=nobody",
    "--regid=nogroup",
    "--clear-groups",
    # An ordinary user who may read everything: the interpreter and the checkout may well lie in
    # root's home. It changes nothing about what the user may write or bind.
    "--inh-caps=-all,+dac_read_search",
    "--ambient-caps=-all,+dac_read_search",
    "--bounding-set=-all,+dac_read_search",
)


class Outcome(NamedTuple):
    """How a node ended."""

    exit_code: int
    output: str
    """Both streams, in the order they were written in."""
    report: dict[str, Any]
    """What ``--report`` wrote; empty if it wrote nothing."""


class Scene:
    """What one failing node finds, and how it is started. Close :attr:`stack`."""

    def __init__(self, root: Path, lived: Callable[[str], Path], stack: ExitStack) -> None:
        self.root = root
        self.stack = stack
        self.data = root / "data"
        self.data_argument = True
        self.settings: dict[str, str] = {
            "api.port": "0",
            "network.port": "0",
            "monitoring.port": "0",
            "dwcp.amst.port": "0",
        }
        self.arguments: list[str] = []
        self.environment: dict[str, str] = {}
        self.prefix: tuple[str, ...] = ()
        self.package = REPOSITORY
        """The directory ``novacron/`` is imported from."""
        self._lived = lived

    def booted_before(self) -> Path:
        """Fill the data directory with what a node leaves that was READY once and stopped."""
        shutil.copytree(self._lived(NODE_ID), self.data)
        return self.data

    def another_booted_before(self) -> Path:
        """The data directory of a node with another identity; not to be changed."""
        return self._lived(ANOTHER_ID)

    def configuration(self, text: str, name: str = "node.yaml") -> Path:
        """A configuration file that the node is started with, instead of ``--set``."""
        path = self.root / name
        path.write_text(text)
        self.arguments += ["--config", str(path)]
        self.settings.clear()
        return path

    def as_nobody(self) -> None:
        """Run as an ordinary user, who gets the scene's directory for his own."""
        self.prefix = _AS_NOBODY
        os.chown(self.root, NOBODY, NOBODY)

    def without_privileges(self) -> None:
        """Run as root in name alone: what belongs to others is closed to it, as to any user."""
        self.prefix = ("setpriv", "--inh-caps=-all", "--bounding-set=-all")

    def on_file_system(self, options: str) -> None:
        """Run with a memory file system on the data directory, in a mount namespace of the node's
        own, so that nothing stays mounted whatever becomes of the test."""
        self.data.mkdir(exist_ok=True)
        self.prefix = (
            "unshare",
            "--mount",
            "sh",
            "-ec",
            'mount -t tmpfs -o "$1" tmpfs "$2"; shift 2; exec "$@"',
            "sh",
            options,
            str(self.data),
        )

    def command(self, *more: str) -> list[str]:
        words = [*self.prefix, sys.executable, "-m", "novacron.boot"]
        if self.data_argument:
            words += ["--data-dir", str(self.data)]
        for key, value in self.settings.items():
            words += ["--set", f"{key}={value}"]
        return [*words, *self.arguments, *more]

    def surroundings(self) -> dict[str, str]:
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.root),
            "LC_ALL": "C.UTF-8",
            "PYTHONPATH": str(self.package),
            # A process of another user could not write it, and must not have to.
            "PYTHONDONTWRITEBYTECODE": "1",
            **self.environment,
        }

    def run(self, report: Path | None = None) -> Outcome:
        """Boot, and end when READY if it comes to that. *report*: for ``--report``."""
        report = report or self.root / "report.json"
        done = subprocess.run(
            self.command("--exit-when-ready", "--report", str(report)),
            cwd=self.root,
            env=self.surroundings(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=PATIENCE,
            check=False,
        )
        written: dict[str, Any] = json.loads(report.read_bytes()) if report.exists() else {}
        return Outcome(done.returncode, done.stdout.decode(), written)


Words = Mapping[str, object]


class Cause(NamedTuple):
    """One way a boot goes wrong, and what an operator must be told.

    The exit code also says where in the report: 1 and 78 in ``failure``, 3 in ``degraded``, 0 in
    ``warnings``. The texts are parts of the message; ``{name}`` stands for what *provoke* returned
    by that name, ``{data}`` for the data directory and ``{root}`` for the scene's. *key* is the
    whole key, empty where no configuration key is concerned.
    """

    name: str
    provoke: Callable[[Scene], Words | None]
    exit_code: int
    what: str
    why: str
    remedy: str
    key: str = ""

    def filled(self, words: Words) -> Cause:
        """With every ``{name}`` replaced."""
        what, why, remedy = (text.format(**words) for text in (self.what, self.why, self.remedy))
        return self._replace(what=what, why=why, remedy=remedy)


def joined(text: str) -> str:
    """*text* as it was before it was wrapped into lines."""
    return " ".join(text.split())
