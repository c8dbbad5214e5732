"""What signals do to a node process."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.integration.node_process import (
    ANY_HOST,
    DEADLINE,
    PHASES,
    NodeProcess,
    ask,
    boot_once,
    checkpoint_of,
)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_node_in_order(data: Path, number: signal.Signals) -> None:
    with NodeProcess(data) as node:
        node.wait_ready()
        assert (data / "run" / "node.json").exists()
        assert node.stop(number) == 0
        assert node.events("node_stopping")[0]["reason"] == number.name
        stopped = [event["name"] for event in node.events("component_stopped")]
    assert stopped[0] == "ready_signal"
    assert stopped.index("api") < stopped.index("database") < stopped.index("security")
    assert not (data / "run" / "node.json").exists()
    checkpoint = checkpoint_of(data)
    assert (checkpoint["checkpoint"], checkpoint["owed"]) == ("stopped", [])


@pytest.mark.parametrize("phase", PHASES)
def test_a_signal_during_the_boot_rolls_back_and_the_exit_is_clean(data: Path, phase: str) -> None:
    def on_event(node: NodeProcess, event: dict[str, Any]) -> None:
        if event["event"] == "phase_started" and event["phase"] == phase:
            node.send(signal.SIGTERM)

    with NodeProcess(data, on_event=on_event) as node:
        assert node.wait_exit() == 0, node.text()
        # In the last phase the node may have become READY before the signal was looked at.
        kinds = {event["event"] for event in node.events()}
        assert "rollback_started" in kinds or (phase == PHASES[-1] and "node_ready" in kinds)
        entered = {event["name"] for event in node.events("component_entered")}
        stopped = [event["name"] for event in node.events("component_stopped")]
    assert sorted(stopped) == sorted(entered)
    checkpoint = checkpoint_of(data)
    assert checkpoint["checkpoint"] in ("rolled_back", "stopped")
    assert boot_once(data).process.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_the_boot_began_ends_the_process_without_a_traceback(
    tmp_path: Path, number: signal.Signals
) -> None:
    data = tmp_path / "data"
    fifo = tmp_path / "node.yaml"
    os.mkfifo(fifo)
    with NodeProcess(data, "--config", str(fifo)) as node:
        # Once this opens, the node waits for its configuration and has not begun to boot.
        with fifo.open("w"):
            node.send(signal.SIGHUP)
            node.send(number)
            assert node.wait_exit() == 0
        assert "stopped before the boot began" in node.text()
        assert "Traceback" not in node.text()
    assert not data.exists()


def test_a_second_signal_forces_the_stop(data: Path) -> None:
    with NodeProcess(data) as node:
        address = node.wait_ready()["addresses"]["rest"]
        host, _, port = address.rpartition(":")
        # A request that never ends is what a stop waits for.
        with socket.create_connection((host, int(port)), DEADLINE) as client:
            client.sendall(b"POST /api/v1/tokens HTTP/1.1\r\nHost: n\r\nContent-Length: 9\r\n\r\n")
            node.send(signal.SIGTERM)
            node.wait_event("node_stopping")
            node.send(signal.SIGTERM)
            assert node.wait_exit() == 0, node.text()
    assert not (data / "run" / "node.json").exists()


def reloading(data: Path, tmp_path: Path, text: str) -> NodeProcess:
    path = tmp_path / "node.yaml"
    path.write_text(text)
    return NodeProcess(data, "--config", str(path), *ANY_HOST)


def test_sighup_applies_a_new_log_level(data: Path, tmp_path: Path) -> None:
    with reloading(data, tmp_path, "system: {log_level: info}\n") as node:
        node.wait_ready()
        assert not [record for record in node.log() if record["level"] == "debug"]
        (tmp_path / "node.yaml").write_text("system: {log_level: debug}\n")
        node.send(signal.SIGHUP)
        changed = node.wait_log("configuration reloaded")["changed"]
        assert changed == {"system.log_level": "debug"}
        (tmp_path / "node.yaml").write_text("system: {log_level: error}\n")
        node.send(signal.SIGHUP)
        # At level error the record of this reload is itself not logged: what follows is.
        (tmp_path / "node.yaml").write_text("system: {log_level: loud}\n")
        node.send(signal.SIGHUP)
        node.wait_log("the configuration was not reloaded")
        assert node.stop() == 0


def test_sighup_refuses_a_key_that_needs_a_restart_and_names_it(data: Path, tmp_path: Path) -> None:
    with reloading(data, tmp_path, "cache: {ttl: 300}\n") as node:
        node.wait_ready()
        (tmp_path / "node.yaml").write_text("database: {readers: 2}\nsystem: {log_level: debug}\n")
        node.send(signal.SIGHUP)
        record = node.wait_log("need a restart")
        assert "database.readers" in record["message"]
        assert record["level"] == "error"
        applied = node.wait_log("configuration reloaded")["changed"]
        assert applied == {"system.log_level": "debug"}
        # What was applied is what runs: taking it back is a change again.
        (tmp_path / "node.yaml").write_text("cache: {ttl: 300}\nsystem: {log_level: info}\n")
        node.send(signal.SIGHUP)
        second = node.wait_log("configuration reloaded", count=2)
        assert second["changed"] == {"system.log_level": "info"}
        assert node.stop() == 0


def test_sighup_with_an_invalid_file_changes_nothing(data: Path, tmp_path: Path) -> None:
    with reloading(data, tmp_path, "system: {log_level: info}\n") as node:
        address = node.wait_ready()["addresses"]["rest"]
        (tmp_path / "node.yaml").write_text("system: {log_level: debug, log_levle: x}\n")
        node.send(signal.SIGHUP)
        message = node.wait_log("the configuration was not reloaded")["message"]
        assert "system.log_levle" in message
        assert ask(address, "/readyz")[0] == 200
        assert not [record for record in node.log() if record["level"] == "debug"]
        assert node.stop() == 0
