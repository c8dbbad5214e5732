"""Transfers in words and as bars."""

from __future__ import annotations

import io

import pytest

from novacron.cli.progress import (
    Bars,
    Lines,
    Silence,
    details,
    figures,
    line,
    open_screen,
    seconds,
    size,
    summary,
)
from tests.api.dwcp_stand_in import transfer_view

ID = "ab54" + "0" * 28


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (150 * 1024, "150 KiB"),
        (4 * 1024**3, "4.0 GiB"),
        (5000 * 1024**4, "5000 TiB"),
    ],
)
def test_sizes_are_read_at_a_glance(count: int, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0.25, "250 ms"),
        (3.21, "3.2 s"),
        (12.4, "12 s"),
        (59.7, "1 min 0 s"),
        (200, "3 min 20 s"),
        (7500, "2 h 5 min"),
    ],
)
def test_times_are_read_at_a_glance(count: float, text: str) -> None:
    assert seconds(count) == text


def test_a_line_says_how_far_how_fast_how_long_and_over_what() -> None:
    assert line(transfer_view(ID)) == (
        "ab540000   25%  1.0 GiB of 4.0 GiB  244 MiB/s  12 s left  "
        "moving, 8 streams (tcp, encrypted), 513 MiB on the wire, 1 of 2 files, "
        "/srv/images/a.qcow2"
    )


def test_what_is_not_known_or_does_not_apply_is_left_out() -> None:
    view = transfer_view(
        ID, state="waiting", bytes_total=0, bytes_done=0, streams=0, files_total=1, current=None
    )
    assert figures(view) == "  0%  0 B of 0 B"
    assert details(view) == "waiting, 513 MiB on the wire"
    assert "left" not in figures(transfer_view(ID, eta_seconds=None))
    alone = transfer_view(ID, streams=1, encrypted=False, limit_bps=1024)
    assert "1 stream (tcp, not encrypted)" in details(alone)
    assert "limit 1.0 KiB/s" in details(alone)
    assert "paused (the operator asked)" in details(
        transfer_view(ID, state="paused", why="the operator asked")
    )


def test_the_summary_tells_what_was_moved_and_what_was_not() -> None:
    done = transfer_view(
        ID,
        state="done",
        files_done=2,
        bytes_done=4 * 1024**3,
        bytes_resent=1024,
        files_skipped=2,
        finished_at=1_700_000_016.5,
    )
    assert summary(done) == (
        "sent 2 files, 4.0 GiB in 16 s (256 MiB/s); 3.0 GiB were there already, 512 MiB moved, "
        "513 MiB on the wire, 512 MiB of holes, 1.0 KiB sent twice, 2 skipped"
    )
    received = transfer_view(
        ID,
        role="receiver",
        files_done=1,
        state="done",
        bytes_done=10,
        bytes_moved=10,
        bytes_zero=0,
        finished_at=1_700_000_000.5,
    )
    assert summary(received) == "received 1 file, 10 B in 0 ms; 513 MiB on the wire"


def test_without_a_terminal_a_line_is_printed_when_the_state_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    stream = io.StringIO()
    lines = Lines(stream, 5.0)
    for after, state in ((0, "waiting"), (1, "moving"), (1, "moving"), (4, "moving"), (1, "done")):
        now[0] += after
        lines.show([transfer_view(ID, state=state)])
    states = [text.split("  ")[-1].split(",")[0] for text in stream.getvalue().splitlines()]
    assert states == ["waiting", "moving", "moving", "done"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_screen_suits_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(open_screen(io.StringIO()), Lines)
    assert isinstance(open_screen(io.StringIO(), silent=True), Silence)
    bars = open_screen(Terminal())
    assert isinstance(bars, Bars)
    bars.close()
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(open_screen(Terminal()), Lines)


@pytest.mark.parametrize("columns", ["20", "80", "200"])
def test_bars_fit_into_any_terminal_and_show_nothing_that_could_steer_it(
    monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("LINES", "10")
    stream = Terminal()
    bars = Bars(stream)
    views = [transfer_view(f"{n:032x}", current="/srv/[red]a\x1b[2J\n") for n in range(40)]
    bars.show(views)
    bars.say("away\x07")
    bars.close()
    bars.close()
    shown = stream.getvalue()
    assert "\x1b[2J" not in shown
    assert "\x07" not in shown
    assert "away" in shown
    assert shown.endswith("\x1b[?25h") or "\x1b[?25h" in shown
    if columns == "200":
        assert "[red]a" in shown
        assert "244 MiB/s" in shown
