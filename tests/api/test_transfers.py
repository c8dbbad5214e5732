"""Transfers over the REST interface: who may move which files, and what a request may say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from novacron.dwcp.amst.transfer import ReceiveRequest, SendRequest
from novacron.errors import DwcpError, UnavailableError
from novacron.security import Role
from tests.api.calling import calling, records
from tests.api.conftest import Node

FULL_ID = "ab54" + "0" * 28


def request(**changes: Any) -> dict[str, Any]:
    body: dict[str, Any] = {
        "direction": "send",
        "node": "node-2:7401",
        "paths": ["/srv/a"],
        "path": "in/",
    }
    return {name: value for name, value in (body | changes).items() if value is not ...}


@pytest.fixture
def inside(node: Node) -> Path:
    """A directory that the node's configuration gives to transfers."""
    assert node.dwcp is not None
    return node.dwcp.directory


def requests(node: Node) -> list[SendRequest | ReceiveRequest]:
    assert node.dwcp is not None
    return [told[1] for told in node.dwcp.told if told[0] == "start"]


async def test_an_operator_moves_files_within_the_directories_for_transfers(
    node: Node, inside: Path
) -> None:
    async with calling(node, Role.OPERATOR) as client:
        sent = await client.post("/api/v1/transfers", json=request(paths=[f"{inside}/a"]))
        fetched = await client.post(
            "/api/v1/transfers",
            json=request(direction="receive", paths=["/elsewhere/b"], path=f"{inside}/new/"),
        )
    assert (sent.status_code, fetched.status_code) == (201, 201)
    assert sent.json()["state"] == "waiting"
    send, receive = requests(node)
    assert send == SendRequest(
        node="node-2:7401", paths=(f"{inside}/a",), path="in/", recursive=False, anywhere=False
    )
    assert receive == ReceiveRequest(
        node="node-2:7401", paths=("/elsewhere/b",), path=f"{inside}/new/", recursive=False
    )


async def test_everything_a_request_says_reaches_the_transfer(node: Node, inside: Path) -> None:
    said: dict[str, Any] = {
        "priority": "urgent",
        "limit_bps": 10_000_000,
        "deadline_seconds": 60.5,
        "overwrite": True,
        "on_change": "restart",
        "recursive": True,
    }
    async with calling(node, Role.ADMIN) as client:
        for direction in ("send", "receive"):
            body = request(direction=direction, path="/in/", **said)
            assert (await client.post("/api/v1/transfers", json=body)).status_code == 201
        body = request(**said, codec="zstd:-3")
        assert (await client.post("/api/v1/transfers", json=body)).status_code == 201
    send, receive, coded = requests(node)
    assert coded.codec == "zstd:-3"
    assert send == SendRequest("node-2:7401", ("/srv/a",), "/in/", **said, anywhere=True)
    assert receive == ReceiveRequest("node-2:7401", ("/srv/a",), "/in/", **said, anywhere=True)


@pytest.mark.parametrize("direction", ["send", "receive"])
@pytest.mark.parametrize("path", ["/etc/shadow", "{}/../x", "{}/a\n", "{}-other/x", "/"])
async def test_other_files_of_this_node_take_an_administrator(
    node: Node, inside: Path, direction: str, path: str
) -> None:
    path = path.format(inside)
    changes = {"paths": [path]} if direction == "send" else {"paths": ["/x"], "path": path}
    body = request(direction=direction, **changes)
    async with calling(node, Role.OPERATOR) as client:
        refused = await client.post("/api/v1/transfers", json=body)
    assert refused.status_code == 403
    problem = refused.json()
    assert (problem["code"], problem["key"]) == ("api.forbidden", "dwcp.amst.directories")
    assert "admin" in problem["remedy"]
    assert requests(node) == []
    async with calling(node, Role.ADMIN) as client:
        assert (await client.post("/api/v1/transfers", json=body)).status_code == 201
    [made] = requests(node)
    assert made.anywhere


async def test_one_path_outside_refuses_the_whole_transfer(node: Node, inside: Path) -> None:
    body = request(paths=[f"{inside}/a", "/etc/hosts"])
    async with calling(node, Role.OPERATOR) as client:
        refused = await client.post("/api/v1/transfers", json=body)
    assert "/etc/hosts" in refused.json()["detail"]
    assert requests(node) == []


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"direction": "sideways"}, "body.direction"),
        ({"node": ""}, "body.node"),
        ({"node": ...}, "body.node"),
        ({"paths": []}, "body.paths"),
        ({"paths": ["/a"] * 1001}, "body.paths"),
        ({"paths": ["a"]}, "body.paths.0"),
        ({"paths": ["/a", "/b\0"]}, "body.paths.1"),
        ({"paths": [7]}, "body.paths.0"),
        ({"path": ""}, "body.path"),
        ({"path": "é" * 2048}, "body.path"),
        ({"direction": "receive", "path": "relative"}, "body.path"),
        ({"priority": "now"}, "body.priority"),
        ({"limit_bps": -1}, "body.limit_bps"),
        ({"limit_bps": 2**63}, "body.limit_bps"),
        ({"limit_bps": "10"}, "body.limit_bps"),
        ({"limit_bps": True}, "body.limit_bps"),
        ({"deadline_seconds": 0}, "body.deadline_seconds"),
        ({"overwrite": 1}, "body.overwrite"),
        ({"on_change": "ignore"}, "body.on_change"),
        ({"codec": "gzip"}, "body.codec"),
        ({"codec": "zstd:20"}, "body.codec"),
        ({"codec": "off", "direction": "receive", "paths": ["a"], "path": "/b"}, "body.codec"),
        ({"colour": "red"}, "body.colour"),
    ],
)
async def test_a_request_that_is_none_is_refused_with_the_place(
    node: Node, changes: dict[str, Any], where: str
) -> None:
    assert node.dwcp is not None
    async with calling(node, Role.ADMIN) as client:
        refused = await client.post("/api/v1/transfers", json=request(**changes))
    assert refused.status_code == 422
    assert where in [error["where"] for error in refused.json()["errors"]]
    assert node.dwcp.told == []


