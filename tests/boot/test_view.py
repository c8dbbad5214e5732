from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys
import time

import pytest

from novacron.boot import events, view
from novacron.boot.summary import Style, clean, failed, ready, wrap
from novacron.errors import NovaCronError, TransientError

ERROR = TransientError("cannot reach the cache", why="refused", remedy="start it", key="cache.kind")
ADDRESSES = {"peer": "127.0.0.1:7402", "rest": "https://127.0.0.1:7400"}
READY = events.NodeReady("ready", 0.25, 0.25, [], ADDRESSES, "/data", "/data/log/n.log", [])
DEGRADED = events.NodeReady(
    "degraded",
    3.4,
    3.4,
    [
        {
            "name": "cache",
            "why": "refused",
            "remedy": "start it",
            "key": "cache.kind",
            "fallback": True,
        }
    ],
    ADDRESSES,
    "/data",
    None,
    ["this host has 2 CPUs, the minimum is 4"],
)
FAILED = events.BootFailed(
    0.3,
    {
        "component": "database",
        "phase": "core",
        "attempt": 2,
        "elapsed": 0.262,
        "error": "CorruptDatabaseError",
        "what": "cannot open the database",
        "why": "the file is damaged",
        "remedy": "restore a backup",
        "key": "database.path",
    },
    {
        "reason": "database failed",
        "stopped": ["network", "security"],
        "undone": [{"component": "database"}],
        "took": 0.021,
        "failures": [{"component": "network", "what": "shutdown took more than 5 s"}],
    },
    "/data/boot/reports/r.json",
)
COMPONENTS = {"core": ["security", "cache"], "services": ["api"]}
BOOT: list[events.Event] = [
    events.BootStarted("b1", 0.2, COMPONENTS),
    events.PhaseStarted("core", 0.2, 20.2),
    events.ComponentEntered("security", "core", 1, 0.2),
    events.ComponentReady("security", 0.21, 0.01, False),
    events.ComponentEntered("cache", "core", 1, 0.2),
    events.ComponentRetry("cache", 1, 1.0, ERROR, 0.3),
    events.ComponentEntered("cache", "core", 2, 1.3),
    events.ComponentProgress("cache", "connecting", 1.4),
    events.ComponentReady("cache", 2.3, 2.1, True),
    events.PhaseFinished("core", 2.3, "ready"),
]


class Terminal(io.TextIOWrapper):
    """A terminal as far as the view can tell; what it was sent is ``text()``."""

    def __init__(self, encoding: str = "utf-8") -> None:
        self.raw_bytes = io.BytesIO()
        super().__init__(self.raw_bytes, encoding=encoding, write_through=True)

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        raise OSError("no descriptor")

    def text(self) -> str:
        return self.raw_bytes.getvalue().decode(self.encoding)


def show(kind: str, told: list[events.Event], stream: io.TextIOBase | None = None) -> str:
    output = io.StringIO() if stream is None else stream
    opened = view.open_view(kind, output, {"TERM": "xterm"}, patience=60.0)  # type: ignore[arg-type]
    for event in told:
        opened.listen(event)
    opened.close()
    return output.text() if isinstance(output, Terminal) else output.getvalue()  # type: ignore[attr-defined]


def test_the_summary_of_a_whole_node_says_where_everything_is() -> None:
    assert ready(READY, Style(terminal=True)) == (
        "READY in 0.250 s\n"
        "\n"
        "  serving     rest     https://127.0.0.1:7400\n"
        "              peer     127.0.0.1:7402\n"
        "  data        /data\n"
        "  logs        /data/log/n.log\n"
        "\n"
        "Ctrl-C stops the node."
    )


def test_the_summary_of_a_degraded_node_says_what_why_and_what_to_do() -> None:
    text = ready(DEGRADED, Style())
    assert text.startswith(
        "READY in 3.400 s, degraded\n"
        "\n"
        "  degraded    cache (on its fallback): refused\n"
        "              → Start it [cache.kind]\n"
        "  warning     this host has 2 CPUs, the minimum is 4\n"
    )
    assert "logs" not in text
    assert "Ctrl-C" not in text


def test_the_block_of_a_failed_boot_holds_everything_an_operator_needs() -> None:
    assert failed(FAILED, Style()) == (
        "BOOT FAILED after 0.300 s: database, phase core, attempt 2\n"
        "\n"
        "  what        cannot open the database\n"
        "  why         the file is damaged\n"
        "  what to do  Restore a backup\n"
        "  key         database.path\n"
        "  rolled back 2 components stopped, 1 undo step ran, in 0.021 s\n"
        "  not undone  network: shutdown took more than 5 s\n"
        "  report      /data/boot/reports/r.json"
    )


