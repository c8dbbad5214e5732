"""How a backup in progress is shown."""

from __future__ import annotations

import io

import pytest

from novacron.cli import database_progress
from novacron.cli.database_progress import Advance


def test_where_nothing_can_be_redrawn_there_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Advance(silent=False) as report:
        report("writing a", 1, 10, 100)
        assert capsys.readouterr().err == "", "the first is due after a while"
        monkeypatch.setattr(database_progress, "LINE_INTERVAL", 0.0)
        report("writing a\x1b[2J", 5, 10, 2048)
        report("waiting", 0, 0, 0)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["writing a\ufffd[2J, 5 of 10 rows, 2.0 KiB", "waiting"]


def test_on_a_terminal_there_is_a_bar_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(database_progress, "_REDRAW", 0.0)
    with Advance(silent=False) as report:
        report("checking", 0, 0, 0)
        report("writing a", 5, 10, 2048)
    shown = terminal.getvalue()
    assert "5 of 10 rows" in shown
    assert "50 %" in shown
    assert shown.rstrip().endswith("\x1b[2K"), "the line is cleared at the end"


def test_silence_is_silent(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_progress, "LINE_INTERVAL", 0.0)
    with Advance(silent=True) as report:
        report("writing a", 5, 10, 2048)
    assert capsys.readouterr().err == ""
