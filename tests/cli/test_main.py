"""The command as a whole: exit codes, help, errors, and what it imports."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from novacron.cli import COMMANDS, main
from novacron.cli.failure import error_block
from novacron.cli.reference import path, reference_markdown
from novacron.errors import BootError, TransientError

Run = Callable[..., tuple[int, str, str]]


def test_without_a_command_it_is_a_usage_error(run: Run) -> None:
    status, _, err = run()
    assert status == 2
    assert "usage: novacron" in err


def test_an_unknown_command_is_a_usage_error_that_lists_the_known(run: Run) -> None:
    status, _, err = run("stauts")
    assert status == 2
    assert "status" in err


def test_help_lists_every_command_and_succeeds(run: Run) -> None:
    status, out, _ = run("--help")
    assert status == 0
    for command in COMMANDS:
        assert f"\n    {command}" in out
    for part in ("usage:", "examples:", "files:", "environment:", "exit codes:"):
        assert part in out


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - {"boot"}))
def test_every_command_has_the_parts_of_a_manual_page(run: Run, command: str) -> None:
    status, out, _ = run(command, "--help")
    assert status == 0
    for part in ("usage:", "examples:", "environment:", "exit codes:"):
        assert part in out


def test_the_version_is_printed(run: Run) -> None:
    status, out, _ = run("--version")
    assert status == 0
    assert out.startswith("novacron ")


def test_an_invalid_configuration_is_exit_78_with_every_problem(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "node.yaml"
    file.write_text("api: {port: x, prt: 1}\n")
    status, out, err = run("config", "check", str(file))
    assert (status, out) == (78, "")
    assert "2 problems" in err
    assert "did you mean api.port" in err


def test_a_missing_file_is_exit_78(run: Run, tmp_path: Path) -> None:
    status, _, err = run("config", "check", str(tmp_path / "gone.yaml"))
    assert status == 78
    assert "does not exist" in err


def test_an_error_is_one_block_with_a_label_a_line() -> None:
    class FullError(BootError, TransientError):
        pass

    error = FullError("cannot do it", why="first\nsecond", remedy="wait", key="api.port")
    assert error_block(error).splitlines() == [
        "novacron: cannot do it",
        "  why: first",
        "       second",
        "  do:  wait",
        "  key: api.port",
    ]


def test_an_interruption_exits_as_shells_expect(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("novacron.cli.config.load_from", interrupt)
    assert main(["config", "check"]) == 130


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    program = f"{sys.executable} -m novacron config schema | head -c 1"
    done = subprocess.run(
        ["/bin/sh", "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert (done.stdout, done.stderr) == ("{", "")


def test_boot_becomes_the_boot_process_with_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(os, "execv", lambda file, argv: called.append((file, argv)))
    main(["boot", "--check", "--config", "node.yaml"])
    expected = [sys.executable, "-m", "novacron.boot", "--check", "--config", "node.yaml"]
    assert called == [(sys.executable, expected)]


def test_a_command_imports_only_what_it_needs() -> None:
    program = (
        "import sys\n"
        "from novacron.cli import main\n"
        "assert main(['config', 'explain', 'api.port']) == 0\n"
        "heavy = ['trio', 'yaml', 'cryptography', 'fastapi', 'http.client', 'rich', 'asyncio',\n"
        "    'novacron.cli.audit', 'novacron.cli.node', 'novacron.security']\n"
        "print([name for name in heavy if name in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr.strip() == "[]"


def test_the_reference_page_is_fresh(repository: Path) -> None:
    text = path(repository).read_text(encoding="utf-8")
    assert text == reference_markdown(), "run `python -m novacron.cli.reference`"
