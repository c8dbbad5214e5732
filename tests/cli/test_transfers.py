"""``novacron transfers`` and ``novacron dwcp``."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from novacron.data_directory import DataDirectory
from tests.api.dwcp_stand_in import transfer_view
from tests.cli.conftest import Answers
from tests.cli.test_node import at

Run = Callable[..., tuple[int, str, str]]

ONE, TWO = "ab54" + "0" * 28, "cd77" + "0" * 28
ALL = "/api/v1/transfers?state=all"
ACTIVE = "/api/v1/transfers?state=active"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("novacron.cli.watching.POLL", 0.01)


def listed(*views: dict[str, Any]) -> tuple[int, Any]:
    return 200, {"transfers": list(views)}


def test_without_an_action_they_are_listed(run: Run, node: DataDirectory, rest: Answers) -> None:
    received = transfer_view(
        TWO,
        role="receiver",
        direction="receive",
        state="failed",
        why="no room",
        remedy="free some",
        destination="/srv/in",
    )
    sent = transfer_view(ONE, paths=["/srv/a", "/srv/b", "/srv/c"])
    rest.by_path[ALL] = listed(sent, received)
    for arguments in (("transfers",), ("transfers", "list")):
        status, out, err = run(*arguments, *at(node))
        assert (status, err) == (0, "")
        lines = out.splitlines()
        shown = "ab540000 send 7669cb21 moving 25% 4.0 GiB 244 MiB/s 12 s 1/2 /srv/a and 2 more"
        assert " ".join(lines[1].split()) == shown
        assert lines[2].split()[:4] == ["cd770000", "receive", "7669cb21", "failed"]
        assert lines[2].split()[-4:] == ["-", "-", "1/2", "/srv/in"]
        assert lines[3:] == ["", "cd770000 failed: no room", "  remedy: free some"]
    assert json.loads(run("transfers", "--json", *at(node))[1]) == rest.by_path[ALL][1]


def test_no_transfers_is_a_sentence(run: Run, node: DataDirectory, rest: Answers) -> None:
    rest.by_path[ACTIVE] = listed()
    assert run("transfers", "list", "--active", *at(node)) == (0, "no transfers\n", "")
    assert run("transfers", "watch", *at(node)) == (0, "no transfers under way\n", "")


def test_help_is_not_taken_for_an_option_of_the_list(run: Run) -> None:
    status, out, _ = run("transfers", "--help")
    assert status == 0
    for action in ("list", "show", "watch", "pause", "resume", "cancel", "limit"):
        assert f"\n    {action}" in out


def test_one_is_shown_with_sizes_and_times_to_read(
    run: Run, node: DataDirectory, rest: Answers
) -> None:
    rest.by_path["/api/v1/transfers/ab54"] = (200, transfer_view(ONE))
    _, out, _ = run("transfers", "show", "AB54", *at(node))
    assert "bytes_total:        4294967296 (4.0 GiB)" in out
    assert "finished_at:        -" in out
    assert "created_at:         2023-11-1" in out
    _, out, _ = run("transfers", "show", "ab54", "--json", *at(node))
    assert json.loads(out) == transfer_view(ONE)


def test_whatever_is_typed_as_an_id_stays_one_part_of_the_path(
    run: Run, node: DataDirectory, rest: Answers
) -> None:
    for id in ("../tokens", "a/b", "", "é?x"):
        assert run("transfers", "show", id, *at(node))[0] == 1
    assert [path for path, _ in rest.asked] == [
        "/api/v1/transfers/..%2Ftokens",
        "/api/v1/transfers/a%2Fb",
        "/api/v1/transfers/-",
        "/api/v1/transfers/%C3%A9%3Fx",
    ]


def test_all_under_way_are_watched_until_the_last_has_ended(
    run: Run, node: DataDirectory, rest: Answers
) -> None:
    one, two = transfer_view(ONE), transfer_view(TWO)
    rest.in_turn[ACTIVE] = [listed(one), listed(one, two), listed(two)]
    rest.by_path[ACTIVE] = listed()
    rest.by_path[f"/api/v1/transfers/{ONE}"] = (200, transfer_view(ONE, state="done"))
    failed = transfer_view(TWO, state="failed", why="no room")
    rest.by_path[f"/api/v1/transfers/{TWO}"] = (200, failed)
    status, out, _ = run("transfers", "watch", *at(node))
    assert status == 1
    assert out.splitlines()[-2:] == ["ab540000 done", "cd770000 failed: no room"]


def test_watching_in_json_is_a_line_for_each_change(
    run: Run, node: DataDirectory, rest: Answers
) -> None:
    path = "/api/v1/transfers/ab54"
    seen = [transfer_view(ONE), transfer_view(ONE, bytes_done=2 * 1024**3)]
    rest.in_turn[path] = [(200, seen[0]), (200, seen[0]), (200, seen[1])]
    rest.by_path[path] = (200, transfer_view(ONE, state="done"))
    status, out, _ = run("transfers", "watch", "ab54", "--json", *at(node))
    assert status == 0
    assert [json.loads(line) for line in out.splitlines()] == [
        *seen,
        transfer_view(ONE, state="done"),
    ]


@pytest.mark.parametrize(
    ("action", "state"), [("pause", "paused"), ("resume", "moving"), ("cancel", "cancelled")]
)
def test_several_are_changed_at_once(
    run: Run, node: DataDirectory, rest: Answers, action: str, state: str
) -> None:
    for short, whole in (("ab54", ONE), ("cd77", TWO)):
        answer = transfer_view(whole, state=state)
        rest.by_path[f"/api/v1/transfers/{short}/{action}"] = (200, answer)
    status, out, _ = run("transfers", action, "ab54", "cd77", *at(node))
    assert (status, out) == (0, f"{ONE} {state}\n{TWO} {state}\n")
    assert [path.rpartition("/")[2] for path, _ in rest.posted] == [action, action]
    _, out, _ = run("transfers", action, "ab54", "--json", *at(node))
    assert [view["id"] for view in json.loads(out)["transfers"]] == [ONE]


def test_a_limit_is_bytes_a_second(run: Run, node: DataDirectory, rest: Answers) -> None:
    path = "/api/v1/transfers/ab54/limit"
    rest.by_path[path] = (200, transfer_view(ONE, limit_bps=100_000_000))
    status, out, _ = run("transfers", "limit", "ab54", "800Mbit", *at(node))
    assert (status, out) == (0, f"{ONE} moving, at most 95.4 MiB/s\n")
    run("transfers", "limit", "ab54", "none", *at(node))
    assert rest.posted == [(path, {"limit_bps": 100_000_000}), (path, {"limit_bps": 0})]


def test_a_refused_change_names_the_transfer(run: Run, node: DataDirectory, rest: Answers) -> None:
    rest.by_path["/api/v1/transfers/ab54/pause"] = (409, {"detail": "it has ended"})
    status, _, err = run("transfers", "pause", "ab54", *at(node))
    assert status == 1
    assert "the node refused to pause transfer ab54" in err
    assert "it has ended" in err


def test_dwcp_says_wanted_got_and_why_and_lists_links_and_streams(
    run: Run, node: DataDirectory, rest: Answers
) -> None:
    answer = {
        "mode": "auto",
        "protocol": {"wanted": "auto", "got": "v3", "why": ""},
        "encryption": {"wanted": "on", "got": "on", "why": ""},
        "rdma": {"wanted": "auto", "got": "off", "why": "there is no RDMA device"},
        "links": [],
    }
    rest.by_path["/api/v1/dwcp"] = (200, answer)
    _, out, _ = run("dwcp", *at(node))
    assert "rdma        auto    off  there is no RDMA device" in out.splitlines()
    assert out.endswith("\nno links to other nodes\n")
    stream = {"id": 1, "state": "open", "mover": "tcp", "rtt_us": 1500, "total_retrans": 3}
    answer["links"] = [
        {
            "peer": "7669cb21",
            "protocol": 3,
            "mover": "tcp",
            "encrypted": True,
            "why": "the other node takes 16 streams",
            "counters": {"sent_bytes": 1024**3},
            "streams": [stream],
        }
    ]
    _, out, _ = run("dwcp", "--streams", *at(node))
    assert "7669cb21: version 3 over tcp, encrypted, 1 stream" in out
    assert "  sent 1.0 GiB, received 0 B, sent twice 0 B" in out
    assert "  reduced: the other node takes 16 streams" in out
    assert "no RDMA:" not in out
    assert out.splitlines()[-1].split()[:5] == ["1", "open", "tcp", "1.5", "ms"]
    assert json.loads(run("dwcp", "--json", *at(node))[1]) == answer
    link = answer["links"][0]
    # A link does not say again what the node said.
    link["rdma"] = answer["rdma"]
    assert "no RDMA:" not in run("dwcp", *at(node))[1]
    link["rdma"] = {"wanted": "auto", "got": "off", "why": "RDMA device rxe0 was removed"}
    assert "  no RDMA: RDMA device rxe0 was removed" in run("dwcp", *at(node))[1]