async def test_half_a_character_in_a_path_is_no_incident(node: Node) -> None:
    body = b'{"direction":"send","node":"n","paths":["/\\ud800"],"path":"x"}'
    async with calling(node, Role.ADMIN) as client:
        refused = await client.post("/api/v1/transfers", content=body)
    assert refused.status_code == 422


async def test_a_transfer_is_found_by_the_beginning_of_its_id(node: Node) -> None:
    async with calling(node, Role.VIEWER) as client:
        assert (await client.get("/api/v1/transfers/ab54")).json()["id"] == FULL_ID
        assert (await client.get("/api/v1/transfers/abcd")).json()["code"] == (
            "dwcp.transfer_unknown"
        )
        assert (await client.get("/api/v1/transfers/ab5")).status_code == 422


@pytest.mark.parametrize(
    ("state", "count"), [("", 2), ("?state=all", 2), ("?state=active", 1), ("?state=ended", 1)]
)
async def test_transfers_are_listed_by_whether_they_ended(
    node: Node, state: str, count: int
) -> None:
    async with calling(node, Role.VIEWER) as client:
        found = (await client.get(f"/api/v1/transfers{state}")).json()["transfers"]
    assert len(found) == count


async def test_every_change_is_audited_under_the_whole_id(node: Node) -> None:
    assert node.dwcp is not None
    async with calling(node, Role.OPERATOR) as client:
        for action in ("pause", "resume", "cancel"):
            answer = await client.post(f"/api/v1/transfers/ab54/{action}")
            assert answer.status_code == 200
            assert answer.json()["id"] == FULL_ID
        limited = await client.post("/api/v1/transfers/ab54/limit", json={"limit_bps": 5})
        assert limited.json()["limit_bps"] == 5
        refused = await client.post("/api/v1/transfers/ab54/limit", json={"limit_bps": None})
        assert refused.status_code == 422
    assert node.dwcp.told == [
        (action, FULL_ID) for action in ("pause", "resume", "cancel", "limit")
    ]
    ended = [r for r in records(node) if r["action"].startswith("transfer.")]
    assert [
        (r["action"], r["outcome"], r["target"]) for r in ended if r["outcome"] != "started"
    ] == [
        ("transfer.pause", "success", FULL_ID),
        ("transfer.resume", "success", FULL_ID),
        ("transfer.cancel", "success", FULL_ID),
        ("transfer.limit", "success", FULL_ID),
        ("transfer.limit", "failure", FULL_ID),
    ]


async def test_a_new_transfer_is_audited_under_its_id(node: Node) -> None:
    async with calling(node, Role.ADMIN) as client:
        made = (await client.post("/api/v1/transfers", json=request())).json()
    last = records(node)[-1]
    assert (last["action"], last["outcome"], last["target"]) == (
        "transfer.start",
        "success",
        made["id"],
    )


async def test_without_the_transport_the_node_says_so(node: Node) -> None:
    node.dwcp = None
    async with calling(node, Role.ADMIN) as client:
        for path in ("dwcp", "transfers", "transfers/ab54"):
            refused = await client.get(f"/api/v1/{path}")
            assert refused.status_code == 503
            assert refused.json()["code"] == "api.not_here"
        assert (await client.post("/api/v1/transfers", json=request())).status_code == 503


async def test_an_error_of_the_transport_reaches_the_caller_whole(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    class BrokenError(DwcpError, UnavailableError):
        code = "dwcp.broken"

    async def start(*args: object) -> None:
        raise BrokenError("cannot send", why="no", remedy="mend it", key="dwcp.amst.port")

    monkeypatch.setattr("tests.api.dwcp_stand_in.TransfersStandIn.send", start)
    async with calling(node, Role.ADMIN) as client:
        answer = await client.post("/api/v1/transfers", json=request())
    assert answer.status_code == 503
    assert answer.json() | {"instance": ""} == {
        "type": "about:blank",
        "title": "Service Unavailable",
        "status": 503,
        "detail": "cannot send: no",
        "instance": "",
        "code": "dwcp.broken",
        "remedy": "mend it",
        "key": "dwcp.amst.port",
    }
