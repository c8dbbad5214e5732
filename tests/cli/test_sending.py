"""``novacron send`` and ``receive`` against a node that answers as it is told."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from novacron.data_directory import DataDirectory
from tests.api.dwcp_stand_in import transfer_view
from tests.cli.conftest import HANG_UP, Answers, write_node
from tests.cli.test_node import at

Run = Callable[..., tuple[int, str, str]]

ID = "ab54" + "0" * 28
START = "/api/v1/transfers"
VIEW = f"/api/v1/transfers/{ID}"
CANCEL = f"{VIEW}/cancel"

MOVING = transfer_view(ID)
DONE = transfer_view(
    ID,
    state="done",
    files_done=2,
    bytes_done=4 * 1024**3,
    streams=0,
    current=None,
    finished_at=1_700_000_016.5,
)
FAILED = transfer_view(
    ID,
    state="failed",
    why="2 of 3 files were not sent",
    remedy="look at them",
    errors=[{"path": "/a", "why": "it is a socket"}, {"path": "/b\n", "why": "it changed"}],
)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("novacron.cli.watching.POLL", 0.01)
    monkeypatch.setattr("novacron.cli.watching.RETRY", 0.01)


def starting(rest: Answers, *then: tuple[int, Any]) -> None:
    rest.by_path[START] = (201, transfer_view(ID, state="waiting"))
    rest.in_turn[VIEW] = list(then[:-1])
    rest.by_path[VIEW] = then[-1]


def test_sending_starts_a_transfer_follows_it_and_sums_it_up(
    run: Run, node: DataDirectory, rest: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starting(rest, (200, MOVING), (200, DONE))
    monkeypatch.chdir(tmp_path)
    status, out, err = run("send", "a", "/srv/b", "node-2:in/", *at(node))
    assert status == 0
    assert rest.posted == [
        (
            START,
            {
                "direction": "send",
                "node": "node-2",
                "paths": [f"{tmp_path.resolve()}/a", "/srv/b"],
                "path": "in/",
                "recursive": False,
                "overwrite": False,
                "on_change": "refuse",
                "priority": "normal",
                "limit_bps": 0,
                "deadline_seconds": None,
            },
        )
    ]
    assert out.startswith("sent 2 files, 4.0 GiB in 16 s")
    assert [line.split("  ")[0] for line in err.splitlines()] == ["ab540000", "ab540000"]


def test_every_option_reaches_the_node(run: Run, node: DataDirectory, rest: Answers) -> None:
    starting(rest, (200, DONE))
    options = "-r --limit 10M --priority urgent --deadline 2h --overwrite --on-change restart"
    options += " --codec zstd:-3 --tenant blue --dedup never"
    assert run("send", *options.split(), "/a", "n:b", "--quiet", *at(node)) == (0, "", "")
    [(_, request)] = rest.posted
    assert (
        request
        | {
            "recursive": True,
            "limit_bps": 10_000_000,
            "priority": "urgent",
            "deadline_seconds": 7200.0,
            "overwrite": True,
            "on_change": "restart",
            "codec": "zstd:-3",
            "tenant": "blue",
            "dedup": "never",
        }
        == request
    )


def test_receiving_names_the_other_nodes_paths_and_one_of_ours(
    run: Run, node: DataDirectory, rest: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starting(rest, (200, DONE))
    monkeypatch.chdir(tmp_path)
    assert run("receive", "[::1]:7401:a", "[::1]:7401:/b", "./", *at(node))[0] == 0
    [(_, request)] = rest.posted
    assert (request["direction"], request["node"]) == ("receive", "[::1]:7401")
    assert (request["paths"], request["path"]) == (["a", "/b"], f"{tmp_path.resolve()}/.")


def test_detached_prints_the_id_and_does_not_wait(
    run: Run, node: DataDirectory, rest: Answers
) -> None:
    starting(rest, (200, MOVING))
    assert run("send", "/a", "n:b", "--detach", *at(node)) == (0, f"{ID}\n", "")
    _, out, _ = run("send", "/a", "n:b", "--detach", "--json", *at(node))
    assert json.loads(out)["id"] == ID
    assert rest.asked == []


def test_json_is_one_object_at_the_end(run: Run, node: DataDirectory, rest: Answers) -> None:
    starting(rest, (200, MOVING), (200, DONE))
    status, out, err = run("send", "/a", "n:b", "--json", *at(node))
    assert (status, json.loads(out), err) == (0, DONE, "")
    rest.by_path[VIEW] = (200, FAILED)
    status, out, err = run("send", "/a", "n:b", "--json", *at(node))
    assert (status, json.loads(out), err) == (1, FAILED, "")


def test_a_failed_transfer_says_why_for_each_file_and_what_to_do(
    run: Run, node: DataDirectory, rest: Answers
) -> None:
    starting(rest, (200, FAILED))
    status, out, err = run("send", "/a", "n:b", "--quiet", *at(node))
    assert (status, out) == (1, "")
    assert err.splitlines() == [
        f"novacron: transfer {ID} failed",
        "  why: 2 of 3 files were not sent",
        "       /a: it is a socket",
        "       /b\ufffd: it changed",
        "  do:  look at them",
    ]


def test_a_transfer_somebody_cancelled_is_a_failure(
    run: Run, node: DataDirectory, rest: Answers
) -> None:
    starting(rest, (200, transfer_view(ID, state="cancelled", why="cancelled by token:5f0c")))
    status, _, err = run("send", "/a", "n:b", "--quiet", *at(node))
    assert status == 1
    assert f"transfer {ID} was cancelled" in err
    assert "token:5f0c" in err


def test_a_refusal_is_passed_on(run: Run, node: DataDirectory, rest: Answers) -> None:
    problem = {"detail": "no room: 3 GiB are missing", "remedy": "free some"}
    rest.by_path[START] = (409, problem)
    status, _, err = run("send", "/a", "n:b", *at(node))
    assert status == 1
    assert err.splitlines()[:3] == [
        "novacron: the node refused to send the files",
        "  why: no room: 3 GiB are missing",
        "  do:  free some",
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("send", "a", "b"), "it is not NODE:PATH"),
        (("receive", "a", "b"), "it is not NODE:PATH"),
        (("receive", "n:a", "m:b", "c"), "several nodes"),
        (("send", "", "n:b"), "empty path"),
    ],
)
def test_arguments_without_sense_are_refused_before_the_node_is_asked(
    run: Run, node: DataDirectory, rest: Answers, arguments: tuple[str, ...], words: str
) -> None:
    status, _, err = run(*arguments, *at(node))
    assert status == 1
    assert words in err
    assert rest.posted == []


@pytest.mark.parametrize("options", [("--limit", "fast"), ("--deadline", "soon")])
def test_a_rate_or_a_time_that_is_none_is_a_usage_error(
    run: Run, node: DataDirectory, options: tuple[str, str]
) -> None:
    assert run("send", "/a", "n:b", *options, *at(node))[0] == 2


def test_a_node_that_restarts_is_waited_for(run: Run, node: DataDirectory, rest: Answers) -> None:
    starting(
        rest,
        (200, MOVING),
        (200, HANG_UP),
        (200, HANG_UP),
        (503, {"detail": "the node is starting"}),
        (200, MOVING),
        (200, DONE),
    )
    status, out, err = run("send", "/a", "n:b", *at(node))
    assert status == 0
    assert "hung up" in err
    assert "waiting up to 120 s" in err
    assert err.count("the node is back") == 1
    assert out.startswith("sent 2 files")


def test_a_node_that_comes_back_elsewhere_is_found(
    run: Run, node: DataDirectory, rest: Answers
) -> None:
    starting(rest, (200, MOVING), (200, HANG_UP), (200, DONE))
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait(60)

    class Restarting(list[tuple[int, Any]]):
        """Says at the hang-up that no node runs, and a little later that one does again."""

        def pop(self, index: Any = -1) -> tuple[int, Any]:
            answer = super().pop(index)
            if answer[1] is HANG_UP:
                write_node(node, gone.pid, "127.0.0.1:1")
                later = threading.Timer(0.2, write_node, (node, os.getpid(), rest.address))
                later.start()
            return answer

    rest.in_turn[VIEW] = Restarting(rest.in_turn[VIEW])
    status, _, err = run("send", "/a", "n:b", *at(node))
    assert status == 0
    assert "the node is back" in err


def test_a_node_that_stays_away_is_given_up_on(
    run: Run, node: DataDirectory, rest: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("novacron.cli.watching.PATIENCE", 0.05)
    starting(rest, (200, HANG_UP))
    status, _, err = run("send", "/a", "n:b", *at(node))
    assert status == 1
    assert "hung up" in err


def test_a_transfer_the_node_forgot_is_an_error_at_once(
    run: Run, node: DataDirectory, rest: Answers
) -> None:
    starting(rest, (404, {"detail": "there is no transfer"}))
    status, _, err = run("send", "/a", "n:b", *at(node))
    assert status == 1
    assert "there is no transfer" in err


def command(node: DataDirectory, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "novacron", *arguments, *at(node)]


def interrupted(process: subprocess.Popen[str], rest: Answers) -> str:
    """Standard error of *process*, sent SIGINT once it has looked at its transfer."""
    deadline = time.monotonic() + 60
    while not rest.asked:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    return process.communicate(timeout=60)[1]


def start(node: DataDirectory, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(node, *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_ctrl_c_cancels_the_transfer_and_says_how_not_to(
    node: DataDirectory, rest: Answers
) -> None:
    starting(rest, (200, MOVING))
    rest.by_path[CANCEL] = (200, transfer_view(ID, state="cancelled"))
    process = start(node, "send", "/a", "n:b")
    err = interrupted(process, rest)
    assert process.returncode == 130
    assert rest.posted[1:] == [(CANCEL, None)]
    assert f"cancelled transfer {ID}" in err
    assert "--detach" in err
    assert "Traceback" not in err


def test_ctrl_c_says_when_the_transfer_could_not_be_cancelled(
    node: DataDirectory, rest: Answers
) -> None:
    starting(rest, (200, MOVING))
    rest.by_path[CANCEL] = (503, {"detail": "the audit log cannot be written"})
    process = start(node, "send", "/a", "n:b")
    err = interrupted(process, rest)
    assert process.returncode == 130
    assert "the audit log cannot be written" in err
    assert f"transfer {ID} may still be under way" in err


def test_ctrl_c_leaves_what_is_only_watched(node: DataDirectory, rest: Answers) -> None:
    rest.by_path[VIEW] = (200, MOVING)
    process = start(node, "transfers", "watch", ID)
    err = interrupted(process, rest)
    assert process.returncode == 130
    assert rest.posted == []
    assert err == ""


def test_a_terminal_gets_a_bar_that_is_gone_at_the_end(node: DataDirectory, rest: Answers) -> None:
    starting(rest, (200, MOVING), (200, transfer_view(ID, bytes_done=3 * 1024**3)), (200, DONE))
    main_end, terminal = pty.openpty()
    try:
        environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "120", "LINES": "24"}
        process = subprocess.Popen(
            command(node, "send", "/a", "n:b"),
            stdout=subprocess.PIPE,
            stderr=terminal,
            env=environment,
        )
        os.close(terminal)
        drawn: list[bytes] = []
        reader = threading.Thread(target=read_all, args=(main_end, drawn))
        reader.start()
        out = process.communicate(timeout=60)[0].decode()
        reader.join(60)
    finally:
        os.close(main_end)
    shown = b"".join(drawn).decode()
    assert process.returncode == 0
    assert out.startswith("sent 2 files, 4.0 GiB")
    for words in ("25%", "75%", "244 MiB/s", "8 streams", "513 MiB on the wire", "a.qcow2", "━"):
        assert words in shown, words
    assert "\x1b[?25l" in shown
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")
    # The lines of the bar are erased: what remains on the screen is what standard output got.
    assert "\x1b[2K" in shown[shown.rindex("75%") :]


def read_all(descriptor: int, into: list[bytes]) -> None:
    while True:
        try:
            data = os.read(descriptor, 65536)
        except OSError:  # EIO: the other end of a terminal was closed.
            return
        if not data:
            return
        into.append(data)
