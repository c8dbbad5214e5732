"""``novacron audit``."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from tests.cli.booted import Booted


@pytest.fixture
def node(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Booted:
    made = Booted(tmp_path / "node", capsys)
    for number in range(4):
        made.security.audit.append_blocking("vm.start", "token:abc", f"vm-{number}")
    return made


def log_file(node: Booted) -> Path:
    (path,) = node.directory.audit.glob("*.jsonl")
    return path


def test_verify_says_that_nothing_was_changed_and_prints_the_last_hash(node: Booted) -> None:
    shown = node.run("audit", "verify")
    assert "5 records 1 to 5 in 1 files. Nothing was changed." in shown
    last = node.json("audit", "verify")["last_hash"]
    assert f"Hash of record 5: {last}" in shown


def test_verify_names_the_line_that_was_changed_and_exits_1(node: Booted) -> None:
    path = log_file(node)
    path.write_bytes(path.read_bytes().replace(b"vm-1", b"vm-7"))
    shown = node.run("audit", "verify", fails=1)
    assert f"{path.name}:3: it was changed: its hash does not match" in shown
    found = node.json("audit", "verify", fails=1)
    assert [problem["line"] for problem in found["problems"]] == [3]
    assert node.json("audit", "verify", "--after", "3")["ok"] is True


def test_verify_finds_a_missing_end(node: Booted) -> None:
    path = log_file(node)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:3]))
    assert "the records 4 to 5 are missing at the end" in node.run("audit", "verify", fails=1)


def test_show_prints_the_newest_and_filters(node: Booted) -> None:
    shown = node.run("audit", "show", "--last", "2")
    assert "vm-3" in shown
    assert "vm-1" not in shown
    found = node.json("audit", "show", "--action", "vm.", "--actor", "token:abc")["records"]
    assert [record["target"] for record in found] == ["vm-0", "vm-1", "vm-2", "vm-3"]
    assert node.json("audit", "show", "--action", "node.")["records"][0]["seq"] == 1


def test_show_keeps_control_characters_off_the_terminal(node: Booted) -> None:
    node.security.audit.append_blocking("a", "\x1b[2Jevil", "t")
    assert "\x1b" not in node.run("audit", "show")


def test_an_export_verifies_by_itself(node: Booted, tmp_path: Path) -> None:
    export = tmp_path / "export.jsonl"
    assert "5 records are in" in node.run("audit", "export", "--output", str(export))
    assert stat.S_IMODE(export.stat().st_mode) == 0o600
    assert node.json("audit", "verify", "--path", str(export))["records"] == 5
    assert "File exists" in node.run("audit", "export", "--output", str(export), fails=1)


def test_an_export_to_standard_output_is_the_lines_as_they_are(node: Booted) -> None:
    lines = log_file(node).read_text().splitlines(keepends=True)
    assert node.run("audit", "export", "--after", "3") == "".join(lines[3:])


def test_a_path_without_a_log_is_said_to_be_that(node: Booted, tmp_path: Path) -> None:
    shown = node.run("audit", "verify", "--path", str(tmp_path / "nothing"), fails=1)
    assert "holds no audit-*.jsonl" in shown


@pytest.mark.parametrize(
    "arguments",
    [
        ("audit", "verify"),
        ("audit", "show"),
        ("audit", "export"),
        ("token", "create"),
        ("token", "list"),
        ("token", "revoke"),
        ("keys", "status"),
        ("keys", "rotate"),
        ("certificate", "show"),
        ("certificate", "renew"),
    ],
)
def test_each_help_has_examples_and_exit_codes(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    from novacron.cli import main

    assert main([*arguments, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "examples:" in shown
    assert f"novacron {' '.join(arguments)}" in shown
    assert "exit codes:" in shown
    assert "--data-dir" in shown
    assert "--json" in shown
