"""What a node process prints, writes, announces and ends with."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.integration.node_process import (
    DEADLINE,
    FREE_PORTS,
    PHASES,
    REPOSITORY,
    NodeProcess,
    ask,
    boot_once,
    checkpoint_of,
    command,
    contents,
    kept_report,
    known_good,
    taken_port,
    wait_until,
)


def test_the_ready_file_holds_exactly_what_scripts_are_promised_and_goes_with_the_node(
    data: Path, tmp_path: Path
) -> None:
    ready_file = tmp_path / "ready.json"
    ready_file.write_text("of an earlier node")
    with NodeProcess(data, "--ready-file", str(ready_file)) as node:
        event = node.wait_ready()
        document = json.loads(ready_file.read_bytes())
        assert set(document) == {"pid", "boot_id", "seconds", "state", "degraded", "addresses"}
        assert set(document["addresses"]) == {"rest", "metrics", "peer", "dwcp"}
        assert document["pid"] == node.pid
        assert document["boot_id"] == node.wait_event("boot_started")["boot_id"]
        assert document["seconds"] == event["seconds"] > 0
        assert (document["state"], document["degraded"]) == ("ready", [])
        assert document["addresses"] == event["addresses"]
        assert node.stop() == 0
    assert not ready_file.exists()


def test_port_zero_is_a_free_one_and_what_is_announced_answers(data: Path) -> None:
    with NodeProcess(data) as node:
        addresses = node.wait_ready()["addresses"]
        ports = [address.rpartition(":")[2] for address in addresses.values()]
        assert "0" not in ports
        assert len(set(ports)) == 4
        assert ask(addresses["rest"], "/readyz")[0] == 200
        status, metrics = ask(addresses["metrics"], "/metrics")
        assert status == 200
        assert b"novacron_boot_phase_seconds" in metrics
        host, _, port = addresses["peer"].rpartition(":")
        socket.create_connection((host, int(port)), DEADLINE).close()
        assert node.stop() == 0


def test_a_ready_file_that_cannot_be_written_fails_the_boot(data: Path, tmp_path: Path) -> None:
    node = boot_once(data, "--ready-file", str(tmp_path / "nowhere" / "ready.json"))

    assert node.process.returncode == 1
    assert "--ready-file" in node.events("boot_failed")[0]["failure"]["remedy"]


def test_every_line_of_json_output_is_an_event_and_every_line_of_the_log_a_record(
    data: Path,
) -> None:
    node = boot_once(data)
    events = [json.loads(line) for line in node.stdout]
    records = [json.loads(line) for line in node.stderr]

    assert {"time", "event", "at"} <= set.intersection(*map(set, events))
    assert [e["phase"] for e in events if e["event"] == "phase_finished"] == PHASES
    assert events[0]["event"] == "boot_started"
    assert (events[-1]["event"], events[-1]["code"]) == ("node_stopped", 0)
    assert [event["at"] for event in events] == sorted(event["at"] for event in events)
    assert records
    assert {"time", "level", "logger", "message"} <= set.intersection(*map(set, records))
    assert {record["boot_id"] for record in records} == {events[0]["boot_id"]}


def test_plain_output_ends_in_a_summary_with_seconds_addresses_and_places(data: Path) -> None:
    node = boot_once(data, log_format=None)

    assert node.process.returncode == 0
    shown = node.output() + node.text()
    assert "READY" in shown
    assert "\x1b[" not in shown
    assert str(data) in shown.replace("\n", "")
    addresses = kept_report(data)["addresses"]
    assert all(address in shown for address in addresses.values())


@pytest.mark.parametrize("log_format", ["plain", "json"])
def test_a_reader_that_has_seen_enough_does_not_end_the_node(data: Path, log_format: str) -> None:
    arguments = [sys.executable, "-m", "novacron.boot", "--data-dir", str(data), *FREE_PORTS]
    with subprocess.Popen(
        [*arguments, "--log-format", log_format, "--ready-file", str(data / "ready.json")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=REPOSITORY,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline()
            process.stdout.close()
            wait_until((data / "ready.json").exists)
            address = json.loads((data / "ready.json").read_bytes())["addresses"]["rest"]
            assert ask(address, "/livez")[0] == 200
            process.terminate()
            assert process.wait(DEADLINE) == 0
        finally:
            process.kill()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--no-such-option"],
        ["--boot", "-1"],
        ["--check", "--plan"],
        ["--analyze", "guess"],
        ["-o", "x"],
        ["--json"],
    ],
)
def test_wrong_usage_is_exit_2_and_shows_the_usage(arguments: list[str], tmp_path: Path) -> None:
    done = command(*arguments, HOME=str(tmp_path))

    assert done.returncode == 2
    assert done.stderr.startswith("usage: ")
    assert list(tmp_path.iterdir()) == []


def test_an_invalid_configuration_is_exit_78_with_a_report_and_nothing_touched(
    tmp_path: Path,
) -> None:
    report_file = tmp_path / "report.json"
    node = boot_once(
        tmp_path / "data", "--set", "api.prot=1", "--report", str(report_file), log_format=None
    )

    assert node.process.returncode == 78
    assert "api.prot" in node.text()
    assert "api.port" in node.text()
    assert "Traceback" not in node.text()
    report = json.loads(report_file.read_bytes())
    assert report["state"] == "failed"
    assert "api.prot" in json.dumps(report["failure"])
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_the_report_of_a_boot_that_succeeded_is_the_one_that_is_kept(
    data: Path, tmp_path: Path
) -> None:
    report_file = tmp_path / "report.json"
    node = boot_once(data, "--report", str(report_file))
    report = json.loads(report_file.read_bytes())
    kept = kept_report(data)
    kept.pop("checksum")

    assert node.process.returncode == 0
    assert report == kept
    assert [phase["name"] for phase in report["phases"]] == PHASES
    assert report["pid"] == node.pid


def test_a_locked_data_directory_is_exit_1_with_a_report_that_names_the_holder(
    data: Path, tmp_path: Path
) -> None:
    report_file = tmp_path / "report.json"
    with NodeProcess(data) as first:
        first.wait_ready()
        # A node keeps its report and its configuration after it has said that it is READY.
        boot_id = first.wait_event("boot_started")["boot_id"]
        wait_until(lambda: known_good(data)["boot_id"] == kept_report(data)["boot_id"] == boot_id)
        before = contents(data)
        second = boot_once(data, "--report", str(report_file), log_format=None)
        assert contents(data) == before
        assert second.process.returncode == 1
        assert f"pid {first.pid}" in second.text() + second.output()
        assert first.process.poll() is None
        assert first.stop() == 0
    failure = json.loads(report_file.read_bytes())["failure"]
    assert "is in use" in failure["what"]
    assert failure["key"] == "system.data_dir"


def test_a_boot_on_a_taken_port_is_rolled_back_and_names_the_process_and_the_key(
    data: Path, tmp_path: Path
) -> None:
    report_file = tmp_path / "report.json"
    with taken_port() as port:
        node = boot_once(data, "--set", f"api.port={port}", "--report", str(report_file))
    failure = json.loads(report_file.read_bytes())["failure"]

    assert node.process.returncode == 1
    assert str(port) in failure["what"]
    assert str(os.getpid()) in failure["why"]
    assert failure["key"] == "api.port"
    assert failure["remedy"]
    report = json.loads(report_file.read_bytes())
    assert report["rollback"]["failures"] == []
    entered = {c["name"] for c in report["components"] if c["started"] is not None}
    assert {*report["rollback"]["stopped"], failure["component"]} == entered
    checkpoint = checkpoint_of(data)
    assert checkpoint["checkpoint"] == "rolled_back"


def test_a_degraded_boot_is_exit_3_where_that_is_asked_for_and_0_otherwise(data: Path) -> None:
    with taken_port() as port:
        ports = (
            "--set",
            "api.port=0",
            "--set",
            "network.port=0",
            "--set",
            f"monitoring.port={port}",
            "--set",
            "dwcp.amst.port=0",
        )
        node = boot_once(data, ports=ports)
        assert node.process.returncode == 3, node.text()
        [ready] = node.events("node_ready")
        assert ready["state"] == "degraded"
        assert [entry["name"] for entry in ready["degraded"]] == ["monitoring"]
        assert str(port) in json.dumps(ready["degraded"])
        with NodeProcess(data, ports=ports) as running:
            running.wait_ready()
            assert running.stop() == 0


def test_a_node_boots_on_damaged_state_files_and_says_where_they_lie(data: Path) -> None:
    names = ("checkpoint.json", "undo.journal", "last-known-good.json")
    for name in names:
        path = data / "boot" / name
        path.write_bytes(bytes(path.stat().st_size))
    report = next((data / "boot" / "reports").iterdir())
    report.write_bytes(report.read_bytes()[:-100])
    node = boot_once(data)

    assert node.process.returncode == 0, node.text()
    [ready] = node.events("node_ready")
    for name in names:
        [warning] = [text for text in ready["warnings"] if text.startswith(name)]
        [box] = (data / "quarantine").glob(f"{name}.*")
        assert str(box) in warning
    done = command("--analyze", "blame", "--boot", "-2", "--data-dir", str(data))
    assert done.returncode == 1
    assert "set aside" in done.stderr
    assert boot_once(data).events("node_ready")[0]["warnings"] == [
        text for text in ready["warnings"] if "damaged" not in text
    ]


def test_the_service_manager_hears_the_whole_life_of_the_node(data: Path) -> None:
    # Not tmp_path: a socket's path may have 107 bytes, and pytest's can be longer.
    with (
        tempfile.TemporaryDirectory() as directory,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
    ):
        manager.bind(f"{directory}/notify")
        manager.settimeout(DEADLINE)
        environment = {"NOTIFY_SOCKET": f"{directory}/notify", "WATCHDOG_USEC": "1000000"}
        with NodeProcess(data, environment=environment) as node:
            heard = [manager.recv(65536).decode()]
            while not heard[-1].startswith("READY=1"):
                heard.append(manager.recv(65536).decode())
            while heard[-1] != "WATCHDOG=1":
                heard.append(manager.recv(65536).decode())
            node.send(signal.SIGHUP)
            while not heard[-1].startswith("RELOADING=1"):
                heard.append(manager.recv(65536).decode())
            while not heard[-1].startswith("READY=1"):
                heard.append(manager.recv(65536).decode())
            node.send(signal.SIGTERM)
            while "Stopped with exit code 0" not in heard[-1]:
                heard.append(manager.recv(65536).decode())
            assert node.wait_exit() == 0
    lines = [line for message in heard for line in message.splitlines()]
    order = ["STATUS=Booting: pre_init", "READY=1", "RELOADING=1", "STOPPING=1"]

    assert [line for line in lines if line in order and line != "READY=1"] == [
        order[0],
        *order[2:],
    ]
    assert lines.count("READY=1") == 2
    assert lines.index(order[0]) < lines.index("READY=1") < lines.index("RELOADING=1")
    assert any(line.startswith("EXTEND_TIMEOUT_USEC=") for line in lines)
    assert any(line.startswith("STATUS=Ready in ") for line in lines)
