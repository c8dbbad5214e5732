"""The component over real sockets."""

from __future__ import annotations

import inspect
import json
import ssl
import subprocess
import sys
import typing
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import trio

from novacron.api import Api
from novacron.boot.report import Report
from novacron.boot.report_store import ReportStore
from novacron.cache import Cache
from novacron.component import HealthDepth, HealthState, NodeState, NodeView
from novacron.config.schema import ApiSettings
from novacron.database import Database
from novacron.environment import Environment, Identity
from novacron.environment.ports import PortTakenError
from novacron.network import Network
from novacron.security import Role, Security
from tests.api.conftest import Node


@asynccontextmanager
async def serving(api: Api) -> AsyncIterator[trio.Nursery]:
    async with trio.open_nursery() as nursery:
        try:
            await api.initialize(nursery)
            yield nursery
        finally:
            with trio.CancelScope(shield=True):
                await api.shutdown()
            nursery.cancel_scope.cancel()


def base_url(node: Node, scheme: str = "http") -> str:
    return f"{scheme}://{node.view.addresses['rest']}"


async def test_it_serves_where_it_says_and_can_be_started_again(node: Node) -> None:
    api = node.api()
    secret = await node.token(Role.VIEWER)
    published = set()
    for _ in range(2):
        async with serving(api):
            published.add(node.view.addresses["rest"])
            async with httpx.AsyncClient(base_url=base_url(node)) as client:
                assert (await client.get("/livez")).json() == {"state": "alive"}
                answer = await client.get(
                    "/api/v1/status", headers={"authorization": f"Bearer {secret}"}
                )
                assert answer.json()["state"] == "ready"
            assert (await api.health_check(HealthDepth.DEEP)).state is HealthState.HEALTHY
            assert api.statistics()["tls"] is False
        assert (await api.health_check(HealthDepth.SHALLOW)).state is HealthState.UNHEALTHY
    assert len(published) == 1


