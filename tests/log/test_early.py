"""Logging before the file is open, and of what nobody caught."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import threading
import warnings

import pytest

from novacron.log import early

log = logging.getLogger("novacron.test")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Captured:
    """What went to standard error so far."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self._text = ""

    def getvalue(self) -> str:
        self._text += self._capsys.readouterr().err
        return self._text


@pytest.fixture
def stderr(capsys: pytest.CaptureFixture[str]) -> Captured:
    return Captured(capsys)


def test_plain_lines_go_to_standard_error_at_once(stderr: Captured) -> None:
    early.configure("info", "plain")
    log.info("hello")
    log.debug("not this")
    assert stderr.getvalue().endswith("INFO    novacron.test: hello\n")


def test_json_lines_where_asked(stderr: Captured) -> None:
    early.configure("debug", "json")
    log.debug("hello")
    assert json.loads(stderr.getvalue())["message"] == "hello"


def test_configuring_again_replaces_and_does_not_double(stderr: Captured) -> None:
    early.configure("info", "plain")
    early.configure("info", "json")
    log.info("hello")
    assert len(stderr.getvalue().splitlines()) == 1
    assert stderr.getvalue().startswith("{")


def test_beside_a_live_view_only_warnings_are_printed(stderr: Captured) -> None:
    early.configure("info", "console")
    log.info("the view shows it")
    log.warning("careful")
    assert "careful" in stderr.getvalue()
    assert "the view" not in stderr.getvalue()
    early.configure("debug", "console")
    log.debug("asked for")
    assert "asked for" in stderr.getvalue()


def test_auto_is_console_on_a_terminal_and_plain_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert early.resolve_format("auto") == "console"
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert early.resolve_format("auto") == "plain"
    assert early.resolve_format("json") == "json"


def test_libraries_are_heard_from_warning_on(stderr: Captured) -> None:
    early.configure("debug", "plain")
    logging.getLogger("somelibrary").info("chatter")
    logging.getLogger("somelibrary").warning("trouble")
    assert "chatter" not in stderr.getvalue()
    assert "trouble" in stderr.getvalue()


def test_the_level_can_change_while_running(stderr: Captured) -> None:
    early.configure("error", "plain")
    log.warning("before")
    early.set_level("debug")
    log.debug("after")
    assert "before" not in stderr.getvalue()
    assert "after" in stderr.getvalue()


def test_early_records_are_handed_over_in_order_with_their_words_fixed(stderr: Captured) -> None:
    early.configure("info", "plain")
    values = ["one"]
    log.info("%s", values)
    values[0] = "changed"
    log.info("two")
    handed: list[str] = []
    assert early.hand_over(lambda record: handed.append(record.getMessage())) == 0
    assert handed == ["['one']", "two"]
    log.info("three")
    assert early.hand_over(lambda record: handed.append(record.getMessage())) == 0
    assert len(handed) == 2


def test_early_records_are_bounded_and_the_first_ones_are_kept(
    stderr: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(early, "MAX_EARLY", 3)
    early.configure("info", "plain")
    for number in range(5):
        log.info("line %d", number)
    handed: list[str] = []
    assert early.hand_over(lambda record: handed.append(record.getMessage())) == 2
    assert handed == ["line 0", "line 1", "line 2"]


def test_a_reader_that_went_away_breaks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    early.configure("info", "plain")
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    log.info("into the void")
    monkeypatch.setattr(sys, "stderr", None)
    log.info("into nothing")
    handed: list[str] = []
    early.hand_over(lambda record: handed.append(record.getMessage()))
    assert handed == ["into the void", "into nothing"]


def test_restoring_leaves_logging_as_it_was(stderr: Captured) -> None:
    root = logging.getLogger()
    handlers, hooks = list(root.handlers), (sys.excepthook, threading.excepthook)
    early.configure("info", "plain")
    assert (sys.excepthook, threading.excepthook) != hooks
    early.restore()
    assert root.handlers == handlers
    assert (sys.excepthook, threading.excepthook) == hooks


def test_warnings_are_logged(stderr: Captured) -> None:
    early.configure("info", "plain")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        # catch_warnings puts the printing function back, so the log is asked to take it again.
        logging.captureWarnings(False)
        logging.captureWarnings(True)
        warnings.warn("old way", UserWarning, stacklevel=1)
        logging.captureWarnings(False)
    assert "old way" in stderr.getvalue()


PROGRAM = """
import sys, threading
from novacron.log import early, register_secret
early.configure("info", "json")
register_secret("hunter2hunter2")
def fail(): raise ValueError("hunter2hunter2 in a thread")
thread = threading.Thread(target=fail, name="worker")
thread.start(); thread.join()
class Bad:
    def __del__(self): raise ValueError("in a finalizer")
Bad()
raise RuntimeError("hunter2hunter2 at the top")
"""


def test_what_nobody_caught_is_logged_without_secrets() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    found = [json.loads(line) for line in done.stderr.splitlines()]
    assert [item["message"] for item in found] == [
        "an error in a thread was not caught",
        "an error could not be raised where it happened",
        "an error was not caught",
    ]
    assert found[0]["thread_name"] == "worker"
    assert found[2]["exception"]["type"] == "builtins.RuntimeError"
    assert "hunter2" not in done.stderr


def test_ctrl_c_is_no_error_of_the_program() -> None:
    program = (
        "from novacron.log import early\nearly.configure('info', 'json')\nraise KeyboardInterrupt"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert "an error was not caught" not in done.stderr
    assert done.stderr.rstrip().endswith("KeyboardInterrupt")
