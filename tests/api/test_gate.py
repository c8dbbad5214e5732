"""Calls through the whole application, without a socket."""

from __future__ import annotations

import json
import re
import ssl
from typing import Any

import pytest

from novacron.api.policy import ACTIONS, rule_of
from novacron.errors import DatabaseError, LocalProtocolError, TransientError
from novacron.security import Role
from novacron.security.errors import AuditUnavailableError
from tests.api.calling import calling, records
from tests.api.conftest import Node


def certificate_der(node: Node) -> bytes:
    text = node.security.certificates.api_files().certificate.read_text()
    found = re.search("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", text, re.DOTALL)
    assert found
    return ssl.PEM_cert_to_DER_cert(found.group())


READS = [
    path.replace("{name}", "cache").replace("{key}", "api.port").replace("{id}", "ab54")
    for (method, path) in ACTIONS
    if method == "GET" and "{boot_id}" not in path
]


@pytest.mark.parametrize("path", READS)
async def test_each_read_answers_an_admin_with_json_and_nobody_without_a_token(
    node: Node, path: str
) -> None:
    async with calling(node, Role.ADMIN) as client:
        answer = await client.get(path)
        assert answer.status_code == 200, answer.text
        assert isinstance(answer.json(), dict)
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert len(answer.headers["x-request-id"]) == 16
        del client.headers["authorization"]
        refused = await client.get(path)
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"].startswith("Bearer")
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["code"] == "api.unauthenticated"


@pytest.mark.parametrize("role", list(Role)[:3])
async def test_each_route_holds_each_role_to_its_rule(node: Node, role: Role) -> None:
    async with calling(node, role) as client:
        for method, path in ACTIONS:
            rule = rule_of(method, path)
            answer = await client.request(method, path.replace("{boot_id}", "abcdef"))
            if rule.role is not None and role.allows(rule.role):
                assert answer.status_code not in (401, 403), (method, path)
            else:
                assert answer.status_code == 403, (method, path)
                assert answer.json()["code"] == "api.forbidden"


async def test_a_denied_call_is_in_the_audit_log_with_who_what_and_from_where(node: Node) -> None:
    async with calling(node, Role.VIEWER) as client:
        await client.get("/api/v1/tokens")
        del client.headers["authorization"]
        await client.get("/api/v1/status")
    forbidden, anonymous = records(node)[-2:]
    assert forbidden["actor"].startswith("token:")
    assert forbidden["outcome"] == "denied"
    assert forbidden["target"] == "/api/v1/tokens"
    assert forbidden["source"] == "192.0.2.7"
    assert anonymous["actor"] == "anonymous"
    assert anonymous["target"] == "/api/v1/status"


async def test_a_token_can_be_made_used_and_revoked_and_all_of_it_is_audited(node: Node) -> None:
    async with calling(node, Role.ADMIN) as client:
        made = await client.post("/api/v1/tokens", json={"name": "ci", "role": "viewer", "ttl": 60})
        assert made.status_code == 201
        secret, id = made.json()["secret"], made.json()["id"]
        as_it = {"authorization": f"Bearer {secret}"}
        who = (await client.get("/api/v1/whoami", headers=as_it)).json()
        assert who == {"kind": "token", "name": id, "role": "viewer", "resources": ["*"]}
        listed = (await client.get("/api/v1/tokens")).json()["tokens"]
        assert [t["state"] for t in listed if t["id"] == id] == ["active"]
        assert secret not in json.dumps(listed)
        assert (await client.delete(f"/api/v1/tokens/{id}")).status_code == 200
        assert (await client.get("/api/v1/whoami", headers=as_it)).status_code == 401
    told = [(r["action"], r["outcome"], r["target"]) for r in records(node)]
    assert ("token.create", "started", "/api/v1/tokens") in told
    assert ("token.create", "success", id) in told
    assert ("token.revoke", "started", f"/api/v1/tokens/{id}") in told
    assert ("token.revoke", "success", id) in told
    assert secret not in json.dumps(records(node))