def test_a_failure_that_knows_little_still_says_what_failed() -> None:
    event = events.BootFailed(0.3, {"what": "out of memory", "component": None})
    assert failed(event, Style()) == ("BOOT FAILED after 0.300 s\n\n  what        out of memory")


def test_colour_only_where_the_terminal_has_it_and_nobody_objects() -> None:
    terminal = Terminal()
    for environment, coloured in [
        ({"TERM": "xterm"}, True),
        ({"TERM": "xterm", "NO_COLOR": ""}, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "dumb"}, False),
        ({}, False),
    ]:
        style = view.style_of(terminal, environment, terminal=True)
        assert style.colour is coloured
        assert ("\x1b[" in ready(READY, style)) is coloured
    assert not view.style_of(io.StringIO(), {"TERM": "xterm"}, terminal=False).colour


@pytest.mark.parametrize("width", [10, 24, 40, 80, 200])
def test_text_is_wrapped_to_the_width_under_its_own_column(width: int) -> None:
    event = events.BootFailed(0.1, {"what": "w " * 60, "why": "/a/path/that/is/never/broken"})
    lines = failed(event, Style(width=width)).splitlines()[2:]
    words = [line for line in lines if line.strip().startswith("w ")]
    assert all(len(line) <= max(width, 34) for line in words)
    assert all(line.startswith(" " * 14) for line in words)
    assert any("/a/path/that/is/never/broken" in line for line in lines)


def test_wrapping_loses_nothing() -> None:
    words = "one two  three four"
    assert " ".join(wrap(words, 9)) == words
    assert wrap("averylongword b", 4) == ["averylongword", "b"]


def test_control_characters_never_reach_the_terminal() -> None:
    evil = "name\x1b]0;title\x07\r\nnext\x9b2J"
    assert clean(evil) == "name ]0;title  next 2J"
    error = TransientError(evil, why="a  b\x1b[2J")
    told = [
        *BOOT,
        events.ComponentFailed("cache", 2.0, error),
        events.BootFailed(2.1, {"what": evil, "why": "x  y" + evil}),
    ]
    for kind in ("plain", "auto"):
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", show(kind, told))


def test_plain_lines_tell_each_step_with_its_moment() -> None:
    lines = show("auto", [*BOOT, READY]).splitlines()
    assert lines[:6] == [
        "[   0.200] boot b1 of 3 components",
        "[   0.200] phase core",
        "[   0.210] security ready in 10.0 ms",
        "[   0.300] cache: attempt 1 failed, next in 1.0 s: cannot reach the cache: refused. "
        "Start it [cache.kind]",
        "[   1.400] cache: connecting",
        "[   2.300] cache ready on its fallback in 2100.0 ms",
    ]
    assert lines[6] == "READY in 0.250 s"


def test_plain_lines_tell_the_stop() -> None:
    told: list[events.Event] = [
        events.NodeStopping("SIGTERM", 9.0),
        events.ComponentStopping("api", 9.0),
        events.ComponentStopped("api", 9.1, None),
        events.ComponentStopped("cache", 9.1, ERROR),
        events.NodeStopped(9.2, 0),
    ]
    assert show("plain", told).splitlines() == [
        "[   9.000] stopping: SIGTERM",
        "[   9.000] stopping api",
        "[   9.100] api stopped",
        "[   9.100] cache did not stop cleanly: cannot reach the cache: refused. "
        "Start it [cache.kind]",
        "[   9.200] stopped, exit code 0",
    ]


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (events.PhaseFinished("core", 1.0, "timeout"), "phase core: timeout"),
        (
            events.ComponentSkipped("api", "database failed", 1.0),
            "api not started: database failed",
        ),
        (events.ComponentFailed("cache", 1.0, NovaCronError("x")), "cache failed: x"),
        (events.ComponentLost("cache", 1.0, NovaCronError("x")), "cache is down: x"),
        (
            events.ComponentLost("cache", 1.0, KeyError("x")),
            "cache is down: 'x': an unexpected KeyError, which is a fault of NovaCron's own. Report "
            "it with the boot report and the log; starting again may get past it",
        ),
        (events.ComponentRestored("cache", 1.0, 2.0), "cache is back after 2.0 s"),
        (events.RollbackStarted("database failed", 1.0), "rolling back: database failed"),
        (events.UndoRan("database", "schema", 1.0), "undone: database schema"),
        (
            events.UndoRan("database", "schema", 1.0, NovaCronError("x")),
            "not undone: database schema: x",
        ),
        (events.CheckpointWritten("init_start", 1.0, 0.1), ""),
    ],
)
def test_each_event_in_words(event: events.Event, words: str) -> None:
    assert view.describe(event, Style()) == words


