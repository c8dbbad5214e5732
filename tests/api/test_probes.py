from __future__ import annotations

from typing import cast

import httpx
import pytest

from novacron.api.probes import Front
from novacron.component import NodeState, NodeView
from tests.api.stand_ins import NodeStandIn


async def get(front: Front, path: str, method: str = "GET") -> httpx.Response:
    transport = httpx.ASGITransport(front)
    async with httpx.AsyncClient(transport=transport, base_url="http://node") as client:
        return await client.request(method, path)


def make() -> tuple[NodeStandIn, Front]:
    node = NodeStandIn()
    return node, Front(cast(NodeView, node))


@pytest.mark.parametrize("state", NodeState)
async def test_ready_is_what_can_take_work_degraded_or_not(state: NodeState) -> None:
    node, front = make()
    node.state = state
    answer = await get(front, "/readyz")
    serving = state in (NodeState.READY, NodeState.DEGRADED)
    assert answer.status_code == (200 if serving else 503)
    assert answer.json() == {"state": state.value}


async def test_a_draining_api_is_not_ready_whatever_the_node_says() -> None:
    _, front = make()
    front.draining = True
    answer = await get(front, "/readyz")
    assert (answer.status_code, answer.json()) == (503, {"state": "stopping"})
    assert (await get(front, "/livez")).status_code == 200


async def test_started_stays_true_once_ready_was_reached() -> None:
    node, front = make()
    node.ready_seconds = None
    node.state = NodeState.STARTING
    assert (await get(front, "/startupz")).status_code == 503
    node.ready_seconds = 0.4
    node.state = NodeState.STOPPING
    assert (await get(front, "/startupz")).status_code == 200


async def test_alive_is_what_the_engine_says() -> None:
    node, front = make()
    assert (await get(front, "/livez")).status_code == 200
    node.is_alive = False
    assert (await get(front, "/livez")).status_code == 503


async def test_everything_else_is_told_to_come_back_while_the_application_is_built() -> None:
    _, front = make()
    answer = await get(front, "/api/v1/status")
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "api.starting"
    assert answer.json()["instance"] == answer.headers["x-request-id"]


async def test_probes_are_only_read() -> None:
    _, front = make()
    refused = await get(front, "/livez", "POST")
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
    assert refused.json()["code"] == "api.method"
    assert refused.json()["instance"] == refused.headers["x-request-id"]
    assert (await get(front, "/livez", "HEAD")).status_code == 200


async def test_a_websocket_is_closed_and_a_lifespan_ignored() -> None:
    _, front = make()
    sent: list[object] = []

    async def receive() -> dict[str, str]:
        return {"type": "websocket.connect"}

    async def send(message: object) -> None:
        sent.append(message)

    await front({"type": "websocket", "path": "/livez"}, receive, send)
    await front({"type": "lifespan"}, receive, send)
    assert sent == [{"type": "websocket.close"}]
