"""Commands that ask the running node, against a REST interface that answers as it is told."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from novacron.cli import client
from novacron.cli.client import is_loopback, split_address
from novacron.cli.tables import cell, pairs, table
from novacron.data_directory import DataDirectory
from novacron.errors import NovaCronError
from tests.cli.conftest import Answers, write_node

Run = Callable[..., tuple[int, str, str]]

COMPONENTS = {
    "components": [
        {
            "name": "cache",
            "phase": "core",
            "criticality": "degraded",
            "state": "failed",
            "health": {"state": "unhealthy", "message": "no memory"},
            "attempts": 4,
            "restorations": 0,
            "start_seconds": None,
            "failure": {"what": "cannot reserve", "why": "too little", "remedy": "add some"},
        },
        {
            "name": "api",
            "phase": "services",
            "criticality": "critical",
            "state": "ready",
            "health": {"state": "healthy", "message": ""},
            "attempts": 1,
            "restorations": 0,
            "start_seconds": 0.0123,
            "failure": None,
        },
    ]
}


def at(node: DataDirectory) -> tuple[str, str]:
    return "--data-dir", str(node.root)


def test_status_is_found_and_authorised_through_the_data_directory(
    run: Run, node: DataDirectory, rest: Answers
) -> None:
    rest.by_path["/api/v1/status"] = (
        200,
        {"state": "ready", "ready_seconds": 0.25, "degraded": [], "addresses": {"rest": "a:1"}},
    )
    status, out, err = run("status", *at(node))
    assert (status, err) == (0, "")
    assert rest.asked == [("/api/v1/status", "Bearer nct_1_planted")]
    assert out.splitlines() == [
        "state:         ready",
        "ready_seconds: 0.25",
        "degraded:      -",
        "addresses:",
        "  rest: a:1",
    ]


def test_json_is_the_answer_itself(run: Run, node: DataDirectory, rest: Answers) -> None:
    rest.by_path["/api/v1/components"] = (200, COMPONENTS)
    assert json.loads(run("components", "--json", *at(node))[1]) == COMPONENTS


def test_components_are_a_table_with_failures_below(
    run: Run, node: DataDirectory, rest: Answers
) -> None:
    rest.by_path["/api/v1/components"] = (200, COMPONENTS)
    lines = run("components", *at(node))[1].splitlines()
    assert lines[0].split()[:4] == ["NAME", "PHASE", "CRITICALITY", "STATE"]
    assert "unhealthy (no memory)" in lines[1]
    assert lines[2].split() == [
        "api",
        "services",
        "critical",
        "ready",
        "healthy",
        "0.012",
        "1",
        "0",
    ]
    assert "cache failed: cannot reserve" in lines
    assert "  remedy: add some" in lines


@pytest.mark.parametrize(("state", "code"), [("healthy", 0), ("degraded", 0), ("unhealthy", 1)])
def test_health_exits_1_when_something_is_unhealthy(
    run: Run, node: DataDirectory, rest: Answers, state: str, code: int
) -> None:
    answer = {"state": state, "components": {"cache": {"state": state, "message": "so"}}}
    rest.by_path["/api/v1/health?depth=deep"] = (200, answer)
    status, out, _ = run("health", "--depth", "deep", *at(node))
    assert status == code
    assert out.splitlines()[1].split() == ["cache", state, "so"]


def test_environment_shows_the_facts(run: Run, node: DataDirectory, rest: Answers) -> None:
    rest.by_path["/api/v1/environment"] = (200, {"facts": {"cpu": {"count": 2}, "kernel": "6.1"}})
    assert run("environment", *at(node))[1] == "cpu:\n  count: 2\nkernel: 6.1\n"


def test_peers_are_a_table_or_a_sentence(run: Run, node: DataDirectory, rest: Answers) -> None:
    rest.by_path["/api/v1/peers"] = (200, {"peers": [], "seeds": []})
    assert run("peers", *at(node))[1] == "no sessions with other nodes\n"
    rest.by_path["/api/v1/peers"] = (200, {"peers": [{"node_id": "n", "rtt": 0.001}], "seeds": []})
    assert run("peers", *at(node))[1].splitlines()[0].split() == ["NODE", "ID", "RTT"]


def test_version_works_with_and_without_a_node(
    run: Run, node: DataDirectory, rest: Answers, tmp_path: Path
) -> None:
    rest.by_path["/api/v1/version"] = (200, {"version": "9.9"})
    assert json.loads(run("version", "--json", *at(node))[1])["node"] == "9.9"
    assert json.loads(run("version", "--json", "--data-dir", str(tmp_path))[1])["node"] is None


def test_an_address_and_a_token_file_replace_the_data_directory(
    run: Run, rest: Answers, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("nct_2_other\n")
    rest.by_path["/api/v1/status"] = (200, {})
    arguments = ("--token-file", str(tmp_path / "token"), "--data-dir", str(tmp_path / "none"))
    for address in (rest.address, f"http://{rest.address}/"):
        assert run("status", "--address", address, *arguments)[0] == 0
    assert {token for _, token in rest.asked} == {"Bearer nct_2_other"}


def fails(run: Run, *arguments: str) -> str:
    status, out, err = run("status", *arguments)
    assert (status, out) == (1, "")
    assert err.startswith("novacron: ")
    assert "\n  do:  " in err
    return err


def test_no_node_is_said_with_what_to_do(run: Run, tmp_path: Path) -> None:
    err = fails(run, "--data-dir", str(tmp_path))
    assert "no node is running" in err
    assert "novacron boot" in err
    assert "key: system.data_dir" in err


def test_a_file_left_by_a_dead_node_is_recognised(run: Run, node: DataDirectory) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait(60)
    write_node(node, dead.pid, "127.0.0.1:1")
    assert f"left behind by process {dead.pid}" in fails(run, *at(node))


def test_the_token_is_not_shown_to_another_users_process_that_has_the_nodes_number(
    run: Run, node: DataDirectory, rest: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its number came round again, and it listens where the node did.
    write_node(node, os.getpid(), rest.address)
    real = client._owner
    real = client._owner
    with monkeypatch.context() as patch:
        patch.setattr(client, "_owner", lambda path: 4711 if "proc" in str(path) else real(path))
        assert f"left behind by process {os.getpid()}" in fails(run, *at(node))
    assert rest.asked == []


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"pid": 1}', '{"pid": "x", "addresses": {"rest": "a"}}']
)
def test_a_damaged_node_file_is_no_crash(run: Run, node: DataDirectory, text: str) -> None:
    (node.run / "node.json").write_text(text)
    assert "cannot find the running node" in fails(run, *at(node))


def test_a_refused_connection_is_explained(run: Run, node: DataDirectory) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    write_node(node, os.getpid(), f"127.0.0.1:{port}")
    assert "Connection refused" in fails(run, *at(node))


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "--token-file"),
        (403, "--token-file"),
        (404, "version"),
        (429, "later"),
        (503, "later"),
        (500, "log"),
    ],
)
def test_a_refusal_is_passed_on_with_a_remedy(
    run: Run, node: DataDirectory, rest: Answers, status: int, words: str
) -> None:
    rest.by_path["/api/v1/status"] = (status, {"title": "No", "detail": "because of this"})
    err = fails(run, *at(node))
    assert "because of this" in err
    assert words in err


def test_the_nodes_own_remedy_and_key_win(run: Run, node: DataDirectory, rest: Answers) -> None:
    problem = {"detail": "d", "remedy": "turn it on", "key": "api.port"}
    rest.by_path["/api/v1/status"] = (409, problem)
    err = fails(run, *at(node))
    assert "do:  turn it on" in err
    assert "key: api.port" in err


def test_something_that_is_no_node_is_recognised(
    run: Run, node: DataDirectory, rest: Answers
) -> None:
    rest.by_path["/api/v1/status"] = (200, b"<html>")
    assert "the body is not JSON" in fails(run, *at(node))


def test_an_address_that_can_be_none_is_said_to_be_that(run: Run, node: DataDirectory) -> None:
    err = fails(run, "--address", "http://a..example:7400", *at(node))
    assert "it is no host name" in err


def test_what_a_node_says_moves_no_cursor(run: Run, node: DataDirectory, rest: Answers) -> None:
    rest.by_path["/api/v1/status"] = (403, {"detail": "no\x1b[2J\x1b]0;owned\x07\nline"})
    err = fails(run, *at(node))
    assert "\x1b" not in err
    assert "no\ufffd[2J\ufffd]0;owned\ufffd\n       line" in err


def test_an_endless_answer_is_cut_off(
    run: Run, node: DataDirectory, rest: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("novacron.cli.client.MAX_ANSWER", 10)
    rest.by_path["/api/v1/status"] = (200, {"long": "x" * 100})
    assert "longer than 10 bytes" in fails(run, *at(node))


def test_a_silent_node_is_given_up_on(
    run: Run, node: DataDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("novacron.cli.client.DEADLINE", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        write_node(node, os.getpid(), f"127.0.0.1:{listener.getsockname()[1]}")
        assert "does not answer" in fails(run, *at(node))


def test_a_node_that_hangs_up_may_speak_tls_only(
    run: Run, node: DataDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hang_up(*args: object, **kwargs: object) -> None:
        raise http.client.RemoteDisconnected("closed")

    monkeypatch.setattr(http.client.HTTPConnection, "getresponse", hang_up)
    err = fails(run, *at(node))
    assert "speaks TLS only" in err
    assert "--address https://" in err
    assert "key: api.tls" in err


def test_plain_http_behind_https_is_explained(
    run: Run, node: DataDirectory, rest: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.pki.mkdir()
    assert "cannot use the authority's certificate" in fails(
        run, *at(node), "--address", f"https://{rest.address}"
    )
    monkeypatch.setattr("ssl.SSLContext.load_verify_locations", lambda *args, **kwargs: None)
    assert "cannot make a TLS connection" in fails(
        run, *at(node), "--address", f"https://{rest.address}"
    )


@pytest.mark.parametrize("address", ["nowhere", ":1", "a:b", "a:99999", "http://a"])
def test_an_address_that_is_none_is_refused(run: Run, node: DataDirectory, address: str) -> None:
    assert "it is not HOST:PORT" in fails(run, *at(node), "--address", address)


@pytest.mark.parametrize("content", [None, b"\xff\xff", b"two\nlines"])
def test_a_token_file_that_holds_none_is_refused(
    run: Run, node: DataDirectory, tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    err = fails(run, *at(node), "--token-file", str(file))
    assert f"the token file {file}" in err
    assert "two" not in err.replace(str(file), "")


def test_addresses_are_split_also_for_version_6() -> None:
    assert split_address("[::1]:7400") == ("::1", 7400)
    assert split_address("example.net:1") == ("example.net", 1)
    with pytest.raises(NovaCronError):
        split_address("")
    assert is_loopback("127.0.0.2")
    assert is_loopback("::1")
    assert not is_loopback("192.0.2.1")


def test_tables_and_pairs_show_every_kind_of_value() -> None:
    assert cell(None) == "-"
    assert cell(True) == "yes"
    assert cell(1.5) == "1.5"
    assert cell([]) == "-"
    assert cell({"a": [1, 2]}) == "a=1, 2"
    assert cell("x\x1b[2J") == "x\ufffd[2J"
    assert table(("a", "b"), [[1, None]]) == "A  B\n1  -"
    assert pairs({"list": [{"a": 1, "b": 2}], "empty": {}}) == (
        "list:\n  - a: 1\n    b: 2\nempty: -"
    )
