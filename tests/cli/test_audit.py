"""``novacron audit``."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from novacron.cli import main
from novacron.security.audit import AuditLog
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


def test_export_selects_by_time_actor_action_and_outcome(node: Booted) -> None:
    audit = node.security.audit
    audit.append_blocking("vm.start", "token:other", "vm-9", "denied", "192.0.2.7")

    def targets(*arguments: str) -> list[str]:
        lines = node.run("audit", "export", *arguments).splitlines()
        return [json.loads(line)["target"] for line in lines]

    assert targets("--outcome", "denied") == ["vm-9"]
    assert targets("--actor", "token:abc", "--after", "4") == ["vm-3"]
    assert targets("--action", "vm.", "--since", "1h", "--actor", "token:o") == ["vm-9"]
    assert targets("--until", "1h") == []
    assert len(targets("--since", "2020-01-01", "--until", "2100-01-01T00:00:00Z")) == 6
    (shown,) = node.json("audit", "show", "--outcome", "denied")["records"]
    assert shown["target"] == "vm-9"


@pytest.mark.parametrize("text", ["yesterday", "24", "2026-13-01", ""])
def test_a_time_that_is_none_is_refused(
    node: Booted, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["audit", "export", f"--since={text}", "--data-dir", str(node.directory.root)])
    assert status == 2
    assert "24h" in capsys.readouterr().err


def test_an_export_as_csv_verifies_and_one_that_was_changed_does_not(
    node: Booted, tmp_path: Path
) -> None:
    path = tmp_path / "audit.csv"
    shown = node.json("audit", "export", "--format", "csv", "--output", str(path))
    assert shown == {"records": 5, "damaged": 0, "file": str(path)}
    assert node.json("audit", "verify", "--path", str(path))["records"] == 5
    path.write_text(path.read_text().replace("vm-1", "vm-7"), newline="")
    assert not node.json("audit", "verify", "--path", str(path), fails=1)["ok"]


def test_a_filtered_export_verifies_when_it_is_said_to_be_one(node: Booted, tmp_path: Path) -> None:
    node.security.audit.append_blocking("x", "y", "z")
    node.security.audit.append_blocking("vm.start", "y", "z")
    path = tmp_path / "audit.jsonl"
    node.run("audit", "export", "--action", "vm.", "--output", str(path))
    assert not node.json("audit", "verify", "--path", str(path), fails=1)["ok"]
    assert node.json("audit", "verify", "--path", str(path), "--filtered")["records"] == 5


def test_damaged_lines_that_cannot_be_exported_are_counted(node: Booted) -> None:
    path = log_file(node)
    path.write_bytes(path.read_bytes().replace(b'"vm-1"', b'"vm-1'))
    shown = node.run("audit", "export", "--format", "cef", fails=1)
    assert "1 damaged lines were left out" in shown
    assert shown.count("CEF:0|NovaCron|") == 4


def test_a_line_whose_names_or_time_are_damaged_keeps_no_export_from_ending(node: Booted) -> None:
    path = log_file(node)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b'"seq"', b'"sep"')
    lines[2] = lines[2].replace(b'"time":"2', b'"time":"x')
    path.write_bytes(b"".join(lines))
    assert "vm-3" in node.run("audit", "show")
    for format in ("csv", "cef"):
        shown = node.run("audit", "export", "--format", format, fails=1)
        assert "vm-0" not in shown
        assert "vm-3" in shown


def test_half_an_export_is_not_left_behind(node: Booted, small_disk: Path) -> None:
    for _ in range(40):
        node.security.audit.append_blocking("vm.start", "me", details={"x": "y" * 60_000})
    output = small_disk / "export"
    said = node.run("audit", "export", "--output", str(output), fails=1)
    assert f"cannot write {output}" in said
    assert "No space left" in said
    assert not output.exists()


def test_verify_says_from_where_when_old_files_went(node: Booted) -> None:
    audit = AuditLog(node.directory, 65536, keep_files=2)
    for number in range(600):
        audit.append_blocking("vm.start", "token:abc", f"vm-{number}")
    audit.close_blocking()
    found = node.json("audit", "verify")
    assert found["pruned_through"] == found["first_seq"] - 1 > 0
    assert f"Records 1 to {found['pruned_through']} were removed because they were old" in node.run(
        "audit", "verify"
    )
