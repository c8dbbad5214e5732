"""The modes that boot nothing, and the one that boots what worked before."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.processes import free_port
from tests.integration.node_process import (
    ANY_HOST,
    FREE_PORTS,
    PHASES,
    boot_once,
    checkpoint_of,
    command,
    kept_report,
    taken_port,
    tree,
)


def test_check_touches_nothing_and_makes_no_data_directory(tmp_path: Path) -> None:
    before = tree(tmp_path)
    done = command("--check", "--data-dir", str(tmp_path / "data"), HOME=str(tmp_path))

    assert done.returncode == 0
    assert done.stdout.startswith("The configuration is valid")
    assert done.stderr == ""
    assert tree(tmp_path) == before


def test_check_leaves_a_data_directory_as_it_is_even_while_a_node_runs_on_it(data: Path) -> None:
    before = tree(data)
    done = command("--check", "--json", "--data-dir", str(data))

    assert (done.returncode, json.loads(done.stdout)["valid"]) == (0, True)
    assert tree(data) == before


def test_check_lists_every_problem_and_is_exit_78(tmp_path: Path) -> None:
    path = tmp_path / "node.yaml"
    path.write_text("api:\n  port: high\nchace: {}\n")
    text = command("--check", "--config", str(path))
    listed = command("--check", "--json", "--config", str(path))

    assert (text.returncode, listed.returncode) == (78, 78)
    assert "api.port" in text.stderr
    assert f"{path}:2" in text.stderr
    assert {problem["key"] for problem in json.loads(listed.stdout)["problems"]} == {
        "api.port",
        "chace",
    }


def test_a_criticality_of_an_unknown_component_is_refused_by_check_and_by_the_boot(
    tmp_path: Path,
) -> None:
    arguments = ("--set", "boot.criticality={cahce: warning}", "--data-dir", str(tmp_path / "data"))

    for mode in (("--check",), ()):
        done = command(*mode, *arguments)
        assert done.returncode == 78, done.stderr
        assert "cahce" in done.stderr


def test_plan_shows_what_would_start_when_and_changes_nothing(data: Path) -> None:
    before = tree(data)
    text = command("--plan", "--data-dir", str(data))
    planned = command("--plan", "--json", "--data-dir", str(data))
    plan = json.loads(planned.stdout)

    assert (text.returncode, planned.returncode) == (0, 0)
    assert all(name in text.stdout for name in ("security", "database", "ready_signal", *PHASES))
    assert [phase["name"] for phase in plan["phases"]] == PHASES
    assert tree(data) == before


def test_analyze_explains_an_earlier_boot_in_every_form(data: Path, tmp_path: Path) -> None:
    assert boot_once(data).process.returncode == 0
    where = ("--data-dir", str(data))
    blame = command("--analyze", "blame", *where)
    path = command("--analyze", "critical-path", *where)
    as_json = command("--analyze", "json", *where)
    difference = command("--analyze", "diff", "--boot", "-2", "--boot", "-1", *where)
    plot = command("--analyze", "plot", "-o", str(tmp_path / "boot.svg"), *where)

    for done in (blame, path, as_json, difference, plot):
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
    assert "security" in blame.stdout
    assert "security" in path.stdout
    assert json.loads(as_json.stdout)["boot_id"] == kept_report(data)["boot_id"]
    assert difference.stdout
    assert ElementTree.parse(tmp_path / "boot.svg").getroot().tag.endswith("svg")


def test_analyze_without_any_boot_says_so(tmp_path: Path) -> None:
    done = command("--analyze", "blame", "--data-dir", str(tmp_path / "data"))

    assert done.returncode == 1
    assert "boot once" in done.stderr.lower()
    assert not (tmp_path / "data").exists()


def test_an_invalid_configuration_points_to_the_last_known_good_one_which_boots(
    tmp_path: Path,
) -> None:
    data, path = tmp_path / "data", tmp_path / "node.yaml"
    path.write_text("cache: {ttl: 123}\n")
    assert boot_once(data, "--config", str(path), *ANY_HOST).process.returncode == 0
    path.write_text("cache: {ttl: never}\n")
    broken = boot_once(data, "--config", str(path))
    assert broken.process.returncode == 78
    assert "--last-known-good" in broken.text()

    good = boot_once(data, "--config", str(path), "--last-known-good")
    assert good.process.returncode == 0, good.text()
    checkpoint = checkpoint_of(data)
    assert checkpoint["configuration"]["cache"]["ttl"] == 123


def test_a_boot_that_fails_on_a_changed_configuration_names_the_way_back(data: Path) -> None:
    with taken_port() as port:
        failed = boot_once(data, "--set", f"api.port={port}")
        [event] = failed.events("boot_failed")
        assert "--last-known-good" in event["failure"]["remedy"]
        again = boot_once(data, "--last-known-good", ports=())
    assert again.process.returncode == 0, again.text()


def test_a_boot_that_fails_on_the_known_good_configuration_does_not(tmp_path: Path) -> None:
    data = tmp_path / "data"
    port = free_port()
    ports = ("--set", f"api.port={port}", *FREE_PORTS[2:])
    assert boot_once(data, ports=ports).process.returncode == 0
    with socket.create_server(("127.0.0.1", port)):
        failed = boot_once(data, ports=ports)
    [event] = failed.events("boot_failed")

    assert failed.process.returncode == 1
    assert "--last-known-good" not in event["failure"]["remedy"]


def test_without_a_known_good_configuration_the_message_says_so(tmp_path: Path) -> None:
    node = boot_once(tmp_path / "data", "--last-known-good")

    assert node.process.returncode == 78
    assert "no boot with this data directory has become READY yet" in node.text()


@pytest.mark.parametrize("damage", [b"", b"\0" * 900, b'{"format":1}'])
def test_a_damaged_known_good_configuration_is_not_believed(data: Path, damage: bytes) -> None:
    (data / "boot" / "last-known-good.json").write_bytes(damage)
    node = boot_once(data, "--last-known-good")

    assert node.process.returncode == 78
    assert "the file is damaged" in node.text()