async def test_a_token_can_be_rotated_and_its_holder_is_refused_at_no_moment(node: Node) -> None:
    async with calling(node, Role.ADMIN) as client:
        made = (await client.post("/api/v1/tokens", json={"name": "ci", "role": "viewer"})).json()
        path = f"/api/v1/tokens/{made['id']}/rotate"
        answer = await client.post(path, json={"grace": 60.0})
        assert answer.status_code == 200
        rotated = answer.json()
        for secret in (made["secret"], rotated["secret"]):
            as_it = {"authorization": f"Bearer {secret}"}
            assert (await client.get("/api/v1/whoami", headers=as_it)).json()["name"] == made["id"]
            assert (await client.post(path, headers=as_it)).status_code == 403, "a viewer"
        assert (await client.post(path, json={"grace": 0.0})).status_code == 200
        as_it = {"authorization": f"Bearer {rotated['secret']}"}
        assert (await client.get("/api/v1/whoami", headers=as_it)).status_code == 401
        assert (await client.post(path, json={"grace": -1.0})).status_code == 422
        assert (await client.post("/api/v1/tokens/unknown/rotate")).status_code == 404
    told = [(r["action"], r["outcome"], r["target"]) for r in records(node)]
    assert ("token.rotate", "started", path) in told
    assert ("token.rotate", "success", made["id"]) in told
    assert rotated["secret"] not in json.dumps(records(node))


async def test_a_change_that_fails_is_audited_as_a_failure(node: Node) -> None:
    async with calling(node, Role.ADMIN) as client:
        answer = await client.delete("/api/v1/tokens/unknown")
    assert answer.status_code == 404
    assert answer.json()["code"] == "security.token_not_found"
    assert [r["outcome"] for r in records(node)[-2:]] == ["started", "failure"]


async def test_a_change_is_refused_while_the_audit_log_cannot_be_written(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: Any, **__: Any) -> None:
        raise AuditUnavailableError("cannot write the audit log", why="the disk is full")

    async with calling(node, Role.ADMIN) as client:
        before = len(node.security.tokens.list())
        monkeypatch.setattr(node.security.audit, "append", full)
        answer = await client.post("/api/v1/tokens", json={"name": "ci", "role": "viewer"})
        assert answer.status_code == 503
        assert answer.json()["detail"] == "cannot write the audit log: the disk is full"
        assert len(node.security.tokens.list()) == before
        assert (await client.get("/api/v1/tokens")).status_code == 200, "reading goes on"
        assert (
            await client.get("/api/v1/status", headers={"authorization": "Bearer x"})
        ).status_code == 401, "a denial stays one"


async def test_a_change_that_is_made_stands_although_its_outcome_cannot_be_recorded(
    node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    append = node.security.audit.append

    async def fails_after(*arguments: Any, **record: Any) -> None:
        if record.get("outcome") == "success":
            raise AuditUnavailableError("cannot write the audit log")
        await append(*arguments, **record)

    monkeypatch.setattr(node.security.audit, "append", fails_after)
    async with calling(node, Role.ADMIN) as client:
        answer = await client.post("/api/v1/tokens", json={"name": "ci", "role": "viewer"})
    assert answer.status_code == 201
    assert "the outcome of a call is not in the audit log" in caplog.text


@pytest.mark.parametrize(
    ("header", "why"),
    [
        ("Basic dXNlcjpwYXNz", "not of the scheme Bearer"),
        ("Bearer", "unknown"),
        ("Bearer nct_0000000000000000_AAAA", "unknown"),
        ("Bearer \xff\xfe", "unknown"),
    ],
)
async def test_credentials_that_are_none_are_refused_and_not_quoted(
    node: Node, header: str, why: str
) -> None:
    async with calling(node) as client:
        answer = await client.get(
            "/api/v1/status", headers={b"authorization": header.encode("latin-1")}
        )
    assert answer.status_code == 401
    assert why in answer.json()["detail"]
    assert "dXNl" not in answer.text


async def test_a_node_with_its_certificate_may_read_what_nodes_need_and_no_more(
    node: Node,
) -> None:
    der = certificate_der(node)
    async with calling(node, certificate=der) as client:
        who = (await client.get("/api/v1/whoami")).json()
        assert who["kind"] == "certificate"
        assert who["role"] == "node"
        assert (await client.get("/api/v1/health")).status_code == 200
        assert (await client.get("/api/v1/components")).status_code == 403


async def test_a_certificate_that_is_none_of_ours_is_refused(node: Node) -> None:
    async with calling(node, certificate=b"not a certificate") as client:
        answer = await client.get("/api/v1/status")
    assert answer.status_code == 401
    assert "its certificate" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (b"{", "body"),
        (b"[]", "body"),
        (b'{"name": "a"}', "body.role"),
        (b'{"name": "a", "role": "root"}', "body.role"),
        (b'{"name": "a", "role": "viewer", "ttl": "long"}', "body.ttl"),
        (b'{"name": "a", "role": "viewer", "extra": "hush-hush"}', "body.extra"),
    ],
)
async def test_an_invalid_body_is_explained_and_its_values_are_not_repeated(
    node: Node, body: bytes, where: str
) -> None:
    async with calling(node, Role.ADMIN) as client:
        answer = await client.post(
            "/api/v1/tokens", content=body, headers={"content-type": "application/json"}
        )
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert any(error["where"].startswith(where) for error in answer.json()["errors"])
    assert "hush-hush" not in answer.text