def test_json_lines_hold_every_event_and_nothing_else() -> None:
    records = [json.loads(line) for line in show("json", [*BOOT, DEGRADED]).splitlines()]
    assert [record["event"] for record in records] == [e.kind for e in [*BOOT, DEGRADED]]
    assert records[5]["error"]["key"] == "cache.kind"
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]{8}\.\d{3}Z", r["time"]) for r in records)


def test_a_quick_boot_on_a_terminal_shows_the_summary_alone() -> None:
    text = show("auto", [*BOOT, READY], Terminal())
    assert text.startswith("\x1b[1;32mREADY\x1b[0m in 0.250 s")


def test_a_dumb_terminal_gets_lines_instead_of_a_live_view() -> None:
    terminal = Terminal()
    opened = view.open_view("auto", terminal, {"TERM": "dumb"}, patience=0.0)
    for event in [*BOOT, READY]:
        opened.listen(event)
    opened.close()
    assert "\x1b" not in terminal.text()
    assert "  security ready in 10.0 ms\n" in terminal.text()


def test_after_ready_a_terminal_is_told_of_losses_restorations_and_the_stop() -> None:
    told: list[events.Event] = [
        READY,
        events.ComponentLost("cache", 5.0, NovaCronError("x")),
        events.NodeStopping("SIGINT", 9.0),
        events.ComponentStopping("api", 9.0),
        events.ComponentStopped("api", 9.1, None),
        events.NodeStopped(9.2, 0),
    ]
    text = show("console", told)
    assert text.endswith(
        "  cache is down: x\n"
        "Stopping (SIGINT). Ctrl-C again stops at once.\n"
        "  api stopped\n"
        "  stopped, exit code 0\n"
    )


def test_an_ascii_locale_gets_ascii() -> None:
    terminal = Terminal("ascii")
    opened = view.open_view("plain", terminal, {})
    opened.listen(DEGRADED)
    opened.listen(events.ComponentFailed("cache", 1.0, ValueError("größer")))
    assert "-> Start it [cache.kind]" in terminal.text()
    assert "gr??er" in terminal.text() or "gr?" in terminal.text()


def test_a_stream_that_goes_away_is_forgotten() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as stream:
        opened = view.open_view("plain", stream, {})
        for event in [*BOOT, READY, *BOOT]:
            opened.listen(event)
        opened.close()
        # What the broken pipe left in the buffer must not fail the close below either.
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())
    closed = io.StringIO()
    closed.close()
    view.PlainView(closed, Style()).listen(READY)


LIVE = """
import sys, time
from novacron.boot import events, view
from tests.boot.test_view import BOOT, READY
opened = view.open_view("auto", patience=0.05)
for event in BOOT[:6]:
    opened.listen(event)
sys.stdin.readline()
for event in [*BOOT[6:], READY]:
    opened.listen(event)
opened.close()
"""


def test_a_slow_boot_is_drawn_live_and_leaves_only_the_summary() -> None:
    master, slave = pty.openpty()
    environment = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS")}
    environment |= {"TERM": "xterm-256color", "PYTHONPATH": os.getcwd()}
    with subprocess.Popen(
        [sys.executable, "-c", LIVE],
        stdin=subprocess.PIPE,
        stdout=slave,
        stderr=subprocess.STDOUT,
        env=environment,
    ) as child:
        os.close(slave)
        output = b""
        deadline = time.monotonic() + 30
        while b"attempt 1 failed" not in output and time.monotonic() < deadline:
            output += os.read(master, 65536)
        drawn = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", output).decode()
        assert "core: 1 of 2 ready" in drawn
        assert "↻ cache  again in" in drawn
        assert "services: 1 component" in drawn
        assert child.stdin is not None
        child.stdin.write(b"go\n")
        child.stdin.close()
        rest = b""
        while True:
            try:
                chunk = os.read(master, 65536)
            except OSError:
                break
            if not chunk:
                break
            rest += chunk
        assert child.wait(timeout=30) == 0
    os.close(master)
    assert rest.rstrip().endswith(b"Ctrl-C stops the node.")
    assert b"\x1b[?25h" in rest  # the cursor is back


def test_showing_a_quick_boot_imports_neither_rich_nor_anything_of_a_third_party() -> None:
    script = (
        "import sys; before = set(sys.modules)\n"
        "from novacron.boot import events, notify, view\n"
        "v = view.open_view('console', environment={'TERM': 'xterm'})\n"
        "v.listen(events.BootStarted('b', 0.2, {'core': ['a']}))\n"
        "v.listen(events.NodeReady('ready', .3, .3, [], {}, '/d', None, []))\n"
        "v.close()\n"
        "print(*{n.partition('.')[0] for n in set(sys.modules) - before}, file=sys.stderr)"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30
    )
    assert set(result.stderr.split()) <= set(sys.stdlib_module_names) | {"novacron"}
