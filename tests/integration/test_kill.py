"""A real node killed with SIGKILL, anywhere: the next boot ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from novacron.boot.checkpoint import CHECKPOINTS
from novacron.cli import main
from novacron.data_directory import DataDirectory
from tests.integration.node_process import Event, NodeProcess, boot_once

SHARDS, KILLS = 8, 25
"""200 random moments, in parts that two workers can share."""


@dataclass(frozen=True)
class Reference:
    """A directory that booted twice undisturbed, and how long that took."""

    data: Path
    first_seconds: float
    again_seconds: float
    starting_seconds: float
    """Of each boot, before the engine starts: interpreter and imports."""


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    data = tmp_path_factory.mktemp("undisturbed") / "data"
    ready = []
    for _ in range(2):
        node = boot_once(data)
        assert node.process.returncode == 0, node.text()
        [started], [event] = node.events("boot_started"), node.events("node_ready")
        ready.append(event["at"])
    return Reference(data, ready[0], ready[1], started["at"])


def schema(data: DataDirectory) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(f"file:{data.database / 'novacron.db'}?mode=ro", uri=True)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        return connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY 2").fetchall()
    finally:
        connection.close()


def files(data: Path) -> set[str]:
    """Which files a stopped node left, reports aside: each boot leaves one of its own."""
    return {
        str(path.relative_to(data))
        for path in data.rglob("*")
        if path.is_file() and path.parent.name != "reports"
    }


def age_leftovers(data: Path) -> None:
    """Half-written files next to secrets are removed an hour later, lest the command line is just
    writing one: let that hour pass."""
    for path in data.rglob(".*.tmp"):
        os.utime(path, (0, 0))


def identity(data: Path) -> str | None:
    try:
        node_id: str = json.loads((data / "identity.json").read_bytes())["node_id"]
    except FileNotFoundError:
        return None
    return node_id


class Checker:
    def __init__(self, reference: Reference, capsys: pytest.CaptureFixture[str]) -> None:
        self.reference = reference
        self.capsys = capsys

    def command(self, data: Path, *arguments: str) -> Any:
        self.capsys.readouterr()
        code = main([*arguments, "--data-dir", str(data), "--json"])
        shown = self.capsys.readouterr()
        assert code == 0, shown.err + shown.out
        return json.loads(shown.out)

    def boots_as_if_nothing_had_been(self, data: Path, what: str) -> None:
        """Boot the killed node on *data* again and compare its final state."""
        before = identity(data)
        age_leftovers(data)
        report_file = data.parent / "report.json"
        node = boot_once(data, "--report", str(report_file))
        assert node.process.returncode == 0, f"{what}\n{node.text()}{node.output()}"
        report = json.loads(report_file.read_bytes())
        assert report["degraded"] == [], what
        assert not any("damaged" in text for text in report["warnings"]), (what, report["warnings"])
        recovered = report["recovered"] or {"undone": [], "failures": []}
        assert recovered["failures"] == [], what
        assert len(recovered["undone"]) <= 1, (what, recovered)

        directory = DataDirectory(data)
        assert before is None or identity(data) == before, what
        assert schema(directory) == schema(DataDirectory(self.reference.data)), what
        assert files(data) == files(self.reference.data), what
        checkpoint = json.loads((directory.boot / "checkpoint.json").read_bytes())["body"]
        assert (checkpoint["checkpoint"], checkpoint["owed"]) == ("stopped", []), what
        assert (directory.boot / "undo.journal").read_bytes() == b"end 00000000\n", what
        assert self.command(data, "audit", "verify")["ok"] is True, what

    def keys_open(self, data: Path, what: str) -> None:
        """What was encrypted before can be read: keyring, certificate and token belong together."""
        keys = self.command(data, "keys", "status")
        assert keys, what
        certificate = self.command(data, "certificate", "show")
        assert certificate["node_id"] == identity(data), what
        tokens = self.command(data, "token", "list")["tokens"]
        assert [token["state"] for token in tokens] == ["active"], what


@pytest.fixture
def checker(reference: Reference, capsys: pytest.CaptureFixture[str]) -> Checker:
    return Checker(reference, capsys)


def kill_at(wanted: Callable[[Event], bool]) -> Callable[[NodeProcess, Event], None]:
    def on_event(node: NodeProcess, event: Event) -> None:
        if wanted(event):
            node.send(signal.SIGKILL)

    return on_event


@pytest.mark.parametrize("booted", [False, True], ids=["first boot", "booted before"])
@pytest.mark.parametrize("checkpoint", [*CHECKPOINTS, "stopped"])
def test_a_node_killed_at_a_checkpoint_boots_again(
    tmp_path: Path, reference: Reference, checker: Checker, checkpoint: str, booted: bool
) -> None:
    data = tmp_path / "data"
    if booted:
        shutil.copytree(reference.data, data)

    def written(event: Event) -> bool:
        return (event["event"], event.get("name")) == ("checkpoint_written", checkpoint)

    with NodeProcess(data, "--exit-when-ready", on_event=kill_at(written)) as node:
        # The last checkpoint is the last thing a process does: it may have ended by itself.
        code = node.wait_exit()
        assert code == -signal.SIGKILL or (checkpoint == "stopped" and code == 0)
    found = json.loads((data / "boot" / "checkpoint.json").read_bytes())["body"]["checkpoint"]
    names = [*CHECKPOINTS, "stopped"]
    assert names.index(found) >= names.index(checkpoint)
    checker.boots_as_if_nothing_had_been(data, f"killed at {checkpoint}")
    checker.keys_open(data, checkpoint)


@pytest.mark.parametrize("phase", ["pre_init", "core", "services", "post_init"])
def test_a_node_killed_while_it_writes_a_checkpoint_boots_again(
    tmp_path: Path, checker: Checker, phase: str
) -> None:
    data = tmp_path / "data"

    def finished(event: Event) -> bool:
        return (event["event"], event.get("phase")) == ("phase_finished", phase)

    with NodeProcess(data, on_event=kill_at(finished)) as node:
        assert node.wait_exit() == -signal.SIGKILL
    checker.boots_as_if_nothing_had_been(data, f"killed after {phase}")
    checker.keys_open(data, phase)


def test_a_running_node_that_is_killed_leaves_a_registration_that_the_next_boot_removes(
    tmp_path: Path, checker: Checker
) -> None:
    data, ready_file = tmp_path / "data", tmp_path / "ready.json"
    with NodeProcess(data, "--ready-file", str(ready_file)) as node:
        node.wait_ready()
        boot_id = node.wait_event("boot_started")["boot_id"]
        node.send(signal.SIGKILL)
        assert node.wait_exit() == -signal.SIGKILL
    assert (data / "run" / "node.json").exists()
    assert ready_file.exists()
    checker.boots_as_if_nothing_had_been(data, "killed while it ran")

    assert not (data / "run" / "node.json").exists()
    recovered = json.loads((tmp_path / "report.json").read_bytes())["recovered"]
    assert recovered == {
        "boot_id": boot_id,
        "checkpoint": "init_complete",
        "undone": [{"component": "discovery", "kind": "remove_run_file"}],
        "failures": [],
    }
    # The second node was not told of the ready file; the first one's is replaced when it is.
    boot_once(data, "--ready-file", str(ready_file))
    assert not ready_file.exists()


@pytest.mark.parametrize("shard", range(SHARDS))
def test_a_node_killed_at_random_moments_boots_again(
    tmp_path: Path, reference: Reference, checker: Checker, shard: int
) -> None:
    rng = random.Random(shard)
    old = tmp_path / "old"
    shutil.copytree(reference.data, old / "data")
    for number in range(KILLS):
        fresh = number % 5 < 2
        data = (tmp_path / f"fresh{number}" if fresh else old) / "data"
        data.parent.mkdir(exist_ok=True)
        span = reference.first_seconds if fresh else reference.again_seconds
        # Nothing is on disk before the engine runs, so most moments are after that.
        early = rng.random() < 0.15
        if early:
            delay = rng.uniform(0.0, reference.starting_seconds)
        else:
            # Each was measured once, and on a busy machine starting may have been the slow one.
            rest = max(span - reference.starting_seconds, span / 4)
            delay = rng.uniform(0.0, 1.2 * rest)
        with NodeProcess(data) as node:
            if not early:
                node.wait_event("boot_started")
            time.sleep(delay)
            node.send(signal.SIGKILL)
            assert node.wait_exit() == -signal.SIGKILL
            last = node.events()[-1:]
        what = f"kill {number} of shard {shard}: {'first' if fresh else 'later'} boot, after {last}"
        checker.boots_as_if_nothing_had_been(data, what)
        if fresh or number == KILLS - 1:
            checker.keys_open(data, what)
        if fresh:
            shutil.rmtree(data.parent)