async def test_errors_of_the_components_below_keep_their_words(node: Node) -> None:
    async with calling(node, Role.ADMIN) as client:
        missing = await client.get("/api/v1/components/gone")
        assert (missing.status_code, missing.json()["detail"]) == (
            404,
            "there is no component 'gone'",
        )
        key = await client.get("/api/v1/configuration/api.prot")
        assert key.status_code == 404
        assert "api.port" in key.json()["remedy"]
        token = await client.post("/api/v1/tokens", json={"name": "", "role": "viewer"})
        assert (token.status_code, token.json()["code"]) == (422, "security.token")


async def test_a_path_that_is_not_there_is_404_and_a_wrong_method_405(node: Node) -> None:
    async with calling(node, Role.VIEWER) as client:
        for path in ("/", "/api/v1", "/api/v1/status/", "/docs", "/openapi.json", "/api/v2/status"):
            answer = await client.get(path)
            assert (answer.status_code, answer.json()["code"]) == (404, "api.no_route"), path
        answer = await client.post("/api/v1/status")
        assert answer.status_code == 405
        assert answer.headers["allow"] == "GET, HEAD"
        assert (await client.get("/api/v1/tokens/abc")).headers["allow"] == "DELETE"


async def test_head_answers_like_get_without_a_body(node: Node) -> None:
    async with calling(node, Role.VIEWER) as client:
        answer = await client.head("/api/v1/status")
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["content-length"]) > 0


async def test_an_unexpected_error_is_an_incident_whose_details_stay_in_the_log(
    node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> Any:
        raise RuntimeError("internals: /var/lib/novacron")

    monkeypatch.setattr(node.view, "report", broken)
    async with calling(node, Role.VIEWER) as client:
        answer = await client.get("/api/v1/boot")
    assert answer.status_code == 500
    assert "internals" not in answer.text
    incident = answer.json()["incident"]
    assert answer.headers["x-request-id"] == incident
    [logged] = [r for r in caplog.records if incident in r.getMessage()]
    assert "internals" in str(logged.exc_info)


async def test_our_own_protocol_faults_and_errors_on_no_axis_are_incidents_too(
    node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Ours(DatabaseError, LocalProtocolError):
        pass

    for error in (Ours("internals"), DatabaseError("internals")):

        def broken(error: Exception = error) -> Any:
            raise error

        monkeypatch.setattr(node.view, "report", broken)
        async with calling(node, Role.VIEWER) as client:
            answer = await client.get("/api/v1/boot")
        assert answer.status_code == 500
        assert "internals" not in answer.text
    assert caplog.text.count("failed unexpectedly") == 2


async def test_a_passing_failure_says_when_to_try_again(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Busy(DatabaseError, TransientError):
        code = "database.busy"

    async def busy() -> None:
        raise Busy("the database is busy")

    monkeypatch.setattr(node.environment, "refresh", busy)
    async with calling(node, Role.OPERATOR) as client:
        answer = await client.post("/api/v1/environment/refresh")
    assert (answer.status_code, answer.json()["code"]) == (503, "database.busy")
    assert answer.headers["retry-after"] == "1"
    assert records(node)[-1]["outcome"] == "failure"


async def test_the_secret_of_a_token_reaches_no_log(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    async with calling(node, Role.ADMIN) as client:
        secret = client.headers["authorization"].partition(" ")[2]
        made = await client.post("/api/v1/tokens", json={"name": "ci", "role": "viewer"})
        await client.get("/api/v1/status")
        await client.get("/api/v1/nothing")
    logged = "\n".join(
        f"{record.getMessage()} {record.__dict__}"
        for record in caplog.records
        if record.name.startswith("novacron")
    )
    assert secret not in logged
    assert made.json()["secret"] not in logged