async def test_the_probes_answer_before_the_application_is_built(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    from novacron.api import component

    build, may_build = component._build, threading.Event()

    def waiting(*arguments: Any) -> Any:
        assert may_build.wait(20)
        return build(*arguments)

    monkeypatch.setattr(component, "_build", waiting)
    node.view.state = NodeState.STARTING
    node.view.ready_seconds = None
    api = node.api()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(api.initialize, nursery)
        while not (api._address and api._server and api._server._shared):
            await trio.sleep(0.01)
        async with httpx.AsyncClient(base_url=f"http://{api._address}") as client:
            assert (await client.get("/livez")).status_code == 200
            assert (await client.get("/readyz")).status_code == 503
            assert (await client.get("/startupz")).status_code == 503
            early = await client.get("/api/v1/status")
            assert (early.status_code, early.json()["code"]) == (503, "api.starting")
            assert "rest" not in node.view.addresses
            may_build.set()
            while "rest" not in node.view.addresses:
                await trio.sleep(0.01)
            assert (await client.get("/api/v1/status")).status_code == 401
        await api.shutdown()
        nursery.cancel_scope.cancel()


async def test_a_taken_port_names_its_key_and_leaves_nothing_behind(node: Node) -> None:
    async with serving(node.api()):
        port = int(node.view.addresses["rest"].rpartition(":")[2])
        second = node.api(port=port)
        async with trio.open_nursery() as nursery:
            with pytest.raises(PortTakenError) as caught:
                await second.initialize(nursery)
            await second.shutdown()
    assert caught.value.key == "api.port"
    assert f"127.0.0.1:{port}" in caught.value.what


async def test_drain_finishes_the_call_in_flight_and_closes_idle_connections(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, leave = trio.Event(), trio.Event()

    async def refresh() -> None:
        entered.set()
        await leave.wait()

    monkeypatch.setattr(node.environment, "refresh", refresh)
    secret = await node.token(Role.OPERATOR)
    api = node.api()
    answers: list[httpx.Response] = []
    async with (
        serving(api),
        httpx.AsyncClient(
            base_url=base_url(node), headers={"authorization": f"Bearer {secret}"}
        ) as client,
    ):

        async def call() -> None:
            answers.append(await client.post("/api/v1/environment/refresh"))

        async with trio.open_nursery() as calls:
            calls.start_soon(call)
            await entered.wait()
            async with trio.open_nursery() as drains:
                drains.start_soon(api.drain)
                await trio.testing.wait_all_tasks_blocked(0.01)
                with pytest.raises(httpx.ConnectError):
                    async with httpx.AsyncClient(base_url=base_url(node)) as other:
                        await other.get("/livez")
                leave.set()
        assert answers[0].status_code == 200


async def test_with_tls_a_client_certificate_makes_a_node_of_the_caller(node: Node) -> None:
    api = node.api(tls="on")
    files = node.security.certificates.api_files()
    context = ssl.create_default_context(cafile=str(files.authority))
    context.check_hostname = False
    async with serving(api):
        url = base_url(node, "https")
        async with httpx.AsyncClient(base_url=url, verify=context) as client:
            anonymous = await client.get("/api/v1/whoami")
            assert anonymous.status_code == 401
            secret = await node.token(Role.VIEWER)
            header = {"authorization": f"Bearer {secret}"}
            assert (await client.get("/api/v1/whoami", headers=header)).json()["role"] == "viewer"
        context.load_cert_chain(files.certificate, files.private_key)
        async with httpx.AsyncClient(base_url=url, verify=context) as client:
            who = (await client.get("/api/v1/whoami")).json()
        assert (who["kind"], who["role"]) == ("certificate", "node")
        assert api.statistics()["tls"] is True
        assert (await api.health_check(HealthDepth.DEEP)).state is HealthState.HEALTHY


async def test_tls_below_1_3_is_refused(node: Node) -> None:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with serving(node.api(tls="on")):
        client = httpx.AsyncClient(base_url=base_url(node, "https"), verify=context)
        with pytest.raises(httpx.ConnectError):
            await client.get("/livez")
        await client.aclose()


@pytest.mark.parametrize(
    ("address", "tls", "encrypted"),
    [
        ("127.0.0.1", "auto", False),
        ("127.0.0.53", "auto", False),
        ("::1", "auto", False),
        ("0.0.0.0", "auto", True),
        ("192.0.2.1", "auto", True),
        ("192.0.2.1", "off", False),
        ("127.0.0.1", "on", True),
    ],
)
async def test_tls_is_on_unless_the_address_is_loopback(
    node: Node, address: str, tls: str, encrypted: bool
) -> None:
    assert node.api(listen_address=address, tls=tls)._encrypted is encrypted


async def test_new_rate_limits_apply_without_a_restart(node: Node) -> None:
    api = node.api(rate_limit=0.001, rate_burst=1)
    secret = await node.token(Role.VIEWER)
    async with (
        serving(api),
        httpx.AsyncClient(
            base_url=base_url(node), headers={"authorization": f"Bearer {secret}"}
        ) as client,
    ):
        assert (await client.get("/api/v1/version")).status_code == 200
        assert (await client.get("/api/v1/version")).status_code == 429
        await api.reload(ApiSettings(rate_limit=1e6, rate_burst=100))
        await trio.sleep(0.01)
        assert (await client.get("/api/v1/version")).status_code == 200
    assert Api.reloadable_keys == {"api.rate_limit", "api.rate_burst"}


async def test_kept_boot_reports_can_be_listed_and_read(node: Node) -> None:
    report = Report.new(
        boot_id="3a5c1c52-77aa-4b58-b4b0-1f0dbb43a3a1",
        pid=1,
        started=1_700_000_000.0,
        schedule="dataflow",
        max_concurrency=64,
    )
    await trio.to_thread.run_sync(ReportStore(node.directory).write, report)
    secret = await node.token(Role.VIEWER)
    async with (
        serving(node.api()),
        httpx.AsyncClient(
            base_url=base_url(node), headers={"authorization": f"Bearer {secret}"}
        ) as client,
    ):
        listed = (await client.get("/api/v1/boot/reports")).json()
        assert [r["boot_id"] for r in listed["reports"]] == [report.boot_id]
        one = await client.get("/api/v1/boot/reports/3a5c1c52")
        assert one.json()["boot_id"] == report.boot_id
        assert (await client.get("/api/v1/boot/reports/ffffff")).status_code == 404
        for escape in ("-1", "..%2f..%2fx.json", "x.json"):
            assert (await client.get(f"/api/v1/boot/reports/{escape}")).status_code in (404, 422)


async def test_without_a_network_there_are_no_peers(node: Node) -> None:
    node.network = None
    secret = await node.token(Role.VIEWER)
    async with (
        serving(node.api()),
        httpx.AsyncClient(
            base_url=base_url(node), headers={"authorization": f"Bearer {secret}"}
        ) as client,
    ):
        answer = await client.get("/api/v1/peers")
    assert (answer.status_code, answer.json()["code"]) == (503, "api.not_here")


async def test_a_refused_body_still_gets_its_answer_over_a_socket(node: Node) -> None:
    secret = await node.token(Role.ADMIN)
    body = b"x" * (4 * 1024 * 1024)

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 65536):
            yield body[start : start + 65536]

    async with (
        serving(node.api()),
        httpx.AsyncClient(
            base_url=base_url(node), headers={"authorization": f"Bearer {secret}"}
        ) as client,
    ):
        for content in (body, chunks()):
            answer = await client.post("/api/v1/tokens", content=content)
            assert (answer.status_code, answer.json()["code"]) == (413, "api.body_too_large")


@pytest.mark.usefixtures("no_leaks")
@pytest.mark.parametrize("seconds", [0.0, 0.001, 0.01, 0.05])
async def test_a_start_that_is_cancelled_half_way_leaves_nothing_behind(
    node: Node, seconds: float
) -> None:
    api = node.api()
    async with trio.open_nursery() as nursery:
        with trio.move_on_after(seconds):
            await api.initialize(nursery)
        await api.shutdown()
        nursery.cancel_scope.cancel()
    assert api.statistics()["connections"] == 0


@pytest.mark.usefixtures("no_leaks")
async def test_shutdown_without_a_drain_ends_a_call_in_flight(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered = trio.Event()

    async def refresh() -> None:
        entered.set()
        await trio.sleep_forever()

    monkeypatch.setattr(node.environment, "refresh", refresh)
    secret = await node.token(Role.OPERATOR)
    async with (
        serving(node.api()) as nursery,
        httpx.AsyncClient(
            base_url=base_url(node), headers={"authorization": f"Bearer {secret}"}
        ) as client,
    ):

        async def call() -> None:
            with pytest.raises(httpx.RemoteProtocolError):
                await client.post("/api/v1/environment/refresh")

        async with trio.open_nursery() as calls:
            calls.start_soon(call)
            await entered.wait()
            nursery.cancel_scope.cancel()


def test_the_constructor_names_its_dependencies_by_type() -> None:
    hints = typing.get_type_hints(Api.__init__)
    assert hints["security"] is Security
    assert hints["database"] is Database
    assert hints["cache"] == Cache | None
    assert hints["network"] == Network | None
    assert hints["environment"] is Environment
    assert hints["identity"] is Identity
    assert hints["settings"] is ApiSettings
    assert hints["node"] is NodeView
    assert set(inspect.signature(Api).parameters) <= set(hints)


def test_importing_the_component_imports_neither_the_framework_nor_the_server() -> None:
    script = (
        "import sys, json; import novacron.api, novacron.monitoring, novacron.http; "
        "heavy = ['fastapi', 'starlette', 'hypercorn', 'h2', 'prometheus_client', 'asyncio', 'pydantic.v1']; "
        "print(json.dumps([m for m in heavy if m in sys.modules])); "
        "novacron.api.prefetch(); "
        "from novacron.api.application import build; build(None); "
        "print(json.dumps([m for m in heavy if m in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    before, after = map(json.loads, done.stdout.splitlines())
    assert before == []
    assert {"fastapi", "hypercorn"} <= set(after)
    assert not {"prometheus_client", "pydantic.v1"} & set(after)
