"""The unit file, judged by systemd's own tools."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

UNIT = Path(__file__).parents[2] / "configs" / "systemd" / "novacron.service"


def settings() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        if line and line[0] not in "#[;":
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with a program that exists here: verify looks for it."""
    text = UNIT.read_text()
    assert "ExecStart=/opt/novacron/bin/python -m novacron.boot " in text
    path = tmp_path / UNIT.name
    path.write_text(text.replace("/opt/novacron/bin/python", "/bin/true"))
    return path


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", "--no-pager", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_systemd_finds_nothing_wrong_with_the_unit(unit: Path) -> None:
    result = analyze("verify", "--man=no", str(unit))
    assert (result.returncode, result.stderr) == (0, "")


def test_systemd_does_find_a_planted_mistake(unit: Path) -> None:
    unit.write_text(unit.read_text().replace("KillMode=mixed", "KillMode=gently"))
    assert "kill mode" in analyze("verify", "--man=no", str(unit)).stderr


def test_the_exposure_is_that_of_a_program_that_only_serves_the_network(unit: Path) -> None:
    result = analyze("security", "--offline=true", "--threshold=20", str(unit))
    assert result.returncode == 0, result.stdout


def test_every_credential_line_works_once_uncommented(unit: Path) -> None:
    text = unit.read_text()
    assert "#LoadCredential=" in text
    unit.write_text(
        text.replace("#LoadCredential=", "LoadCredential=").replace("#Environment=", "Environment=")
    )
    result = analyze("verify", "--man=no", str(unit))
    assert (result.returncode, result.stderr) == (0, "")


def test_the_unit_waits_for_ready_and_does_not_repeat_what_cannot_succeed() -> None:
    found = settings()
    assert found["Type"] == ["notify"]
    assert found["Restart"] == ["on-failure"]
    assert found["RestartPreventExitStatus"] == ["2 78"]
    assert found["NoNewPrivileges"] == ["yes"]
    assert found["ProtectSystem"] == ["strict"]
    assert found["CapabilityBoundingSet"] == [""]


def test_the_clock_may_still_be_read_after_the_privileged_calls_are_taken_away() -> None:
    filters = settings()["SystemCallFilter"]
    assert "@privileged" in filters[1]
    assert filters[2].split() == ["adjtimex", "clock_adjtime"]


def test_the_node_has_time_to_stop_in_order() -> None:
    from novacron.config.schema import StopSettings

    stop = StopSettings()
    limit = float(settings()["TimeoutStopSec"][0])
    assert limit > stop.drain + stop.cleanup + stop.force
